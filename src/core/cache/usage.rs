//! What a cache holds, in bytes: a [`Reservation`] for each thing, and their sums.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

/// What a reservation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A fetch under way. Never evicted.
    Flight,
    /// A fetch under way that will replace a kept value. Never evicted, and evicts
    /// nothing.
    Refresh,
    /// A kept value.
    Value,
    /// A cached failure. Evicted first.
    Negative,
}

/// The sums of all reservations of a cache, in bytes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    flights: AtomicU64,
    refreshes: AtomicU64,
    values: AtomicU64,
    negatives: AtomicU64,
    /// Values and cached failures that the cache holds, and those it has evicted.
    value_count: AtomicU64,
    negative_count: AtomicU64,
    evicted_values: AtomicU64,
    evicted_negatives: AtomicU64,
}

/// What a cache holds, and what it has evicted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Kept values, and their bytes.
    pub kept: (u64, u64),
    /// Cached failures, and their bytes.
    pub negative: (u64, u64),
    /// Values evicted for lack of room.
    pub evicted_kept: u64,
    /// Cached failures evicted for lack of room.
    pub evicted_negative: u64,
}

impl Usage {
    /// What the reservations of one kind come to.
    pub(super) fn of(&self, kind: Kind) -> u64 {
        self.counter(kind).load(Ordering::Relaxed)
    }

    /// Values and cached failures.
    pub(super) fn kept(&self) -> u64 {
        self.of(Kind::Value) + self.of(Kind::Negative)
    }

    /// What the capacity bounds: everything except refreshes, which have a bound of
    /// their own (see [`Fill::reserve`](super::Fill::reserve)).
    pub(super) fn bounded(&self) -> u64 {
        self.of(Kind::Flight) + self.kept()
    }

    /// Everything.
    pub(super) fn total(&self) -> u64 {
        self.bounded() + self.of(Kind::Refresh)
    }

    /// The figures of what is kept.
    pub(super) fn figures(&self) -> CacheUsage {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheUsage {
            kept: (count(&self.value_count), self.of(Kind::Value)),
            negative: (count(&self.negative_count), self.of(Kind::Negative)),
            evicted_kept: count(&self.evicted_values),
            evicted_negative: count(&self.evicted_negatives),
        }
    }

    /// Counts an eviction.
    pub(super) fn evicted(&self, kind: Kind) {
        match kind {
            Kind::Value => self.evicted_values.fetch_add(1, Ordering::Relaxed),
            Kind::Negative => self.evicted_negatives.fetch_add(1, Ordering::Relaxed),
            Kind::Flight | Kind::Refresh => 0, // never evicted
        };
    }

    /// How many the cache holds of what can be evicted.
    fn number(&self, kind: Kind) -> Option<&AtomicU64> {
        match kind {
            Kind::Flight | Kind::Refresh => None,
            Kind::Value => Some(&self.value_count),
            Kind::Negative => Some(&self.negative_count),
        }
    }

    fn counter(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Flight => &self.flights,
            Kind::Refresh => &self.refreshes,
            Kind::Value => &self.values,
            Kind::Negative => &self.negatives,
        }
    }
}

/// Bytes that count against the capacity for as long as this exists.
#[derive(Debug)]
pub struct Reservation {
    usage: Arc<Usage>,
    kind: Kind,
    bytes: u64,
    /// Whether the cache has dropped its share. The bytes are still in use, and can't
    /// be freed by eviction, so from then on they count as a flight's.
    is_retired: AtomicBool,
}

/// The cache's own share of a reservation that readers may share.
#[derive(Debug)]
pub(super) struct RetireOnDrop(Arc<Reservation>);

impl RetireOnDrop {
    pub(super) fn new(reservation: Arc<Reservation>) -> RetireOnDrop {
        if let Some(number) = reservation.usage.number(reservation.kind) {
            number.fetch_add(1, Ordering::Relaxed);
        }
        RetireOnDrop(reservation)
    }

    /// The bytes that are reserved.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

impl Drop for RetireOnDrop {
    fn drop(&mut self) {
        if let Some(number) = self.0.usage.number(self.0.kind) {
            number.fetch_sub(1, Ordering::Relaxed);
        }
        self.0.retire();
    }
}

impl Reservation {
    pub(super) fn new(usage: &Arc<Usage>, kind: Kind, bytes: u64) -> Reservation {
        let mut reservation = Reservation {
            usage: usage.clone(),
            kind,
            bytes: 0,
            is_retired: false.into(),
        };
        reservation.set(bytes);
        reservation
    }

    pub(super) fn set(&mut self, bytes: u64) {
        let is_retired = self.is_retired.load(Ordering::Relaxed);
        let kind = if is_retired { Kind::Flight } else { self.kind };
        let counter = self.usage.counter(kind);

        if bytes >= self.bytes {
            counter.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    pub(super) fn becomes(mut self, kind: Kind) -> Reservation {
        let bytes = self.bytes;
        self.set(0);
        self.kind = kind;
        self.set(bytes);
        self
    }

    fn retire(&self) {
        let flights = self.usage.counter(Kind::Flight);
        flights.fetch_add(self.bytes, Ordering::Relaxed);
        let counter = self.usage.counter(self.kind);
        counter.fetch_sub(self.bytes, Ordering::Relaxed);

        // The last owner sees this when it drops the reservation, as it sees all else.
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// The bytes that are reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}
