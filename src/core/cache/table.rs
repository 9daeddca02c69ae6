//! One shard of the cache: its entries, the order in which values are evicted, and the
//! cached failures.
//!
//! Nothing here locks: [`super`] holds each shard behind a lock of its own.

use super::Freshness;
use super::usage::RetireOnDrop;
use crate::sync::atomic::{AtomicBool, Ordering};
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What an entry costs beside its value and key, in bytes: the table, the eviction
/// queue, and a value's handle and reservation (counted in `tests/memory.rs`: 293).
pub const ENTRY_WEIGHT: u64 = 320;

/// What an entry costs more while it has a flight, in bytes (counted: 526).
pub const FLIGHT_WEIGHT: u64 = 576;

pub(super) struct Table<K, V, F> {
    /// Boxed: a growing table copies its slots, and half of them are empty then.
    pub(super) entries: HashTable<Box<Entry<K, V, F>>>,
    /// How often entries may have changed their places in the table. A look in several
    /// steps begins again then.
    pub(super) moves: u64,
    /// The eviction queue, in the order the values came, in two parts: the turns that
    /// the hand has yet to reach on its way to the newest, and those it has passed and
    /// spared. A turn whose ticket is not its entry's is void.
    ahead: VecDeque<Turn>,
    spared: VecDeque<Turn>,
    /// Cached failures and when each ends, oldest first: they are dropped in time even
    /// if no request asks for them again.
    negatives: VecDeque<(Turn, Instant)>,
}

#[derive(Clone, Copy)]
struct Turn {
    hash: u64,
    ticket: u64,
}

pub(super) struct Entry<K, V, F> {
    pub(super) key: K,
    pub(super) hash: u64,
    pub(super) kept: Option<Kept<V>>,
    /// Boxed: few entries have one, and hits don't look at it.
    pub(super) fetch: Option<Box<FetchEntry<F>>>,
}

pub(super) struct Kept<V> {
    pub(super) value: V,
    pub(super) freshness: Freshness,
    pub(super) ticket: u64,
    /// Freed with the value, or with the last copy of it if the value shares it.
    pub(super) reservation: RetireOnDrop,
    /// Asked for since its last turn. Set under a shared lock.
    pub(super) asked_for: AtomicBool,
    /// A purge has ended its freshness, so that does not tell its age.
    pub(super) is_purged: bool,
}

/// What an entry knows of the last fetch of its key.
pub(super) struct FetchEntry<F> {
    pub(super) ticket: u64,
    pub(super) state: FetchState<F>,
    /// Refreshes that have failed in a row.
    pub(super) failures: u32,
    /// While a stale value is kept, its next refresh waits until then.
    pub(super) not_before: Instant,
}

pub(super) enum FetchState<F> {
    /// Requests join it.
    InFlight(F),
    /// It failed. While the failure is cached, requests join the failed flight.
    Negative(F, NegativeEntry),
    /// Its value was too long to be shared. While that is cached, each request fetches
    /// for itself.
    HitForMiss(NegativeEntry),
    /// A refresh failed, and its failure is not cached. Only `not_before` matters.
    Paused,
}

/// How long a cached failure lasts, and what it costs.
pub(super) struct NegativeEntry {
    pub(super) until: Instant,
    /// Freed with the entry, or by the last reader of its flight.
    pub(super) _reservation: RetireOnDrop,
}

impl<F> FetchEntry<F> {
    /// Whether time has ended this. `has_value` says whether a stale value is kept,
    /// whose refresh may have to wait.
    fn is_over(&self, now: Instant, has_value: bool) -> bool {
        let may_refresh = !has_value || now >= self.not_before;
        match &self.state {
            FetchState::InFlight(_) => false,
            FetchState::Negative(_, negative) | FetchState::HitForMiss(negative) => {
                now >= negative.until && may_refresh
            }
            FetchState::Paused => may_refresh,
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, FetchState::InFlight(_))
    }
}

impl<F> FetchState<F> {
    /// The flight alone. What the cached failure cost is freed here and now.
    pub(super) fn into_flight(self) -> Option<F> {
        match self {
            FetchState::InFlight(flight) | FetchState::Negative(flight, _) => Some(flight),
            FetchState::HitForMiss(_) | FetchState::Paused => None,
        }
    }
}

impl<V> Kept<V> {
    /// Notes that the value was asked for. Reads before it writes, so that many hits at
    /// once share the cache line.
    pub(super) fn touch(&self) {
        if !self.asked_for.load(Ordering::Relaxed) {
            self.asked_for.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn weight(&self) -> u64 {
        self.reservation.bytes()
    }
}

impl<K, V, F> Entry<K, V, F> {
    /// Takes out what has expired: a value past its grace, a cached failure, a pause.
    pub(super) fn take_expired(&mut self, now: Instant) -> Taken<V, F> {
        let kept = self.kept.take_if(|kept| now >= kept.freshness.stale_until);
        let has_value = self.kept.is_some();
        let fetch = self.fetch.take_if(|fetch| fetch.is_over(now, has_value));
        Taken { kept, fetch }
    }

    /// Whether the fetch with this ticket is still the entry's own. A late fill must
    /// not touch another's.
    pub(super) fn is_filled_by(&self, ticket: u64) -> bool {
        let fetch = self.fetch.as_ref();
        fetch.is_some_and(|fetch| fetch.ticket == ticket)
    }

    /// Whether a value of the fetch with this ticket may be kept: the entry is its own,
    /// and time has not ended it.
    pub(super) fn takes_value_of(&self, ticket: u64, now: Instant) -> bool {
        let has_value = self.kept.is_some();
        let fetch = self.fetch.as_ref();
        fetch.is_some_and(|fetch| fetch.ticket == ticket && !fetch.is_over(now, has_value))
    }

    /// Whether the value must stay: its refresh is under way, and needs it to compare
    /// with.
    fn is_pinned(&self) -> bool {
        self.fetch
            .as_ref()
            .is_some_and(|fetch| fetch.is_in_flight())
    }

    /// Whether nothing is left. A pause without a value holds nothing back, and its
    /// entry would be counted nowhere.
    fn is_void(&self) -> bool {
        let is_pause = |fetch: &FetchEntry<F>| matches!(fetch.state, FetchState::Paused);
        self.kept.is_none() && self.fetch.as_deref().is_none_or(is_pause)
    }
}

/// What an entry lost to time.
pub(super) struct Taken<V, F> {
    kept: Option<Kept<V>>,
    fetch: Option<Box<FetchEntry<F>>>,
}

impl<V, F> Taken<V, F> {
    /// Refreshes that had failed in a row, for the next one to go on counting. A value
    /// that is gone ends the row.
    pub(super) fn failures(&self) -> u32 {
        if self.kept.is_some() {
            return 0;
        }
        self.fetch.as_ref().map_or(0, |fetch| fetch.failures)
    }
}

/// What left the table. Drop it once no lock is held: a poem can be large.
pub(super) struct DropLater<V, F> {
    pub(super) values: Vec<V>,
    pub(super) flights: Vec<F>,
    /// Flights still in flight that a purge has detached.
    pub(super) detached: Vec<F>,
}

impl<V, F> DropLater<V, F> {
    pub(super) fn new() -> Self {
        DropLater {
            values: Vec::new(),
            flights: Vec::new(),
            detached: Vec::new(),
        }
    }
}

impl<K: Eq + Clone, V: Clone, F> Table<K, V, F> {
    pub(super) fn new() -> Self {
        Table {
            entries: HashTable::new(),
            moves: 0,
            ahead: VecDeque::new(),
            spared: VecDeque::new(),
            negatives: VecDeque::new(),
        }
    }

    /// The value of this key, if it is fresh.
    #[inline]
    pub(super) fn fresh(&self, hash: u64, key: &K, now: Instant) -> Option<(V, Freshness)> {
        let entry = self.entries.find(hash, |entry| entry.key == *key)?;
        let kept = entry.kept.as_ref()?;
        if now >= kept.freshness.fresh_until {
            return None;
        }

        kept.touch();
        Some((kept.value.clone(), kept.freshness))
    }

    pub(super) fn find(&mut self, hash: u64, key: &K) -> Option<&mut Entry<K, V, F>> {
        let entry = self.entries.find_mut(hash, |entry| entry.key == *key);
        entry.map(Box::as_mut)
    }

    /// The entry of this key, made where there is none.
    pub(super) fn entry(&mut self, hash: u64, key: &K) -> &mut Entry<K, V, F> {
        if self.entries.len() == self.entries.capacity() {
            self.moves += 1; // no slot is free, so the next entry makes it rehash
        }
        let entry = self
            .entries
            .entry(hash, |entry| entry.key == *key, |entry| entry.hash);
        let void = || Entry {
            key: key.clone(),
            hash,
            kept: None,
            fetch: None,
        };
        entry.or_insert_with(|| Box::new(void())).into_mut()
    }

    /// Removes the entry if nothing is left in it.
    pub(super) fn remove_if_void(&mut self, hash: u64, key: &K) {
        if let Ok(entry) = self.entries.find_entry(hash, |entry| entry.key == *key)
            && entry.get().is_void()
        {
            entry.remove();
        }
    }

    /// Makes the value of one key stale, or removes it; see [`Table::purge_entry`].
    pub(super) fn purge_one(
        &mut self,
        (hash, key): (u64, &K),
        how: &PurgeRule<'_, F>,
        out: &mut DropLater<V, F>,
    ) -> bool {
        let Ok(mut found) = self.entries.find_entry(hash, |entry| entry.key == *key) else {
            return false;
        };

        let had_value = Table::purge_entry(found.get_mut(), how, out);
        if found.get().is_void() {
            found.remove();
        }
        had_value
    }

    /// Makes all values stale, or removes them. Returns their number.
    pub(super) fn purge(&mut self, how: &PurgeRule<'_, F>, out: &mut DropLater<V, F>) -> u64 {
        let mut purged = 0;
        self.entries.retain(|entry| {
            purged += u64::from(Table::purge_entry(entry, how, out));
            !entry.is_void()
        });
        purged
    }

    /// Detaches the entry's fetch unless `spares` its flight, and shortens the value's
    /// life. Returns whether there was a value.
    fn purge_entry(
        entry: &mut Entry<K, V, F>,
        how: &PurgeRule<'_, F>,
        out: &mut DropLater<V, F>,
    ) -> bool {
        let is_spared = |fetch: &FetchEntry<F>| match &fetch.state {
            FetchState::InFlight(flight) => (how.spares)(flight),
            _ => false,
        };
        if let Some(fetch) = entry.fetch.take_if(|fetch| !is_spared(fetch)) {
            let list = if fetch.is_in_flight() {
                &mut out.detached
            } else {
                &mut out.flights
            };
            list.extend(fetch.state.into_flight());
        }

        let Some(kept) = &mut entry.kept else {
            return false;
        };
        kept.is_purged = true;
        let stale_until = how.now + how.grace;
        kept.freshness.fresh_until = kept.freshness.fresh_until.min(how.now);
        kept.freshness.stale_until = kept.freshness.stale_until.min(stale_until);

        let kept = entry
            .kept
            .take_if(|kept| kept.freshness.stale_until <= how.now);
        out.values.extend(kept.map(|kept| kept.value));
        true
    }

    /// Gives a new value its turn, behind all others.
    pub(super) fn queue(&mut self, hash: u64, ticket: u64) {
        self.ahead.push_back(Turn { hash, ticket });
        if self.ahead.len() + self.spared.len() <= 2 * self.entries.len() + 16 {
            return;
        }

        // Void turns pile up where one key is replaced again and again.
        let entries = &self.entries;
        let owns = |entry: &Entry<K, V, F>, turn: &Turn| {
            let kept = entry.kept.as_ref();
            kept.is_some_and(|kept| kept.ticket == turn.ticket)
        };
        let is_valid = |turn: &Turn| {
            let found = entries.find(turn.hash, |entry| owns(entry, turn));
            found.is_some()
        };
        self.ahead.retain(is_valid);
        self.spared.retain(is_valid);
    }

    /// Notes that the failure of this ticket is cached until then.
    pub(super) fn queue_negative(&mut self, hash: u64, ticket: u64, until: Instant) {
        self.negatives.push_back((Turn { hash, ticket }, until));
    }

    /// Takes out the cached failures that have expired.
    pub(super) fn expire_negatives(&mut self, now: Instant, out: &mut DropLater<V, F>) {
        while self
            .negatives
            .front()
            .is_some_and(|(_, until)| now >= *until)
        {
            self.take_oldest_negative(out);
        }
    }

    /// Takes out the oldest cached failure. False where there is none.
    pub(super) fn evict_negative(&mut self, out: &mut DropLater<V, F>) -> bool {
        while !self.negatives.is_empty() {
            if self.take_oldest_negative(out) {
                return true;
            }
        }
        false
    }

    /// Takes out the value whose turn it is. False where there is none, or where all of
    /// them were asked for since the hand last passed; the hand has then spared them
    /// once, and the next call finds one. A pinned value stays.
    ///
    /// This is SIEVE (Zhang et al., NSDI 2024): a value that was asked for is spared
    /// where it stands, and not moved behind the newest as by CLOCK. So the hand soon
    /// reaches the new values that were asked for only once.
    pub(super) fn evict_value(&mut self, out: &mut DropLater<V, F>) -> bool {
        for _ in 0..self.ahead.len() + self.spared.len() {
            if self.ahead.is_empty() {
                std::mem::swap(&mut self.ahead, &mut self.spared); // back to the oldest
            }
            let Some(turn) = self.ahead.pop_front() else {
                return false;
            };

            let owns = |entry: &Entry<K, V, F>| {
                let kept = entry.kept.as_ref();
                kept.is_some_and(|kept| kept.ticket == turn.ticket)
            };
            let Ok(mut entry) = self.entries.find_entry(turn.hash, |entry| owns(entry)) else {
                continue; // void
            };
            let was_asked_for = |kept: &Kept<V>| kept.asked_for.swap(false, Ordering::Relaxed);
            let is_pinned = entry.get().is_pinned();
            if is_pinned || entry.get().kept.as_ref().is_some_and(was_asked_for) {
                self.spared.push_back(turn);
                continue;
            }

            let kept = entry.get_mut().kept.take();
            out.values.extend(kept.map(|kept| kept.value));
            if entry.get().is_void() {
                entry.remove();
            }
            return true;
        }
        false
    }

    /// Drops the oldest cached failure. What is left of it is the pause of a refresh,
    /// where a value is kept.
    fn take_oldest_negative(&mut self, out: &mut DropLater<V, F>) -> bool {
        let Some((turn, _)) = self.negatives.pop_front() else {
            return false;
        };
        let owns = |entry: &Entry<K, V, F>| entry.is_filled_by(turn.ticket);
        let Ok(mut found) = self.entries.find_entry(turn.hash, |entry| owns(entry)) else {
            return false;
        };

        let entry = found.get_mut();
        let has_value = entry.kept.is_some();
        let Some(fetch) = entry.fetch.as_mut().filter(|fetch| !fetch.is_in_flight()) else {
            return false;
        };
        let state = std::mem::replace(&mut fetch.state, FetchState::Paused);
        out.flights.extend(state.into_flight());

        if !has_value {
            entry.fetch = None;
        }
        if entry.is_void() {
            found.remove();
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.ahead.len() + self.spared.len()
    }
}

/// How a purge treats what it finds.
pub(super) struct PurgeRule<'a, F> {
    pub(super) now: Instant,
    /// How long a purged value may still be served while it is refreshed.
    pub(super) grace: Duration,
    /// Flights that the purge leaves alone.
    pub(super) spares: &'a dyn Fn(&F) -> bool,
}
