//! A poem that comes piece by piece, with or without a pause between two pieces.

use crate::error::Error;
use crate::flight::{PIECE, Read, Reader};
use crate::rt;
use bytes::Bytes;
use std::time::Duration;

/// How slowly a poem comes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes per step.
    pub bytes: usize,
    /// Time between steps.
    pub delay: Duration,
}

impl Pace {
    /// As fast as it is taken.
    pub(crate) const FULL: Pace = Pace {
        bytes: PIECE,
        delay: Duration::ZERO,
    };
}

/// A poem on its way, at a [`Pace`].
pub(crate) struct Trickle {
    poem: Reader,
    pace: Pace,
    /// Bytes that belong to the current step and have not come yet. A file gives fewer
    /// at once than a long step asks for.
    left: usize,
    started: bool,
}

impl Trickle {
    /// Starts at the first byte of the poem, and without a delay.
    pub(crate) fn new(poem: Reader, pace: Pace) -> Trickle {
        Trickle {
            poem,
            pace,
            left: 0,
            started: false,
        }
    }

    /// Waits for the next step and returns its bytes, or a part of them; `None` at the
    /// end of the poem.
    ///
    /// # Errors
    /// The poem's own, such as [`Error::Local`] if its file can't be read.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 && !self.is_over() {
            self.begin_step().await;
        }

        loop {
            match self.poem.peek() {
                Read::Chunk(bytes) => return Ok(Some(self.take(&bytes))),
                Read::Pending => self.poem.ready().await,
                Read::End => return Ok(None),
                Read::Failed(error) => return Err((*error).clone()),
                Read::FellBehind { .. } => return Err(Error::Abandoned),
            }
        }
    }

    async fn begin_step(&mut self) {
        if self.started && !self.pace.delay.is_zero() {
            rt::sleep(self.pace.delay).await;
        }
        self.started = true;
        self.left = self.pace.bytes;
    }

    /// Takes what belongs to the current step.
    fn take(&mut self, bytes: &Bytes) -> Bytes {
        let count = bytes.len().min(self.left);
        self.left -= count;
        self.poem.advance(count);
        bytes.slice(..count)
    }

    /// Whether all of the poem has come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.poem.peek(), Read::End)
    }
}
