//! What a client has sent by the time its connection is accepted: often the whole
//! request, which can then be answered without a task.

use super::Wire;
use crate::net::{Accepted, Received};
use crate::protocol::{LINE_LIMIT, RequestDecoder};
use bytes::Bytes;

/// Bytes of the first look: the longest line and its ending. A longer netstring is left
/// to a task.
pub(super) const FIRST_LOOK_BYTES: usize = LINE_LIMIT + 2;

/// A request.
pub(super) struct Asked {
    /// Without its framing; empty in the poem protocol.
    pub(super) request: Bytes,
    /// The bytes that were read for it.
    pub(super) received: u32,
}

impl Asked {
    /// A client of the poem protocol asks for nothing.
    pub(super) fn nothing() -> Asked {
        Asked {
            request: Bytes::new(),
            received: 0,
        }
    }
}

/// What is there at accept.
pub(super) enum FirstLook<'a> {
    /// The whole request.
    Request(Asked),
    /// These bytes, which are not a whole request. None at all if the client has sent
    /// nothing, has closed, or is gone: a second look tells.
    Begun(&'a [u8]),
}

impl FirstLook<'_> {
    /// Takes what is there from the kernel.
    pub(super) fn of<'a>(
        client: &Accepted,
        wire: &Wire,
        buffer: &'a mut [u8; FIRST_LOOK_BYTES],
    ) -> FirstLook<'a> {
        let count = match client.try_recv(buffer) {
            Received::Bytes(count) => count,
            Received::Nothing | Received::Eof | Received::Broken => 0,
        };
        FirstLook::at(&buffer[..count], wire)
    }

    /// Takes these bytes, which were read before.
    pub(super) fn at<'a>(begun: &'a [u8], wire: &Wire) -> FirstLook<'a> {
        let mut decoder = RequestDecoder::new(wire.protocol, wire.longest_request);
        match decoder.push(begun) {
            Ok(Some(request)) => FirstLook::Request(Asked {
                request,
                received: begun.len() as u32, // at most a look's
            }),
            Ok(None) | Err(_) => FirstLook::Begun(begun), // the task says what is wrong
        }
    }
}
