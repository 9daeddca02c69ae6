//! `proxy`: another server's texts, each fetched at most once at a time, kept for a
//! while, and passed on as they come.
//!
//! | file | question |
//! |---|---|
//! | `proxy/key.rs`, `proxy/fold.rs` | What is one text? |
//! | [`tier`](crate::tier) | What is behind the cache, before the upstream? |
//! | [`coalesce`](crate::coalesce) | What does a client get, and has it to fetch? |
//! | [`dispatch`](crate::dispatch) | When does a fetch start? |
//! | `proxy/fetch.rs` | How does it go, and how does it end? |
//! | `proxy/stale.rs` | When is a stale text served? |
//! | `proxy/patience.rs` | How long may slow readers delay others? |
//! | `proxy/operate.rs` | What may an operator do to its texts? |
//! | `proxy/flights.rs` | Which fetches does an operator see? |

mod fetch;
mod flights;
mod fold;
mod key;
mod operate;
mod patience;
mod stale;
mod ttl;

use crate::cache::{Policy, Purge};
use crate::client::Timeouts;
use crate::coalesce::{Coalescer, FlightGuard, Found, Purged};
use crate::control::{
    CacheCounts, Control, FetchCounts, FlightView, KeyList, KeyPage, KeyView, Refresh, Snapshot,
    Texts,
};
use crate::dispatch::{Arrived, Dispatch, StartLimit};
use crate::error::Error;
use crate::observe::{CacheStatus, Event, FetchCause, FetchName, Observer, Reloaded};
use crate::protocol::Protocol;
use crate::rt;
use crate::server::{Handler, Request, Response, Wire};
use crate::stats::{PanicCount, Stats};
use crate::tier::{Erase, Tier};
use crate::transform::{PREFIX_BYTES_MAX, Pipeline};
use crate::upstream::Upstream;
use bytes::Bytes;
use fetch::{Fetch, SourceLimit};
use flights::FlightList;
pub use fold::KeyFold;
pub use key::Key;
use key::Scope;
pub use patience::PATIENCE;
use regex::bytes::Regex;
pub use stale::ServeStale;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
pub use ttl::TtlRules;

/// What a proxy does.
pub struct ProxySettings {
    /// What its clients and its upstream speak.
    pub protocol: Protocol,
    /// Where texts come from.
    pub upstream: Upstream,
    /// The deadlines of a fetch.
    pub timeouts: Timeouts,
    /// Whether a fetch closes its sending side once its request is sent.
    pub half_close: bool,
    /// How long texts are kept, and how many bytes of them.
    pub policy: Policy,
    /// When a stale text is served.
    pub serve_stale: ServeStale,
    /// The last part of each ttl in which a request starts a refresh, from 0 to 1.
    pub refresh_ahead: f64,
    /// Which texts have a ttl of their own.
    pub ttls: TtlRules,
    /// The longest text that is kept, in bytes. A longer one passes through a window of
    /// this size.
    pub max_poem: u64,
    /// Whether nothing is sent before the text is complete. A longer text is a failure
    /// then.
    pub whole: bool,
    /// Texts that are passed on and not kept.
    pub rejects: Rejects,
    /// Fetches that may run at once, at least one.
    pub upstream_conns: usize,
    /// Fetches that may wait for their turn.
    pub upstream_queue: usize,
    /// Which spellings of a request are one text, in the line protocol.
    pub fold: KeyFold,
    /// How long a slow reader may delay other fetches.
    pub patience: Duration,
    /// How texts are transformed before they are kept.
    pub pipeline: Option<Pipeline>,
    /// Whether the original is sent, and not kept, when that fails.
    pub original_on_failure: bool,
}

impl ProxySettings {
    /// The longest reply that is kept, in bytes: a text, and its framing if it has one.
    fn longest(&self) -> u64 {
        const FRAMING: u64 = 22; // the digits of the largest length, a colon and a comma

        match self.protocol {
            Protocol::Netstring => self.max_poem.saturating_add(FRAMING),
            Protocol::Poem | Protocol::Line => self.max_poem,
        }
    }
}

/// What tells an upstream's error message, which is text like any other, from an
/// answer.
#[derive(Debug, Default)]
pub struct Rejects {
    /// It matches this.
    pub pattern: Option<Regex>,
    /// It is shorter than this, in bytes.
    pub min_bytes: u64,
}

/// A caching proxy.
pub struct Proxy {
    settings: ProxySettings,
    texts: Coalescer<Key>,
    dispatch: Arc<Dispatch<Fetch>>,
    flights: Arc<FlightList>,
    /// Whether a task ends fetches that wait too long.
    watches_queue: AtomicBool,
    scope: Scope,
    /// The upstreams, for logs.
    name: String,
    /// What is behind the cache, before the upstream.
    tier: Option<Arc<dyn Tier>>,
    observer: Arc<dyn Observer>,
    stats: Arc<Stats>,
}

impl Proxy {
    /// A proxy with an empty cache.
    pub fn new(
        settings: ProxySettings,
        observer: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<Proxy> {
        Proxy::with_tier(settings, None, observer, stats)
    }

    /// Like [`Proxy::new`], with a tier behind the cache.
    pub fn with_tier(
        settings: ProxySettings,
        tier: Option<Arc<dyn Tier>>,
        observer: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<Proxy> {
        let window = settings.longest();
        Arc::new(Proxy {
            texts: Coalescer::weighing(settings.policy, window, Key::heap_bytes)
                .refreshing_ahead(settings.refresh_ahead),
            dispatch: dispatch(&settings),
            flights: Arc::default(),
            watches_queue: AtomicBool::new(false),
            scope: scope(&settings),
            name: settings.upstream.to_string(),
            settings,
            tier,
            observer,
            stats,
        })
    }

    /// What it speaks. Requests may be as long as the transformation service behind it
    /// takes.
    pub fn wire(&self) -> Wire {
        let max_poem = self.settings.max_poem;
        Wire {
            protocol: self.settings.protocol,
            longest_request: max_poem.saturating_add(PREFIX_BYTES_MAX),
        }
    }

    /// Purges all texts.
    pub fn purge_all(&self, how: Purge, now: Instant) -> Purged {
        let purge = || self.texts.purge_all(how, now);
        self.purge_tier(how, purge, || vec![Erase::All])
    }

    /// The whole key of a request. No other request has it, of this proxy or another.
    pub fn whole_key(&self, request: &[u8]) -> Vec<u8> {
        self.scope.whole(&self.scope.key(request))
    }

    /// Purges the text of one request.
    pub fn purge(&self, request: &[u8], how: Purge, now: Instant) -> Purged {
        let key = self.scope.key(request);
        let purge = || self.texts.purge(&key, how, now);
        self.purge_tier(how, purge, || vec![Erase::Key(self.scope.whole(&key))])
    }

    /// Fetches that wait for their turn at this moment.
    pub fn waiting_fetches(&self) -> usize {
        self.dispatch.waiting()
    }

    /// The texts, kept and on their way.
    pub fn texts(&self) -> &Coalescer<Key> {
        &self.texts
    }

    fn count_purge(&self, texts: &Texts<'_>) {
        let counter = match texts {
            Texts::All => &self.stats.purges_of_all,
            Texts::Prefix(_) => &self.stats.purges_of_prefix,
            Texts::Named(_) => &self.stats.purges_of_key,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn spawn_fetch(
        self: &Arc<Self>,
        guard: FlightGuard<Key>,
        request: Bytes,
        cause: FetchCause,
        now: Instant,
    ) {
        let flight = guard.writer().flight();
        let is_refresh = guard.replaces().is_some();
        let listed = self.flights.add(request.clone(), flight, is_refresh, now);
        Fetch::new(self.clone(), guard, request, cause, listed).launch(now);
    }

    /// Lets a fetch wait for its turn before the upstream.
    fn enter(self: &Arc<Self>, fetch: Fetch, now: Instant) {
        let (request, cause) = fetch.asked_for();
        match self.dispatch.enter(fetch, now) {
            Ok(Arrived::Delayed) => self.delayed(&request, cause),
            Ok(Arrived::Started | Arrived::Waits) => {}
            Err(refused) => Fetch::refuse(*refused, now),
        }

        let is_first_to_wait = || !self.watches_queue.swap(true, Ordering::AcqRel);
        if self.dispatch.waiting() > 0 && is_first_to_wait() {
            rt::spawn_home(self.clone().watch_queue());
        }
    }

    /// A fetch waits until its upstream may be asked.
    fn delayed(&self, request: &[u8], cause: FetchCause) {
        self.stats.rate_waits.fetch_add(1, Ordering::Relaxed);
        self.observer.event(Event::FetchDelayed {
            fetch: FetchName {
                upstream: &self.name,
                request,
                cause,
            },
        });
    }

    /// Ends fetches that have waited for their turn as long as a fetch may take. One
    /// task for all of them, while any waits.
    async fn watch_queue(self: Arc<Self>) {
        let limit = self.settings.timeouts.total;
        let _counts_a_panic = PanicCount(self.stats.clone());
        loop {
            let now = Instant::now();
            let (overdue, next) = self.dispatch.take_overdue(limit, now);
            overdue.into_iter().for_each(|fetch| fetch.expire(now));
            if let Some(next) = next {
                // Not at once again: of two instants, the earlier may not have passed.
                let pause = next.saturating_duration_since(now);
                rt::sleep(pause.max(Duration::from_millis(1))).await;
                continue;
            }

            self.watches_queue.store(false, Ordering::Release);
            let is_empty = self.dispatch.waiting() == 0;
            if is_empty || self.watches_queue.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

impl Handler for Proxy {
    fn respond(self: Arc<Self>, request: Request, now: Instant) -> Response {
        let key = self.scope.key(&request.body);
        let (reader, status) = match self.texts.find(&key, now) {
            Found::Hit(reader, freshness) => (reader, CacheStatus::Hit(freshness.fresh_until)),
            Found::Ahead(reader, freshness, guard) => {
                self.spawn_fetch(guard, request.body, FetchCause::Prefetch, now);
                (reader, CacheStatus::Hit(freshness.fresh_until))
            }
            Found::Joined(reader) => (reader, CacheStatus::Coalesced),
            Found::Negative(reader) => (reader, CacheStatus::Negative),
            Found::Stale(reader, guard) => self.answer_stale(reader, guard, key, request.body, now),
            Found::Missed(reader, guard) => {
                self.spawn_fetch(guard, request.body, FetchCause::Miss, now);
                (reader, CacheStatus::Miss)
            }
        };
        Response { reader, status }
    }

    /// Makes all cached texts stale. Clients that wait for a text still get it.
    fn reload(&self, now: Instant) -> Result<Reloaded, Error> {
        self.count_purge(&Texts::All);
        let purged = self.purge_all(Purge::Soft, now);
        Ok(Reloaded::Purged {
            texts: purged.texts,
        })
    }
}

impl Control for Proxy {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        let oldest = self.dispatch.oldest();
        let oldest_wait = oldest.map(|since| now.saturating_duration_since(since));
        let fetches = FetchCounts {
            running: self.dispatch.running() as u64,
            waiting: self.dispatch.waiting() as u64,
            places: self.settings.upstream_conns as u64,
            oldest_wait: oldest_wait.unwrap_or_default(),
            readers: self.texts.readers(),
            ..FetchCounts::of(stats)
        };
        let cache = self.texts.cache();
        let held = cache.usage();
        let cache = CacheCounts {
            keys: cache.len() as u64,
            bytes: cache.held(),
            capacity: self.settings.policy.capacity,
            kept: held.kept,
            in_flight: (fetches.running + fetches.waiting, cache.in_flight()),
            remembered: held.negative,
            evicted_kept: held.evicted_kept,
            evicted_remembered: held.evicted_negative,
        };

        let store = self.tier.as_ref().map(|tier| tier.counts());
        Snapshot {
            store,
            fetches: Some(fetches),
            upstreams: self.settings.upstream.counts(now),
            cache: Some(cache),
            ..Snapshot::of(stats, now)
        }
    }

    fn flights(&self, most: usize, now: Instant) -> Vec<FlightView> {
        self.flights.views(most, &self.settings.upstream, now)
    }

    fn keys(&self, page: &KeyPage<'_>, now: Instant) -> KeyList {
        self.list_keys(page, now)
    }

    fn key(&self, name: &[u8], now: Instant) -> Option<KeyView> {
        self.view_key(name, now)
    }

    fn purge(&self, texts: Texts<'_>, how: Purge, now: Instant) -> u64 {
        self.purge_texts(texts, how, now)
    }

    fn refresh(self: Arc<Self>, name: &[u8], now: Instant) -> Refresh {
        self.refresh_text(name, now)
    }
}

/// The queue before the upstream.
fn dispatch(settings: &ProxySettings) -> Arc<Dispatch<Fetch>> {
    let turns = settings.upstream.limiting_turns();
    let limit = turns.map(|turns| Box::new(SourceLimit(turns)) as Box<dyn StartLimit<Fetch>>);
    Dispatch::limited(settings.upstream_conns, settings.upstream_queue, limit)
}

fn scope(settings: &ProxySettings) -> Scope {
    let mut pipeline = Vec::new();
    if let Some(transforms) = &settings.pipeline {
        pipeline = transforms.id();
        let fallback = if settings.original_on_failure {
            "original"
        } else {
            "fail"
        };
        pipeline.extend(crate::protocol::netstring(fallback.as_bytes()));
    }

    let scope = Scope::new(settings.protocol, &settings.upstream.ids(), &pipeline);
    scope.folded(settings.fold)
}

#[cfg(test)]
mod tests;
