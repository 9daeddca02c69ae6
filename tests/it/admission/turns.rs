//! Clients take turns at the upstream.

use crate::support::{Client, FakeUpstream, proxy};

#[test]
fn a_client_with_many_names_keeps_another_waiting_for_one_turn() {
    const NAMES: usize = 100;
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().upstream_conns(1).start();

    let mut first = Vec::new();
    for at in 0..NAMES {
        first.push(proxy.request(format!("a{at:03}\n").as_bytes()));
        proxy.wait_for_waiting(at);
    }
    let mut other = Client::connect_from("127.0.0.2", proxy.addr);
    other.send(b"b000\n");
    proxy.wait_for_waiting(NAMES);

    let mut asked = Vec::new();
    for _ in 0..3 {
        let (connection, request) = upstream.accept().read(6);
        asked.push(request);
        connection.send(b"poem").close();
    }
    assert_eq!(other.rest().unwrap(), b"poem");
    assert_eq!(asked, [b"a000\r\n", b"a001\r\n", b"b000\r\n"]);
    drop(first);
}

#[test]
fn a_client_with_many_names_does_not_fill_the_queue_for_another() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.upstream_queue(3).start();
    let mut clients = Vec::new();
    for at in 0..4 {
        clients.push(proxy.request(format!("a{at}\n").as_bytes()));
        proxy.wait_for_waiting(at);
    }

    let mut other = Client::connect_from("127.0.0.2", proxy.addr);
    other.send(b"b0\n");
    let mut last = clients.pop().unwrap();
    assert!(last.rest().is_err(), "it makes way");

    for name in ["a0", "a1", "b0", "a2"] {
        let (connection, request) = upstream.accept().read(4);
        assert_eq!(request, format!("{name}\r\n").into_bytes());
        connection.send(b"poem").close();
    }
    assert_eq!(other.rest().unwrap(), b"poem");
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
}
