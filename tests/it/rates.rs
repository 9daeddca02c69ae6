//! `--upstream-rate` and `--reject-pause`: how often an upstream is asked, what waits
//! for that, and what does not.

use crate::support::{
    Client, FakeUpstream, HOUR, LONG, RESET, SHORT, ServerProcess, Service, ZERO, count, proxy,
    wait_for_count, wait_until,
};
use poetry::upstream::RejectPause;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A proxy of two upstreams with these limits, the first of which comes first.
fn pair(rate: Option<&str>, pause: RejectPause) -> (FakeUpstream, FakeUpstream, Service) {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let builder = proxy(&first).line().upstreams(&[first.addr, second.addr]);
    let proxy = builder.reject("^rate exceeded").limits(rate, pause).start();
    (first, second, proxy)
}

/// Asks, and has `upstream` answer.
fn answered(proxy: &Service, request: &[u8], upstream: &FakeUpstream, poem: &[u8]) {
    let mut client = proxy.request(request);
    upstream.accept().skip(request.len() + 1).send(poem).close();
    assert_eq!(client.rest().unwrap(), poem);
}

#[test]
fn waiting_fetches_go_one_by_one() {
    const EACH: Duration = Duration::from_millis(50);
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line();
    let proxy = builder.limits(Some("20/s"), RejectPause::Never).start();

    let begun = Instant::now();
    let mut clients: Vec<Client> = Vec::new();
    for at in 0..8 {
        clients.push(proxy.request(format!("name{at}\n").as_bytes()));
        wait_until("its fetch is asked for", || {
            let fetches = proxy.snapshot().fetches.unwrap();
            fetches.begun + fetches.waiting > at
        });
    }
    for turn in 0..8 {
        let (connection, asked) = upstream.accept().read(7);
        assert!(begun.elapsed() >= EACH * turn, "{turn} came too soon");
        assert_eq!(asked, format!("name{turn}\r\n").into_bytes(), "in order");
        connection.send(b"poem").close();
    }
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    let waits = proxy.snapshot().fetches.unwrap().rate_waits;
    assert!((1..=7).contains(&waits), "{waits}");
}

#[test]
fn a_fetch_that_waits_for_the_rate_has_no_place() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.limits(Some("1/h"), RejectPause::Never).start();
    answered(&proxy, b"one\n", &upstream, b"poem");
    wait_for_count("kept", &proxy.stats.kept, 1);

    let client = proxy.request(b"two\n");
    proxy.wait_for_waiting(1);
    let fetches = proxy.snapshot().fetches.unwrap();
    assert_eq!((fetches.running, fetches.rate_waits), (0, 1));
    assert_eq!(
        proxy.ask(b"one\n").unwrap(),
        b"poem",
        "a hit waits for nothing"
    );

    client.reset();
    proxy.wait_for_waiting(0);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_stale_poem_does_not_wait_for_the_rate() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().ttl(ZERO).grace(HOUR);
    let proxy = builder.limits(Some("1/h"), RejectPause::Never).start();
    answered(&proxy, b"one\n", &upstream, b"poem");
    wait_for_count("kept", &proxy.stats.kept, 1);

    for _ in 0..3 {
        assert_eq!(proxy.ask(b"one\n").unwrap(), b"poem");
    }
    assert_eq!(proxy.proxy().waiting_fetches(), 1, "one refresh waits");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn the_next_upstream_is_asked_while_the_first_may_not_be() {
    let (first, second, proxy) = pair(Some("1/h"), RejectPause::Never);
    answered(&proxy, b"one\n", &first, b"poem");
    answered(&proxy, b"two\n", &second, b"other");

    let _third = proxy.request(b"three\n");
    wait_for_count("waits", &proxy.stats.rate_waits, 1);
    assert_eq!((first.connections(), second.connections()), (1, 1));
}

#[test]
fn a_fetch_waits_for_the_rate_no_longer_than_a_fetch_may_take() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().fetch_timeout(SHORT);
    let proxy = builder.limits(Some("1/h"), RejectPause::Never).start();
    answered(&proxy, b"one\n", &upstream, b"poem");
    assert_eq!(proxy.ask(b"two\n"), RESET);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn after_a_failure_the_turn_of_the_next_upstream_is_waited_for() {
    let (first, second, proxy) = pair(Some("2/s"), RejectPause::Never);
    answered(&proxy, b"one\n", &first, b"poem");
    answered(&proxy, b"two\n", &second, b"poem");

    let mut client = proxy.request(b"three\n");
    first.accept().reset();
    second.accept().skip(7).send(b"poem").close();
    assert_eq!(client.rest().unwrap(), b"poem");
}

#[test]
fn an_upstream_whose_answer_was_rejected_is_not_asked() {
    let (first, second, proxy) = pair(None, RejectPause::Fixed(HOUR));
    answered(&proxy, b"one\n", &first, b"rate exceeded");
    answered(&proxy, b"one\n", &second, b"poem");
    answered(&proxy, b"two\n", &second, b"poem");

    let upstreams = proxy.snapshot().upstreams;
    let left = upstreams[0].paused.unwrap();
    assert!(HOUR - LONG < left && left <= HOUR, "{left:?}");
    assert_eq!(upstreams[1].paused, None);

    answered(&proxy, b"three\n", &second, b"rate exceeded");
    let client = proxy.request(b"four\n");
    proxy.wait_for_waiting(1);
    assert_eq!(count(&proxy.stats.rate_waits), 1);
    client.reset();
    proxy.wait_for_waiting(0);
    assert_eq!((first.connections(), second.connections()), (1, 3));
}

#[test]
fn after_a_pause_the_upstream_is_asked_again() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().reject("^rate exceeded");
    let pause = RejectPause::Fixed(Duration::from_millis(100));
    let proxy = builder.limits(Some("1000/s"), pause).start();
    answered(&proxy, b"one\n", &upstream, b"rate exceeded");

    let begun = Instant::now();
    answered(&proxy, b"one\n", &upstream, b"poem");
    wait_until("the end of the pause", || {
        begun.elapsed() >= Duration::from_millis(100)
    });
    assert_eq!(proxy.snapshot().upstreams[0].paused, None);
}

#[test]
fn without_a_rate_or_a_pause_a_rejected_answer_changes_nothing() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().reject("^no such");
    let proxy = builder.start();
    for request in [b"one\n", b"two\n", b"one\n"] {
        answered(&proxy, request, &upstream, b"no such name");
    }
    assert_eq!(proxy.snapshot().upstreams[0].paused, None);
    assert_eq!(count(&proxy.stats.rate_waits), 0);
}

/// A registry that bans whoever asks more than `QUOTA` times within `WINDOW`.
fn registry(upstream: FakeUpstream, bans: Arc<AtomicU64>) {
    const QUOTA: usize = 6;
    const WINDOW: Duration = Duration::from_millis(300);
    let times = Mutex::new(VecDeque::new());

    upstream.serve_each(move |_, connection| {
        let (connection, name) = connection.read(8);
        let mut times = times.lock().unwrap();
        let now = Instant::now();
        times.push_back(now);
        while times.front().is_some_and(|first| now - *first >= WINDOW) {
            times.pop_front();
        }
        if times.len() > QUOTA {
            bans.fetch_add(1, Ordering::Relaxed);
        }
        connection.send(&name).close();
    });
}

#[test]
fn an_office_with_more_names_than_the_quota_is_never_banned() {
    let upstreams = [FakeUpstream::new(), FakeUpstream::new()];
    let addrs = [upstreams[0].addr, upstreams[1].addr];
    // Half of the quota leaves room for what a loaded machine delays on the way.
    let builder = proxy(&upstreams[0]).line().upstreams(&addrs);
    let proxy = builder
        .limits(Some("10/s,burst=2"), RejectPause::Never)
        .start();
    let bans = Arc::new(AtomicU64::new(0));
    for upstream in upstreams {
        registry(upstream, bans.clone());
    }

    let names: Vec<String> = (0..40).map(|at| format!("name{:02}", at % 20)).collect();
    let clients = names
        .iter()
        .map(|name| proxy.request(format!("{name}\n").as_bytes()));
    let clients: Vec<Client> = clients.collect();
    for (mut client, name) in clients.into_iter().zip(&names) {
        assert_eq!(client.rest().unwrap(), format!("{name}\r\n").into_bytes());
    }
    assert_eq!(count(&bans), 0);
    assert_eq!(count(&proxy.stats.kept), 20);
    assert!(count(&proxy.stats.rate_waits) > 0);
}

#[test]
fn the_log_says_why_a_fetch_waits_and_why_an_upstream_is_not_asked() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let forms = [
        (
            "text",
            format!("{addr}: its answer matches --reject; not asked for 1m"),
            format!("'two': waiting until {addr} may be asked"),
        ),
        (
            "json",
            "\"event\":\"upstream_paused\",\"pause_ms\":60000".to_string(),
            "\"event\":\"fetch_delayed\",\"key\":\"two\"".to_string(),
        ),
    ];
    for (format, paused, delayed) in forms {
        let mut server = ServerProcess::start(&[
            "proxy",
            "--port",
            "0",
            "--protocol",
            "line",
            "--log-format",
            format,
            "--upstream-rate",
            "30/min,burst=5",
            "--reject",
            "^rate",
            &addr,
        ]);
        let log = server.stderr_lines();
        let mut client = server.connect();
        client.send(b"one\n");
        upstream.accept().skip(5).send(b"rate exceeded").close();
        assert_eq!(client.rest().unwrap(), b"rate exceeded");
        let mut waiting = server.connect();
        waiting.send(b"two\n");

        for wanted in [&paused, &delayed] {
            while !log.recv_timeout(LONG).unwrap().contains(wanted) {}
        }
    }
}
