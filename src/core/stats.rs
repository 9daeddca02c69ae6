//! Running totals since the start.

mod waits;

use crate::error::Error;
use crate::observe::{AccessRecord, CacheStatus, Class, FetchCause, Outcome, REASONS, REFUSALS};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use waits::Waits;
pub(crate) use waits::bucket;
pub use waits::{WAIT_BOUNDS, WaitCounts};

/// Running totals. The seven classes of connections add up to all that have ended.
///
/// A hit that is answered on the spot costs two additions: its class, and its bytes.
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
    /// The same by their reason, in the order of [`REASONS`].
    pub reasons: [AtomicU64; REASONS.len()],
    /// Failures before there was a request. They have waited for no answer.
    unasked_failures: AtomicU64,
    /// Bytes sent to clients by the class of their connection, in the order of
    /// [`Class::ALL`].
    pub sent: [AtomicU64; Class::ALL.len()],
    waits: Waits,
    /// Fetches begun.
    pub fetches: AtomicU64,
    /// Fetches that ended in a kept text.
    pub kept: AtomicU64,
    /// Fetches that failed, or ended in a rejected text.
    pub failed_fetches: AtomicU64,
    /// Fetches refused because too many waited.
    pub refused_fetches: AtomicU64,
    /// Fetches that waited until an upstream might be asked, by its rate or after a
    /// pause, although a place was free.
    pub rate_waits: AtomicU64,
    /// Fetches that had begun and have ended: by their cause, then by their result.
    pub ended_fetches: [[AtomicU64; FetchResult::WORDS.len()]; FetchCause::WORDS.len()],
    /// Connections that got a task. A hit needs none.
    pub tasks: AtomicU64,
    /// Connections that have a task at this moment.
    pub open: AtomicU64,
    /// Connections without a task whose short answer is sent but not acknowledged.
    pub unacknowledged: AtomicU64,
    /// Connections with a task that only waits for their end.
    pub closing: AtomicU64,
    /// The most connections that may be open.
    pub max_clients: AtomicU64,
    /// Connections refused right after accept, by the reason, in the order of
    /// [`REFUSALS`]. They are in none of the classes.
    pub refused: [AtomicU64; REFUSALS.len()],
    /// Connections that came in although `--client-rate` could not count them: its
    /// table was full.
    pub unmetered: AtomicU64,
    /// Pauses of accepting for lack of a resource.
    pub accept_pauses: AtomicU64,
    /// Transformations done.
    pub transformed: AtomicU64,
    /// Transformations that failed.
    pub untransformed: AtomicU64,
    /// Transformations that were declined: there is none of that name.
    pub declined_transforms: AtomicU64,
    /// Transformations that were not needed: their results were known.
    pub known_transforms: AtomicU64,
    /// Purges of all texts.
    pub purges_of_all: AtomicU64,
    /// Purges of the texts whose names begin alike.
    pub purges_of_prefix: AtomicU64,
    /// Purges of one text.
    pub purges_of_key: AtomicU64,
    /// Tasks, and calls of handlers and observers, that ended by a panic.
    pub panics: AtomicU64,
}

/// How a fetch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchResult {
    /// In a text that is kept.
    Kept,
    /// In a whole text that is not kept.
    Passed,
    /// In a whole text that was rejected.
    Rejected,
    /// Without a whole text.
    Failed,
}

impl FetchResult {
    /// One word for each, in their order.
    pub const WORDS: [&str; 4] = ["kept", "passed", "rejected", "failed"];
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
            reasons: Default::default(),
            unasked_failures: zero(),
            sent: Default::default(),
            waits: Waits::default(),
            fetches: zero(),
            kept: zero(),
            failed_fetches: zero(),
            refused_fetches: zero(),
            rate_waits: zero(),
            ended_fetches: Default::default(),
            tasks: zero(),
            open: zero(),
            unacknowledged: zero(),
            closing: zero(),
            max_clients: zero(),
            refused: Default::default(),
            unmetered: zero(),
            accept_pauses: zero(),
            transformed: zero(),
            untransformed: zero(),
            declined_transforms: zero(),
            known_transforms: zero(),
            purges_of_all: zero(),
            purges_of_prefix: zero(),
            purges_of_key: zero(),
            panics: zero(),
        }
    }

    /// When counting began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Counts a connection that has ended. Its class comes last: what is counted by
    /// class has its other figures already.
    pub fn count(&self, record: &AccessRecord<'_>) {
        let class = record.class();
        if class == Class::Failure {
            self.count_failure(record);
        }
        // A feed's next line comes when it comes: its readers wait for nothing of ours.
        if !matches!(record.status, CacheStatus::NoRequest | CacheStatus::Live) {
            self.waits.add(record.wait);
        }
        if record.bytes > 0 {
            self.sent[class as usize].fetch_add(record.bytes, Ordering::Relaxed);
        }
        self.of(class).fetch_add(1, Ordering::Release);
    }

    fn count_failure(&self, record: &AccessRecord<'_>) {
        let reason = reason_at(&record.outcome);
        self.reasons[reason].fetch_add(1, Ordering::Relaxed);
        if record.status == CacheStatus::NoRequest {
            self.unasked_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn of(&self, class: Class) -> &AtomicU64 {
        match class {
            Class::Hit => &self.hits,
            Class::Stale => &self.stale,
            Class::Coalesced => &self.coalesced,
            Class::Miss => &self.misses,
            Class::Own => &self.own,
            Class::Unasked => &self.unasked,
            Class::Failure => &self.failures,
        }
    }

    /// Connections that are open at this moment. One that is being answered on the
    /// spot is not among them.
    pub fn open_now(&self) -> u64 {
        let unacknowledged = self.unacknowledged.load(Ordering::Acquire);
        unacknowledged + self.open.load(Ordering::Acquire)
    }

    /// Connections that are open and whose answers are not sent yet.
    pub fn unanswered(&self) -> u64 {
        let closing = self.closing.load(Ordering::Acquire);
        let open = self.open.load(Ordering::Acquire);
        open.saturating_sub(closing)
    }

    /// How long clients with a request waited for the first byte: one number for each
    /// of [`WAIT_BOUNDS`] and one more, and the sum.
    pub fn waits(&self) -> (WaitCounts, Duration) {
        let is_asked = |class: &Class| *class != Class::Unasked;
        let classes = Class::ALL.into_iter().filter(is_asked);
        let ended: u64 = classes
            .map(|class| self.of(class).load(Ordering::Acquire))
            .sum();

        let unasked = self.unasked_failures.load(Ordering::Relaxed);
        let counts = self.waits.counts(ended.saturating_sub(unasked));
        (counts, self.waits.sum())
    }

    /// Counts a transformation, and how it failed if it did.
    pub(crate) fn transform_ended(&self, error: Option<&Error>) {
        let counter = match error {
            None => &self.transformed,
            Some(Error::Declined { .. }) => &self.declined_transforms,
            Some(_) => &self.untransformed,
        };
        counter.fetch_add(1, Ordering::Release);
    }
}

/// Counts a fetch that has begun, and how it ends. Dropped before that is known, it has
/// failed.
#[derive(Debug)]
pub(crate) struct FetchEnd {
    stats: Arc<Stats>,
    cause: FetchCause,
    result: Option<FetchResult>,
    _panic: PanicCount,
}

impl FetchEnd {
    pub(crate) fn new(stats: Arc<Stats>, cause: FetchCause) -> FetchEnd {
        stats.fetches.fetch_add(1, Ordering::Relaxed);
        FetchEnd {
            _panic: PanicCount(stats.clone()),
            stats,
            cause,
            result: None,
        }
    }

    /// It has ended, and all else is counted.
    pub(crate) fn settle(&mut self, result: FetchResult) {
        self.result = Some(result);
    }
}

impl Drop for FetchEnd {
    fn drop(&mut self) {
        let result = self.result.unwrap_or_else(|| {
            self.stats.failed_fetches.fetch_add(1, Ordering::Release);
            FetchResult::Failed
        });
        let counter = &self.stats.ended_fetches[self.cause as usize][result as usize];
        counter.fetch_add(1, Ordering::Release);
    }
}

/// The place in [`REASONS`] of why a connection failed. A word that is not among them
/// counts as the last, `failed`.
fn reason_at(outcome: &Outcome) -> usize {
    let word = outcome.word();
    let found = REASONS.iter().position(|reason| *reason == word);
    found.unwrap_or(REASONS.len() - 1)
}

/// Counts a panic if it is what drops this.
#[derive(Debug)]
pub(crate) struct PanicCount(pub(crate) Arc<Stats>);

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
