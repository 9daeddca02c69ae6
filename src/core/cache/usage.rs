//! What a cache holds, in bytes: a [`Reservation`] for each thing, and their sums.

use crate::sync::atomic::{AtomicU64, Ordering};
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
///
/// 16 bytes, for each cached value has one.
pub struct Reservation {
    usage: Arc<Usage>,
    /// How many bytes, and in the two lowest bits their [`Kind`].
    packed: AtomicU64,
}

const KIND_BITS: u32 = 2;

impl Reservation {
    pub(super) fn new(usage: &Arc<Usage>, kind: Kind, bytes: u64) -> Reservation {
        let mut reservation = Reservation {
            usage: usage.clone(),
            packed: pack(kind, 0).into(),
        };
        reservation.set(bytes);
        reservation
    }

    /// Counts this many bytes from now on.
    pub(crate) fn set(&mut self, bytes: u64) {
        let before = self.bytes();
        let kind = self.kind();
        let counter = self.usage.counter(kind);

        if bytes >= before {
            counter.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            counter.fetch_sub(before - bytes, Ordering::Relaxed);
        }
        self.packed.store(pack(kind, bytes), Ordering::Relaxed);
    }

    pub(super) fn becomes(mut self, kind: Kind) -> Reservation {
        let bytes = self.bytes();
        self.set(0);
        self.packed.store(pack(kind, 0), Ordering::Relaxed);
        self.set(bytes);
        self
    }

    /// The cache has taken a share: from now on it is one of what can be evicted.
    pub(super) fn enlist(&self) {
        if let Some(number) = self.usage.number(self.kind()) {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The cache has dropped its share. The bytes may still be in use, and can't be
    /// freed by eviction, so from now on they count as a flight's.
    pub(super) fn retire(&self) {
        let (kind, bytes) = (self.kind(), self.bytes());
        if let Some(number) = self.usage.number(kind) {
            number.fetch_sub(1, Ordering::Relaxed);
        }
        let flights = self.usage.counter(Kind::Flight);
        flights.fetch_add(bytes, Ordering::Relaxed);
        self.usage.counter(kind).fetch_sub(bytes, Ordering::Relaxed);

        // The last owner sees this when it drops the reservation, as it sees all else.
        self.packed
            .store(pack(Kind::Flight, bytes), Ordering::Relaxed);
    }

    /// The bytes that are reserved.
    pub fn bytes(&self) -> u64 {
        self.packed.load(Ordering::Relaxed) >> KIND_BITS
    }

    fn kind(&self) -> Kind {
        match self.packed.load(Ordering::Relaxed) & ((1 << KIND_BITS) - 1) {
            0 => Kind::Flight,
            1 => Kind::Refresh,
            2 => Kind::Value,
            _ => Kind::Negative,
        }
    }
}

/// No memory has 2^62 bytes.
fn pack(kind: Kind, bytes: u64) -> u64 {
    let kind = match kind {
        Kind::Flight => 0,
        Kind::Refresh => 1,
        Kind::Value => 2,
        Kind::Negative => 3,
    };
    (bytes << KIND_BITS) | kind
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reservation({} bytes, {:?})", self.bytes(), self.kind())
    }
}

#[cfg(test)]
mod tests;
