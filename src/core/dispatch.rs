//! Starts jobs in the order of the [`Queue`], and drops those that no client waits for
//! any more. No runtime: a [`Job`] starts itself.
//!
//! | what happens to a job that waits | it |
//! |---|---|
//! | its turn comes, and a [`StartLimit`] lets it | starts |
//! | its last reader leaves | is dropped; a refresh waits on |
//! | too many wait, and most are its client's | may have to make way for another's |
//! | the first reader joins a refresh | waits among the clients' jobs |
//!
//! A running job goes on to its end, unless a purge has made its text useless and its
//! last reader has left: then it is aborted, and its place is free for others. That may
//! be told by another thread while the job starts; it is aborted once it has started.

mod limit;

use crate::addr::ClientNet;
use crate::flight::Interest;
use crate::queue::{Entered, Id, Priority, Queue};
use crate::sync::{Mutex, MutexGuard};
pub use limit::{StartLimit, StartRight};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work that waits for its turn: a fetch.
pub trait Job: Send + Sized + 'static {
    /// Whether it refreshes a text, or was asked for by an operator, so that it begins
    /// without a client.
    fn is_refresh(&self) -> bool;

    /// The client that has asked for it first. Clients take turns.
    fn client(&self) -> Option<ClientNet> {
        None
    }

    /// Whether a client waits for it.
    fn has_readers(&self) -> bool;

    /// Counts what it costs while it waits. False where there is no room for that.
    fn reserve_waiting(&mut self) -> bool;

    /// Ends, because it gives up its turn: too many wait, and most of them are its
    /// client's.
    fn displace(self, _now: Instant) {}

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
    limit: Option<Box<dyn StartLimit<J>>>,
}

struct DispatchState<J> {
    queue: Queue<J>,
    /// When jobs are to be started although none ends: a right is due then.
    resumes_at: Option<Instant>,
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
    right: Option<StartRight>,
    /// Whether a job has started here, so that the right is used.
    has_started: bool,
}

/// What became of a job that may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// It has started, or need not.
    Started,
    /// It waits for a place.
    Waits,
    /// It waits for a right, although a place is free.
    Delayed,
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
        Dispatch::limited(places, bound, None)
    }

    /// The same. Each job also needs a right, where there is a limit.
    pub fn limited(
        places: usize,
        bound: usize,
        limit: Option<Box<dyn StartLimit<J>>>,
    ) -> Arc<Dispatch<J>> {
        Arc::new(Dispatch {
            state: Mutex::new(DispatchState {
                queue: Queue::new(places, bound),
                resumes_at: None,
                running: HashMap::new(),
            }),
            limit,
        })
    }

    fn lock(&self) -> MutexGuard<'_, DispatchState<J>> {
        let guard = self.state.lock();
        guard.expect("no code panics while it holds the queue's lock")
    }

    /// When the oldest job that waits for a place, and that a client waits for, came.
    /// One that waits for a right would gain nothing by a place.
    pub fn oldest_client(&self) -> Option<Instant> {
        let state = self.lock();
        if state.queue.has_free_place() {
            return None;
        }
        state.queue.oldest_client()
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
    pub fn enter(self: &Arc<Self>, mut job: J, now: Instant) -> Result<Arrived, Box<Refused<J>>> {
        let (id, job, right) = {
            let mut state = self.lock();
            let chance = self.chance(&state);
            if !matches!(chance, Chance::Now(_)) && !job.reserve_waiting() {
                return Err(Box::new(Refused::NoRoom(job)));
            }

            // The callback takes this lock, so it finds the job in the queue.
            let id = state.queue.next_id();
            self.watch(&mut job, id);

            let priority = if job.is_refresh() && !job.has_readers() {
                Priority::Refresh
            } else {
                Priority::Client
            };
            let from = job.client();
            let (entered, right) = match chance {
                Chance::Now(right) => (state.queue.enter(priority, from, job, now), right),
                Chance::Later => (state.queue.wait(priority, from, job, now), None),
            };
            match entered {
                Entered::Started(id, job) => (id, job, right),
                Entered::Waits(id) => {
                    drop(state);
                    return Ok(self.await_turn(id));
                }
                Entered::Displaces(id, other) => {
                    drop(state);
                    other.displace(now);
                    return Ok(self.await_turn(id));
                }
                Entered::Refused(job) => return Err(Box::new(Refused::QueueFull(job))),
            }
        };

        if !self.start(id, job, right) {
            self.finish(id);
        }
        Ok(Arrived::Started)
    }

    /// A place for a job that is not sure yet to need one, with its right. `None` if it
    /// would have to wait. The job starts with [`Dispatch::start_at`].
    pub fn take_place(self: &Arc<Self>) -> Option<Place<J>> {
        let mut state = self.lock();
        let Chance::Now(right) = self.chance(&state) else {
            return None;
        };
        let id = state.queue.take_place()?;
        Some(Place {
            dispatch: self.clone(),
            id,
            right,
            has_started: false,
        })
    }

    /// Starts a job at the place that was taken for it, if it needs to begin.
    pub fn start_at(self: &Arc<Self>, mut job: J, mut place: Place<J>) {
        let id = place.id;
        self.watch(&mut job, id);
        if !job.begin() {
            return;
        }

        place.has_started = true;
        let abort = job.start(place);
        self.started(id, abort);
    }

    fn watch(self: &Arc<Self>, job: &mut J, id: Id) {
        let dispatch = Arc::downgrade(self);
        job.on_interest(Box::new(move |interest| {
            if let Some(dispatch) = dispatch.upgrade() {
                dispatch.interest(id, interest);
            }
        }));
    }

    /// Whether a job that enters now may start at once. One that may has its right.
    fn chance(&self, state: &DispatchState<J>) -> Chance {
        if !state.queue.has_free_place() {
            return Chance::Later;
        }
        match &self.limit {
            None => Chance::Now(None),
            Some(_) if !state.queue.is_empty() => Chance::Later, // others came before it
            Some(limit) => limit
                .take()
                .map_or(Chance::Later, |right| Chance::Now(Some(right))),
        }
    }

    /// A job has entered the queue. Says what it waits for.
    fn await_turn(self: &Arc<Self>, id: Id) -> Arrived {
        self.start_waiting();
        let state = self.lock();
        match state.queue.get(id) {
            None => Arrived::Started,
            Some(_) if state.queue.has_free_place() => Arrived::Delayed,
            Some(_) => Arrived::Waits,
        }
    }

    /// Starts a job. False if it need not begin: its last reader has left.
    fn start(self: &Arc<Self>, id: Id, mut job: J, right: Option<StartRight>) -> bool {
        if !job.begin() {
            if let (Some(limit), Some(right)) = (&self.limit, right) {
                limit.give_back(right);
            }
            return false;
        }

        let place = Place {
            dispatch: self.clone(),
            id,
            right,
            has_started: true,
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
        self.end(id);
        self.start_waiting();
    }

    /// A job has ended, or does not begin: its place is free.
    fn end(&self, id: Id) {
        let abort = {
            let mut state = self.lock();
            state.queue.end(id);
            state.running.remove(&id)
        };
        drop(abort);
    }

    /// A right may be due: starts what waits for it. `at` is what
    /// [`StartLimit::resume_at`] was called with.
    pub fn resume(self: &Arc<Self>, at: Instant) {
        {
            let mut state = self.lock();
            if state.resumes_at != Some(at) {
                return; // an earlier time was set after this one
            }
            state.resumes_at = None;
        }
        self.start_waiting();
    }

    /// Starts jobs that wait, while there are places and rights.
    fn start_waiting(self: &Arc<Self>) {
        while let Some((id, job, right)) = self.next() {
            if !self.start(id, job, right) {
                self.end(id); // no client waits for it any more
            }
        }
    }

    /// The next job that may start, with its place and its right. Without a right it is
    /// settled when the next one is looked for.
    fn next(self: &Arc<Self>) -> Option<(Id, J, Option<StartRight>)> {
        let mut state = self.lock();
        if state.queue.is_empty() || !state.queue.has_free_place() {
            return None;
        }
        let right = match self.limit.as_ref().map(|limit| limit.take()) {
            None => None,
            Some(Ok(right)) => Some(right),
            Some(Err(at)) => {
                let is_set = state.resumes_at.is_some_and(|set| set <= at);
                if !is_set {
                    state.resumes_at = Some(at);
                }
                drop(state);
                if let (Some(limit), false) = (&self.limit, is_set) {
                    limit.resume_at(Arc::downgrade(self), at);
                }
                return None;
            }
        };
        let (id, job) = state.queue.start_next()?;
        Some((id, job, right))
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

/// Whether a job may start now.
enum Chance {
    /// With this right, where one is needed.
    Now(Option<StartRight>),
    Later,
}

impl<J: Job> Place<J> {
    /// The right that the job started with, where it needed one.
    pub fn right(&self) -> Option<StartRight> {
        self.right
    }

    /// What tells this place from all that are taken before and after.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Gives the place back, and the right as well: the job did not need them.
    pub fn give_back(mut self) {
        self.has_started = false;
    }
}

impl<J: Job> Drop for Place<J> {
    fn drop(&mut self) {
        if let (Some(limit), Some(right), false) =
            (&self.dispatch.limit, self.right, self.has_started)
        {
            limit.give_back(right);
        }
        self.dispatch.finish(self.id);
    }
}

#[cfg(test)]
mod tests;
