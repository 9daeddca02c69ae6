//! What the cache was given to keep: values, negative entries, pauses.

use std::collections::BTreeMap;
use std::sync::Weak;

/// A value or a negative entry. It lives for as long as the cache keeps it.
pub struct Given {
    pub alive: Weak<u32>,
    pub fresh_until: u64,
    /// When it ends.
    pub stale_until: u64,
    pub bytes: u64,
}

/// After a refresh that failed.
pub struct Pause {
    pub not_before: u64,
    /// Refreshes that have failed in a row.
    pub failures: usize,
}

/// By key.
#[derive(Default)]
pub struct Kept {
    pub values: BTreeMap<u8, Given>,
    pub negatives: BTreeMap<u8, Given>,
    pub pauses: BTreeMap<u8, Pause>,
}

impl Kept {
    /// The bytes of values and negative entries.
    pub fn bytes(&self) -> u64 {
        self.given().map(|given| given.bytes).sum()
    }

    /// All values and negative entries.
    pub fn given(&self) -> impl Iterator<Item = &Given> {
        self.values.values().chain(self.negatives.values())
    }

    /// Whether the refresh of a kept value has to wait.
    pub fn is_paused(&self, key: u8, now: u64) -> bool {
        let pause = self.pauses.get(&key);
        pause.is_some_and(|pause| now < pause.not_before)
    }

    /// Forgets what a look-up of this key drops if its time has passed. (A fresh value
    /// hides what is known of the last fetch, but there is nothing to hide then.)
    pub fn expire(&mut self, key: u8, now: u64) {
        let is_over = |given: &Given| now >= given.stale_until;
        if self.values.get(&key).is_some_and(is_over) {
            self.values.remove(&key);
            self.pauses.remove(&key);
        }
        if self.negatives.get(&key).is_some_and(is_over) && !self.is_paused(key, now) {
            self.negatives.remove(&key);
        }
    }

    /// Forgets what a purge of the picked keys drops, and returns it.
    pub fn purge(&mut self, picked: impl Fn(u8) -> bool, now: u64, grace: u64) -> Vec<Given> {
        self.pauses.retain(|key, _| !picked(*key));
        let mut gone = take_if(&mut self.negatives, |key, _| picked(key));
        gone.extend(take_if(&mut self.values, |key, given| {
            if !picked(key) {
                return false;
            }
            given.fresh_until = given.fresh_until.min(now);
            given.stale_until = given.stale_until.min(now + grace);
            given.stale_until <= now
        }));
        gone.into_iter().map(|(_, given)| given).collect()
    }
}

/// Takes out what `is_taken` picks.
pub fn take_if(
    from: &mut BTreeMap<u8, Given>,
    mut is_taken: impl FnMut(u8, &mut Given) -> bool,
) -> Vec<(u8, Given)> {
    let mut taken = Vec::new();
    for (key, mut given) in std::mem::take(from) {
        if is_taken(key, &mut given) {
            taken.push((key, given));
        } else {
            from.insert(key, given);
        }
    }
    taken
}
