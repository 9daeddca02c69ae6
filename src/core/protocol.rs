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
//! Where a server ends each text in the same way, an [`EndMarker`] is a better sign.
//!
//! Netstrings are strict (D. J. Bernstein, "Netstrings", 1997): a decimal length
//! without a leading zero (except `0:,`), sign or white space. A length over the limit
//! is refused before anything is allocated for it.
//!
//! | file | question |
//! |---|---|
//! | `protocol/frame.rs` | How is a request sent? |
//! | `protocol/request.rs` | When is a request complete? |
//! | `protocol/reply.rs` | When is a reply complete? |
//! | `protocol/marker.rs` | What does a whole reply end with? |
//! | `protocol/scanner.rs` | Where does a netstring end? |
//! | `protocol/proxy_header.rs` | Whose connection does a load balancer pass on? |

mod frame;
mod marker;
mod proxy_header;
mod reply;
mod request;
mod scanner;

use bytes::Bytes;
pub use frame::{Frame, netstring};
pub use marker::{BadMarker, CLEAN_END, EndMarker, EndRule, MARKER_BYTES};
pub use proxy_header::{BadHeader, ProxyHeader, V1_BYTES, V2_BYTES};
pub use reply::ReplyDecoder;
pub use request::{LINE_LIMIT, RequestDecoder, check_line};
pub use scanner::Scanner;

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
            Protocol::Line => Frame::line(request),
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

#[cfg(test)]
mod tests;
