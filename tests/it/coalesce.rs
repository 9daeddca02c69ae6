//! One fetch, shared by all that ask while it lasts.

use crate::support::{Client, FakeUpstream, RESET, count, proxy, wait_for_count};

#[test]
fn five_hundred_cold_clients_cost_one_connection() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let clients: Vec<Client> = (0..500).map(|_| proxy.connect()).collect();
    proxy.wait_for_open(500);
    upstream.serve_once(b"a poem for five hundred");

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"a poem for five hundred");
    }
    assert_eq!(upstream.connections(), 1);

    assert_eq!(proxy.get().unwrap(), b"a poem for five hundred");
    assert_eq!(upstream.connections(), 1);
    assert_eq!(count(&proxy.stats.fetches), 1);
    wait_for_count("hits", &proxy.stats.hits, 1);
}

#[test]
fn a_late_client_gets_the_first_half_at_once() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let mut first = proxy.connect();
    let connection = upstream.accept().send(b"first half, ");
    assert_eq!(first.read(12), b"first half, ");

    let mut second = proxy.connect();
    assert_eq!(second.read(12), b"first half, ");

    connection.send(b"second half").close();
    assert_eq!(first.rest().unwrap(), b"second half");
    assert_eq!(second.rest().unwrap(), b"second half");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn the_client_that_caused_the_fetch_may_vanish() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let first = proxy.connect();
    let connection = upstream.accept().send(b"once ");
    let mut second = proxy.connect();
    proxy.wait_for_open(2);

    first.reset();
    proxy.wait_for_open(1);
    connection.send(b"upon").close();

    assert_eq!(second.rest().unwrap(), b"once upon");
}

#[test]
fn a_poem_is_kept_even_when_all_clients_have_left() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let first = proxy.connect();
    let connection = upstream.accept();
    first.reset();
    proxy.wait_for_open(0);
    connection.send(b"for later").close();

    assert_eq!(proxy.get().unwrap(), b"for later");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_failure_half_way_resets_all_and_frees_the_key() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    proxy.wait_for_open(20);
    let connection = upstream.accept().send(b"half");
    for client in &mut clients {
        assert_eq!(client.read(4), b"half");
    }

    connection.reset();
    for client in &mut clients {
        assert_eq!(client.rest(), RESET);
    }

    let mut next = proxy.connect();
    upstream.serve_once(b"whole");
    assert_eq!(next.rest().unwrap(), b"whole");
    assert_eq!(upstream.connections(), 2);
}
