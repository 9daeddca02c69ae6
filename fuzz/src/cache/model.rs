//! What the cache should answer, slowly and obviously: no lock, no hash, no queue, and
//! time in whole seconds. The first or next of anything is found by a search of all.
//!
//! It holds for a cache of one shard, which is what a capacity under 128 KiB makes.

mod entry;

use entry::{Counted, Entry, Flight, Kept, Negative};
use std::collections::BTreeMap;

/// The policy, in seconds and bytes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub ttl: u64,
    pub grace: u64,
    pub fail_ttl: u64,
    pub capacity: u64,
}

/// The model's side of a fill: the right to fill a key, and the bytes reserved for it.
#[derive(Debug)]
pub struct Claim {
    pub key: u8,
    flight: u32,
    pub bytes: u64,
}

/// What a look-up should answer.
#[derive(Debug)]
pub enum Expected {
    /// The value, and until when it is fresh.
    Hit(u32, u64),
    Stale(u32, Option<Claim>),
    Coalesced(u32),
    Miss(Claim),
}

/// All that the cache holds.
pub struct Model {
    rules: Rules,
    entries: BTreeMap<u8, Entry>,
    /// The bytes of flights under way, and of what is read but not kept, or no longer
    /// kept.
    pub flight_bytes: u64,
    /// Numbers and bytes of what the cache has dropped and readers still hold.
    read_on: BTreeMap<u64, u64>,
    /// The last number given out.
    last_number: u64,
    /// The number of the value that was last considered for eviction.
    hand: u64,
}

/// What a key holds, in bytes.
pub fn weigh(key: &u8) -> u64 {
    u64::from(*key) * 50
}

/// What an entry costs beside its value: 256 bytes and its key.
pub fn entry_weight(key: u8) -> u64 {
    256 + weigh(&key)
}

impl Model {
    pub fn new(rules: Rules) -> Model {
        Model {
            rules,
            entries: BTreeMap::new(),
            flight_bytes: 0,
            read_on: BTreeMap::new(),
            last_number: 0,
            hand: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn held(&self) -> u64 {
        let entries = self.entries.values();
        self.flight_bytes + entries.map(Entry::bytes).sum::<u64>()
    }

    pub fn purge(&mut self) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            self.release(entry.value, entry.flight);
        }
    }

    /// Drops these. What is still read counts as a flight from now on.
    fn release(&mut self, value: Option<Kept>, flight: Option<Flight>) {
        let value = value.map(|kept| kept.counted);
        let negative = flight.and_then(|flight| flight.negative);
        let counted = value
            .into_iter()
            .chain(negative.map(|negative| negative.counted));

        for counted in counted.filter(|counted| counted.is_read) {
            self.flight_bytes += counted.bytes;
            self.read_on.insert(counted.number, counted.bytes);
        }
    }

    /// Records that the readers of what has this number are gone.
    pub fn unread(&mut self, number: u64) {
        let mut counted = self.entries.values_mut().flat_map(Entry::counted);
        if let Some(counted) = counted.find(|counted| counted.number == number) {
            counted.is_read = false;
            return;
        }

        let bytes = self.read_on.remove(&number);
        self.flight_bytes -= bytes.expect("what is read was once kept");
    }

    /// Looks a key up. `flight` is the number of the flight that a miss would start.
    pub fn look_up(&mut self, key: u8, now: u64, flight: u32) -> Expected {
        let entry = self.entries.entry(key).or_default();
        let fresh = entry.value.as_mut().filter(|kept| now < kept.fresh_until);
        if let Some(kept) = fresh {
            kept.asked_for = true;
            return Expected::Hit(kept.value, kept.fresh_until);
        }

        let expired = entry.value.take_if(|kept| now >= kept.stale_until);
        let forgotten = entry.flight.take_if(|flight| flight.is_expired(now));
        self.release(expired, forgotten);

        let entry = self.entries.entry(key).or_default();
        let stale = entry.value.as_mut().map(|kept| {
            kept.asked_for = true;
            kept.value
        });
        let starts = entry.flight.is_none();
        let current = entry.flight.get_or_insert(Flight {
            id: flight,
            joined: Some(flight),
            negative: None,
        });
        let id = current.id;
        let joined = current.joined;

        match (stale, joined) {
            (Some(value), _) => Expected::Stale(value, starts.then(|| self.claim(key, id))),
            (None, Some(joined)) if !starts => Expected::Coalesced(joined),
            (None, _) => Expected::Miss(self.claim(key, id)),
        }
    }

    fn claim(&mut self, key: u8, flight: u32) -> Claim {
        let bytes = entry_weight(key);
        self.flight_bytes += bytes;
        Claim { key, flight, bytes }
    }

    /// The value that a commit would replace.
    pub fn replaces(&self, claim: &Claim) -> Option<u32> {
        let entry = self.entries.get(&claim.key);
        let entry = entry.filter(|_| self.own_flight(claim).is_some())?;
        entry.value.as_ref().map(|kept| kept.value)
    }

    /// The flight of the claim's key, if it is the claim's.
    fn own_flight(&self, claim: &Claim) -> Option<&Flight> {
        let flight = self.entries.get(&claim.key)?.flight.as_ref();
        flight.filter(|flight| flight.id == claim.flight)
    }

    /// Whether the claim's flight is the key's, and has not failed.
    fn is_under_way(&self, claim: &Claim) -> bool {
        let flight = self.own_flight(claim);
        flight.is_some_and(|flight| flight.negative.is_none())
    }

    pub fn reserve(&mut self, claim: &mut Claim, total: u64) -> bool {
        let bytes = entry_weight(claim.key) + total;
        let flight_bytes = self.flight_bytes - claim.bytes + bytes;
        if flight_bytes > self.rules.capacity {
            return false;
        }

        let before = std::mem::replace(&mut claim.bytes, bytes);
        self.flight_bytes = flight_bytes;
        self.evict();

        let fits = self.held() <= self.rules.capacity; // what was evicted may still be read
        if !fits {
            self.flight_bytes = self.flight_bytes + before - bytes;
            claim.bytes = before;
        }
        fits
    }

    /// Commits a value. Returns its number, or the claim's bytes if it is not kept.
    pub fn commit(
        &mut self,
        claim: Claim,
        (value, is_read): (u32, bool),
        bytes: u64,
        now: u64,
    ) -> Result<u64, u64> {
        if self.own_flight(&claim).is_none() {
            return Err(claim.bytes);
        }

        let entry = self.entries.entry(claim.key).or_default();
        let flight = entry.flight.take();
        let weight = bytes + entry_weight(claim.key);
        if self.rules.ttl + self.rules.grace == 0 || weight > self.rules.capacity {
            self.release(None, flight);
            self.clear();
            return Err(claim.bytes); // and the old value stays
        }

        let old = entry.value.take();
        self.release(old, flight);
        self.flight_bytes -= claim.bytes;
        let number = self.next_number();
        let fresh_until = now + self.rules.ttl;
        let kept = Kept {
            value,
            fresh_until,
            stale_until: fresh_until + self.rules.grace,
            counted: Counted {
                number,
                bytes: weight,
                is_read,
            },
            asked_for: false,
        };
        let entry = Entry {
            value: Some(kept),
            flight: None,
        };
        self.entries.insert(claim.key, entry);

        self.evict();
        Ok(number)
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Fails a flight. Returns the bytes of the claim, which its readers still need.
    pub fn fail(&mut self, claim: Claim, now: u64, is_joined: bool) -> u64 {
        // The flight is counted by its own reservation, not by the negative entry.
        let counted = (entry_weight(claim.key), false);
        self.mark(&claim, now, is_joined, counted);
        claim.bytes
    }

    /// Rejects an answer. Returns the number of the negative entry, if there is one.
    pub fn reject(&mut self, claim: Claim, now: u64) -> Option<u64> {
        self.flight_bytes -= claim.bytes;
        let number = self.mark(&claim, now, true, (claim.bytes, true));
        if number.is_none() {
            self.flight_bytes += claim.bytes;
        }
        number
    }

    /// Makes a negative entry of a flight, counted with `bytes`, and returns its
    /// number. `None` if it is not kept.
    fn mark(
        &mut self,
        claim: &Claim,
        now: u64,
        is_joined: bool,
        (bytes, is_read): (u64, bool),
    ) -> Option<u64> {
        if self.rules.fail_ttl == 0 {
            self.leave(claim);
            return None;
        }

        self.release_expired(now);
        if !self.is_under_way(claim) {
            return None;
        }

        let number = self.next_number();
        let counted = Counted {
            number,
            bytes,
            is_read,
        };
        let flight = Flight {
            id: claim.flight,
            joined: is_joined.then_some(claim.flight),
            negative: Some(Negative {
                until: now + self.rules.fail_ttl,
                counted,
            }),
        };
        self.entries.entry(claim.key).or_default().flight = Some(flight);

        self.evict();
        Some(number)
    }

    /// Drops all negative entries whose time has passed.
    fn release_expired(&mut self, now: u64) {
        let expire = |entry: &mut Entry| entry.flight.take_if(|flight| flight.is_expired(now));
        let expired: Vec<Flight> = self.entries.values_mut().filter_map(expire).collect();
        for flight in expired {
            self.release(None, Some(flight));
        }
        self.clear();
    }

    pub fn drop_fill(&mut self, claim: Claim) {
        self.leave(&claim);
        self.flight_bytes -= claim.bytes;
    }

    pub fn give_up(&mut self, claim: Claim) -> u64 {
        self.leave(&claim);
        claim.bytes
    }

    /// Sets the key back to what it was before the flight, if that is still under way.
    fn leave(&mut self, claim: &Claim) {
        if self.is_under_way(claim) {
            self.entries.entry(claim.key).or_default().flight = None;
        }
        self.clear();
    }

    /// Removes empty entries.
    fn clear(&mut self) {
        self.entries
            .retain(|_, entry| entry.value.is_some() || entry.flight.is_some());
    }

    /// Evicts until everything fits: negative entries first, the oldest before others,
    /// then values by SIEVE.
    fn evict(&mut self) {
        while self.held() > self.rules.capacity && self.evict_negative() {}
        while self.held() > self.rules.capacity && self.advance_hand() {}
    }

    /// Drops the oldest negative entry. Returns whether there was one.
    fn evict_negative(&mut self) -> bool {
        let entries = self.entries.values_mut();
        let negatives = entries.filter(|entry| entry.negative().is_some());
        let number = |entry: &&mut Entry| entry.negative().map(|n| n.counted.number);
        let Some(oldest) = negatives.min_by_key(number) else {
            return false;
        };

        let forgotten = oldest.flight.take();
        self.release(None, forgotten);
        self.clear();
        true
    }

    /// One step of SIEVE: the hand goes to the next newer value, or from the newest to
    /// the oldest, and evicts it or spares it once. Returns whether there was a value.
    fn advance_hand(&mut self) -> bool {
        let hand = self.hand;
        let entries = self.entries.values_mut();
        let kept = entries.filter(|entry| entry.value.is_some());
        let order = |entry: &&mut Entry| (entry.number() <= hand, entry.number());
        let Some(next) = kept.min_by_key(order) else {
            return false;
        };

        self.hand = next.number();
        let evicted = next.value.take_if(|kept| !kept.asked_for);
        if let Some(spared) = &mut next.value {
            spared.asked_for = false;
        }
        self.release(evicted, None);
        self.clear();
        true
    }
}
