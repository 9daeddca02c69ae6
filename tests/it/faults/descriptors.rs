//! Descriptors and places for clients run out.

use crate::support::{Client, FakeUpstream, LONG, SHORT, ServerProcess, proxy, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

#[test]
fn over_max_clients_the_backlog_waits_and_all_are_served() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_clients(2).start();

    let clients: Vec<_> = (0..10).map(|_| proxy.connect()).collect();
    proxy.wait_for_open(2);
    upstream.serve_once(b"poem");

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn several_listeners_share_max_clients() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let listeners = ["--port", "0", "--port", "127.0.0.1:0", "--port", "0"];
    let args = [&["proxy", "--max-clients", "2", &addr], &listeners[..]].concat();
    let server = ServerProcess::start(&args);
    let port = |line: Option<String>| {
        let line = line.unwrap();
        let addr = line.rsplit(' ').next().unwrap();
        addr.parse().unwrap()
    };
    let addrs = [
        server.addr,
        port(server.next_line()),
        port(server.next_line()),
    ];
    let before = server.descriptors();

    let clients = addrs.iter().flat_map(|addr| [*addr; 5]);
    let clients: Vec<Client> = clients.map(Client::connect).collect();
    let connection = upstream.accept();
    wait_until("both places are taken", || {
        server.descriptors() >= before + 3 // and a connection to the upstream
    });
    for _ in 0..50 {
        assert_eq!(server.descriptors(), before + 3);
        park_timeout(Duration::from_millis(1));
    }

    connection.send(b"poem").close();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
}

#[test]
fn waiting_clients_that_closed_leave_their_places_to_others() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().max_clients(2);
    let proxy = builder.start();
    let mut client = proxy.request(b"kept\n");
    upstream.accept().skip(6).send(b"a hit").close();
    assert_eq!(client.rest().unwrap(), b"a hit");
    proxy.wait_for_open(0);

    // One may still read, the other can't.
    let mut half_closed = proxy.request(b"slow\n");
    half_closed.half_close();
    drop(proxy.request(b"slow\n"));
    let slow = upstream.accept().skip(6);
    proxy.wait_for_open(2);
    for _ in 0..10 {
        assert_eq!(proxy.ask(b"kept\n").unwrap(), b"a hit");
    }

    let mut missed = proxy.request(b"other\n");
    upstream.accept().skip(7).send(b"a miss").close();
    assert_eq!(missed.rest().unwrap(), b"a miss");

    slow.send(b"at last").close();
    assert_eq!(half_closed.rest().unwrap(), b"at last");
    proxy.wait_for_open(0);
}

#[test]
fn a_client_that_waited_for_its_place_gets_no_overdue_poem() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).ttl(SHORT).max_clients(1);
    let proxy = builder.start_with(&upstream, &vec![b'x'; 4 << 20]);
    proxy.wait_for_open(0);
    let kept = Instant::now();

    // A hit that is not read, in the only place.
    let stuck = Client::narrow(proxy.addr);
    proxy.wait_for_open(1);
    let mut waiting = proxy.connect();
    wait_until("the poem is too old", || kept.elapsed() > SHORT);
    drop(stuck);

    upstream.serve_once(b"a newer poem");
    assert_eq!(waiting.rest().unwrap(), b"a newer poem");
}

#[test]
fn with_few_descriptors_all_clients_are_served_in_turn() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = ["proxy", "--port", "0", "--threads", "1", &addr];
    let mut server = ServerProcess::start_with_descriptors(64, &args);

    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let connection = upstream.accept().send(b"half ");
    assert_eq!(clients[0].read(5), b"half ");
    connection.send(b"whole").close();
    assert_eq!(clients[0].rest().unwrap(), b"whole");
    for client in &mut clients[1..] {
        assert_eq!(client.rest().unwrap(), b"half whole");
    }

    assert_eq!(upstream.connections(), 1);
    let cpu_time = server.cpu_time();
    assert!(cpu_time < Duration::from_secs(1), "it spins: {cpu_time:?}");
    let log = server.stop_and_read_log();
    assert!(log.contains("serving at most 18 clients at once"), "{log}");
    assert!(!log.contains("accepting pauses"), "{log}");
    assert!(log.lines().count() < 12, "it is a flood: {log}");
}

#[test]
fn without_a_descriptor_accepting_pauses_and_recovers() {
    let flags = ["-q", "--port", "0", "--threads", "1"];
    let args = [&["serve", "poetry/furuike.txt"], &flags[..]].concat();
    let mut server = ServerProcess::start(&args);
    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    let log = server.stderr_lines();

    let none = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Nofile)
    };
    let before = prlimit(Some(server.pid()), Resource::Nofile, none).unwrap();
    let cpu_time = server.cpu_time();
    let clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for pause in ["50ms", "100ms", "200ms", "400ms"] {
        let line = log.recv_timeout(LONG).unwrap();
        let expected = format!("poetry: accepting pauses for {pause}: too many open files");
        assert_eq!(line, expected);
    }
    let busy = server.cpu_time() - cpu_time;
    assert!(busy < Duration::from_millis(200), "it spins: {busy:?}");

    prlimit(Some(server.pid()), Resource::Nofile, before).unwrap();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), poem);
    }
}

#[test]
fn connections_to_the_upstream_count_as_descriptors() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let flags = ["--protocol", "line", "--upstream-conns", "40"];
    let args = ["proxy", "--port", "0", "--threads", "1", &addr];
    let args = [&args[..], &flags[..]].concat();
    let mut server = ServerProcess::start_with_descriptors(100, &args);

    let ask = |number: usize| {
        let mut client = server.connect();
        client.send(format!("name{number:03}\n").as_bytes());
        client
    };
    let clients: Vec<Client> = (0..150).map(ask).collect();
    for _ in 0..150 {
        let (connection, name) = upstream.accept().read(9);
        connection.send(&name[..7]).close();
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        let poem = format!("name{number:03}");
        assert_eq!(client.rest().unwrap(), poem.as_bytes());
    }

    let log = server.stop_and_read_log();
    assert!(log.contains("serving at most 22 clients at once"), "{log}");
    assert!(!log.contains("too many open files"), "{log}");
}

#[test]
fn every_end_of_a_client_frees_its_place() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().max_clients(1);
    let proxy = builder.client_timeout(SHORT).start();

    // Malformed, too slow, and without a request.
    for request in [&b"\x01\n"[..], b"slow", b""] {
        let _answer = proxy.ask(request);
    }
    proxy.connect().reset();

    let mut client = proxy.request(b"name\n");
    upstream.accept().skip(6).send(b"poem").close();
    assert_eq!(client.rest().unwrap(), b"poem");
}
