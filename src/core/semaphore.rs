//! A gate that so many may have passed at once; the others wait in the order they came.
//!
//! A place is a value: it is handed from the one who leaves straight to the one who waited longest, so that nobody
//! who comes later slips in between, and it can't be lost: a place that nobody takes any more passes itself on.

use crate::sync::{Mutex, MutexGuard};
use futures::channel::oneshot::{Sender, channel};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Lets a number of places be taken at once.
#[derive(Debug, Clone)]
pub struct Semaphore {
    queue: Arc<Mutex<Queue>>,
}

/// Free places are there only while nobody waits.
#[derive(Debug)]
struct Queue {
    free: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    pass: Sender<Permit>,
}

/// The right to be inside; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    /// `None` once it was passed on.
    semaphore: Option<Semaphore>,
}

impl Semaphore {
    /// A gate with this many places.
    pub fn new(permits: usize) -> Semaphore {
        Semaphore {
            queue: Arc::new(Mutex::new(Queue {
                free: permits,
                waiting: VecDeque::new(),
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("no code panics while it holds the semaphore's lock")
    }

    /// Since when whoever has waited longest waits for a place, if anybody does.
    pub fn oldest_waiter(&self) -> Option<Instant> {
        self.lock()
            .waiting
            .iter()
            .find(|waiting| !waiting.pass.is_canceled())
            .map(|waiting| waiting.since)
    }

    /// Waits for a place, since now. Whoever stops waiting leaves the queue.
    pub async fn acquire(&self, now: Instant) -> Permit {
        let turn = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Permit {
                    semaphore: Some(self.clone()),
                };
            }
            let (pass, turn) = channel();
            queue.waiting.retain(|waiting| !waiting.pass.is_canceled());
            queue.waiting.push_back(Waiting { since: now, pass });
            turn
        };
        turn.await
            .expect("the queue, which this semaphore shares, drops no one who waits")
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(semaphore) = self.semaphore.take() else {
            return;
        };
        let mut permit = Permit {
            semaphore: Some(semaphore.clone()),
        };
        loop {
            let next = {
                let mut queue = semaphore.lock();
                let next = queue.waiting.pop_front();
                if next.is_none() {
                    queue.free += 1;
                }
                next
            };
            let Some(next) = next else {
                permit.semaphore = None; // it is free now, and nobody's
                return;
            };
            match next.pass.send(permit) {
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
    fn places_go_to_those_who_wait_in_the_order_they_came() {
        let (semaphore, now) = (Semaphore::new(2), Instant::now());
        let later = now + Duration::from_secs(1);
        let first = semaphore.acquire(now).now_or_never().unwrap();
        let second = semaphore.acquire(now).now_or_never().unwrap();
        let (mut third, mut fourth) =
            (pin!(semaphore.acquire(now)), pin!(semaphore.acquire(later)));
        assert_eq!(semaphore.oldest_waiter(), None);
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert_eq!(
            semaphore.oldest_waiter(),
            Some(now),
            "it is the first of them who counts"
        );
        drop(first);
        assert_eq!(semaphore.oldest_waiter(), Some(later));
        assert!(
            semaphore.acquire(later).now_or_never().is_none(),
            "who comes late does not slip in"
        );
        assert!(fourth.as_mut().now_or_never().is_none());
        let third = third.now_or_never().unwrap();
        drop(second);
        drop(third);
        drop(fourth.now_or_never().unwrap());
        assert_eq!(semaphore.lock().free, 2);
    }

    #[test]
    fn a_place_given_to_one_who_has_gone_goes_to_the_next() {
        let (semaphore, now) = (Semaphore::new(1), Instant::now());
        let inside = semaphore.acquire(now).now_or_never().unwrap();
        let mut gone = Box::pin(semaphore.acquire(now));
        let mut given = Box::pin(semaphore.acquire(now));
        let mut last = Box::pin(semaphore.acquire(now));
        for waiting in [&mut gone, &mut given, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(inside);
        drop(given); // it has its place already, and never looked
        assert!(last.now_or_never().is_some());
        assert_eq!(semaphore.lock().free, 1);
    }
}
