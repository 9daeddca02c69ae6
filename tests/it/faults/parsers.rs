//! Requests that are malformed or come in pieces, and keys that must not mix.

use crate::support::{
    Client, FakeUpstream, Protocol, RESET, ServerProcess, proxy, text, transform_service,
};
use poetry::protocol::RequestDecoder;
use std::io::Read;

/// Requests of every kind: right, wrong, and not finished.
const REQUESTS: [&[u8]; 20] = [
    b"name\r\n",
    b"name\n",
    b"\n",
    b"\r\n",
    b"a\tb\r\n",
    b"a\rb\n",
    b"a\r\r\n",
    b"\x00\n",
    b"\x7f\n",
    b"one\ntwo\n",
    b"9:shout.abc,",
    b"0:,",
    b"00:,",
    b"09:shout.abc,",
    b"+9:shout.abc,",
    b"9 :shout.abc,",
    b"9:shout.abc;",
    b"9:shout.abc,9:shout.abd,",
    b"9:shout.ab",
    b"99999999999999999999:",
];

#[test]
fn every_split_of_every_request_gives_the_same_answer() {
    let decode = |protocol, parts: &[&[u8]]| {
        let mut decoder = RequestDecoder::new(protocol, 1000);
        for part in parts {
            match decoder.push(part) {
                Ok(None) => {}
                ended => return ended,
            }
        }
        Ok(None)
    };
    let assert_splits_agree = |protocol, request: &[u8]| {
        let whole = decode(protocol, &[request]);
        for first in 0..=request.len() {
            for second in first..=request.len() {
                let parts = [
                    &request[..first],
                    &request[first..second],
                    &request[second..],
                ];
                assert_eq!(decode(protocol, &parts), whole, "{parts:?}");
            }
        }
    };

    for request in REQUESTS {
        assert_splits_agree(Protocol::Line, request);
        assert_splits_agree(Protocol::Netstring, request);
    }
}

#[test]
fn every_split_of_a_request_is_answered_alike_on_the_wire() {
    let upstream = FakeUpstream::new();
    let line = proxy(&upstream).line().start();
    let service = transform_service().start();
    upstream.serve_always(b"poem");

    let cases = [
        (line.addr, &b"name\r\n"[..], &b"poem"[..]),
        (service.addr, b"9:shout.abc,", b"3:ABC,"),
    ];
    for (addr, request, answer) in cases {
        for at in 1..request.len() {
            let mut client = Client::connect(addr);
            client.stream.set_nodelay(true).unwrap();
            client.send(&request[..at]);
            client.send(&request[at..]);
            assert_eq!(client.rest().unwrap(), answer, "split at {at}");
        }
    }
}

#[test]
fn a_length_that_is_not_plain_decimal_is_declined() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().start();
    let service = transform_service().start();
    let lengths = [
        "+9",
        "-9",
        "09",
        "0x9",
        " 9",
        "9 ",
        "\t9",
        "9\n",
        "",
        "9_",
        "\u{0669}",
        "18446744073709551625",
    ];

    for length in lengths {
        let request = format!("{length}:shout.abc,");
        for service in [&service, &proxy] {
            let answer = service.ask(request.as_bytes());
            assert_eq!(answer, Ok(Vec::new()), "{request:?}");
        }
    }

    assert_eq!(upstream.connections(), 0);
    assert_eq!(service.ask(b"9:shout.abc,").unwrap(), b"3:ABC,");
}

#[test]
fn a_missing_comma_is_declined() {
    let service = transform_service().start();
    let requests: [&[u8]; 4] = [
        b"9:shout.abc;",
        b"9:shout.abc9:",
        b"9:shout.abcd,",
        b"9:shout.abc\n",
    ];

    for request in requests {
        assert_eq!(service.ask(request), Ok(Vec::new()));
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    let args = ["transform", "--port", "0", "--max-poem", "4GiB"];
    let server = ServerProcess::start(&args);
    let before = server.memory();

    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(b"4000000000:shout.a");
    }
    assert_eq!(server.ask(b"9:shout.abc,").unwrap(), b"3:ABC,");

    let more = server.memory().saturating_sub(before);
    assert!(more < 4 << 20, "{more} bytes");
}

#[test]
fn of_several_requests_on_a_connection_the_first_is_answered() {
    let service = transform_service().start();
    let answer = service.ask(b"9:shout.abc,9:shout.abd,").unwrap();
    assert_eq!(answer, b"3:ABC,");

    let upstream = FakeUpstream::new();
    let line = proxy(&upstream).line().start();
    for number in 0..20 {
        let mut client = line.request(b"one\r\ntwo\r\n");
        if number == 0 {
            upstream.accept().skip(5).send(b"of one").close();
        }
        assert_eq!(client.rest().unwrap(), b"of one");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn no_control_byte_reaches_the_upstream_or_the_log() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();

    for format in ["text", "json"] {
        let flags = ["--protocol", "line", "-v", "--log-format", format];
        let args = [&["proxy", "--port", "0", &addr], &flags[..]].concat();
        let mut server = ServerProcess::start(&args);

        for byte in (0..=0x1f).chain([0x7f]) {
            if byte != b'\t' && byte != b'\n' {
                let request = [b'a', byte, b'b', b'\n'];
                assert_eq!(server.ask(&request), RESET, "{byte:#x}");
            }
        }

        // UTF-8 for U+009B, which a terminal takes for an escape, for U+202E, which
        // turns what follows, and a byte that is not text at all.
        let request = b"a\xc2\x9b2J\xe2\x80\xae\xff\tb\n";
        let mut client = server.connect();
        client.send(request);
        let forwarded = request.len() + 1;
        upstream.accept().skip(forwarded).send(b"poem").close();
        assert_eq!(client.rest().unwrap(), b"poem");

        let log = server.stop_and_read_log();
        let is_harmful = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(log.lines().count() > 30, "{log:?}");
        assert!(!log.contains(is_harmful), "{log:?}");
    }

    assert_eq!(upstream.connections(), 2);
}

#[test]
fn answers_to_requests_that_look_alike_never_mix() {
    let upstream = FakeUpstream::new();
    let line = proxy(&upstream).line().start();
    let long = "x".repeat(1024);
    let requests = [
        "",
        " ",
        "\t",
        "a",
        "A",
        "a ",
        " a",
        "a\ta",
        "1:a,",
        "0:,",
        "a\u{301}",
        "\u{e1}",
        &long,
        &long[1..],
    ];

    upstream.serve_each(|number, mut connection| {
        let mut byte = [0];
        while byte != *b"\n" {
            connection.stream.read_exact(&mut byte).unwrap();
        }
        let answer = format!("answer {number}");
        connection.send(answer.as_bytes()).close();
    });

    for _ in 0..2 {
        for (number, request) in requests.iter().enumerate() {
            let answer = line.ask(format!("{request}\n").as_bytes()).unwrap();
            assert_eq!(text(&answer), format!("answer {number}"), "{request:?}");
        }
    }
}
