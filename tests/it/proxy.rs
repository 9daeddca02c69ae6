//! `proxy`: what is kept, what is not, and what clients get.

use crate::support::{
    FakeUpstream, Protocol, RESET, ZERO, long_poem, proxy, transform_service, wait_for_count,
};

#[test]
fn a_ttl_of_zero_keeps_nothing() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).ttl(ZERO).start();

    for _ in 0..2 {
        let mut client = proxy.connect();
        upstream.serve_once(b"poem");
        assert_eq!(client.rest().unwrap(), b"poem");
    }

    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_poem_over_the_limit_passes_through_and_is_not_kept() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_poem(1000).start();
    let poem = long_poem(100_000);

    for _ in 0..2 {
        let mut client = proxy.connect();
        let sending = upstream.accept().send_in_background(poem.clone());
        assert_eq!(client.rest().unwrap(), poem);
        sending.join().unwrap();
    }

    assert_eq!(upstream.connections(), 2);
}

#[test]
fn transformed_poems_are_kept_transformed() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream)
        .transform(&["cummingsify", "reverse"])
        .start();

    let mut client = proxy.connect();
    upstream.serve_once(b"ONE\nTWO\n");
    assert_eq!(client.rest().unwrap(), b"two\none\n");

    assert_eq!(proxy.get().unwrap(), b"two\none\n");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_external_service_can_transform() {
    let upstream = FakeUpstream::new();
    let service = FakeUpstream::new();
    let proxy = proxy(&upstream).via(service.addr, &["cummingsify"]).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"HERE IS MY POEM");
    let (connection, request) = service.accept().read(31);
    assert_eq!(request, b"27:cummingsify.HERE IS MY POEM,");

    connection.send(b"15:here is my poem,").close();
    assert_eq!(client.rest().unwrap(), b"here is my poem");
}

#[test]
fn a_failed_transformation_is_a_reset() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).transform(&["shout"]).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"\xff");

    assert_eq!(client.rest(), RESET);
}

#[test]
fn an_original_sent_on_failure_is_not_kept() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream)
        .transform(&["shout"])
        .original_on_failure()
        .start();

    for _ in 0..2 {
        let mut client = proxy.connect();
        upstream.serve_once(b"\xff");
        assert_eq!(client.rest().unwrap(), b"\xff");
    }
}

#[test]
fn a_declined_transformation_is_a_reset_without_frames() {
    let service = transform_service().start();
    let upstream = FakeUpstream::new();

    // The line protocol's request reaches the upstream with CRLF.
    let cases = [(Protocol::Poem, &b""[..], 0), (Protocol::Line, b"a\n", 3)];
    for (protocol, request, forwarded) in cases {
        let builder = proxy(&upstream).protocol(protocol);
        let proxy = builder.via(service.addr, &["no such name"]).start();

        let mut client = proxy.request(request);
        upstream.accept().skip(forwarded).send(b"poem").close();

        assert_eq!(client.rest(), RESET);
        wait_for_count("failures", &proxy.stats.failures, 1);
    }
}

#[test]
fn netstring_answers_are_shared_by_request() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().start();

    for (request, answer) in [(&b"3:a.A,"[..], &b"1:a,"[..]), (b"3:a.B,", b"1:b,")] {
        let mut client = proxy.request(request);
        let (connection, received) = upstream.accept().read(request.len());
        assert_eq!(received, request);

        // The comma ends the reply, whether or not the service hangs up.
        let connection = connection.send(answer);
        assert_eq!(client.rest().unwrap(), answer);
        drop(connection);
    }

    assert_eq!(proxy.ask(b"3:a.A,").unwrap(), b"1:a,");
    assert_eq!(proxy.ask(b"3:a.B,").unwrap(), b"1:b,");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_decline_is_passed_on_and_a_cut_reply_is_a_reset() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().start();

    let mut client = proxy.request(b"3:x.A,");
    upstream.accept().skip(6).close();
    assert_eq!(client.rest().unwrap(), b"");

    let mut client = proxy.request(b"3:x.A,");
    upstream.accept().skip(6).send(b"5:ab").close();
    assert_eq!(client.rest(), RESET);
}

#[test]
fn a_chain_of_proxies_never_keeps_a_cut_poem() {
    let upstream = FakeUpstream::new();
    let inner = proxy(&upstream).start();
    let outer = proxy(&upstream).upstreams(&[inner.addr]).start();

    let mut client = outer.connect();
    let connection = upstream.accept().send(b"half");
    assert_eq!(client.read(4), b"half");
    connection.reset();
    assert_eq!(client.rest(), RESET);

    let mut client = outer.connect();
    upstream.serve_once(b"whole");
    assert_eq!(client.rest().unwrap(), b"whole");
}
