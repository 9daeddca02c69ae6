//! Looks at all keys for operators: page by page, or to purge some of them.
//!
//! Keys are in the order of their hashes, which never changes. So a page begins after
//! the last key of the one before, whatever came, went or was refreshed in between, and
//! a key that stays is listed exactly once.
//!
//! A shard is looked at in steps, and its lock is held, shared, for one step at a time.
//! An entry keeps its place in the table until the table rehashes; a look that this
//! happens to begins again.

use super::table::{Entry, FetchState, Table};
use super::{Cache, ENTRY_WEIGHT, Freshness, Purge, STEP, Stored, UNPOISONED};
use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Instant;

/// Looks at one shard before it is looked at under one lock. A table of more than one
/// step rehashes once in thousands of insertions, so a second look is rare already.
const LOOKS: usize = 4;

/// Entries that are looked at for one page, some milliseconds, before it ends with what
/// it has: a prefix may pick few.
const PAGE_LOOKS: u64 = 1 << 16;

/// What the cache knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<K> {
    /// The key.
    pub key: K,
    /// Its value, if that may still be served.
    pub value: Option<KnownValue>,
    /// Whether a fetch is under way.
    pub is_in_flight: bool,
    /// Until when its last failure is cached, if it is.
    pub failed_until: Option<Instant>,
}

/// What the cache knows of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownValue {
    /// Its length, in bytes.
    pub bytes: u64,
    /// How long it is kept.
    pub freshness: Freshness,
    /// When its fetch ended. Unknown after a soft purge.
    pub came: Option<Instant>,
}

/// Some of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPage<K> {
    /// They, in the order of their hashes.
    pub keys: Vec<Known<K>>,
    /// The place after which the next page begins; `None` if this is the last one.
    pub next: Option<u64>,
}

/// Keys by their places in the order. Two may share one.
type Places<K> = BTreeMap<u64, Vec<Known<K>>>;

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Cache<K, V, F> {
    /// The keys after the place `after` that `wanted` picks, `limit` of them or, where
    /// hashes collide, a few more. Fewer, even none, may come before the last page, if
    /// many had to be looked at for them. Keys whose time is over are left out.
    ///
    /// A lock is held for at most 4096 entries.
    pub fn page(
        &self,
        after: Option<u64>,
        limit: usize,
        now: Instant,
        wanted: impl Fn(&K) -> bool,
    ) -> KnownPage<K> {
        let limit = limit.max(1);
        let mut found = Places::new();
        let mut looked = 0;
        let begin = after.map_or(0, |after| self.shard_at(after));

        for shard in begin..self.shards.len() {
            if looked >= PAGE_LOOKS {
                let next = Some(self.last_place(shard - 1));
                return KnownPage::of(found, next);
            }
            // One more than the limit, to know whether there is one.
            let room = limit + 1 - found.len();
            let (more, count) = self.places(shard, after, room, now, &wanted);
            found.extend(more);
            looked += count;

            if found.len() > limit {
                found.pop_last();
                let next = found.last_key_value().map(|(place, _)| *place);
                return KnownPage::of(found, next);
            }
        }
        KnownPage::of(found, None)
    }

    /// The first `room` places of a shard after a place, and the number of its entries.
    fn places(
        &self,
        shard: usize,
        after: Option<u64>,
        room: usize,
        now: Instant,
        wanted: impl Fn(&K) -> bool,
    ) -> (Places<K>, u64) {
        self.look(
            shard,
            |(found, count): &mut (Places<K>, u64), table, entry| {
                *count += 1;
                let place = self.place(self.hasher.hash_one(&entry.key));
                let is_full = found.len() >= room;
                let is_beyond = || {
                    found
                        .last_key_value()
                        .is_some_and(|(last, _)| place > *last)
                };
                if after.is_some_and(|after| place <= after) || (is_full && is_beyond()) {
                    return;
                }
                if !wanted(&entry.key) {
                    return;
                }

                if let Some(known) = self.known(table, entry, now) {
                    found.entry(place).or_default().push(known);
                    if found.len() > room {
                        found.pop_last();
                    }
                }
            },
        )
    }

    /// Purges the keys that `wanted` picks, like [`Cache::purge`]. Finds them under
    /// shared locks, in steps, and purges each under a lock of its own.
    pub fn purge_where(
        &self,
        how: Purge,
        now: Instant,
        spares: impl Fn(&F) -> bool,
        wanted: impl Fn(&K) -> bool,
    ) -> (u64, Vec<F>) {
        let mut purged = 0;
        let mut detached = Vec::new();
        for shard in 0..self.shards.len() {
            let keys = self.look(shard, |keys: &mut Vec<K>, _, entry| {
                if wanted(&entry.key) {
                    keys.push(entry.key.clone());
                }
            });
            for key in keys {
                let (had_value, flights) = self.remove(&key, how, now, &spares);
                purged += u64::from(had_value);
                detached.extend(flights);
            }
        }
        (purged, detached)
    }

    /// What the cache knows of one key; `None` where that is nothing.
    pub fn known_of(&self, key: &K, now: Instant) -> Option<Known<K>> {
        let hash = self.hasher.hash_one(key);
        let table = self.shard(hash).read().expect(UNPOISONED);
        let at = table.find(hash, key)?;
        self.known(&table, table.at(at), now)
    }

    /// The value of one key, fresh or stale, and how long it is that. This does not
    /// count as asking for it.
    pub fn value(&self, key: &K, now: Instant) -> Option<(V::Value, Freshness)> {
        let hash = self.hasher.hash_one(key);
        let table = self.shard(hash).read().expect(UNPOISONED);
        let kept = table.at(table.find(hash, key)?).kept()?;
        let freshness = table.freshness(kept);
        let is_served = now < freshness.stale_until;
        is_served.then(|| (kept.value().clone(), freshness))
    }

    /// The flight of the fetch of one key that is under way, and since when it is.
    pub fn flight(&self, key: &K) -> Option<(F, Instant)> {
        let hash = self.hasher.hash_one(key);
        let table = self.shard(hash).read().expect(UNPOISONED);
        let fetch = table.at(table.find(hash, key)?).fetch()?;
        match &fetch.state {
            FetchState::InFlight(flight) => Some((flight.clone(), fetch.not_before)),
            _ => None,
        }
    }

    /// What is known of a key; `None` where time has ended all of it.
    fn known(
        &self,
        table: &Table<K, V, F>,
        entry: &Entry<K, V, F>,
        now: Instant,
    ) -> Option<Known<K>> {
        let weight = ENTRY_WEIGHT + (self.weigh)(&entry.key);
        let value = entry.kept().map(|kept| {
            let freshness = table.freshness(kept);
            let came = freshness.fresh_until.checked_sub(self.policy.ttl);
            KnownValue {
                bytes: kept.weight().saturating_sub(weight),
                freshness,
                came: came.filter(|_| !entry.is_purged()),
            }
        });
        let value = value.filter(|value| now < value.freshness.stale_until);

        let (mut is_in_flight, mut failed_until, mut is_marked) = (false, None, false);
        match entry.fetch().map(|fetch| &fetch.state) {
            Some(FetchState::InFlight(_)) => is_in_flight = true,
            Some(FetchState::Negative(_, failure)) => {
                failed_until = Some(failure.until).filter(|until| now < *until);
            }
            Some(FetchState::HitForMiss(failure)) => is_marked = now < failure.until,
            Some(FetchState::Paused) | None => {}
        }

        let is_known = value.is_some() || is_in_flight || failed_until.is_some() || is_marked;
        is_known.then(|| Known {
            key: entry.key.clone(),
            value,
            is_in_flight,
            failed_until,
        })
    }

    /// Shows `see` each entry of a shard, and returns what it makes of them.
    fn look<T: Default>(
        &self,
        shard: usize,
        see: impl Fn(&mut T, &Table<K, V, F>, &Entry<K, V, F>),
    ) -> T {
        for _ in 1..LOOKS {
            if let Some(seen) = self.try_look(shard, STEP, &see) {
                return seen;
            }
        }
        self.try_look(shard, usize::MAX, &see).unwrap_or_default()
    }

    /// The same in steps. `None` if entries have moved between two of them.
    fn try_look<T: Default>(
        &self,
        shard: usize,
        step: usize,
        see: &impl Fn(&mut T, &Table<K, V, F>, &Entry<K, V, F>),
    ) -> Option<T> {
        let mut seen = T::default();
        let mut moves = None;
        let mut from = 0usize;

        loop {
            let table = self.shards[shard].read().expect(UNPOISONED);
            if *moves.get_or_insert(table.moves) != table.moves {
                return None;
            }

            let all = table.slots();
            let to = all.min(from.saturating_add(step));
            for at in from..to {
                if let Some(entry) = table.in_slot(at) {
                    see(&mut seen, &table, entry);
                }
            }
            if to == all {
                return Some(seen);
            }
            from = to;
        }
    }

    /// The place of a hash in the order of all keys: its shard first.
    fn place(&self, hash: u64) -> u64 {
        hash.rotate_left(32 - self.shards.len().ilog2())
    }

    /// The shard of this place.
    fn shard_at(&self, place: u64) -> usize {
        let shift = 64 - self.shards.len().ilog2();
        place.checked_shr(shift).unwrap_or(0) as usize
    }

    /// The last place of a shard.
    fn last_place(&self, shard: usize) -> u64 {
        let shift = 64 - self.shards.len().ilog2();
        let next = 1u64.checked_shl(shift).unwrap_or(0);
        (shard as u64 + 1).wrapping_mul(next).wrapping_sub(1)
    }
}

impl<K> KnownPage<K> {
    fn of(found: Places<K>, next: Option<u64>) -> KnownPage<K> {
        KnownPage {
            keys: found.into_values().flatten().collect(),
            next,
        }
    }
}

#[cfg(test)]
mod tests;
