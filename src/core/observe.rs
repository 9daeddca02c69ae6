//! What happens, as data for logs and counters.
//!
//! Each connection ends in exactly one [`AccessRecord`]; its log line and its counters
//! come from that. All else is an [`Event`]. The core prints nothing: it hands both to
//! an [`Observer`].

mod feed_news;
#[cfg(feature = "json")]
pub mod json;
mod record;
mod selection;
mod store_news;

use crate::error::Error;
pub use feed_news::FeedNews;
pub use record::{
    AccessRecord, CacheStatus, Class, FeedNote, FetchCause, FetchNote, Outcome, REASONS, REFUSALS,
    StoreUse,
};
pub use selection::{Classes, Selection, Selector};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
pub use store_news::StoreNews;

/// A fetch, as events name it.
#[derive(Debug, Clone, Copy)]
pub struct FetchName<'a> {
    /// Where the text comes from.
    pub upstream: &'a str,
    /// What was asked for; empty in the poem protocol.
    pub request: &'a [u8],
    /// What the fetch is for.
    pub cause: FetchCause,
    /// The route of the request, where there are routes.
    pub route: Option<&'a str>,
}

/// Something worth reporting beside the connections.
#[derive(Debug, Clone, Copy)]
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
    /// A fetch waits until its upstream may be asked, by its rate or after a pause.
    FetchDelayed {
        /// Which. Its upstream may be the list of them.
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
    /// A fetch ended with the store's copy of a text. No server was asked.
    FromStore {
        /// Which.
        fetch: FetchName<'a>,
        /// The text's length.
        bytes: u64,
        /// Whether it is past its ttl.
        is_stale: bool,
    },
    /// All requests of a file were fetched once.
    Warmed {
        /// The file.
        path: &'a str,
        /// Texts that came, or were there.
        texts: u64,
        /// Texts that did not.
        failed: u64,
        /// How long that took.
        time: Duration,
    },
    /// A fetch follows that of another process. No server is asked.
    Following {
        /// Which.
        fetch: FetchName<'a>,
    },
    /// A fetch that was followed is gone or was given up, and is taken over.
    TakenOver {
        /// Which.
        fetch: FetchName<'a>,
    },
    /// Something changed about the store.
    Store {
        /// Its path.
        path: &'a str,
        /// What changed.
        news: &'a StoreNews,
    },
    /// Something happened to a feed.
    Feed {
        /// Where it comes from.
        upstream: &'a str,
        /// What happened.
        news: &'a FeedNews,
    },
    /// A fetch failed.
    FetchFailed {
        /// Which.
        fetch: FetchName<'a>,
        /// Why.
        error: &'a Error,
        /// How long it took; zero if it did not begin.
        time: Duration,
        /// Readers that waited for it.
        waiting: usize,
    },
    /// A fetch was given up: its text can't be kept, and no reader is left.
    GivenUp {
        /// Which.
        fetch: FetchName<'a>,
        /// Bytes of the text until then.
        bytes: u64,
        /// How long it took until then.
        time: Duration,
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
    /// A server's answer was rejected, and it is not asked for a while.
    UpstreamPaused {
        /// The server.
        upstream: &'a str,
        /// For how long.
        pause: Duration,
    },
    /// What a command has said last on standard error.
    ProgramSaid {
        /// The command.
        upstream: &'a str,
        /// The line.
        line: &'a str,
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
    /// Clients are refused right after accept. The first is told at once, those of the
    /// minute after it together.
    ClientsRefused {
        /// Why: one of [`REFUSALS`].
        why: &'a str,
        /// The address of the last.
        from: Option<IpAddr>,
        /// Their number.
        count: u64,
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
            Event::FetchDelayed { .. } => "fetch_delayed",
            Event::Fetched { .. } => "fetched",
            Event::FromStore { .. } => "from_store",
            Event::Warmed { .. } => "warmed",
            Event::Following { .. } => "following",
            Event::TakenOver { .. } => "taken_over",
            Event::Store { news, .. } => news.word(),
            Event::Feed { news, .. } => news.word(),
            Event::FetchFailed { .. } => "fetch_failed",
            Event::GivenUp { .. } => "given_up",
            Event::Rejected { .. } => "rejected",
            Event::NextUpstream { .. } => "next_upstream",
            Event::UpstreamDown { .. } => "upstream_down",
            Event::UpstreamUp { .. } => "upstream_up",
            Event::UpstreamPaused { .. } => "upstream_paused",
            Event::ProgramSaid { .. } => "program_said",
            Event::SentOriginal { .. } => "sent_original",
            Event::Declined { .. } => "declined",
            Event::FewDescriptors { .. } => "few_descriptors",
            Event::AcceptPaused { .. } => "accept_paused",
            Event::ClientsRefused { .. } => "clients_refused",
            Event::Stopping { .. } => "stop",
            Event::Draining { .. } => "drain",
            Event::Cut { .. } => "cut",
            Event::Purged { .. }
            | Event::Reloaded {
                what: Reloaded::Purged { .. },
            } => "purge",
            Event::Reloaded {
                what: Reloaded::Routes { .. },
            } => "routes",
            Event::Reloaded {
                what: Reloaded::Lists { .. },
            } => "lists_reloaded",
            Event::Reloaded { .. } => "reload",
            Event::ReloadFailed { .. } => "reload_failed",
            Event::PoemSkipped { .. } => "poem_skipped",
        }
    }

    /// The fetch that this event is about.
    pub fn fetch(&self) -> Option<FetchName<'_>> {
        match self {
            Event::Fetching { fetch }
            | Event::FetchDelayed { fetch }
            | Event::Fetched { fetch, .. }
            | Event::FromStore { fetch, .. }
            | Event::Following { fetch }
            | Event::TakenOver { fetch }
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
            Event::Store { news, .. } => news.is_trouble(),
            Event::Feed { .. }
            | Event::FetchFailed { .. }
            | Event::Rejected { .. }
            | Event::NextUpstream { .. }
            | Event::UpstreamDown { .. }
            | Event::UpstreamPaused { .. }
            | Event::SentOriginal { .. }
            | Event::Declined { .. }
            | Event::FewDescriptors { .. }
            | Event::AcceptPaused { .. }
            | Event::Cut { .. }
            | Event::ReloadFailed { .. }
            | Event::PoemSkipped { .. } => true,
            Event::Started { .. }
            | Event::Fetching { .. }
            | Event::FetchDelayed { .. }
            | Event::Fetched { .. }
            | Event::FromStore { .. }
            | Event::Warmed { .. }
            | Event::Following { .. }
            | Event::TakenOver { .. }
            | Event::GivenUp { .. }
            | Event::UpstreamUp { .. }
            | Event::ProgramSaid { .. }
            | Event::ClientsRefused { .. }
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
    /// The routes were read again.
    Routes {
        /// Their number.
        routes: usize,
        /// Cached texts of routes that have changed, which were purged.
        texts: u64,
    },
    /// The lists of networks were read again.
    Lists {
        /// The networks on them.
        nets: usize,
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

/// Several observers as one: each is told everything, in this order.
pub struct Observers(pub Vec<Arc<dyn Observer>>);

impl Observer for Observers {
    fn request(&self, record: &AccessRecord<'_>) {
        for observer in &self.0 {
            observer.request(record);
        }
    }

    fn event(&self, event: Event<'_>) {
        for observer in &self.0 {
            observer.event(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Counter(AtomicU64);

    impl Observer for Counter {
        fn request(&self, _: &AccessRecord<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn event(&self, _: Event<'_>) {
            self.0.fetch_add(10, Ordering::Relaxed);
        }
    }

    #[test]
    fn several_observers_are_each_told_everything() {
        let counters: [Arc<Counter>; 2] = Default::default();
        let observers = counters.clone().map(|counter| counter as Arc<dyn Observer>);
        let all = Observers(observers.into());

        all.request(&AccessRecord {
            peer: &"127.0.0.1:1",
            request: b"",
            status: CacheStatus::Own,
            route: None,
            fetch: None,
            outcome: Outcome::Whole,
            bytes: 1,
            wait: Duration::ZERO,
            total: Duration::ZERO,
            stored: false,
            feed: None,
        });
        all.event(Event::Draining { open: 1 });

        let counts = counters.map(|counter| counter.0.load(Ordering::Relaxed));
        assert_eq!(counts, [11, 11]);
    }
}
