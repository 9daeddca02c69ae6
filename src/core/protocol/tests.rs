//! Tests of the protocols.

use super::*;
use proptest::prelude::*;

fn decode(protocol: Protocol, input: &[u8], split: usize) -> Result<Option<Bytes>, Malformed> {
    let mut decoder = RequestDecoder::new(protocol, 100);
    for part in input.chunks(split.max(1)) {
        if let Some(request) = decoder.push(part)? {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

#[test]
fn only_strict_netstrings_are_read() {
    let ok = |text: &str| decode(Protocol::Netstring, text.as_bytes(), 100);
    assert_eq!(
        ok("27:cummingsify.HERE IS MY POEM,").unwrap().unwrap(),
        "cummingsify.HERE IS MY POEM"
    );
    assert_eq!(ok("0:,").unwrap().unwrap(), "");
    assert_eq!(ok("5:hel").unwrap(), None);

    for text in [
        "05:hello,",
        "00:,",
        "+5:hello,",
        "-1:",
        " 5:hello,",
        "5 :hello,",
        ":,",
        "x",
        "5x",
        "\u{663}:",
    ] {
        assert_eq!(ok(text), Err(Malformed::Length), "{text}");
    }

    assert_eq!(ok("101:"), Err(Malformed::TooLong(100)));
    assert_eq!(
        ok("99999999999999999999999999:"),
        Err(Malformed::TooLong(100))
    );
    assert_eq!(ok("5:hello;"), Err(Malformed::Comma));
    assert_eq!(ok("0:x"), Err(Malformed::Comma));
}

#[test]
fn a_length_over_any_integer_is_too_long() {
    let scan = |text: &str| Scanner::new(u64::MAX).scan(text.as_bytes(), |_| ());
    assert_eq!(scan("18446744073709551615:"), Ok(21));
    for text in ["18446744073709551616:", "99999999999999999999999999:"] {
        assert_eq!(scan(text), Err(Malformed::TooLong(u64::MAX)), "{text}");
    }
}

#[test]
fn lines_end_in_lf_or_crlf_without_control_bytes() {
    let line = |text: &[u8]| decode(Protocol::Line, text, 3);
    assert_eq!(line(b"donne\r\n").unwrap().unwrap(), "donne");
    assert_eq!(line(b"a\tb\n").unwrap().unwrap(), "a\tb");
    assert_eq!(line(b"\n").unwrap().unwrap(), "");

    assert_eq!(
        line(&[&[b'x'; 1024][..], b"\r\n"].concat())
            .unwrap()
            .unwrap()
            .len(),
        1024
    );
    assert_eq!(line(&[b'x'; 1025]), Err(Malformed::TooLong(1024)));

    for text in [&b"a\0\n"[..], b"a\rb\n", b"\x1b[2J\n", b"\x7f\n"] {
        assert_eq!(line(text), Err(Malformed::Control), "{text:?}");
    }
}

/// What a line becomes whose sender closes after these bytes.
fn closed(text: &[u8], split: usize) -> Result<Bytes, Malformed> {
    let mut decoder = RequestDecoder::new(Protocol::Line, 100);
    for part in text.chunks(split) {
        assert_eq!(decoder.push(part)?, None);
    }
    decoder.eof()
}

#[test]
fn a_line_may_end_with_the_connection() {
    let long = [b'x'; 1024];
    let long_return = [&long[..], b"\r\0"].concat();
    let lines: [(&[u8], &[u8]); 8] = [
        (b"root", b"root"),
        (b"root\r", b"root"),
        (b"root\r\0", b"root"),
        (b"\r", b""),
        (b"\r\0", b""),
        (b"a\tb", b"a\tb"),
        (&long, &long),
        (&long_return, &long),
    ];
    let not_lines: [(&[u8], Malformed); 7] = [
        (b"", Malformed::Missing),
        (b"\0", Malformed::Control),
        (b"root\0", Malformed::Control),
        (b"root\r\0\0", Malformed::Control),
        (b"root\r\0\n", Malformed::Control),
        (b"root\r\0x", Malformed::Control),
        (&[b'x'; 1025], Malformed::TooLong(1024)),
    ];

    for split in [1, 2, 1000] {
        for (text, line) in lines {
            assert_eq!(closed(text, split).unwrap(), line, "{text:?}");
        }
        for (text, why) in &not_lines {
            assert_eq!(closed(text, split), Err(why.clone()), "{text:?}");
        }
    }
}

#[test]
fn a_netstring_does_not_end_with_the_connection() {
    for text in ["", "5", "5:", "5:hello"] {
        let mut decoder = RequestDecoder::new(Protocol::Netstring, 100);
        assert_eq!(decoder.push(text.as_bytes()), Ok(None));
        assert_eq!(decoder.eof(), Err(Malformed::Unfinished), "{text}");
    }
}

#[test]
fn a_request_keeps_no_spare_capacity() {
    let framed = netstring(&[b'x'; 90]);
    let request = decode(Protocol::Netstring, &framed, 60).unwrap().unwrap();
    assert_eq!((request.len(), Vec::from(request).capacity()), (90, 90));
}

#[test]
fn a_frame_is_sent_in_any_pieces() {
    for step in 1..12 {
        let (mut frame, mut sent) = (Frame::netstring(b"a.", b"poem"), Vec::new());
        while !frame.is_sent() {
            let rest = frame.rest().concat();
            let count = step.min(rest.len());
            sent.extend_from_slice(&rest[..count]);
            frame.advance(count);
        }
        assert_eq!(sent, b"6:a.poem,");
    }
    assert_eq!(Protocol::Line.frame(b"name").rest().concat(), b"name\r\n");
    assert!(Protocol::Poem.frame(b"").is_sent());
}

/// Any bytes, and often those that mean something in a protocol.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(b'1'),
        Just(b'0'),
        Just(b':'),
        Just(b','),
        Just(b'\r'),
        Just(b'\n'),
        any::<u8>()
    ]
}

proptest! {
    #[test]
    fn any_split_of_a_request_decodes_the_same(
        input in prop::collection::vec(byte(), 0..40),
        split in 1usize..9,
    ) {
        for protocol in [Protocol::Line, Protocol::Netstring] {
            prop_assert_eq!(decode(protocol, &input, split), decode(protocol, &input, 100));
        }
    }

    #[test]
    fn a_framed_payload_is_read_back(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        split in 1usize..9,
    ) {
        let framed = netstring(&payload);
        prop_assert_eq!(&Protocol::Netstring.frame(&payload).rest().concat(), &framed);
        prop_assert_eq!(decode(Protocol::Netstring, &framed, split).unwrap().unwrap(), payload);
    }
}
