//! What goes wrong, and what it must not cost anyone else.

use crate::bard::{reset, settings, Bard, Daemon, Running, LIMITS};
use poetry::error::Error;
use poetry::flight::Reader;
use poetry::handler::proxy::Proxy;
use poetry::protocol::Protocol;
use poetry::server::{Answer, Handler, Limits};
use poetry::stats::{How, Notice, Record, Report};
use rustix::process::Signal;
use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn a_client_that_takes_nothing_is_reset_and_the_others_are_served() {
    let bard = Bard::new();
    let limits = Limits { client_timeout: Duration::from_millis(100), ..LIMITS };
    let proxy = Running::proxy_with(settings(&bard), limits);
    let poem = vec![b'x'; 12 << 20];
    let stuck = proxy.connect();
    let saying = {
        let (call, poem) = (bard.call(), poem.clone());
        std::thread::spawn(move || call.say(&poem).finish())
    };
    assert!(proxy.ask().unwrap() == poem);
    saying.join().unwrap();
    proxy.open(0);
    assert_eq!(proxy.stats.failures.load(Ordering::Relaxed), 1);
    drop(stuck);
}

#[test]
fn a_waiting_client_that_resets_frees_its_place() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(settings(&bard), Limits { max_clients: 1, ..LIMITS });
    let first = proxy.connect();
    let call = bard.call();
    let mut second = proxy.connect();
    reset(first.stream);
    call.say(b"poem").finish();
    assert_eq!(second.rest().unwrap(), b"poem");
}

#[test]
fn over_max_clients_the_backlog_waits_and_nobody_is_turned_away() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(settings(&bard), Limits { max_clients: 2, ..LIMITS });
    let mut clients: Vec<_> = (0..10).map(|_| proxy.connect()).collect();
    proxy.open(2);
    bard.call().say(b"poem").finish();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(bard.callers(), 1);
}

#[test]
fn a_waiting_client_that_says_something_or_half_closes_gets_its_poem() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let (mut talker, mut half) = (proxy.connect(), proxy.connect());
    let call = bard.call();
    talker.say(b"GET / HTTP/1.0\r\n\r\n");
    half.stream.shutdown(std::net::Shutdown::Write).unwrap();
    proxy.open(2);
    call.say(b"poem").finish();
    assert_eq!(talker.rest().unwrap(), b"poem");
    assert_eq!(half.rest().unwrap(), b"poem");
}

#[test]
fn a_slow_request_is_ended_by_the_clients_timeout_however_often_a_byte_comes() {
    let limits = Limits { client_timeout: Duration::from_millis(100), ..LIMITS };
    let service = Running::transform(poetry::upstream::Repertoire::default(), limits);
    let mut client = service.connect();
    client.say(b"1000000:");
    client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let error = loop {
        let _may_be_gone = std::io::Write::write_all(&mut client.stream, b"x");
        match client.stream.read(&mut [0]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            other => break other.unwrap_err().kind(),
        }
    };
    assert_eq!(error, ErrorKind::ConnectionReset);
}

#[test]
fn a_stopped_server_finishes_what_runs() {
    let bard = Bard::new();
    let mut proxy = Running::proxy(&bard);
    let mut client = proxy.connect();
    let call = bard.call().say(b"half ");
    assert_eq!(client.take(5), b"half ");
    proxy.stop();
    assert!(!proxy.has_ended_within(Duration::from_millis(20)));
    call.say(b"whole").finish();
    assert_eq!(client.rest().unwrap(), b"whole");
    assert!(proxy.has_ended_within(crate::bard::LONG));
}

#[test]
fn a_killed_process_resets_whoever_has_a_part_or_nothing_yet() {
    let bard = Bard::new();
    let mut daemon = Daemon::start(&["proxy", "--port", "0", &bard.addr.to_string()]);
    let mut client = crate::bard::Client::connect(daemon.addr);
    let call = bard.call().say(b"half");
    assert_eq!(client.take(4), b"half");
    daemon.child.kill().unwrap();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    drop(call);
}

#[test]
fn what_is_not_finished_in_time_is_reset_and_a_second_signal_does_it_at_once() {
    let bard = Bard::new();
    let args = ["proxy", "--port", "0", &bard.addr.to_string()];
    let mut daemon = Daemon::start(&[&args[..], &["--drain-timeout", "50ms"]].concat());
    let mut client = crate::bard::Client::connect(daemon.addr);
    let call = bard.call();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    assert!(daemon.stderr().contains("out of time: cutting 1 connection"));
    drop(call);

    let mut daemon = Daemon::start(&args);
    let mut client = crate::bard::Client::connect(daemon.addr);
    let call = bard.call();
    daemon.signal(Signal::INT);
    crate::bard::until("the process stops listening", || std::net::TcpStream::connect(daemon.addr).is_err());
    crate::bard::until("the second signal is heard", || {
        daemon.signal(Signal::TERM);
        daemon.child.try_wait().unwrap().is_some()
    });
    assert_eq!(daemon.exit_code(), Some(128 + 15));
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    drop(call);
}

/// Panics in the first fetch's task, as a bug of ours would.
struct Panicking(std::sync::atomic::AtomicBool);

impl Report for Panicking {
    fn request(&self, _: &Record<'_>) {}

    fn notice(&self, notice: Notice<'_>) {
        if matches!(notice, Notice::Fetching(_)) && !self.0.swap(true, Ordering::AcqRel) {
            panic!("a bug, on purpose: it is part of a test");
        }
    }
}

#[test]
fn a_fetch_that_panics_fails_its_readers_and_nothing_else() {
    let bard = Bard::new();
    let settings = settings(&bard);
    let proxy = Running::start(LIMITS, |stats| {
        Proxy::new(settings, std::sync::Arc::new(Panicking(false.into())), stats)
    });
    assert_eq!(proxy.ask(), Err(ErrorKind::ConnectionReset));
    let mut client = proxy.connect();
    bard.call().say(b"poem").finish();
    assert_eq!(client.rest().unwrap(), b"poem", "the key is free again, and the process lives");
    assert_eq!(proxy.ask().unwrap(), b"poem");
    proxy.open(0);
}

#[test]
fn with_few_descriptors_fewer_clients_are_looked_after_and_all_are_served() {
    let bard = Bard::new();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" proxy --port 0 \"$1\""]);
    command.args([env!("CARGO_BIN_EXE_poetry"), &bard.addr.to_string()]);
    let mut daemon = Daemon::start_command(command);
    let mut clients: Vec<_> = (0..200).map(|_| crate::bard::Client::connect(daemon.addr)).collect();
    let call = bard.call().say(b"half ");
    assert_eq!(clients[0].take(5), b"half ");
    call.say(b"whole").finish();
    assert_eq!(clients[0].rest().unwrap(), b"whole");
    for client in &mut clients[1..] {
        assert_eq!(client.rest().unwrap(), b"half whole");
    }
    assert_eq!(bard.callers(), 1);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let told = daemon.stderr();
    assert!(
        told.contains("looking after 32 clients at once") && !told.contains("accepting pauses"),
        "{told}"
    );
    assert!(told.lines().count() < 12, "it is no flood: {told}");
}

/// Panics at its first request.
struct Stumbling(std::sync::atomic::AtomicBool);

impl Handler for Stumbling {
    fn protocol(&self) -> Protocol {
        Protocol::Poem
    }

    fn request_limit(&self) -> u64 {
        0
    }

    fn renew(&self) -> Result<&'static str, Error> {
        Ok("nothing to do")
    }

    fn answer(self: std::sync::Arc<Self>, _: bytes::Bytes, _: std::time::Instant) -> Answer {
        if !self.0.swap(true, Ordering::AcqRel) {
            panic!("a bug, on purpose: it is part of a test");
        }
        Answer { reader: Reader::of("poem".into()), how: How::Own }
    }
}

#[test]
fn a_panic_at_the_door_costs_one_client_and_not_the_server() {
    let server = Running::start(LIMITS, |_| std::sync::Arc::new(Stumbling(false.into())));
    assert_eq!(server.ask(), Err(ErrorKind::ConnectionReset));
    assert_eq!(server.ask().unwrap(), b"poem");
}
