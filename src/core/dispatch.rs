//! Starts jobs in the order of the [`Queue`], and drops those that no client waits for
//! any more. No runtime: a [`Job`] starts itself.
//!
//! | what happens to a job that waits | it |
//! |---|---|
//! | its turn comes | starts |
//! | its last reader leaves | is dropped; a refresh waits on |
//! | the first reader joins a refresh | waits among the clients' jobs |
//!
//! A running job goes on to its end, unless a purge has made its text useless and its
//! last reader has left: then it is aborted, and its place is free for others.

use crate::flight::Interest;
use crate::queue::{Entered, Id, Priority, Queue};
use crate::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work that waits for its turn: a fetch.
pub trait Job: Send + Sized + 'static {
    /// Whether it refreshes a stale text, so that it begins without a client.
    fn is_refresh(&self) -> bool;

    /// Whether a client waits for it.
    fn has_readers(&self) -> bool;

    /// Counts what it costs while it waits. False where there is no room for that.
    fn reserve_waiting(&mut self) -> bool;

    /// Sets what is told of a change of interest; see
    /// [`Writer::on_interest`](crate::flight::Writer::on_interest).
    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>);

    /// Begins. False if it need not: its last reader has left.
    fn begin(&mut self) -> bool;

    /// Runs until its end, without blocking this call, and drops `place` then. Returns
    /// what aborts it.
    fn start(self, place: Place<Self>) -> Abort;
}

/// Aborts a running job.
pub type Abort = Box<dyn Fn() + Send>;

/// A limited number of places for jobs, and the queue before them.
pub struct Dispatch<J: Job> {
    /// Held for one decision. Jobs are started and dropped without it.
    state: Mutex<DispatchState<J>>,
}

struct DispatchState<J> {
    queue: Queue<J>,
    running: HashMap<Id, Abort>,
}

/// A job's place among those that run. Dropped, it goes to the next job.
pub struct Place<J: Job> {
    dispatch: Arc<Dispatch<J>>,
    id: Id,
}

/// A job that may not wait.
pub enum Refused<J> {
    /// Too many wait already.
    QueueFull(J),
    /// Those that wait take too much of the capacity.
    NoRoom(J),
}

impl<J: Job> Dispatch<J> {
    /// For `places` jobs at once, while at most `bound` others wait.
    pub fn new(places: usize, bound: usize) -> Arc<Dispatch<J>> {
        Arc::new(Dispatch {
            state: Mutex::new(DispatchState {
                queue: Queue::new(places, bound),
                running: HashMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, DispatchState<J>> {
        let guard = self.state.lock();
        guard.expect("no code panics while it holds the queue's lock")
    }

    /// When the oldest job that waits, and that a client waits for, came.
    pub fn oldest_client(&self) -> Option<Instant> {
        self.lock().queue.oldest_client()
    }

    /// When the oldest job that waits came.
    pub fn oldest(&self) -> Option<Instant> {
        self.lock().queue.oldest()
    }

    /// The number of jobs that wait.
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// The number of jobs that run.
    pub fn running(&self) -> usize {
        self.lock().queue.running()
    }

    /// Takes out the jobs that have waited longer than `limit`, and says when the next
    /// one will have; `None` if none waits.
    pub fn take_overdue(&self, limit: Duration, now: Instant) -> (Vec<J>, Option<Instant>) {
        let mut state = self.lock();
        let mut overdue = Vec::new();
        if let Some(since) = now.checked_sub(limit) {
            overdue.extend(std::iter::from_fn(|| state.queue.take_older(since)));
        }
        (overdue, state.queue.oldest().map(|since| since + limit))
    }

    /// Starts the job, or lets it wait.
    ///
    /// # Errors
    /// The job, if it may not wait.
    pub fn enter(self: &Arc<Self>, mut job: J, now: Instant) -> Result<(), Box<Refused<J>>> {
        let (id, job) = {
            let mut state = self.lock();
            if !state.queue.has_free_place() && !job.reserve_waiting() {
                return Err(Box::new(Refused::NoRoom(job)));
            }

            // The callback takes this lock, so it finds the job in the queue.
            let id = state.queue.next_id();
            let dispatch = Arc::downgrade(self);
            job.on_interest(Box::new(move |interest| {
                if let Some(dispatch) = dispatch.upgrade() {
                    dispatch.interest(id, interest);
                }
            }));

            let priority = if job.is_refresh() && !job.has_readers() {
                Priority::Refresh
            } else {
                Priority::Client
            };
            match state.queue.enter(priority, job, now) {
                Entered::Started(id, job) => (id, job),
                Entered::Waits(_) => return Ok(()),
                Entered::Refused(job) => return Err(Box::new(Refused::QueueFull(job))),
            }
        };

        if !self.start(id, job) {
            self.finish(id);
        }
        Ok(())
    }

    /// Starts a job. False if it need not begin: its last reader has left.
    fn start(self: &Arc<Self>, id: Id, mut job: J) -> bool {
        if !job.begin() {
            return false;
        }

        let place = Place {
            dispatch: self.clone(),
            id,
        };
        let abort = job.start(place);
        let mut state = self.lock();
        if state.queue.is_running(id) {
            state.running.insert(id, abort);
        }
        true
    }

    /// A job has ended: the next one starts.
    fn finish(self: &Arc<Self>, id: Id) {
        let mut ended = id;
        loop {
            let (next, abort) = {
                let mut state = self.lock();
                let abort = state.running.remove(&ended);
                (state.queue.finish(ended), abort)
            };
            drop(abort);

            let Some((id, job)) = next else {
                return;
            };
            if self.start(id, job) {
                return;
            }
            ended = id; // no client waits for it any more
        }
    }

    /// The interest of clients in a job has changed.
    fn interest(&self, id: Id, interest: Interest) {
        let dropped = {
            let mut state = self.lock();
            let is_refresh = state.queue.get(id).map(Job::is_refresh);
            match (interest, is_refresh) {
                (Interest::Gained, _) => {
                    state.queue.set_priority(id, Priority::Client);
                    None
                }
                (Interest::Lost, Some(true)) => {
                    state.queue.set_priority(id, Priority::Refresh);
                    None
                }
                (Interest::Lost, Some(false)) => state.queue.leave(id),
                (Interest::Lost, None) => {
                    if let Some(abort) = state.running.get(&id) {
                        abort();
                    }
                    None
                }
            }
        };
        drop(dropped);
    }
}

impl<J: Job> Drop for Place<J> {
    fn drop(&mut self) {
        self.dispatch.finish(self.id);
    }
}
