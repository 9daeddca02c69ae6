//! Values that are removed or made stale on request.

use super::table::{DropLater, PurgeRule};
use super::{Cache, STEP, Stored, UNPOISONED};
use crate::sync::drop_after;
use std::hash::Hash;
use std::time::Instant;

/// What becomes of purged values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// They are stale at once: within their grace they are served while they are
    /// refreshed. Without a grace they are gone.
    Soft,
    /// They are gone.
    Hard,
}

impl Purge {
    /// The one word for it in logs.
    pub fn word(self) -> &'static str {
        match self {
            Purge::Soft => "soft",
            Purge::Hard => "hard",
        }
    }
}

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Cache<K, V, F> {
    /// Purges all values and cached failures, and detaches the fetches under way. Their
    /// readers still get the text, but it is not kept, and the next request starts a
    /// fetch of its own. Flights that `spares` picks stay what they are. Returns the
    /// number of keys that had a value or a cached failure, and the flights that were
    /// detached.
    ///
    /// A lock is held for at most 4096 entries. A value that comes meanwhile may be
    /// purged as well.
    pub fn purge(&self, how: Purge, now: Instant, spares: impl Fn(&F) -> bool) -> (u64, Vec<F>) {
        let rule = PurgeRule {
            now,
            how,
            spares: &spares,
        };
        let mut detached = Vec::new();
        let mut purged = 0;

        for shard in &self.shards {
            let mut most = usize::MAX;
            while most > 0 {
                purged += drop_after(shard.write().expect(UNPOISONED), |table| {
                    let mut out = DropLater::new();
                    let (count, before) = table.purge_last(most, STEP, &rule, &mut out);
                    most = before;
                    detached.append(&mut out.detached);
                    (count, out)
                });
            }
        }
        (purged, detached)
    }

    /// Purges one key, like [`Cache::purge`]. Returns whether it had a value or
    /// a cached failure.
    pub fn remove(
        &self,
        key: &K,
        how: Purge,
        now: Instant,
        spares: impl Fn(&F) -> bool,
    ) -> (bool, Vec<F>) {
        let rule = PurgeRule {
            now,
            how,
            spares: &spares,
        };
        let hash = self.hasher.hash_one(key);

        drop_after(self.lock(hash), |table| {
            let mut out = DropLater::new();
            let found = table.purge_one((hash, key), &rule, &mut out);
            let flights = std::mem::take(&mut out.detached);
            ((found, flights), out)
        })
    }
}
