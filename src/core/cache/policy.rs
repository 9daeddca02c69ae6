//! How long values are kept, and how many bytes of all.

use std::time::{Duration, Instant};

/// How long values are kept that have no times of their own, and how many bytes of
/// all.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a value is fresh, counted from the end of its fetch.
    pub ttl: Duration,
    /// How long after that it may still be served while it is refreshed.
    pub grace: Duration,
    /// How long a failure is cached.
    pub fail_ttl: Duration,
    /// The most that values, failures and fetches may hold together, in bytes.
    pub capacity: u64,
}

impl Policy {
    /// How long a value that came `now` is kept.
    pub fn freshness(&self, now: Instant) -> Freshness {
        self.times().freshness(now)
    }

    /// The times of a value without times of its own.
    pub fn times(&self) -> KeepTimes {
        KeepTimes {
            ttl: self.ttl,
            grace: self.grace,
            fail_ttl: self.fail_ttl,
        }
    }
}

/// How long what a fetch brings is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepTimes {
    /// How long a value is fresh, counted from the end of its fetch.
    pub ttl: Duration,
    /// How long after that it may still be served while it is refreshed.
    pub grace: Duration,
    /// How long a failure is cached.
    pub fail_ttl: Duration,
}

impl KeepTimes {
    /// How long a value that came `now` is kept.
    pub fn freshness(&self, now: Instant) -> Freshness {
        let fresh_until = now + self.ttl;
        Freshness {
            fresh_until,
            stale_until: fresh_until + self.grace,
        }
    }
}

/// How long one value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Until then it is served.
    pub fresh_until: Instant,
    /// Until then it is served while it is refreshed.
    pub stale_until: Instant,
}
