//! Clients that talk out of turn, are slow, are stuck, vanish, or come all at once.

use crate::bard::{
    Bard, Client, Daemon, LIMITS, LONG, Running, many_descriptors, reset, settings, until,
    until_count,
};
use bytes::Bytes;
use futures::FutureExt;
use poetry::flight::Read as Progress;
use poetry::handler::proxy::{Proxy, ProxySettings};
use poetry::protocol::Protocol;
use poetry::rt;
use poetry::server::{Handler, Limits};
use poetry::stats::{CacheStatus, Silent, Stats};
use poetry::transform::Registry;
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn a_client_that_takes_nothing_is_reset_and_the_others_are_served() {
    let bard = Bard::new();
    let limits = Limits {
        client_timeout: Duration::from_millis(100),
        ..LIMITS
    };
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
    let proxy = Running::proxy_with(
        settings(&bard),
        Limits {
            max_clients: 1,
            ..LIMITS
        },
    );
    let first = proxy.connect();
    let call = bard.call();
    let mut second = proxy.connect();
    reset(first.stream);
    call.say(b"poem").finish();
    assert_eq!(second.rest().unwrap(), b"poem");
}

#[test]
fn a_waiting_client_that_resets_frees_its_place_also_where_it_had_half_closed_or_said_too_much() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let (half, mut talker) = (proxy.connect(), proxy.connect());
    let call = bard.call();
    half.stream.shutdown(Shutdown::Write).unwrap();
    talker.say(&[b'?'; 100_000]);
    let mut later = proxy.connect();
    proxy.open(3); // and what the others have said is heard by then, but for the last of it
    reset(half.stream);
    reset(talker.stream);
    proxy.open(1);
    call.say(b"poem").finish();
    assert_eq!(later.rest().unwrap(), b"poem");
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

/// A poem of which a part always waits in some buffer.
fn large() -> Vec<u8> {
    (0..6u32 << 20).map(|at| (at ^ (at >> 9)) as u8).collect()
}

/// A proxy that keeps this poem.
fn keeping(poem: &[u8]) -> Running {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut client = proxy.connect();
    let (call, text) = (bard.call(), poem.to_vec());
    let saying = std::thread::spawn(move || call.say(&text).finish());
    assert!(client.rest().unwrap() == poem);
    saying.join().unwrap();
    proxy
}

#[test]
fn bytes_that_nobody_asked_for_cost_nothing_before_during_and_after_the_poem() {
    let poem = large();
    let proxy = keeping(&poem);
    let chatter = [b'?'; 10_000];
    for _ in 0..5 {
        let mut client = proxy.connect();
        client.say(&chatter);
        let mut got = client.take(1 << 20);
        client.say(&chatter);
        got.extend(client.take(poem.len() - got.len()));
        let _already_closed = client.stream.write_all(&chatter);
        got.extend(client.rest().unwrap());
        assert!(got == poem);
    }
    proxy.open(0);
}

#[test]
fn a_megabyte_that_nobody_asked_for_does_not_cut_what_is_still_in_the_kernel() {
    let poem = [b'x'; 60_000]; // more than is on the wire at once, and no more than the kernel takes at once
    let proxy = keeping(&poem);
    let mut client = Client::narrow(proxy.addr);
    client.say(&[b'?'; 1 << 20]);
    assert!(client.rest().unwrap() == poem);
    client.stream.shutdown(Shutdown::Write).unwrap();
    proxy.open(0);
}

#[test]
fn a_client_that_half_closed_at_once_is_served_in_every_protocol() {
    let bard = Bard::new();
    let line = Running::proxy_with(
        ProxySettings {
            protocol: Protocol::Line,
            ..settings(&bard)
        },
        LIMITS,
    );
    let service = Running::transform(Registry::default(), LIMITS);
    let kept = keeping(b"kept");
    for (addr, request, answer) in [
        (line.addr, &b"name\n"[..], &b"poem"[..]),
        (service.addr, b"7:shout.a,", b"1:A,"),
        (kept.addr, b"", b"kept"),
    ] {
        let mut client = Client::connect(addr);
        client.say(request);
        client.stream.shutdown(Shutdown::Write).unwrap();
        if addr == line.addr {
            bard.call().try_recv(6).0.say(b"poem").finish();
        }
        assert_eq!(client.rest().unwrap(), answer);
    }
}

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    HangUp,
    Reset,
}

#[test]
fn one_who_leaves_at_any_step_changes_nothing_for_the_others() {
    for leaving in [Leaving::HangUp, Leaving::Reset] {
        for step in 0..4 {
            let bard = Bard::new();
            let proxy = Running::proxy(&bard);
            let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
            let mut leaver = Some(clients.remove(step % 3)); // be it the first, who caused the fetch
            let mut leave_at = |now: usize| {
                let leaver = if step == now { leaver.take() } else { None };
                if let (Some(leaver), Leaving::Reset) = (leaver, leaving) {
                    reset(leaver.stream);
                }
            };
            leave_at(0); // before the upstream has accepted
            let call = bard.call();
            leave_at(1); // before a byte
            let call = call.say(b"once ");
            clients
                .iter_mut()
                .for_each(|client| assert_eq!(client.take(5), b"once "));
            leave_at(2); // in mid-poem
            let call = call.say(b"upon");
            clients
                .iter_mut()
                .for_each(|client| assert_eq!(client.take(4), b"upon"));
            leave_at(3); // just before the end
            call.finish();
            clients
                .iter_mut()
                .for_each(|client| assert_eq!(client.rest().unwrap(), b""));
            assert_eq!(proxy.ask().unwrap(), b"once upon", "{leaving:?} at {step}");
            assert_eq!(bard.callers(), 1);
        }
    }
}

#[test]
fn a_slow_reader_holds_up_nobody_and_is_served_as_long_as_it_reads() {
    let poem = large();
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut slow = Client::narrow(proxy.addr);
    let (call, text) = (bard.call(), poem.clone());
    let saying = std::thread::spawn(move || call.say(&text).finish());
    assert_eq!(slow.take(1), &poem[..1]);
    for _ in 0..3 {
        assert!(
            proxy.ask().unwrap() == poem,
            "the others are done before it has read a second byte"
        );
    }
    saying.join().unwrap();
    assert_eq!(slow.take(10), &poem[1..11]);
    assert!(slow.rest().unwrap() == poem[11..]);
}

#[test]
fn a_thousand_stuck_clients_cost_little_memory_and_nobody_else_a_thing() {
    const STUCK: usize = 1000;
    many_descriptors();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.txt");
    std::fs::write(&file, large()).unwrap();
    let mut daemon = Daemon::start(&[
        "serve",
        "--port",
        "0",
        "--client-timeout",
        "3s",
        file.to_str().unwrap(),
    ]);
    let (memory, descriptors) = (daemon.memory(), daemon.descriptors());
    let stuck: Vec<Client> = (0..STUCK).map(|_| Client::narrow(daemon.addr)).collect();
    until("all are looked after", || {
        daemon.descriptors() >= descriptors + STUCK
    });
    assert!(Client::connect(daemon.addr).rest().unwrap() == large());
    let each = daemon.memory().saturating_sub(memory) / STUCK as u64;
    assert!(each < 4096, "{each} bytes for a stuck client");
    until("they are reset after --client-timeout", || {
        daemon.descriptors() <= descriptors
    });
    for mut client in stuck {
        assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    }
    assert!(Client::connect(daemon.addr).rest().unwrap() == large());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_slow_request_is_ended_by_the_clients_timeout_however_often_a_byte_comes() {
    let limits = Limits {
        client_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let service = Running::transform(poetry::transform::Registry::default(), limits);
    let mut client = service.connect();
    client.say(b"1000000:");
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
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
fn a_slowloris_of_fifty_is_ended_in_each_framed_protocol_and_others_are_served_meanwhile() {
    let bard = Bard::new();
    let limits = Limits {
        client_timeout: Duration::from_millis(400),
        ..LIMITS
    };
    let framed = |protocol| {
        Running::proxy_with(
            ProxySettings {
                protocol,
                ..settings(&bard)
            },
            limits,
        )
    };
    for (proxy, drip, request) in [
        (framed(Protocol::Line), &b"x"[..], &b"name\r\n"[..]),
        (framed(Protocol::Netstring), b"1", b"3:a.A,"),
    ] {
        let mut slow: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
        let mut drip_on = || {
            slow.iter_mut()
                .for_each(|client| drop(client.stream.write_all(drip)))
        };
        drip_on();
        let mut client = proxy.connect();
        client.say(request);
        bard.call()
            .try_recv(request.len())
            .0
            .say(b"4:poem,")
            .finish();
        assert_eq!(client.rest().unwrap(), b"4:poem,");
        until("all are ended", || {
            drip_on();
            proxy.stats.open.load(Ordering::Acquire) == 0
        });
        let ended = |mut client: Client| client.rest().map_or(true, |answer| answer.is_empty());
        assert!(slow.into_iter().all(ended), "none has got an answer");
    }
}

#[test]
fn a_storm_at_an_empty_cache_costs_one_fetch() {
    many_descriptors();
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut clients: Vec<Client> = (0..2000).map(|_| proxy.connect()).collect();
    proxy.open(2000);
    bard.call().say(b"poem").finish();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest().unwrap(), b"poem"));
    assert_eq!(bard.callers(), 1);
}

#[test]
fn at_each_of_two_hundred_edges_of_the_ttl_a_storm_costs_one_fetch() {
    let hour = Duration::from_secs(3600);
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.policy.ttl = hour;
    let stats = Arc::new(Stats::default());
    let proxy = Proxy::new(settings, Arc::new(Silent), stats.clone());
    bard.trickle(b"poem");
    for edge in 1..=200 {
        // The poem kept last was kept before this: an hour from now is past its ttl, and not past that of a newer one.
        let now = Instant::now() + hour;
        let answers: Vec<_> = (0..50)
            .map(|_| proxy.clone().answer(Bytes::new(), now))
            .collect();
        let misses = answers
            .iter()
            .filter(|answer| answer.how == CacheStatus::Miss)
            .count();
        assert_eq!(misses, 1, "at edge {edge}");
        for answer in answers {
            let mut reader = answer.reader;
            let mut got = Vec::new();
            loop {
                match reader.read() {
                    Progress::Chunk(bytes) => got.extend_from_slice(&bytes),
                    Progress::Pending => rt::block_on(reader.ready()),
                    Progress::End => break,
                    Progress::Failed(error) => panic!("{error}"),
                }
            }
            assert_eq!(got, b"poem");
        }
        let again = proxy.clone().answer(Bytes::new(), now);
        assert!(
            matches!(again.how, CacheStatus::Hit(_)),
            "{:?} at edge {edge}",
            again.how
        );
        assert!(again.reader.ready().now_or_never().is_some());
    }
    assert_eq!(stats.fetches.load(Ordering::Acquire), 200);
}

#[test]
fn a_storm_while_the_process_stands_still_is_served_whole_and_costs_one_fetch() {
    many_descriptors();
    let bard = Bard::new();
    let daemon = Daemon::start(&["proxy", "--port", "0", &bard.addr.to_string()]);
    daemon.signal(Signal::STOP);
    until("it stands still", || daemon.is_stopped());
    let mut clients: Vec<Client> = (0..3000).map(|_| Client::connect(daemon.addr)).collect();
    std::thread::park_timeout(Duration::from_millis(300)); // longer than the kernel waits before it sends again
    daemon.signal(Signal::CONT);
    bard.call().say(b"poem").finish();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest().unwrap(), b"poem"));
    assert_eq!(bard.callers(), 1);
}

#[test]
fn those_who_only_knock_leave_nothing_behind() {
    let bard = Bard::new();
    let line = Running::proxy_with(
        ProxySettings {
            protocol: Protocol::Line,
            ..settings(&bard)
        },
        LIMITS,
    );
    let kept = keeping(b"poem");
    for number in 0..1000 {
        for proxy in [&line, &kept] {
            let client = proxy.connect();
            if number % 2 == 0 {
                reset(client.stream);
            }
        }
    }
    [&line, &kept].iter().for_each(|proxy| proxy.open(0));
    assert_eq!(bard.callers(), 0);
    assert_eq!(kept.ask().unwrap(), b"poem");
}

#[test]
fn all_who_wait_may_leave_and_come_back_and_find_the_poem() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let clients: Vec<TcpStream> = (0..50).map(|_| proxy.connect().stream).collect();
    let call = bard.call().say(b"half ");
    proxy.open(50);
    clients.into_iter().for_each(reset);
    proxy.open(0);
    call.say(b"whole").finish();
    until_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.ask().unwrap(), b"half whole");
    assert_eq!(bard.callers(), 1);
}

#[test]
fn a_client_that_talks_without_end_is_not_listened_to_without_end() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut talker = proxy.connect();
    let call = bard.call();
    talker
        .stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut said = 0;
    while said < 64 << 20 {
        match talker.stream.write(&[b'?'; 1 << 16]) {
            Ok(count) => said += count,
            Err(_) => break, // the kernel's buffers are full, and nobody empties them
        }
    }
    assert!(said < 64 << 20, "it is still listened to");
    call.say(b"poem").finish();
    talker.stream.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(talker.take(4), b"poem", "and it is served all the same");
    let _reset_or_end = talker.stream.read(&mut [0]);
}
