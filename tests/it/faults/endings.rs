//! `--end-marker`: the end of the text tells whether it is whole, and the end of the
//! connection does not.

use super::{all_are_reset, assert_key_is_free, waiting_clients};
use crate::support::{
    Asked, Client, Connection, FakeUpstream, Folder, HOUR, LONG, Protocol, RESET, SHORT,
    ServerProcess, ZERO, ask_marked_and_interfere, count, long_poem, poetry, proxy, text,
    wait_for_count,
};
use poetry::protocol::EndRule;
use std::thread::spawn;
use std::time::Duration;

const MARKER: &str = r"\nEND\r\n";

/// A text of about that many bytes that ends in the marker.
fn marked(length: usize) -> Vec<u8> {
    [long_poem(length), b"\nEND\r\n".to_vec()].concat()
}

#[test]
fn a_reset_after_the_end_marker_leaves_the_poem_whole() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).end_marker(MARKER).max_poem(20 << 20);
    let proxy = builder.ttl(ZERO).start();

    for length in [0, 1000, 300_000, 16 << 20] {
        let poem = marked(length);
        let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
        let (connection, sent) = (upstream.accept(), poem.clone());
        let sending = spawn(move || connection.send(&sent));
        for client in &mut clients {
            assert!(client.read(poem.len()) == poem, "{length} bytes");
        }
        sending.join().unwrap().reset();
        for client in &mut clients {
            assert_eq!(client.rest().unwrap(), b"", "{length} bytes");
        }
    }
}

#[test]
fn a_poem_that_was_reset_after_its_end_marker_is_kept() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).end_marker(MARKER).start();

    let mut client = proxy.connect();
    upstream.accept().send(&marked(10)).reset();
    assert_eq!(client.rest().unwrap(), marked(10));

    assert_eq!(proxy.get().unwrap(), marked(10));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_clean_end_before_the_end_marker_resets_all_waiting_clients() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).end_marker("poem").start();

    for part in [&b"x"[..], b"the poe", b"poem of another", b"poem\n"] {
        let mut clients = waiting_clients(&proxy, 10);
        let connection = upstream.accept().send(part);
        for client in &mut clients {
            assert_eq!(client.read(part.len()), part, "it is passed on as it comes");
        }
        connection.close();
        all_are_reset(clients);
    }
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn an_end_marker_may_come_in_single_bytes() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).end_marker(MARKER).start();

    let mut client = proxy.connect();
    let pause = Duration::from_millis(1);
    let connection = upstream.accept().send_bytewise(&marked(20), pause);
    connection.reset();

    assert_eq!(client.rest().unwrap(), marked(20));
}

#[test]
fn a_line_like_the_end_marker_ends_no_poem() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).end_marker("gopher").start();

    let mut client = proxy.connect();
    let connection = upstream.accept().send(b"one\r\n.\r\n");
    assert_eq!(client.read(8), b"one\r\n.\r\n");
    connection.send(b"two\r\n.\r\n").close();

    assert_eq!(client.rest().unwrap(), b"two\r\n.\r\n");
}

#[test]
fn a_silence_after_the_end_marker_ends_the_poem() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).end_marker(MARKER).idle_timeout(SHORT);
    let proxy = builder.start();

    let clients = waiting_clients(&proxy, 3);
    let connection = upstream.accept().send(&marked(10));
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), marked(10));
    }
    connection.wait_for_hangup();
    assert_eq!(proxy.get().unwrap(), marked(10), "it is kept");

    proxy.reload();
    let clients = waiting_clients(&proxy, 3);
    let connection = upstream.accept().send(b"a part");
    connection.wait_for_hangup();
    all_are_reset(clients);
}

/// Servers behind inetd answer without reading the request, and close: the byte that
/// nothing has read turns that into a reset.
#[test]
fn an_upstream_that_closes_without_reading_the_request_brings_the_whole() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr;
    let poem = marked(5000);
    let answer = poem.clone();
    upstream.serve_each(move |_, connection| {
        connection.wait_until_readable();
        drop(connection.send(&answer).stream);
    });
    let unused = FakeUpstream::new();
    let proxy = proxy(&unused).line().upstreams(&[addr]).end_marker(MARKER);
    let proxy = proxy.start();

    for number in 0..50 {
        let request = format!("name {number}\r\n");
        let answer = proxy.ask(request.as_bytes());
        assert!(answer.unwrap() == poem, "request {number}");
    }
    wait_for_count("kept", &proxy.stats.kept, 50);
}

/// The reset is met while the request is being sent: the kernel reports it there, and
/// shows a clean end to what reads afterwards.
#[test]
fn a_reset_before_our_request_is_sent_leaves_the_whole_whole() {
    let ends = EndRule {
        marker: Some(MARKER.parse().unwrap()),
        allow_empty: true,
    };
    let ask = |interfere: fn(Connection)| {
        ask_marked_and_interfere(Protocol::Line, b"name", &ends, interfere)
    };

    let whole = Asked::Whole(b"text\nEND\r\n".to_vec());
    assert_eq!(ask(|c| c.send(b"text\nEND\r\n").reset()), whole);
    assert_eq!(ask(|c| c.send(b"text\nEND\r\n").close()), whole);
    assert_eq!(ask(|c| c.send(b"text\nEND\r").reset()), Asked::Reset(9));
    assert_eq!(ask(|c| c.reset()), Asked::Reset(0));
}

#[test]
fn a_refresh_that_ends_in_the_marker_is_believed_at_once() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).end_marker("\n").ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"one\ntwo\n");

    assert_eq!(proxy.get().unwrap(), b"one\ntwo\n");
    upstream.serve_once(b"one\n");
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.get().unwrap(), b"one\n");
    assert_eq!(upstream.accept().send(b"on").close(), ());

    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert_eq!(proxy.get().unwrap(), b"one\n", "a part replaces nothing");
}

#[test]
fn where_the_end_marker_is_missing_the_next_upstream_is_asked() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let builder = proxy(&first).upstreams(&[first.addr, second.addr]);
    let proxy = builder.end_marker(MARKER).whole(true).start();

    let mut client = proxy.connect();
    first.accept().send(b"a part").close();
    second.serve_once(&marked(10));

    assert_eq!(client.rest().unwrap(), marked(10));
    let counts = &proxy.snapshot().upstreams[0];
    let (error, _) = counts.last_error.clone().unwrap();
    let expected = format!("{}: ended before its end marker, after 6 bytes", first.addr);
    assert_eq!(error, expected);
}

#[test]
fn a_poem_over_the_window_needs_its_end_marker_too() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).end_marker(MARKER).max_poem(64 << 10);
    let proxy = builder.start();

    let poem = marked(300_000);
    let mut client = proxy.connect();
    let sending = upstream.accept().send_in_background(poem.clone());
    assert!(client.rest().unwrap() == poem);
    sending.join().unwrap();

    let mut client = proxy.connect();
    let part = poem[..poem.len() - 1].to_vec();
    let sending = upstream.accept().send_in_background(part);
    assert_eq!(client.rest(), RESET);
    sending.join().unwrap();
    assert_eq!(count(&proxy.stats.kept), 0);
}

#[test]
fn exit_code_0_makes_no_output_whole_that_lacks_its_end_marker() {
    let folder = Folder::new();
    let output = folder.arg("output");
    let builder = proxy(&FakeUpstream::new()).command(&format!("cat {output}"));
    let proxy = builder.end_marker(MARKER).start();

    folder.write("output", "a part");
    assert_eq!(proxy.get(), RESET);
    folder.write("output", marked(10));
    assert_eq!(proxy.get().unwrap(), marked(10));
}

#[test]
fn the_log_says_that_the_end_marker_did_not_come() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let reason = format!("{addr}: ended before its end marker, after 4 bytes");
    let forms = [
        ("text", format!("poetry: {reason}")),
        (
            "json",
            format!("\"outcome\":\"reset\",\"pause_ms\":1000,\"reason\":\"{reason}\""),
        ),
    ];

    for (format, expected) in forms {
        let args = [
            "proxy",
            "--port",
            "0",
            "--end-marker",
            "gopher",
            "--log-format",
            format,
            &addr,
        ];
        let mut server = ServerProcess::start(&args);
        let log = server.stderr_lines();

        let mut client = server.connect();
        upstream.serve_once(b"part");
        assert_eq!(client.rest(), RESET);

        let line = loop {
            let line = log.recv_timeout(LONG).unwrap();
            if line.contains("end marker") {
                break line;
            }
        };
        assert!(line.contains(&expected), "{line}");
    }
}

#[test]
fn an_end_marker_that_is_none_is_a_usage_error() {
    let netstring = ["--protocol", "netstring", "--end-marker", "x", "10001"];
    for (args, why) in [
        (
            &["--end-marker", "x*"][..],
            "'x*' for '--end-marker <REGEX>': every answer ends in it",
        ),
        (
            &["--end-marker", "("],
            "'(' for '--end-marker <REGEX>': unclosed group",
        ),
        (
            &netstring,
            "--end-marker cannot be used with --protocol netstring",
        ),
        (
            &["--end-marker", "x", "builtin"],
            "--end-marker cannot be used with builtin",
        ),
    ] {
        let out = poetry(&[&["proxy", "--port", "0"], args].concat());
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_empty_answer_is_kept_where_it_is_allowed() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).allow_empty().start();

    let clients = waiting_clients(&proxy, 10);
    upstream.accept().close();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"");
    }
    wait_for_count("kept", &proxy.stats.kept, 1);

    for _ in 0..10 {
        assert_eq!(proxy.get().unwrap(), b"");
    }
    assert_eq!(upstream.connections(), 1);
    let cache = proxy.snapshot().cache.unwrap();
    assert!(cache.kept.0 == 1 && cache.kept.1 >= 100, "{cache:?}");
}

#[test]
fn a_reset_before_the_first_byte_is_no_empty_answer() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).allow_empty().end_marker(r"\A\z|END");
    let proxy = builder.start();

    let clients = waiting_clients(&proxy, 10);
    upstream.accept().reset();
    all_are_reset(clients);

    let mut client = proxy.connect();
    upstream.accept().close();
    assert_eq!(client.rest().unwrap(), b"", "the marker matches it");
}

#[test]
fn an_end_marker_that_does_not_match_it_makes_an_empty_answer_a_failure() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).allow_empty().end_marker("END").start();

    let mut client = proxy.connect();
    upstream.accept().close();
    assert_eq!(client.rest(), RESET);
}

#[test]
fn a_refresh_without_a_byte_is_tried_once_more() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).allow_empty().ttl(ZERO).grace(HOUR);
    let proxy = builder.start_with(&upstream, b"a poem");

    assert_eq!(proxy.get().unwrap(), b"a poem");
    upstream.accept().close();
    upstream.serve_once(b"a poem");
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.get().unwrap(), b"a poem");

    upstream.accept().close();
    upstream.accept().close();
    wait_for_count("kept", &proxy.stats.kept, 3);
    assert_eq!(proxy.get().unwrap(), b"", "it came twice");

    upstream.serve_once(b"another poem");
    wait_for_count("kept", &proxy.stats.kept, 4);
    assert_eq!(proxy.get().unwrap(), b"another poem");
}

#[test]
fn empty_answers_take_their_part_of_the_capacity() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr;
    upstream.serve_each(|_, connection| connection.skip(6).close());
    let (unused, capacity) = (FakeUpstream::new(), 32 << 10);
    let builder = proxy(&unused).line().upstreams(&[addr]).allow_empty();
    let proxy = builder.capacity(capacity).start();

    for number in 0..500 {
        let answer = proxy.ask(format!("{number:04}\r\n").as_bytes());
        assert_eq!(answer.unwrap(), b"");
    }
    wait_for_count("kept", &proxy.stats.kept, 500);
    let cache = proxy.snapshot().cache.unwrap();
    assert!(
        cache.bytes <= capacity && cache.evicted_kept > 100,
        "{cache:?}"
    );
    assert!(cache.kept.0 > 100, "{cache:?}");
}

#[test]
fn an_empty_answer_goes_through_all_that_an_answer_goes_through() {
    let upstream = FakeUpstream::new();
    let empty = || upstream.accept().close();

    let whole = proxy(&upstream).allow_empty().whole(true).start();
    let mut client = whole.connect();
    empty();
    assert_eq!(client.rest().unwrap(), b"");

    let transformed = proxy(&upstream).allow_empty().transform(&["shout"]).start();
    let mut client = transformed.connect();
    empty();
    assert_eq!(client.rest().unwrap(), b"");
    assert_eq!(transformed.get().unwrap(), b"");

    let rejecting = proxy(&upstream).allow_empty().min_bytes(1).start();
    for _ in 0..2 {
        let mut client = rejecting.connect();
        empty();
        assert_eq!(client.rest().unwrap(), b"", "passed on, and not kept");
    }

    let command = proxy(&upstream).allow_empty().command("true").start();
    assert_eq!(command.get().unwrap(), b"");
    let failing = proxy(&upstream).allow_empty().command("false").start();
    assert_eq!(failing.get(), RESET);
}
