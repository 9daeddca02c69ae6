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
pub struct Gate {
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
    pass: Sender<Place>,
}

/// The right to be inside; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    /// `None` once it was passed on.
    gate: Option<Gate>,
}

impl Gate {
    /// A gate with this many places.
    pub fn new(places: usize) -> Gate {
        Gate {
            queue: Arc::new(Mutex::new(Queue {
                free: places,
                waiting: VecDeque::new(),
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("no code panics while it holds the gate's lock")
    }

    /// Since when whoever has waited longest waits for a place, if anybody does.
    pub fn crowded_since(&self) -> Option<Instant> {
        self.lock()
            .waiting
            .iter()
            .find(|waiting| !waiting.pass.is_canceled())
            .map(|waiting| waiting.since)
    }

    /// Waits for a place, since now. Whoever stops waiting leaves the queue.
    pub async fn enter(&self, now: Instant) -> Place {
        let turn = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Place {
                    gate: Some(self.clone()),
                };
            }
            let (pass, turn) = channel();
            queue.waiting.retain(|waiting| !waiting.pass.is_canceled());
            queue.waiting.push_back(Waiting { since: now, pass });
            turn
        };
        turn.await
            .expect("the queue, which this gate shares, drops no one who waits")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        let mut place = Place {
            gate: Some(gate.clone()),
        };
        loop {
            let next = {
                let mut queue = gate.lock();
                let next = queue.waiting.pop_front();
                if next.is_none() {
                    queue.free += 1;
                }
                next
            };
            let Some(next) = next else {
                place.gate = None; // it is free now, and nobody's
                return;
            };
            match next.pass.send(place) {
                Ok(()) => return,
                Err(unwanted) => place = unwanted,
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
        let (gate, now) = (Gate::new(2), Instant::now());
        let later = now + Duration::from_secs(1);
        let first = gate.enter(now).now_or_never().unwrap();
        let second = gate.enter(now).now_or_never().unwrap();
        let (mut third, mut fourth) = (pin!(gate.enter(now)), pin!(gate.enter(later)));
        assert_eq!(gate.crowded_since(), None);
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert_eq!(
            gate.crowded_since(),
            Some(now),
            "it is the first of them who counts"
        );
        drop(first);
        assert_eq!(gate.crowded_since(), Some(later));
        assert!(
            gate.enter(later).now_or_never().is_none(),
            "who comes late does not slip in"
        );
        assert!(fourth.as_mut().now_or_never().is_none());
        let third = third.now_or_never().unwrap();
        drop(second);
        drop(third);
        drop(fourth.now_or_never().unwrap());
        assert_eq!(gate.lock().free, 2);
    }

    #[test]
    fn a_place_given_to_one_who_has_gone_goes_to_the_next() {
        let (gate, now) = (Gate::new(1), Instant::now());
        let inside = gate.enter(now).now_or_never().unwrap();
        let mut gone = Box::pin(gate.enter(now));
        let mut given = Box::pin(gate.enter(now));
        let mut last = Box::pin(gate.enter(now));
        for waiting in [&mut gone, &mut given, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(inside);
        drop(given); // it has its place already, and never looked
        assert!(last.now_or_never().is_some());
        assert_eq!(gate.lock().free, 1);
    }
}
