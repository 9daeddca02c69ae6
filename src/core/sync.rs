//! The locks, atomics and events of the cache, the flights and the semaphore.
//!
//! With the feature `shuttle`, used only by `tests/interleavings.rs`, they belong to a
//! scheduler that decides at each of them which thread runs next. `Arc` stays the
//! standard one: the order of reference counts makes no difference that a test could
//! see.

#[cfg(not(feature = "shuttle"))]
pub(crate) use event_listener::Event as Notify;
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, atomic};
use std::ops::DerefMut;
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, atomic};

/// Changes what a lock protects, releases the lock, and only then drops what the change
/// took out: dropping a poem frees megabytes, and a waker may run anything.
///
/// `change` returns its answer and what it took out.
pub(crate) fn drop_after<T, Answer, Out>(
    mut guard: impl DerefMut<Target = T>,
    change: impl FnOnce(&mut T) -> (Answer, Out),
) -> Answer {
    let (answer, out) = change(&mut guard);
    drop(guard);
    drop(out);

    answer
}

/// The same event with a scheduling point before each call: a wake-up can be lost
/// between a look under a lock and these.
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
