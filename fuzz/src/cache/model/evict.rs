//! What the model drops: to make room, and when its time has passed.

use super::Model;
use super::entry::Entry;

impl Model {
    /// Evicts until everything fits: negative entries first, the oldest before others,
    /// then values by SIEVE. Returns whether it fits then. Where flights alone exceed
    /// the capacity, nothing can make them fit, and only what is kept is held within
    /// it.
    pub(super) fn evict(&mut self) -> bool {
        let is_hopeless = self.flights > self.rules.capacity;
        while self.is_over(is_hopeless) && self.evict_negative() {}

        // In the first round all values may be spared.
        let mut in_vain = 0;
        while self.is_over(is_hopeless) && in_vain < 2 {
            in_vain = if self.evict_value() { 0 } else { in_vain + 1 };
        }
        !is_hopeless && !self.is_over(is_hopeless)
    }

    fn is_over(&self, is_hopeless: bool) -> bool {
        let flights = if is_hopeless { 0 } else { self.flights };
        flights + self.kept() > self.rules.capacity
    }

    /// Drops the oldest negative entry. Returns whether there was one.
    fn evict_negative(&mut self) -> bool {
        let entries = self.entries.values_mut();
        let negatives = entries.filter(|entry| entry.negative().is_some());
        let number = |entry: &&mut Entry| entry.negative().map(|cached| cached.counted.number);
        let Some(oldest) = negatives.min_by_key(number) else {
            return false;
        };

        let counted = oldest.take_negative();
        self.release(counted);
        self.clear();
        true
    }

    /// Looks at each value once, and drops the first that may go.
    fn evict_value(&mut self) -> bool {
        let has_value = |entry: &&Entry| entry.value.is_some();
        let count = self.entries.values().filter(has_value).count();
        (0..count).any(|_| self.advance_hand())
    }

    /// One step of SIEVE: the hand goes to the next newer value, or from the newest to
    /// the oldest, and evicts it or spares it once. A pinned value always stays.
    /// Returns whether it was evicted.
    fn advance_hand(&mut self) -> bool {
        let hand = self.hand;
        let entries = self.entries.values_mut();
        let kept = entries.filter(|entry| entry.value.is_some());
        let order = |entry: &&mut Entry| (entry.number() <= hand, entry.number());
        let Some(next) = kept.min_by_key(order) else {
            return false;
        };

        self.hand = next.number();
        if next.is_pinned() {
            return false;
        }
        let evicted = next.value.take_if(|kept| !kept.asked_for);
        if let Some(spared) = &mut next.value {
            spared.asked_for = false;
        }

        let is_evicted = evicted.is_some();
        self.release_value(evicted);
        self.clear();
        is_evicted
    }

    /// Drops all negative entries whose time has passed.
    pub(super) fn release_expired(&mut self, now: u64) {
        let is_expired = |entry: &Entry| entry.negative().is_some_and(|c| now >= c.until);
        for key in self.keys(None) {
            let entry = self.entries.entry(key).or_default();
            if is_expired(entry) {
                let counted = entry.take_negative();
                self.release(counted);
            }
        }
        self.clear();
    }
}
