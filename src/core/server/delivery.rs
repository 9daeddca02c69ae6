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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Steps once. The kernel says these things, in this order.
    fn step<const N: usize>(
        delivery: &mut Delivery,
        kernel: [Result<usize, ErrorKind>; N],
    ) -> Progress {
        let kernel = RefCell::new(kernel.into_iter());
        let progress = delivery.step(|_, _| {
            let next = kernel.borrow_mut().next();
            Ok(next.expect("it is not asked again")?)
        });
        assert_eq!(kernel.into_inner().next(), None);
        progress
    }

    #[test]
    fn a_step_ends_where_the_kernel_takes_no_more_or_the_client_is_gone() {
        let mut delivery = Delivery::new(Reader::of("poem".into()));
        let kernel = [
            Err(ErrorKind::Interrupted),
            Ok(2),
            Err(ErrorKind::WouldBlock),
        ];
        assert!(matches!(step(&mut delivery, kernel), Progress::Full));
        assert_eq!(delivery.sent, 2);

        let gone = step(&mut delivery, [Err(ErrorKind::BrokenPipe)]);
        assert!(matches!(gone, Progress::Gone));
        assert!(matches!(step(&mut delivery, [Ok(2)]), Progress::Ended));
        assert_eq!(delivery.sent, 4);
    }

    #[test]
    fn others_have_a_turn_after_each_megabyte() {
        const TURNS: u64 = 2;
        let poem = "x".repeat((TURNS * TURN_BYTES) as usize);
        let mut delivery = Delivery::new(Reader::of(poem.into()));
        for turn in 1..=TURNS {
            let progress = delivery.step(|bytes, _| Ok(bytes.len().min(1 << 16)));
            assert!(matches!(progress, Progress::Turn));
            assert_eq!(delivery.sent, turn * TURN_BYTES);
        }
        assert!(matches!(step(&mut delivery, []), Progress::Ended));
    }
}
