//! Requests that are not what they should be, or come in pieces; and keys that must not mix.

use crate::bard::{Bard, Client, Daemon, LIMITS, Running, settings, text};
use poetry::handler::proxy::ProxySettings;
use poetry::protocol::{Protocol, RequestDecoder};
use poetry::transform::Registry;
use std::io::ErrorKind;

fn proxy(bard: &Bard, protocol: Protocol) -> Running {
    Running::proxy_with(
        ProxySettings {
            protocol,
            ..settings(bard)
        },
        LIMITS,
    )
}

fn service() -> Running {
    Running::transform(Registry::default(), LIMITS)
}

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
    for protocol in [Protocol::Line, Protocol::Netstring] {
        for request in REQUESTS {
            let whole = decode(protocol, &[request]);
            for one in 0..=request.len() {
                for two in one..=request.len() {
                    let parts = [&request[..one], &request[one..two], &request[two..]];
                    assert_eq!(decode(protocol, &parts), whole, "{parts:?}");
                }
            }
        }
    }
}

#[test]
fn every_split_of_a_request_gets_the_same_answer_over_the_wire() {
    let (bard, service) = (Bard::new(), service());
    let line = proxy(&bard, Protocol::Line);
    bard.trickle(b"poem");
    for (addr, request, answer) in [
        (line.addr, &b"name\r\n"[..], &b"poem"[..]),
        (service.addr, b"9:shout.abc,", b"3:ABC,"),
    ] {
        for at in 1..request.len() {
            let mut client = Client::connect(addr);
            client.stream.set_nodelay(true).unwrap();
            client.say(&request[..at]);
            client.say(&request[at..]);
            assert_eq!(client.rest().unwrap(), answer, "split at {at}");
        }
    }
}

#[test]
fn a_length_with_a_sign_a_zero_a_space_or_an_overflow_is_declined_without_a_byte() {
    let (bard, service) = (Bard::new(), service());
    let proxy = proxy(&bard, Protocol::Netstring);
    for length in [
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
    ] {
        let request = format!("{length}:shout.abc,");
        for addr in [service.addr, proxy.addr] {
            assert_eq!(
                Client::ask(addr, request.as_bytes()),
                Ok(Vec::new()),
                "{request:?}"
            );
        }
    }
    assert_eq!(bard.callers(), 0);
    assert_eq!(
        Client::ask(service.addr, b"9:shout.abc,").unwrap(),
        b"3:ABC,"
    );
}

#[test]
fn a_missing_comma_is_declined_without_a_byte() {
    let service = service();
    for request in [
        &b"9:shout.abc;"[..],
        b"9:shout.abc9:",
        b"9:shout.abcd,",
        b"9:shout.abc\n",
    ] {
        assert_eq!(Client::ask(service.addr, request), Ok(Vec::new()));
    }
}

#[test]
fn a_length_is_no_reason_to_take_memory() {
    let daemon = Daemon::start(&["transform", "--port", "0", "--max-poem", "4GiB"]);
    let memory = daemon.memory();
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(daemon.addr)).collect();
    clients
        .iter_mut()
        .for_each(|client| client.say(b"4000000000:shout.a"));
    let mut one_more = Client::connect(daemon.addr);
    one_more.say(b"9:shout.abc,");
    assert_eq!(one_more.rest().unwrap(), b"3:ABC,");
    let more = daemon.memory().saturating_sub(memory);
    assert!(more < 4 << 20, "{more} bytes");
}

#[test]
fn of_several_requests_on_one_connection_the_first_is_answered() {
    let (bard, service) = (Bard::new(), service());
    assert_eq!(
        Client::ask(service.addr, b"9:shout.abc,9:shout.abd,").unwrap(),
        b"3:ABC,"
    );
    let line = proxy(&bard, Protocol::Line);
    for number in 0..20 {
        let mut client = line.connect();
        client.say(b"one\r\ntwo\r\n");
        if number == 0 {
            bard.call().try_recv(5).0.say(b"of one").finish();
        }
        assert_eq!(client.rest().unwrap(), b"of one");
    }
    assert_eq!(bard.callers(), 1);
}

#[test]
fn no_control_byte_reaches_the_upstream_or_the_log() {
    let bard = Bard::new();
    let upstream = bard.addr.to_string();
    for format in ["text", "json"] {
        let args = [
            "proxy",
            "--port",
            "0",
            "--protocol",
            "line",
            "-v",
            "--log-format",
            format,
            &upstream,
        ];
        let mut daemon = Daemon::start(&args);
        for byte in (0..=0x1f)
            .chain([0x7f])
            .filter(|byte| ![b'\t', b'\n'].contains(byte))
        {
            let request = [b"a", &[byte][..], b"b\n"].concat();
            assert_eq!(
                Client::ask(daemon.addr, &request),
                Err(ErrorKind::ConnectionReset),
                "{byte:#x}"
            );
        }
        // UTF-8 for U+009B, which a terminal takes for an escape, for U+202E, which turns what follows, and a byte that
        // is no text at all.
        let request = b"a\xc2\x9b2J\xe2\x80\xae\xff\tb\n";
        let mut client = Client::connect(daemon.addr);
        client.say(request);
        bard.call()
            .try_recv(request.len() + 1)
            .0
            .say(b"poem")
            .finish();
        assert_eq!(client.rest().unwrap(), b"poem");
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(daemon.exit_code(), Some(0));
        let told = daemon.stderr();
        assert!(
            told.lines().count() > 30
                && !told.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'),
            "{told:?}"
        );
    }
    assert_eq!(bard.callers(), 2);
}

#[test]
fn answers_to_requests_that_look_alike_are_not_mixed_up() {
    let bard = Bard::new();
    let line = proxy(&bard, Protocol::Line);
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
    bard.each(|number, mut call| {
        let mut byte = [0];
        while byte != *b"\n" {
            std::io::Read::read_exact(&mut call.stream, &mut byte).unwrap();
        }
        call.say(format!("answer {number}").as_bytes()).finish();
    });
    for _ in 0..2 {
        for (number, request) in requests.iter().enumerate() {
            let answer = Client::ask(line.addr, format!("{request}\n").as_bytes()).unwrap();
            assert_eq!(text(&answer), format!("answer {number}"), "{request:?}");
        }
    }
}
