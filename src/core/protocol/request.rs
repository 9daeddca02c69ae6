//! When is a client's request complete?

use super::{Malformed, Protocol, Scanner};
use crate::poem::packed;
use bytes::Bytes;

/// The longest request line in bytes, without its ending.
pub const LINE_LIMIT: usize = 1024;

/// Collects one request of a client, in any split of its bytes. The variants are public
/// so that fuzzers see what is held.
#[derive(Debug)]
pub enum RequestDecoder {
    /// The poem protocol has no requests.
    Poem,
    /// The line so far, perhaps with a CR, or CR NUL, at its end.
    Line(Vec<u8>),
    /// The netstring, and its payload so far.
    Netstring(Scanner, Vec<u8>),
}

impl RequestDecoder {
    /// A decoder for requests of at most `limit` bytes; for lines the limit is
    /// [`LINE_LIMIT`].
    pub fn new(protocol: Protocol, limit: u64) -> RequestDecoder {
        match protocol {
            Protocol::Poem => RequestDecoder::Poem,
            Protocol::Line => RequestDecoder::Line(Vec::new()),
            Protocol::Netstring => RequestDecoder::Netstring(Scanner::new(limit), Vec::new()),
        }
    }

    /// Bytes of the request held so far.
    pub(crate) fn held(&self) -> u64 {
        match self {
            RequestDecoder::Poem => 0,
            RequestDecoder::Line(held) | RequestDecoder::Netstring(_, held) => held.len() as u64,
        }
    }

    /// Takes the next bytes. Returns the request, without its framing, once it is
    /// complete; bytes after its end are ignored.
    ///
    /// # Errors
    /// [`Malformed`] as soon as the bytes can't become a request any more.
    pub fn push(&mut self, input: &[u8]) -> Result<Option<Bytes>, Malformed> {
        match self {
            RequestDecoder::Poem => Ok(Some(Bytes::new())),
            RequestDecoder::Line(line) => push_line(line, input),
            RequestDecoder::Netstring(scanner, payload) => {
                scanner.scan(input, |run| payload.extend_from_slice(run))?;
                Ok(scanner.is_done().then(|| packed(std::mem::take(payload))))
            }
        }
    }

    /// Takes a clean end of what the client sends, and returns the request. A line may
    /// end like this, as in `printf root | nc -N host 79`: the finger servers in use
    /// answer it. They also answer one that ends in CR, or in CR NUL, which is how
    /// telnet sends a CR (RFC 854). A netstring has an end of its own.
    ///
    /// # Errors
    /// [`Malformed::Missing`] without a byte of a line, [`Malformed::Unfinished`]
    /// inside a netstring.
    pub fn eof(&mut self) -> Result<Bytes, Malformed> {
        match self {
            RequestDecoder::Poem => Ok(Bytes::new()),
            RequestDecoder::Line(line) if line.is_empty() => Err(Malformed::Missing),
            RequestDecoder::Line(line) => {
                let text = line.split(|byte| *byte == b'\r').next();
                Ok(Bytes::copy_from_slice(text.unwrap_or_default()))
            }
            RequestDecoder::Netstring(..) => Err(Malformed::Unfinished),
        }
    }
}

/// Checks that a text can be sent as a request line.
///
/// # Errors
/// [`Malformed::Control`] or [`Malformed::TooLong`].
pub fn check_line(text: &[u8]) -> Result<(), Malformed> {
    let line = [text, b"\n"].concat();
    match push_line(&mut Vec::new(), &line)? {
        Some(read) if read == text => Ok(()),
        _ => Err(Malformed::Control),
    }
}

fn push_line(line: &mut Vec<u8>, input: &[u8]) -> Result<Option<Bytes>, Malformed> {
    for &byte in input {
        match (line.last(), byte) {
            (Some(b'\0'), _) => return Err(Malformed::Control), // after CR NUL comes the end
            (last, b'\n') => {
                let carriage = last == Some(&b'\r');
                line.truncate(line.len() - usize::from(carriage));
                return Ok(Some(std::mem::take(line).into()));
            }
            (Some(b'\r'), b'\0') => {
                line.push(byte);
                continue;
            }
            (Some(b'\r'), _) => return Err(Malformed::Control),
            (_, b'\t' | b'\r' | 0x20..=0x7e | 0x80..) => line.push(byte),
            _ => return Err(Malformed::Control),
        }

        if line.len() > LINE_LIMIT + usize::from(byte == b'\r') {
            return Err(Malformed::TooLong(LINE_LIMIT as u64));
        }
    }
    Ok(None)
}
