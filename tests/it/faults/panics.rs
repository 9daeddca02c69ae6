//! Our own bugs: a panic ends what it happens in, by a reset, and nothing else.

use crate::support::{
    BUG, Client, FakeUpstream, LONG, Protocol, RESET, Service, Trap, answering, count, long_poem,
    proxy, serve, wait_for_count, wait_until,
};
use poetry::observe::{AccessRecord, Event, Observer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_fetch_that_panics_fails_its_own_readers_only() {
    let upstream = FakeUpstream::new();
    let trap = Trap::at_the_start_of_a_fetch();
    let proxy = proxy(&upstream).line().observer(trap.clone()).start();

    let mut other = proxy.request(b"other\n");
    let connection = upstream.accept().skip(7).send(b"half ");
    assert_eq!(other.read(5), b"half ");

    trap.arm();
    assert_eq!(proxy.ask(b"name\n"), RESET);
    wait_for_count("panics", &proxy.stats.panics, 1);
    wait_for_count("failed", &proxy.stats.failed_fetches, 1);
    connection.send(b"whole").close();
    assert_eq!(other.rest().unwrap(), b"whole");

    // The key is free again.
    let mut client = proxy.request(b"name\n");
    upstream.accept().skip(6).send(b"poem").close();
    assert_eq!(client.rest().unwrap(), b"poem");
    assert_eq!(proxy.ask(b"name\n").unwrap(), b"poem");
    proxy.wait_for_open(0);
}

#[test]
fn a_panic_half_way_resets_all_clients_with_a_part() {
    let upstream = FakeUpstream::new();
    let trap = Trap::at_the_end_of_a_fetch();
    let proxy = proxy(&upstream).line().observer(trap.clone()).start();

    let mut clients: Vec<Client> = (0..10).map(|_| proxy.request(b"name\n")).collect();
    let connection = upstream.accept().skip(6).send(b"half");
    for client in &mut clients {
        assert_eq!(client.read(4), b"half");
    }

    trap.arm();
    connection.reset();
    for client in &mut clients {
        assert_eq!(client.rest(), RESET);
    }
    assert!(!trap.is_armed(), "it was the panic that ended it");
    proxy.wait_for_open(0);
}

/// A service that panics at its first request.
fn stumbling(protocol: Protocol) -> Service {
    let has_stumbled = AtomicBool::new(false);
    answering(protocol, move || {
        if !has_stumbled.swap(true, Ordering::AcqRel) {
            panic!("a bug, on purpose: it is part of a test");
        }
        "poem"
    })
}

#[test]
fn a_panic_before_a_task_costs_one_client_and_no_server() {
    let server = stumbling(Protocol::Poem);

    assert_eq!(server.get(), RESET);
    assert_eq!(server.get().unwrap(), b"poem");
    server.wait_for_open(0);
    assert_eq!(count(&server.stats.panics), 1);
    wait_for_count("failures", &server.stats.failures, 1);
}

#[test]
fn a_panic_in_a_task_costs_one_client_and_frees_its_place() {
    let cases = [
        (Protocol::Line, &b"name\n"[..]),
        (Protocol::Netstring, b"3:a.B,"),
    ];
    for (protocol, request) in cases {
        let server = stumbling(protocol);

        let mut client = server.connect();
        server.wait_for_open(1); // it has a task, which waits for the request
        client.send(request);
        assert_eq!(client.rest(), RESET);
        assert_eq!(server.ask(request).unwrap(), b"poem");
        server.wait_for_open(0);
        assert_eq!(count(&server.stats.panics), 1);
        wait_for_count("failures", &server.stats.failures, 1);
    }
}

/// An observer with a bug.
struct Stumbling;

impl Observer for Stumbling {
    fn request(&self, _: &AccessRecord<'_>) {
        panic!("{BUG}");
    }

    fn event(&self, _: Event<'_>) {
        panic!("{BUG}");
    }
}

#[test]
fn an_observer_that_panics_costs_no_client_and_no_server() {
    let poem = long_poem(10_000);
    let builder = serve(&[&poem]).server_observer(Arc::new(Stumbling));
    let mut server = builder.start();

    assert_eq!(server.get().unwrap(), poem);
    let mut slow = Client::narrow(server.addr); // its end is waited for, in the list
    wait_until("it is open", || server.snapshot().connections.open == 1);
    assert_eq!(slow.rest().unwrap(), poem);
    let mut talker = server.request(b"hello?"); // and this one has a task
    assert_eq!(talker.rest().unwrap(), poem);
    drop(talker);

    wait_for_count("answers", &server.stats.own, 3);
    wait_until("none is open", || server.snapshot().connections.open == 0);
    wait_for_count("panics", &server.stats.panics, 3); // counted just after its class
    assert_eq!(count(&server.stats.closing), 0);

    let mut slow = Client::narrow(server.addr);
    wait_until("it is open", || server.snapshot().connections.open == 1);
    assert_eq!(slow.rest().unwrap(), poem, "the list still has its task");
    server.stop();
    assert!(server.has_ended_within(LONG));
}
