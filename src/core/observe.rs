//! What happens, as data for logs and counters.
//!
//! Each connection ends in exactly one [`AccessRecord`]; its log line and its counters
//! come from that. All else is an [`Event`]. The core prints nothing: it hands both to
//! an [`Observer`].

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
                "the client was too slow for a text over {window} bytes"
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
    /// The server that the answer was fetched from, if it was.
    pub upstream: Option<&'a str>,
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
}

/// The one class a connection is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Whole, from the cache, fresh or a cached failure's text.
    Hit,
    /// Whole, from the cache, past its ttl.
    Stale,
    /// Whole, from another request's fetch.
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
            (Outcome::Failed(_) | Outcome::FellBehind(_) | Outcome::Left | Outcome::Stuck, _) => {
                Class::Failure
            }
            (_, CacheStatus::Hit(_) | CacheStatus::Negative) => Class::Hit,
            (_, CacheStatus::Stale) => Class::Stale,
            (_, CacheStatus::Coalesced) => Class::Coalesced,
            (_, CacheStatus::Miss) => Class::Miss,
            (_, CacheStatus::Own) => Class::Own,
            (_, CacheStatus::NoRequest) => Class::Unasked,
        }
    }
}

/// A fetch, as events name it.
#[derive(Debug, Clone, Copy)]
pub struct FetchName<'a> {
    /// Where the text comes from.
    pub upstream: &'a str,
    /// What was asked for; empty in the poem protocol.
    pub request: &'a [u8],
}

/// Something worth reporting beside the connections.
#[derive(Debug)]
pub enum Event<'a> {
    /// The service listens.
    Started {
        /// What it does, in two or three words.
        verb: &'a str,
        /// Where it listens.
        addrs: &'a [String],
    },
    /// A fetch begins.
    Fetching {
        /// Which.
        fetch: FetchName<'a>,
    },
    /// A fetch ended with a whole text.
    Fetched {
        /// Which.
        fetch: FetchName<'a>,
        /// The text's length.
        bytes: u64,
        /// How long the fetch took.
        time: Duration,
        /// Whether the text is kept.
        kept: bool,
    },
    /// A fetch failed.
    FetchFailed {
        /// Which.
        fetch: FetchName<'a>,
        /// Why.
        error: &'a Error,
        /// Readers that waited for it.
        waiting: usize,
    },
    /// A fetch was given up: its text can't be kept, and no reader is left.
    GivenUp {
        /// Which.
        fetch: FetchName<'a>,
        /// Bytes of the text until then.
        bytes: u64,
    },
    /// A whole text was passed on but is not kept.
    Rejected {
        /// Which.
        fetch: FetchName<'a>,
        /// Why.
        why: &'a str,
    },
    /// A server failed, and the next one is asked.
    NextUpstream {
        /// What is fetched, and from which server it could not be.
        fetch: FetchName<'a>,
        /// How it failed.
        error: &'a Error,
        /// The next server.
        next: &'a str,
    },
    /// A server has failed, and is not asked first for a while.
    UpstreamDown {
        /// The server.
        upstream: &'a str,
        /// How it failed.
        error: &'a Error,
        /// How long it rests.
        pause: Duration,
    },
    /// A server that had failed answers again.
    UpstreamUp {
        /// The server.
        upstream: &'a str,
        /// How long it was down.
        after: Duration,
    },
    /// A transformation failed, and the original was sent.
    SentOriginal {
        /// What was transformed.
        fetch: FetchName<'a>,
        /// How it failed.
        error: &'a Error,
    },
    /// A request was declined because its transformation failed.
    Declined {
        /// How it failed.
        error: &'a Error,
    },
    /// The limit on open files allows fewer clients than `--max-clients`.
    FewDescriptors {
        /// Clients that can be served at once.
        clients: u64,
    },
    /// Accepting fails for lack of a resource, and pauses.
    AcceptPaused {
        /// The system's error.
        error: &'a std::io::Error,
        /// For how long.
        pause: Duration,
    },
    /// The service was told to stop.
    Stopping {
        /// By this signal.
        signal: &'a str,
        /// Open connections.
        open: u64,
    },
    /// The service stops, and finishes what is open.
    Draining {
        /// Open connections.
        open: u64,
    },
    /// The time for finishing is over, and what is open is reset.
    Cut {
        /// Open connections.
        open: u64,
    },
    /// An operator has purged texts.
    Purged {
        /// Which: `all`, `prefix` or `key`.
        scope: &'a str,
        /// The beginning of their names, or the one name; empty for all.
        name: &'a [u8],
        /// How: `soft` or `hard`.
        how: &'a str,
        /// Texts that were cached.
        texts: u64,
    },
    /// A reload has taken place.
    Reloaded {
        /// What it did.
        what: Reloaded,
    },
    /// A reload failed, and all stays as it was.
    ReloadFailed {
        /// Why.
        error: &'a Error,
    },
    /// A poem can't be served and was left out.
    PoemSkipped {
        /// Which, and why.
        error: &'a Error,
    },
}

impl Event<'_> {
    /// The one word for this event in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Event::Started { .. } => "start",
            Event::Fetching { .. } => "fetch",
            Event::Fetched { .. } => "fetched",
            Event::FetchFailed { .. } => "fetch_failed",
            Event::GivenUp { .. } => "given_up",
            Event::Rejected { .. } => "rejected",
            Event::NextUpstream { .. } => "next_upstream",
            Event::UpstreamDown { .. } => "upstream_down",
            Event::UpstreamUp { .. } => "upstream_up",
            Event::SentOriginal { .. } => "sent_original",
            Event::Declined { .. } => "declined",
            Event::FewDescriptors { .. } => "few_descriptors",
            Event::AcceptPaused { .. } => "accept_paused",
            Event::Stopping { .. } => "stop",
            Event::Draining { .. } => "drain",
            Event::Cut { .. } => "cut",
            Event::Purged { .. }
            | Event::Reloaded {
                what: Reloaded::Purged { .. },
            } => "purge",
            Event::Reloaded { .. } => "reload",
            Event::ReloadFailed { .. } => "reload_failed",
            Event::PoemSkipped { .. } => "poem_skipped",
        }
    }

    /// The fetch that this event is about.
    pub fn fetch(&self) -> Option<FetchName<'_>> {
        match self {
            Event::Fetching { fetch }
            | Event::Fetched { fetch, .. }
            | Event::FetchFailed { fetch, .. }
            | Event::GivenUp { fetch, .. }
            | Event::Rejected { fetch, .. }
            | Event::NextUpstream { fetch, .. }
            | Event::SentOriginal { fetch, .. } => Some(*fetch),
            _ => None,
        }
    }

    /// The failure that this event reports.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Event::FetchFailed { error, .. }
            | Event::NextUpstream { error, .. }
            | Event::UpstreamDown { error, .. }
            | Event::SentOriginal { error, .. }
            | Event::Declined { error }
            | Event::ReloadFailed { error }
            | Event::PoemSkipped { error } => Some(error),
            _ => None,
        }
    }

    /// Whether something went wrong.
    pub fn is_trouble(&self) -> bool {
        match self {
            Event::FetchFailed { .. }
            | Event::Rejected { .. }
            | Event::NextUpstream { .. }
            | Event::UpstreamDown { .. }
            | Event::SentOriginal { .. }
            | Event::Declined { .. }
            | Event::FewDescriptors { .. }
            | Event::AcceptPaused { .. }
            | Event::Cut { .. }
            | Event::ReloadFailed { .. }
            | Event::PoemSkipped { .. } => true,
            Event::Started { .. }
            | Event::Fetching { .. }
            | Event::Fetched { .. }
            | Event::GivenUp { .. }
            | Event::UpstreamUp { .. }
            | Event::Stopping { .. }
            | Event::Draining { .. }
            | Event::Purged { .. }
            | Event::Reloaded { .. } => false,
        }
    }
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// Cached texts were made stale.
    Purged {
        /// Their number.
        texts: u64,
    },
    /// The poems were read again.
    Poems {
        /// Their number.
        poems: usize,
    },
    /// Nothing: there is nothing that could be read again.
    Nothing,
}

/// Receives what happens. It is called on the path of a hit, so it must not block.
pub trait Observer: Send + Sync {
    /// A connection ended.
    fn request(&self, record: &AccessRecord<'_>);
    /// Something else happened.
    fn event(&self, event: Event<'_>);
}

/// An observer that ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn request(&self, _: &AccessRecord<'_>) {}
    fn event(&self, _: Event<'_>) {}
}
