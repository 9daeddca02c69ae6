//! A semaphore that grants its permits in the order in which they were asked for.
//!
//! ```
//! use poetry::semaphore::Semaphore;
//! use futures::FutureExt;
//! use std::time::Instant;
//!
//! let semaphore = Semaphore::new(1);
//! let now = Instant::now();
//! let permit = semaphore.acquire(now).now_or_never().expect("it is free");
//! let mut waits = Box::pin(semaphore.acquire(now));
//! assert!(waits.as_mut().now_or_never().is_none());
//!
//! drop(permit);
//! assert!(waits.now_or_never().is_some());
//! ```
//!
//! A released permit goes straight to the oldest waiter, so a later one can't slip in
//! between. It can't be lost: a waiter that has given up passes it on. Acquiring,
//! giving up and releasing cost O(log n).

use crate::sync::{Mutex, MutexGuard};
use futures::channel::oneshot::{Sender, channel};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Hands out a fixed number of permits.
#[derive(Debug, Clone)]
pub struct Semaphore {
    waiters: Arc<Mutex<Waiters>>,
}

/// Permits are free only while nothing waits.
#[derive(Debug)]
struct Waiters {
    free: usize,
    next_id: u64,
    /// By the order in which they came.
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    grant: Sender<Permit>,
}

/// The right to proceed. Dropped, it goes to the next waiter.
#[derive(Debug)]
pub struct Permit {
    /// `None` once it was passed on.
    semaphore: Option<Semaphore>,
}

impl Semaphore {
    /// A semaphore with this many permits.
    pub fn new(permits: usize) -> Semaphore {
        let waiters = Waiters {
            free: permits,
            next_id: 0,
            waiting: BTreeMap::new(),
        };
        Semaphore {
            waiters: Arc::new(Mutex::new(waiters)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        let guard = self.waiters.lock();
        guard.expect("no code panics while it holds the semaphore's lock")
    }

    /// When the oldest waiter started to wait.
    pub fn oldest_waiter(&self) -> Option<Instant> {
        let waiters = self.lock();
        let oldest = waiters.waiting.first_key_value();
        oldest.map(|(_, waiter)| waiter.since)
    }

    /// Waits for a permit. `now` is when the waiting starts. Dropping the future gives
    /// up.
    pub async fn acquire(&self, now: Instant) -> Permit {
        let (id, granted) = {
            let mut waiters = self.lock();
            if waiters.free > 0 {
                waiters.free -= 1;
                return self.permit();
            }

            let (grant, granted) = channel();
            let id = waiters.next_id;
            waiters.next_id += 1;
            waiters.waiting.insert(id, Waiter { since: now, grant });
            (id, granted)
        };

        let _leaves_if_dropped = Leave {
            semaphore: self,
            id,
        };
        granted
            .await
            .expect("a waiter leaves the queue only with a permit, or with its future")
    }

    fn permit(&self) -> Permit {
        Permit {
            semaphore: Some(self.clone()),
        }
    }
}

/// Takes a waiter out of the queue when its future is dropped.
struct Leave<'a> {
    semaphore: &'a Semaphore,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let waiter = self.semaphore.lock().waiting.remove(&self.id);
        drop(waiter); // no lock is held
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(semaphore) = self.semaphore.take() else {
            return;
        };

        let mut permit = semaphore.permit();
        loop {
            let oldest = {
                let mut waiters = semaphore.lock();
                let oldest = waiters.waiting.pop_first();
                waiters.free += usize::from(oldest.is_none());
                oldest
            };
            let Some((_, waiter)) = oldest else {
                permit.semaphore = None; // it is free now
                return;
            };

            match waiter.grant.send(permit) {
                Ok(()) => return,
                Err(unwanted) => permit = unwanted,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt;
    use std::pin::pin;
    use std::time::Duration;

    #[test]
    fn permits_are_granted_in_the_order_of_asking() {
        let semaphore = Semaphore::new(2);
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let first = semaphore.acquire(now).now_or_never().unwrap();
        let second = semaphore.acquire(now).now_or_never().unwrap();
        let mut third = pin!(semaphore.acquire(now));
        let mut fourth = pin!(semaphore.acquire(later));
        assert_eq!(semaphore.oldest_waiter(), None);
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert_eq!(semaphore.oldest_waiter(), Some(now));

        drop(first);
        assert_eq!(semaphore.oldest_waiter(), Some(later));
        let late = semaphore.acquire(later).now_or_never();
        assert!(late.is_none(), "the free permit is the third's");
        assert!(fourth.as_mut().now_or_never().is_none());

        let third = third.now_or_never().unwrap();
        drop(second);
        drop(third);
        drop(fourth.now_or_never().unwrap());
        assert_eq!(semaphore.lock().free, 2);
    }

    #[test]
    fn a_waiter_that_gives_up_leaves_the_queue_at_once() {
        let semaphore = Semaphore::new(1);
        let now = Instant::now();
        let _held = semaphore.acquire(now).now_or_never().unwrap();
        let mut waits = Box::pin(semaphore.acquire(now));
        assert!(waits.as_mut().now_or_never().is_none());

        drop(waits);
        assert_eq!(semaphore.oldest_waiter(), None);
        assert!(semaphore.lock().waiting.is_empty());
    }

    #[test]
    fn an_unwanted_permit_goes_to_the_next_waiter() {
        let semaphore = Semaphore::new(1);
        let now = Instant::now();
        let held = semaphore.acquire(now).now_or_never().unwrap();
        let mut gone = Box::pin(semaphore.acquire(now));
        let mut granted = Box::pin(semaphore.acquire(now));
        let mut last = Box::pin(semaphore.acquire(now));
        for waiting in [&mut gone, &mut granted, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }

        drop(gone);
        drop(held);
        drop(granted); // it has its permit, and never looked

        assert!(last.now_or_never().is_some());
        assert_eq!(semaphore.lock().free, 1);
    }
}
