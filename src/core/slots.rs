//! How many connections may be served at once: a limit that no acceptor can overshoot.
//!
//! An acceptor takes a [`Slot`] before it accepts, so the count is right before the
//! connection exists. A connection that is answered on the spot leaves the slot with
//! the acceptor; one that needs a task takes it along.
//!
//! **All threads share them.** Slots split among threads would refuse a client of one
//! thread while another has slots left, as the kernel spreads connections and not work.
//! Sharing costs a hit nothing: it uses its acceptor's slot again. Where slots are
//! scarce, those that wait get them in the order of asking, and an acceptor gives its
//! own back for them ([`Slots::are_wanted`]). Otherwise a busy thread would keep it,
//! and the clients of the others would wait for ever.
//!
//! A client that has closed its sending side and waits may be gone: nothing tells. It
//! lends its slot to others until its answer comes. It takes it back at once then, even
//! over the limit, for a reader that waits would delay others. The number of lent slots
//! has a limit of its own, which is the number of connections over the first limit.

use crate::semaphore::Semaphore;
use event_listener::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A fixed number of slots. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    shared: Arc<Counter>,
}

#[derive(Debug)]
struct Counter {
    limit: u64,
    taken: AtomicU64,
    lent_limit: u64,
    lent: AtomicU64,
    /// Those taken and those lent.
    held: AtomicU64,
    /// Wakes what waits for a slot, or for all of them to be free.
    freed: Event,
    /// Acceptors that wait for a slot. While there are any, no other gets one.
    wanting: AtomicU64,
    /// Puts them in order: the first waits for a slot, the others for this.
    line: Semaphore,
}

/// Counts an acceptor that waits, until this is dropped.
struct Wanting<'a>(&'a AtomicU64);

impl<'a> Wanting<'a> {
    fn new(count: &'a AtomicU64) -> Wanting<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        Wanting(count)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One slot, freed when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Counter>,
    is_lent: AtomicBool,
}

impl Slots {
    /// `limit` slots, of which `lent_limit` may be lent to others at a time.
    pub(crate) fn new(limit: u64, lent_limit: u64) -> Slots {
        Slots {
            shared: Arc::new(Counter {
                limit,
                taken: AtomicU64::new(0),
                lent_limit,
                lent: AtomicU64::new(0),
                held: AtomicU64::new(0),
                freed: Event::new(),
                wanting: AtomicU64::new(0),
                line: Semaphore::new(1),
            }),
        }
    }

    /// Whether an acceptor waits for a slot.
    pub(crate) fn are_wanted(&self) -> bool {
        self.shared.wanting.load(Ordering::Acquire) > 0
    }

    /// A slot, if one is free and no acceptor waits for it.
    pub(crate) fn try_acquire(&self) -> Option<Slot> {
        if self.are_wanted() {
            return None;
        }
        self.take()
    }

    /// Waits for a slot, behind those that wait already.
    pub(crate) async fn acquire(&self, now: Instant) -> Slot {
        let _wanting = Wanting::new(&self.shared.wanting);
        let _first_in_line = self.shared.line.acquire(now).await;
        loop {
            if let Some(slot) = self.take() {
                return slot;
            }

            let freed = self.shared.freed.listen(); // before the second look, or a wake is lost
            if let Some(slot) = self.take() {
                return slot;
            }
            freed.await;
        }
    }

    fn take(&self) -> Option<Slot> {
        let counter = &self.shared;
        if !raise(&counter.taken, counter.limit) {
            return None;
        }

        counter.held.fetch_add(1, Ordering::AcqRel);
        Some(Slot {
            shared: counter.clone(),
            is_lent: AtomicBool::new(false),
        })
    }

    /// Connections at this moment: slots taken and slots lent.
    pub(crate) fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Acquire)
    }

    /// Waits until no connection is left.
    pub(crate) async fn all_free(&self) {
        while self.held() > 0 {
            let freed = self.shared.freed.listen(); // before the second look, or a wake is lost
            if self.held() == 0 {
                return;
            }
            freed.await;
        }
    }
}

/// Adds one, unless that goes over the limit. Returns whether it was added.
fn raise(count: &AtomicU64, limit: u64) -> bool {
    let raised = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
        (count < limit).then_some(count + 1)
    });
    raised.is_ok()
}

impl Slot {
    /// Lends the slot to others, if not too many are lent. Does nothing if it is lent.
    pub(crate) fn lend(&self) {
        let counter = &self.shared;
        if self.is_lent.load(Ordering::Acquire) || !raise(&counter.lent, counter.lent_limit) {
            return;
        }

        self.is_lent.store(true, Ordering::Release);
        counter.taken.fetch_sub(1, Ordering::AcqRel);
        counter.freed.notify(usize::MAX);
    }

    /// Takes a slot that was lent, even if none is free. Does nothing if it is not
    /// lent.
    pub(crate) fn take_back(&self) {
        if self.is_lent.swap(false, Ordering::AcqRel) {
            self.shared.taken.fetch_add(1, Ordering::AcqRel);
            self.shared.lent.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let counter = &self.shared;
        let is_lent = *self.is_lent.get_mut();
        counter.held.fetch_sub(1, Ordering::AcqRel); // before another can take the slot

        let count = if is_lent {
            &counter.lent
        } else {
            &counter.taken
        };
        count.fetch_sub(1, Ordering::AcqRel);
        counter.freed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt;

    #[test]
    fn a_slot_that_is_freed_goes_to_a_waiter() {
        let slots = Slots::new(1, 0);
        let slot = slots.try_acquire().expect("it is free");
        let mut waits = Box::pin(slots.acquire(Instant::now()));
        assert!(waits.as_mut().now_or_never().is_none());

        drop(slot);
        let slot = waits.now_or_never().expect("it was freed");
        assert_eq!(slots.held(), 1);

        let mut idle = Box::pin(slots.all_free());
        assert!(idle.as_mut().now_or_never().is_none());
        drop(slot);
        assert!(idle.now_or_never().is_some());
    }

    #[test]
    fn those_that_wait_get_slots_in_order_and_before_any_other() {
        let slots = Slots::new(1, 0);
        let now = Instant::now();
        let slot = slots.try_acquire().expect("it is free");
        assert!(!slots.are_wanted());

        let mut first = Box::pin(slots.acquire(now));
        let mut second = Box::pin(slots.acquire(now));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(slots.are_wanted());

        drop(slot);
        assert!(slots.try_acquire().is_none(), "it is the first one's");
        assert!(second.as_mut().now_or_never().is_none());
        let slot = first.now_or_never().expect("it is free");
        drop(slot);
        drop(second); // it has its turn, and leaves
        assert!(!slots.are_wanted());
        assert!(slots.try_acquire().is_some());
    }

    #[test]
    fn a_lent_slot_goes_to_another_and_comes_back_over_the_limit() {
        let slots = Slots::new(1, 1);
        let lender = slots.try_acquire().expect("it is free");
        assert!(slots.try_acquire().is_none());

        lender.lend();
        let other = slots.try_acquire().expect("it was lent");
        lender.lend();
        assert!(slots.try_acquire().is_none(), "it was lent once");
        assert_eq!(slots.held(), 2);

        lender.take_back();
        lender.take_back();
        assert_eq!(slots.held(), 2);
        drop(other);
        assert!(slots.try_acquire().is_none(), "the lender has it again");
        drop(lender);
        assert_eq!(slots.held(), 0);
    }

    #[test]
    fn no_more_slots_are_lent_than_allowed() {
        let slots = Slots::new(2, 1);
        let held: Vec<_> = (0..2).filter_map(|_| slots.try_acquire()).collect();
        held.iter().for_each(Slot::lend);

        let third = slots.try_acquire();
        assert!(third.is_some());
        assert!(slots.try_acquire().is_none(), "the second was not lent");

        drop((held, third));
        assert_eq!(slots.held(), 0);
    }

    #[test]
    fn lenders_on_several_threads_lose_no_slot() {
        let slots = Slots::new(4, 2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let Some(slot) = slots.try_acquire() else {
                            continue;
                        };
                        slot.lend();
                        assert!(slots.held() <= 6);
                        slot.take_back();
                    }
                });
            }
        });
        assert_eq!(slots.held(), 0);
    }

    #[test]
    fn no_order_of_acceptors_overshoots_the_limit() {
        let slots = Slots::new(10, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let held: Vec<_> = (0..5).filter_map(|_| slots.try_acquire()).collect();
                        assert!(slots.held() <= 10);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(slots.held(), 0);
    }
}
