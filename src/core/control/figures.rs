//! The figures of a service at one moment. Logs, `/status` and `/metrics` are made from
//! one [`Snapshot`], so they can't disagree.

mod store;

use crate::observe::{Class, FetchCause};
pub use crate::observe::{REASONS, REFUSALS};
use crate::stats::{FetchResult, Stats, WAIT_BOUNDS, bucket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
pub use store::{FleetCounts, StoreCounts, StoreState};

/// The figures of a service at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Time since the start.
    pub uptime: Duration,
    /// Connections that have ended, by their class, and those still open.
    pub connections: ConnectionCounts,
    /// Answers that were not whole, by their reason: one number for each of
    /// [`REASONS`].
    pub failures: [u64; REASONS.len()],
    /// Bytes sent to clients, by the class of their connection.
    pub sent: ClassCounts,
    /// How long clients with a request waited for the first byte, or for the end where
    /// none came, in seconds.
    pub wait: Histogram,
    /// Connections refused right after accept, by their reason: one number for each of
    /// [`REFUSALS`].
    pub refused: [u64; REFUSALS.len()],
    /// Connections that came in although `--client-rate` had no room to count them.
    pub unmetered: u64,
    /// Pauses of accepting for lack of a resource.
    pub accept_pauses: u64,
    /// Transformations. A text counts once, also where a list of them is applied.
    pub transforms: TransformCounts,
    /// Purges.
    pub purges: PurgeCounts,
    /// Tasks, and calls of handlers and observers, that ended by a bug.
    pub panics: u64,
    /// Fetches; `None` for a service that fetches nothing.
    pub fetches: Option<FetchCounts>,
    /// The servers that texts are fetched from, in the order of the command line.
    pub upstreams: Vec<UpstreamCounts>,
    /// The cache; `None` for a service without one.
    pub cache: Option<CacheCounts>,
    /// The store behind the cache; `None` without one.
    pub store: Option<StoreCounts>,
    /// The feed; `None` for a service without one.
    pub feed: Option<FeedCounts>,
    /// What is kept warm; `None` where nothing is.
    pub warm: Option<WarmCounts>,
}

/// How an upstream failed: the words of [`Error::word`](crate::error::Error::word) that
/// are its own. Any other is counted as `other`.
pub const ERRORS: [&str; 6] = [
    "unresolved",
    "refused",
    "timeout",
    "reset",
    "empty",
    "other",
];

/// Numbers of connections. All but `open` and `limit` have ended, and each is in one of
/// them.
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
    /// Open at this moment, but for those that are just answered on the spot.
    pub open: u64,
    /// The most that may be open.
    pub limit: u64,
}

/// One number for each class of connections.
pub type ClassCounts = [u64; Class::ALL.len()];

/// A distribution. Bucket `i` counts what was at most `bounds[i]` and more than the
/// bound before; the last one, which has no bound, what was more than all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// The upper bounds, ascending.
    pub bounds: &'static [f64],
    /// One more than there are bounds.
    pub counts: Vec<u64>,
    /// The sum of all that was counted.
    pub sum: f64,
}

/// Numbers of transformations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransformCounts {
    /// Done.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Declined: no such transformation.
    pub declined: u64,
    /// Not needed: the original had been transformed before.
    pub known: u64,
}

/// Numbers of purges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PurgeCounts {
    /// Of all texts.
    pub all: u64,
    /// Of those whose name begins alike.
    pub prefix: u64,
    /// Of one.
    pub key: u64,
}

/// Numbers of fetches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FetchCounts {
    /// Under way at this moment.
    pub running: u64,
    /// Waiting for their turn at this moment.
    pub waiting: u64,
    /// The most that may be under way.
    pub places: u64,
    /// How long the oldest has waited; zero if none waits.
    pub oldest_wait: Duration,
    /// Clients that wait for a fetch or read one.
    pub readers: u64,
    /// Begun since the start.
    pub begun: u64,
    /// Ended in a text that was kept.
    pub kept: u64,
    /// Ended in a whole text that was not kept.
    pub passed: u64,
    /// Failed, or ended in a text that was rejected. Fetches that were refused, or
    /// waited for their turn in vain, are among them.
    pub failed: u64,
    /// Refused because too many waited.
    pub refused: u64,
    /// Waited until an upstream might be asked, by its rate or after a pause, although
    /// a place was free.
    pub rate_waits: u64,
    /// Ended after they had begun, by what they were for and how they ended. With
    /// those that run, they add up to those begun.
    pub ended: [[u64; FetchCounts::RESULTS.len()]; FetchCounts::CAUSES.len()],
}

impl FetchCounts {
    /// What a fetch is for.
    pub const CAUSES: [&str; 4] = FetchCause::WORDS;
    /// How a fetch ends.
    pub const RESULTS: [&str; 4] = FetchResult::WORDS;
}

/// The figures of one upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamCounts {
    /// Its address, as it was given.
    pub name: String,
    /// How it is.
    pub state: UpstreamState,
    /// For how long it is not asked yet, because its last answer was rejected.
    pub paused: Option<Duration>,
    /// Connections to it at this moment.
    pub connections: u64,
    /// How often it was asked.
    pub asked: u64,
    /// Failures by their kind: one number for each of [`ERRORS`].
    pub failures: [u64; ERRORS.len()],
    /// How long its whole answers took, in seconds.
    pub durations: Histogram,
    /// Bytes that it sent.
    pub received: u64,
    /// Time since it last answered whole.
    pub last_success: Option<Duration>,
    /// How it failed the last time, and the time since then.
    pub last_error: Option<(String, Duration)>,
}

/// How an upstream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamState {
    /// It has not been asked yet.
    Unknown,
    /// It answers.
    Up,
    /// It has failed, and is not asked first, for this long already.
    Down(Duration),
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
    /// Texts that are kept, and their bytes.
    pub kept: (u64, u64),
    /// Fetches that run or wait, and their bytes.
    pub in_flight: (u64, u64),
    /// Cached failures, and their bytes.
    pub failures: (u64, u64),
    /// Texts evicted for lack of room.
    pub evicted_kept: u64,
    /// Cached failures evicted for lack of room.
    pub evicted_failures: u64,
}

/// What a feed did and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// For how long its source is connected; `None` while it is not.
    pub connected: Option<Duration>,
    /// Connections to its source since the start.
    pub connections: u64,
    /// Readers at this moment.
    pub readers: u64,
    /// Of these, the ones that have lost lines.
    pub slow: u64,
    /// Whole lines that came.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines that readers were too slow for, those of all readers added up.
    pub lost: u64,
    /// Lines left out because they were too long.
    pub too_long: u64,
    /// Lines that were cut by the end of a connection, and left out.
    pub cut: u64,
    /// Bytes held for readers.
    pub held: u64,
    /// How far a reader may be behind, in bytes.
    pub backlog: u64,
}

/// Numbers of requests whose texts are kept warm, by how their texts are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarmCounts {
    /// Cached, and within its ttl.
    pub fresh: u64,
    /// Not fresh: its last fetch failed.
    pub failed: u64,
    /// Not fresh: it waits for its fetch.
    pub waiting: u64,
}

impl ConnectionCounts {
    /// The number of connections that have ended.
    pub fn ended(&self) -> u64 {
        self.by_class().iter().sum()
    }

    /// One number for each of [`Class::ALL`].
    pub fn by_class(&self) -> ClassCounts {
        [
            self.hit,
            self.stale,
            self.coalesced,
            self.miss,
            self.own,
            self.failure,
            self.unasked,
        ]
    }
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
            open: stats.open_now(),
            limit: count(&stats.max_clients),
        };
        Snapshot {
            uptime: now.saturating_duration_since(stats.started()),
            connections,
            failures: stats.reasons.each_ref().map(count),
            sent: stats.sent.each_ref().map(count),
            wait: Histogram::of_waits(stats),
            refused: stats.refused.each_ref().map(count),
            unmetered: count(&stats.unmetered),
            accept_pauses: count(&stats.accept_pauses),
            transforms: TransformCounts {
                done: count(&stats.transformed),
                failed: count(&stats.untransformed),
                declined: count(&stats.declined_transforms),
                known: count(&stats.known_transforms),
            },
            purges: PurgeCounts {
                all: count(&stats.purges_of_all),
                prefix: count(&stats.purges_of_prefix),
                key: count(&stats.purges_of_key),
            },
            panics: count(&stats.panics),
            fetches: None,
            upstreams: Vec::new(),
            cache: None,
            store: None,
            feed: None,
            warm: None,
        }
    }
}

impl Histogram {
    /// Without anything counted.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    /// Counts a duration, in seconds.
    pub fn add(&mut self, time: Duration) {
        self.counts[bucket(self.bounds, time)] += 1;
        self.sum += time.as_secs_f64();
    }

    fn of_waits(stats: &Stats) -> Histogram {
        let (counts, sum) = stats.waits();
        Histogram {
            bounds: &WAIT_BOUNDS,
            counts: counts.to_vec(),
            sum: sum.as_secs_f64(),
        }
    }
}

impl FetchCounts {
    /// The totals; how many run and wait is for the caller to add.
    pub fn of(stats: &Stats) -> FetchCounts {
        let ended = stats.ended_fetches.each_ref();
        let ended = ended.map(|results| results.each_ref().map(count));
        let passed = ended.iter().map(|of| of[FetchResult::Passed as usize]);

        FetchCounts {
            begun: count(&stats.fetches),
            kept: count(&stats.kept),
            passed: passed.sum(),
            failed: count(&stats.failed_fetches),
            refused: count(&stats.refused_fetches),
            rate_waits: count(&stats.rate_waits),
            ended,
            ..FetchCounts::default()
        }
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}
