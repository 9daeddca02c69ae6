//! One fetch, shared by everyone who asks while it lasts.

use crate::bard::{Bard, Client, Running, reset, until_count};
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

#[test]
fn five_hundred_cold_clients_cost_the_upstream_one_connection() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let clients: Vec<Client> = (0..500).map(|_| proxy.connect()).collect();
    proxy.open(500);
    bard.call().say(b"a poem for five hundred").finish();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"a poem for five hundred");
    }
    assert_eq!(bard.callers(), 1);
    assert_eq!(proxy.ask().unwrap(), b"a poem for five hundred");
    assert_eq!(bard.callers(), 1);
    assert_eq!(proxy.stats.fetches.load(Ordering::Relaxed), 1);
    until_count("hits", &proxy.stats.hits, 1);
}

#[test]
fn who_joins_half_way_reads_the_first_half_at_once_and_ends_with_the_others() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut first = proxy.connect();
    let call = bard.call().say(b"first half, ");
    assert_eq!(first.take(12), b"first half, ");
    let mut second = proxy.connect();
    assert_eq!(second.take(12), b"first half, ");
    call.say(b"second half").finish();
    assert_eq!(first.rest().unwrap(), b"second half");
    assert_eq!(second.rest().unwrap(), b"second half");
    assert_eq!(bard.callers(), 1);
}

#[test]
fn who_caused_the_fetch_may_vanish() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let first = proxy.connect();
    let call = bard.call().say(b"once ");
    let mut second = proxy.connect();
    proxy.open(2);
    reset(first.stream);
    proxy.open(1);
    call.say(b"upon").finish();
    assert_eq!(second.rest().unwrap(), b"once upon");
}

#[test]
fn when_all_have_left_the_poem_is_kept_all_the_same() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let first = proxy.connect();
    let call = bard.call();
    reset(first.stream);
    proxy.open(0);
    call.say(b"for later").finish();
    assert_eq!(proxy.ask().unwrap(), b"for later");
    assert_eq!(bard.callers(), 1);
}

#[test]
fn a_failure_half_way_is_a_reset_for_everyone_and_the_next_request_fetches_afresh() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    proxy.open(20);
    let call = bard.call().say(b"half");
    for client in &mut clients {
        assert_eq!(client.take(4), b"half");
    }
    call.reset();
    for client in &mut clients {
        assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    }
    let mut next = proxy.connect();
    bard.call().say(b"whole").finish();
    assert_eq!(next.rest().unwrap(), b"whole");
    assert_eq!(bard.callers(), 2);
}
