//! Our own bugs: a panic ends what it happens in, by a reset, and nothing else.

use crate::support::{Client, FakeUpstream, Protocol, RESET, Service, Trap, answering, proxy};
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
}

#[test]
fn a_panic_in_a_task_costs_one_client_and_frees_its_place() {
    let cases = [
        (Protocol::Line, &b"name\n"[..]),
        (Protocol::Netstring, b"3:a.B,"),
    ];
    for (protocol, request) in cases {
        let server = stumbling(protocol);

        assert_eq!(server.ask(request), RESET);
        assert_eq!(server.ask(request).unwrap(), b"poem");
        server.wait_for_open(0);
    }
}
