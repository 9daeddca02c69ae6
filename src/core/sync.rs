//! The locks, atomic numbers and events of the cache, the flights and the gate: the usual ones.
//!
//! With the feature `shuttle`, which nothing but `tests/interleavings.rs` asks for, they are those of a scheduler that
//! decides at each of them who goes on. `Arc` stays what it is: to count has no order that a test could vary.

#[cfg(not(feature = "shuttle"))]
pub(crate) use event_listener::Event as Notify;
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, atomic};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, atomic};

/// The same event, where others may go on just before somebody listens or is told: between a look under a lock and
/// these is where a wake-up can be lost.
#[cfg(feature = "shuttle")]
pub(crate) struct Notify {
    event: event_listener::Event,
    turn: atomic::AtomicBool,
}

#[cfg(feature = "shuttle")]
impl Notify {
    pub(crate) fn new() -> Notify {
        Notify {
            event: event_listener::Event::new(),
            turn: false.into(),
        }
    }

    pub(crate) fn listen(&self) -> event_listener::EventListener {
        self.turn.load(atomic::Ordering::SeqCst);
        self.event.listen()
    }

    pub(crate) fn notify(&self, count: usize) -> usize {
        self.turn.load(atomic::Ordering::SeqCst);
        self.event.notify(count)
    }
}
