//! What a cache keeps: a value, with the bytes that it counts.

use super::Reservation;
use std::sync::Arc;

/// A value as the cache keeps it. It holds its reservation, in itself or beside itself:
/// no cached value needs an allocation for that alone.
pub trait Stored {
    /// What a look-up gets. Where it shares the reservation, that counts until the last
    /// copy is dropped, also after the eviction.
    type Value: Clone;

    /// Puts the two together.
    fn store(value: Self::Value, reservation: Reservation) -> Self;

    /// The value.
    fn value(&self) -> &Self::Value;

    /// Its reservation. `None` if it never had one.
    fn reservation(&self) -> Option<&Reservation>;
}

/// A value that knows nothing of its reservation: the cache frees that as soon as it
/// drops the value.
#[derive(Debug)]
pub struct Plain<T> {
    value: T,
    reservation: Reservation,
}

impl<T: Clone> Stored for Plain<T> {
    type Value = T;

    fn store(value: T, reservation: Reservation) -> Plain<T> {
        Plain { value, reservation }
    }

    #[inline]
    fn value(&self) -> &T {
        &self.value
    }

    fn reservation(&self) -> Option<&Reservation> {
        Some(&self.reservation)
    }
}

/// A reservation alone, shared.
impl Stored for Arc<Reservation> {
    type Value = Arc<Reservation>;

    fn store(_: Arc<Reservation>, reservation: Reservation) -> Arc<Reservation> {
        reservation.into()
    }

    fn value(&self) -> &Arc<Reservation> {
        self
    }

    fn reservation(&self) -> Option<&Reservation> {
        Some(self)
    }
}

/// The cache's own share of a value. From its end on, the bytes count as a flight's:
/// readers may still hold them, and eviction can't free them.
#[derive(Debug)]
pub(super) struct RetireOnDrop<V: Stored>(V);

impl<V: Stored> RetireOnDrop<V> {
    pub(super) fn new(stored: V) -> RetireOnDrop<V> {
        if let Some(reservation) = stored.reservation() {
            reservation.enlist();
        }
        RetireOnDrop(stored)
    }

    #[inline]
    pub(super) fn stored(&self) -> &V {
        &self.0
    }
}

impl<V: Stored> Drop for RetireOnDrop<V> {
    fn drop(&mut self) {
        if let Some(reservation) = self.0.reservation() {
            reservation.retire();
        }
    }
}
