//! Running totals since the start.

use crate::observe::{AccessRecord, Class};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Running totals. The seven classes of connections add up to all that have ended.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    /// Connections answered whole from the cache.
    pub hits: AtomicU64,
    /// Connections answered whole from the cache, past the ttl.
    pub stale: AtomicU64,
    /// Connections answered whole by a fetch that another had started.
    pub coalesced: AtomicU64,
    /// Connections answered whole by a fetch of their own.
    pub misses: AtomicU64,
    /// Connections answered whole by this process itself.
    pub own: AtomicU64,
    /// Connections that ended before there was a request.
    pub unasked: AtomicU64,
    /// Connections that did not get a whole answer.
    pub failures: AtomicU64,
    /// Fetches begun.
    pub fetches: AtomicU64,
    /// Fetches that ended in a kept text.
    pub kept: AtomicU64,
    /// Fetches that failed, or ended in a rejected text.
    pub failed_fetches: AtomicU64,
    /// Fetches refused because too many waited.
    pub refused_fetches: AtomicU64,
    /// Connections that got a task. A hit needs none.
    pub tasks: AtomicU64,
    /// Connections that have a task at this moment.
    pub open: AtomicU64,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats::new(Instant::now())
    }
}

impl Stats {
    /// Totals since `now`, all zero.
    pub fn new(now: Instant) -> Stats {
        let zero = AtomicU64::default;
        Stats {
            started: now,
            hits: zero(),
            stale: zero(),
            coalesced: zero(),
            misses: zero(),
            own: zero(),
            unasked: zero(),
            failures: zero(),
            fetches: zero(),
            kept: zero(),
            failed_fetches: zero(),
            refused_fetches: zero(),
            tasks: zero(),
            open: zero(),
        }
    }

    /// When counting began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Counts a connection that has ended.
    pub fn count(&self, record: &AccessRecord<'_>) {
        let counter = match record.class() {
            Class::Hit => &self.hits,
            Class::Stale => &self.stale,
            Class::Coalesced => &self.coalesced,
            Class::Miss => &self.misses,
            Class::Own => &self.own,
            Class::Unasked => &self.unasked,
            Class::Failure => &self.failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
