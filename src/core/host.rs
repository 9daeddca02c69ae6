//! One service on several threads.
//!
//! Each thread runs the whole of a [`Server`]: it accepts, answers and closes, and the
//! tasks it starts stay on it. The first thread is the caller's; it also tells of the
//! drain. With one thread there is no other, and nothing here costs anything.
//!
//! | each thread has its own | all share |
//! |---|---|
//! | socket, or its turn at a shared one (`net/listener.rs`) | the addresses, one ready line each |
//! | executor, reactor, tasks, deadlines (`rt.rs`) | async-io's reactor, for pipes and signals |
//! | list of connections that are closed later | handler: one cache, one dispatch, one upstream |
//! | spare slot | slots, statistics, budget, log |
//!
//! **A fetch** runs on the thread whose client missed. Its readers may be on any: a
//! flight keeps their wakers, and a waker may be woken from anywhere. The thread that
//! ends a fetch starts the next one that waits. What a thread without an executor
//! starts (one that hashes a long request, or an operator's) runs on the first.
//!
//! **The end.** All threads stop accepting at once and serve their backlogs. The first
//! waits until that is done and all slots are free, or the drain timeout is over, and
//! only then the others end: until then a fetch on one may serve clients of another.
//!
//! **A panic** in a task, a handler or an observer costs one connection, as with one
//! thread. Where a thread itself ends by one, its panic goes on in the first thread and
//! ends the service, as it would with one thread: a service that has lost a listener
//! must not look alive.
//!
//! What a hit touches that other threads touch, and what that costs, is in
//! BENCHMARKS.md.

use crate::error::{Error, reason};
use crate::net::Listener;
use crate::rt;
use crate::server::{Handler, Server};
use futures::channel::oneshot::{Receiver, Sender, channel};
use futures::future::{FutureExt, join_all, pending, select_all};
use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the start waits for the threads, which take well below a millisecond. One
/// that is late begins later.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How long the end waits for a thread to drop its tasks. More than that is a task that
/// does not return, and the end of the process ends that, too.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A service, and the threads that run it.
pub struct Host<H> {
    /// What the first thread does.
    server: Arc<Server<H>>,
    listeners: Vec<Arc<Listener>>,
    /// The other threads.
    others: Vec<JoinHandle<()>>,
    /// Each ready once its thread has stopped and served its backlogs.
    drained: Vec<Receiver<Infallible>>,
    /// Each ready once its thread has ended, in whatever way.
    ended: Vec<Receiver<Infallible>>,
    /// One for each of the other threads, dropped to stop it.
    stop: Vec<Sender<Infallible>>,
    /// The same, dropped to end it.
    end: Vec<Sender<Infallible>>,
}

impl<H: Handler> Host<H> {
    /// Starts the threads beside the caller's, and returns once they accept. Each calls
    /// `begin` with its number, from 1, before that; tasks started there run on it.
    ///
    /// # Errors
    /// [`Error::Local`] if the system has no thread left.
    pub fn start(
        server: Arc<Server<H>>,
        listeners: Vec<Listener>,
        threads: NonZeroUsize,
        begin: impl Fn(usize) + Clone + Send + 'static,
    ) -> Result<Host<H>, Error> {
        let mut host = Host {
            server,
            listeners: listeners.into_iter().map(Arc::new).collect(),
            others: Vec::new(),
            drained: Vec::new(),
            ended: Vec::new(),
            stop: Vec::new(),
            end: Vec::new(),
        };
        let (tell_begun, begun) = mpsc::channel();
        for number in 1..threads.get() {
            let (begin, tell_begun) = (begin.clone(), tell_begun.clone());
            host.start_thread(number, move || {
                begin(number);
                let _waited_too_long = tell_begun.send(());
            })?;
        }
        drop(tell_begun);
        let deadline = Instant::now() + FIRST_WAIT;
        for _ in &host.others {
            let left = deadline.saturating_duration_since(Instant::now());
            let _late = begun.recv_timeout(left);
        }
        Ok(host)
    }

    fn start_thread(
        &mut self,
        number: usize,
        begin: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let server = self.server.for_another_thread();
        let listeners = self.listeners.iter();
        let listeners: Vec<_> = listeners.map(Listener::for_another_thread).collect();
        let (stop, stopped) = channel::<Infallible>();
        let (end, ended) = channel::<Infallible>();
        let (tell_drained, drained) = channel::<Infallible>();
        let (tell_ended, has_ended) = channel::<Infallible>();

        let work = async move {
            begin();
            server.accept_until(&listeners, stopped.map(drop)).await;
            server.drain_backlogs(listeners).await;
            drop(tell_drained);
            let _ends = ended.await;
        };
        let run = move || {
            let _dropped_last = tell_ended;
            rt::run_beside(work);
        };
        let thread = thread::Builder::new().name(format!("clients-{number}"));
        let other = thread.spawn(run).map_err(|error| Error::Local {
            subject: "threads".into(),
            why: reason(&error),
        })?;

        self.others.push(other);
        self.drained.push(drained);
        self.ended.push(has_ended);
        self.stop.push(stop);
        self.end.push(end);
        Ok(())
    }

    /// Serves until `shutdown` is ready, then finishes what is open, like
    /// [`Server::run`].
    ///
    /// # Panics
    /// With the panic of a thread that has ended by one.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let server = self.server;
        let listeners = self.listeners;
        let serving = async move {
            server.accept_until(&listeners, shutdown).await;
            drop(self.stop);
            let backlogs = async {
                server.drain_backlogs(listeners).await;
                join_all(self.drained).await;
            };
            server.drain(backlogs).await;
        };

        if let Err(number) = rt::race(serving, first_of(&mut self.ended)).await {
            let other = self.others.swap_remove(number);
            if let Err(panic) = other.join() {
                resume_unwind(panic);
            }
        }
        drop(self.end);
        let _late = rt::within(LAST_WAIT, join_all(self.ended)).await;
    }
}

/// Waits for the first of the threads to end; for ever if there is none.
async fn first_of(ended: &mut [Receiver<Infallible>]) -> usize {
    if ended.is_empty() {
        return pending().await;
    }
    select_all(ended).await.1
}
