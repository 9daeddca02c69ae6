//! `--connect-retry`: the upstream refuses, and may be starting again.

use super::{all_are_reset, waiting_clients};
use crate::support::{
    Connection, FakeUpstream, Folder, LONG, RESET, Service, poetry, proxy, text, unused_addr,
    wait_until,
};
use poetry::control::UpstreamState;
use poetry::upstream::RejectPause;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread::spawn;
use std::time::{Duration, Instant};

/// The time of tests in which all tries are in vain.
const BRIEF: Duration = Duration::from_millis(400);

fn asked(proxy: &Service, upstream: usize) -> u64 {
    proxy.snapshot().upstreams[upstream].asked
}

fn failures(proxy: &Service, upstream: usize) -> u64 {
    let counts = &proxy.snapshot().upstreams[upstream];
    counts.failures.iter().sum()
}

/// Answers one connection with `poem`, at an address that was free until now.
fn serve_once_at(addr: SocketAddr, poem: &'static [u8]) {
    let listener = TcpListener::bind(addr).unwrap();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(poem).unwrap();
    });
}

#[test]
fn clients_of_an_upstream_that_is_started_again_wait_for_it() {
    let addr = unused_addr();
    let builder = proxy(&FakeUpstream::new()).upstreams(&[addr]);
    let proxy = builder.connect_retry(LONG).start();

    let clients = waiting_clients(&proxy, 10);
    wait_until("it was tried again", || asked(&proxy, 0) >= 3);
    serve_once_at(addr, b"a poem");
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"a poem");
    }

    assert_eq!(failures(&proxy, 0), 0, "it has answered in the end");
    let state = proxy.snapshot().upstreams[0].state;
    assert_eq!(state, UpstreamState::Up);
}

#[test]
fn an_upstream_that_stays_away_is_tried_for_that_time_and_counts_once() {
    let builder = proxy(&FakeUpstream::new()).upstreams(&[unused_addr()]);
    let proxy = builder.connect_retry(BRIEF).start();

    let begun = Instant::now();
    all_are_reset(waiting_clients(&proxy, 10));
    assert!(begun.elapsed() >= BRIEF);

    let tries = asked(&proxy, 0);
    assert!(
        (2..=5).contains(&tries),
        "at most after 0, 50, 150, 350 and 400 ms: {tries}"
    );
    assert_eq!(failures(&proxy, 0), 1);
    let state = proxy.snapshot().upstreams[0].state;
    assert!(matches!(state, UpstreamState::Down(_)), "{state:?}");
}

#[test]
fn a_unix_socket_that_is_not_there_or_has_no_listener_is_tried_again() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let builder =
        proxy(&FakeUpstream::new()).upstreams_named(&[&format!("unix:{}", path.display())]);
    let proxy = builder.connect_retry(LONG).start();

    let mut client = proxy.connect();
    wait_until("it was tried again", || asked(&proxy, 0) >= 2);
    drop(UnixListener::bind(&path).unwrap()); // the file stays
    let before = asked(&proxy, 0);
    wait_until("it was tried again", || asked(&proxy, 0) >= before + 2);
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    listener.accept().unwrap().0.write_all(b"a poem").unwrap();
    assert_eq!(client.rest().unwrap(), b"a poem");
}

/// A server that ends resets the connections in its backlog.
#[test]
fn a_reset_before_the_first_byte_is_tried_again_and_one_after_it_is_not() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).connect_retry(LONG).start();

    let mut client = proxy.connect();
    upstream.accept().reset();
    upstream.accept().reset();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");

    proxy.reload();
    let mut client = proxy.connect();
    let connection = upstream.accept().send(b"a");
    assert_eq!(client.read(1), b"a");
    connection.reset();
    assert_eq!(client.rest(), RESET);
    assert_eq!(upstream.connections(), 4);
}

#[test]
fn silence_and_an_empty_reply_are_not_tried_again() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).connect_retry(LONG).idle_timeout(BRIEF);
    let proxy = builder.start();

    for end in [Connection::close, Connection::wait_for_hangup] {
        let mut client = proxy.connect();
        end(upstream.accept());
        assert_eq!(client.rest(), RESET);
    }
    assert_eq!(upstream.connections(), 2);
}

/// An upstream with a quota may have counted the request that it reset.
#[test]
fn with_a_rate_only_a_refused_connection_is_tried_again_and_takes_no_turn() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).connect_retry(LONG);
    let limited = builder.limits(Some("1/h"), RejectPause::Never).start();
    let mut client = limited.connect();
    upstream.accept().reset();
    assert_eq!(client.rest(), RESET);

    let addr = unused_addr();
    let builder = proxy(&upstream).upstreams(&[addr]).connect_retry(LONG);
    let limited = builder.limits(Some("1/h"), RejectPause::Never).start();
    let mut client = limited.connect();
    wait_until("it was tried again", || asked(&limited, 0) >= 3);
    serve_once_at(addr, b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
}

#[test]
fn another_upstream_is_asked_before_one_that_refuses_is_tried_again() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).upstreams(&[unused_addr(), upstream.addr]);
    let proxy = builder.connect_retry(LONG).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    assert_eq!(asked(&proxy, 0), 1);
}

#[test]
fn where_all_upstreams_refuse_they_are_tried_again_in_their_order() {
    let (first, second) = (unused_addr(), unused_addr());
    let builder = proxy(&FakeUpstream::new()).upstreams(&[first, second]);
    let proxy = builder.connect_retry(LONG).start();

    let mut client = proxy.connect();
    wait_until("both were tried again", || asked(&proxy, 1) >= 3);
    serve_once_at(second, b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    assert_eq!((failures(&proxy, 0), failures(&proxy, 1)), (1, 1));
    let state = proxy.snapshot().upstreams[1].state;
    assert_eq!(state, UpstreamState::Up);
}

#[test]
fn fetch_tries_a_server_again_that_refuses() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let serving = spawn(move || {
        upstream.accept().reset();
        upstream.accept().reset();
        upstream.serve_once(b"a poem\n");
    });
    let out = poetry(&["fetch", "--connect-retry", "50s", &addr]);
    serving.join().unwrap();
    assert_eq!(
        (text(&out.stdout), text(&out.stderr)),
        ("a poem\n".into(), String::new())
    );

    let refused = unused_addr().to_string();
    let begun = Instant::now();
    let out = poetry(&["fetch", "--connect-retry", "300ms", &refused]);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let expected = format!("poetry: {refused}: could not connect: connection refused\n");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(7), expected));
}
