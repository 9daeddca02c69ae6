//! The three wire protocols as state machines: bytes in, a decision out. No I/O, no
//! clock.
//!
//! | protocol | the client sends | the server sends | the reply is complete when |
//! |---|---|---|---|
//! | poem | nothing | the poem | the connection ends cleanly after at least one byte |
//! | line | one line, ended by CRLF, LF or its side's close | text | the connection ends cleanly after at least one byte |
//! | netstring | one netstring | one netstring | the netstring's comma has come |
//!
//! Plain TCP has no length, so a clean end is the only sign that a poem or a text is
//! complete. That is why no part of this toolkit ever ends a failed transfer cleanly.
//!
//! Netstrings are strict (D. J. Bernstein, "Netstrings", 1997): a decimal length
//! without a leading zero (except `0:,`), sign or white space. A length over the limit
//! is refused before anything is allocated for it.

mod proxy_header;

use crate::error::{Error, Stage, reason};
use crate::poem::packed;
use bytes::Bytes;
pub use proxy_header::{BadHeader, ProxyHeader, V1_BYTES, V2_BYTES};
use std::io;
use std::time::Duration;

/// What a client and a server send each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Only the server sends (RFC 865 over TCP has the same shape).
    Poem,
    /// The client sends a request line first (finger RFC 1288, whois RFC 3912, gopher
    /// RFC 1436).
    Line,
    /// A netstring each way: the protocol of the transformation service.
    Netstring,
}

impl Protocol {
    /// The name, as a flag takes it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Poem => "poem",
            Protocol::Line => "line",
            Protocol::Netstring => "netstring",
        }
    }

    /// The request as it is sent.
    pub fn frame(self, request: &[u8]) -> Frame<'_> {
        match self {
            Protocol::Poem => Frame::default(),
            Protocol::Line => Frame {
                head: Vec::new(),
                body: request,
                tail: b"\r\n",
                sent: 0,
            },
            Protocol::Netstring => Frame::netstring(b"", request),
        }
    }

    /// The poem in a complete reply.
    pub fn payload(self, reply: Bytes) -> Bytes {
        match (self, reply.iter().position(|byte| *byte == b':')) {
            (Protocol::Netstring, Some(colon)) => reply.slice(colon + 1..reply.len() - 1),
            _ => reply,
        }
    }
}

/// A framed request and how much of it has been sent. The body is borrowed, not copied:
/// it may be large, and many requests may be on their way.
#[derive(Debug, Clone, Default)]
pub struct Frame<'a> {
    head: Vec<u8>,
    body: &'a [u8],
    tail: &'static [u8],
    sent: usize,
}

impl<'a> Frame<'a> {
    /// The netstring of `first` and `body`, one after the other. Copies only `first`.
    pub(crate) fn netstring(first: &[u8], body: &'a [u8]) -> Frame<'a> {
        let length = format!("{}:", first.len() + body.len());
        Frame {
            head: [length.as_bytes(), first].concat(),
            body,
            tail: b",",
            sent: 0,
        }
    }

    /// The bytes still to be sent, part by part.
    pub fn rest(&self) -> [&[u8]; 3] {
        let mut sent = self.sent;
        [&self.head[..], self.body, self.tail].map(|part| {
            let (gone, rest) = part.split_at(sent.min(part.len()));
            sent -= gone.len();
            rest
        })
    }

    /// Notes that `count` more bytes have been sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// All of its bytes.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Whether all bytes have been sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.len()
    }
}

/// The netstring of these bytes: `5:hello,`.
pub fn netstring(payload: &[u8]) -> Vec<u8> {
    let mut framed = format!("{}:", payload.len()).into_bytes();
    framed.reserve_exact(payload.len() + 1);
    framed.extend_from_slice(payload);
    framed.push(b',');
    framed
}

/// How bytes break the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length is not plain decimal digits without a leading zero.
    #[error("a netstring's length is digits without a leading zero")]
    Length,
    /// The length, or the line, exceeds the limit.
    #[error("longer than {0} bytes")]
    TooLong(u64),
    /// There is no comma after a netstring's payload.
    #[error("no comma after the netstring")]
    Comma,
    /// Bytes came with the end of the reply, after it. Bytes that come later are not
    /// read: the connection is closed by then.
    #[error("bytes after the end of the netstring")]
    Trailing,
    /// There is a control byte in a request line.
    #[error("a control byte in the request line")]
    Control,
    /// The connection ended inside the frame.
    #[error("the connection ended inside the frame")]
    Unfinished,
    /// The connection ended before the first byte of a request.
    #[error("no request came")]
    Missing,
}

/// The longest request line in bytes, without its ending.
pub const LINE_LIMIT: usize = 1024;

/// Follows one netstring through any split of its bytes, without keeping them.
#[derive(Debug, Clone)]
pub struct Scanner {
    state: Scan,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// In the length: its value so far, and the number of digits.
    Length(u64, u32),
    /// In the payload: the number of bytes still to come.
    Payload(u64),
    /// Before the comma.
    Comma,
    /// After the comma.
    Done,
}

impl Scanner {
    /// A scanner for a netstring with at most `limit` bytes of payload.
    fn new(limit: u64) -> Scanner {
        Scanner {
            state: Scan::Length(0, 0),
            limit,
        }
    }

    /// Scans the next bytes and calls `payload` with each run of payload among them.
    /// Returns the number of bytes that belong to the netstring.
    ///
    /// # Errors
    /// [`Malformed`] at the first byte that no netstring can have there.
    fn scan(&mut self, input: &[u8], mut payload: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != Scan::Done {
            if let Scan::Payload(left) = self.state {
                let left_here = usize::try_from(left).unwrap_or(usize::MAX);
                let run = left_here.min(input.len() - at);
                payload(&input[at..at + run]);

                at += run;
                self.state = match left - run as u64 {
                    0 => Scan::Comma,
                    left => Scan::Payload(left),
                };
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// The state after one byte outside the payload.
    fn step(&self, byte: u8) -> Result<Scan, Malformed> {
        match (self.state, byte) {
            (Scan::Length(value, digits), b'0'..=b'9') if digits == 0 || value > 0 => {
                let value = self.grow(value, byte - b'0')?;
                Ok(Scan::Length(value, digits + 1))
            }
            (Scan::Length(0, 1..), b':') => Ok(Scan::Comma),
            (Scan::Length(value, 1..), b':') => Ok(Scan::Payload(value)),
            (Scan::Length(..), _) => Err(Malformed::Length),
            (Scan::Comma, b',') => Ok(Scan::Done),
            (Scan::Comma, _) => Err(Malformed::Comma),
            (Scan::Payload(_) | Scan::Done, _) => unreachable!("scan handles payloads and ends"),
        }
    }

    /// The length with one more digit. A number past u64 exceeds any limit, even
    /// u64::MAX, which stands for no limit.
    fn grow(&self, length: u64, digit: u8) -> Result<u64, Malformed> {
        length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(digit.into()))
            .filter(|length| *length <= self.limit)
            .ok_or(Malformed::TooLong(self.limit))
    }

    /// Whether the comma has come.
    fn is_done(&self) -> bool {
        self.state == Scan::Done
    }
}

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

/// Decides whether a reply is complete, as it comes in. No other code decides that.
#[derive(Debug)]
pub struct ReplyDecoder {
    /// The server, for errors.
    subject: String,
    /// Bytes of the reply so far.
    got: u64,
    /// Follows a framed reply.
    framing: Option<Scanner>,
}

impl ReplyDecoder {
    /// A decoder for a reply of the server `subject`. A netstring's payload may have at
    /// most `limit` bytes.
    pub fn new(protocol: Protocol, subject: String, limit: u64) -> ReplyDecoder {
        let framing = (protocol == Protocol::Netstring).then(|| Scanner::new(limit));
        ReplyDecoder {
            subject,
            got: 0,
            framing,
        }
    }

    /// Takes the next bytes. Returns whether the framing says that the reply is
    /// complete.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the framing is broken, [`Error::TooLong`] if it
    /// announces a length over the limit.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        self.got += bytes.len() as u64;
        let Some(scanner) = &mut self.framing else {
            return Ok(false);
        };

        match scanner.scan(bytes, |_| ()) {
            Ok(used) if used == bytes.len() => Ok(scanner.is_done()),
            Ok(_) => Err(self.malformed(Malformed::Trailing)),
            Err(why) => Err(self.malformed(why)),
        }
    }

    fn malformed(&self, why: Malformed) -> Error {
        let subject = self.subject.clone();
        match why {
            Malformed::TooLong(limit) => Error::TooLong { subject, limit },
            why => Error::Malformed {
                subject,
                why: why.to_string(),
            },
        }
    }

    /// Takes a clean end of the connection.
    ///
    /// # Errors
    /// [`Error::Empty`] or [`Error::Declined`] if nothing came, [`Error::Reset`] inside
    /// a frame.
    pub fn eof(&self) -> Result<(), Error> {
        let subject = self.subject.clone();
        match (&self.framing, self.got) {
            (None, 0) => Err(Error::Empty { subject }),
            (Some(_), 0) => Err(Error::Declined { subject }),
            (Some(scanner), got) if !scanner.is_done() => Err(Error::Reset {
                subject,
                got,
                why: Malformed::Unfinished.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// The error for a connection that broke: the reply is not complete, whatever has
    /// come.
    pub fn io_error(&self, why: &io::Error) -> Error {
        Error::Reset {
            subject: self.subject.clone(),
            got: self.got,
            why: reason(why),
        }
    }

    /// The error for a server that took nothing of the request and sent nothing within
    /// `limit`.
    pub(crate) fn write_timeout(&self, limit: Duration) -> Error {
        self.timeout(Stage::Send, limit)
    }

    /// The error for a server that sent nothing within `limit`.
    pub(crate) fn read_timeout(&self, limit: Duration) -> Error {
        if self.got == 0 {
            self.timeout(Stage::FirstByte, limit)
        } else {
            self.timeout(Stage::NextByte, limit)
        }
    }

    fn timeout(&self, stage: Stage, limit: Duration) -> Error {
        Error::Timeout {
            subject: self.subject.clone(),
            stage,
            limit,
        }
    }
}

#[cfg(test)]
mod tests;
