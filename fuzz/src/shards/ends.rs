//! How fetches end, what that evicts, and what is counted then.

use super::kept::take_if;
use super::{FETCHED_WEIGHT, Given, OpenFill, Pause, ShardsRun};
use poetry::cache::CacheFailure;
use std::collections::BTreeSet;
use std::sync::Arc;

impl ShardsRun {
    pub(super) fn commit(&mut self, at: usize, size: u8) {
        let open = self.open.swap_remove(at);
        let is_own = open.is_own();
        let key = open.key;
        let bytes = self.bytes(size);
        let value = self.numbered();
        let freshness = open.fill.freshness(self.at());
        let given = Given {
            alive: Arc::downgrade(&value),
            fresh_until: self.now + self.ttl,
            stale_until: self.now + self.ttl + self.grace,
            bytes: bytes + poetry::cache::ENTRY_WEIGHT,
        };

        let result = open.fill.commit(value, bytes, freshness, self.at());
        let kept = result.is_ok();
        assert_eq!(kept, is_own && self.ttl + self.grace > 0);
        if kept {
            let old = self.kept.values.insert(key, given);
            assert!(
                old.is_none_or(|old| !self.lives(&old)),
                "the old value lives on"
            );
            self.check_evicted(self.flights());
        }
    }

    /// Fails a fetch, whose failure is cached or not, or gives it up.
    pub(super) fn fail(&mut self, at: usize, how: u8) {
        let open = self.open.swap_remove(at);
        let is_own = open.is_own();
        let is_cached = how % 4 < 2 && self.fail_ttl > 0;
        let own_flight = if open.replaces.is_none() {
            open.bytes
        } else {
            0
        };
        let flights = self.flights() + own_flight;

        let reservation = match how % 4 {
            0 | 1 => open.fill.fail(CacheFailure::Yes, self.at()),
            2 => open.fill.fail(CacheFailure::No, self.at()),
            _ => open.fill.give_up(self.at()),
        };
        assert_eq!(reservation.bytes(), open.bytes);

        if is_own && self.kept.values.contains_key(&open.key) {
            let pause = self.pause(open.failures);
            self.kept.pauses.insert(open.key, pause);
        }
        if is_own && is_cached {
            let negative = Given {
                alive: open.flight,
                fresh_until: 0,
                stale_until: self.now + self.fail_ttl,
                bytes: FETCHED_WEIGHT,
            };
            self.kept.negatives.insert(open.key, negative);
        }
        if is_cached {
            self.check_evicted(flights);
        }
    }

    /// The pause after one more failed refresh.
    fn pause(&self, failures: usize) -> Pause {
        let seconds = *[1, 2, 4, 8, 16].get(failures).unwrap_or(&30);
        Pause {
            not_before: self.now + self.fail_ttl.max(seconds),
            failures: failures + 1,
        }
    }

    /// Whether the cache still has it. Refreshes hold the values that they replace.
    pub(super) fn lives(&self, given: &Given) -> bool {
        let is_it = |open: &&OpenFill| {
            let replaced = open.fill.replaces().map(Arc::as_ptr);
            replaced == Some(given.alive.as_ptr())
        };
        given.alive.strong_count() > self.open.iter().filter(is_it).count()
    }

    /// Checks that everything that was evicted had to be, and in its order. `flights`
    /// is what counted as flights at that moment.
    pub(super) fn check_evicted(&mut self, flights: u64) {
        let mut kept = std::mem::take(&mut self.kept);
        let evicted_values = take_if(&mut kept.values, |_, given| !self.lives(given));
        let evicted_negatives = take_if(&mut kept.negatives, |_, given| !self.lives(given));
        kept.pauses.retain(|key, _| kept.values.contains_key(key));
        self.kept = kept;

        // Where flights alone exceed the capacity, only what is kept is held within it.
        let is_hopeless = flights > self.capacity;
        let counted = self.kept.bytes() + if is_hopeless { 0 } else { flights };
        let now = self.now;
        let is_early = evicted_negatives
            .iter()
            .any(|(_, given)| now < given.stale_until);
        if is_early || !evicted_values.is_empty() {
            let evicted = evicted_values.iter().chain(&evicted_negatives);
            let largest = evicted.map(|(_, given)| given.bytes).max().unwrap_or(0);
            let is_needed = counted + largest > self.capacity;
            assert!(
                is_needed,
                "{counted} bytes: the last one did not have to go"
            );
        }

        let has_negatives = !self.kept.negatives.is_empty();
        let is_ordered = evicted_values.is_empty() || !has_negatives;
        assert!(is_ordered, "negative entries go first");
        let mut evicted = evicted_values.iter();
        assert!(
            !evicted.any(|(key, _)| self.is_pinned(*key)),
            "it was refreshed"
        );

        let are_pinned = self.kept.values.keys().all(|key| self.is_pinned(*key));
        let is_all = !has_negatives && are_pinned;
        assert!(counted <= self.capacity || is_all, "{counted} bytes");
    }

    /// Compares what the cache counts with what lives.
    pub(super) fn compare(&self) {
        let mut given = self.kept.given();
        assert!(given.all(|given| self.lives(given)), "evicted without need");

        let in_flight = self.flights() + self.refreshes();
        let bytes = in_flight + self.kept.bytes();
        assert_eq!(
            (self.cache.held(), self.cache.in_flight()),
            (bytes, in_flight)
        );
        assert!(self.kept.bytes() <= self.capacity);

        let own = self.open.iter().filter(|open| open.is_own());
        let keys: BTreeSet<&u8> = self
            .kept
            .values
            .keys()
            .chain(self.kept.negatives.keys())
            .chain(own.map(|open| &open.key))
            .collect();
        assert_eq!(self.cache.len(), keys.len());
    }
}
