//! One shard of the cache: its entries, the order in which values are evicted, and the
//! cached failures.
//!
//! An entry lies in a dense list, and its place there is all that the hash table holds
//! of it. So a cached poem is one allocation, its own: its entry needs no box, its turn
//! no place in a queue, and the slots that a growing table leaves empty are small.
//!
//! Nothing here locks: [`super`] holds each shard behind a lock of its own.

mod dense;
mod entry;
mod sieve;

use super::span::Span;
use super::stamp::Epoch;
use super::stored::Stored;
use super::{Freshness, Purge};
use ahash::RandomState;
use dense::Dense;
use entry::Life;
pub(super) use entry::{Entry, FetchEntry, FetchState, Kept, NegativeEntry, Taken};
use hashbrown::HashTable;
use sieve::Sieve;
use std::collections::VecDeque;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What an entry costs beside its value and key, in bytes: its place in the list and in
/// the table, and a poem's counts (counted in `tests/memory.rs`: 112).
pub const ENTRY_WEIGHT: u64 = 128;

/// What an entry costs more while it has a flight, in bytes (counted: 792).
pub const FLIGHT_WEIGHT: u64 = 832;

pub(super) struct Table<K, V: Stored, F> {
    entries: Dense<Entry<K, V, F>>,
    /// The places of the entries, by the hashes of their keys.
    places: HashTable<u32>,
    /// How often places may have changed theirs in that table. A look in several steps
    /// begins again then.
    pub(super) moves: u64,
    hasher: RandomState,
    epoch: Epoch,
    /// The order in which values are evicted.
    sieve: Sieve,
    /// Cached failures and when each ends, oldest first: they are dropped in time even
    /// if no request asks for them again. A turn whose ticket is not its entry's is
    /// void.
    negatives: VecDeque<(Turn, Instant)>,
}

#[derive(Clone, Copy)]
struct Turn {
    hash: u64,
    ticket: u64,
}

/// What left the table. Drop it once no lock is held: a poem can be large.
pub(super) struct DropLater<V: Stored, F> {
    pub(super) values: Vec<Kept<V>>,
    pub(super) flights: Vec<F>,
    /// Flights still in flight that a purge has detached.
    pub(super) detached: Vec<F>,
}

impl<V: Stored, F> DropLater<V, F> {
    pub(super) fn new() -> Self {
        DropLater {
            values: Vec::new(),
            flights: Vec::new(),
            detached: Vec::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, V: Stored, F> Table<K, V, F> {
    /// `hasher` is the one that makes the hashes of all calls.
    pub(super) fn new(hasher: RandomState, epoch: Epoch) -> Self {
        Table {
            entries: Dense::new(),
            places: HashTable::new(),
            moves: 0,
            hasher,
            epoch,
            sieve: Sieve::new(),
            negatives: VecDeque::new(),
        }
    }

    /// The value of this key, if it is fresh, and whether it is to be refreshed by now.
    #[inline(always)] // the caller rarely wants all of the answer
    pub(super) fn fresh(&self, hash: u64, key: &K, now: Instant) -> Option<Fresh<V>> {
        let mut found = None;
        self.places.find(hash, |at| {
            let entry = self.entries.get(*at);
            let is_it = entry.key == *key;
            if is_it {
                found = Some(entry); // for a second look would cost as much as the first
            }
            is_it
        });
        let entry = found?;
        let kept = entry.kept()?;
        let freshness = self.freshness(kept);
        if now >= freshness.fresh_until {
            return None;
        }

        let was_asked = entry.links.touch();
        let may_be_due = kept.life.ahead != Span::ZERO;
        Some(Fresh {
            value: kept.value().clone(),
            is_due: may_be_due && was_asked && is_due(entry, kept, freshness, now),
            freshness,
        })
    }

    /// The place of this key's entry. It holds until an entry is removed.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &K) -> Option<u32> {
        let is_it = |at: &u32| self.entries.get(*at).key == *key;
        self.places.find(hash, is_it).copied()
    }

    /// The place of this key's entry, made where there is none.
    pub(super) fn entry(&mut self, hash: u64, key: &K) -> u32 {
        if let Some(at) = self.find(hash, key) {
            return at;
        }

        if self.places.len() == self.places.capacity() {
            self.moves += 1; // no slot is free, so the next entry makes it rehash
        }
        let at = self.entries.push(Entry::new(key.clone()));
        let rehash = |at: &u32| self.hasher.hash_one(&self.entries.get(*at).key);
        self.places.insert_unique(hash, at, rehash);
        at
    }

    pub(super) fn at(&self, at: u32) -> &Entry<K, V, F> {
        self.entries.get(at)
    }

    pub(super) fn at_mut(&mut self, at: u32) -> &mut Entry<K, V, F> {
        self.entries.get_mut(at)
    }

    /// The stale value of an entry whose fresh one would have been found. It is asked
    /// for now.
    pub(super) fn stale(&self, at: u32) -> Option<V::Value> {
        let entry = self.entries.get(at);
        let kept = entry.kept()?;
        entry.links.touch();
        Some(kept.value().clone())
    }

    /// Keeps a value, in an entry without one, and gives it its turn behind all others.
    /// It may be refreshed so long `ahead` of the end of its ttl.
    pub(super) fn keep(&mut self, at: u32, stored: V, freshness: Freshness, ahead: Duration) {
        let life = self.life(freshness, ahead);
        self.entries.get_mut(at).set_kept(Kept::new(stored, life));
        self.sieve.push(&mut self.entries, at);
    }

    pub(super) fn take_kept(&mut self, at: u32) -> Option<Kept<V>> {
        let kept = self.entries.get_mut(at).take_kept()?;
        self.sieve.remove(&mut self.entries, at);
        Some(kept)
    }

    /// Takes out what has expired: a value past its grace, a cached failure, a pause.
    pub(super) fn take_expired(&mut self, at: u32, now: Instant) -> Taken<V, F> {
        let is_expired = |kept: &Kept<V>| now >= self.freshness(kept).stale_until;
        let kept = if self.at(at).kept().is_some_and(is_expired) {
            self.take_kept(at)
        } else {
            None
        };
        let fetch = self.at_mut(at).take_fetch_over(now);
        Taken { kept, fetch }
    }

    /// Removes the entry if nothing is left in it. The last entry of the list may take
    /// its place.
    pub(super) fn remove_if_void(&mut self, at: u32) {
        if !self.at(at).is_void() {
            return;
        }

        let hash = self.hasher.hash_one(&self.at(at).key);
        if let Ok(place) = self.places.find_entry(hash, |place| *place == at) {
            place.remove();
        }
        self.entries.swap_remove(at);

        let last = self.entries.len() as u32;
        if at != last {
            self.follow(last, at);
        }
    }

    /// An entry has moved: what holds its place learns of that.
    fn follow(&mut self, from: u32, to: u32) {
        let hash = self.hasher.hash_one(&self.at(to).key);
        if let Some(place) = self.places.find_mut(hash, |place| *place == from) {
            *place = to;
        }
        if self.at(to).kept().is_some() {
            self.sieve.follow(&mut self.entries, from, to);
        }
    }

    /// Makes the value of one key stale, or removes it; see [`Table::purge_entry`].
    pub(super) fn purge_one(
        &mut self,
        (hash, key): (u64, &K),
        how: &PurgeRule<'_, F>,
        out: &mut DropLater<V, F>,
    ) -> bool {
        let Some(at) = self.find(hash, key) else {
            return false;
        };

        let had_any = self.purge_entry(at, how, out);
        self.remove_if_void(at);
        had_any
    }

    /// Makes the last of the first `most` values stale, or removes them, and removes
    /// cached failures, at most `step` of them. Returns how many keys had one of these,
    /// and how many entries come before them.
    ///
    /// Begin with all, and go on with what comes before, until that is none: an entry
    /// only ever moves to the front, so none is left out, whatever comes and goes
    /// between two steps.
    pub(super) fn purge_last(
        &mut self,
        most: usize,
        step: usize,
        how: &PurgeRule<'_, F>,
        out: &mut DropLater<V, F>,
    ) -> (u64, usize) {
        let end = most.min(self.entries.len());
        let begin = end.saturating_sub(step);
        let mut purged = 0;
        for at in (begin as u32..end as u32).rev() {
            purged += u64::from(self.purge_entry(at, how, out));
            self.remove_if_void(at); // what takes its place was purged, or is new
        }
        (purged, begin)
    }

    /// Detaches the entry's fetch unless `spares` its flight, and shortens the value's
    /// life. Returns whether there was a value or a cached failure.
    fn purge_entry(&mut self, at: u32, how: &PurgeRule<'_, F>, out: &mut DropLater<V, F>) -> bool {
        let is_spared = |fetch: &FetchEntry<F>| match &fetch.state {
            FetchState::InFlight(flight) => (how.spares)(flight),
            _ => false,
        };
        let mut had_failure = false;
        if let Some(fetch) = self.at_mut(at).take_fetch_if(|fetch| !is_spared(fetch)) {
            had_failure = fetch.is_failure();
            let list = if fetch.is_in_flight() {
                &mut out.detached
            } else {
                &mut out.flights
            };
            list.extend(fetch.state.into_flight());
        }

        let Some(kept) = self.at(at).kept() else {
            return had_failure;
        };
        let before = self.freshness(kept);
        let after = Freshness {
            fresh_until: before.fresh_until.min(how.now),
            stale_until: before.stale_until.min(how.now + how.grace(before)),
        };
        if after.stale_until <= how.now {
            out.values.extend(self.take_kept(at));
            return true;
        }

        let life = self.life(after, Duration::ZERO);
        let entry = self.at_mut(at);
        entry.links.note_purge();
        if let Some(kept) = entry.kept_mut() {
            kept.life = life;
        }
        true
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

    /// Takes out the value whose turn it is; see [`Sieve::next`].
    pub(super) fn evict_value(&mut self, out: &mut DropLater<V, F>) -> bool {
        let Some(at) = self.sieve.next(&self.entries) else {
            return false;
        };

        out.values.extend(self.take_kept(at));
        self.remove_if_void(at);
        true
    }

    /// Drops the oldest cached failure. What is left of it is the pause of a refresh,
    /// where a value is kept.
    fn take_oldest_negative(&mut self, out: &mut DropLater<V, F>) -> bool {
        let Some((turn, _)) = self.negatives.pop_front() else {
            return false;
        };
        let owns = |at: &u32| {
            let fetch = self.entries.get(*at).fetch();
            fetch.is_some_and(|fetch| fetch.ticket == turn.ticket)
        };
        let Some(at) = self.places.find(turn.hash, owns).copied() else {
            return false;
        };

        let entry = self.entries.get_mut(at);
        let Some(fetch) = entry.fetch_mut().filter(|fetch| !fetch.is_in_flight()) else {
            return false;
        };
        let state = std::mem::replace(&mut fetch.state, FetchState::Paused);
        out.flights.extend(state.into_flight());

        self.remove_if_void(at); // without a value the pause is nothing
        true
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The slots of the hash table. An entry keeps its own until the table moves.
    pub(super) fn slots(&self) -> usize {
        self.places.num_buckets()
    }

    /// The entry of a slot.
    pub(super) fn in_slot(&self, slot: usize) -> Option<&Entry<K, V, F>> {
        let at = self.places.get_bucket(slot)?;
        Some(self.entries.get(*at))
    }

    /// How long a value is kept.
    #[inline]
    pub(super) fn freshness(&self, kept: &Kept<V>) -> Freshness {
        let fresh_until = self.epoch.instant(kept.life.fresh_until);
        Freshness {
            fresh_until,
            stale_until: fresh_until + kept.life.grace.duration(),
        }
    }

    fn life(&self, freshness: Freshness, ahead: Duration) -> Life {
        let Freshness {
            fresh_until,
            stale_until,
        } = freshness;
        Life {
            fresh_until: self.epoch.stamp(fresh_until),
            ahead: Span::of(ahead),
            grace: Span::of(stale_until.saturating_duration_since(fresh_until)),
        }
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.sieve.len()
    }
}

/// A fresh value, as a look-up finds it.
pub(super) struct Fresh<V: Stored> {
    pub(super) value: V::Value,
    pub(super) freshness: Freshness,
    /// Whether its ttl ends soon, it was asked for before, and no fetch is under way or
    /// paused.
    pub(super) is_due: bool,
}

/// Whether a value that was asked for before is to be refreshed.
#[cold]
fn is_due<K, V: Stored, F>(
    entry: &Entry<K, V, F>,
    kept: &Kept<V>,
    freshness: Freshness,
    now: Instant,
) -> bool {
    let left = freshness.fresh_until.saturating_duration_since(now);
    let fetch = entry.fetch();
    left <= kept.life.ahead.duration() && fetch.is_none_or(|fetch| fetch.is_over(now, true))
}

/// How a purge treats what it finds.
pub(super) struct PurgeRule<'a, F> {
    pub(super) now: Instant,
    pub(super) how: Purge,
    /// Flights that the purge leaves alone.
    pub(super) spares: &'a dyn Fn(&F) -> bool,
}

impl<F> PurgeRule<'_, F> {
    /// How long a purged value may still be served while it is refreshed: as long as
    /// after its ttl.
    fn grace(&self, freshness: Freshness) -> Duration {
        let Freshness {
            fresh_until,
            stale_until,
        } = freshness;
        match self.how {
            Purge::Soft => stale_until.saturating_duration_since(fresh_until),
            Purge::Hard => Duration::ZERO,
        }
    }
}
