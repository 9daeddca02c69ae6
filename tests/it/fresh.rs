//! `--serve-stale on-error`: a new poem where the upstream is well, and the stale one
//! where it is not. A ttl of zero makes a poem stale at once. And `--refresh-ahead`.

use crate::support::{
    Client, FakeUpstream, HOUR, LONG, RESET, SHORT, ServerProcess, Service, ZERO, count, poetry,
    proxy, text, wait_for_count, wait_until,
};
use poetry::cache::Purge;
use poetry::control::Texts;
use poetry::observe::FetchCause;
use poetry::upstream::RejectPause;
use std::io::Write;
use std::net::TcpListener;
use std::thread::spawn;
use std::time::{Duration, Instant};

/// A proxy that has a stale `old poem`, and asks for a new one first, for so long.
fn fresh_first(upstream: &FakeUpstream, stale_after: Duration) -> Service {
    let builder = proxy(upstream).ttl(ZERO).grace(HOUR);
    builder
        .fresh_first(stale_after)
        .start_with(upstream, b"old poem")
}

#[test]
fn clients_of_a_stale_poem_wait_for_one_refresh() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, LONG);

    let clients: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    let refresh = upstream.accept().send(b"new ");
    wait_until("all of them wait", || {
        proxy.snapshot().fetches.unwrap().readers == 50
    });
    refresh.send(b"poem").close();

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"new poem");
    }
    assert_eq!(upstream.connections(), 2);
    wait_for_count("coalesced", &proxy.stats.coalesced, 49);
    assert_eq!(
        count(&proxy.stats.misses),
        2,
        "the first of all, and this one"
    );
    assert_eq!(count(&proxy.stats.stale), 0);
}

#[test]
fn a_refused_refresh_is_answered_with_the_stale_poem_at_once() {
    let unused = FakeUpstream::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = proxy(&unused).upstreams(&[listener.local_addr().unwrap()]);
    let proxy = builder.ttl(ZERO).grace(HOUR).fresh_first(LONG).start();
    let once = spawn(move || listener.accept().unwrap().0.write_all(b"old poem").unwrap());
    assert_eq!(proxy.get().unwrap(), b"old poem");
    once.join().unwrap();
    wait_for_count("kept", &proxy.stats.kept, 1);

    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(proxy.get().unwrap(), b"old poem");
    }
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    wait_for_count("stale", &proxy.stats.stale, 5);
}

#[test]
fn an_upstream_that_hangs_costs_a_client_its_wait_and_no_more() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, SHORT);

    let begun = Instant::now();
    assert_eq!(proxy.get().unwrap(), b"old poem");
    assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
    wait_for_count("stale", &proxy.stats.stale, 1);

    // The refresh goes on without it, and delays no other client.
    for _ in 0..3 {
        let answer = proxy.get_at(Instant::now());
        assert!(answer.is_ready());
        assert_eq!(answer.read(), b"old poem");
    }
    upstream.serve_once(b"new poem");
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_refresh_that_is_cut_is_not_passed_on() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, LONG);
    let mut client = proxy.connect();
    upstream.accept().send(b"new").reset();
    assert_eq!(client.rest().unwrap(), b"old poem");
    wait_for_count("stale", &proxy.stats.stale, 1);
}

#[test]
fn while_refreshes_pause_the_stale_poem_is_served_at_once() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, LONG);
    let mut client = proxy.connect();
    upstream.accept().reset();
    assert_eq!(client.rest().unwrap(), b"old poem");

    // The pause is a second: an answer without a connection is made before its end.
    let answer = proxy.get_at(Instant::now());
    assert!(answer.is_ready());
    assert_eq!(answer.read(), b"old poem");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_part_of_the_stale_poem_is_doubted_while_the_client_waits() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, LONG);
    let mut client = proxy.connect();
    upstream.serve_once(b"old");
    upstream.serve_once(b"old poem, longer");
    assert_eq!(client.rest().unwrap(), b"old poem, longer");

    let mut client = proxy.connect();
    upstream.serve_once(b"old");
    upstream.serve_once(b"old poem");
    assert_eq!(client.rest().unwrap(), b"old poem, longer", "two parts");
}

#[test]
fn an_error_message_does_not_take_the_place_of_a_stale_poem() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR).reject("^rate");
    let proxy = builder.fresh_first(LONG).start_with(&upstream, b"old poem");
    let mut client = proxy.connect();
    upstream.serve_once(b"rate exceeded");
    assert_eq!(client.rest().unwrap(), b"old poem");
}

#[test]
fn a_poem_that_has_become_too_long_leaves_the_stale_one() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR).max_poem(64 << 10);
    let proxy = builder.fresh_first(LONG).start_with(&upstream, b"old poem");
    let mut client = proxy.connect();
    let flood = upstream.accept().flood();
    assert_eq!(client.rest().unwrap(), b"old poem");
    flood.join().unwrap(); // nobody reads it, so it is given up
}

#[test]
fn a_purged_poem_is_not_served_to_those_who_wait() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, LONG);
    let mut client = proxy.connect();
    let refresh = upstream.accept();
    proxy.purge(Texts::All, Purge::Hard);
    refresh.reset();
    assert_eq!(client.rest(), RESET.map(|_: Vec<u8>| Vec::new()));
}

#[test]
fn after_its_grace_a_poem_is_not_served() {
    let upstream = FakeUpstream::new();
    let proxy = fresh_first(&upstream, LONG);
    let answer = proxy.get_at(Instant::now() + 2 * HOUR);
    assert!(answer.is_miss());
    upstream.accept().reset();
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
}

#[test]
fn a_refresh_that_finds_no_turn_leaves_the_stale_poem() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().ttl(ZERO).grace(HOUR);
    let builder = builder.limits(Some("1/h"), RejectPause::Never);
    let proxy = builder.fresh_first(SHORT).upstream_queue(1).start();
    let mut client = proxy.request(b"one\n");
    upstream.accept().skip(5).send(b"old poem").close();
    assert_eq!(client.rest().unwrap(), b"old poem");

    // It waits for its turn, and its client no longer than it must.
    assert_eq!(proxy.ask(b"one\n").unwrap(), b"old poem");
    assert_eq!(proxy.proxy().waiting_fetches(), 1);
}

#[test]
fn the_log_says_which_poem_a_client_got() {
    let upstream = FakeUpstream::new();
    let mut server = ServerProcess::start(&[
        "proxy",
        "--port",
        "0",
        "--ttl",
        "0",
        "--grace",
        "1h",
        "--serve-stale",
        "on-error",
        "--log-format",
        "json",
        &upstream.addr.to_string(),
    ]);
    let log = server.stderr_lines();
    let next = |wanted: &str| {
        let is_it = |line: &String| line.contains(wanted);
        let mut lines = std::iter::from_fn(|| log.recv_timeout(LONG).ok());
        lines.find(is_it).expect(wanted)
    };

    for (poem, fwd) in [(&b"old"[..], "miss"), (b"new", "stale")] {
        let mut client = server.connect();
        upstream.serve_once(poem);
        assert_eq!(client.rest().unwrap(), poem);
        let line = next("\"peer\"");
        assert!(line.contains("\"class\":\"miss\""), "{line}");
        assert!(line.contains(&format!("\"fwd\":\"{fwd}\"")), "{line}");
        assert!(line.contains("\"stored\":true"), "{line}");
    }

    let mut client = server.connect();
    upstream.accept().reset();
    assert_eq!(client.rest().unwrap(), b"new");
    next("\"event\":\"fetch_failed\"");
    let line = next("\"peer\"");
    assert!(line.contains("\"class\":\"stale\""), "{line}");
}

/// Fetches by what they were for: the first of them ended in a kept text.
fn kept_for(proxy: &Service, cause: FetchCause) -> u64 {
    let fetches = proxy.snapshot().fetches.unwrap();
    fetches.ended[cause as usize][0]
}

#[test]
fn a_poem_that_is_asked_for_again_is_refreshed_before_it_is_stale() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).refresh_ahead(0.1);
    let proxy = builder.start_with(&upstream, b"old poem");
    let now = Instant::now();
    let in_minutes = |minutes: u32| {
        let answer = proxy.get_at(now + HOUR * minutes / 60);
        assert!(answer.is_hit() && answer.is_ready());
        answer.read()
    };

    assert_eq!(in_minutes(0), b"old poem");
    assert_eq!(in_minutes(50), b"old poem");
    assert_eq!(upstream.connections(), 1);
    assert_eq!(in_minutes(55), b"old poem");
    assert_eq!(in_minutes(59), b"old poem");

    // A refresh that brings a part is doubted, as any other.
    upstream.serve_once(b"old");
    upstream.serve_once(b"old poem, longer");
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.get().unwrap(), b"old poem, longer");
    assert_eq!(upstream.connections(), 3);
    wait_until("the fetch is counted", || {
        kept_for(&proxy, FetchCause::Prefetch) == 1
    });
}

#[test]
fn a_poem_that_is_asked_for_once_is_not_refreshed_ahead() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).refresh_ahead(0.1);
    let proxy = builder.start_with(&upstream, b"poem");
    let answer = proxy.get_at(Instant::now() + HOUR * 55 / 60);
    assert!(answer.is_hit());
    assert_eq!(count(&proxy.stats.fetches), 1);
}

#[test]
fn a_wait_that_nothing_waits_for_is_a_usage_error() {
    for (args, wanted) in [
        (
            &["proxy", "--stale-after", "1s"][..],
            "--stale-after can only be used with --serve-stale on-error",
        ),
        (
            &["proxy", "--serve-stale", "on-error", "--stale-after", "0"],
            "must be greater than zero; wanted a duration",
        ),
        (
            &["proxy", "--refresh-ahead", "10"],
            "no % at its end; wanted a percentage",
        ),
        (
            &["proxy", "--serve-stale", "never"],
            "[possible values: always, on-error]",
        ),
    ] {
        let out = poetry(args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
}
