//! A bug on purpose: an observer that panics inside a fetch.

use poetry::observe::{AccessRecord, Event, Observer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The message of every panic that is part of a test.
pub const BUG: &str = "a bug, on purpose: it is part of a test";

/// Panics once in a fetch's task: when it is armed and the fetch comes to its point.
pub struct Trap {
    armed: AtomicBool,
    at_the_end: bool,
}

impl Trap {
    /// Panics where a fetch begins, or begins to follow another process's.
    pub fn at_the_start_of_a_fetch() -> Arc<Trap> {
        Trap::new(false)
    }

    /// Panics where a fetch has failed.
    pub fn at_the_end_of_a_fetch() -> Arc<Trap> {
        Trap::new(true)
    }

    fn new(at_the_end: bool) -> Arc<Trap> {
        Arc::new(Trap {
            armed: false.into(),
            at_the_end,
        })
    }

    pub fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }

    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }
}

impl Observer for Trap {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        let is_here = match event {
            Event::Fetching { .. } | Event::Following { .. } => !self.at_the_end,
            Event::FetchFailed { .. } => self.at_the_end,
            _ => false,
        };

        if is_here && self.armed.swap(false, Ordering::AcqRel) {
            panic!("{BUG}");
        }
    }
}
