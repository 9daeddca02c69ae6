//! What is counted and told of connections, and of calls into code that is not ours.

use super::Server;
use crate::net::Peer;
use crate::observe::{AccessRecord, CacheStatus, Event, Outcome};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl<H> Server<H> {
    /// Records a connection that ended without an answer.
    pub(super) fn record_unanswered(&self, peer: &Peer, outcome: Outcome, accepted: Instant) {
        self.record_cut(peer, outcome, (CacheStatus::NoRequest, 0), accepted);
    }

    /// Records a connection that ended before it had a task, after `sent` bytes.
    pub(super) fn record_cut(
        &self,
        peer: &Peer,
        outcome: Outcome,
        (status, sent): (CacheStatus, u64),
        accepted: Instant,
    ) {
        let total = accepted.elapsed();
        let wait = if sent > 0 { Duration::ZERO } else { total };
        self.record(AccessRecord {
            peer,
            request: b"",
            status,
            route: None,
            fetch: None,
            outcome,
            bytes: sent,
            wait,
            total,
            stored: false,
            feed: None,
        });
    }

    pub(super) fn record(&self, record: AccessRecord<'_>) {
        self.stats.count(&record);
        self.guarded(|| self.observer.request(&record));
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        self.guarded(|| self.observer.event(event));
    }

    /// Calls what is not ours. A panic in it ends that call only, not the acceptor or
    /// the list of closing connections, and is counted.
    pub(super) fn guarded<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        let called = std::panic::catch_unwind(AssertUnwindSafe(call));
        if called.is_err() {
            self.stats.panics.fetch_add(1, Ordering::Relaxed);
        }
        called.ok()
    }
}
