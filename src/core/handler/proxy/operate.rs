//! What an operator sees of a proxy, and does to its texts: lists, purges and
//! refreshes them.

use super::key::Key;
use super::router::Router;
use super::{Ask, Proxy};
use crate::cache::{Known, Purge};
use crate::coalesce::Purged;
use crate::control::{
    CacheCounts, Control, FetchCounts, FlightView, KeyList, KeyPage, KeyState, KeyView, Refresh,
    Snapshot, Texts,
};
use crate::observe::Event;
use crate::observe::FetchCause;
use crate::protocol::{Protocol, check_line};
use crate::stats::Stats;
use crate::tier::{Erase, PurgedElsewhere};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

impl Control for Proxy {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        let router = self.router();
        let fetches = self.fetch_counts(&router, stats, now);
        let sources = router.sources().iter();
        let upstreams = sources.map(|source| source.counts(now)).collect();

        let warm = self.warm.as_ref();
        let store = self.tier.as_ref().map(|tier| tier.counts());
        let store = store.map(|counts| self.fleet.added_to(counts));
        Snapshot {
            store,
            warm: warm.map(|warm| warm.counts(now)),
            cache: Some(self.cache_counts(fetches.running + fetches.waiting)),
            fetches: Some(fetches),
            upstreams,
            ..Snapshot::of(stats, now)
        }
    }

    fn flights(&self, most: usize, now: Instant) -> Vec<FlightView> {
        self.flights.views(most, now)
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

impl Proxy {
    fn fetch_counts(&self, router: &Router, stats: &Stats, now: Instant) -> FetchCounts {
        let mut fetches = FetchCounts {
            readers: self.texts.readers(),
            ..FetchCounts::of(stats)
        };
        for places in router.places() {
            let dispatch = &places.dispatch;
            fetches.running += dispatch.running() as u64;
            fetches.waiting += dispatch.waiting() as u64;
            fetches.places += places.number as u64;
            let oldest = dispatch.oldest();
            let wait = oldest.map(|since| now.saturating_duration_since(since));
            fetches.oldest_wait = fetches.oldest_wait.max(wait.unwrap_or_default());
        }
        fetches
    }

    /// `fetches` run or wait.
    fn cache_counts(&self, fetches: u64) -> CacheCounts {
        let cache = self.texts.cache();
        let held = cache.usage();
        CacheCounts {
            keys: cache.len() as u64,
            bytes: cache.held(),
            capacity: self.settings.capacity,
            kept: held.kept,
            in_flight: (fetches, cache.in_flight()),
            failures: held.negative,
            evicted_kept: held.evicted_kept,
            evicted_failures: held.evicted_negative,
        }
    }

    fn list_keys(&self, page: &KeyPage<'_>, now: Instant) -> KeyList {
        let cache = self.texts.cache();
        let router = self.router();
        let wanted = |key: &Key| is_listed(&router, key, page.prefix);
        let found = cache.page(page.cursor, page.limit, now, wanted);

        let keys = found.keys.into_iter();
        KeyList {
            keys: keys.map(|known| view(&router, &known, now)).collect(),
            next: found.next,
            total: cache.len() as u64,
        }
    }

    /// One key. Of a name that two keys share, that of the request.
    fn view_key(&self, name: &[u8], now: Instant) -> Option<KeyView> {
        let cache = self.texts.cache();
        let keys = self.named(name);
        let known = keys.iter().find_map(|(_, key)| cache.known_of(key, now))?;
        Some(view(&self.router(), &known, now))
    }

    /// The keys that a name stands for, each with its whole key: that of the request
    /// and, where the name is that of a long one's digest, those of the long one as
    /// well. A digest does not say which route the request took, so all are meant.
    fn named(&self, name: &[u8]) -> Vec<(Vec<u8>, Key)> {
        let (router, target) = (self.router(), self.target(name));
        let literal = target.scope.literal(name).into_iter();
        let literal = literal.map(|key| (target.scope.whole(&key), key));
        let long = router.scopes().filter_map(|scope| {
            let key = scope.long(name)?;
            Some((scope.whole(&key), key))
        });
        literal.chain(long).collect()
    }

    /// Purges, counts it, and reports it.
    fn purge_texts(&self, texts: Texts<'_>, how: Purge, now: Instant) -> u64 {
        self.count_purge(&texts);
        match texts {
            Texts::All | Texts::Prefix(_) => self.purge_memo(),
            Texts::Named(name) => {
                let keys = self.named(name);
                keys.iter().for_each(|(_, key)| self.purge_memo_of(key));
            }
        }
        let purge = || match texts {
            Texts::All => self.texts.purge_all(how, now),
            Texts::Prefix(prefix) => {
                let router = self.router();
                let wanted = |key: &Key| is_listed(&router, key, prefix);
                self.texts.purge_where(how, now, wanted)
            }
            Texts::Named(name) => {
                let mut all = Purged::default();
                for (_, key) in &self.named(name) {
                    let purged = self.texts.purge(key, how, now);
                    all.texts += purged.texts;
                    all.fetches += purged.fetches;
                }
                all
            }
        };
        let purged = self.purge_tier(how, purge, || self.erase(texts)).texts;

        if let Some(warm) = &self.warm {
            warm.look_again(now);
        }
        self.observer.event(Event::Purged {
            scope: texts.scope(),
            name: texts.name(),
            how: how.word(),
            texts: purged,
        });
        purged
    }

    /// Purges the memory, and then the tier behind it: see [`Tier`].
    ///
    /// [`Tier`]: crate::tier::Tier
    pub(super) fn purge_tier(
        &self,
        how: Purge,
        memory: impl FnOnce() -> Purged,
        texts: impl FnOnce() -> Vec<Erase>,
    ) -> Purged {
        let Some(tier) = &self.tier else {
            return memory();
        };

        let texts = texts();
        texts.iter().for_each(|_| tier.purge_begins());
        let purged = memory();
        for texts in texts {
            tier.purge(texts, how);
        }
        purged
    }

    /// Purges the memory whenever another process has purged a tier that both use. The
    /// tier is not told: it knows.
    pub(super) fn hear_purges(self: &Arc<Self>) {
        let Some(tier) = &self.tier else {
            return;
        };

        let proxy = Arc::downgrade(self); // it owns the tier
        tier.on_purge(Arc::new(move |texts, how| {
            if let Some(proxy) = proxy.upgrade() {
                proxy.purge_memory(texts, how, Instant::now());
            }
        }));
    }

    fn purge_memory(&self, texts: PurgedElsewhere<'_>, how: Purge, now: Instant) {
        let (scope, name, purged) = match texts {
            PurgedElsewhere::All => {
                self.purge_memo();
                ("all", Vec::new(), self.texts.purge_all(how, now))
            }
            PurgedElsewhere::Key(whole) => {
                let Some(key) = self.router().key_of(whole) else {
                    return; // of a proxy with other upstreams
                };
                let name = key.name().into_owned();
                self.purge_memo_of(&key);
                ("key", name, self.texts.purge(&key, how, now))
            }
        };
        if let Some(warm) = &self.warm {
            warm.look_again(now);
        }
        self.observer.event(Event::Purged {
            scope,
            name: &name,
            how: how.word(),
            texts: purged.texts,
        });
    }

    /// The same texts, by their whole keys.
    fn erase(&self, texts: Texts<'_>) -> Vec<Erase> {
        match texts {
            Texts::All => vec![Erase::All],
            Texts::Prefix(prefix) => {
                let (router, prefix) = (self.router(), prefix.to_vec());
                let picks = move |whole: &[u8]| {
                    let key = router.key_of(whole);
                    key.is_some_and(|key| is_listed(&router, &key, &prefix))
                };
                vec![Erase::Picked(Box::new(picks))]
            }
            Texts::Named(name) => {
                let keys = self.named(name).into_iter();
                keys.map(|(whole, _)| Erase::Key(whole)).collect()
            }
        }
    }

    fn refresh_text(self: &Arc<Self>, name: &[u8], now: Instant) -> Refresh {
        if !self.can_ask_for(name, now) {
            return Refresh::Unknown;
        }

        let target = self.target(name).into_owned();
        match self.texts.refresh(&target.scope.key(name), now) {
            Err(flight) => Refresh::UnderWay(flight.ending()),
            Ok(guard) => {
                let ending = guard.writer().flight().ending();
                let ask = Ask {
                    target,
                    request: Bytes::copy_from_slice(name),
                    client: None,
                    cause: FetchCause::Admin,
                };
                self.spawn_fetch(ask, guard, now);
                Refresh::Started(ending)
            }
        }
    }

    /// Whether the name is a request. One that is also the name of a long request's
    /// digest is taken for that, unless it is cached as a request.
    fn can_ask_for(&self, name: &[u8], now: Instant) -> bool {
        let is_request = match self.settings.protocol {
            Protocol::Poem => name.is_empty(),
            Protocol::Line => check_line(name).is_ok(),
            Protocol::Netstring => name.len() as u64 <= self.wire().longest_request,
        };
        let is_cached = || {
            let key = self.target(name).scope.key(name);
            self.texts.cache().known_of(&key, now).is_some()
        };
        let is_long = self.target(name).scope.long(name).is_some();
        is_request && (!is_long || is_cached())
    }
}

/// Whether the key is of a request whose name begins like this. One that no route has
/// any more is of none.
fn is_listed(router: &Router, key: &Key, prefix: &[u8]) -> bool {
    let target = router.with_key(key);
    target.is_some_and(|target| target.scope.begins_with(key, prefix))
}

fn view(router: &Router, known: &Known<Key>, now: Instant) -> KeyView {
    let target = if known.key.is_digest() {
        router.with_key(&known.key)
    } else {
        Some(router.choose(&known.key.name()))
    };
    let left = |until: Instant| until.saturating_duration_since(now);
    let failed_for = known.failed_until.map(left).unwrap_or_default();
    let mut view = KeyView {
        name: known.key.name().into_owned(),
        route: target.and_then(|of| of.route.as_deref().map(String::from)),
        state: KeyState::Empty,
        is_in_flight: known.is_in_flight,
        bytes: 0,
        age: None,
        fresh_for: Default::default(),
        served_for: failed_for,
    };

    if let Some(value) = &known.value {
        view.fresh_for = left(value.freshness.fresh_until);
        view.served_for = left(value.freshness.stale_until);
        view.bytes = value.bytes;
        // The cache reckons with the usual ttl.
        let ttl = target.map(|target| target.times.ttl);
        let came = ttl.and_then(|ttl| value.freshness.fresh_until.checked_sub(ttl));
        let age = came.map(|came| now.saturating_duration_since(came));
        view.age = age.filter(|_| value.came.is_some());
        view.state = if view.fresh_for.is_zero() {
            KeyState::Stale
        } else {
            KeyState::Fresh
        };
    } else if known.failed_until.is_some() {
        view.state = KeyState::Failed;
    }
    view
}
