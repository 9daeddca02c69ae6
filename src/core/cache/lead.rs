//! How the fetch of an entry begins, and when one begins before the value is stale.

use super::table::{FetchEntry, FetchState, Table};
use super::usage::Kind;
use super::{Cache, ENTRY_WEIGHT, FLIGHT_WEIGHT, Fill, Freshness, Reservation, Stored};
use crate::sync::atomic::Ordering;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a request that has to fetch gets.
#[derive(Debug)]
pub struct Lead<K: Eq + Hash + Clone, V: Stored, F: Clone, W> {
    /// The right to fill the cache's entry.
    pub fill: Fill<K, V, F>,
    /// What `launch` made to write the flight with.
    pub writer: W,
    /// The flight that other requests join.
    pub flight: F,
}

/// A key that is asked for, and when.
#[derive(Clone, Copy)]
pub(super) struct KeyAsked<'a, K> {
    pub hash: u64,
    pub key: &'a K,
    pub now: Instant,
}

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Cache<K, V, F> {
    /// The same, empty cache. In the last `part` of a value's ttl, from 0 to 1, a
    /// request starts a refresh, if the value was asked for before. Each value has its
    /// own ttl.
    ///
    /// # Panics
    /// If the cache is shared already.
    pub fn refreshing_ahead(mut self: Arc<Self>, part: f64) -> Arc<Self> {
        let cache = Arc::get_mut(&mut self).expect("a new cache is not shared yet");
        cache.ahead = part;
        self
    }

    /// How long before its end such a part of a ttl begins.
    pub(super) fn ahead(&self, freshness: Freshness, now: Instant) -> Duration {
        let ttl = freshness.fresh_until.saturating_duration_since(now);
        ttl.mul_f64(self.ahead)
    }

    /// A new fetch of an entry. It refreshes the value that the entry has, if any.
    pub(super) fn lead<W>(
        self: &Arc<Self>,
        table: &mut Table<K, V, F>,
        at: u32,
        failures: u32,
        asked: KeyAsked<'_, K>,
        launch: impl FnOnce() -> (W, F),
    ) -> Lead<K, V, F, W> {
        let kept = table.at(at).kept();
        let replaced = kept.map(|kept| (kept.value().clone(), kept.weight()));
        let (writer, flight) = launch();
        let ticket = self.ticket();
        table.at_mut(at).set_fetch(FetchEntry {
            ticket,
            state: FetchState::InFlight(flight.clone()),
            failures,
            not_before: asked.now,
        });
        Lead {
            fill: self.fill(asked.hash, asked.key, ticket, replaced),
            writer,
            flight,
        }
    }

    pub(super) fn fill(
        self: &Arc<Self>,
        hash: u64,
        key: &K,
        ticket: u64,
        replaced: Option<(V::Value, u64)>,
    ) -> Fill<K, V, F> {
        let entry_weight = ENTRY_WEIGHT + (self.weigh)(key);
        let kind = if replaced.is_some() {
            Kind::Refresh
        } else {
            Kind::Flight
        };

        Fill {
            cache: self.clone(),
            key: key.clone(),
            hash,
            ticket,
            entry_weight,
            times: self.policy.times(),
            reservation: Reservation::new(&self.usage, kind, entry_weight + FLIGHT_WEIGHT),
            replaced,
            outdated: None,
        }
    }

    fn ticket(&self) -> u64 {
        self.last_ticket.fetch_add(1, Ordering::Relaxed)
    }
}
