//! What an operator is told, and how it is counted.

use super::*;
use crate::admin::clock::tests::clock;
use crate::admin::sample::{now, secs};
use crate::error::{Error, Stage};
use crate::observe::{FetchCause, FetchName};

fn refused(subject: &str) -> Error {
    Error::Unreachable {
        subject: subject.into(),
        why: "connection refused".into(),
    }
}

fn fetch<'a>(upstream: &'a str) -> FetchName<'a> {
    let request = b"a secret";
    let cause = FetchCause::Miss;
    FetchName {
        upstream,
        request,
        cause,
        route: None,
    }
}

fn note_failure(notices: &Notices, upstream: &str, error: &Error, now: Instant) {
    let fetch = fetch(upstream);
    let waiting = 1;
    let event = Event::FetchFailed {
        fetch,
        error,
        waiting,
        time: secs(0),
    };
    notices.note_event(&event, now);
}

/// Level, text and count of each.
fn told(notices: &Notices, now: Instant) -> Vec<(String, String, u64)> {
    let json = notices.to_json(&clock(now));
    let list = json.as_array().unwrap().iter();
    let one = |notice: &Value| {
        let text = |name: &str| notice[name].as_str().unwrap().to_string();
        (
            text("level"),
            text("text"),
            notice["count"].as_u64().unwrap(),
        )
    };
    list.map(one).collect()
}

#[test]
fn what_repeats_is_counted_and_moves_to_the_front() {
    let (notices, now) = (Notices::new(), now());

    note_failure(&notices, "one", &refused("one"), now);
    note_failure(&notices, "two", &refused("two"), now + secs(1));
    note_failure(&notices, "one", &refused("one"), now + secs(2));

    let told = told(&notices, now + secs(2));
    let error = |text: &str, count| ("error".to_string(), text.to_string(), count);
    assert_eq!(
        told,
        [
            error("one: could not connect: connection refused", 2),
            error("two: could not connect: connection refused", 1),
        ]
    );
    let json = notices.to_json(&clock(now + secs(2)));
    assert_eq!(json[0]["time"], "2026-11-26T11:47:06.000Z");
    assert_eq!(json[1]["time"], "2026-11-26T11:47:05.000Z");
}

#[test]
fn troubles_of_one_kind_count_together_whatever_their_texts() {
    let (notices, now) = (Notices::new(), now());

    for got in 0..100 {
        let (subject, why) = ("one".to_string(), "reset".to_string());
        let error = Error::Reset { subject, got, why };
        note_failure(&notices, "one", &error, now);
    }

    let told = told(&notices, now);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, "one: cut off after 99 bytes: reset");
    assert_eq!(told[0].2, 100);
}

#[test]
fn the_last_20_are_kept() {
    let (notices, now) = (Notices::new(), now());

    for number in 0..30 {
        let name = format!("upstream{number}");
        note_failure(&notices, &name, &refused(&name), now);
    }

    let told = told(&notices, now);
    assert_eq!(told.len(), MAX_NOTICES);
    assert!(told[0].1.starts_with("upstream29:"));
    assert!(told[19].1.starts_with("upstream10:"));
}

#[test]
fn no_notice_is_long_or_controls_a_terminal() {
    let (notices, now) = (Notices::new(), now());
    let long = "ü".repeat(1000);

    note_failure(&notices, "one", &refused(&long), now);
    note_failure(&notices, "two", &refused("\u{1b}[31m\u{202e}"), now);

    let told = told(&notices, now);
    assert!(
        told[0].1.starts_with(r"\u{1b}[31m\u{202e}: "),
        "{}",
        told[0].1
    );
    assert!(told[1].1.len() <= MAX_TEXT + "…".len());
    assert!(told[1].1.ends_with("ü…"));
}

#[test]
fn changes_and_troubles_have_their_levels_and_name_no_request() {
    let now = now();
    let error = &refused("one");
    let (fetch, next, upstream) = (fetch("one"), "two", "one");
    let (bytes, time, kept, open) = (1, secs(1), true, 3);
    let full = &std::io::Error::from_raw_os_error(24);
    let addrs = &["127.0.0.1:43".to_string()][..];
    let (verb, signal, why, pause) = ("Proxying", "SIGTERM", "matches --reject", secs(1));
    let after = std::time::Duration::from_millis(90_700);
    let purged = |texts| Reloaded::Purged { texts };

    let table: [(Event<'_>, &str, &str); 15] = [
        (
            Event::Started { verb, addrs },
            "info",
            "started: Proxying on 127.0.0.1:43",
        ),
        (
            Event::Stopping { signal, open },
            "info",
            "stopping: SIGTERM",
        ),
        (
            Event::Draining { open },
            "info",
            "finishing 3 open connections",
        ),
        (
            Event::Cut { open },
            "error",
            "reset 3 connections at the end of the drain",
        ),
        (
            Event::Rejected { fetch, why },
            "warn",
            "one: rejected: matches --reject",
        ),
        (
            Event::NextUpstream { fetch, error, next },
            "warn",
            "one: could not connect: connection refused; two is asked",
        ),
        (
            Event::UpstreamDown {
                upstream,
                error,
                pause,
            },
            "error",
            "one: could not connect: connection refused; it is not asked first for a while",
        ),
        (
            Event::UpstreamUp { upstream, after },
            "info",
            "one answers again, after 1m 30s",
        ),
        (
            Event::SentOriginal { fetch, error },
            "warn",
            "one: could not connect: connection refused; the original was sent",
        ),
        (
            Event::Declined { error },
            "warn",
            "declined a request: one: could not connect: connection refused",
        ),
        (
            Event::FewDescriptors { clients: 40 },
            "warn",
            "descriptors for 40 clients only",
        ),
        (
            Event::AcceptPaused { error: full, pause },
            "error",
            "no connection could be accepted: too many open files",
        ),
        (
            Event::Reloaded { what: purged(137) },
            "info",
            "purged 137 cached answers",
        ),
        (
            Event::Reloaded { what: purged(1) },
            "info",
            "purged 1 cached answer",
        ),
        (
            Event::Reloaded {
                what: Reloaded::Poems { poems: 4 },
            },
            "info",
            "read 4 poems again",
        ),
    ];
    for (event, level, text) in table {
        let notices = Notices::new();
        notices.note_event(&event, now);
        assert_eq!(
            told(&notices, now),
            [(level.to_string(), text.to_string(), 1)]
        );
    }

    let notices = Notices::new();
    notices.note_event(&Event::Fetching { fetch }, now);
    notices.note_event(
        &Event::Fetched {
            fetch,
            bytes,
            time,
            kept,
        },
        now,
    );
    notices.note_event(&Event::GivenUp { fetch, bytes, time }, now);
    notices.note_event(
        &Event::Reloaded {
            what: Reloaded::Nothing,
        },
        now,
    );
    assert_eq!(told(&notices, now), []);
}

#[test]
fn of_requests_only_troubles_without_an_event_are_noted() {
    let now = now();
    let timeout = || Error::Timeout {
        subject: "a program".into(),
        stage: Stage::Connect,
        limit: secs(1),
    };
    let failed = Outcome::Failed(std::sync::Arc::new(timeout()));
    let table = [
        (Outcome::Whole, CacheStatus::Own, 0),
        (Outcome::Left, CacheStatus::Own, 0),
        (failed.clone(), CacheStatus::Miss, 0), // the fetch has told of it
        (failed, CacheStatus::Own, 1),
        (Outcome::FellBehind(64 << 10), CacheStatus::Coalesced, 1),
    ];
    for (outcome, status, count) in table {
        let notices = Notices::new();
        let record = AccessRecord {
            peer: &"127.0.0.1:1",
            request: b"a secret",
            status,
            route: None,
            fetch: None,
            outcome,
            bytes: 0,
            wait: secs(0),
            total: secs(0),
            stored: false,
            feed: None,
        };
        notices.note_request(&record, now);
        assert_eq!(told(&notices, now).len(), count, "{:?}", record.outcome);
    }
}
