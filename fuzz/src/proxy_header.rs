//! A PROXY header: however its bytes come, it is whole at one byte and means one thing,
//! and what a second, slow reader says of it.

use super::head;
use poetry::protocol::{BadHeader, ProxyHeader, V1_BYTES, V2_BYTES};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first byte says what is put before the rest: nothing, the start of version 1, or
/// the signature of version 2 with the right length.
pub fn check(data: &[u8]) {
    let ([kind], rest) = head(data);
    let bytes = match kind % 3 {
        0 => rest.to_vec(),
        1 => [b"PROXY ", rest].concat(),
        _ => {
            let length = rest.len().saturating_sub(2) as u16;
            let (fields, rest) = rest.split_at(rest.len().min(2));
            [SIGNATURE, fields, &length.to_be_bytes(), rest].concat()
        }
    };

    let whole = ProxyHeader::parse(&bytes);
    let mut first = None;
    for end in 0..=bytes.len() {
        let settled = ProxyHeader::parse(&bytes[..end]);
        assert!(
            first.is_none() || first == Some(settled),
            "it has changed its mind"
        );
        if settled != Ok(None) && first.is_none() {
            first = Some(settled);
            if let Ok(Some(header)) = settled {
                assert_eq!(header.length, end, "it takes a byte that is the client's");
            }
        }
    }
    assert_eq!(first.unwrap_or(Ok(None)), whole);

    if let Ok(Some(header)) = whole {
        let head = &bytes[..header.length];
        let is_v1 = head.starts_with(b"PROXY ");
        let most = if is_v1 { V1_BYTES } else { V2_BYTES };
        assert!(head.len() <= most);
        let source = if is_v1 {
            plain_v1(head)
        } else {
            plain_v2(head)
        };
        assert_eq!(header.source, source);
    }
    if bytes.len() >= V2_BYTES {
        assert_ne!(whole, Ok(None), "it waits for more than there may be");
    }
    if !bytes.starts_with(b"P") && !bytes.starts_with(b"\r") && !bytes.is_empty() {
        assert_eq!(whole, Err(BadHeader::None));
    }
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The source in a line that is known to be whole: the third word and the fifth.
fn plain_v1(line: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(line).expect("it was taken as a line");
    let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
    if words[1] == "UNKNOWN" {
        return None;
    }

    assert_eq!(words.len(), 6);
    let ip = words[2].parse().expect("it was taken as an address");
    Some(SocketAddr::new(ip, words[4].parse().expect("a port")))
}

/// The source in bytes that are known to be a header.
fn plain_v2(bytes: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match bytes[12..14] {
        [0x21, 0x11] => {
            let ip: [u8; 4] = bytes[16..20].try_into().expect("four bytes");
            Some((Ipv4Addr::from(ip), port(24)).into())
        }
        [0x21, 0x21] => {
            let ip: [u8; 16] = bytes[16..32].try_into().expect("sixteen bytes");
            Some((Ipv6Addr::from(ip), port(48)).into())
        }
        _ => None,
    }
}
