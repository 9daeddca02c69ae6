//! `--grace`, `--fail-ttl` and SIGHUP: a bad day of the upstream. A ttl of zero makes a
//! poem stale at once, so that nothing here has to wait for time to pass.

use std::time::{Duration, Instant};

use crate::support::{
    FakeUpstream, HOUR, RESET, ServerProcess, Signal, ZERO, count, proxy, wait_for_count,
    wait_until,
};

#[test]
fn a_hung_refresh_costs_one_connection_and_no_client_waits() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"old");

    for _ in 0..50 {
        assert_eq!(proxy.get().unwrap(), b"old");
    }
    let refresh = upstream.accept();
    assert_eq!(upstream.connections(), 2);
    wait_for_count("stale", &proxy.stats.stale, 50);

    refresh.send(b"new").close();
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.get().unwrap(), b"new");
}

#[test]
fn a_refresh_that_fails_replaces_nothing() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"old");

    for failures in 1..=2 {
        assert_eq!(proxy.get_after_pause(), b"old");
        upstream.accept().send(b"ne").reset();
        wait_for_count("failed fetches", &proxy.stats.failed_fetches, failures);
    }

    assert_eq!(proxy.get().unwrap(), b"old");
}

#[test]
fn a_refresh_that_brings_a_part_is_tried_once_more() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"a whole poem");

    // The second fetch brings more: it is kept.
    assert_eq!(proxy.get().unwrap(), b"a whole poem");
    upstream.serve_once(b"a whole");
    upstream.serve_once(b"a whole poem, longer");
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.get().unwrap(), b"a whole poem, longer");

    // The same part twice is believed.
    upstream.serve_once(b"a whole");
    upstream.serve_once(b"a whole");
    wait_for_count("kept", &proxy.stats.kept, 3);
    assert_eq!(proxy.get().unwrap(), b"a whole");

    // Two different parts are not.
    upstream.serve_once(b"a w");
    upstream.serve_once(b"a wh");
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert_eq!(proxy.get().unwrap(), b"a whole");
}

#[test]
fn a_part_is_found_where_a_transformation_reverses_lines() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream)
        .ttl(ZERO)
        .grace(HOUR)
        .transform(&["reverse"])
        .start();
    let mut client = proxy.connect();
    upstream.serve_once(b"one\ntwo\nthree\n");
    assert_eq!(client.rest().unwrap(), b"three\ntwo\none\n");
    wait_for_count("kept", &proxy.stats.kept, 1); // counted just after the end

    let failed = || count(&proxy.stats.failed_fetches);
    let ended = || count(&proxy.stats.kept) + failed();
    let refresh = |first: &[u8], second: &[u8], kept: &[u8]| {
        proxy.get_after_pause();
        let ended_before = ended();
        upstream.serve_once(first);
        upstream.serve_once(second);
        wait_until("the refresh has ended", || ended() > ended_before);

        let failed_before = failed();
        assert_eq!(proxy.get_after_pause(), kept);
        upstream.accept().reset();
        wait_for_count(
            "failed fetches",
            &proxy.stats.failed_fetches,
            failed_before + 1,
        );
    };

    // Cut, then whole.
    refresh(
        b"one\n",
        b"one\ntwo\nthree\nfour\n",
        b"four\nthree\ntwo\none\n",
    );
    // Cut twice.
    refresh(b"one\n", b"one\ntwo\n", b"four\nthree\ntwo\none\n");
    // Another poem.
    refresh(b"1\n", b"2\n3\n", b"3\n2\n");
    // The same twice.
    refresh(b"2\n", b"2\n", b"2\n");
}

#[test]
fn a_cached_failure_spares_the_upstream() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).fail_ttl(HOUR).start();

    let mut client = proxy.connect();
    upstream.accept().reset();
    assert_eq!(client.rest(), RESET);

    for _ in 0..100 {
        assert_eq!(proxy.get(), RESET);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_cached_failure_paces_the_refreshes_of_a_stale_poem() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR).fail_ttl(HOUR);
    let proxy = builder.start_with(&upstream, b"old");

    assert_eq!(proxy.get().unwrap(), b"old");
    upstream.accept().reset();
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);

    for _ in 0..20 {
        assert_eq!(proxy.get().unwrap(), b"old");
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_hangup_forgets_what_is_kept_and_cuts_no_client_off() {
    let upstream = FakeUpstream::new();
    let server = ServerProcess::start(&["proxy", "--port", "0", &upstream.addr.to_string()]);
    let mut waiting = server.connect();
    let connection = upstream.accept().send(b"old ");
    assert_eq!(waiting.read(4), b"old ");

    let mut others = Vec::new();
    wait_until("the hangup starts a fetch of its own", || {
        server.signal(Signal::HUP);
        others.push(server.connect());
        upstream.connections() > 1
    });

    connection.send(b"poem").close();
    assert_eq!(waiting.rest().unwrap(), b"poem");
    drop(others);
}

#[test]
fn a_reload_makes_poems_stale_and_an_outage_does_not_lose_them() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).grace(HOUR).start_with(&upstream, b"old");

    proxy.reload();
    assert_eq!(proxy.get().unwrap(), b"old");
    upstream.accept().reset();
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert_eq!(proxy.get().unwrap(), b"old");

    assert_eq!(proxy.get_after_pause(), b"old");
    upstream.serve_once(b"new");
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.get().unwrap(), b"new");
}

#[test]
fn a_reload_without_grace_leaves_nothing() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start_with(&upstream, b"old");

    proxy.reload();
    let mut client = proxy.connect();
    upstream.serve_once(b"new");
    assert_eq!(client.rest().unwrap(), b"new");
}

#[test]
fn while_refreshes_fail_the_upstream_is_asked_now_and_then() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"old");
    assert_eq!(proxy.get().unwrap(), b"old");
    upstream.accept().reset();
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);

    let now = Instant::now();
    for _ in 0..100 {
        assert_eq!(proxy.get_at(now).read(), b"old");
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_cut_refresh_is_found_whatever_the_capacity() {
    let upstream = FakeUpstream::new();
    let poem = crate::support::long_poem(600_000);
    let builder = proxy(&upstream).capacity(1_000_000);
    let proxy = builder.ttl(ZERO).grace(HOUR).start_with(&upstream, &poem);

    assert!(proxy.get().unwrap() == poem);
    for part in [500_000, 550_000] {
        let sending = upstream.accept().send_in_background(&poem[..part]);
        sending.join().unwrap();
    }
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert!(proxy.get().unwrap() == poem);
}

#[test]
fn a_poem_over_half_of_the_capacity_is_refreshed() {
    let upstream = FakeUpstream::new();
    let poem = crate::support::long_poem(600_000);
    let builder = proxy(&upstream).capacity(1_000_000);
    let proxy = builder.ttl(ZERO).grace(HOUR).start_with(&upstream, &poem);

    let mut other = poem.clone();
    other[0] ^= 1;
    assert!(proxy.get().unwrap() == poem);
    let sending = upstream.accept().send_in_background(other.clone());
    sending.join().unwrap();
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert!(proxy.get().unwrap() == other);
}

#[test]
fn a_bad_day_costs_no_stale_poem_of_a_full_cache() {
    let upstream = FakeUpstream::new();
    let poem = vec![b'x'; 40_000];
    let builder = proxy(&upstream).line().capacity(500_000);
    let proxy = builder.ttl(ZERO).grace(HOUR).start();
    let name = |at: usize| format!("name{at:02}").into_bytes();
    for at in 0..12 {
        let mut client = proxy.request(&[&name(at)[..], b"\n"].concat());
        upstream.accept().skip(8).send(&poem).close();
        assert!(client.rest().unwrap() == poem);
    }
    wait_for_count("kept", &proxy.stats.kept, 12);

    for at in 0..12 {
        assert!(proxy.ask_at(&name(at), Instant::now()).read() == poem);
        upstream.accept().skip(8).send(&poem[..30_000]).reset();
    }
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 12);
    for at in 0..12 {
        let answer = proxy.ask_at(&name(at), Instant::now());
        assert!(answer.read() == poem, "{at} is lost");
    }
}

#[test]
fn a_text_that_matches_has_a_ttl_of_its_own() {
    let upstream = FakeUpstream::new();
    let rules = [("^no match", HOUR), ("match", 3 * HOUR)];
    let proxy = proxy(&upstream)
        .line()
        .ttl_for(&rules, 0.0)
        .ttl(2 * HOUR)
        .start();
    for (name, text) in [("a\n", "no match"), ("b\n", "a match"), ("c\n", "a text")] {
        let mut client = proxy.request(name.as_bytes());
        upstream.accept().skip(3).send(text.as_bytes()).close();
        assert_eq!(client.rest().unwrap(), text.as_bytes());
    }
    wait_for_count("kept", &proxy.stats.kept, 3);

    for (name, hours) in [(&b"a"[..], 1), (b"c", 2), (b"b", 3)] {
        let end = Instant::now() + HOUR * hours;
        assert!(proxy.ask_at(name, end - HOUR / 2).is_hit(), "{hours}");
        let late = proxy.ask_at(name, end + HOUR / 2);
        assert!(late.is_miss(), "{hours}");
    }
}

#[test]
fn jitter_takes_off_a_part_of_each_ttl() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().ttl_for(&[], 0.5).ttl(HOUR).start();
    for at in 0..10 {
        let mut client = proxy.request(format!("name{at}\n").as_bytes());
        upstream.accept().skip(7).send(b"text").close();
        assert_eq!(client.rest().unwrap(), b"text");
    }
    wait_for_count("kept", &proxy.stats.kept, 10);

    let hits = |at: Duration| {
        let now = Instant::now() + at;
        let names = (0..10).map(|at| format!("name{at}").into_bytes());
        names
            .filter(|name| proxy.ask_at(name, now).is_hit())
            .count()
    };
    assert_eq!(hits(HOUR * 9 / 20), 10);
    assert!(hits(HOUR * 59 / 60) < 10, "one in 30 would be left, each");
}
