//! The PROXY protocol, versions 1 and 2: what a load balancer says of a client before
//! that client's first byte (HAProxy's `proxy-protocol.txt`, 2020).
//!
//! | the header says | the client's address is |
//! |---|---|
//! | v1 `TCP4`, `TCP6`; v2 `PROXY` over TCP | the one it names |
//! | v1 `UNKNOWN`; v2 `LOCAL`, or no family, or a unix socket | that of the connection itself |
//! | anything else | none: the header is refused |
//!
//! However its bytes arrive, a header means the same. What it says more (TLVs,
//! checksums, names of certificates) is skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, in bytes, with its line end.
pub const V1_BYTES: usize = 107;

/// The longest header of version 2 that is taken, in bytes: what fits any path's first
/// segment. The two longest addresses leave 304 bytes for TLVs.
pub const V2_BYTES: usize = 536;

/// The first 12 bytes of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2: the signature, version and command, family, length.
const V2_FIXED: usize = 16;

/// The first bytes of version 1.
const V1_START: &[u8] = b"PROXY ";

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; `None` if it is that of the connection itself.
    pub source: Option<SocketAddr>,
    /// How many bytes it has. What follows is the client's.
    pub length: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// They begin like none.
    #[error("no PROXY header")]
    None,
    /// It has not ended after the most bytes that its version may have.
    #[error("its PROXY header is too long")]
    TooLong,
    /// Version 1, with a line that says nothing.
    #[error("its PROXY line is malformed")]
    Line,
    /// Version 2, with a field that says nothing, or addresses that are cut off.
    #[error("its PROXY header has a bad version, command, family or length")]
    Field,
}

impl ProxyHeader {
    /// The header that these bytes begin with; `None` if more of it is to come.
    ///
    /// # Errors
    /// [`BadHeader`]. No further byte can make it a header then.
    pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
        if begins_alike(bytes, V1_START) {
            parse_v1(bytes)
        } else if begins_alike(bytes, SIGNATURE) {
            parse_v2(bytes)
        } else {
            Err(BadHeader::None)
        }
    }
}

/// Whether one of them begins with the other.
fn begins_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
    let head = &bytes[..bytes.len().min(V1_BYTES)];
    let Some(end) = head.iter().position(|byte| *byte == b'\r') else {
        return if head.len() == V1_BYTES {
            Err(BadHeader::TooLong)
        } else {
            Ok(None)
        };
    };
    match head.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(BadHeader::Line),
        None if end + 1 == V1_BYTES => return Err(BadHeader::TooLong),
        None => return Ok(None),
    }

    let line = std::str::from_utf8(&head[..end]).map_err(|_| BadHeader::Line)?;
    Ok(Some(ProxyHeader {
        source: v1_source(line)?,
        length: end + 2,
    }))
}

/// The source of `PROXY TCP4 SOURCE DESTINATION PORT PORT`. Each field stands after a
/// single space.
fn v1_source(line: &str) -> Result<Option<SocketAddr>, BadHeader> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None); // the rest is to be ignored
    }

    let mut next = || words.next().ok_or(BadHeader::Line);
    let [source, _] = [v1_ip(family, next()?)?, v1_ip(family, next()?)?];
    let [port, _] = [v1_port(next()?)?, v1_port(next()?)?];
    if words.next().is_some() {
        return Err(BadHeader::Line);
    }
    Ok(Some(SocketAddr::new(source, port)))
}

fn v1_ip(family: &str, text: &str) -> Result<IpAddr, BadHeader> {
    let ip = match family {
        "TCP4" => text.parse().ok().map(|ip: Ipv4Addr| ip.into()),
        "TCP6" => text.parse().ok().map(|ip: Ipv6Addr| ip.into()),
        _ => None,
    };
    ip.ok_or(BadHeader::Line)
}

/// A decimal number from 0 to 65535 without a sign or a leading zero.
fn v1_port(text: &str) -> Result<u16, BadHeader> {
    let is_plain = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    let port = text.parse().ok().filter(|_| is_plain);
    port.ok_or(BadHeader::Line)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadHeader> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;

    let command = bytes.get(12).copied();
    if command.is_some_and(|command| ![LOCAL, PROXY].contains(&command)) {
        return Err(BadHeader::Field);
    }
    let family = bytes.get(13).copied().map(V2Family::of).transpose()?;
    let (Some(command), Some(family), Some(length)) = (command, family, bytes.get(14..V2_FIXED))
    else {
        return Ok(None);
    };

    let length = V2_FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > V2_BYTES {
        return Err(BadHeader::TooLong);
    }
    let is_local = command == LOCAL;
    if !is_local && length < V2_FIXED + family.bytes() {
        return Err(BadHeader::Field);
    }
    let Some(rest) = bytes.get(V2_FIXED..length) else {
        return Ok(None);
    };
    let source = if is_local { None } else { family.source(rest) };
    Ok(Some(ProxyHeader { source, length }))
}

/// What the addresses of version 2 are.
#[derive(Debug, Clone, Copy)]
enum V2Family {
    Unknown,
    V4,
    V6,
    Unix,
}

impl V2Family {
    fn of(byte: u8) -> Result<V2Family, BadHeader> {
        match byte {
            0x00 => Ok(V2Family::Unknown),
            0x11 => Ok(V2Family::V4),
            0x21 => Ok(V2Family::V6),
            0x31 => Ok(V2Family::Unix),
            _ => Err(BadHeader::Field), // there are no datagrams here
        }
    }

    /// How many bytes its two addresses take.
    fn bytes(self) -> usize {
        match self {
            V2Family::Unknown => 0,
            V2Family::V4 => 12,
            V2Family::V6 => 36,
            V2Family::Unix => 216,
        }
    }

    /// The first of the two addresses, if it is one of TCP.
    fn source(self, bytes: &[u8]) -> Option<SocketAddr> {
        let port = |at: usize| bytes.get(at..at + 2)?.try_into().ok();
        let (ip, port): (IpAddr, _) = match self {
            V2Family::Unknown | V2Family::Unix => return None,
            V2Family::V4 => {
                let ip: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
                (ip.into(), port(8)?)
            }
            V2Family::V6 => {
                let ip: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
                (ip.into(), port(32)?)
            }
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
    }
}

#[cfg(test)]
mod tests;
