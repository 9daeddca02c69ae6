//! Health, table by table: what an operator reads of each trouble.

use super::*;
use crate::admin::clock::tests::clock;
use crate::admin::sample::{history, now, plain_snapshot, secs, snapshot, upstream};
use crate::control::FeedCounts;

/// The health of a proxy after five minutes in which `change` happened before each
/// sample, and `finally` once.
fn health_of(
    mut snapshot: Snapshot,
    change: impl Fn(&mut Snapshot, u32),
    finally: impl Fn(&mut Snapshot),
) -> HealthReport {
    let now = now();
    let history = history(&mut snapshot, now, change);
    finally(&mut snapshot);
    HealthReport::of(&snapshot, &history, false, &clock(now))
}

fn assert_degraded(health: HealthReport, reasons: &[&str]) {
    assert_eq!(health.reasons, reasons);
    assert_eq!(health.condition, Condition::Degraded);
}

fn hits(snapshot: &mut Snapshot, _: u32) {
    snapshot.connections.hit += 10;
}

fn nothing(_: &mut Snapshot) {}

#[test]
fn what_works_needs_no_words() {
    type Course = fn(&mut Snapshot, u32);
    let table: [(&str, Course); 5] = [
        ("hits", hits),
        ("2 % fail", |snapshot, _| {
            snapshot.connections.hit += 49;
            snapshot.connections.failure += 1;
        }),
        ("stale answers while refreshes succeed", |snapshot, _| {
            snapshot.connections.stale += 5;
        }),
        ("failures long ago", |snapshot, number| {
            snapshot.connections.failure += u64::from(number < 150);
            snapshot.connections.hit += 1;
        }),
        ("health checks", |snapshot, _| {
            snapshot.connections.unasked += 1
        }),
    ];
    for (name, course) in table {
        let health = health_of(snapshot(), course, nothing);
        assert_eq!(health.reasons, Vec::<String>::new(), "{name}");
        assert_eq!(health.condition, Condition::Ok, "{name}");
    }
}

#[test]
fn an_upstream_fails_while_another_answers() {
    let down = UpstreamState::Down(secs(90));
    let health = health_of(snapshot(), hits, |snapshot| {
        snapshot.upstreams[0] = upstream("one.example:43", down);
    });

    assert_degraded(
        health,
        &[
            "one.example:43 has failed since 11:45:36 UTC: could not connect: connection \
           refused. two.example:43 is asked instead.",
        ],
    );
}

#[test]
fn all_upstreams_fail_and_the_cache_answers() {
    let health = health_of(snapshot(), hits, |snapshot| {
        snapshot.upstreams = vec![
            upstream("one.example:43", UpstreamState::Down(secs(30))),
            upstream("two.example:43", UpstreamState::Down(secs(90))),
        ];
    });

    assert_degraded(
        health,
        &[
            "Both upstreams fail, two.example:43 since 11:45:36 UTC: could not connect: \
           connection refused. 137 texts are cached; they answered 100.0 % of the last \
           minute's requests.",
        ],
    );
}

#[test]
fn the_readers_of_a_feed_wait_for_its_source() {
    let health = health_of(snapshot(), hits, |snapshot| {
        snapshot.upstreams = vec![upstream("one.example:43", UpstreamState::Down(secs(90)))];
        snapshot.cache = None;
        snapshot.feed = Some(FeedCounts {
            readers: 12,
            ..FeedCounts::default()
        });
    });

    assert_degraded(
        health,
        &[
            "one.example:43 has failed since 11:45:36 UTC: could not connect: connection \
           refused. 12 readers wait for it.",
        ],
    );
}

#[test]
fn the_only_upstream_fails_and_nothing_is_cached() {
    let health = health_of(snapshot(), hits, |snapshot| {
        snapshot.upstreams = vec![upstream("one.example:43", UpstreamState::Down(secs(90)))];
        snapshot.cache = None;
    });

    assert_degraded(
        health,
        &[
            "one.example:43 has failed since 11:45:36 UTC: could not connect: connection \
           refused. Nothing is cached, so nothing can be served.",
        ],
    );
}

#[test]
fn stale_texts_are_served_because_refreshes_fail() {
    let course = |snapshot: &mut Snapshot, number: u32| {
        snapshot.connections.hit += 9;
        snapshot.connections.stale += u64::from(number > 155);
        let fetches = snapshot.fetches.as_mut().unwrap();
        fetches.ended[1][3] += u64::from(number > 155);
    };

    // Samples 156 to 200 are 90 seconds.
    assert_degraded(
        health_of(snapshot(), course, nothing),
        &[
            "Refreshes fail, so 30 answers of the last minute were stale (10.0 %); since \
           11:45:36 UTC.",
        ],
    );
}

#[test]
fn more_than_two_percent_fail() {
    let course = |snapshot: &mut Snapshot, number: u32| {
        snapshot.connections.hit += 47;
        let failed = u64::from(number > 155);
        snapshot.connections.failure += 3 * failed;
        snapshot.failures[3] += 2 * failed;
        snapshot.failures[4] += failed;
    };

    assert_degraded(
        health_of(plain_snapshot(), course, nothing),
        &[
            "90 of 1,500 requests in the last minute got no whole answer (6.0 %), most of \
           them: refused; since 11:45:36 UTC.",
        ],
    );
}

#[test]
fn fetches_wait_for_their_turn() {
    let queue = |waiting, wait| {
        health_of(snapshot(), hits, move |snapshot| {
            let fetches = snapshot.fetches.as_mut().unwrap();
            fetches.running = fetches.places;
            fetches.waiting = waiting;
            fetches.oldest_wait = Duration::from_millis(wait);
        })
    };

    assert_eq!(queue(3, 9999).condition, Condition::Ok);
    assert_degraded(
        queue(3, 31_500),
        &["3 fetches wait for one of 2 connections to the upstream, the first for 31s."],
    );
    assert_degraded(
        queue(1, 10_000),
        &["1 fetch waits for one of 2 connections to the upstream, the first for 10s."],
    );
}

#[test]
fn fetches_wait_until_an_upstream_may_be_asked() {
    let waiting = |paused: Option<Duration>| {
        health_of(snapshot(), hits, move |snapshot| {
            snapshot.upstreams[0].paused = paused;
            let fetches = snapshot.fetches.as_mut().unwrap();
            fetches.running = fetches.places - 1;
            fetches.waiting = 3;
            fetches.oldest_wait = secs(31);
        })
    };

    assert_degraded(
        waiting(None),
        &["3 fetches wait for --upstream-rate, the first for 31s."],
    );
    let report = waiting(Some(secs(59)));
    let reason = "rejected a request and is not asked for 59s, the first for 31s.";
    assert!(report.reasons[0].ends_with(reason), "{:?}", report.reasons);
}

#[test]
fn an_upstream_fails_and_no_client_asks() {
    let health = health_of(
        snapshot(),
        |_, _| {},
        |snapshot| {
            snapshot.upstreams = vec![upstream("one.example:43", UpstreamState::Down(secs(90)))];
        },
    );

    assert_degraded(
        health,
        &[
            "one.example:43 has failed since 11:45:36 UTC: could not connect: connection \
           refused. 137 texts are cached, and served until their ttl and grace are over.",
        ],
    );
}

#[test]
fn as_many_clients_are_connected_as_may_be() {
    let connected = |open, limit| {
        health_of(plain_snapshot(), hits, move |snapshot| {
            snapshot.connections.open = open;
            snapshot.connections.limit = limit;
        })
    };

    assert_eq!(connected(3999, 4000).condition, Condition::Ok);
    assert_eq!(connected(3999, 0).condition, Condition::Ok, "no limit");
    assert_degraded(
        connected(4000, 4000),
        &[
            "4,000 clients are connected, which is the limit (--max-clients): others wait \
           to be accepted.",
        ],
    );
}

#[test]
fn accepting_pauses_and_a_bug_shows() {
    let health = health_of(
        plain_snapshot(),
        |snapshot, number| {
            snapshot.connections.own += 1;
            snapshot.accept_pauses += u64::from(number == 195);
            snapshot.panics += u64::from(number == 195);
        },
        nothing,
    );

    assert_degraded(
        health,
        &[
            "Clients waited to be accepted: 1 pause in the last minute for lack of \
             descriptors or memory.",
            "1 task in the last minute ended by a bug, and its clients were reset: see \
             the log.",
        ],
    );
}

#[test]
fn a_service_that_stops_says_so_first() {
    let now = now();
    let mut snapshot = snapshot();
    let history = history(&mut snapshot, now, hits);
    let told = |snapshot: &Snapshot| HealthReport::of(snapshot, &history, true, &clock(now));

    let health = told(&snapshot);
    assert_eq!(health.condition, Condition::Draining);
    assert_eq!(
        health.reasons,
        ["The service stops: 14 connections are open and may finish."]
    );

    snapshot.connections.open = 1;
    snapshot.upstreams[0] = upstream("one.example:43", UpstreamState::Down(secs(90)));
    let health = told(&snapshot);
    assert_eq!(health.reasons.len(), 2);
    assert_eq!(
        health.reasons[0],
        "The service stops: 1 connection is open and may finish."
    );
}

#[test]
fn an_error_from_outside_controls_no_terminal() {
    let health = health_of(snapshot(), hits, |snapshot| {
        let mut down = upstream("one.example:43", UpstreamState::Down(secs(1)));
        down.last_error = Some(("one.example:43: \u{1b}[31mred".to_string(), secs(1)));
        snapshot.upstreams[0] = down;
    });

    assert!(health.reasons[0].contains(r"\u{1b}[31mred"), "{health:?}");
}
