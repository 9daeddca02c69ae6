//! What the cache should answer, slowly and obviously: no lock, no hash, no queue, and
//! time in whole seconds. The first or next of anything is found by a search of all.
//!
//! It holds for a cache of one shard, which is what a capacity under 128 KiB makes.

mod ends;
mod entry;
mod evict;

pub use ends::Offer;
use entry::{Counted, Entry, Fetch, Kept, State};
use poetry::cache::{ENTRY_WEIGHT, FLIGHT_WEIGHT};
use std::collections::BTreeMap;

/// The policy, in seconds and bytes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub ttl: u64,
    pub grace: u64,
    pub fail_ttl: u64,
    pub capacity: u64,
}

/// What a refresh may hold beyond the weight of the old value, in bytes.
pub const REFRESH_SLACK: u64 = 64 << 10;

/// The model's side of a fill: the right to fill a key, and the bytes reserved for it.
#[derive(Debug)]
pub struct Claim {
    pub key: u8,
    /// The number of the flight.
    fetch: u32,
    pub bytes: u64,
    pub replaced: Option<Replaced>,
}

/// The stale value that a fetch refreshes.
#[derive(Debug)]
pub struct Replaced {
    pub value: u32,
    pub weight: u64,
    /// What counts the value, where the fill's copy of it shares that.
    held: Option<u64>,
}

/// What a look-up should answer.
#[derive(Debug)]
pub enum Expected {
    /// The value, until when it is fresh, and until when it is served at all.
    Hit(u32, [u64; 2]),
    Stale(u32, Option<Claim>),
    Coalesced(u32),
    Negative(u32),
    Miss(Claim),
}

/// How bytes are reserved.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// As they come.
    Growing,
    /// For a value that is of use only when it is complete.
    Whole,
    /// For a fetch that waits for its turn.
    Waiting,
}

/// What a purge does.
pub struct PurgeOf<'a> {
    /// The key; `None` for all.
    pub key: Option<u8>,
    /// Whether a purged value may be served for the grace.
    pub is_soft: bool,
    /// Flights that stay what they are.
    pub spares: &'a dyn Fn(u32) -> bool,
}

/// All that the cache holds.
pub struct Model {
    rules: Rules,
    entries: BTreeMap<u8, Entry>,
    /// The bytes of fetches under way that replace nothing, and of what is read but not
    /// kept, or no longer kept.
    pub flights: u64,
    /// The bytes of fetches under way that replace a value.
    pub refreshes: u64,
    /// Numbers of what the cache has dropped and others still hold.
    held_on: BTreeMap<u64, Counted>,
    /// The last number given out.
    last_number: u64,
    /// The number of the value that was last considered for eviction.
    hand: u64,
}

/// What a key holds, in bytes.
pub fn weigh(key: &u8) -> u64 {
    u64::from(*key) * 50
}

/// What an entry costs beside its value, in bytes.
pub fn entry_weight(key: u8) -> u64 {
    ENTRY_WEIGHT + weigh(&key)
}

/// What an entry costs while it is fetched, and as a cached failure, in bytes.
pub fn flight_weight(key: u8) -> u64 {
    entry_weight(key) + FLIGHT_WEIGHT
}

impl Model {
    pub fn new(rules: Rules) -> Model {
        Model {
            rules,
            entries: BTreeMap::new(),
            flights: 0,
            refreshes: 0,
            held_on: BTreeMap::new(),
            last_number: 0,
            hand: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of values and negative entries.
    fn kept(&self) -> u64 {
        self.entries.values().map(Entry::bytes).sum()
    }

    /// What the capacity bounds.
    fn bounded(&self) -> u64 {
        self.flights + self.kept()
    }

    pub fn held(&self) -> u64 {
        self.bounded() + self.refreshes
    }

    /// Looks a key up. `flight` is the number of the flight that a miss would start.
    pub fn look_up(&mut self, key: u8, now: u64, flight: u32) -> Expected {
        let entry = self.entries.entry(key).or_default();
        let fresh = entry.value.as_mut().filter(|kept| now < kept.fresh_until);
        if let Some(kept) = fresh {
            kept.asked_for = true;
            return Expected::Hit(kept.value, [kept.fresh_until, kept.stale_until]);
        }

        let failures = self.expire(key, now);
        let entry = self.entries.entry(key).or_default();
        let stale = entry.value.as_mut().map(|kept| {
            kept.asked_for = true;
            kept.value
        });
        let starts = entry.fetch.is_none();
        let fetch = entry.fetch.get_or_insert(Fetch {
            id: flight,
            state: State::InFlight,
            failures,
            not_before: now,
        });
        let id = fetch.id;
        let is_alone = matches!(fetch.state, State::HitForMiss(_));
        let has_failed = matches!(fetch.state, State::Negative(_));

        match stale {
            Some(value) => Expected::Stale(value, starts.then(|| self.claim(key, id))),
            None if starts || is_alone => Expected::Miss(self.claim(key, id)),
            None if has_failed => Expected::Negative(id),
            None => Expected::Coalesced(id),
        }
    }

    /// Drops what has expired of a key. Returns how many refreshes had failed in a row.
    fn expire(&mut self, key: u8, now: u64) -> u32 {
        let entry = self.entries.entry(key).or_default();
        let value = entry.value.take_if(|kept| now >= kept.stale_until);
        let has_value = entry.value.is_some();
        let fetch = entry.fetch.take_if(|fetch| fetch.is_over(now, has_value));

        let failures = fetch.as_ref().map_or(0, |fetch| fetch.failures);
        let failures = if value.is_some() { 0 } else { failures };
        self.release_value(value);
        self.release_fetch(fetch);
        failures
    }

    /// The claim of a fetch that starts. It holds the stale value, if there is one.
    fn claim(&mut self, key: u8, fetch: u32) -> Claim {
        let value = self.entries.entry(key).or_default().value.as_mut();
        let replaced = value.map(|kept| {
            kept.counted.holders += usize::from(kept.is_shared);
            Replaced {
                value: kept.value,
                weight: kept.counted.bytes,
                held: kept.is_shared.then_some(kept.counted.number),
            }
        });

        let mut claim = Claim {
            key,
            fetch,
            bytes: 0,
            replaced,
        };
        self.set(&mut claim, flight_weight(key));
        claim
    }

    /// Counts `bytes` for a claim.
    fn set(&mut self, claim: &mut Claim, bytes: u64) {
        let counter = match claim.replaced {
            Some(_) => &mut self.refreshes,
            None => &mut self.flights,
        };
        *counter = *counter - claim.bytes + bytes;
        claim.bytes = bytes;
    }

    /// Whether `total` bytes of a value can be reserved. If not, nothing changes but
    /// for what was evicted in vain.
    pub fn reserve(&mut self, claim: &mut Claim, total: u64, way: Way) -> bool {
        let before = claim.bytes;
        self.set(claim, flight_weight(claim.key) + total);

        let capacity = self.rules.capacity;
        let fits = match (way, &claim.replaced) {
            (Way::Waiting, _) => self.flights + self.refreshes <= capacity / 2,
            (_, Some(old)) => claim.bytes <= old.weight + REFRESH_SLACK || self.held() <= capacity,
            (Way::Whole, None) => self.evict(),
            (Way::Growing, None) if claim.bytes <= capacity / 4 => self.evict(),
            (Way::Growing, None) => self.bounded() <= capacity,
        };

        if !fits {
            self.set(claim, before);
        }
        fits
    }

    /// Detaches fetches, drops negative entries, and makes values stale or drops them.
    /// Returns how many values there were, and the flights that were detached.
    pub fn purge(&mut self, of: &PurgeOf<'_>, now: u64) -> (u64, Vec<u32>) {
        let grace = if of.is_soft { self.rules.grace } else { 0 };
        let mut purged = 0;
        let mut detached = Vec::new();

        for key in self.keys(of.key) {
            let entry = self.entries.entry(key).or_default();
            let is_spared = |fetch: &Fetch| fetch.is_in_flight() && (of.spares)(fetch.id);
            let fetch = entry.fetch.take_if(|fetch| !is_spared(fetch));
            let in_flight = fetch.as_ref().filter(|fetch| fetch.is_in_flight());
            detached.extend(in_flight.map(|fetch| fetch.id));

            let has_failed = |fetch: &Fetch| matches!(fetch.state, State::Negative(_));
            if entry.value.is_some() || fetch.as_ref().is_some_and(has_failed) {
                purged += 1;
            }
            if let Some(kept) = &mut entry.value {
                kept.fresh_until = kept.fresh_until.min(now);
                kept.stale_until = kept.stale_until.min(now + grace);
            }
            let value = entry.value.take_if(|kept| kept.stale_until <= now);
            self.release_value(value);
            self.release_fetch(fetch);
        }

        self.clear();
        (purged, detached)
    }

    fn keys(&self, only: Option<u8>) -> Vec<u8> {
        let keys = self.entries.keys().copied();
        keys.filter(|key| only.is_none_or(|only| only == *key))
            .collect()
    }

    fn release_value(&mut self, value: Option<Kept>) {
        self.release(value.map(|kept| kept.counted));
    }

    fn release_fetch(&mut self, fetch: Option<Fetch>) {
        self.release(fetch.and_then(|fetch| fetch.state.into_counted()));
    }

    /// Drops what was counted. What others still hold counts as a flight from now on.
    fn release(&mut self, counted: Option<Counted>) {
        if let Some(counted) = counted.filter(|counted| counted.holders > 0) {
            self.flights += counted.bytes;
            self.held_on.insert(counted.number, counted);
        }
    }

    /// Records that one holder of what has this number is gone.
    pub fn let_go(&mut self, number: u64) {
        let mut counted = self.entries.values_mut().flat_map(Entry::counted);
        if let Some(counted) = counted.find(|counted| counted.number == number) {
            counted.holders -= 1;
            return;
        }

        let counted = self.held_on.get_mut(&number);
        let counted = counted.expect("what is held was once kept");
        counted.holders -= 1;
        if counted.holders == 0 {
            self.flights -= counted.bytes;
            self.held_on.remove(&number);
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Removes empty entries.
    fn clear(&mut self) {
        self.entries.retain(|_, entry| !entry.is_void());
    }
}
