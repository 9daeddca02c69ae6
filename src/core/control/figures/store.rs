//! The figures of what is behind the cache: a store in a file, or a fleet.

use std::sync::Arc;
use std::time::Duration;

/// How a store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreState {
    /// It is read and written.
    #[default]
    Ok,
    /// It is read; what should be written is dropped.
    Unwritable,
    /// It can't be used.
    Off,
}

impl StoreState {
    /// The one word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            StoreState::Ok => "ok",
            StoreState::Unwritable => "unwritable",
            StoreState::Off => "off",
        }
    }
}

/// What a store is, did and holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Its path or address, without a password.
    pub name: Arc<str>,
    /// Whether it can be used.
    pub is_open: bool,
    /// How it is.
    pub state: StoreState,
    /// For how long it has been like that.
    pub state_for: Duration,
    /// Texts found in it, fresh.
    pub hits: u64,
    /// Texts found in it, past their ttl.
    pub stale: u64,
    /// Texts not found in it, or too old.
    pub misses: u64,
    /// Questions that it did not answer in time.
    pub late: u64,
    /// Texts written.
    pub written: u64,
    /// Texts that should have been written, and could not.
    pub dropped: u64,
    /// Errors of the disk, and damage.
    pub errors: u64,
    /// Texts in it, as of the last that was written.
    pub texts: u64,
    /// Bytes in use on the disk, as of the last text that was written.
    pub bytes: u64,
    /// The most that it may take, in bytes.
    pub capacity: u64,
    /// What was shared with other processes; `None` for a store of this process alone.
    pub fleet: Option<FleetCounts>,
}

/// What was shared with the other processes of a fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Times that another process's fetch was followed.
    pub follows: u64,
    /// Fetches of this process that others could follow.
    pub leads: u64,
    /// Fetches of this process without the store.
    pub alone: u64,
    /// Fetches of this process for a text whose holder was gone.
    pub takeovers: u64,
    /// Texts that were not the same again after their holder was gone.
    pub proofs_failed: u64,
    /// Leases that this process lost before it had committed its text.
    pub deposed: u64,
    /// Texts that others can have now.
    pub published: u64,
    /// Purges that the server is still to be told of, at this moment.
    pub purges_owed: u64,
}

impl FleetCounts {
    /// What a fetch did in a fleet: a word for each running total.
    pub const WORDS: [&str; 7] = [
        "follow",
        "lead",
        "alone",
        "takeover",
        "unproven",
        "deposed",
        "published",
    ];

    /// The running totals, in the order of [`FleetCounts::WORDS`].
    pub fn all(&self) -> [u64; FleetCounts::WORDS.len()] {
        [
            self.follows,
            self.leads,
            self.alone,
            self.takeovers,
            self.proofs_failed,
            self.deposed,
            self.published,
        ]
    }
}
