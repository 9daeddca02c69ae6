//! Headers as load balancers write them, and as nothing should.

use super::*;
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
    ProxyHeader::parse(bytes)
}

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn whole(source: Option<&str>, length: usize) -> Result<Option<ProxyHeader>, BadHeader> {
    let source = source.map(|text| text.parse().expect(text));
    Ok(Some(ProxyHeader { source, length }))
}

#[test]
fn version_1_names_the_client_in_a_line() {
    for (line, source) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            Some("192.0.2.1:56324"),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 0\r\n",
            Some("[2001:db8::1]:1"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff:f...f:ffff what ever 65535\r\n", None),
    ] {
        let wanted = whole(source, line.len());
        assert_eq!(parse(line.as_bytes()), wanted, "{line}");
        let more = format!("{line}example.net\r\n");
        assert_eq!(parse(more.as_bytes()), wanted, "{line}");
    }
}

#[test]
fn a_line_that_says_nothing_is_refused() {
    for line in [
        "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx",
        "PROXY TCP4 192.0.2.\u{e9} 192.0.2.2 1 2\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(BadHeader::Line), "{line:?}");
    }
    for bytes in [
        &b"GET / HTTP/1.0\r\n"[..],
        b"PROXX",
        b"\r\n\r\n\0\r\nQUIX",
        b"example.net\r\n",
    ] {
        assert_eq!(parse(bytes), Err(BadHeader::None));
    }
}

#[test]
fn version_1_ends_within_107_bytes() {
    let line = |spaces: usize| format!("PROXY UNKNOWN{}\r\n", " ".repeat(spaces)).into_bytes();
    let longest = line(V1_BYTES - 15);
    assert_eq!(longest.len(), V1_BYTES);
    assert_eq!(parse(&longest), whole(None, V1_BYTES));
    let longer = line(V1_BYTES - 14);
    assert_eq!(parse(&longer), Err(BadHeader::TooLong));
    assert_eq!(parse(&longer[..V1_BYTES]), Err(BadHeader::TooLong));
    assert_eq!(parse(&longer[..V1_BYTES - 1]), Ok(None));
}

#[test]
fn version_2_names_the_client_in_bytes() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0x20, 0x01]);
    v6[15] = 1;
    v6[33] = 7;
    let tlv = [&v4[..], &[4, 0, 1, 9]].concat();

    for (header, source) in [
        (v2(0x21, 0x11, &v4), Some("192.0.2.1:56324")),
        (v2(0x21, 0x11, &tlv), Some("192.0.2.1:56324")),
        (v2(0x21, 0x21, &v6), Some("[2001::1]:7")),
        (v2(0x20, 0x11, &v4), None),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &[]), None),
        (v2(0x21, 0x00, &[1, 2, 3]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
        (v2(0x21, 0x00, &[0; V2_BYTES - 16]), None),
    ] {
        assert_eq!(parse(&header), whole(source, header.len()));
        let more = [&header[..], b"example.net\r\n"].concat();
        assert_eq!(parse(&more), whole(source, header.len()));
    }
}

#[test]
fn version_2_with_a_field_that_says_nothing_is_refused() {
    for (header, why) in [
        (v2(0x11, 0x11, &[0; 12]), BadHeader::Field),
        (v2(0x22, 0x11, &[0; 12]), BadHeader::Field),
        (v2(0x21, 0x12, &[0; 12]), BadHeader::Field),
        (v2(0x20, 0xff, &[]), BadHeader::Field),
        (v2(0x21, 0x11, &[0; 11]), BadHeader::Field),
        (v2(0x21, 0x21, &[0; 35]), BadHeader::Field),
        (v2(0x21, 0x31, &[0; 215]), BadHeader::Field),
        (v2(0x21, 0x00, &[0; V2_BYTES - 15]), BadHeader::TooLong),
        (v2(0x20, 0x00, &[0; 65_535]), BadHeader::TooLong),
    ] {
        assert_eq!(parse(&header), Err(why), "{header:?}");
    }
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let line = "PROXY (TCP4 [0-9.]{7,9}|TCP6 [0-9a-f:]{2,9}|UNKNOWN)( [0-9.:]{1,9}){0,4}\r?\n?";
    let line = line.prop_map(String::into_bytes);
    let valid = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| {
        let ip = Ipv4Addr::from(ip);
        format!("PROXY TCP4 {ip} 192.0.2.1 {port} 1\r\n").into_bytes()
    });
    let binary = (
        0x1fu8..0x23,
        prop::sample::select(vec![0u8, 0x11, 0x12, 0x21, 0x31]),
        prop::collection::vec(any::<u8>(), 0..260),
    )
        .prop_map(|(command, family, rest)| v2(command, family, &rest));
    let any = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![line, valid, binary, any]
}

proptest! {
    /// A header means the same however its bytes arrive: it is whole at one byte and
    /// not before, and once bad it stays bad.
    #[test]
    fn a_header_means_the_same_byte_by_byte(header in header(), more in ".{0,20}") {
        let all = [&header[..], more.as_bytes()].concat();
        let whole = parse(&all);
        let mut first = None;
        for end in 0..=all.len() {
            match parse(&all[..end]) {
                Ok(None) => prop_assert!(first.is_none()),
                settled => {
                    prop_assert_eq!(*first.get_or_insert(settled), settled);
                    if let Ok(Some(header)) = settled {
                        prop_assert!(header.length <= end);
                    }
                }
            }
        }
        prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        if let Ok(Some(header)) = whole {
            prop_assert!(header.length <= V2_BYTES);
            prop_assert_eq!(parse(&all[..header.length]), whole);
            prop_assert_eq!(parse(&all[..header.length - 1]), Ok(None));
        }
    }
}
