//! Poems that trickle, end early, never end, or are just too long.

use super::{all_are_reset, assert_key_is_free, waiting_clients};
use crate::support::{FakeUpstream, RESET, SHORT, ZERO, proxy, wait_for_count};
use std::io::Read;
use std::net::Shutdown;
use std::thread::spawn;
use std::time::Duration;

#[test]
fn a_poem_that_trickles_outlasts_the_idle_timeout() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).idle_timeout(SHORT).start();

    let mut client = proxy.connect();
    let connection = upstream.accept();
    let pause = Duration::from_millis(10);
    let trickling = spawn(move || connection.send_bytewise(&[b'x'; 150], pause).close());

    // It takes longer than any silence may.
    assert_eq!(client.rest().unwrap(), [b'x'; 150]);
    trickling.join().unwrap();
}

#[test]
fn an_endless_trickle_is_ended_by_the_fetch_timeout() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).fetch_timeout(SHORT).start();

    let clients = waiting_clients(&proxy, 5);
    let connection = upstream.accept();
    let pause = Duration::from_millis(5);
    let trickling = spawn(move || connection.send_bytewise(&[b'x'; 100_000], pause));

    all_are_reset(clients);
    trickling.join().unwrap();
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_poem_in_one_byte_segments_is_whole_for_every_client() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let poem: Vec<u8> = (0..4000u32).map(|at| (at * 7 + at / 256) as u8).collect();

    let mut clients = waiting_clients(&proxy, 5);
    let connection = upstream.accept();
    let text = poem.clone();
    let trickling = spawn(move || connection.send_bytewise(&text, ZERO).close());
    clients.extend((0..20).map(|_| proxy.connect()));

    for client in &mut clients {
        assert!(client.rest().unwrap() == poem);
    }
    trickling.join().unwrap();
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_fetch_that_outlasts_its_ttl_is_still_shared() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).ttl(Duration::from_nanos(1)).start();

    let mut clients = waiting_clients(&proxy, 1);
    let mut connection = upstream.accept();
    for joined in 2..=20 {
        clients.push(proxy.connect());
        proxy.wait_for_open(joined);
        connection = connection.send(b".");
    }
    connection.close();

    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), [b'.'; 19]);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_poem_that_ends_early_is_known_only_by_its_length() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).min_bytes(10).start();

    // It is delivered, and not kept.
    let mut client = proxy.connect();
    upstream.serve_once(b"too short");
    assert_eq!(client.rest().unwrap(), b"too short");

    assert_key_is_free(&proxy, &upstream);
    assert_eq!(proxy.get().unwrap(), b"the whole poem");
}

#[test]
fn an_endless_poem_is_given_up_when_its_last_reader_leaves() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_poem(64 << 10).start();

    let mut client = proxy.connect();
    let flooding = upstream.accept().flood();
    assert!(client.read(4 << 20).iter().all(|byte| *byte == b'x'));
    client.reset();

    flooding.join().unwrap();
    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_poem_of_exactly_the_limit_is_kept_and_a_longer_one_not() {
    for whole in [false, true] {
        let upstream = FakeUpstream::new();
        let proxy = proxy(&upstream).max_poem(1000).whole(whole).start();

        let mut client = proxy.connect();
        upstream.serve_once(&[b'x'; 1001]);
        let over = if whole { RESET } else { Ok(vec![b'x'; 1001]) };
        assert_eq!(client.rest(), over);

        let mut client = proxy.connect();
        upstream
            .accept()
            .send(&[b'x'; 600])
            .send(&[b'x'; 400])
            .close();
        assert_eq!(client.rest().unwrap(), [b'x'; 1000]);
        assert_eq!(proxy.get().unwrap(), [b'x'; 1000]);
        assert_eq!(upstream.connections(), 2);
    }
}

#[test]
fn an_upstream_that_half_closes_has_ended_its_poem() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let mut client = proxy.connect();

    let mut stream = upstream.accept().send(b"poem").stream;
    stream.shutdown(Shutdown::Write).unwrap();

    assert_eq!(client.rest().unwrap(), b"poem");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the proxy hangs up");
}
