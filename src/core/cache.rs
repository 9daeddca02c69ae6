//! A cache that fetches nothing itself: it says, in one decision, who has the value, who waits and who must fetch.
//!
//! [`Cache::lookup`] never waits and answers under one lock with one of four words:
//!
//! | what is kept | what flies | `lookup` answers | after |
//! |---|---|---|---|
//! | fresh | anything | [`Hit`](Lookup::Hit) | the same |
//! | stale, within grace | nothing | [`Stale`](Lookup::Stale) with a lead | stale + in flight |
//! | stale, within grace | a refresh, or something still remembered | [`Stale`](Lookup::Stale) without | the same |
//! | nothing | a fetch, or a failure still remembered | [`Coalesced`](Lookup::Coalesced) | the same |
//! | nothing | a value still remembered as too long to share | [`Miss`](Lookup::Miss) | the same: nobody joins it |
//! | nothing | nothing | [`Miss`](Lookup::Miss) | in flight |
//!
//! and a flight ends in one of these ways:
//!
//! | the holder of the [`Fill`] | the key afterwards |
//! |---|---|
//! | `commit` | fresh, counted from now; what it was, with a ttl and grace of zero or over the capacity |
//! | `fail`, `reject` | what it was, and for `fail_ttl` the flight that ended is what newcomers join |
//! | `hit_for_miss` | what it was, and for `fail_ttl` everyone fetches alone; the first of them to commit ends that |
//! | drops it | what it was |
//! | any of these, after a purge | untouched: the entry in the table is no longer its own |
//!
//! The cache is generic: it knows no poem, no socket and no runtime, and takes the time as an argument. `V` is what is
//! kept, `F` the handle by which a fetch in flight is joined, `W` (of `lookup`) whatever the one who fetches needs.
//!
//! **Space.** What is kept, remembered and reserved for flights has its [`Reservation`], which gives its bytes back when it is
//! dropped. Nothing is reserved, and nothing new is kept, beyond the capacity; what a flight needs to begin (its entry
//! and key), and what is still read although it was let go of, counts whether or not there is room. Memories go first,
//! then values in the order they came, but one that was asked for since its last turn is spared once (the SIEVE policy).
//! Flights never go.
//!
//! **Locks.** Keys are spread over shards, each behind a lock of its own; no two are ever held at once. A hit takes its
//! shard's lock shared, so that hits of one poem don't wait for each other.

mod table;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{RwLock, RwLockWriteGuard};
use ahash::RandomState;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};
pub use table::Reservation;
use table::{
    DropLater, ENTRY_WEIGHT, FetchState, Flying, Kept, Kind, NegativeEntry, RetireOnDrop, Table,
    Usage,
};

/// How long things are kept, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a value is fresh, counted from the end of its fetch.
    pub ttl: Duration,
    /// How long after that it may still be served while it is refreshed.
    pub grace: Duration,
    /// How long a failure is remembered.
    pub fail_ttl: Duration,
    /// The most that may be held, kept and in flight together, in bytes.
    pub capacity: u64,
}

/// A cache of `V` by `K`, whose fetches under way are joined by an `F`.
pub struct Cache<K, V, F> {
    policy: Policy,
    /// Keyed at random, so that nobody who chooses keys can make them collide.
    hasher: RandomState,
    /// The entries. Held for one decision at a time; values are dropped after it is released.
    shards: Box<[RwLock<Table<K, V, F>>]>,
    /// The bytes a key holds.
    weigh: fn(&K) -> u64,
    usage: Arc<Usage>,
    last_ticket: AtomicU64,
    /// Where the next eviction begins, so that no shard bears them all.
    next_shard: AtomicUsize,
}

/// At most so many shards, and none for less capacity than this: a small cache is evicted in order. Their number is a
/// power of two: a division would cost as much as the rest of choosing one.
const SHARDS: u64 = 32;
const SHARD_CAPACITY: u64 = 64 << 10;

/// The answer of a look-up.
#[derive(Debug)]
pub enum Lookup<K: Eq + Hash + Clone, V: Clone, F: Clone, W> {
    /// A fresh value, and until when it is.
    Hit(V, Instant),
    /// A value past its ttl but within grace, and the duty to refresh it where nobody has it yet.
    Stale(V, Option<Lead<K, V, F, W>>),
    /// Somebody is fetching it: join the flight.
    Coalesced(F),
    /// Nobody is, or not for others: fetch it.
    Miss(Lead<K, V, F, W>),
}

/// What the one who has to fetch gets.
#[derive(Debug)]
pub struct Lead<K: Eq + Hash + Clone, V: Clone, F: Clone, W> {
    /// The right to fill the cache's entry.
    pub fill: Fill<K, V, F>,
    /// What `launch` made to write the flight with.
    pub writer: W,
    /// The flight that everybody else joins.
    pub flight: F,
}

/// The right to fill one entry, and the room for what is to come. Dropping it leaves the key as it was.
///
/// Drop or consume it before the flight's readers learn of the end, so that whoever asks again afresh finds the key
/// free. What consumes it without keeping the value hands the room back: the flight's readers still hold the bytes.
pub struct Fill<K: Eq + Hash + Clone, V: Clone, F: Clone> {
    cache: Arc<Cache<K, V, F>>,
    key: K,
    hash: u64,
    ticket: u64,
    /// What the entry costs beside its value.
    entry_weight: u64,
    reservation: Reservation,
}

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> Cache<K, V, F> {
    /// An empty cache whose keys hold nothing beside themselves.
    pub fn new(policy: Policy) -> Arc<Self> {
        Cache::weighing(policy, |_| 0)
    }

    /// An empty cache, told how many bytes a key holds.
    pub fn weighing(policy: Policy, weigh: fn(&K) -> u64) -> Arc<Self> {
        let shards = 1u64 << (policy.capacity / SHARD_CAPACITY).clamp(1, SHARDS).ilog2();
        Arc::new(Cache {
            policy,
            hasher: RandomState::new(),
            shards: (0..shards).map(|_| RwLock::new(Table::new())).collect(),
            weigh,
            usage: Arc::default(),
            last_ticket: AtomicU64::new(0),
            next_shard: AtomicUsize::new(0),
        })
    }

    fn shard(&self, hash: u64) -> &RwLock<Table<K, V, F>> {
        let spread = (hash >> 32) as usize; // the table below uses the lowest and the highest bits
        &self.shards[spread & (self.shards.len() - 1)]
    }

    fn lock(&self, hash: u64) -> RwLockWriteGuard<'_, Table<K, V, F>> {
        self.shard(hash).write().expect(UNPOISONED)
    }

    /// Who has the value of this key now, waits for it, or must fetch it. A hit is told under a shared lock. Calls
    /// `launch`, under the lock, only when the caller is the one to fetch: it makes the flight's two ends.
    #[inline]
    pub fn lookup<W>(
        self: &Arc<Self>,
        key: &K,
        now: Instant,
        launch: impl FnOnce() -> (W, F),
    ) -> Lookup<K, V, F, W> {
        let hash = self.hasher.hash_one(key);
        if let Some((value, until)) = self
            .shard(hash)
            .read()
            .expect(UNPOISONED)
            .fresh(hash, key, now)
        {
            return Lookup::Hit(value, until);
        }
        self.decide(hash, key, now, launch)
    }

    /// The whole decision, under a lock that nobody shares.
    #[cold]
    fn decide<W>(
        self: &Arc<Self>,
        hash: u64,
        key: &K,
        now: Instant,
        launch: impl FnOnce() -> (W, F),
    ) -> Lookup<K, V, F, W> {
        let _ended; // declared before the guard, so dropped after it
        let mut table = self.lock(hash);
        // Between the two locks a fetch may have ended, so everything is looked at anew.
        if let Some((value, until)) = table.fresh(hash, key, now) {
            return Lookup::Hit(value, until);
        }
        let entry = table.entry(hash, key);
        _ended = entry.take_expired(now);
        let kept = entry.kept.as_ref().map(|kept| {
            kept.ask();
            kept.value.clone()
        });
        match (kept, entry.flying.as_deref()) {
            (Some(value), Some(_)) => Lookup::Stale(value, None),
            (
                None,
                Some(Flying {
                    state: FetchState::InFlight(flight) | FetchState::Negative(flight, _),
                    ..
                }),
            ) => Lookup::Coalesced(flight.clone()),
            (
                None,
                Some(Flying {
                    state: FetchState::HitForMiss(_),
                    ticket,
                }),
            ) => {
                let (writer, flight) = launch();
                Lookup::Miss(Lead {
                    fill: self.fill(hash, key, *ticket),
                    writer,
                    flight,
                })
            }
            (value, None) => {
                let (writer, flight) = launch();
                let ticket = self.ticket();
                entry.flying = Some(Box::new(Flying {
                    ticket,
                    state: FetchState::InFlight(flight.clone()),
                }));
                let lead = Lead {
                    fill: self.fill(hash, key, ticket),
                    writer,
                    flight,
                };
                match value {
                    Some(value) => Lookup::Stale(value, Some(lead)),
                    None => Lookup::Miss(lead),
                }
            }
        }
    }

    fn fill(self: &Arc<Self>, hash: u64, key: &K, ticket: u64) -> Fill<K, V, F> {
        let entry_weight = ENTRY_WEIGHT + (self.weigh)(key);
        let reservation = Reservation::new(&self.usage, Kind::Flight, entry_weight);
        Fill {
            cache: self.clone(),
            key: key.clone(),
            hash,
            ticket,
            entry_weight,
            reservation,
        }
    }

    fn ticket(&self) -> u64 {
        self.last_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets things go until no more than the capacity is held: memories, and then values. False where that can't be
    /// done: what is in flight, or is still read after it was let go, never makes way.
    fn shrink(&self) -> bool {
        let shards = self.shards.len();
        let fits = || self.held() <= self.policy.capacity;
        if fits() {
            return true;
        }
        let begin = self.next_shard.load(Ordering::Relaxed); // its own way round: others may be at it as well
        let mut turns = begin..;
        let mut evict = |what| {
            turns
                .next()
                .is_some_and(|turn| self.evict(turn % shards, what))
        };
        let mut in_vain = 0;
        while !fits() && in_vain < shards && self.usage.negative.load(Ordering::Relaxed) > 0 {
            in_vain = if evict(Kind::NegativeEntry) {
                0
            } else {
                in_vain + 1
            };
        }
        in_vain = 0;
        // Twice round: the first time, all that a shard has may just have been asked for.
        while !fits() && in_vain < 2 * shards {
            in_vain = if evict(Kind::Value) { 0 } else { in_vain + 1 };
        }
        self.next_shard
            .store(turns.start % shards, Ordering::Relaxed);
        fits()
    }

    /// Lets one thing go from this shard; it is dropped once no lock is held.
    fn evict(&self, shard: usize, what: Kind) -> bool {
        let mut gone = DropLater::new();
        let mut table = self.shards[shard].write().expect(UNPOISONED);
        match what {
            Kind::Flight => false,
            Kind::NegativeEntry => table.evict_negative(&mut gone),
            Kind::Value => table.evict_value(&mut gone),
        }
    }

    /// Forgets everything, at once: what is kept, and every flight. Those who read a flight along still get its
    /// poem, but it is not kept, and the next look-up starts another.
    pub fn purge(&self) {
        for shard in &self.shards {
            let table = std::mem::replace(&mut *shard.write().expect(UNPOISONED), Table::new());
            drop(table); // the guard is gone by now
        }
    }

    /// How many entries there are, kept, remembered or in flight.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.read().expect(UNPOISONED).len())
            .sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes kept, remembered and reserved, as the capacity counts them.
    pub fn held(&self) -> u64 {
        self.usage.held()
    }
}

const UNPOISONED: &str = "no code panics while it holds the cache's lock";

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> Fill<K, V, F> {
    /// The value that a commit would replace.
    pub fn replaces(&self) -> Option<V> {
        let mut table = self.cache.lock(self.hash);
        let entry = table.find(self.hash, &self.key)?;
        entry
            .kept
            .as_ref()
            .filter(|_| entry.is_filled_by(self.ticket))
            .map(|kept| kept.value.clone())
    }

    /// Counts `total` bytes in flight against the capacity, letting other things go for them. False, and they are not
    /// counted, where flights would burst it, or what was let go of is still read.
    pub fn reserve(&mut self, total: u64) -> bool {
        let before = self.reservation.bytes();
        self.reservation.set(self.entry_weight + total);
        let in_flight = self.cache.usage.in_flight.load(Ordering::Relaxed);
        let fits = in_flight <= self.cache.policy.capacity && self.cache.shrink();
        if !fits {
            self.reservation.set(before);
        }
        fits
    }

    /// Keeps the value, of this many bytes, from now on.
    ///
    /// # Errors
    /// The room, where the value is not kept: after a purge, when ttl and grace are zero, or when it is larger than
    /// the capacity.
    pub fn commit(self, value: V, bytes: u64, now: Instant) -> Result<(), Reservation> {
        self.commit_with(|_| value, bytes, now)
    }

    /// The same, for a value that holds on to its room: then it is counted as long as anybody has a copy of it, also
    /// after it was evicted.
    ///
    /// # Errors
    /// Those of [`Fill::commit`].
    pub fn commit_with(
        mut self,
        value: impl FnOnce(Arc<Reservation>) -> V,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Reservation> {
        let mut gone = DropLater::new();
        let cache = self.cache.clone();
        let policy = cache.policy;
        let fresh_until = now + policy.ttl;
        let stale_until = fresh_until + policy.grace;
        let weight = bytes + self.entry_weight;
        let mut table = cache.lock(self.hash);
        let ticket = self.ticket;
        let Some(entry) = table
            .find(self.hash, &self.key)
            .filter(|entry| entry.is_filled_by(ticket))
        else {
            drop(table);
            return Err(self.take_reservation());
        };
        gone.flights
            .extend(entry.flying.take().and_then(|flying| flying.into_flight()));
        if stale_until <= now || weight > policy.capacity {
            table.clear_if_void(self.hash, &self.key);
            drop(table);
            return Err(self.take_reservation());
        }
        gone.values.extend(entry.kept.take().map(|old| old.value));
        let mut reservation = self.take_reservation().becomes(Kind::Value);
        reservation.set(weight);
        let reservation = Arc::new(reservation);
        let (value, ticket, asked_for) = (value(reservation.clone()), cache.ticket(), false.into());
        entry.kept = Some(Kept {
            value,
            fresh_until,
            stale_until,
            ticket,
            _reservation: RetireOnDrop(reservation),
            asked_for,
        });
        table.queue(self.hash, ticket);
        drop(table);
        drop(gone); // what it replaces makes way first
        cache.shrink();
        Ok(())
    }

    /// Remembers the failure for the policy's `fail_ttl`; the key is otherwise what it was.
    pub fn fail(mut self, now: Instant) -> Reservation {
        self.mark(now, self.negative(), FetchState::Negative);
        self.take_reservation()
    }

    /// The value came whole but is not good enough to be kept: for the policy's `fail_ttl` newcomers still get it from
    /// its flight. Hands out the room, which is counted for as long as it is remembered or read.
    pub fn reject(mut self, now: Instant) -> Arc<Reservation> {
        let reservation = Arc::new(self.take_reservation().becomes(Kind::NegativeEntry));
        self.mark(now, RetireOnDrop(reservation.clone()), FetchState::Negative);
        reservation
    }

    /// The value is too long to be shared: for the policy's `fail_ttl` everyone who asks fetches alone.
    pub fn hit_for_miss(mut self, now: Instant) -> Reservation {
        self.mark(now, self.negative(), |_, negative| {
            FetchState::HitForMiss(negative)
        });
        self.take_reservation()
    }

    fn negative(&self) -> RetireOnDrop {
        RetireOnDrop(
            Reservation::new(&self.cache.usage, Kind::NegativeEntry, self.entry_weight).into(),
        )
    }

    /// Makes a memory of the flight, if it is its own still and failures are remembered.
    fn mark(
        &self,
        now: Instant,
        reservation: RetireOnDrop,
        as_what: impl FnOnce(F, NegativeEntry) -> FetchState<F>,
    ) {
        let fail_ttl = self.cache.policy.fail_ttl;
        if fail_ttl.is_zero() {
            return; // dropping the fill is all there is to do
        }
        let until = now + fail_ttl;
        let mut gone = DropLater::new(); // dropped after the lock is released
        let mut table = self.cache.lock(self.hash);
        table.forget(now, &mut gone);
        let entry = table
            .find(self.hash, &self.key)
            .filter(|entry| entry.is_filled_by(self.ticket));
        let Some(flying) = entry.and_then(|entry| entry.flying.as_mut()) else {
            return;
        };
        let negative = NegativeEntry {
            until,
            _reservation: reservation,
        };
        match &flying.state {
            FetchState::InFlight(flight) => flying.state = as_what(flight.clone(), negative),
            // One of those who fetch alone: how it went for him is not remembered for all.
            FetchState::Negative(..) | FetchState::HitForMiss(_) => return,
        }
        table.remember(self.hash, self.ticket, until);
        drop(table);
        drop(gone);
        self.cache.shrink();
    }

    /// Leaves the key as it was, and hands out the room: the value is passed through and can't be kept any more.
    pub fn give_up(mut self) -> Reservation {
        self.take_reservation()
    }

    fn take_reservation(&mut self) -> Reservation {
        std::mem::replace(
            &mut self.reservation,
            Reservation::new(&self.cache.usage, Kind::Flight, 0),
        )
    }
}

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> Drop for Fill<K, V, F> {
    fn drop(&mut self) {
        let _flight; // dropped after the lock is released
        let mut table = self.cache.lock(self.hash);
        let Some(entry) = table.find(self.hash, &self.key) else {
            return;
        };
        _flight = entry
            .flying
            .take_if(|flying| flying.ticket == self.ticket && flying.is_in_flight());
        table.clear_if_void(self.hash, &self.key);
    }
}

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> std::fmt::Debug for Fill<K, V, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fill(ticket {})", self.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Poems = Arc<Cache<&'static str, &'static str, u32>>;
    type Response = Lookup<&'static str, &'static str, u32, ()>;

    const HOUR: Duration = Duration::from_secs(3600);
    const POLICY: Policy = Policy {
        ttl: HOUR,
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
        capacity: 1 << 20,
    };

    fn ask(cache: &Poems, flight: u32, now: Instant) -> Response {
        cache.lookup(&"key", now, || ((), flight))
    }

    fn lead(answer: Response) -> Fill<&'static str, &'static str, u32> {
        match answer {
            Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) => lead.fill,
            other => panic!("no lead in {other:?}"),
        }
    }

    #[test]
    fn one_leads_and_the_others_join_until_the_poem_is_kept() {
        let (cache, now) = (Cache::new(POLICY), Instant::now());
        let fill = lead(ask(&cache, 1, now));
        assert!(matches!(ask(&cache, 2, now), Lookup::Coalesced(1)));
        assert!(fill.commit("poem", 4, now + HOUR).is_ok());
        assert!(matches!(
            ask(&cache, 3, now + HOUR * 2 - Duration::from_nanos(1)),
            Lookup::Hit("poem", _)
        ));
        assert!(
            matches!(ask(&cache, 4, now + HOUR * 2), Lookup::Miss(_)),
            "the ttl counts from the fetch's end"
        );
    }

    #[test]
    fn a_dropped_fill_leaves_the_key_empty() {
        let (cache, now) = (Cache::new(POLICY), Instant::now());
        drop(ask(&cache, 1, now));
        assert!(cache.is_empty());
        assert!(matches!(ask(&cache, 2, now), Lookup::Miss(_)));
    }

    #[test]
    fn a_purge_during_a_flight_wins_over_its_end_and_spares_the_newer_one() {
        let (cache, now) = (Cache::new(POLICY), Instant::now());
        let old = lead(ask(&cache, 1, now));
        cache.purge();
        let new = lead(ask(&cache, 2, now));
        assert!(old.commit("old", 3, now).is_err());
        assert!(matches!(ask(&cache, 3, now), Lookup::Coalesced(2)));
        assert!(new.commit("new", 3, now).is_ok());
        assert!(matches!(ask(&cache, 4, now), Lookup::Hit("new", _)));
    }

    #[test]
    fn a_ttl_of_zero_keeps_nothing_and_still_coalesces() {
        let (cache, now) = (
            Cache::new(Policy {
                ttl: Duration::ZERO,
                ..POLICY
            }),
            Instant::now(),
        );
        let fill = lead(ask(&cache, 1, now));
        assert!(matches!(ask(&cache, 2, now), Lookup::Coalesced(1)));
        assert!(fill.commit("poem", 4, now).is_err());
        assert!(cache.is_empty());
        assert_eq!(cache.held(), 0);
    }

    #[test]
    fn a_stale_value_is_served_while_one_refreshes_it_and_never_beyond_grace() {
        let (cache, now) = (
            Cache::new(Policy {
                grace: HOUR,
                ..POLICY
            }),
            Instant::now(),
        );
        lead(ask(&cache, 1, now)).commit("old", 3, now).unwrap();
        let refresh = lead(ask(&cache, 2, now + HOUR));
        assert_eq!(refresh.replaces(), Some("old"));
        assert!(matches!(
            ask(&cache, 3, now + HOUR),
            Lookup::Stale("old", None)
        ));
        assert!(
            matches!(ask(&cache, 4, now + HOUR * 2), Lookup::Coalesced(2)),
            "a hung refresh pins nothing"
        );
        drop(refresh);
        assert!(matches!(ask(&cache, 5, now + HOUR * 2), Lookup::Miss(_)));
        assert_eq!(cache.held(), 0);
    }

    #[test]
    fn what_is_too_large_to_be_kept_replaces_nothing() {
        let (cache, now) = (
            Cache::new(Policy {
                grace: HOUR,
                capacity: 2000,
                ..POLICY
            }),
            Instant::now(),
        );
        lead(ask(&cache, 1, now)).commit("old", 3, now).unwrap();
        assert!(
            lead(ask(&cache, 2, now + HOUR))
                .commit("huge", 5000, now + HOUR)
                .is_err()
        );
        assert!(matches!(
            ask(&cache, 3, now + HOUR),
            Lookup::Stale("old", Some(_))
        ));
    }

    #[test]
    fn a_failure_is_remembered_for_its_time() {
        let (cache, now) = (
            Cache::new(Policy {
                fail_ttl: HOUR,
                ..POLICY
            }),
            Instant::now(),
        );
        drop(lead(ask(&cache, 1, now)).fail(now));
        assert!(matches!(
            ask(&cache, 2, now + HOUR / 2),
            Lookup::Coalesced(1)
        ));
        assert!(matches!(ask(&cache, 3, now + HOUR), Lookup::Miss(_)));
    }

    #[test]
    fn failures_that_nobody_asks_for_again_are_forgotten_in_time() {
        let policy = Policy {
            fail_ttl: HOUR,
            capacity: SHARD_CAPACITY,
            ..POLICY
        };
        let (cache, mut now) = (Cache::<u32, &str, u32>::new(policy), Instant::now());
        for key in 0..100 {
            let Lookup::Miss(lead) = cache.lookup(&key, now, || ((), 0)) else {
                panic!("{key} was never asked for")
            };
            drop(lead.fill.fail(now));
            now += HOUR / 4;
        }
        assert_eq!(cache.len(), 4);
    }

    #[test]
    fn what_is_held_stays_within_the_capacity_and_what_is_asked_for_stays_longest() {
        let policy = Policy {
            capacity: 3 * (1000 + ENTRY_WEIGHT),
            ..POLICY
        };
        let (cache, now) = (Cache::<_, _, u32>::new(policy), Instant::now());
        let ask = |key: u32| cache.lookup(&key, now, || ((), 0));
        for key in 0..10 {
            let Lookup::Miss(lead) = ask(key) else {
                panic!("{key} was never asked for")
            };
            assert!(lead.fill.commit(key, 1000, now).is_ok());
            assert!(cache.held() <= policy.capacity);
            assert!(
                matches!(ask(0), Lookup::Hit(0, _)),
                "0 is asked for all the time"
            );
        }
        assert_eq!(cache.len(), 3);
        let Lookup::Miss(mut lead) = ask(100) else {
            panic!("100 was never asked for")
        };
        assert!(
            !lead.fill.reserve(policy.capacity - ENTRY_WEIGHT + 1),
            "the entry counts as well"
        );
        assert_eq!(cache.len(), 4, "what can't fit lets nothing go");
        assert!(lead.fill.reserve(policy.capacity - ENTRY_WEIGHT));
        assert_eq!(cache.len(), 1);
        drop(lead);
        assert_eq!((cache.held(), cache.len()), (0, 0));
    }

    #[test]
    fn a_value_that_was_evicted_is_counted_until_the_last_who_reads_it_lets_go() {
        let policy = Policy {
            capacity: 2 * (1000 + ENTRY_WEIGHT),
            ..POLICY
        };
        let (cache, now) = (
            Cache::<u32, Arc<Reservation>, u32>::new(policy),
            Instant::now(),
        );
        let ask = |key: u32| cache.lookup(&key, now, || ((), 0));
        let fetch = |key: u32| match ask(key) {
            Lookup::Miss(lead) => lead.fill,
            other => panic!("{other:?}"),
        };
        let read = |key: u32| match (
            fetch(key).commit_with(|reservation| reservation, 1000, now),
            ask(key),
        ) {
            (Ok(()), Lookup::Hit(reservation, _)) => reservation,
            other => panic!("{other:?}"),
        };
        let read = [read(0), read(1)];
        let mut third = fetch(2);
        assert!(!third.reserve(1000), "what is evicted for it is still read");
        assert_eq!(
            (cache.len(), cache.held()),
            (1, policy.capacity + ENTRY_WEIGHT)
        );
        drop(read);
        assert!(third.reserve(1000));
        assert!(
            third
                .commit_with(|reservation| reservation, 1000, now)
                .is_ok()
        );
        assert_eq!((cache.len(), cache.held()), (1, 1000 + ENTRY_WEIGHT));
    }

    #[test]
    fn a_value_too_long_to_share_is_fetched_alone_by_everyone_until_it_is_short_again() {
        let (cache, now) = (
            Cache::new(Policy {
                fail_ttl: HOUR,
                ..POLICY
            }),
            Instant::now(),
        );
        drop(lead(ask(&cache, 1, now)).hit_for_miss(now));
        let (a, b, c) = (
            lead(ask(&cache, 2, now)),
            lead(ask(&cache, 3, now)),
            lead(ask(&cache, 4, now)),
        );
        drop(a);
        drop(b.fail(now));
        assert!(
            matches!(ask(&cache, 5, now), Lookup::Miss(_)),
            "how one of them ends is no negative for all"
        );
        assert!(c.commit("short", 5, now).is_ok());
        assert!(matches!(ask(&cache, 6, now), Lookup::Hit("short", _)));
        cache.purge();
        drop(lead(ask(&cache, 7, now)).hit_for_miss(now));
        let _aloft = lead(ask(&cache, 8, now + HOUR)); // and it is forgotten in time
        assert!(matches!(ask(&cache, 9, now + HOUR), Lookup::Coalesced(8)));
    }

    #[test]
    fn a_rejected_value_is_never_kept_and_for_its_time_comes_from_its_flight() {
        let (cache, now) = (
            Cache::new(Policy {
                fail_ttl: HOUR,
                ..POLICY
            }),
            Instant::now(),
        );
        let mut fill = lead(ask(&cache, 1, now));
        assert!(fill.reserve(1000));
        drop(fill.reject(now));
        assert!(matches!(ask(&cache, 2, now), Lookup::Coalesced(1)));
        assert_eq!(
            cache.held(),
            1000 + ENTRY_WEIGHT,
            "it is counted as long as it is negative"
        );
        let _again = lead(ask(&cache, 3, now + HOUR));
        assert_eq!(cache.held(), ENTRY_WEIGHT);
    }

    #[test]
    fn nothing_is_let_go_in_vain_for_what_is_still_read() {
        for rejected in [true, false] {
            let (cache, now) = (
                Cache::<u32, Arc<Reservation>, u32>::new(POLICY),
                Instant::now(),
            );
            let ask = |key: u32| match cache.lookup(&key, now, || ((), 0)) {
                Lookup::Miss(lead) => lead.fill,
                other => panic!("{other:?}"),
            };
            let mut read = ask(0);
            assert!(read.reserve(POLICY.capacity / 2));
            let _read = match rejected {
                true => read.reject(now),
                false => {
                    let mut held = None;
                    read.commit_with(
                        |reservation| held.insert(reservation).clone(),
                        POLICY.capacity / 2,
                        now,
                    )
                    .unwrap();
                    cache.purge();
                    held.unwrap()
                }
            };
            drop(ask(1).commit_with(|reservation| reservation, 1000, now));
            assert!(
                !ask(2).reserve(POLICY.capacity / 2),
                "those that are read alone would burst it"
            );
            assert!(matches!(cache.lookup(&1, now, || ((), 0)), Lookup::Hit(..)));
        }
    }

    #[test]
    fn what_is_asked_for_stays_also_where_keys_are_spread_over_shards() {
        let policy = Policy {
            capacity: 2 << 20,
            ..POLICY
        };
        let (cache, now) = (Cache::<_, _, u32>::new(policy), Instant::now());
        let ask = |key: u32| cache.lookup(&key, now, || ((), 0));
        for key in 0..1000 {
            let Lookup::Miss(lead) = ask(key) else {
                panic!("{key} was never asked for")
            };
            lead.fill.commit(key, 100 << 10, now).unwrap();
            assert!(matches!(ask(0), Lookup::Hit(0, _)), "lost at {key}");
        }
    }

    #[test]
    fn a_long_key_counts_whatever_becomes_of_it() {
        let policy = Policy {
            fail_ttl: HOUR,
            ..POLICY
        };
        let (cache, now) = (
            Cache::<String, u32, u32>::weighing(policy, |key| key.len() as u64),
            Instant::now(),
        );
        for at in 0..20 {
            let key = format!("{at}{}", "x".repeat(100_000));
            let Lookup::Miss(lead) = cache.lookup(&key, now, || ((), 0)) else {
                panic!("{at} was never asked for")
            };
            assert!(cache.held() >= 100_000);
            drop(lead.fill.fail(now));
            assert!(cache.held() >= 100_000 && cache.held() <= policy.capacity);
        }
    }

    #[test]
    fn memories_make_way_before_values_do() {
        let capacity = 3 * (1000 + ENTRY_WEIGHT);
        let policy = Policy {
            capacity,
            fail_ttl: HOUR,
            ..POLICY
        };
        let (cache, now) = (Cache::<u32, &str, u32>::new(policy), Instant::now());
        let ask = |key: u32| match cache.lookup(&key, now, || ((), 0)) {
            Lookup::Miss(lead) => lead.fill,
            other => panic!("{other:?}"),
        };
        ask(0).commit("poem", 1000, now).unwrap();
        for key in 1..1000 {
            drop(ask(key).fail(now));
            assert!(cache.held() <= capacity);
        }
        assert!(matches!(cache.lookup(&0, now, || ((), 0)), Lookup::Hit(..)));
        let mut more = ask(1000);
        assert!(more.reserve(1000));
        assert!(matches!(cache.lookup(&0, now, || ((), 0)), Lookup::Hit(..)));
    }

    #[test]
    fn a_hit_takes_one_lock_and_shares_it() {
        let (cache, now) = (Cache::new(POLICY), Instant::now());
        lead(ask(&cache, 1, now)).commit("poem", 4, now).unwrap();
        let _others: Vec<_> = cache
            .shards
            .iter()
            .map(|shard| shard.read().unwrap())
            .collect();
        assert!(
            matches!(ask(&cache, 2, now), Lookup::Hit("poem", _)),
            "with a lock of its own it would wait here"
        );
    }

    #[test]
    fn a_key_replaced_again_and_again_leaves_no_trail() {
        let (cache, mut now) = (Cache::new(POLICY), Instant::now());
        for flight in 0..1000 {
            lead(ask(&cache, flight, now))
                .commit("poem", 4, now)
                .unwrap();
            now += HOUR;
        }
        assert!(cache.lock(cache.hasher.hash_one("key")).turns() < 20);
        assert_eq!(cache.held(), 4 + ENTRY_WEIGHT);
    }
}
