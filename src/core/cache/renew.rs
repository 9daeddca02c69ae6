//! A fetch that no request asks for.

use super::table::FetchState;
use super::{Cache, KeyAsked, Lead, Stored};
use crate::sync::drop_after;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Cache<K, V, F> {
    /// The right to fetch a value, whatever is cached: a value stays until the new one
    /// is committed; a cached failure, a hit-for-miss or a pause ends here. `launch`
    /// makes the two ends of a flight.
    ///
    /// # Errors
    /// The flight of the fetch that is under way already.
    pub fn renew<W>(
        self: &Arc<Self>,
        key: &K,
        now: Instant,
        launch: impl FnOnce() -> (W, F),
    ) -> Result<Lead<K, V, F, W>, F> {
        let hash = self.hasher.hash_one(key);
        drop_after(self.lock(hash), |table| {
            let at = table.entry(hash, key);
            let expired = table.take_expired(at, now);
            if let Some(fetch) = table.at(at).fetch()
                && let FetchState::InFlight(flight) = &fetch.state
            {
                return (Err(flight.clone()), (expired, None));
            }

            let before = table.at_mut(at).take_fetch();
            let failures = before.as_ref().map(|fetch| fetch.failures);
            let failures = failures.unwrap_or_else(|| expired.failures());
            let lead = self.lead(table, at, failures, KeyAsked { hash, key, now }, launch);
            (Ok(lead), (expired, before))
        })
    }
}
