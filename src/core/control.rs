//! What an operator may ask of a service: its figures, its texts and fetches, and to
//! purge or fetch a text.

mod figures;

use crate::cache::Purge;
use crate::flight::Ending;
use crate::stats::Stats;
pub use figures::{
    CacheCounts, ClassCounts, ConnectionCounts, ERRORS, FeedCounts, FetchCounts, FleetCounts,
    Histogram, PurgeCounts, REASONS, REFUSALS, Snapshot, StoreCounts, StoreState, TransformCounts,
    UpstreamCounts, UpstreamState, WarmCounts,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A service as an operator sees it. Each call may come from any thread.
///
/// The server counts connections, and the handler knows the rest, so the totals are an
/// argument.
pub trait Control: Send + Sync {
    /// The figures at this moment.
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot;

    /// The fetches that run or wait, the oldest first, at most `most` of them.
    fn flights(&self, _most: usize, _now: Instant) -> Vec<FlightView> {
        Vec::new()
    }

    /// Some of the keys: those with a text, a fetch, or a cached failure.
    fn keys(&self, _page: &KeyPage<'_>, _now: Instant) -> KeyList {
        KeyList::default()
    }

    /// What is known of one key; `None` where that is nothing.
    fn key(&self, _name: &[u8], _now: Instant) -> Option<KeyView> {
        None
    }

    /// Purges texts, and reports that. Clients that wait for one still get it, but it
    /// is not kept, and neither is anything whose fetch began before. Returns the
    /// number of keys that had a text or a cached failure.
    fn purge(&self, _texts: Texts<'_>, _how: Purge, _now: Instant) -> u64 {
        0
    }

    /// Fetches a text although no client asks for it. What is cached stays until the
    /// new text is complete. It waits for its turn behind the clients' fetches, and
    /// runs where all others run.
    fn refresh(self: Arc<Self>, _name: &[u8], _now: Instant) -> Refresh {
        Refresh::Unsupported
    }
}

/// Which texts. A name is the request, or `#LENGTH:SHA-256` of one over 256 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts<'a> {
    /// All of them.
    All,
    /// Those whose name begins like this.
    Prefix(&'a [u8]),
    /// The one of this name.
    Named(&'a [u8]),
}

impl<'a> Texts<'a> {
    /// The one word for the scope in logs.
    pub fn scope(&self) -> &'static str {
        match self {
            Texts::All => "all",
            Texts::Prefix(_) => "prefix",
            Texts::Named(_) => "key",
        }
    }

    /// The name or its beginning; empty for all.
    pub fn name(&self) -> &'a [u8] {
        match self {
            Texts::All => b"",
            Texts::Prefix(name) | Texts::Named(name) => name,
        }
    }
}

/// What became of [`Control::refresh`]. An [`Ending`] tells how the fetch ends: wait
/// for it within a deadline, or drop it.
#[derive(Debug)]
pub enum Refresh {
    /// A fetch has started, or waits for its turn. If it may not even wait, its ending
    /// says so at once.
    Started(Ending),
    /// A fetch of this text was under way already. What it brings may be older than a
    /// text asked for now.
    UnderWay(Ending),
    /// The text can't be asked for: it is known by its digest only, or the name is no
    /// request in the protocol.
    Unknown,
    /// The service fetches nothing.
    Unsupported,
}

/// Which keys [`Control::keys`] is to list.
#[derive(Debug, Clone, Copy)]
pub struct KeyPage<'a> {
    /// Only those whose name begins like this.
    pub prefix: &'a [u8],
    /// Where the last page ended; `None` for the first page. Any number is one: it
    /// stays valid while keys come and go, and a key that stays is listed exactly once.
    pub cursor: Option<u64>,
    /// The most keys of one page, at least one. (Two whose hashes are the same are on
    /// one page, so there may be one more.)
    pub limit: usize,
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyList {
    /// The keys, in no order. There may be few, or none, before the last page: a page
    /// ends when many have been looked at.
    pub keys: Vec<KeyView>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<u64>,
    /// All keys, whatever their names, and those whose time is over.
    pub total: u64,
}

/// A key, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// The request; `#LENGTH:SHA-256` for one over 256 bytes; empty in the poem
    /// protocol.
    pub name: Vec<u8>,
    /// Its route, where there are routes.
    pub route: Option<String>,
    /// What the cache knows of it.
    pub state: KeyState,
    /// Whether a fetch is under way.
    pub is_in_flight: bool,
    /// The length of its text, in bytes; 0 without one.
    pub bytes: u64,
    /// Time since the end of the fetch that brought the text. Unknown after a soft
    /// purge.
    pub age: Option<Duration>,
    /// For how long it is still fresh.
    pub fresh_for: Duration,
    /// For how long it, or the failure, may still be served.
    pub served_for: Duration,
}

/// What the cache knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// A text within its ttl.
    Fresh,
    /// A text past its ttl, within its grace.
    Stale,
    /// No text: a cached failure.
    Failed,
    /// No text: one is on its way, or was too long to be kept.
    Empty,
}

impl KeyState {
    /// The one word for this state in JSON.
    pub fn word(self) -> &'static str {
        match self {
            KeyState::Fresh => "fresh",
            KeyState::Stale => "stale",
            KeyState::Failed => "failed",
            KeyState::Empty => "empty",
        }
    }
}

/// A fetch, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightView {
    /// What is fetched; empty in the poem protocol.
    pub name: Vec<u8>,
    /// How far it has got.
    pub phase: Phase,
    /// The server that is asked, once one is.
    pub upstream: Option<String>,
    /// Time since it was asked for.
    pub age: Duration,
    /// Bytes of the text until now.
    pub bytes: u64,
    /// Clients that wait for it or read it.
    pub readers: u64,
    /// Whether it refreshes a cached text.
    pub is_refresh: bool,
}

/// How far a fetch has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its turn.
    InQueue,
    /// It connects, and sends its request.
    Connecting,
    /// It waits for the first byte.
    Waiting,
    /// Its bytes come.
    Streaming,
    /// Its bytes come, and its text will not be kept: it is too long, or has no room.
    Passing,
    /// It is transformed.
    Transforming,
}

impl Phase {
    /// The words for this phase.
    pub fn word(self) -> &'static str {
        match self {
            Phase::InQueue => "in queue",
            Phase::Connecting => "connects",
            Phase::Waiting => "waits for the first byte",
            Phase::Streaming => "streams",
            Phase::Passing => "passes through",
            Phase::Transforming => "is transformed",
        }
    }
}
