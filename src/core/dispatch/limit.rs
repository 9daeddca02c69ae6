//! What a job needs to start beside a free place: the right to.

use super::{Dispatch, Job};
use std::sync::Weak;
use std::time::Instant;

/// What a job needs to start beside a free place: the right to. Jobs that wait for it
/// wait in the queue, so that they take no place, and start one by one.
pub trait StartLimit<J: Job>: Send + Sync {
    /// Takes a right.
    ///
    /// # Errors
    /// When there will be one.
    fn take(&self) -> Result<StartRight, Instant>;

    /// Returns a right that was not used.
    fn give_back(&self, right: StartRight);

    /// Calls [`Dispatch::resume`] at that time, with it.
    fn resume_at(&self, dispatch: Weak<Dispatch<J>>, at: Instant);
}

/// The right to start one job. What it stands for is known to the [`StartLimit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRight(pub usize);
