//! The right to fill one entry of the cache.

use super::stored::{RetireOnDrop, Stored};
use super::table::{DropLater, FetchEntry, FetchState, NegativeEntry};
use super::usage::{Kind, Reservation};
use super::{Cache, FLIGHT_WEIGHT, Freshness, KeepTimes};
use crate::sync::drop_after;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The right to fill one entry, and the room for the value to come. Dropped, it leaves
/// the key as it was.
///
/// Drop or consume it before the flight's readers learn of the end, so that a client
/// that asks again finds the key settled. The methods that consume it without keeping
/// the value return the reservation: the flight's readers still hold the bytes.
pub struct Fill<K: Eq + Hash + Clone, V: Stored, F: Clone> {
    pub(super) cache: Arc<Cache<K, V, F>>,
    pub(super) key: K,
    pub(super) hash: u64,
    pub(super) ticket: u64,
    /// What the entry costs beside its value.
    pub(super) entry_weight: u64,
    /// How long its value or its failure is kept: the policy's times, if it has no own.
    pub(super) times: KeepTimes,
    pub(super) reservation: Reservation,
    /// The stale value that this fetch refreshes, and its weight.
    pub(super) replaced: Option<(V::Value, u64)>,
    /// The value that had expired when this fetch was started.
    pub(super) outdated: Option<V::Value>,
}

/// Whether a failure is cached for the `fail_ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFailure {
    /// It says something about the upstream: requests are told for a while.
    Yes,
    /// It is our own: the next request tries again.
    No,
}

/// The pause after a failed refresh: it doubles from the first to the second.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a refresh may always hold beyond the weight of the value it replaces, in bytes:
/// new texts are often a little longer than old ones.
const REFRESH_SLACK: u64 = 64 << 10;

/// The part of the capacity up to which a fetch evicts values for its own. A longer one
/// takes only free room, so that one large poem, which may not even be kept in the end,
/// does not wipe the cache.
const EVICTING_PART: u64 = 4;

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Fill<K, V, F> {
    /// The stale value that this fetch refreshes. It is held for as long as the refresh
    /// lasts, so that the two can be compared.
    pub fn replaces(&self) -> Option<&V::Value> {
        self.replaced.as_ref().map(|(value, _)| value)
    }

    /// The value that had expired, past its grace, when this fetch was started. It is
    /// not served; it counts until it is dropped.
    pub fn outdated(&self) -> Option<&V::Value> {
        self.outdated.as_ref()
    }

    /// Drops the value that had expired.
    pub fn drop_outdated(&mut self) {
        self.outdated = None;
    }

    /// Counts `total` bytes against the capacity for the value under way, and evicts
    /// others for them as far as allowed. False, and nothing changes, where there is no
    /// room:
    ///
    /// * A fetch evicts cached failures and values while it holds at most a quarter of
    ///   the capacity. Beyond that it takes only what is free.
    /// * A refresh evicts nothing before it has succeeded. It takes what is free, or as
    ///   much as the value it replaces and 64 KiB beyond the capacity.
    pub fn reserve(&mut self, total: u64) -> bool {
        let before = self.reservation.bytes();
        self.reservation.set(self.flight_weight() + total);

        let cache = &self.cache;
        let capacity = cache.policy.capacity;
        let fits = if let Some((_, old)) = &self.replaced {
            self.reservation.bytes() <= old + REFRESH_SLACK || cache.held() <= capacity
        } else if cache.usage.of(Kind::Flight) > capacity {
            false
        } else if self.reservation.bytes() <= capacity / EVICTING_PART {
            cache.shrink()
        } else {
            cache.usage.bounded() <= capacity
        };

        if !fits {
            self.reservation.set(before);
        }
        fits
    }

    /// Counts `total` bytes, and evicts whatever it takes: for a value that is of use
    /// only when it is complete. False where that is not enough.
    pub fn reserve_whole(&mut self, total: u64) -> bool {
        if self.replaced.is_some() {
            return self.reserve(total);
        }

        let before = self.reservation.bytes();
        self.reservation.set(self.flight_weight() + total);
        let fits = self.cache.shrink();
        if !fits {
            self.reservation.set(before);
        }
        fits
    }

    /// Counts `bytes` for a fetch that waits for its turn. False, and nothing changes,
    /// where fetches would take more than half of the capacity.
    pub fn reserve_waiting(&mut self, bytes: u64) -> bool {
        let before = self.reservation.bytes();
        self.reservation.set(self.flight_weight() + bytes);

        let fits = self.cache.in_flight() <= self.cache.policy.capacity / 2;
        if !fits {
            self.reservation.set(before);
        }
        fits
    }

    /// Keeps what comes for these times, and not for the policy's.
    pub fn set_times(&mut self, times: KeepTimes) {
        self.times = times;
    }

    /// How long a value that came `now` is kept.
    pub fn freshness(&self, now: Instant) -> Freshness {
        self.times.freshness(now)
    }

    /// The same, for another ttl.
    pub fn freshness_for(&self, ttl: Duration, now: Instant) -> Freshness {
        KeepTimes { ttl, ..self.times }.freshness(now)
    }

    /// Keeps the value, `bytes` long, as long as `freshness` says.
    ///
    /// # Errors
    /// The reservation, where the value is not kept: after a purge, when it is stale at
    /// once, or when it is larger than the capacity.
    pub fn commit(
        self,
        value: V::Value,
        bytes: u64,
        freshness: Freshness,
        now: Instant,
    ) -> Result<(), Reservation> {
        let store = |reservation| V::store(value, reservation);
        self.commit_with(store, bytes, freshness, now)
    }

    /// Keeps what `store` makes of the reservation. It is called under the lock, and
    /// not where nothing is kept.
    ///
    /// # Errors
    /// Those of [`Fill::commit`].
    pub fn commit_with(
        mut self,
        store: impl FnOnce(Reservation) -> V,
        bytes: u64,
        freshness: Freshness,
        now: Instant,
    ) -> Result<(), Reservation> {
        let cache = self.cache.clone();
        let weight = bytes + self.entry_weight;

        let result = drop_after(cache.lock(self.hash), |table| {
            let mut out = DropLater::new();
            let own = |at: &u32| table.at(*at).takes_value_of(self.ticket, now);
            let Some(at) = table.find(self.hash, &self.key).filter(own) else {
                return (Err(self.take_reservation()), out); // purged
            };

            let fetch = table.at_mut(at).take_fetch();
            out.flights
                .extend(fetch.and_then(|fetch| fetch.state.into_flight()));
            if freshness.stale_until <= now || weight > cache.policy.capacity {
                table.remove_if_void(at);
                return (Err(self.take_reservation()), out);
            }

            out.values.extend(table.take_kept(at));
            let mut reservation = self.take_reservation().becomes(Kind::Value);
            reservation.set(weight);
            let ahead = cache.ahead(freshness, now);
            table.keep(at, store(reservation), freshness, ahead);
            (Ok(()), out)
        });

        self.replaced = None; // the old value makes way before any other
        if result.is_ok() {
            cache.shrink();
        }
        result
    }

    /// The fetch failed. The key is what it was; the failure is cached for the
    /// `fail_ttl` if `caching` says so. A refresh is followed by a pause: 1 s,
    /// doubled with each failure in a row up to 30 s, or `fail_ttl` where that is
    /// longer.
    pub fn fail(mut self, caching: CacheFailure, now: Instant) -> Reservation {
        if caching == CacheFailure::Yes && !self.times.fail_ttl.is_zero() {
            let negative = self.negative(self.flight_weight());
            self.mark(now, |flight, until| {
                FetchState::Negative(flight, negative.until(until))
            });
        } else {
            self.pause(now);
        }
        self.take_reservation()
    }

    /// The value is complete but not good enough to be kept. For the `fail_ttl`,
    /// requests still get it from its flight. Returns the reservation, which counts
    /// while the value is cached like that or read.
    pub fn reject(mut self, now: Instant) -> Arc<Reservation> {
        let reservation = Arc::new(self.take_reservation().becomes(Kind::Negative));
        let negative = Unmarked(RetireOnDrop::new(reservation.clone()));
        if self.times.fail_ttl.is_zero() {
            self.pause(now);
        } else {
            self.mark(now, |flight, until| {
                FetchState::Negative(flight, negative.until(until))
            });
        }
        reservation
    }

    /// The value is too long to be shared: for the `fail_ttl` each request
    /// fetches for itself.
    pub fn hit_for_miss(mut self, now: Instant) -> Reservation {
        if self.times.fail_ttl.is_zero() {
            self.pause(now);
        } else {
            let negative = self.negative(self.entry_weight);
            self.mark(now, |_, until| {
                FetchState::HitForMiss(negative.until(until))
            });
        }
        self.take_reservation()
    }

    /// The value can't be kept: it passes through, and the key is free. A refresh is
    /// followed by the pause of a failed one.
    pub fn give_up(mut self, now: Instant) -> Reservation {
        self.pause(now);
        self.take_reservation()
    }

    /// What the entry costs, beside its value, while it has a flight.
    fn flight_weight(&self) -> u64 {
        self.entry_weight + FLIGHT_WEIGHT
    }

    fn negative(&self, weight: u64) -> Unmarked {
        let usage = &self.cache.usage;
        let reservation = Reservation::new(usage, Kind::Negative, weight);
        Unmarked(RetireOnDrop::new(reservation.into()))
    }

    /// Makes a cached failure of the flight, if it is still the entry's own.
    fn mark(&self, now: Instant, state: impl FnOnce(F, Instant) -> FetchState<F>) {
        let until = now + self.times.fail_ttl;

        drop_after(self.cache.lock(self.hash), |table| {
            let mut out = DropLater::new();
            table.expire_negatives(now, &mut out);

            let Some(at) = table.find(self.hash, &self.key) else {
                return ((), out);
            };
            let Some(fetch) = table.at_mut(at).fetch_of(self.ticket) else {
                return ((), out);
            };
            // In another state it is one of several that fetch for themselves: how one
            // of them ended is not cached for all.
            if let FetchState::InFlight(flight) = &fetch.state {
                fetch.state = state(flight.clone(), until);
                fetch.pause(now, self.times.fail_ttl);
                table.queue_negative(self.hash, self.ticket, until);
            }
            ((), out)
        });
        self.cache.shrink();
    }

    /// Frees the key. Where a stale value is kept, its next refresh has to wait.
    fn pause(&self, now: Instant) {
        drop_after(self.cache.lock(self.hash), |table| {
            let Some(at) = table.find(self.hash, &self.key) else {
                return ((), None);
            };
            let has_value = table.at(at).kept().is_some();
            let Some(fetch) = table.at_mut(at).fetch_of(self.ticket) else {
                return ((), None);
            };
            if !has_value || !fetch.is_in_flight() {
                return ((), None); // dropping the fill is all there is to do
            }

            fetch.pause(now, self.times.fail_ttl);
            (
                (),
                Some(std::mem::replace(&mut fetch.state, FetchState::Paused)),
            )
        });
    }

    fn take_reservation(&mut self) -> Reservation {
        let nothing = Reservation::new(&self.cache.usage, Kind::Flight, 0);
        let reservation = std::mem::replace(&mut self.reservation, nothing);

        // From here on it counts as a flight's, which readers hold whatever it was for.
        reservation.becomes(Kind::Flight)
    }
}

impl<F> FetchEntry<F> {
    /// Lets the next refresh wait, longer with each failure in a row.
    fn pause(&mut self, now: Instant, fail_ttl: Duration) {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(5));
        let pause = doubled.min(PAUSE_MAX).max(fail_ttl);

        self.not_before = now + pause;
        self.failures += 1;
    }
}

/// A cached failure that has no end yet.
struct Unmarked(RetireOnDrop<Arc<Reservation>>);

impl Unmarked {
    fn until(self, until: Instant) -> NegativeEntry {
        NegativeEntry {
            until,
            _reservation: self.0,
        }
    }
}

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> Drop for Fill<K, V, F> {
    fn drop(&mut self) {
        drop_after(self.cache.lock(self.hash), |table| {
            let Some(at) = table.find(self.hash, &self.key) else {
                return ((), None);
            };

            let is_own =
                |fetch: &FetchEntry<F>| fetch.ticket == self.ticket && fetch.is_in_flight();
            let fetch = table.at_mut(at).take_fetch_if(is_own);
            table.remove_if_void(at);
            ((), fetch)
        });
    }
}

impl<K: Eq + Hash + Clone, V: Stored, F: Clone> std::fmt::Debug for Fill<K, V, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fill(ticket {})", self.ticket)
    }
}

#[cfg(test)]
mod tests;
