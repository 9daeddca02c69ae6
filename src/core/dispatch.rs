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
//! last reader has left: then it is aborted, and its place is free for others. That may
//! be told by another thread while the job starts; it is aborted once it has started.

use crate::flight::Interest;
use crate::queue::{Entered, Id, Priority, Queue};
use crate::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work that waits for its turn: a fetch.
pub trait Job: Send + Sized + 'static {
    /// Whether it refreshes a text, or was asked for by an operator, so that it begins
    /// without a client.
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
    /// The jobs that run, except those that are just starting.
    running: HashMap<Id, RunningJob>,
}

/// A job that runs.
enum RunningJob {
    /// It is starting, and useless already.
    Useless,
    /// It has started.
    Started(Abort),
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
        self.started(id, abort);
        true
    }

    /// A job has started: from now on it can be aborted, and is if it became useless
    /// meanwhile.
    fn started(&self, id: Id, abort: Abort) {
        let useless = {
            let mut state = self.lock();
            let is_running = state.queue.is_running(id);
            match state.running.get(&id) {
                Some(_) => Some(abort),
                None => {
                    if is_running {
                        state.running.insert(id, RunningJob::Started(abort));
                    }
                    None
                }
            }
        };
        if let Some(abort) = useless {
            abort();
        }
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
                (Interest::Lost, None) => None, // it does not begin
                (Interest::Useless, _) => {
                    state.abort(id);
                    None
                }
            }
        };
        drop(dropped);
    }
}

impl<J> DispatchState<J> {
    /// Aborts a running job, at once or as soon as it has started.
    fn abort(&mut self, id: Id) {
        if !self.queue.is_running(id) {
            return; // it has ended
        }
        let running = self.running.entry(id).or_insert(RunningJob::Useless);
        if let RunningJob::Started(abort) = running {
            abort();
        }
    }
}

impl<J: Job> Drop for Place<J> {
    fn drop(&mut self) {
        self.dispatch.finish(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Policy, Purge};
    use crate::coalesce::{Coalescer, FlightGuard, Found};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A job during whose start something else happens.
    struct SlowStart {
        guard: FlightGuard<u8>,
        meanwhile: Box<dyn FnOnce() + Send>,
        place: Arc<Mutex<Option<Place<SlowStart>>>>,
        aborts: Arc<AtomicUsize>,
    }

    impl Job for SlowStart {
        fn is_refresh(&self) -> bool {
            false
        }

        fn has_readers(&self) -> bool {
            self.guard.writer().readers() > 0
        }

        fn reserve_waiting(&mut self) -> bool {
            true
        }

        fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
            self.guard.on_interest(tell);
        }

        fn begin(&mut self) -> bool {
            self.guard.begin()
        }

        fn start(self, place: Place<SlowStart>) -> Abort {
            *self.place.lock().expect("no panic") = Some(place);
            (self.meanwhile)();
            let aborts = self.aborts;
            Box::new(move || {
                aborts.fetch_add(1, Ordering::Relaxed);
            })
        }
    }

    #[test]
    fn a_job_that_becomes_useless_while_it_starts_is_aborted() {
        let hour = Duration::from_secs(3600);
        let policy = Policy {
            ttl: hour,
            grace: hour,
            fail_ttl: hour,
            capacity: 1 << 20,
        };
        let now = Instant::now();
        for (is_purged, is_left, due) in [(true, true, 1), (true, false, 0), (false, true, 0)] {
            let texts = Coalescer::<u8>::new(policy, 1 << 10);
            let Found::Missed(reader, guard) = texts.find(&0, now) else {
                panic!("nothing was asked for yet")
            };
            let (aborts, place) = (Arc::default(), Arc::default());
            let reader = Arc::new(Mutex::new(Some(reader)));
            let leaver = reader.clone();
            let job = SlowStart {
                guard,
                aborts: Arc::clone(&aborts),
                place: Arc::clone(&place),
                meanwhile: Box::new(move || {
                    if is_purged {
                        texts.purge(&0, Purge::Hard, now);
                    }
                    if is_left {
                        drop(leaver.lock().expect("no panic").take());
                    }
                }),
            };

            let dispatch = Dispatch::new(1, 1);
            assert!(dispatch.enter(job, now).is_ok());
            assert_eq!(aborts.load(Ordering::Relaxed), due, "{is_purged} {is_left}");
            drop(reader);
            drop(place.lock().expect("no panic").take());
            assert_eq!(dispatch.running(), 0);
            assert!(dispatch.lock().running.is_empty(), "nothing is left of it");
        }
    }
}
