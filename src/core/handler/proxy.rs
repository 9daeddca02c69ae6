//! `proxy`: another server's texts, each fetched at most once at a time, kept for a
//! while, and passed on as they come.
//!
//! | file | question |
//! |---|---|
//! | `proxy/key.rs`, `proxy/fold.rs` | What is one text? |
//! | `proxy/target.rs` | What does a request ask, and on which terms? |
//! | `proxy/routes.rs`, `proxy/router.rs` | Which target has a request? |
//! | [`tier`](crate::tier) | What is behind the cache, before the upstream? |
//! | [`coalesce`](crate::coalesce) | What does a client get, and has it to fetch? |
//! | [`dispatch`](crate::dispatch) | When does a fetch start? |
//! | `proxy/fetch.rs` | How does it go, and how does it end? |
//! | `proxy/stale.rs` | When is a stale text served? |
//! | `proxy/warm.rs` | Which texts are fetched without being asked for? |
//! | `proxy/patience.rs` | How long may slow readers delay others? |
//! | `proxy/memo.rs` | What has been transformed before? |
//! | `proxy/operate.rs` | What does an operator see, and do to its texts? |
//! | `proxy/tally.rs` | What was shared with other processes? |
//! | `proxy/flights.rs` | Which fetches does an operator see? |

mod fetch;
mod flights;
mod fold;
mod key;
mod memo;
mod operate;
mod patience;
mod router;
mod routes;
mod stale;
mod tally;
mod target;
mod ttl;
mod warm;

use crate::addr::ClientNet;
use crate::cache::{KeepTimes, Policy, Purge};
use crate::client::Timeouts;
use crate::coalesce::{Coalescer, FlightGuard, Found, Purged};
use crate::control::Texts;
use crate::dispatch::Arrived;
use crate::error::Error;
use crate::observe::{CacheStatus, Event, FetchCause, FetchName, Observer, Reloaded};
use crate::protocol::Protocol;
use crate::server::{Handler, Request, Response, Wire};
use crate::stats::Stats;
use crate::tier::{Erase, Tier};
use crate::transform::{PREFIX_BYTES_MAX, Pipeline};
use bytes::Bytes;
use fetch::Fetch;
use flights::FlightList;
pub use fold::KeyFold;
pub use key::Key;
use memo::ProxyMemo;
pub use patience::PATIENCE;
use regex::bytes::Regex;
use router::Router;
pub use routes::{BadRoutes, ReadRoutes, RouteSet, RouteSettings, Routing};
pub use stale::ServeStale;
use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tally::FleetTally;
use target::Target;
pub use target::TargetSettings;
pub use ttl::TtlRules;
use warm::Warm;
pub use warm::{BadWarmFile, WarmFile};

/// What a proxy does.
pub struct ProxySettings {
    /// What its clients and its upstream speak.
    pub protocol: Protocol,
    /// What a request asks that no route takes, and how routes are unless they say.
    pub target: TargetSettings,
    /// The routes, in the line protocol.
    pub routing: Option<Routing>,
    /// The deadlines of a fetch.
    pub timeouts: Timeouts,
    /// Whether a fetch closes its sending side once its request is sent.
    pub half_close: bool,
    /// The most that texts, failures and fetches may hold together, in bytes.
    pub capacity: u64,
    /// When a stale text is served.
    pub serve_stale: ServeStale,
    /// The last part of each ttl in which a request starts a refresh, from 0 to 1.
    pub refresh_ahead: f64,
    /// Requests whose texts are kept warm.
    pub warm: Option<WarmFile>,
    /// The longest text that is kept, in bytes. A longer one passes through a window of
    /// this size.
    pub max_poem: u64,
    /// Whether nothing is sent before the text is complete. A longer text is a failure
    /// then.
    pub whole: bool,
    /// Fetches that may wait for their turn before the same sources.
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
    /// What the cache is told. A target's times are told by its fetches.
    fn policy(&self) -> Policy {
        let KeepTimes {
            ttl,
            grace,
            fail_ttl,
        } = self.target.times;
        Policy {
            ttl,
            grace,
            fail_ttl,
            capacity: self.capacity,
        }
    }

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
#[derive(Debug, Clone, Default)]
pub struct Rejects {
    /// It matches this.
    pub pattern: Option<Regex>,
    /// It is shorter than this, in bytes.
    pub min_bytes: u64,
}

const ROUTER_UNPOISONED: &str = "no code panics while it holds the router's lock";

/// A caching proxy.
pub struct Proxy {
    settings: ProxySettings,
    texts: Coalescer<Key>,
    /// What was transformed into what, if anything is.
    memo: Option<ProxyMemo>,
    flights: Arc<FlightList>,
    /// The target of all requests, where there are no routes.
    only: Option<Arc<Target>>,
    /// Held to copy or replace it.
    router: RwLock<Arc<Router>>,
    /// What is kept warm.
    warm: Option<Arc<Warm>>,
    /// What is behind the cache, before the upstream.
    tier: Option<Arc<dyn Tier>>,
    fleet: FleetTally,
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
        mut settings: ProxySettings,
        tier: Option<Arc<dyn Tier>>,
        observer: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<Proxy> {
        let router = Router::new(&mut settings);
        let window = settings.longest();
        let warm = settings.warm.clone();
        let warm = warm.map(|file| Warm::new(file, settings.refresh_ahead, Instant::now()));
        let texts = Coalescer::weighing(settings.policy(), window, Key::heap_bytes);
        let mut texts = texts.refreshing_ahead(settings.refresh_ahead);
        let mut memo = None;
        if settings.pipeline.is_some() {
            texts = texts.holding_outdated();
            memo = Some(ProxyMemo::new(&texts));
        }
        let proxy = Arc::new(Proxy {
            texts,
            memo,
            flights: Arc::default(),
            only: router.only().cloned(),
            router: RwLock::new(Arc::new(router)),
            warm,
            settings,
            tier,
            fleet: FleetTally::default(),
            observer,
            stats,
        });
        proxy.hear_purges();
        if let Some(warm) = &proxy.warm {
            warm::start(&proxy, warm);
        }
        proxy
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
        self.purge_memo();
        let purge = || self.texts.purge_all(how, now);
        self.purge_tier(how, purge, || vec![Erase::All])
    }

    /// The whole key of a request. No other request has it, of this proxy or another.
    pub fn whole_key(&self, request: &[u8]) -> Vec<u8> {
        let scope = &self.target(request).scope;
        scope.whole(&scope.key(request))
    }

    /// Purges the text of one request.
    pub fn purge(&self, request: &[u8], how: Purge, now: Instant) -> Purged {
        let scope = &self.target(request).scope;
        let key = scope.key(request);
        self.purge_memo_of(&key);
        let purge = || self.texts.purge(&key, how, now);
        self.purge_tier(how, purge, || vec![Erase::Key(scope.whole(&key))])
    }

    /// Fetches that wait for their turn at this moment.
    pub fn waiting_fetches(&self) -> usize {
        let router = self.router();
        let waiting = router.places().map(|places| places.dispatch.waiting());
        waiting.sum()
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

    /// What a request asks.
    fn target(&self, request: &[u8]) -> Cow<'_, Arc<Target>> {
        if let Some(only) = &self.only {
            return Cow::Borrowed(only);
        }
        let folded = self.settings.fold.whole(request);
        let router = self.router.read().expect(ROUTER_UNPOISONED);
        Cow::Owned(router.choose(&folded).clone())
    }

    /// The targets of all requests.
    fn router(&self) -> Arc<Router> {
        self.router.read().expect(ROUTER_UNPOISONED).clone()
    }

    /// Uses these routes from now on. Texts stay where the sources and what is sent to
    /// them have not changed; others are purged.
    pub fn replace_routes(&self, set: RouteSet, now: Instant) -> Reloaded {
        let routes = set.routes().len();
        if let Some(routing) = &self.settings.routing {
            let before = self.router();
            let next = Router::of_routes(set, routing, &self.settings, Some(&before));
            *self.router.write().expect(ROUTER_UNPOISONED) = Arc::new(next);
        }

        let router = self.router();
        let is_gone = |key: &Key| router.with_key(key).is_none();
        let purged = self.texts.purge_where(Purge::Hard, now, is_gone);
        Reloaded::Routes {
            routes,
            texts: purged.texts,
        }
    }

    fn spawn_fetch(self: &Arc<Self>, ask: Ask, guard: FlightGuard<Key>, now: Instant) {
        self.list_fetch(ask, guard, now).launch(now);
    }

    /// A new fetch, which operators see from now on.
    fn list_fetch(self: &Arc<Self>, ask: Ask, guard: FlightGuard<Key>, now: Instant) -> Fetch {
        let flight = guard.writer().flight();
        let is_refresh = guard.replaces().is_some();
        let request = ask.request.clone();
        let listed = self.flights.add(request, flight, is_refresh, now);
        Fetch::new(self.clone(), ask, guard, listed)
    }

    /// Lets a fetch wait for its turn before its sources.
    fn enter(self: &Arc<Self>, fetch: Fetch, now: Instant) {
        let ask = fetch.ask().clone();
        let places = &ask.target.places;
        match places.dispatch.enter(fetch, now) {
            Ok(Arrived::Delayed) => self.delayed(&ask),
            Ok(Arrived::Started | Arrived::Waits) => {}
            Err(refused) => Fetch::refuse(*refused, now),
        }
        places.watch(self.settings.timeouts.total, &self.stats);
    }

    /// A fetch waits until its sources may be asked.
    fn delayed(&self, ask: &Ask) {
        self.stats.rate_waits.fetch_add(1, Ordering::Relaxed);
        self.observer.event(Event::FetchDelayed {
            fetch: FetchName {
                upstream: &ask.target.name,
                request: &ask.request,
                cause: ask.cause,
                route: ask.target.route.as_deref(),
            },
        });
    }
}

/// What is asked for, of which target, and what for.
#[derive(Clone)]
struct Ask {
    target: Arc<Target>,
    request: Bytes,
    /// The client that has asked for it first, if it has an address.
    client: Option<ClientNet>,
    cause: FetchCause,
}

impl Handler for Proxy {
    fn respond(self: Arc<Self>, request: Request, now: Instant) -> Response {
        let target = self.target(&request.body);
        let key = target.scope.key(&request.body);
        let client = request.from.map(ClientNet::of);
        let ask = |request, cause| Ask {
            target: Arc::clone(&target),
            request,
            client,
            cause,
        };

        let (reader, status) = match self.texts.find(&key, now) {
            Found::Hit(reader, freshness) => (reader, CacheStatus::Hit(freshness.fresh_until)),
            Found::Ahead(reader, freshness, guard) => {
                self.spawn_fetch(ask(request.body, FetchCause::Prefetch), guard, now);
                (reader, CacheStatus::Hit(freshness.fresh_until))
            }
            Found::Joined(reader) => (reader, CacheStatus::Coalesced),
            Found::Negative(reader) => (reader, CacheStatus::Negative),
            Found::Stale(reader, guard) => {
                let ask = ask(request.body, FetchCause::Stale);
                self.answer_stale(reader, guard, key, ask, now)
            }
            Found::Missed(reader, guard) => {
                self.spawn_fetch(ask(request.body, FetchCause::Miss), guard, now);
                (reader, CacheStatus::Miss)
            }
        };
        Response {
            reader,
            status,
            route: target.route.clone(),
        }
    }

    /// Reads the routes again, if they were read from a file; else makes all cached
    /// texts stale. Clients that wait for a text still get it. What is kept warm is
    /// fetched again.
    fn reload(&self, now: Instant) -> Result<Reloaded, Error> {
        let warm = self.warm.as_ref();
        let file = warm.map(|warm| warm.read_again()).transpose()?;
        let routing = self.settings.routing.as_ref();
        let routes = routing.and_then(|routing| routing.read.as_ref());
        let reloaded = if let Some(read) = routes {
            self.replace_routes(read()?, now)
        } else {
            self.count_purge(&Texts::All);
            let purged = self.purge_all(Purge::Soft, now);
            Reloaded::Purged {
                texts: purged.texts,
            }
        };

        if let (Some(warm), Some(file)) = (warm, file) {
            warm.replace(file, now); // after the purge: what is fresh is not fetched
        }
        Ok(reloaded)
    }
}

#[cfg(test)]
mod tests;
