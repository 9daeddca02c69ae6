//! A poem that comes piece by piece, with or without a pause between two pieces.

use crate::anthology::{FULL_READ, TextReader};
use crate::error::Error;
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
        bytes: FULL_READ,
        delay: Duration::ZERO,
    };
}

/// A poem on its way, at a [`Pace`].
pub(crate) struct Trickle {
    text: TextReader,
    pace: Pace,
    /// Bytes that belong to the current step and have not come yet. A file gives fewer
    /// at once than a long step asks for.
    left: usize,
    started: bool,
}

impl Trickle {
    /// Starts at the first byte of the poem, and without a delay.
    pub(crate) fn new(text: TextReader, pace: Pace) -> Trickle {
        Trickle {
            text,
            pace,
            left: 0,
            started: false,
        }
    }

    /// Waits for the next step and returns its bytes, or a part of them; `None` at the
    /// end of the poem.
    ///
    /// # Errors
    /// [`Error::Local`] if the poem's file can't be read.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.is_over() {
            return Ok(None);
        }

        if self.left == 0 {
            self.begin_step().await;
        }
        let bytes = self.text.next(self.left).await?;
        self.left -= bytes.as_ref().map_or(0, Bytes::len);
        Ok(bytes)
    }

    async fn begin_step(&mut self) {
        if self.started && !self.pace.delay.is_zero() {
            rt::sleep(self.pace.delay).await;
        }
        self.started = true;
        self.left = self.pace.bytes;
    }

    /// Whether all of the poem has come.
    pub(crate) fn is_over(&self) -> bool {
        self.text.is_over()
    }
}
