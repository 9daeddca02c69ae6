//! Texts that identify themselves: a first line with the key, a serial number and the
//! length, then bytes that follow from the number. No two are alike, none is a part of
//! another, and a mix of two is neither.

use std::fmt::Write;

/// The length of the shortest text, in bytes: its first line needs the space.
pub const SHORTEST: usize = 64;

/// The length of the longest first line, in bytes.
const LONGEST_LINE: usize = 64;

/// The key in a text that an upstream sends before it has read a request. Such a text
/// never ends cleanly, so there is no whole one.
pub const NO_KEY: &str = "no-key";

/// The text of this number, of exactly `len` bytes.
pub fn compose(key: &str, serial: u64, len: usize) -> Vec<u8> {
    let mut line = String::with_capacity(len.max(LONGEST_LINE));
    let _infallible = writeln!(line, "soak {key} {serial} {len}");

    let mut text = line.into_bytes();
    let begin = text.len();
    text.resize(len.max(begin), 0);
    fastrand::Rng::with_seed(serial).fill(&mut text[begin..]);
    text
}

/// How much of a text some bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Extent {
    /// Too few bytes to tell, or none.
    Unknown,
    /// The beginning of the text with this number.
    Part(u64),
    /// All of it.
    Whole(u64),
}

/// Examines the bytes received by a client that asked for `key`.
///
/// # Errors
/// What is wrong with them: they are not the beginning of any text, or another key's.
pub fn examine(key: &str, bytes: &[u8]) -> Result<Extent, String> {
    let mut beginning = bytes.iter().take(LONGEST_LINE);
    let Some(end) = beginning.position(|byte| *byte == b'\n') else {
        if bytes.len() < LONGEST_LINE {
            return Ok(Extent::Unknown);
        }
        return Err("it does not begin like a text".into());
    };

    let line = String::from_utf8_lossy(&bytes[..end]);
    let header = Header::parse(&line).ok_or_else(|| format!("it begins with {line:?}"))?;
    let Header { owner, serial, len } = header;
    if owner != key && owner != NO_KEY {
        return Err(format!("it is {owner}'s number {serial}"));
    }
    if bytes.len() > len {
        let count = bytes.len();
        return Err(format!("{count} bytes of number {serial}, which has {len}"));
    }

    let expected = compose(owner, serial, len);
    let mut pairs = expected.iter().zip(bytes);
    match pairs.position(|(expected, got)| expected != got) {
        Some(at) => Err(format!("number {serial} differs from byte {at} of {len}")),
        None if bytes.len() < len => Ok(Extent::Part(serial)),
        None if owner == NO_KEY => Err(format!("number {serial} has no key and never ended")),
        None => Ok(Extent::Whole(serial)),
    }
}

/// What the first line of a text says.
struct Header<'a> {
    /// The key the text was sent for.
    owner: &'a str,
    serial: u64,
    len: usize,
}

impl Header<'_> {
    fn parse(line: &str) -> Option<Header<'_>> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["soak", owner, serial, len] = words[..] else {
            return None;
        };
        Some(Header {
            owner,
            serial: serial.parse().ok()?,
            len: len.parse().ok()?,
        })
    }
}
