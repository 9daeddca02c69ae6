//! A poem that comes slowly, a few bytes at a time.

use crate::poem::Poem;
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

/// A poem on its way, at a [`Pace`].
pub(crate) struct Trickle {
    rest: Bytes,
    pace: Pace,
    started: bool,
}

impl Trickle {
    /// Starts at the first byte of the poem, and without a delay.
    pub(crate) fn new(poem: Poem, pace: Pace) -> Trickle {
        Trickle {
            rest: poem.bytes(),
            pace,
            started: false,
        }
    }

    /// Waits for the next step and returns its bytes; `None` at the end of the poem.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if self.is_over() {
            return None;
        }

        if self.started {
            rt::sleep(self.pace.delay).await;
        }
        self.started = true;
        Some(self.rest.split_to(self.pace.bytes.min(self.rest.len())))
    }

    /// Whether all of the poem has come.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }
}
