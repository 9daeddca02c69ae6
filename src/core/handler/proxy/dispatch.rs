//! Starts fetches in the order of the [`Queue`], each on a task of its own, and drops those
//! that no client waits for any more.
//!
//! | what happens to a fetch that waits | it |
//! |---|---|
//! | its turn comes | starts |
//! | its last reader leaves | is dropped; a refresh waits on |
//! | the first reader joins a refresh | waits among the clients' fetches |
//!
//! A running fetch goes on to its end, unless a purge has made its text useless and its last
//! reader has left: then it is aborted, and its place is free for others.

use super::fetch::Fetch;
use crate::flight::Interest;
use crate::queue::{Class, Entered, Id, Queue};
use crate::rt;
use futures::future::{AbortHandle, FutureExt, abortable};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

pub(super) struct Dispatch {
    /// Held for one decision. Fetches are started and dropped without it.
    state: Mutex<State>,
}

struct State {
    queue: Queue<Fetch>,
    running: HashMap<Id, AbortHandle>,
}

/// A fetch's place among those that run. Dropped, it goes to the next fetch.
pub(super) struct Place {
    dispatch: Arc<Dispatch>,
    id: Id,
}

/// A fetch that may not wait, and why.
pub(super) struct Refused {
    pub(super) fetch: Fetch,
    pub(super) refusal: Refusal,
}

/// Why a fetch may not wait.
pub(super) enum Refusal {
    /// Too many wait already.
    QueueFull,
    /// Those that wait take too much of the capacity.
    NoRoom,
}

impl Refused {
    fn new(fetch: Fetch, refusal: Refusal) -> Box<Refused> {
        Box::new(Refused { fetch, refusal })
    }
}

impl Dispatch {
    /// For `places` fetches at once, while at most `bound` others wait.
    pub(super) fn new(places: usize, bound: usize) -> Arc<Dispatch> {
        Arc::new(Dispatch {
            state: Mutex::new(State {
                queue: Queue::new(places, bound),
                running: HashMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let guard = self.state.lock();
        guard.expect("no code panics while it holds the queue's lock")
    }

    /// When the oldest client's fetch that waits came.
    pub(super) fn oldest_client(&self) -> Option<Instant> {
        self.lock().queue.oldest_client()
    }

    /// Starts the fetch, or lets it wait.
    ///
    /// # Errors
    /// The fetch, if it may not wait.
    pub(super) fn enter(
        self: &Arc<Self>,
        mut fetch: Fetch,
        now: Instant,
    ) -> Result<(), Box<Refused>> {
        let started = {
            let mut state = self.lock();
            if !state.queue.has_free_place() && !fetch.reserve_waiting() {
                return Err(Refused::new(fetch, Refusal::NoRoom));
            }

            // The callback needs this lock, so it sees the fetch in the queue.
            let id = state.queue.next_id();
            let dispatch = Arc::downgrade(self);
            fetch.on_interest(move |interest| {
                if let Some(dispatch) = dispatch.upgrade() {
                    dispatch.interest(id, interest);
                }
            });

            let class = fetch.class();
            match state.queue.enter(class, fetch, now) {
                Entered::Started(id, fetch) => (id, fetch),
                Entered::Waits(_) => return Ok(()),
                Entered::Refused(fetch) => return Err(Refused::new(fetch, Refusal::QueueFull)),
            }
        };

        let (id, fetch) = started;
        if !self.start(id, fetch) {
            self.finish(id);
        }
        Ok(())
    }

    /// Starts a fetch. False if it need not begin: its last reader has left.
    fn start(self: &Arc<Self>, id: Id, mut fetch: Fetch) -> bool {
        if !fetch.begin() {
            return false;
        }

        let place = Place {
            dispatch: self.clone(),
            id,
        };
        let (work, handle) = abortable(fetch.run(place));
        self.lock().running.insert(id, handle);
        rt::spawn(work.map(|_| ()));
        true
    }

    /// A fetch has ended: the next one starts.
    fn finish(self: &Arc<Self>, id: Id) {
        let ended = self.lock().running.remove(&id);
        drop(ended);

        loop {
            let next = self.lock().queue.finish();
            let Some((id, fetch)) = next else {
                return;
            };
            if self.start(id, fetch) {
                return; // else no client waits for it any more
            }
        }
    }

    /// The interest of clients in a fetch has changed.
    fn interest(&self, id: Id, interest: Interest) {
        let dropped = {
            let mut state = self.lock();
            let is_refresh = state.queue.get(id).map(Fetch::is_refresh);
            match (interest, is_refresh) {
                (Interest::Gained, _) => {
                    state.queue.reclass(id, Class::Client);
                    None
                }
                (Interest::Lost, Some(true)) => {
                    state.queue.reclass(id, Class::Refresh);
                    None
                }
                (Interest::Lost, Some(false)) => state.queue.leave(id),
                (Interest::Lost, None) => {
                    if let Some(running) = state.running.get(&id) {
                        running.abort();
                    }
                    None
                }
            }
        };
        drop(dropped);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.dispatch.finish(self.id);
    }
}
