//! Proxies in one process that share a server: what their clients get.

use super::parts::sleep;
use crate::support::{
    Client, FakeUpstream, HOUR, LONG, RESET, Redis, SHORT, Service, ZERO, count, long_poem, proxy,
    unused_addr, wait_until,
};
use poetry::cache::Purge;
use poetry::control::Texts;
use poetry::tier::Tier;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// Clients that ask at once, and what each gets.
fn storm(proxy: &Service, clients: usize) -> Vec<JoinHandle<Result<Vec<u8>, ErrorKind>>> {
    let addr = proxy.addr;
    (0..clients)
        .map(|_| spawn(move || Client::get(addr)))
        .collect()
}

fn kept_in_fleet(proxy: &Service, texts: u64) {
    wait_until("it is shared", || {
        proxy.snapshot().store.unwrap().fleet.unwrap().published == texts
    });
}

fn wait_for_follows(proxy: &Service, wanted: u64) {
    wait_until("it follows", || {
        proxy.snapshot().store.unwrap().fleet.unwrap().follows == wanted
    });
}

fn wait_for_leads(proxy: &Service, wanted: u64) {
    wait_until("it leads", || {
        proxy.snapshot().store.unwrap().fleet.unwrap().leads == wanted
    });
}

#[test]
fn two_proxies_with_a_hundred_clients_each_fetch_once() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream).tier(redis.fleet()).start();
    let b = proxy(&upstream).tier(redis.fleet()).start();
    let clients: Vec<_> = storm(&a, 100).into_iter().chain(storm(&b, 100)).collect();

    let connection = upstream.accept();
    wait_until("all have asked", || {
        count(&a.stats.open) + count(&b.stats.open) == 200
    });
    connection.send(b"a poem").close();
    for client in clients {
        assert_eq!(client.join().unwrap().unwrap(), b"a poem");
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(b.get().unwrap(), b"a poem");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_client_of_the_other_proxy_gets_the_first_half_at_once_and_the_end_with_all() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream).tier(redis.fleet()).start();
    let b = proxy(&upstream).tier(redis.fleet()).start();
    let mut first = a.connect();
    let connection = upstream.accept().send(b"the first half, ");
    assert_eq!(first.read(16), b"the first half, ");

    let mut second = b.connect();
    assert_eq!(second.read(16), b"the first half, ");
    let sent = Instant::now();
    let connection = connection.send(b"the second");
    assert_eq!(second.read(10), b"the second");
    assert!(
        sent.elapsed() < Duration::from_secs(1),
        "{:?}",
        sent.elapsed()
    );
    connection.close();
    assert_eq!(first.rest().unwrap(), b"the second");
    assert!(second.rest().unwrap().is_empty());
    assert_eq!(upstream.connections(), 1);
    wait_until("it is kept by both", || {
        b.snapshot().cache.unwrap().kept.0 == 1
    });
}

#[test]
fn a_reset_at_the_holder_resets_all_and_the_next_request_fetches() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream).tier(redis.fleet()).start();
    let b = proxy(&upstream).tier(redis.fleet()).start();
    let mut first = a.connect();
    let connection = upstream.accept().send(b"half");
    assert_eq!(first.read(4), b"half");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"half");
    connection.reset();
    assert!(first.rest().is_err());
    assert!(second.rest().is_err());
    assert_eq!(upstream.connections(), 1);

    let mut next = b.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(next.rest().unwrap(), b"a poem");
}

#[test]
fn a_follower_of_one_that_was_refused_tries_once_itself() {
    let Some(redis) = Redis::start() else { return };
    let (upstream, addr) = (FakeUpstream::new(), unused_addr());
    let start = |retry| {
        let proxy = proxy(&upstream).upstreams(&[addr]).connect_retry(retry);
        proxy.tier(redis.fleet()).start()
    };
    let (a, b) = (start(SHORT * 3), start(LONG));
    let mut first = a.connect();
    wait_for_leads(&a, 1);
    let mut second = b.connect();
    wait_for_follows(&b, 1);

    assert_eq!(first.rest(), RESET, "it was refused for three seconds");
    wait_for_leads(&b, 1);
    let listener = TcpListener::bind(addr).unwrap();
    listener.accept().unwrap().0.write_all(b"a poem").unwrap();
    assert_eq!(second.rest().unwrap(), b"a poem");
    let counts = b.snapshot().store.unwrap().fleet.unwrap();
    assert_eq!((counts.follows, counts.leads, counts.takeovers), (1, 1, 0));
}

#[test]
fn what_is_rejected_is_passed_on_by_both_and_kept_by_none() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let start = || proxy(&upstream).reject("busy").tier(redis.fleet()).start();
    let (a, b) = (start(), start());
    let mut first = a.connect();
    let connection = upstream.accept().send(b"busy, ");
    assert_eq!(first.read(6), b"busy, ");
    let mut second = b.connect();
    assert_eq!(second.read(6), b"busy, ");
    connection.send(b"sorry").close();
    assert_eq!(first.rest().unwrap(), b"sorry");
    assert_eq!(second.rest().unwrap(), b"sorry");

    let mut next = b.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(next.rest().unwrap(), b"a poem");
}

#[test]
fn one_proxy_may_reject_what_another_keeps() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream).tier(redis.fleet());
    let a = a.start_with(&upstream, b"a busy poem");
    kept_in_fleet(&a, 1);
    let b = proxy(&upstream).reject("busy").tier(redis.fleet()).start();
    let mut client = b.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
}

#[test]
fn a_poem_that_outgrows_the_fleet_reaches_all_whole() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let start = || {
        proxy(&upstream)
            .max_poem(300_000)
            .tier(redis.fleet())
            .start()
    };
    let (a, b) = (start(), start());
    let poem = long_poem(1_000_000);
    let mut first = a.connect();
    let connection = upstream.accept().send(&poem[..100_000]);
    assert!(first.read(100_000) == poem[..100_000]);
    let mut second = b.connect();
    assert!(second.read(65_024) == poem[..65_024]);

    let sending = connection.send_in_background(&poem[100_000..]);
    let rest = spawn(move || first.rest());
    let again = upstream.accept().send_in_background(poem.clone());
    assert!(second.rest().unwrap() == poem[65_024..]);
    assert!(rest.join().unwrap().unwrap() == poem[100_000..]);
    sending.join().unwrap();
    again.join().unwrap();
}

#[test]
fn whole_and_transformed_poems_are_shared_at_their_end() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let whole = |whole| proxy(&upstream).whole(whole).tier(redis.fleet()).start();
    let (a, b) = (whole(true), whole(false));
    let mut first = a.connect();
    let connection = upstream.accept().send(b"a ");
    let mut second = b.connect();
    wait_for_follows(&b, 1);
    connection.send(b"poem").close();
    assert_eq!(first.rest().unwrap(), b"a poem");
    assert_eq!(second.rest().unwrap(), b"a poem");
    assert_eq!(upstream.connections(), 1);

    let loud = || {
        proxy(&upstream)
            .transform(&["shout"])
            .tier(redis.fleet())
            .start()
    };
    let (c, d) = (loud(), loud());
    let mut first = c.connect();
    let connection = upstream.accept().send(b"a ");
    let mut second = d.connect();
    wait_for_follows(&d, 1);
    connection.send(b"poem").close();
    assert_eq!(first.rest().unwrap(), b"A POEM");
    assert_eq!(second.rest().unwrap(), b"A POEM");
    assert_eq!(
        upstream.connections(),
        2,
        "transformed ones are other poems"
    );
}

#[test]
fn requests_have_poems_of_their_own_and_long_ones_too() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let start = || proxy(&upstream).line().tier(redis.fleet()).start();
    let (a, b) = (start(), start());
    let counted = Arc::new(AtomicUsize::new(0));
    let fetches = counted.clone();
    upstream.serve_each(move |_, connection| {
        fetches.fetch_add(1, Ordering::AcqRel);
        let mut line = Vec::new();
        let mut connection = connection;
        while !line.ends_with(b"\r\n") {
            let (next, byte) = connection.read(1);
            (connection, line) = (next, [line, byte].concat());
        }
        connection.send(&line).close();
    });

    let long = "x".repeat(500);
    let longer = "x".repeat(501);
    for name in ["a", "b", &long, &longer] {
        let line = format!("{name}\r\n");
        assert_eq!(a.ask(line.as_bytes()).unwrap(), line.as_bytes());
    }
    kept_in_fleet(&a, 4);
    for name in ["a", "b", &long, &longer] {
        let line = format!("{name}\r\n");
        assert_eq!(b.ask(line.as_bytes()).unwrap(), line.as_bytes());
    }
    assert_eq!(counted.load(Ordering::Acquire), 4);
}

#[test]
fn other_upstreams_share_nothing() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (FakeUpstream::new(), FakeUpstream::new());
    let a = proxy(&one).tier(redis.fleet()).start_with(&one, b"one");
    kept_in_fleet(&a, 1);
    let b = proxy(&two).tier(redis.fleet()).start_with(&two, b"two");
    assert_eq!(b.get().unwrap(), b"two");
    assert_eq!(a.get().unwrap(), b"one");
}

#[test]
fn without_a_ttl_those_who_wait_share_a_fetch() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let start = || proxy(&upstream).ttl(ZERO).tier(redis.fleet()).start();
    let (a, b) = (start(), start());
    let mut first = a.connect();
    let connection = upstream.accept().send(b"a ");
    assert_eq!(first.read(2), b"a ");
    let mut second = b.connect();
    assert_eq!(second.read(2), b"a ");
    connection.send(b"poem").close();
    assert_eq!(first.rest().unwrap(), b"poem");
    assert_eq!(second.rest().unwrap(), b"poem");

    let mut third = b.connect();
    upstream.serve_once(b"another");
    assert_eq!(third.rest().unwrap(), b"another");
}

#[test]
fn a_stale_poem_is_refreshed_once_in_the_fleet() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let ttl = Duration::from_millis(300);
    let start = || proxy(&upstream).ttl(ttl).grace(HOUR).tier(redis.fleet());
    let a = start().start_with(&upstream, b"old");
    kept_in_fleet(&a, 1);
    let b = start().start();
    assert_eq!(b.get().unwrap(), b"old");
    wait_until("it is stale", || a.get_at(Instant::now()).is_stale());

    for proxy in [&a, &b, &a, &b] {
        assert_eq!(proxy.get().unwrap(), b"old");
    }
    let connection = upstream.accept();
    for proxy in [&a, &b] {
        assert_eq!(proxy.get().unwrap(), b"old");
    }
    assert_eq!(upstream.connections(), 2);
    connection.send(b"new").close();
    for proxy in [&a, &b] {
        wait_until("it is new", || {
            let poem = proxy.get().unwrap();
            assert!(poem == b"new" || poem == b"old");
            poem == b"new"
        });
    }
}

#[test]
fn a_purge_at_one_proxy_empties_the_other() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream)
        .tier(redis.fleet())
        .start_with(&upstream, b"old");
    kept_in_fleet(&a, 1);
    let b = proxy(&upstream).tier(redis.fleet()).start();
    assert_eq!(b.get().unwrap(), b"old");

    a.reload();
    wait_until("B is empty", || b.snapshot().cache.unwrap().kept.0 == 0);
    let mut client = b.connect();
    upstream.serve_once(b"new");
    assert_eq!(client.rest().unwrap(), b"new");
}

#[test]
fn a_purge_of_one_name_spares_the_others_everywhere() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let start = || proxy(&upstream).line().tier(redis.fleet()).start();
    let (a, b) = (start(), start());
    for name in ["one", "two"] {
        let mut client = a.request(format!("{name}\r\n").as_bytes());
        upstream.serve_once(b"old");
        assert_eq!(client.rest().unwrap(), b"old");
    }
    kept_in_fleet(&a, 2);
    for name in ["one", "two"] {
        assert_eq!(b.ask(format!("{name}\r\n").as_bytes()).unwrap(), b"old");
    }

    a.purge(Texts::Named(b"one"), Purge::Hard);
    wait_until("B has one left", || b.snapshot().cache.unwrap().kept.0 == 1);
    assert_eq!(b.ask(b"two\r\n").unwrap(), b"old");
    let mut client = b.request(b"one\r\n");
    upstream.serve_once(b"new");
    assert_eq!(client.rest().unwrap(), b"new");
}

#[test]
fn places_of_both_proxies_are_used() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let start = || proxy(&upstream).line().tier(redis.fleet()).start();
    let (a, b) = (start(), start());
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let fetches = Arc::new(AtomicUsize::new(0));
    let (now, peak, all) = (running.clone(), most.clone(), fetches.clone());
    upstream.serve_each(move |_, connection| {
        let (now, peak) = (now.clone(), peak.clone());
        all.fetch_add(1, Ordering::AcqRel);
        spawn(move || {
            let at_once = now.fetch_add(1, Ordering::AcqRel) + 1;
            peak.fetch_max(at_once, Ordering::AcqRel);
            let (connection, name) = connection.read(5);
            sleep(20);
            now.fetch_sub(1, Ordering::AcqRel);
            connection.send(&name).close();
        });
    });

    let ask = |proxy: &Service, number: usize| {
        let addr = proxy.addr;
        spawn(move || {
            let line = format!("{number:03}\r\n");
            assert_eq!(Client::ask(addr, line.as_bytes()).unwrap(), line.as_bytes());
        })
    };
    // Each asks for all, in another order.
    let of_a = (0..150).map(|number| ask(&a, number));
    let of_a: Vec<_> = of_a.collect();
    let of_b: Vec<_> = (0..150).rev().map(|number| ask(&b, number)).collect();
    of_a.into_iter()
        .chain(of_b)
        .for_each(|client| client.join().unwrap());
    assert_eq!(fetches.load(Ordering::Acquire), 150);
    let most = most.load(Ordering::Acquire);
    assert!((9..=16).contains(&most), "{most} at once");
}

#[test]
fn a_killed_server_costs_no_client_a_byte() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream).tier(redis.fleet()).start();
    let b = proxy(&upstream).tier(redis.fleet()).start();
    let poem = long_poem(200_000);
    let mut first = a.connect();
    let connection = upstream.accept().send(&poem[..100_000]);
    assert!(first.read(100_000) == poem[..100_000]);
    let mut second = b.connect();
    assert!(second.read(65_024) == poem[..65_024]);

    redis.kill();
    let again = upstream.accept().send_in_background(poem.clone()); // B fetches itself
    connection.send(&poem[100_000..]).close();
    assert!(first.rest().unwrap() == poem[100_000..]);
    assert!(second.rest().unwrap() == poem[65_024..]);
    again.join().unwrap();
}

#[test]
fn another_poem_after_a_killed_server_is_no_end_of_the_first() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let upstream = FakeUpstream::new();
    let a = proxy(&upstream).tier(redis.fleet()).start();
    let b = proxy(&upstream).tier(redis.fleet()).start();
    let mut first = a.connect();
    let connection = upstream.accept().send(b"a poem, ");
    assert_eq!(first.read(8), b"a poem, ");
    let mut second = b.connect();
    assert_eq!(second.read(8), b"a poem, ");

    redis.kill();
    upstream.serve_once(b"another poem");
    assert!(second.rest().is_err(), "it is reset");
    connection.send(b"whole").close();
    assert_eq!(first.rest().unwrap(), b"whole");
    let mut next = b.connect();
    upstream.serve_once(b"another poem");
    assert_eq!(next.rest().unwrap(), b"another poem");
}

#[test]
fn a_silent_server_costs_three_requests_their_time_and_no_more() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let fleet = redis.fleet_of(|fleet| fleet.answer_wait = poetry::fleet::ANSWER_WAIT);
    let a = proxy(&upstream).ttl(ZERO).tier(fleet.clone()).start();
    upstream.serve_always(b"a poem");
    assert_eq!(a.get().unwrap(), b"a poem");
    redis.process().freeze();
    for _ in 0..10 {
        assert_eq!(a.get().unwrap(), b"a poem");
    }
    assert_eq!(fleet.counts().late, 3);
    redis.process().signal(crate::support::Signal::CONT);
    wait_until("it is asked again", || fleet.counts().is_open);
}
