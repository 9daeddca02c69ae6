//! What is counted and told: every request ends in exactly one [`AccessRecord`], and its log line and its counters come
//! from that. The core prints nothing itself; it hands records and notices to a [`Observer`].

use crate::addr::Addr;
use crate::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How an answer was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// From the cache, fresh until then.
    Hit(Instant),
    /// From the cache, past its ttl but within grace.
    Stale,
    /// By joining a fetch that was already under way.
    Coalesced,
    /// By a fetch that this request caused.
    Miss,
    /// From what is remembered of a fetch that has failed, or whose poem was rejected.
    Remembered,
    /// It was ours to begin with: a server's own poem, a transformation done here.
    Own,
    /// There was no request that could be answered.
    Unasked,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was sent and the connection closed politely.
    Whole,
    /// Closed without a reply, as the netstring protocol says no.
    Declined,
    /// The answer failed, and the connection was reset.
    Failed(Arc<Error>),
    /// The client went away.
    Remaining,
    /// The client neither sent what it owed nor took what it was sent, in time, and was reset.
    Stuck,
}

impl Outcome {
    /// The one word for this outcome in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Whole => "whole",
            Outcome::Declined => "declined",
            Outcome::Failed(error) => error.word(),
            Outcome::Remaining => "client_left",
            Outcome::Stuck => "client_timeout",
        }
    }
}

/// One connection, from accept to close.
pub struct AccessRecord<'a> {
    /// The client's address.
    pub peer: &'a dyn Display,
    /// What was asked for, its first 1024 bytes; empty in the poem protocol.
    pub request: &'a [u8],
    /// How the answer was come by.
    pub how: CacheStatus,
    /// How it ended.
    pub outcome: Outcome,
    /// The bytes the client was sent.
    pub bytes: u64,
    /// From the accept to the first byte of the answer, or to the end where there was none.
    pub wait: Duration,
    /// Whether the fetch that this request caused ended in a poem that was kept.
    pub stored: bool,
}

/// The one kind that a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Whole, from the cache.
    Hit,
    /// Whole, from the cache, past its ttl.
    Stale,
    /// Whole, by joining another's fetch.
    Coalesced,
    /// Whole, by a fetch it caused itself.
    Miss,
    /// Whole, and ours.
    Own,
    /// Not whole, whatever the reason.
    Failure,
    /// No request at all, but an end that is no failure.
    Unasked,
}

impl Class {
    /// The one word for this class in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Class::Hit => "hit",
            Class::Stale => "stale",
            Class::Coalesced => "collapsed",
            Class::Miss => "miss",
            Class::Own => "own",
            Class::Failure => "failure",
            Class::Unasked => "unasked",
        }
    }
}

impl AccessRecord<'_> {
    /// How it is counted. A service's polite no is an answer, and no failure.
    pub fn class(&self) -> Class {
        match (&self.outcome, self.how) {
            (Outcome::Failed(_) | Outcome::Remaining | Outcome::Stuck, _) => Class::Failure,
            (_, CacheStatus::Hit(_) | CacheStatus::Remembered) => Class::Hit,
            (_, CacheStatus::Stale) => Class::Stale,
            (_, CacheStatus::Coalesced) => Class::Coalesced,
            (_, CacheStatus::Miss) => Class::Miss,
            (_, CacheStatus::Own) => Class::Own,
            (_, CacheStatus::Unasked) => Class::Unasked,
        }
    }
}

/// Something worth telling beside the requests.
#[derive(Debug)]
pub enum Event<'a> {
    /// A fetch begins.
    Fetching(&'a str),
    /// A fetch ended: bytes, how long it took, and whether the poem was kept.
    Fetched(u64, Duration, bool),
    /// A fetch failed, for so many who waited.
    FetchFailed(&'a Error, usize),
    /// A server could not be reached, and this one is tried instead.
    NextUpstream(&'a Error, &'a Addr),
    /// A fetch from here brought something that is passed on but not kept, and why.
    Rejected(&'a str, &'a str),
    /// The original was sent on because its transformation failed.
    Untransformed(&'a Error),
    /// A request was declined because its transformation failed.
    Declined(&'a Error),
    /// There are descriptors for so many clients only; further ones wait in the kernel's queue.
    FewDescriptors(u64),
    /// No connection can be accepted for lack of resources, and accepting pauses this long.
    Paused(&'a std::io::Error, Duration),
    /// Stopped accepting; this many connections are being finished.
    Draining(u64),
    /// The time for finishing ran out; this many connections are reset.
    Cut(u64),
    /// What was kept is forgotten, or the poems were read again.
    Reloaded(&'a str),
}

/// Who tells people and machines what happens. Called from the path of a hit: it must not block.
pub trait Observer: Send + Sync {
    /// A connection ended.
    fn request(&self, record: &AccessRecord<'_>);
    /// Something else happened.
    fn notice(&self, notice: Event<'_>);
}

/// A report that tells nobody.
pub struct Silent;

impl Observer for Silent {
    fn request(&self, _: &AccessRecord<'_>) {}
    fn notice(&self, _: Event<'_>) {}
}

/// Running totals. Hits, stale, coalesced, misses, own, failures and unasked add up to the requests.
#[derive(Debug, Default)]
pub struct Stats {
    /// Answered whole from the cache.
    pub hits: AtomicU64,
    /// The same, past the ttl.
    pub stale: AtomicU64,
    /// Whole, by joining a fetch under way.
    pub coalesced: AtomicU64,
    /// Whole, by a fetch of their own.
    pub misses: AtomicU64,
    /// Whole, with our own.
    pub own: AtomicU64,
    /// Declined before there was a request.
    pub unasked: AtomicU64,
    /// Not whole, whatever the reason.
    pub failures: AtomicU64,
    /// Fetches begun.
    pub fetches: AtomicU64,
    /// Fetches whose poem was kept.
    pub kept: AtomicU64,
    /// Fetches that failed, or whose poem was rejected.
    pub failed_fetches: AtomicU64,
    /// Connections that were registered with the reactor and given a task, since the start: what a hit does without.
    pub tasks: AtomicU64,
    /// Those of them that are waiting, reading or being sent to now.
    pub open: AtomicU64,
}

impl Stats {
    /// Counts a connection that ended.
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
