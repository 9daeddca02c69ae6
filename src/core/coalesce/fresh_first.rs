//! A reader that waits for the refresh of a stale text, and takes the stale one where
//! that fails or takes too long.
//!
//! | the refresh | in time | after the deadline |
//! |---|---|---|
//! | is under way | the reader waits | the stale text |
//! | ends, whole | the new text | the new text, if the reader still waits |
//! | fails, or is rejected | the stale text | the stale text |
//! | can't be kept, and passes through | the stale text | the stale text |
//!
//! Once chosen, a text stays chosen. Nothing of the refresh is shown before its end: it
//! may be cut, or begin again because it is doubted. So the deadline is for the whole
//! text and not for its first byte.
//!
//! The stale text is looked for when it is needed. It may be gone by then, because its
//! grace is over or an operator has purged it. Then the reader reads the refresh as any
//! other reader does: as it comes, or to its failure.

use crate::flight::{Prospect, Pull, Read, Reader};
use crate::observe::FetchNote;
use crate::sync::{Mutex, MutexGuard, drop_after};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A cached text.
pub struct Cached {
    /// The text.
    pub reader: Reader,
    /// Whether it is past its ttl.
    pub is_stale: bool,
}

/// Looks for the cached text at the moment of the call.
pub type LookUp = Box<dyn Fn() -> Option<Cached> + Send + Sync>;

/// Reads a refresh, or the stale text; see the table of this module.
pub struct FreshFirst {
    /// Held for one look. Only the client's own task takes it.
    state: Mutex<Choice>,
}

enum Choice {
    Waits(RefreshWait),
    Reads(Cached),
}

struct RefreshWait {
    refresh: Reader,
    look_up: LookUp,
    deadline: BoxFuture<'static, ()>,
}

impl FreshFirst {
    /// Waits for `refresh`, of which no byte is read yet, until `deadline` is ready.
    pub fn new(refresh: Reader, look_up: LookUp, deadline: BoxFuture<'static, ()>) -> FreshFirst {
        let waiting = RefreshWait {
            refresh,
            look_up,
            deadline,
        };
        FreshFirst {
            state: Mutex::new(Choice::Waits(waiting)),
        }
    }

    /// Shows `see` the reader of the text that is chosen, if one is by now. With a
    /// context, the task is woken when one may be.
    fn look<T>(
        &self,
        context: Option<&mut Context<'_>>,
        see: impl FnOnce(Option<&Reader>) -> T,
    ) -> T {
        drop_after(self.lock(), |state| {
            let left = state.choose(context);
            let reader = match &*state {
                Choice::Waits(_) => None,
                Choice::Reads(chosen) => Some(&chosen.reader),
            };
            (see(reader), left)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Choice> {
        let guard = self.state.lock();
        guard.expect("no code panics while it holds this lock")
    }
}

impl Choice {
    /// Chooses a text once the wait is over. Returns the wait.
    fn choose(&mut self, context: Option<&mut Context<'_>>) -> Option<Choice> {
        let Choice::Waits(waiting) = self else {
            return None;
        };

        let is_whole = waiting.is_over(context)?;
        let cached = (!is_whole).then(|| (waiting.look_up)()).flatten();
        let chosen = cached.unwrap_or_else(|| Cached {
            reader: waiting.refresh.take(),
            is_stale: false,
        });
        Some(std::mem::replace(self, Choice::Reads(chosen)))
    }
}

impl RefreshWait {
    /// Whether the wait ends with the new text; `None` while it goes on.
    fn is_over(&mut self, context: Option<&mut Context<'_>>) -> Option<bool> {
        let Some(context) = context else {
            return is_whole(self.refresh.prospect(None));
        };

        let is_whole = is_whole(self.refresh.prospect(Some(context)));
        let mut is_late = || self.deadline.as_mut().poll(context).is_ready();
        is_whole.or_else(|| is_late().then_some(false))
    }
}

fn is_whole(prospect: Prospect) -> Option<bool> {
    match prospect {
        Prospect::Open => None,
        Prospect::Whole => Some(true),
        Prospect::Unfit => Some(false),
    }
}

impl Pull for FreshFirst {
    fn peek(&self) -> (Read, bool) {
        self.look(None, |reader| match reader {
            None => (Read::Pending, false),
            Some(reader) => (reader.peek(), reader.peek_ahead().1),
        })
    }

    fn advance(&mut self, count: usize) {
        if let Choice::Reads(chosen) = &mut *self.lock() {
            chosen.reader.advance(count);
        }
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let is_chosen = self.look(Some(context), |reader| reader.is_some());
        if !is_chosen {
            return Poll::Pending;
        }
        self.look(None, |reader| match reader {
            None => Poll::Pending,
            Some(reader) => reader.poll_ready(context),
        })
    }

    fn note(&self) -> Option<Arc<FetchNote>> {
        match &*self.lock() {
            Choice::Waits(waiting) => waiting.refresh.note(),
            Choice::Reads(chosen) => chosen.reader.note(),
        }
    }

    fn was_kept(&self) -> bool {
        let is_own = |chosen: &Cached| chosen.reader.flight_id().is_some();
        matches!(&*self.lock(), Choice::Reads(chosen) if is_own(chosen) && chosen.reader.was_kept())
    }

    fn is_stale(&self) -> bool {
        matches!(&*self.lock(), Choice::Reads(chosen) if chosen.is_stale)
    }
}

#[cfg(test)]
mod tests;
