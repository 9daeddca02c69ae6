//! A cache that fetches nothing itself. It decides, for each request, whether to serve,
//! to wait or to fetch.
//!
//! ```
//! use poetry::cache::{Cache, Lookup, Plain, Policy};
//! use std::time::{Duration, Instant};
//!
//! let policy = Policy {
//!     ttl: Duration::from_secs(60),
//!     grace: Duration::ZERO,
//!     fail_ttl: Duration::ZERO,
//!     capacity: 1 << 20,
//! };
//! let cache = Cache::<&str, Plain<&str>, u32>::new(policy);
//! let now = Instant::now();
//!
//! // The first request for a key has to fetch; its flight is number 1.
//! let Lookup::Miss(lead) = cache.lookup(&"key", now, || ((), 1)) else { panic!() };
//! // The second joins that flight.
//! assert!(matches!(cache.lookup(&"key", now, || ((), 2)), Lookup::Coalesced(1)));
//! // Once the value is committed, later requests get it.
//! lead.fill.commit("value", 5, policy.freshness(now), now).expect("there is room");
//! assert!(matches!(cache.lookup(&"key", now, || ((), 3)), Lookup::Hit("value", _)));
//! ```
//!
//! [`Cache::lookup`] never waits for a fetch. A hit is decided under its shard's shared
//! lock, all else under the exclusive one:
//!
//! | value | fetch | `lookup` answers | afterwards |
//! |---|---|---|---|
//! | fresh | any | [`Hit`](Lookup::Hit) | the same |
//! | fresh, but due | none | [`Ahead`](Lookup::Ahead) | fresh, in flight |
//! | stale | none | [`Stale`](Lookup::Stale) with a lead | stale, in flight |
//! | stale | in flight, failed, or paused | [`Stale`](Lookup::Stale) without | the same |
//! | none | in flight | [`Coalesced`](Lookup::Coalesced) | the same |
//! | none | a cached failure | [`Negative`](Lookup::Negative) | the same |
//! | none | hit-for-miss | [`Miss`](Lookup::Miss) | the same: no request joins it |
//! | none | none, or paused | [`Miss`](Lookup::Miss) | in flight |
//!
//! A value is due in the last part of its ttl, if [`Cache::refreshing_ahead`] says how
//! large that is, once it was asked for before.
//!
//! A fetch ends in one of these ways:
//!
//! | the holder of the [`Fill`] | the key afterwards |
//! |---|---|
//! | `commit` | fresh; as it was if the value is stale at once or larger than the capacity |
//! | `fail`, `reject` | as it was; for `fail_ttl`, requests join the flight that ended |
//! | `hit_for_miss` | as it was; for `fail_ttl`, each request fetches, until one commits |
//! | `give_up` | as it was |
//! | drops it | as it was |
//! | any of these, after a purge | untouched: the entry is no longer its own |
//!
//! A refresh that ends in `fail`, `reject`, `hit_for_miss` or `give_up` pauses the next
//! one: for 1 s, doubled with each failure in a row up to 30 s, or for `fail_ttl` where
//! that is longer.
//!
//! The cache is generic: it knows no poem, no socket and no runtime, and takes the time
//! as an argument. `V` is a value as it is [`Stored`], `F` the handle by which a fetch
//! in flight is joined, `W` (of `lookup`) whatever the fetching side needs.
//!
//! **Space.** Values, cached failures and fetches each hold a [`Reservation`], which
//! frees its bytes when it is dropped. Nothing is reserved, and nothing new is kept,
//! beyond the capacity; [`Fill::reserve`] has the rules. What a fetch needs to begin
//! (its entry and key), and a value that is still read after its eviction, count
//! whether or not there is room. Cached failures are evicted first, then values in the
//! order they came, except that a value asked for since its last turn is spared once
//! (SIEVE). Fetches are never evicted, nor is the value that a fetch refreshes.
//!
//! [`Cache::renew`] starts a fetch that no request asks for: as a stale hit does, but
//! whatever the key has, except a fetch under way.
//!
//! **Locks.** Keys are spread over shards, each behind a lock of its own. No two locks
//! are ever held at once. A hit takes its shard's lock shared, so hits of one poem
//! don't wait for each other.

mod fill;
mod keys;
mod lead;
mod policy;
mod purge;
mod renew;
mod span;
mod stamp;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod usage;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{RwLock, RwLockWriteGuard, drop_after};
use ahash::RandomState;
pub use fill::{CacheFailure, Fill};
pub use keys::{Known, KnownPage, KnownValue};
use lead::KeyAsked;
pub use lead::Lead;
pub use policy::{Freshness, KeepTimes, Policy};
pub use purge::Purge;
use stamp::Epoch;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;
pub use stored::{Plain, Stored};
use table::{DropLater, FetchState, Table};
pub use table::{ENTRY_WEIGHT, FLIGHT_WEIGHT};
pub use usage::{CacheUsage, Reservation};
use usage::{Kind, Usage};

/// A cache of `V` by `K`, whose fetches under way are joined by an `F`.
pub struct Cache<K, V: Stored, F> {
    policy: Policy,
    /// The last part of each ttl in which a request may start a refresh, from 0 to 1.
    ahead: f64,
    /// Keyed at random, so that a client that chooses keys can't make them collide.
    hasher: RandomState,
    /// The entries. Held for one decision; values are dropped after the lock is
    /// released.
    shards: Box<[RwLock<Table<K, V, F>>]>,
    /// The bytes a key holds on the heap.
    weigh: fn(&K) -> u64,
    usage: Arc<Usage>,
    last_ticket: AtomicU64,
    /// Where the next eviction begins, so that all shards take turns.
    next_shard: AtomicUsize,
}

/// The most shards, and the least capacity for each: a small cache is one shard,
/// evicted in order. The number is a power of two: a division would cost as much as the
/// rest of the choice.
const SHARDS: u64 = 32;
const SHARD_CAPACITY: u64 = 64 << 10;

/// Places of a shard that are looked at or purged under one lock, some 0.1 ms, before
/// the requests have their turn.
const STEP: usize = 4096;

/// The answer of a look-up.
#[derive(Debug)]
pub enum Lookup<K: Eq + Hash + Clone, V: Stored, F: Clone, W> {
    /// A fresh value, and for how long.
    Hit(V::Value, Freshness),
    /// A fresh value whose ttl ends soon, for how long it is fresh, and the right to
    /// refresh it.
    Ahead(V::Value, Freshness, Lead<K, V, F, W>),
    /// A stale value within its grace, and the right to refresh it if no fetch has it.
    Stale(V::Value, Option<Lead<K, V, F, W>>),
    /// A fetch is under way: join its flight.
    Coalesced(F),
    /// A fetch has failed, and that is cached: join its flight.
    Negative(F),
    /// No fetch that can be shared is under way: start one.
    Miss(Lead<K, V, F, W>),
}

const UNPOISONED: &str = "no code panics while it holds the cache's lock";

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Cache<K, V, F> {
    /// An empty cache whose keys own no memory beyond themselves.
    pub fn new(policy: Policy) -> Arc<Self> {
        Cache::weighing(policy, |_| 0)
    }

    /// An empty cache. `weigh` says how many bytes a key holds on the heap.
    pub fn weighing(policy: Policy, weigh: fn(&K) -> u64) -> Arc<Self> {
        let shards = 1u64 << (policy.capacity / SHARD_CAPACITY).clamp(1, SHARDS).ilog2();
        let hasher = RandomState::new();
        let epoch = Epoch(Instant::now()); // whichever time it is
        let table = |_| RwLock::new(Table::new(hasher.clone(), epoch));
        Arc::new(Cache {
            policy,
            ahead: 0.0,
            shards: (0..shards).map(table).collect(),
            hasher,
            weigh,
            usage: Arc::default(),
            last_ticket: AtomicU64::new(0),
            next_shard: AtomicUsize::new(0),
        })
    }

    /// What the cache was made with.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    fn shard(&self, hash: u64) -> &RwLock<Table<K, V, F>> {
        let spread = (hash >> 32) as usize; // the tables use the lowest and highest bits
        &self.shards[spread & (self.shards.len() - 1)]
    }

    fn lock(&self, hash: u64) -> RwLockWriteGuard<'_, Table<K, V, F>> {
        self.shard(hash).write().expect(UNPOISONED)
    }

    /// Decides what a request for this key gets. A hit is found under a shared lock.
    /// `launch` makes the two ends of a flight; it is called, under the lock, only when
    /// this request has to fetch.
    #[inline]
    pub fn lookup<W>(
        self: &Arc<Self>,
        key: &K,
        now: Instant,
        launch: impl FnOnce() -> (W, F),
    ) -> Lookup<K, V, F, W> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash).read().expect(UNPOISONED);
        if let Some(found) = shard.fresh(hash, key, now)
            && !found.is_due
        {
            return Lookup::Hit(found.value, found.freshness);
        }

        drop(shard);
        self.decide(hash, key, now, launch)
    }

    /// The whole decision, under an exclusive lock.
    #[cold]
    fn decide<W>(
        self: &Arc<Self>,
        hash: u64,
        key: &K,
        now: Instant,
        launch: impl FnOnce() -> (W, F),
    ) -> Lookup<K, V, F, W> {
        let asked = KeyAsked { hash, key, now };
        drop_after(self.lock(hash), |table| {
            // A fetch may have ended between the two locks, so everything is looked at
            // again.
            let due = match table.fresh(hash, key, now) {
                Some(found) if !found.is_due => {
                    return (Lookup::Hit(found.value, found.freshness), None);
                }
                found => found,
            };

            let at = table.entry(hash, key);
            let expired = table.take_expired(at, now);
            if let Some(found) = due {
                let lead = self.lead(table, at, expired.failures(), asked, launch);
                let answer = Lookup::Ahead(found.value, found.freshness, lead);
                return (answer, Some(expired));
            }
            let stale = table.stale(at);

            let answer = match (stale, table.at(at).fetch()) {
                (Some(value), Some(_)) => Lookup::Stale(value, None),
                (stale, None) => {
                    let failures = expired.failures();
                    let lead = self.lead(table, at, failures, asked, launch);
                    match stale {
                        Some(value) => Lookup::Stale(value, Some(lead)),
                        None => {
                            let mut lead = lead;
                            lead.fill.outdated = expired.value();
                            Lookup::Miss(lead)
                        }
                    }
                }
                (None, Some(fetch)) => match &fetch.state {
                    FetchState::InFlight(flight) => Lookup::Coalesced(flight.clone()),
                    FetchState::Negative(flight, _) => Lookup::Negative(flight.clone()),
                    FetchState::HitForMiss(_) | FetchState::Paused => {
                        let (writer, flight) = launch();
                        let fill = self.fill(hash, key, fetch.ticket, None);
                        Lookup::Miss(Lead {
                            fill,
                            writer,
                            flight,
                        })
                    }
                },
            };
            (answer, Some(expired))
        })
    }

    /// Evicts until no more than the capacity is held: cached failures, then values.
    /// False where that can't be reached: fetches, and values still read after their
    /// eviction, are not evicted. Where those alone exceed the capacity, eviction only
    /// keeps values and cached failures within it.
    pub(crate) fn shrink(&self) -> bool {
        let usage = &self.usage;
        let capacity = self.policy.capacity;
        let is_hopeless = usage.of(Kind::Flight) > capacity;
        let fits = || {
            let held = if is_hopeless {
                usage.kept()
            } else {
                usage.bounded()
            };
            held <= capacity
        };
        if fits() {
            return !is_hopeless;
        }

        let shards = self.shards.len();
        let begin = self.next_shard.load(Ordering::Relaxed); // others may evict as well
        let mut turns = begin..;
        let mut evict = |kind| {
            let turn = turns.next();
            turn.is_some_and(|turn| self.evict(turn % shards, kind))
        };

        let mut in_vain = 0;
        while !fits() && in_vain < shards && self.usage.of(Kind::Negative) > 0 {
            in_vain = if evict(Kind::Negative) {
                0
            } else {
                in_vain + 1
            };
        }

        // Twice round: all values of a shard may just have been asked for.
        in_vain = 0;
        while !fits() && in_vain < 2 * shards {
            in_vain = if evict(Kind::Value) { 0 } else { in_vain + 1 };
        }

        self.next_shard
            .store(turns.start % shards, Ordering::Relaxed);
        fits() && !is_hopeless
    }

    /// Evicts one thing from this shard.
    fn evict(&self, shard: usize, kind: Kind) -> bool {
        let table = self.shards[shard].write().expect(UNPOISONED);
        drop_after(table, |table| {
            let mut out = DropLater::new();
            let found = match kind {
                Kind::Flight | Kind::Refresh => false,
                Kind::Negative => table.evict_negative(&mut out),
                Kind::Value => table.evict_value(&mut out),
            };
            if found {
                self.usage.evicted(kind);
            }
            (found, out)
        })
    }

    /// The value of a key, of whatever age, without being asked for.
    pub fn peek(&self, key: &K) -> Option<V::Value> {
        let hash = self.hasher.hash_one(key);
        let table = self.shard(hash).read().expect(UNPOISONED);
        let at = table.find(hash, key)?;
        table.at(at).kept().map(|kept| kept.value().clone())
    }

    /// A reservation for what is held beside the cache because of its values. It counts
    /// as theirs, and can't be evicted: [`Cache::shrink`] makes room for it.
    pub(crate) fn reserve_beside(&self) -> Reservation {
        Reservation::new(&self.usage, Kind::Value, 0)
    }

    /// Frees the key of a flight that can't be joined any more.
    pub(crate) fn detach(&self, key: &K, is_it: impl Fn(&F) -> bool) {
        let hash = self.hasher.hash_one(key);
        drop_after(self.lock(hash), |table| {
            let Some(at) = table.find(hash, key) else {
                return ((), None);
            };
            let entry = table.at_mut(at);
            let fetch = entry.take_fetch_if(|fetch| match &fetch.state {
                FetchState::InFlight(flight) => is_it(flight),
                _ => false,
            });
            table.remove_if_void(at);
            ((), fetch)
        });
    }

    /// The number of entries: keys with a value, a cached failure or a fetch.
    pub fn len(&self) -> usize {
        let len = |shard: &RwLock<Table<K, V, F>>| shard.read().expect(UNPOISONED).len();
        self.shards.iter().map(len).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is kept, by its purpose, and what was evicted.
    pub fn usage(&self) -> CacheUsage {
        self.usage.figures()
    }

    /// Bytes held by values, cached failures and fetches.
    pub fn held(&self) -> u64 {
        self.usage.total()
    }

    /// Bytes held by fetches under way, and by values still read after their eviction.
    pub fn in_flight(&self) -> u64 {
        self.usage.of(Kind::Flight) + self.usage.of(Kind::Refresh)
    }
}
