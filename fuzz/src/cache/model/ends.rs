//! How fetches end in the model.

use super::entry::{Cached, Counted, Fetch, Kept, State};
use super::{Claim, Model, entry_weight, flight_weight};

/// A value that is to be kept.
#[derive(Debug)]
pub struct Offer {
    pub value: u32,
    pub bytes: u64,
    pub fresh_until: u64,
    pub stale_until: u64,
    /// Whether the value shares its reservation, and a reader holds a copy of it.
    pub is_shared: bool,
}

/// What a negative entry is to be.
struct Mark {
    state: fn(Cached) -> State,
    bytes: u64,
    /// How many hold its reservation beside the cache.
    holders: usize,
}

impl Model {
    /// The fetch of the claim's key, if it is the claim's.
    fn own(&mut self, claim: &Claim) -> Option<&mut Fetch> {
        let fetch = self.entries.get_mut(&claim.key)?.fetch.as_mut();
        fetch.filter(|fetch| fetch.id == claim.fetch)
    }

    fn has_value(&self, key: u8) -> bool {
        let entry = self.entries.get(&key);
        entry.is_some_and(|entry| entry.value.is_some())
    }

    /// Commits a value. Returns its number, or the claim's bytes if it is not kept.
    pub fn commit(&mut self, claim: Claim, offer: Offer, now: u64) -> Result<u64, u64> {
        let has_value = self.has_value(claim.key);
        let is_own = self
            .own(&claim)
            .is_some_and(|fetch| !fetch.is_over(now, has_value));
        if !is_own {
            return Err(self.end(claim));
        }

        let key = claim.key;
        let fetch = self.entries.entry(key).or_default().fetch.take();
        self.release_fetch(fetch);
        let weight = offer.bytes + entry_weight(key);
        if offer.stale_until <= now || weight > self.rules.capacity {
            return Err(self.end(claim)); // and the old value stays
        }

        self.forget(claim);
        let old = self.entries.entry(key).or_default().value.take();
        self.release_value(old);
        let number = self.next_number();
        let kept = Kept {
            value: offer.value,
            fresh_until: offer.fresh_until,
            stale_until: offer.stale_until,
            counted: Counted {
                number,
                bytes: weight,
                holders: usize::from(offer.is_shared),
            },
            is_shared: offer.is_shared,
            asked_for: false,
        };
        self.entries.entry(key).or_default().value = Some(kept);

        self.evict();
        Ok(number)
    }

    /// Fails a fetch. Returns the bytes of the claim, which its readers still need.
    pub fn fail(&mut self, claim: Claim, is_cached: bool, now: u64) -> u64 {
        if is_cached && self.rules.fail_ttl > 0 {
            // The flight is counted by its own reservation, not by the negative entry.
            let mark = Mark {
                state: State::Negative,
                bytes: flight_weight(claim.key),
                holders: 0,
            };
            self.mark(&claim, mark, now);
        } else {
            self.pause(&claim, now);
        }
        self.end(claim)
    }

    pub fn hit_for_miss(&mut self, claim: Claim, now: u64) -> u64 {
        if self.rules.fail_ttl > 0 {
            let mark = Mark {
                state: State::HitForMiss,
                bytes: entry_weight(claim.key),
                holders: 0,
            };
            self.mark(&claim, mark, now);
        } else {
            self.pause(&claim, now);
        }
        self.end(claim)
    }

    /// Rejects an answer. Returns the number of the negative entry, if there is one.
    pub fn reject(&mut self, mut claim: Claim, now: u64) -> Option<u64> {
        let bytes = claim.bytes;
        self.set(&mut claim, 0);

        let number = if self.rules.fail_ttl > 0 {
            let mark = Mark {
                state: State::Negative,
                bytes,
                holders: 1,
            };
            self.mark(&claim, mark, now)
        } else {
            self.pause(&claim, now);
            self.flights += bytes;
            None
        };
        self.end(claim);
        number
    }

    pub fn give_up(&mut self, claim: Claim, now: u64) -> u64 {
        self.pause(&claim, now);
        self.end(claim)
    }

    pub fn drop_fill(&mut self, claim: Claim) {
        self.leave(&claim);
        self.forget(claim);
    }

    /// Makes a negative entry of the claim's fetch, if that is still in flight. Returns
    /// its number.
    fn mark(&mut self, claim: &Claim, mark: Mark, now: u64) -> Option<u64> {
        self.release_expired(now);
        let number = self.next_number();
        let counted = Counted {
            number,
            bytes: mark.bytes,
            holders: mark.holders,
        };

        let fail_ttl = self.rules.fail_ttl;
        let until = now + fail_ttl;
        let fetch = self.own(claim).filter(|fetch| fetch.is_in_flight());
        let is_marked = fetch.is_some();
        if let Some(fetch) = fetch {
            fetch.state = (mark.state)(Cached { until, counted });
            fetch.pause(now, fail_ttl);
        } else if mark.holders > 0 {
            self.flights += mark.bytes; // it is still read
        }

        self.evict();
        is_marked.then_some(number)
    }

    /// Pauses the refreshes of a value. Nothing happens where none is kept.
    fn pause(&mut self, claim: &Claim, now: u64) {
        let fail_ttl = self.rules.fail_ttl;
        if !self.has_value(claim.key) {
            return;
        }
        if let Some(fetch) = self.own(claim).filter(|fetch| fetch.is_in_flight()) {
            fetch.state = State::Paused;
            fetch.pause(now, fail_ttl);
        }
    }

    /// Ends a claim. Its bytes count as a flight's, because they are still read.
    fn end(&mut self, claim: Claim) -> u64 {
        self.leave(&claim);
        let bytes = self.forget(claim);
        self.flights += bytes;
        bytes
    }

    /// Drops a claim, and the stale value that it holds. Returns its bytes.
    fn forget(&mut self, mut claim: Claim) -> u64 {
        let bytes = claim.bytes;
        self.set(&mut claim, 0);
        let held = claim.replaced.and_then(|replaced| replaced.held);
        if let Some(number) = held {
            self.let_go(number);
        }
        bytes
    }

    /// Sets the key back to what it was before the fetch, if that is still in flight.
    fn leave(&mut self, claim: &Claim) {
        if self.own(claim).is_some_and(|fetch| fetch.is_in_flight()) {
            self.entries.entry(claim.key).or_default().fetch = None;
        }
        self.clear();
    }
}
