//! Stopping, dying and reloading, while clients are there.

use crate::support::{
    Client, FakeUpstream, Folder, LONG, Protocol, RESET, ServerProcess, Signal, answering, command,
    long_poem, proxy, raise_descriptor_limit, serve_backlog, wait_until,
};
use poetry::observe::{AccessRecord, Event, Observer};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::{ErrorKind, IsTerminal};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The program as a proxy of `upstream`.
fn proxy_process(upstream: &FakeUpstream, flags: &[&str]) -> ServerProcess {
    let addr = upstream.addr.to_string();
    ServerProcess::start(&[&["proxy", "--port", "0", &addr], flags].concat())
}

/// Waits until `server` accepts no connection any more.
fn wait_until_closed(server: &ServerProcess) {
    wait_until("the server stops listening", || {
        Client::try_connect(server.addr).is_err()
    });
}

#[test]
fn a_stopped_server_finishes_what_runs() {
    let upstream = FakeUpstream::new();
    let mut proxy = proxy(&upstream).start();
    let mut client = proxy.connect();
    let connection = upstream.accept().send(b"half ");
    assert_eq!(client.read(5), b"half ");

    proxy.stop();
    assert!(!proxy.has_ended_within(Duration::from_millis(20)));

    connection.send(b"whole").close();
    assert_eq!(client.rest().unwrap(), b"whole");
    assert!(proxy.has_ended_within(LONG));
}

#[test]
fn a_killed_process_resets_its_clients() {
    let upstream = FakeUpstream::new();
    let mut server = proxy_process(&upstream, &[]);
    let mut client = server.connect();
    let connection = upstream.accept().send(b"half");
    assert_eq!(client.read(4), b"half");

    server.child.kill().unwrap();

    assert_eq!(client.rest(), RESET);
    drop(connection);
}

#[test]
fn what_is_not_finished_within_drain_timeout_is_reset() {
    let upstream = FakeUpstream::new();
    let mut server = proxy_process(&upstream, &["--drain-timeout", "50ms"]);
    let mut client = server.connect();
    let connection = upstream.accept();

    let log = server.stop_and_read_log();

    assert_eq!(client.rest(), RESET);
    assert!(log.contains("out of time: cutting 1 connection"), "{log}");
    drop(connection);
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let upstream = FakeUpstream::new();
    let mut server = proxy_process(&upstream, &[]);
    let mut client = server.connect();
    let connection = upstream.accept();

    server.signal(Signal::INT);
    wait_until_closed(&server);
    wait_until("the second signal is noticed", || {
        server.signal(Signal::TERM);
        server.has_ended()
    });

    assert_eq!(server.exit_code(), Some(128 + 15));
    assert_eq!(client.rest(), RESET);
    drop(connection);
}

#[test]
fn two_signals_at_once_end_it_at_once() {
    let upstream = FakeUpstream::new();
    for _ in 0..10 {
        let mut server = proxy_process(&upstream, &[]);
        let mut client = server.connect();
        let connection = upstream.accept();

        server.signal(Signal::TERM);
        server.signal(Signal::INT);

        // The code is that of the signal that is delivered second.
        let code = server.exit_code().unwrap();
        assert!([128 + 2, 128 + 15].contains(&code), "{code}");
        assert_eq!(client.rest(), RESET);
        drop(connection);
    }
}

#[test]
fn a_drain_finishes_a_hundred_streams() {
    let upstream = FakeUpstream::new();
    let flags = ["--protocol", "line", "--upstream-conns", "100"];
    let drain = ["--drain-timeout", "60s"];
    let mut server = proxy_process(&upstream, &[&flags[..], &drain].concat());

    let mut streams = Vec::new();
    for number in 0..100 {
        let mut client = server.connect();
        client.send(format!("{number:03}\n").as_bytes());
        let connection = upstream.accept().skip(5).send(b"the first half, ");
        assert_eq!(client.read(16), b"the first half, ");
        streams.push((client, connection));
    }
    server.signal(Signal::TERM);
    wait_until_closed(&server);

    for (mut client, connection) in streams {
        connection.send(b"the second half").close();
        assert_eq!(client.rest().unwrap(), b"the second half");
    }
    assert_eq!(server.exit_code(), Some(0));
    let log = server.stderr();
    assert!(log.contains("stopping: finishing 1"), "{log}");
    assert!(!log.contains("cutting"), "{log}");
}

#[test]
fn clients_in_the_backlog_are_served_before_a_stop() {
    let mut server = ServerProcess::start(&["serve", "--port", "0", "poetry/furuike.txt"]);
    let poem = std::fs::read("poetry/furuike.txt").unwrap();

    server.freeze();
    let clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), poem);
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn clients_over_the_limit_are_served_before_a_stop() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let flags = ["--drain-timeout", "60s", "--threads", "1"];
    let args = [&["proxy", "--port", "0", &addr], &flags[..]].concat();
    let mut server = ServerProcess::start_with_descriptors(64, &args);

    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    let connection = upstream.accept().send(b"half ");
    assert_eq!(clients[0].read(5), b"half ");

    let log = server.stderr_lines();
    server.signal(Signal::TERM);
    while !log.recv_timeout(LONG).unwrap().contains("stopping") {}
    connection.send(b"whole").close();

    assert_eq!(clients[0].rest().unwrap(), b"whole");
    for client in &mut clients[1..] {
        assert_eq!(client.rest().unwrap(), b"half whole");
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_stop_ends_even_when_every_answer_brings_a_new_client() {
    let addr: Arc<OnceLock<SocketAddr>> = Arc::default();
    let answers = Arc::new(AtomicUsize::new(0));
    let (own_addr, counter) = (addr.clone(), answers.clone());
    let mut server = answering(Protocol::Poem, move || {
        counter.fetch_add(1, Ordering::AcqRel);
        let _refused_at_the_end = own_addr.get().map(TcpStream::connect);
        "poem"
    });
    addr.set(server.addr).unwrap();

    let _first = server.connect();
    wait_until("there are many", || answers.load(Ordering::Acquire) > 100);
    server.stop();

    assert!(server.has_ended_within(LONG));
}

#[test]
fn a_thousand_hangups_under_load_cost_no_poem() {
    let upstream = FakeUpstream::new();
    let mut server = proxy_process(&upstream, &["-q"]);
    upstream.serve_always(b"poem");

    let addr = server.addr;
    let asking = std::thread::spawn(move || {
        for _ in 0..2000 {
            assert_eq!(Client::get(addr).unwrap(), b"poem");
        }
    });
    for _ in 0..1000 {
        server.signal(Signal::HUP);
        std::thread::yield_now();
    }
    asking.join().unwrap();

    server.stop();
}

#[test]
fn stuck_clients_delay_a_drain_no_longer_than_drain_timeout() {
    raise_descriptor_limit();
    let upstream = FakeUpstream::new();
    let mut server = proxy_process(&upstream, &["--drain-timeout", "100ms"]);

    let mut stuck: Vec<Client> = (0..100).map(|_| Client::narrow(server.addr)).collect();
    let connection = upstream.accept();
    let sending = std::thread::spawn(move || connection.try_send(&vec![b'x'; 8 << 20]).close());
    for client in &mut stuck {
        assert_eq!(client.read(1), b"x");
    }

    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(10));
    for mut client in stuck {
        assert_eq!(client.rest(), RESET);
    }
    sending.join().unwrap();
}

#[test]
fn served_clients_that_stay_delay_no_stop_and_are_not_cut() {
    let folder = Folder::new();
    let poem = long_poem(1 << 20);
    let file = folder.write("long.txt", &poem);
    let args = ["serve", "--port", "0", "--drain-timeout", "50s", &file];
    let mut server = ServerProcess::start(&args);

    let mut silent = server.connect();
    assert!(silent.read(poem.len()) == poem);
    let mut talker = server.connect();
    talker.send(b"?");
    assert!(talker.read(poem.len()) == poem);

    let started = Instant::now();
    let log = server.stop_and_read_log();
    assert!(started.elapsed() < Duration::from_secs(25));
    assert!(!log.contains("cutting"), "{log}");
    assert_eq!(silent.rest().unwrap(), b"");
}

#[test]
fn an_answer_that_is_sent_is_not_called_cut() {
    let folder = Folder::new();
    let file = folder.write("short.txt", long_poem(12_000));
    let args = ["serve", "--port", "0", "--drain-timeout", "50ms", &file];
    let mut server = ServerProcess::start(&args);
    let mut stuck = Client::narrow(server.addr);
    assert!(server.get().is_ok(), "and the stuck one was before it");

    let log = server.stop_and_read_log();
    assert!(log.contains("stopping: finishing 1 connection"), "{log}");
    assert!(!log.contains("cutting"), "{log}");
    assert_eq!(stuck.rest().unwrap().len(), 12_000, "the kernel goes on");
}

#[test]
fn a_purge_half_way_keeps_the_newer_poem() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let mut old = proxy.connect();
    let older = upstream.accept().send(b"old ");
    assert_eq!(old.read(4), b"old ");

    proxy.reload();
    let mut new = proxy.connect();
    upstream.serve_once(b"new poem");
    assert_eq!(new.rest().unwrap(), b"new poem");

    older.send(b"poem").close();
    assert_eq!(old.rest().unwrap(), b"poem");
    assert_eq!(proxy.get().unwrap(), b"new poem");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_hangup_stops_only_a_server_whose_terminal_is_gone() {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    unlockpt(&terminal).unwrap();
    let end = ioctl_tiocgptpeer(&terminal, flags).unwrap();
    let mut serve = command(&["serve", "--port", "0"]);
    serve.stdin(end.try_clone().unwrap());
    let mut server = ServerProcess::start_command(serve);

    let log = server.stderr_lines();
    server.signal(Signal::HUP);
    assert_eq!(log.recv_timeout(LONG).unwrap(), "read 12 poems again");
    server.get().unwrap();

    drop(terminal);
    // A process that another test is just starting may have it for a moment more.
    wait_until("the terminal is gone", || !end.is_terminal());
    server.signal(Signal::HUP);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_stop_refuses_new_clients_although_no_slot_is_free() {
    let upstream = FakeUpstream::new();
    let stops = Arc::new(Stops::default());
    let builder = proxy(&upstream).max_clients(1);
    let mut proxy = builder.server_observer(stops.clone()).start();
    let mut only = proxy.connect();
    let connection = upstream.accept().send(b"half ");
    assert_eq!(only.read(5), b"half ");

    proxy.stop();
    wait_until("it drains", || *stops.0.lock().unwrap() == [1]);
    let refused = Some(ErrorKind::ConnectionRefused);
    assert_eq!(Client::try_connect(proxy.addr).err(), refused);

    connection.send(b"whole").close();
    assert_eq!(only.rest().unwrap(), b"whole");
    assert!(proxy.has_ended_within(LONG));
}

/// Notes how many connections were finished or cut.
#[derive(Default)]
struct Stops(Mutex<Vec<u64>>);

impl Observer for Stops {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        if let Event::Draining { open } | Event::Cut { open } = event {
            self.0.lock().unwrap().push(open);
        }
    }
}

#[test]
fn a_slot_without_a_connection_is_not_counted_at_a_stop() {
    // More than an acceptor takes in two turns, so it has a slot in hand when the
    // open connections are counted.
    const CLIENTS: usize = 700;
    raise_descriptor_limit();
    let stops = Arc::new(Stops::default());
    for mut client in serve_backlog(CLIENTS, "poem", stops.clone()) {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(*stops.0.lock().unwrap(), [0u64; 0], "none was open");
}
