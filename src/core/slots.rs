//! How many connections may be served at once: a limit that no acceptor can overshoot.
//!
//! An acceptor takes a [`Slot`] before it accepts, so the count is right before the
//! connection exists. A connection that is answered on the spot leaves the slot with
//! the acceptor; one that needs a task takes it along.

use event_listener::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fixed number of slots. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    shared: Arc<Counter>,
}

#[derive(Debug)]
struct Counter {
    limit: u64,
    taken: AtomicU64,
    /// Wakes what waits for a slot, or for all of them to be free.
    freed: Event,
}

/// One slot, freed when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Counter>,
}

impl Slots {
    pub(crate) fn new(limit: u64) -> Slots {
        Slots {
            shared: Arc::new(Counter {
                limit,
                taken: AtomicU64::new(0),
                freed: Event::new(),
            }),
        }
    }

    /// Waits for a slot.
    pub(crate) async fn acquire(&self) -> Slot {
        loop {
            if let Some(slot) = self.try_acquire() {
                return slot;
            }

            let freed = self.shared.freed.listen(); // before the second look, or a wake is lost
            if let Some(slot) = self.try_acquire() {
                return slot;
            }
            freed.await;
        }
    }

    fn try_acquire(&self) -> Option<Slot> {
        let counter = &self.shared;
        let taken = counter
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < counter.limit).then_some(taken + 1)
            });

        taken.ok().map(|_| Slot {
            shared: counter.clone(),
        })
    }

    /// Slots taken at this moment.
    pub(crate) fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Acquire)
    }

    /// Waits until all slots are free.
    pub(crate) async fn all_free(&self) {
        while self.taken() > 0 {
            let freed = self.shared.freed.listen(); // before the second look, or a wake is lost
            if self.taken() == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.taken.fetch_sub(1, Ordering::AcqRel);
        self.shared.freed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt;

    #[test]
    fn a_slot_that_is_freed_goes_to_a_waiter() {
        let slots = Slots::new(1);
        let slot = slots.acquire().now_or_never().expect("it is free");
        let mut waits = Box::pin(slots.acquire());
        assert!(waits.as_mut().now_or_never().is_none());

        drop(slot);
        let slot = waits.now_or_never().expect("it was freed");
        assert_eq!(slots.taken(), 1);

        let mut idle = Box::pin(slots.all_free());
        assert!(idle.as_mut().now_or_never().is_none());
        drop(slot);
        assert!(idle.now_or_never().is_some());
    }

    #[test]
    fn no_order_of_acceptors_overshoots_the_limit() {
        let slots = Slots::new(10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let held: Vec<_> = (0..5).filter_map(|_| slots.try_acquire()).collect();
                        assert!(slots.taken() <= 10);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(slots.taken(), 0);
    }
}
