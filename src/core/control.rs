//! What an operator may ask of a service: its figures, and to forget what it keeps.

use crate::stats::Stats;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A service as an operator sees it.
///
/// The server counts connections, and the handler knows the rest, so the totals are an
/// argument.
pub trait Control: Send + Sync {
    /// The figures at this moment.
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot;

    /// Makes the text of one request stale, or all texts. Returns the number of texts
    /// that became stale.
    fn purge(&self, request: Option<&[u8]>, now: Instant) -> u64;
}

/// The figures of a service at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Time since the start.
    pub uptime: Duration,
    /// Connections that have ended, by their class, and those still open.
    pub connections: ConnectionCounts,
    /// Fetches; `None` for a service that fetches nothing.
    pub fetches: Option<FetchCounts>,
    /// The cache; `None` for a service without one.
    pub cache: Option<CacheCounts>,
}

/// Numbers of connections. All but `open` have ended, and each is in one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Answered whole from the cache, fresh.
    pub hit: u64,
    /// Answered whole from the cache, past the ttl.
    pub stale: u64,
    /// Answered whole by a fetch that another had started.
    pub coalesced: u64,
    /// Answered whole by a fetch of their own.
    pub miss: u64,
    /// Answered whole by the process itself.
    pub own: u64,
    /// Not answered whole.
    pub failure: u64,
    /// Without a request.
    pub unasked: u64,
    /// Open at this moment.
    pub open: u64,
}

impl ConnectionCounts {
    /// The number of connections that have ended.
    pub fn ended(&self) -> u64 {
        let whole = self.hit + self.stale + self.coalesced + self.miss + self.own;
        whole + self.failure + self.unasked
    }
}

/// Numbers of fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchCounts {
    /// Under way at this moment.
    pub running: u64,
    /// Waiting for their turn at this moment.
    pub waiting: u64,
    /// Begun since the start.
    pub begun: u64,
    /// Ended in a text that was kept.
    pub kept: u64,
    /// Failed, or ended in a text that was rejected.
    pub failed: u64,
    /// Refused because too many waited.
    pub refused: u64,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Keys with a text, a cached failure or a fetch.
    pub keys: u64,
    /// Bytes held, in flight and kept.
    pub bytes: u64,
    /// The most that may be held, in bytes.
    pub capacity: u64,
}

impl Snapshot {
    /// The figures that every service has.
    pub fn of(stats: &Stats, now: Instant) -> Snapshot {
        let connections = ConnectionCounts {
            hit: count(&stats.hits),
            stale: count(&stats.stale),
            coalesced: count(&stats.coalesced),
            miss: count(&stats.misses),
            own: count(&stats.own),
            failure: count(&stats.failures),
            unasked: count(&stats.unasked),
            open: count(&stats.open),
        };
        Snapshot {
            uptime: now.saturating_duration_since(stats.started()),
            connections,
            fetches: None,
            cache: None,
        }
    }
}

impl FetchCounts {
    /// The totals; how many run and wait is for the caller to add.
    pub fn of(stats: &Stats) -> FetchCounts {
        FetchCounts {
            running: 0,
            waiting: 0,
            begun: count(&stats.fetches),
            kept: count(&stats.kept),
            failed: count(&stats.failed_fetches),
            refused: count(&stats.refused_fetches),
        }
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
