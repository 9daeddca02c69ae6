//! Turns before the upstream: which fetch starts next, which is dropped, which is
//! refused.

use crate::support::{
    Client, Connection, FakeUpstream, HOUR, RESET, SHORT, Service, ZERO, count, proxy,
    wait_for_count, wait_until,
};
use std::time::Duration;

/// A proxy that asks `upstream` one thing at a time, and a client that keeps the one
/// place.
fn busy(upstream: &FakeUpstream) -> (Service, Client, Connection) {
    let proxy = proxy(upstream).line().upstream_conns(1).start();
    let client = proxy.request(b"busy\n");
    let (connection, _) = upstream.accept().read(6);
    (proxy, client, connection)
}

/// What the upstream is asked next, and the connection to answer on.
fn next(upstream: &FakeUpstream, length: usize) -> (Connection, Vec<u8>) {
    upstream.accept().read(length)
}

#[test]
fn a_fetch_that_no_client_waits_for_is_not_begun() {
    let upstream = FakeUpstream::new();
    let (proxy, mut busy, connection) = busy(&upstream);
    let abandoned: Vec<Client> = (0..20)
        .map(|at| proxy.request(format!("gone{at:02}\n").as_bytes()))
        .collect();
    proxy.wait_for_waiting(20);

    abandoned.into_iter().for_each(Client::reset);
    proxy.wait_for_waiting(0);
    let mut last = proxy.request(b"last\n");
    proxy.wait_for_waiting(1);
    connection.send(b"poem").close();
    assert_eq!(busy.rest().unwrap(), b"poem");

    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"last\r\n");
    connection.send(b"answer").close();
    assert_eq!(last.rest().unwrap(), b"answer");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_fetch_that_has_begun_ends_without_clients_and_is_kept() {
    let upstream = FakeUpstream::new();
    let (proxy, client, connection) = busy(&upstream);
    client.reset();
    proxy.wait_for_open(0);

    connection.send(b"poem").close();
    wait_for_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.ask(b"busy\n").unwrap(), b"poem");
}

#[test]
fn a_client_that_joins_as_the_last_one_leaves_gets_the_text() {
    let upstream = FakeUpstream::new();
    let (proxy, _busy, connection) = busy(&upstream);
    let first = proxy.request(b"name\n");
    proxy.wait_for_waiting(1);
    let mut second = proxy.request(b"name\n");
    proxy.wait_for_open(3);
    first.reset();
    proxy.wait_for_open(2);

    connection.close();
    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"name\r\n");
    connection.send(b"answer").close();
    assert_eq!(second.rest().unwrap(), b"answer");
}

#[test]
fn clients_go_before_refreshes() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.ttl(ZERO).grace(HOUR).start();
    for name in ["old1\n", "old2\n"] {
        let mut client = proxy.request(name.as_bytes());
        upstream.accept().skip(6).send(b"old").close();
        assert_eq!(client.rest().unwrap(), b"old");
    }
    wait_for_count("kept", &proxy.stats.kept, 2);

    // The first refresh has the place, the second waits for one.
    assert_eq!(proxy.ask(b"old1\n").unwrap(), b"old");
    let (refresh, _) = next(&upstream, 6);
    assert_eq!(proxy.ask(b"old2\n").unwrap(), b"old");
    let mut client = proxy.request(b"new0\n");
    proxy.wait_for_waiting(2);
    refresh.send(b"old").close();

    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"new0\r\n");
    connection.send(b"new").close();
    assert_eq!(client.rest().unwrap(), b"new");
    assert_eq!(next(&upstream, 6).1, b"old2\r\n");
}

#[test]
fn a_refresh_that_a_client_waits_for_goes_with_the_clients() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.ttl(ZERO).grace(SHORT).start();
    let mut client = proxy.request(b"old1\n");
    upstream.accept().skip(6).send(b"old").close();
    assert_eq!(client.rest().unwrap(), b"old");

    let _busy = proxy.request(b"busy\n");
    let (busy, _) = next(&upstream, 6);
    assert_eq!(proxy.ask(b"old1\n").unwrap(), b"old");
    proxy.wait_for_waiting(1);

    // Once the grace is over, a client that asks joins the refresh that waits.
    let mut joined = loop {
        let mut client = proxy.request(b"old1\n");
        client.set_patience(Duration::from_millis(100));
        if client.rest().is_err() {
            client.set_patience(crate::support::LONG);
            break client;
        }
    };
    let _later = proxy.request(b"new0\n");
    proxy.wait_for_waiting(2);
    busy.close();
    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"old1\r\n");
    connection.send(b"fresh").close();
    assert_eq!(joined.rest().unwrap(), b"fresh");
}

#[test]
fn beyond_the_queue_a_request_is_reset_at_once() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.upstream_queue(2).fail_ttl(HOUR).start();
    let _busy = proxy.request(b"busy\n");
    let (connection, _) = next(&upstream, 6);
    let _first = proxy.request(b"one1\n");
    proxy.wait_for_waiting(1);
    let _second = proxy.request(b"two2\n");
    proxy.wait_for_waiting(2);

    assert_eq!(proxy.ask(b"more\n"), RESET);
    assert_eq!(count(&proxy.stats.refused_fetches), 1);
    connection.close();
    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"one1\r\n");
    connection.close();

    // It is not cached as a failure of the upstream.
    let mut again = proxy.request(b"more\n");
    upstream.accept().skip(6).close();
    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"more\r\n");
    connection.send(b"answer").close();
    assert_eq!(again.rest().unwrap(), b"answer");
}

#[test]
fn a_fetch_waits_for_its_turn_no_longer_than_a_fetch_may_take() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.idle_timeout(HOUR).fetch_timeout(HOUR).start();
    let _busy = proxy.request(b"busy\n");
    let (_connection, _) = next(&upstream, 6);
    let mut waits = proxy.request(b"name\n");
    proxy.wait_for_waiting(1);
    waits.set_patience(Duration::from_millis(200));
    assert!(waits.rest().is_err(), "it waits");

    let upstream = FakeUpstream::new();
    let builder = crate::support::proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.max_poem(1 << 20).fetch_timeout(SHORT).start();
    let _busy = proxy.request(b"busy\n");
    let (_held, _) = next(&upstream, 6);
    let mut waits = proxy.request(b"name\n");
    assert_eq!(waits.rest(), RESET);
}

#[test]
fn waiting_fetches_evict_nothing() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.capacity(64 << 10).start();
    let poem = vec![b'x'; 1000];
    for at in 0..20 {
        let mut client = proxy.request(format!("kept{at:02}\n").as_bytes());
        upstream.accept().skip(8).send(&poem).close();
        assert_eq!(client.rest().unwrap(), poem);
    }

    let _busy = proxy.request(b"busy00\n");
    let (connection, _) = next(&upstream, 8);
    let waiting: Vec<Client> = (0..60)
        .map(|at| proxy.request(format!("wait{at:02}\n").as_bytes()))
        .collect();
    wait_until("the rest is refused", || {
        count(&proxy.stats.refused_fetches) > 0
    });
    connection.send(&poem).close();
    wait_until("it is kept", || count(&proxy.stats.kept) >= 21);

    let kept = (0..20).filter(|at| {
        let now = std::time::Instant::now();
        proxy
            .ask_at(format!("kept{at:02}").as_bytes(), now)
            .is_hit()
    });
    assert!(kept.count() >= 18);
    drop(waiting);
}

#[test]
fn a_purge_frees_the_place_of_a_hung_fetch_without_clients() {
    let upstream = FakeUpstream::new();
    let (proxy, hung, connection) = busy(&upstream);
    let mut other = proxy.request(b"name\n");
    proxy.wait_for_waiting(1);
    hung.reset();
    proxy.wait_for_open(1);

    proxy.reload();
    let (answer, asked) = next(&upstream, 6);
    assert_eq!(asked, b"name\r\n");
    answer.send(b"answer").close();
    assert_eq!(other.rest().unwrap(), b"answer");
    connection.wait_for_hangup();
    wait_for_count("fetches given up", &proxy.stats.failed_fetches, 1);
}

#[test]
fn a_purge_leaves_a_fetch_that_has_not_begun_its_turn() {
    let upstream = FakeUpstream::new();
    let (proxy, _busy, connection) = busy(&upstream);
    let mut waits = proxy.request(b"name\n");
    proxy.wait_for_waiting(1);

    proxy.reload();
    let mut joins = proxy.request(b"name\n");
    proxy.wait_for_open(3);
    connection.close();
    let (answer, _) = next(&upstream, 6);
    answer.send(b"answer").close();
    assert_eq!(waits.rest().unwrap(), b"answer");
    assert_eq!(joins.rest().unwrap(), b"answer");
    assert_eq!(proxy.ask(b"name\n").unwrap(), b"answer");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_failure_of_our_own_is_not_cached() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).whole(true).capacity(4000);
    let proxy = builder.fail_ttl(HOUR).start();
    let mut client = proxy.connect();
    upstream.accept().try_send(&vec![b'x'; 8000]).close();
    assert_eq!(client.rest(), RESET);

    let mut client = proxy.connect();
    upstream.serve_once(b"poem");
    assert_eq!(client.rest().unwrap(), b"poem");
}

#[test]
fn a_transformation_keeps_the_place_of_its_fetch() {
    let upstream = FakeUpstream::new();
    let service = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.via(service.addr, &["shout"]).start();
    let mut first = proxy.request(b"one1\n");
    let (connection, _) = next(&upstream, 6);
    connection.send(b"poem").close();
    let (working, asked) = next(&service, 14);
    assert_eq!(asked, b"10:shout.poem,");

    let mut second = proxy.request(b"two2\n");
    proxy.wait_for_waiting(1);
    assert_eq!(upstream.connections(), 1);
    working.send(b"4:POEM,").close();
    assert_eq!(first.rest().unwrap(), b"POEM");
    let (connection, asked) = next(&upstream, 6);
    assert_eq!(asked, b"two2\r\n");
    connection.close();
    assert_eq!(second.rest(), RESET);
}

#[test]
fn a_refresh_that_its_last_client_has_left_waits_behind_clients_again() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.ttl(ZERO).grace(SHORT).start();
    let mut client = proxy.request(b"old1\n");
    upstream.accept().skip(6).send(b"old").close();
    assert_eq!(client.rest().unwrap(), b"old");

    let _busy = proxy.request(b"busy\n");
    let (busy, _) = next(&upstream, 6);
    assert_eq!(proxy.ask(b"old1\n").unwrap(), b"old");
    proxy.wait_for_waiting(1);
    let joined = loop {
        let mut client = proxy.request(b"old1\n");
        client.set_patience(Duration::from_millis(100));
        if client.rest().is_err() {
            break client;
        }
    };
    joined.reset();
    proxy.wait_for_open(1);

    let _later = proxy.request(b"new0\n");
    proxy.wait_for_waiting(2);
    busy.close();
    assert_eq!(next(&upstream, 6).1, b"new0\r\n");
}
