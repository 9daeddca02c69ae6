//! An answer on its way to one client, and how far it gets without waiting.

use crate::error::Error;
use crate::flight::{Read, Reader};
use crate::net::Then;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Bytes sent before other work on the thread gets a turn: half a millisecond's worth,
/// where the client takes them as fast as we send.
const TURN_BYTES: u64 = 1 << 20;

/// An answer on its way to one client.
pub(super) struct Delivery {
    pub(super) reader: Reader,
    pub(super) sent: u64,
}

/// How far a delivery gets without waiting.
pub(super) enum Progress {
    /// The kernel takes no more for now.
    Full,
    /// The kernel would take more, but others are to have a turn.
    Turn,
    /// There is no more to send for now.
    Waiting,
    /// The kernel has taken everything.
    Ended,
    /// There will never be more.
    Failed(Arc<Error>),
    /// The reader was too slow for a text over the window of this many bytes.
    FellBehind(u64),
    /// The client is gone.
    Gone,
}

/// Why a delivery pauses.
#[derive(Clone, Copy)]
pub(super) enum Pause {
    Full,
    Turn,
    Waiting,
}

impl Delivery {
    pub(super) fn new(reader: Reader) -> Delivery {
        Delivery { reader, sent: 0 }
    }

    /// Sends as much as `send` takes.
    pub(super) fn step(&mut self, send: impl Fn(&[u8], Then) -> io::Result<usize>) -> Progress {
        let turn_ends = self.sent + TURN_BYTES;
        loop {
            if self.sent >= turn_ends {
                return Progress::Turn;
            }
            let (next, is_last) = self.reader.peek_ahead();
            let bytes = match next {
                Read::Chunk(bytes) => bytes,
                Read::Pending => return Progress::Waiting,
                Read::End => return Progress::Ended,
                Read::Failed(error) => return Progress::Failed(error),
                Read::FellBehind { window } => return Progress::FellBehind(window),
            };

            let then = if is_last { Then::Finish } else { Then::Unknown };
            match send(&bytes, then) {
                Ok(count) => {
                    self.reader.advance(count);
                    self.sent += count as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.reader.not_taken();
                    return Progress::Full;
                }
                Err(_) => return Progress::Gone,
            }
        }
    }
}
