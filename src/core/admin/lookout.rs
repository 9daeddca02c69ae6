//! The observer of what operators look at. It stands in front of another, to which it
//! passes everything on.

use super::notices::Notices;
use super::tail::Tail;
use super::top::HotKeys;
use crate::observe::{AccessRecord, Event, Observer};
use std::sync::Arc;
use std::time::Instant;

/// Takes note of what operators look at, and passes everything on.
pub struct Lookout {
    next: Arc<dyn Observer>,
    pub(super) notices: Notices,
    pub(super) tail: Arc<Tail>,
    pub(super) hot_keys: Arc<HotKeys>,
}

impl Lookout {
    /// One in front of `next`.
    pub fn new(next: Arc<dyn Observer>) -> Arc<Lookout> {
        Arc::new(Lookout {
            next,
            notices: Notices::new(),
            tail: Arc::default(),
            hot_keys: Arc::default(),
        })
    }
}

impl Observer for Lookout {
    fn request(&self, record: &AccessRecord<'_>) {
        self.notices.request(record);
        self.tail.request(record);
        self.hot_keys.request(record);
        self.next.request(record);
    }

    fn event(&self, event: Event<'_>) {
        self.notices.note_event(&event, Instant::now());
        self.next.event(event);
    }
}
