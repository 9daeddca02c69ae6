//! One connection, from accept to close: where its answer came from, and how it ended.

use crate::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// The cache; fresh until then.
    Hit(Instant),
    /// The cache, past its ttl but within its grace.
    Stale,
    /// A fetch that another request had started.
    Coalesced,
    /// A fetch that this request started.
    Miss,
    /// A cached failure, or a rejected text that is cached as one.
    Negative,
    /// This process: a server's own poem, or a transformation done here.
    Own,
    /// A feed that many read. Its reader leaves when it likes: that is no failure.
    Live,
    /// Nowhere: the connection ended before there was a request.
    NoRequest,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was sent, and the connection was closed politely.
    Whole,
    /// It was closed without a reply: the netstring protocol's way to decline.
    Declined,
    /// The answer failed, and the connection was reset.
    Failed(Arc<Error>),
    /// The client read a text over the window of this many bytes too slowly, and was
    /// reset.
    FellBehind(u64),
    /// The client closed before it had sent a byte of a request: a health check.
    NothingSent,
    /// The client went away.
    Left,
    /// The client sent or took nothing for too long, and was reset.
    Stuck,
}

/// Why answers are not whole: the words of [`Outcome::word`] in the class
/// [`Class::Failure`]. `limited` is for clients that are sent away.
pub const REASONS: [&str; 17] = [
    "client_left",
    "client_timeout",
    "unresolved",
    "refused",
    "timeout",
    "reset",
    "empty",
    "too_long",
    "untransformed",
    "bad_request",
    "no_room",
    "queue_full",
    "fell_behind",
    "abandoned",
    "rehearsed",
    "limited",
    "failed",
];

/// Why connections are refused right after accept: by a list, by the number of their
/// client's connections, by its rate.
pub const REFUSALS: [&str; 3] = ["denied", "per_address", "rate"];

impl Outcome {
    /// The one word for this outcome in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Whole => "whole",
            Outcome::Declined => "declined",
            Outcome::Failed(error) => error.word(),
            Outcome::FellBehind(_) => "fell_behind",
            Outcome::NothingSent => "unasked",
            Outcome::Left => "client_left",
            Outcome::Stuck => "client_timeout",
        }
    }

    /// Why the answer is not whole, where it should be.
    pub fn reason(&self) -> Option<String> {
        match self {
            Outcome::Whole | Outcome::Declined | Outcome::NothingSent => None,
            Outcome::Failed(error) => Some(error.to_string()),
            Outcome::FellBehind(window) => Some(format!(
                "the client was too slow: more than {window} bytes behind"
            )),
            Outcome::Left => Some("the client closed the connection".into()),
            Outcome::Stuck => Some("the client sent or took nothing for too long".into()),
        }
    }
}

/// One connection, from accept to close.
pub struct AccessRecord<'a> {
    /// The client's address.
    pub peer: &'a dyn Display,
    /// The request's first 1024 bytes; empty in the poem protocol.
    pub request: &'a [u8],
    /// Where the answer came from.
    pub status: CacheStatus,
    /// The route of the request, where there are routes.
    pub route: Option<&'a str>,
    /// The fetch that the answer came from, if it came from one.
    pub fetch: Option<&'a FetchNote>,
    /// How the connection ended.
    pub outcome: Outcome,
    /// Bytes sent to the client.
    pub bytes: u64,
    /// From accept to the first byte of the answer, or to the end where there was none.
    pub wait: Duration,
    /// From accept to the end.
    pub total: Duration,
    /// Whether the fetch that this request started ended in a text that was kept.
    pub stored: bool,
    /// What a reader of a feed got and lost.
    pub feed: Option<FeedNote>,
}

/// What a reader of a feed got and lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedNote {
    /// Lines that were sent to it. The last may be sent in part.
    pub lines: u64,
    /// Lines that it was too slow for.
    pub lost: u64,
}

/// What a fetch tells of itself to the clients that it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchNote {
    /// What it is for.
    pub cause: FetchCause,
    /// The server that was asked last; `None` while none has been asked.
    pub upstream: Option<Arc<str>>,
    /// From its begin to its end; `None` until it ends, and if it never began.
    pub time: Option<Duration>,
    /// What the store behind the cache had to do with it, if there is something to
    /// tell.
    pub store: Option<StoreUse>,
    /// Whether it fetched what another process had begun to fetch.
    pub is_takeover: bool,
}

/// What the store behind the cache had to do with a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreUse {
    /// It ended with the store's copy, within its ttl.
    Hit,
    /// The same, past its ttl and within its grace.
    Stale,
    /// It followed another process's fetch.
    Follow,
    /// Other processes could follow it.
    Lead,
    /// The store could not be asked.
    Alone,
}

impl StoreUse {
    /// The one word for this in JSON.
    pub fn word(self) -> &'static str {
        match self {
            StoreUse::Hit => "hit",
            StoreUse::Stale => "stale",
            StoreUse::Follow => "follow",
            StoreUse::Lead => "lead",
            StoreUse::Alone => "alone",
        }
    }
}

/// What a fetch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchCause {
    /// A client asked for a text that was not cached.
    Miss,
    /// A client asked for a text that is stale.
    Stale,
    /// A text is about to be stale.
    Prefetch,
    /// An operator asked for it.
    Admin,
}

impl FetchCause {
    /// One word for each, in their order.
    pub const WORDS: [&str; 4] = ["miss", "stale", "prefetch", "admin"];

    /// The one word for this cause in JSON.
    pub fn word(self) -> &'static str {
        FetchCause::WORDS[self as usize]
    }
}

/// The one class a connection is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Whole, from the cache, fresh or a cached failure's text.
    Hit,
    /// Whole, from the cache, past its ttl.
    Stale,
    /// Whole, from another request's fetch; or a reader of a feed that has left.
    Coalesced,
    /// Whole, from a fetch of its own.
    Miss,
    /// Whole, from this process.
    Own,
    /// Not whole.
    Failure,
    /// No request, and no failure.
    Unasked,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 7] = [
        Class::Hit,
        Class::Stale,
        Class::Coalesced,
        Class::Miss,
        Class::Own,
        Class::Failure,
        Class::Unasked,
    ];

    /// The class with this word; `None` if there is none.
    pub fn named(word: &str) -> Option<Class> {
        let mut all = Class::ALL.into_iter();
        all.find(|class| class.word() == word)
    }

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
    /// The class this connection is counted in. A service that declines has answered.
    pub fn class(&self) -> Class {
        match (&self.outcome, self.status) {
            (Outcome::Left, CacheStatus::Live) => Class::Coalesced,
            (Outcome::Failed(_) | Outcome::FellBehind(_) | Outcome::Left | Outcome::Stuck, _) => {
                Class::Failure
            }
            (_, CacheStatus::Hit(_) | CacheStatus::Negative) => Class::Hit,
            (_, CacheStatus::Stale) => Class::Stale,
            (_, CacheStatus::Coalesced | CacheStatus::Live) => Class::Coalesced,
            (_, CacheStatus::Miss) => Class::Miss,
            (_, CacheStatus::Own) => Class::Own,
            (_, CacheStatus::NoRequest) => Class::Unasked,
        }
    }
}
