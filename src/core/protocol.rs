//! The three wire protocols, as pure state machines: bytes in, a decision out. No I/O, no clock.
//!
//! | protocol | the client sends | the server sends | complete when |
//! |---|---|---|---|
//! | poem | nothing | the poem | the connection ends cleanly after at least one byte |
//! | line | one line, CRLF or LF | text | the connection ends cleanly after at least one byte |
//! | netstring | one netstring | one netstring | the netstring's comma has come |
//!
//! Plain TCP has no length, so for the first two a clean end is the only sign of completeness there is; that is why
//! nobody in this toolkit ever ends a failed transfer cleanly.
//!
//! Netstrings are strict (D. J. Bernstein, "Netstrings", 1997): a decimal length without a leading zero (but `0:,`),
//! without sign or white space. A length over the limit is refused before anything is allocated for it.

use crate::error::{Error, Stage};
use crate::poem::packed;
use bytes::Bytes;

/// What client and server say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The server speaks first, and only it (RFC 865 over TCP has the same shape).
    Poem,
    /// A request line first (finger RFC 1288, whois RFC 3912, gopher RFC 1436).
    Line,
    /// A netstring each way, as the transformation service speaks it.
    Netstring,
}

impl Protocol {
    /// Its name, as a flag gives it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Poem => "poem",
            Protocol::Line => "line",
            Protocol::Netstring => "netstring",
        }
    }

    /// A request as it goes over the wire.
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

    /// The poem of a complete reply.
    pub fn payload(self, reply: Bytes) -> Bytes {
        match (self, reply.iter().position(|byte| *byte == b':')) {
            (Protocol::Netstring, Some(colon)) => reply.slice(colon + 1..reply.len() - 1),
            _ => reply,
        }
    }
}

/// A request on its way: what stands before it, itself, what stands behind it, and how much of that has been sent. It
/// goes out from where it is, because it may be large, and many may be on their way.
#[derive(Debug, Clone, Default)]
pub struct Frame<'a> {
    head: Vec<u8>,
    body: &'a [u8],
    tail: &'static [u8],
    sent: usize,
}

impl<'a> Frame<'a> {
    /// The netstring of both one after the other, of which only the first is copied.
    pub fn netstring(first: &[u8], body: &'a [u8]) -> Frame<'a> {
        let length = format!("{}:", first.len() + body.len());
        Frame {
            head: [length.as_bytes(), first].concat(),
            body,
            tail: b",",
            sent: 0,
        }
    }

    /// What is still to be sent, part by part.
    pub fn rest(&self) -> [&[u8]; 3] {
        let mut sent = self.sent;
        [&self.head[..], self.body, self.tail].map(|part| {
            let (gone, rest) = part.split_at(sent.min(part.len()));
            sent -= gone.len();
            rest
        })
    }

    /// So many bytes more have been sent.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// Whether nothing is left to be sent.
    pub fn is_sent(&self) -> bool {
        self.sent == self.head.len() + self.body.len() + self.tail.len()
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

/// Why bytes are not what the protocol allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length is not plain decimal digits without a leading zero.
    #[error("a netstring's length is digits without a leading zero")]
    Length,
    /// The length, or the line, is over the limit.
    #[error("longer than {0} bytes")]
    TooLong(u64),
    /// No comma behind a netstring's payload.
    #[error("no comma behind the netstring")]
    Comma,
    /// Something behind the end of the reply, that came with it. What comes later is not looked at: the connection is
    /// closed by then.
    #[error("bytes behind the end of the netstring")]
    Trailing,
    /// A control byte in a request line.
    #[error("a control byte in the request line")]
    Control,
    /// The connection ended within the frame.
    #[error("the end came within the frame")]
    Unfinished,
}

/// A request line holds at most this many bytes, without its ending.
pub const LINE_LIMIT: usize = 1024;

/// Follows one netstring through any split of its bytes, without keeping them.
#[derive(Debug, Clone)]
pub struct Scanner {
    state: Scan,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// In the length: its value so far, and how many digits there were.
    Length(u64, u32),
    /// In the payload: bytes still to come.
    Payload(u64),
    Comma,
    Done,
}

impl Scanner {
    /// A scanner for a netstring of at most `limit` payload bytes.
    pub fn new(limit: u64) -> Scanner {
        Scanner {
            state: Scan::Length(0, 0),
            limit,
        }
    }

    /// Reads on; `payload` is handed each run of payload bytes. Returns how many bytes belong to the netstring.
    ///
    /// # Errors
    /// [`Malformed`] at the first byte that no netstring can have there.
    pub fn scan(
        &mut self,
        input: &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != Scan::Done {
            if let Scan::Payload(left) = &mut self.state {
                let run = (input.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                payload(&input[at..at + run]);
                at += run;
                *left -= run as u64;
                if *left == 0 {
                    self.state = Scan::Comma;
                }
                continue;
            }
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&self, byte: u8) -> Result<Scan, Malformed> {
        match (self.state, byte) {
            (Scan::Length(value, digits), b'0'..=b'9') if digits == 0 || value > 0 => {
                // A number past u64 is over any limit, also over one of u64::MAX, which means that there is none.
                let value = value
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
                match value.filter(|value| *value <= self.limit) {
                    Some(value) => Ok(Scan::Length(value, digits + 1)),
                    None => Err(Malformed::TooLong(self.limit)),
                }
            }
            (Scan::Length(0, 1..), b':') => Ok(Scan::Comma),
            (Scan::Length(value, 1..), b':') => Ok(Scan::Payload(value)),
            (Scan::Length(..), _) => Err(Malformed::Length),
            (Scan::Comma, b',') => Ok(Scan::Done),
            (Scan::Comma, _) => Err(Malformed::Comma),
            (Scan::Payload(_) | Scan::Done, _) => unreachable!("scan handles payloads and ends"),
        }
    }

    /// Whether the comma has come.
    pub fn is_done(&self) -> bool {
        self.state == Scan::Done
    }
}

/// Collects one request from a client, whatever way its bytes are split.
#[derive(Debug)]
pub enum RequestDecoder {
    /// Nothing is to be read.
    Poem,
    /// A line, without its ending.
    Line(Vec<u8>),
    /// A netstring.
    Netstring(Scanner, Vec<u8>),
}

impl RequestDecoder {
    /// A decoder for this protocol, for requests of at most `limit` bytes (lines: [`LINE_LIMIT`]).
    pub fn new(protocol: Protocol, limit: u64) -> RequestDecoder {
        match protocol {
            Protocol::Poem => RequestDecoder::Poem,
            Protocol::Line => RequestDecoder::Line(Vec::new()),
            Protocol::Netstring => RequestDecoder::Netstring(Scanner::new(limit), Vec::new()),
        }
    }

    /// How many bytes of the request are held so far.
    pub fn held(&self) -> u64 {
        match self {
            RequestDecoder::Poem => 0,
            RequestDecoder::Line(line) | RequestDecoder::Netstring(_, line) => line.len() as u64,
        }
    }

    /// Reads on. `Some` once the request is complete; what follows it is nobody's business.
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
}

/// Whether a text can be sent as a request line.
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
        let carriage = line.last() == Some(&b'\r');
        match byte {
            b'\n' => {
                line.truncate(line.len() - usize::from(carriage));
                return Ok(Some(std::mem::take(line).into()));
            }
            _ if carriage => return Err(Malformed::Control), // a CR counts only right before the LF
            b'\t' | b'\r' | 0x20..=0x7e | 0x80.. => line.push(byte),
            _ => return Err(Malformed::Control),
        }
        if line.len() > LINE_LIMIT + usize::from(byte == b'\r') {
            return Err(Malformed::TooLong(LINE_LIMIT as u64));
        }
    }
    Ok(None)
}

/// Judges, as a reply comes in, whether it is complete. The one place that decides what "whole" means.
#[derive(Debug)]
pub struct ReplyDecoder {
    /// The server, for error texts.
    subject: String,
    got: u64,
    framing: Option<Scanner>,
}

impl ReplyDecoder {
    /// A decoder of a reply of this server.
    pub fn new(protocol: Protocol, subject: String, limit: u64) -> ReplyDecoder {
        let framing = (protocol == Protocol::Netstring).then(|| Scanner::new(limit));
        ReplyDecoder {
            subject,
            got: 0,
            framing,
        }
    }

    /// Takes note of bytes that came; true where they complete the reply.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the framing is broken, [`Error::TooLong`] where it announces too much.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        self.got += bytes.len() as u64;
        let Some(scanner) = &mut self.framing else {
            return Ok(false);
        };
        let result = scanner
            .scan(bytes, |_| ())
            .and_then(|used| match used == bytes.len() {
                true => Ok(scanner.is_done()),
                false => Err(Malformed::Trailing),
            });
        result.map_err(|why| match why {
            Malformed::TooLong(limit) => Error::TooLong {
                subject: self.subject.clone(),
                limit,
            },
            why => Error::Malformed {
                subject: self.subject.clone(),
                why: why.to_string(),
            },
        })
    }

    /// The verdict on a clean end.
    ///
    /// # Errors
    /// [`Error::Empty`] or [`Error::Declined`] where nothing came, [`Error::Reset`] within a frame.
    pub fn eof(&self) -> Result<(), Error> {
        let addr = self.subject.clone();
        match (&self.framing, self.got) {
            (None, 0) => Err(Error::Empty { subject: addr }),
            (Some(_), 0) => Err(Error::Declined { subject: addr }),
            (Some(scanner), got) if !scanner.is_done() => Err(Error::Reset {
                subject: addr,
                got,
                why: Malformed::Unfinished.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// The verdict on a connection that broke: never whole, whatever had come.
    pub fn io_error(&self, why: &std::io::Error) -> Error {
        Error::Reset {
            subject: self.subject.clone(),
            got: self.got,
            why: crate::error::reason(why),
        }
    }

    /// The verdict on a server that took nothing of the request, and said nothing, for too long.
    pub fn write_timeout(&self, limit: std::time::Duration) -> Error {
        Error::Timeout {
            subject: self.subject.clone(),
            stage: Stage::Send,
            limit,
        }
    }

    /// The verdict on silence that lasted too long.
    pub fn read_timeout(&self, limit: std::time::Duration) -> Error {
        let stage = if self.got == 0 {
            Stage::FirstByte
        } else {
            Stage::NextByte
        };
        Error::Timeout {
            subject: self.subject.clone(),
            stage,
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn strict_netstrings_are_read_and_others_refused() {
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
    fn a_length_that_no_number_holds_is_too_long_also_where_there_is_no_limit() {
        let scan = |text: &str| Scanner::new(u64::MAX).scan(text.as_bytes(), |_| ());
        assert_eq!(scan("18446744073709551615:"), Ok(21));
        for text in ["18446744073709551616:", "99999999999999999999999999:"] {
            assert_eq!(scan(text), Err(Malformed::TooLong(u64::MAX)), "{text}");
        }
    }

    #[test]
    fn lines_end_in_lf_or_crlf_and_hold_no_control_bytes() {
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

    #[test]
    fn a_request_that_came_in_pieces_keeps_no_room_for_more() {
        let framed = netstring(&[b'x'; 90]);
        let request = decode(Protocol::Netstring, &framed, 60).unwrap().unwrap();
        assert_eq!((request.len(), Vec::from(request).capacity()), (90, 90));
    }

    #[test]
    fn a_frame_goes_out_in_any_pieces() {
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

    proptest! {
        #[test]
        fn any_split_of_a_request_gives_the_same_answer(input in prop::collection::vec(
            prop_oneof![Just(b'1'), Just(b'0'), Just(b':'), Just(b','), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..40
        ), split in 1usize..9) {
            for protocol in [Protocol::Line, Protocol::Netstring] {
                prop_assert_eq!(decode(protocol, &input, split), decode(protocol, &input, 100));
            }
        }

        #[test]
        fn what_was_framed_is_read_back(payload in prop::collection::vec(any::<u8>(), 0..100), split in 1usize..9) {
            let framed = netstring(&payload);
            prop_assert_eq!(&Protocol::Netstring.frame(&payload).rest().concat(), &framed);
            prop_assert_eq!(decode(Protocol::Netstring, &framed, split).unwrap().unwrap(), payload);
        }
    }
}
