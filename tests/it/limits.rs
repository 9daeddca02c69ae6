//! What the proxy rejects, how much it holds, and what it does not keep.

use crate::support::{FakeUpstream, HOUR, LONG, RESET, ZERO, count, proxy, wait_for_count};
use std::io::{ErrorKind, Read};
use std::time::Duration;

const RATE_LIMIT: &str = "(?i)rate exceeded";

#[test]
fn a_rejected_poem_is_delivered_and_never_kept() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).reject(RATE_LIMIT).min_bytes(5).start();

    for sent in [&b"Query rate exceeded\r\n"[..], b"1234", b"a poem"] {
        let mut client = proxy.connect();
        upstream.serve_once(sent);
        assert_eq!(client.rest().unwrap(), sent);
    }

    assert_eq!(proxy.get().unwrap(), b"a poem");
    assert_eq!(upstream.connections(), 3);
    wait_for_count("rejected", &proxy.stats.failed_fetches, 2);
}

#[test]
fn a_rejected_poem_is_what_all_get_within_fail_ttl() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).reject(RATE_LIMIT).fail_ttl(HOUR).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"rate exceeded");
    assert_eq!(client.rest().unwrap(), b"rate exceeded");

    for _ in 0..50 {
        assert_eq!(proxy.get().unwrap(), b"rate exceeded");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_rejected_refresh_replaces_nothing() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).reject(RATE_LIMIT).ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"the good old poem");

    for rejected in 1..=2 {
        assert_eq!(proxy.get_after_pause(), b"the good old poem");
        upstream.serve_once(b"rate exceeded");
        wait_for_count("rejected", &proxy.stats.failed_fetches, rejected);
    }

    assert_eq!(proxy.get().unwrap(), b"the good old poem");
}

#[test]
fn a_poem_is_checked_before_it_is_transformed() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream)
        .reject(RATE_LIMIT)
        .transform(&["rot13"])
        .start();

    for _ in 0..2 {
        let mut client = proxy.connect();
        upstream.serve_once(b"RATE EXCEEDED");
        assert_eq!(client.rest().unwrap(), b"ENGR RKPRRQRQ");
    }
}

#[test]
fn a_netstring_is_checked_by_its_payload() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().min_bytes(5).start();

    for _ in 0..2 {
        let mut client = proxy.request(b"3:a.A,");
        upstream.accept().skip(6).send(b"4:four,").close();
        assert_eq!(client.rest().unwrap(), b"4:four,");
    }
}

#[test]
fn whole_sends_nothing_before_the_poem_is_complete() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).whole(true).max_poem(10).start();

    // Half a poem: nothing comes, and then the reset.
    let mut client = proxy.connect();
    let connection = upstream.accept().send(b"half");
    client.set_patience(Duration::from_millis(50));
    let error = client.stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    connection.reset();
    client.set_patience(LONG);
    assert_eq!(client.rest(), RESET);

    // A poem over the limit: nothing of it comes.
    let mut client = proxy.connect();
    upstream.serve_once(b"longer than ten");
    let mut received = Vec::new();
    let error = client.stream.read_to_end(&mut received).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(received, b"");

    // A whole one is sent and kept.
    let mut client = proxy.connect();
    upstream.accept().send(b"ten ").send(b"bytes.").close();
    assert_eq!(client.rest().unwrap(), b"ten bytes.");
    assert_eq!(proxy.get().unwrap(), b"ten bytes.");
}

#[test]
fn a_fetch_over_the_capacity_passes_through_whole() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().max_poem(4 << 20);
    let proxy = builder.capacity(2 << 20).start();
    let poem: Vec<u8> = (0..3 << 20).map(|at: u32| (at >> 8) as u8).collect();

    for name in [b"a\n", b"b\n", b"a\n"] {
        let mut client = proxy.request(name);
        let sending = upstream.accept().skip(3).send_in_background(poem.clone());
        assert!(client.rest().unwrap() == poem);
        sending.join().unwrap();
    }

    assert_eq!(count(&proxy.stats.kept), 0);
}

#[test]
fn with_whole_a_fetch_over_the_capacity_fails() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).whole(true).capacity(1000).start();

    let mut client = proxy.connect();
    upstream.serve_once(&[b'x'; 2000]);

    assert_eq!(client.rest(), RESET);
}

#[test]
fn a_transformed_poem_has_the_same_limit() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream)
        .max_poem(1000)
        .transform(&["number"])
        .start();

    let mut client = proxy.connect();
    upstream.serve_once(&[b'\n'; 900]);

    assert_eq!(client.rest(), RESET);
}

#[test]
fn a_netstring_of_exactly_the_limit_is_kept() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().max_poem(10).start();

    let mut client = proxy.request(b"3:a.A,");
    upstream.accept().skip(6).send(b"10:0123456789,").close();
    assert_eq!(client.rest().unwrap(), b"10:0123456789,");

    assert_eq!(proxy.ask(b"3:a.A,").unwrap(), b"10:0123456789,");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_request_may_hold_a_poem_of_the_limit_and_a_name() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().max_poem(1000).start();
    let payload = vec![b'x'; 1254];
    let request = [b"1256:a.", &payload[..], b","].concat();

    let mut client = proxy.request(&request);
    let (connection, received) = upstream.accept().read(request.len());
    assert!(received == request);
    connection.send(b"4:poem,").close();
    assert_eq!(client.rest().unwrap(), b"4:poem,");

    assert_eq!(proxy.ask(b"1257:"), Ok(Vec::new()));
    assert_eq!(upstream.connections(), 1);
}
