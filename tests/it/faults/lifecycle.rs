//! Stopping, dying, and beginning anew, while clients are there.

use crate::bard::{
    Bard, Client, Daemon, LIMITS, LONG, Running, command, many_descriptors, settings, until,
};
use bytes::Bytes;
use poetry::error::Error;
use poetry::flight::Reader;
use poetry::protocol::Protocol;
use poetry::server::{Handler, Response};
use poetry::stats::CacheStatus;
use rustix::process::Signal;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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
    assert!(proxy.has_ended_within(LONG));
}

#[test]
fn a_killed_process_resets_whoever_has_a_part_or_nothing_yet() {
    let bard = Bard::new();
    let mut daemon = Daemon::start(&["proxy", "--port", "0", &bard.addr.to_string()]);
    let mut client = Client::connect(daemon.addr);
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
    let mut client = Client::connect(daemon.addr);
    let call = bard.call();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    assert!(
        daemon
            .stderr()
            .contains("out of time: cutting 1 connection")
    );
    drop(call);

    let mut daemon = Daemon::start(&args);
    let mut client = Client::connect(daemon.addr);
    let call = bard.call();
    daemon.signal(Signal::INT);
    crate::bard::until("the process stops listening", || {
        std::net::TcpStream::connect(daemon.addr).is_err()
    });
    crate::bard::until("the second signal is heard", || {
        daemon.signal(Signal::TERM);
        daemon.child.try_wait().unwrap().is_some()
    });
    assert_eq!(daemon.exit_code(), Some(128 + 15));
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    drop(call);
}

#[test]
fn two_signals_at_once_end_it_at_once() {
    let bard = Bard::new();
    for _ in 0..10 {
        let mut daemon = Daemon::start(&["proxy", "--port", "0", &bard.addr.to_string()]);
        let mut client = Client::connect(daemon.addr);
        let call = bard.call();
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::INT);
        let code = daemon.exit_code().unwrap();
        assert!([128 + 2, 128 + 15].contains(&code), "{code}"); // whichever is told second
        assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
        drop(call);
    }
}

#[test]
fn a_hundred_streams_are_finished_by_a_drain_and_none_is_cut() {
    let bard = Bard::new();
    let args = [
        "proxy",
        "--port",
        "0",
        "--protocol",
        "line",
        "--upstream-conns",
        "100",
        "--drain-timeout",
        "20s",
    ];
    let mut daemon = Daemon::start(&[&args[..], &[&bard.addr.to_string()]].concat());
    let mut streams = Vec::new();
    for number in 0..100 {
        let mut client = Client::connect(daemon.addr);
        client.say(format!("{number:03}\n").as_bytes());
        let call = bard.call().try_recv(5).0.say(b"the first half, ");
        assert_eq!(client.take(16), b"the first half, ");
        streams.push((client, call));
    }
    daemon.signal(Signal::TERM);
    until("nobody is let in any more", || {
        TcpStream::connect(daemon.addr).is_err()
    });
    for (mut client, call) in streams {
        call.say(b"the second half").finish();
        assert_eq!(client.rest().unwrap(), b"the second half");
    }
    assert_eq!(daemon.exit_code(), Some(0));
    let told = daemon.stderr();
    assert!(
        told.contains("stopping: finishing 1") && !told.contains("cutting"),
        "{told}"
    );
}

#[test]
fn those_who_queue_when_it_is_told_to_stop_are_served() {
    let mut daemon = Daemon::start(&["serve", "--port", "0", "poetry/furuike.txt"]);
    daemon.signal(Signal::STOP);
    until("it stands still", || daemon.is_stopped());
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(daemon.addr)).collect();
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::CONT);
    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest().unwrap(), poem));
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn those_who_queue_for_a_place_when_it_is_told_to_stop_are_served_as_places_are_left() {
    let bard = Bard::new();
    let args = [
        "proxy",
        "--port",
        "0",
        "--drain-timeout",
        "60s",
        &bard.addr.to_string(),
    ];
    let mut daemon = Daemon::start_with_descriptors(64, &args);
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(daemon.addr)).collect();
    let call = bard.call().say(b"half ");
    assert_eq!(clients[0].take(5), b"half ");
    let told = daemon.stderr_lines();
    daemon.signal(Signal::TERM);
    while !told.recv_timeout(LONG).unwrap().contains("stopping") {}
    call.say(b"whole").finish();
    assert_eq!(clients[0].rest().unwrap(), b"whole");
    clients[1..]
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest().unwrap(), b"half whole"));
    assert_eq!(daemon.exit_code(), Some(0));
}

/// For each client that it answers, another one comes.
struct Hydra {
    addr: OnceLock<SocketAddr>,
    heads: AtomicUsize,
}

impl Handler for Hydra {
    fn protocol(&self) -> Protocol {
        Protocol::Poem
    }

    fn request_limit(&self) -> u64 {
        0
    }

    fn reload(&self) -> Result<&'static str, Error> {
        Ok("nothing to do")
    }

    fn answer(self: Arc<Self>, _: Bytes, _: Instant) -> Response {
        self.heads.fetch_add(1, Ordering::AcqRel);
        let _refused_in_the_end = self.addr.get().map(TcpStream::connect);
        Response {
            reader: Reader::of("poem".into()),
            how: CacheStatus::Own,
        }
    }
}

#[test]
fn a_stop_ends_also_where_clients_come_faster_than_they_are_served() {
    let hydra = Arc::new(Hydra {
        addr: OnceLock::new(),
        heads: AtomicUsize::new(0),
    });
    let mut server = Running::start(LIMITS, |_| hydra.clone());
    hydra.addr.set(server.addr).unwrap();
    let _first = server.connect();
    until("there are many", || {
        hydra.heads.load(Ordering::Acquire) > 100
    });
    server.stop();
    assert!(server.has_ended_within(LONG));
}

#[test]
fn a_thousand_hangups_under_load_cost_nobody_a_poem() {
    let bard = Bard::new();
    let addr = bard.addr.to_string();
    bard.trickle(b"poem");
    let mut daemon = Daemon::start(&["proxy", "-q", "--port", "0", &addr]);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..2000 {
                assert_eq!(Client::connect(daemon.addr).rest().unwrap(), b"poem");
            }
        });
        for _ in 0..1000 {
            daemon.signal(Signal::HUP);
            std::thread::yield_now();
        }
        asking.join().unwrap();
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_stuck_client_holds_up_a_drain_for_its_time_and_no_longer() {
    many_descriptors();
    let bard = Bard::new();
    let mut daemon = Daemon::start(&[
        "proxy",
        "--port",
        "0",
        "--drain-timeout",
        "100ms",
        &bard.addr.to_string(),
    ]);
    let mut stuck: Vec<Client> = (0..100).map(|_| Client::narrow(daemon.addr)).collect();
    let call = bard.call();
    let saying = std::thread::spawn(move || call.try_say(&vec![b'x'; 8 << 20]).finish());
    stuck
        .iter_mut()
        .for_each(|client| assert_eq!(client.take(1), b"x"));
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    stuck
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset)));
    saying.join().unwrap();
}

#[test]
fn a_purge_in_mid_poem_costs_those_who_wait_nothing_and_the_newer_poem_survives_the_older() {
    let bard = Bard::new();
    let stats = Arc::new(poetry::stats::Stats::default());
    let handler =
        poetry::handler::proxy::Proxy::new(settings(&bard), Arc::new(poetry::stats::Silent), stats);
    let proxy = Running::start(LIMITS, |_| handler.clone());
    let mut old = proxy.connect();
    let older = bard.call().say(b"old ");
    assert_eq!(old.take(4), b"old ");
    handler.reload().unwrap();
    let mut new = proxy.connect();
    bard.call().say(b"new poem").finish();
    assert_eq!(new.rest().unwrap(), b"new poem");
    older.say(b"poem").finish();
    assert_eq!(old.rest().unwrap(), b"poem");
    assert_eq!(proxy.ask().unwrap(), b"new poem");
    assert_eq!(bard.callers(), 2);
}

#[test]
fn a_hangup_stops_a_server_whose_terminal_is_gone_and_no_other() {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    unlockpt(&terminal).unwrap();
    let end = ioctl_tiocgptpeer(&terminal, flags).unwrap();
    let stdin = end.try_clone().unwrap().into();
    let mut daemon = Daemon::start_with(command(&["serve", "--port", "0"]), stdin);
    let told = daemon.stderr_lines();
    daemon.signal(Signal::HUP);
    assert_eq!(told.recv_timeout(LONG).unwrap(), "read the poems again");
    Client::connect(daemon.addr).rest().unwrap();
    drop(terminal);
    // A process that another test is just starting may have it for a moment more.
    until("the terminal is gone", || {
        !std::io::IsTerminal::is_terminal(&end)
    });
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.exit_code(), Some(0));
}
