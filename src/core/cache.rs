//! A cache that fetches nothing itself: it says, in one decision, who has the value, who waits and who must fetch.
//!
//! [`Cache::lookup`] never waits and answers under one lock with one of four words:
//!
//! | what is kept | what flies | `lookup` answers | after |
//! |---|---|---|---|
//! | fresh | anything | [`Hit`](Lookup::Hit) | the same |
//! | stale, within grace | nothing | [`Stale`](Lookup::Stale) with a lead | stale + in flight |
//! | stale, within grace | a refresh, or a failure still remembered | [`Stale`](Lookup::Stale) without | the same |
//! | nothing | a fetch, or a failure still remembered | [`Coalesced`](Lookup::Coalesced) | the same |
//! | nothing | nothing | [`Miss`](Lookup::Miss) | in flight |
//!
//! and a flight ends in one of these ways:
//!
//! | the holder of the [`Fill`] | the key afterwards |
//! |---|---|
//! | `commit` | fresh, counted from now; with a ttl and grace of zero, absent |
//! | `fail` | what it was, and for `fail_ttl` the failed flight is what newcomers join |
//! | drops it | what it was |
//! | any of these, after a purge | untouched: the entry in the table is no longer its own |
//!
//! The cache is generic: it knows no poem, no socket and no runtime, and takes the time as an argument. `V` is what is
//! kept, `F` the handle by which a fetch in flight is joined, `W` (of `lookup`) whatever the one who fetches needs.
//!
//! **Space.** Kept values and reserved bytes of flights together stay within the capacity. Values go in the order
//! they came, but one that was asked for since its last turn gets another (the CLOCK policy); flights never go.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What an entry costs beside its value: the table, the queue and two copies of the key (estimated, in bytes).
const ENTRY_WEIGHT: u64 = 256;

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
    /// All entries and their weights. Held for one decision at a time; values are dropped after it is released.
    table: Mutex<Table<K, V, F>>,
}

struct Table<K, V, F> {
    entries: HashMap<K, Entry<V, F>>,
    /// Turns of the eviction clock, oldest first; a turn whose ticket is not its entry's is void.
    clock: VecDeque<(K, u64)>,
    /// Remembered failures and until when, oldest first: forgotten in time even if nobody asks for them again.
    failures: VecDeque<(K, u64, Instant)>,
    /// Bytes kept and reserved.
    held: u64,
    last_ticket: u64,
}

struct Entry<V, F> {
    kept: Option<Kept<V>>,
    flying: Option<Flying<F>>,
}

struct Kept<V> {
    value: V,
    fresh_until: Instant,
    stale_until: Instant,
    weight: u64,
    ticket: u64,
    asked_for: bool,
}

struct Flying<F> {
    ticket: u64,
    flight: F,
    /// Set once it has failed: until then newcomers get the failure.
    failed_until: Option<Instant>,
}

/// The answer of a look-up.
#[derive(Debug)]
pub enum Lookup<K: Eq + Hash + Clone, V: Clone, F: Clone, W> {
    /// A fresh value, and how long it stays fresh.
    Hit(V, Duration),
    /// A value past its ttl but within grace, and the duty to refresh it where nobody has it yet.
    Stale(V, Option<Lead<K, V, F, W>>),
    /// Somebody is fetching it: join the flight.
    Coalesced(F),
    /// Nobody is: fetch it.
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

/// The right to fill one entry. `commit` and `fail` consume it; dropping it leaves the key as it was.
///
/// Drop or consume it before the flight's readers learn of the end, so that whoever asks again afresh finds the key free.
pub struct Fill<K: Eq + Hash + Clone, V: Clone, F: Clone> {
    cache: Arc<Cache<K, V, F>>,
    key: K,
    ticket: u64,
    reserved: u64,
}

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> Cache<K, V, F> {
    /// An empty cache.
    pub fn new(policy: Policy) -> Arc<Self> {
        let table = Table {
            entries: HashMap::new(),
            clock: VecDeque::new(),
            failures: VecDeque::new(),
            held: 0,
            last_ticket: 0,
        };
        Arc::new(Cache { policy, table: Mutex::new(table) })
    }

    fn lock(&self) -> MutexGuard<'_, Table<K, V, F>> {
        self.table.lock().expect("no code panics while it holds the cache's lock")
    }

    /// Who has the value of this key now, waits for it, or must fetch it. Calls `launch`, under the lock, only when
    /// the caller is the one to fetch: it makes the flight's two ends.
    pub fn lookup<W>(
        self: &Arc<Self>,
        key: &K,
        now: Instant,
        launch: impl FnOnce() -> (W, F),
    ) -> Lookup<K, V, F, W> {
        let _ended; // declared before the guard, so dropped after it: a poem can be large
        let mut table = self.lock();
        let Some(entry) = table.entries.get_mut(key) else {
            return Lookup::Miss(self.lead(&mut table, key, launch));
        };
        if let Some(kept) = entry.kept.as_mut().filter(|kept| now < kept.fresh_until) {
            kept.asked_for = true;
            return Lookup::Hit(kept.value.clone(), kept.fresh_until - now);
        }
        _ended = entry.settle(now);
        table.held -= _ended.0.as_ref().map_or(0, |kept| kept.weight);
        let Some(entry) = table.entries.get_mut(key) else { unreachable!("settling removes no entry") };
        if let Some(kept) = &mut entry.kept {
            kept.asked_for = true;
        }
        match (&entry.kept, &entry.flying) {
            (Some(kept), Some(_)) => Lookup::Stale(kept.value.clone(), None),
            (Some(kept), None) => {
                let value = kept.value.clone();
                Lookup::Stale(value, Some(self.lead(&mut table, key, launch)))
            }
            (None, Some(flying)) => Lookup::Coalesced(flying.flight.clone()),
            (None, None) => Lookup::Miss(self.lead(&mut table, key, launch)),
        }
    }

    fn lead<W>(
        self: &Arc<Self>,
        table: &mut Table<K, V, F>,
        key: &K,
        launch: impl FnOnce() -> (W, F),
    ) -> Lead<K, V, F, W> {
        let (writer, flight) = launch();
        let ticket = table.ticket();
        let entry = table.entries.entry(key.clone()).or_insert(Entry { kept: None, flying: None });
        entry.flying = Some(Flying { ticket, flight: flight.clone(), failed_until: None });
        Lead { fill: Fill { cache: self.clone(), key: key.clone(), ticket, reserved: 0 }, writer, flight }
    }

    /// Forgets everything, at once: what is kept, and every flight. Those who read a flight along still get its
    /// poem, but it is not kept, and the next look-up starts another.
    pub fn purge(&self) {
        let mut table = self.lock();
        let entries = std::mem::take(&mut table.entries);
        table.clock.clear();
        table.failures.clear();
        let kept: u64 =
            entries.values().filter_map(|entry| entry.kept.as_ref()).map(|kept| kept.weight).sum();
        table.held -= kept;
        drop(table);
        drop(entries);
    }

    /// How many entries there are, kept or in flight.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes kept and reserved, as the capacity counts them.
    pub fn held(&self) -> u64 {
        self.lock().held
    }
}

impl<V, F> Entry<V, F> {
    /// Takes out what time has ended: a value past its grace, a failure past its memory.
    fn settle(&mut self, now: Instant) -> (Option<Kept<V>>, Option<Flying<F>>) {
        let kept = self.kept.take_if(|kept| now >= kept.stale_until);
        let flying = self.flying.take_if(|flying| flying.failed_until.is_some_and(|until| now >= until));
        (kept, flying)
    }

    fn is_void(&self) -> bool {
        self.kept.is_none() && self.flying.is_none()
    }
}

impl<K: Eq + Hash + Clone, V, F> Table<K, V, F> {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Makes `held` at most `capacity` by letting kept values go; false where that is not enough.
    fn evict(&mut self, capacity: u64, gone: &mut Vec<Kept<V>>) -> bool {
        let mut turns = 2 * self.clock.len(); // each value is passed over at most once
        while self.held > capacity {
            let Some((key, ticket)) = self.clock.pop_front().filter(|_| turns > 0) else { return false };
            turns -= 1;
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some(kept) = entry.kept.as_mut().filter(|kept| kept.ticket == ticket) else { continue };
            if std::mem::take(&mut kept.asked_for) {
                self.clock.push_back((key, ticket));
                continue;
            }
            self.held -= kept.weight;
            gone.extend(entry.kept.take());
            if entry.is_void() {
                self.entries.remove(&key);
            }
        }
        true
    }

    /// Forgets the failures whose time is up.
    fn forget_failures(&mut self, now: Instant, gone: &mut Vec<Flying<F>>) {
        while self.failures.front().is_some_and(|(_, _, until)| now >= *until) {
            let Some((key, ticket, _)) = self.failures.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            gone.extend(entry.flying.take_if(|flying| flying.ticket == ticket));
            if entry.is_void() {
                self.entries.remove(&key);
            }
        }
    }

    /// Keeps void turns from piling up where one key is replaced again and again.
    fn tidy_clock(&mut self) {
        if self.clock.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            let valid = |key: &K, ticket| {
                entries
                    .get(key)
                    .and_then(|entry| entry.kept.as_ref())
                    .is_some_and(|kept| kept.ticket == ticket)
            };
            self.clock.retain(|(key, ticket)| valid(key, *ticket));
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> Fill<K, V, F> {
    /// The value that a commit would replace.
    pub fn replaces(&self) -> Option<V> {
        let table = self.cache.lock();
        table
            .entries
            .get(&self.key)
            .filter(|entry| self.is_own(entry))?
            .kept
            .as_ref()
            .map(|kept| kept.value.clone())
    }

    /// Counts `total` bytes in flight against the capacity, letting kept values go for them. False, and nothing
    /// changed but for the evictions, where flights alone would burst it.
    pub fn reserve(&mut self, total: u64) -> bool {
        let mut gone = Vec::new();
        let mut table = self.cache.lock();
        table.held = table.held - self.reserved + total;
        let fits = table.evict(self.cache.policy.capacity, &mut gone);
        match fits {
            true => self.reserved = total,
            false => table.held = table.held - total + self.reserved,
        }
        drop(table);
        fits
    }

    /// Keeps the value, of this many bytes, from now on. False where it is not kept: after a purge, when ttl and
    /// grace are zero, or when there is no room.
    pub fn commit(mut self, value: V, bytes: u64, now: Instant) -> bool {
        let mut gone = Vec::new();
        let cache = self.cache.clone();
        let policy = cache.policy;
        let mut table = cache.lock();
        table.held -= std::mem::take(&mut self.reserved);
        let ticket = table.ticket();
        let Some(entry) = table.entries.get_mut(&self.key).filter(|entry| self.is_own(entry)) else {
            return false;
        };
        entry.flying = None;
        let fresh_until = now + policy.ttl;
        let stale_until = fresh_until + policy.grace;
        let weight = bytes + ENTRY_WEIGHT;
        gone.extend(entry.kept.take());
        let keep = stale_until > now && weight <= policy.capacity;
        if keep {
            entry.kept = Some(Kept { value, fresh_until, stale_until, weight, ticket, asked_for: false });
            table.clock.push_back((self.key.clone(), ticket));
            table.held += weight;
        } else {
            table.entries.remove(&self.key);
        }
        table.held -= gone.first().map_or(0, |old| old.weight);
        table.evict(policy.capacity, &mut gone);
        table.tidy_clock();
        drop(table);
        keep
    }

    /// Remembers the failure for the policy's `fail_ttl`; the key is otherwise what it was.
    pub fn fail(self, now: Instant) {
        if self.cache.policy.fail_ttl.is_zero() {
            return; // dropping is all there is to do
        }
        let mut gone = Vec::new(); // dropped after the lock is released
        let mut table = self.cache.lock();
        table.forget_failures(now, &mut gone);
        if let Some(entry) = table.entries.get_mut(&self.key).filter(|entry| self.is_own(entry)) {
            let until = now + self.cache.policy.fail_ttl;
            entry.flying.iter_mut().for_each(|flying| flying.failed_until = Some(until));
            table.failures.push_back((self.key.clone(), self.ticket, until));
        }
    }

    /// Whether the flight in the table is still ours: a late fill must not touch another's.
    fn is_own(&self, entry: &Entry<V, F>) -> bool {
        entry.flying.as_ref().is_some_and(|flying| flying.ticket == self.ticket)
    }
}

impl<K: Eq + Hash + Clone, V: Clone, F: Clone> Drop for Fill<K, V, F> {
    fn drop(&mut self) {
        let _flight; // dropped after the lock is released
        let mut table = self.cache.lock();
        table.held -= self.reserved;
        let Some(entry) = table.entries.get_mut(&self.key) else { return };
        let still_flying = |f: &mut Flying<F>| f.ticket == self.ticket && f.failed_until.is_none();
        _flight = entry.flying.take_if(still_flying);
        if entry.is_void() {
            table.entries.remove(&self.key);
        }
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
    type Answer = Lookup<&'static str, &'static str, u32, ()>;

    const HOUR: Duration = Duration::from_secs(3600);
    const POLICY: Policy =
        Policy { ttl: HOUR, grace: Duration::ZERO, fail_ttl: Duration::ZERO, capacity: 1 << 20 };

    fn ask(cache: &Poems, flight: u32, now: Instant) -> Answer {
        cache.lookup(&"key", now, || ((), flight))
    }

    fn lead(answer: Answer) -> Fill<&'static str, &'static str, u32> {
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
        assert!(fill.commit("poem", 4, now + HOUR));
        assert!(matches!(ask(&cache, 3, now + HOUR * 2 - Duration::from_nanos(1)), Lookup::Hit("poem", _)));
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
        assert!(!old.commit("old", 3, now));
        assert!(matches!(ask(&cache, 3, now), Lookup::Coalesced(2)));
        assert!(new.commit("new", 3, now));
        assert!(matches!(ask(&cache, 4, now), Lookup::Hit("new", _)));
    }

    #[test]
    fn a_ttl_of_zero_keeps_nothing_and_still_coalesces() {
        let (cache, now) = (Cache::new(Policy { ttl: Duration::ZERO, ..POLICY }), Instant::now());
        let fill = lead(ask(&cache, 1, now));
        assert!(matches!(ask(&cache, 2, now), Lookup::Coalesced(1)));
        assert!(!fill.commit("poem", 4, now));
        assert!(cache.is_empty());
        assert_eq!(cache.held(), 0);
    }

    #[test]
    fn a_stale_value_is_served_while_one_refreshes_it_and_never_beyond_grace() {
        let (cache, now) = (Cache::new(Policy { grace: HOUR, ..POLICY }), Instant::now());
        lead(ask(&cache, 1, now)).commit("old", 3, now);
        let refresh = lead(ask(&cache, 2, now + HOUR));
        assert_eq!(refresh.replaces(), Some("old"));
        assert!(matches!(ask(&cache, 3, now + HOUR), Lookup::Stale("old", None)));
        assert!(
            matches!(ask(&cache, 4, now + HOUR * 2), Lookup::Coalesced(2)),
            "a hung refresh pins nothing"
        );
        drop(refresh);
        assert!(matches!(ask(&cache, 5, now + HOUR * 2), Lookup::Miss(_)));
        assert_eq!(cache.held(), 0);
    }

    #[test]
    fn a_failure_is_remembered_for_its_time() {
        let (cache, now) = (Cache::new(Policy { fail_ttl: HOUR, ..POLICY }), Instant::now());
        lead(ask(&cache, 1, now)).fail(now);
        assert!(matches!(ask(&cache, 2, now + HOUR / 2), Lookup::Coalesced(1)));
        assert!(matches!(ask(&cache, 3, now + HOUR), Lookup::Miss(_)));
    }

    #[test]
    fn failures_that_nobody_asks_for_again_are_forgotten_in_time() {
        let policy = Policy { fail_ttl: HOUR, ..POLICY };
        let (cache, mut now) = (Cache::<u32, &str, u32>::new(policy), Instant::now());
        for key in 0..100 {
            let Lookup::Miss(lead) = cache.lookup(&key, now, || ((), 0)) else {
                panic!("{key} was never asked for")
            };
            lead.fill.fail(now);
            now += HOUR / 4;
        }
        assert_eq!(cache.len(), 4);
    }

    #[test]
    fn what_is_held_stays_within_the_capacity_and_what_is_asked_for_stays_longest() {
        let policy = Policy { capacity: 3 * (1000 + ENTRY_WEIGHT), ..POLICY };
        let (cache, now) = (Cache::<_, _, u32>::new(policy), Instant::now());
        let ask = |key: u32| cache.lookup(&key, now, || ((), 0));
        for key in 0..10 {
            let Lookup::Miss(lead) = ask(key) else { panic!("{key} was never asked for") };
            assert!(lead.fill.commit(key, 1000, now));
            assert!(cache.held() <= policy.capacity);
            assert!(matches!(ask(0), Lookup::Hit(0, _)), "0 is asked for all the time");
        }
        assert_eq!(cache.len(), 3);
        let Lookup::Miss(mut lead) = ask(100) else { panic!("100 was never asked for") };
        assert!(lead.fill.reserve(policy.capacity));
        assert!(!lead.fill.reserve(policy.capacity + 1), "a flight is never evicted");
        drop(lead);
        assert_eq!((cache.held(), cache.len()), (0, 0));
    }

    #[test]
    fn a_key_replaced_again_and_again_leaves_no_trail() {
        let (cache, mut now) = (Cache::new(POLICY), Instant::now());
        for flight in 0..1000 {
            lead(ask(&cache, flight, now)).commit("poem", 4, now);
            now += HOUR;
        }
        assert!(cache.lock().clock.len() < 20);
        assert_eq!(cache.held(), 4 + ENTRY_WEIGHT);
    }
}
