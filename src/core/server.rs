//! Accepts connections, gets each its answer, and ends each of them honestly.
//!
//! | the answer | the connection ends |
//! |---|---|
//! | complete and taken | politely: FIN, then what the client still says is read and discarded for a while, then close |
//! | declined (netstring) | the same, without a byte of reply |
//! | failed | in a reset, once the kernel has sent what came before the failure |
//! | the client is stuck | in a reset |
//! | the process dies | in a reset: every connection that a task looks after is armed until its polite close |
//!
//! The ordinary path, met early: an answer that is there at once is sent on the socket just accepted, without a task,
//! a timer or the reactor. Only what has to wait becomes a task. `Delivery::step` is the same code for both.

mod connection;

use crate::budget::Budget;
use crate::error::Error;
use crate::flight::Reader;
use crate::net::{Accepted, BACKLOG, Listener, Peer, Received};
use crate::protocol::Protocol;
use crate::rt;
use crate::stats::{AccessRecord, CacheStatus, Event, Observer, Outcome, Stats};
use bytes::Bytes;
use connection::{ClientInput, Connection, Delivery, Progress, Responding};
use event_listener::Event as Notify;
use futures::future::{FutureExt, join_all};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a command does with a request.
pub trait Handler: Send + Sync + 'static {
    /// What its clients speak.
    fn protocol(&self) -> Protocol;
    /// The longest request it takes, in bytes.
    fn request_limit(&self) -> u64;
    /// Told before the first request what requests share: answers that are made of one request, and are as large, are to
    /// be counted there as well.
    fn use_budget(&self, _commons: &Budget) {}
    /// What it does when it is told to begin anew (SIGHUP): a word for the log, or why everything stays as it was.
    ///
    /// # Errors
    /// Whatever kept it from reading again what it serves.
    fn reload(&self) -> Result<&'static str, Error>;
    /// The answer, without waiting: what has to wait is in the answer's reader.
    fn answer(self: Arc<Self>, request: Bytes, now: Instant) -> Response;
}

/// An answer, here already or on its way.
#[derive(Debug)]
pub struct Response {
    /// The bytes to send.
    pub reader: Reader,
    /// How it was come by.
    pub how: CacheStatus,
}

/// What every listening command bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections looked after at once; over it, the kernel's backlog waits.
    pub max_clients: u64,
    /// How long a client may neither send what it owes nor take what it is sent.
    pub client_timeout: Duration,
    /// How long connections may take to finish once the server is told to stop.
    pub drain_timeout: Duration,
    /// The most that all requests together may hold, in bytes, from their first byte until their answers are made, and
    /// with them the answers that are made of one request alone, until they are read; but the longest one has room.
    pub request_room: u64,
}

/// A poem of at most this size is on the wire when `send` returns: ten segments of 1448 bytes (RFC 6928's initial
/// window). Of a longer one a part may wait in the kernel, where a client's late byte would make a close cut it off,
/// so its close lingers until the client has closed.
const ON_THE_WIRE: u64 = 14_480;

/// How many connections are accepted before other work on the thread gets its turn: some milliseconds' worth. A turn
/// costs four system calls.
const BURST: usize = 256;

/// The first and the longest pause when accepting fails for lack of resources.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A running service.
pub struct Server<H> {
    handler: Arc<H>,
    limits: Limits,
    report: Arc<dyn Observer>,
    stats: Arc<Stats>,
    /// Wakes the acceptor that waits for a place, and the drain.
    left: Notify,
    /// What requests hold, and answers made of them.
    budget: Budget,
}

impl<H: Handler> Server<H> {
    /// A service that is not listening yet.
    pub fn new(
        handler: Arc<H>,
        limits: Limits,
        report: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<Server<H>> {
        let budget = Budget::new(limits.request_room);
        handler.use_budget(&budget);
        Arc::new(Server {
            handler,
            limits,
            report,
            stats,
            left: Notify::new(),
            budget,
        })
    }

    /// Serves until `shutdown`, then finishes what runs, for at most the drain timeout. What is not finished by then
    /// is reset by the end of the process.
    pub async fn run(
        self: Arc<Self>,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let accepting = join_all(listeners.iter().map(|listener| self.accept(listener)));
        let _shut_down = rt::race(accepting, shutdown).await;
        let mut queues = Box::pin(join_all(
            listeners.into_iter().map(|queue| self.drain_backlog(queue)),
        ));
        let all_greeted = queues.as_mut().now_or_never().is_some();
        let open = self.open();
        if all_greeted && open == 0 {
            return;
        }
        self.report.notice(Event::Draining(open));
        let work = async {
            if !all_greeted {
                queues.await;
            }
            self.below(1).await;
        };
        if rt::within(self.limits.drain_timeout, work).await.is_none() {
            self.report.notice(Event::Cut(self.open()));
        }
    }

    /// Those in the kernel's queue believe that they are connected: they are served, as soon as there is a place for
    /// them. Others may come all the time, so there must be an end to it: nobody who was there when we were told to stop
    /// is behind so many.
    async fn drain_backlog(self: &Arc<Self>, listener: Listener) {
        let mut door = Acceptor::new();
        for _ in 0..=BACKLOG {
            if !door.next(self, &listener).await {
                return;
            }
        }
    }

    fn open(&self) -> u64 {
        self.stats.open.load(Ordering::Acquire)
    }

    /// Waits until fewer than `limit` connections are looked after.
    async fn below(&self, limit: u64) {
        while self.open() >= limit {
            let left = self.left.listen(); // before the second look, or a wake between the two is lost
            if self.open() < limit {
                return;
            }
            left.await;
        }
    }

    async fn accept(self: &Arc<Self>, listener: &Listener) {
        let mut door = Acceptor::new();
        loop {
            if !door.next(self, listener).await {
                let _readiness = listener.ready().await; // if waiting fails, accepting will say why
            }
        }
    }

    /// Answers on the spot where that is possible, and makes a task of the connection where it is not.
    fn greet(self: &Arc<Self>, client: Accepted, now: Instant) {
        if self.handler.protocol() != Protocol::Poem {
            return self.spawn_connection(client, now, move |connection| async move {
                connection.open_exchange(now).await
            });
        }
        // This is the acceptor's own task: a bug in an answer must cost this client, and nobody else.
        let answering = AssertUnwindSafe(|| self.handler.clone().answer(Bytes::new(), now));
        let Ok(answer) = std::panic::catch_unwind(answering) else {
            client.arm();
            let outcome = Outcome::Failed(Arc::new(Error::Abandoned));
            return self.unanswered(&client.peer(), outcome, Duration::ZERO);
        };
        // What goes out in one write is either all or nothing. Anything else is armed before its first byte.
        let short = answer
            .reader
            .whole_len()
            .is_some_and(|len| len <= ON_THE_WIRE);
        if !short {
            client.arm();
        }
        let mut delivery = Delivery::new(answer.reader);
        let step = delivery.step(|bytes, then| client.send(bytes, then));
        let whole = short && matches!(step, Progress::Ended);
        let mut chatter = ClientInput::default();
        if whole && client.finish().is_ok() {
            match client.try_recv(&mut [0; 64]) {
                Received::Nothing | Received::Eof | Received::Broken => {
                    let (peer, how, bytes) = (&client.peer(), answer.how, delivery.sent);
                    let (outcome, wait) = (Outcome::Whole, Duration::ZERO);
                    return self.record(AccessRecord {
                        peer,
                        request: b"",
                        how,
                        outcome,
                        bytes,
                        wait,
                        stored: false,
                    });
                }
                Received::Bytes(count) => chatter.heard = count as u32, // at most 64
            }
        }
        let how = answer.how;
        self.spawn_connection(client, now, move |connection| {
            let mut answering = Responding::new(b"", now, how, delivery);
            answering.chatter = chatter;
            async move { connection.deliver(&mut answering).await }
        });
    }

    /// Makes a task of a connection, and counts it until it ends, however it ends.
    fn spawn_connection<F>(
        self: &Arc<Self>,
        client: Accepted,
        accepted: Instant,
        story: impl FnOnce(Connection<H>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let peer = client.peer();
        let stream = match client.register() {
            Ok(stream) => stream,
            Err(e) => {
                let why = Error::Local {
                    subject: "connection".into(),
                    why: crate::error::reason(&e),
                };
                return self.unanswered(&peer, Outcome::Failed(Arc::new(why)), accepted.elapsed());
            }
        };
        self.stats.tasks.fetch_add(1, Ordering::AcqRel);
        self.stats.open.fetch_add(1, Ordering::AcqRel);
        rt::spawn(story(Connection {
            server: self.clone(),
            stream,
            peer,
        }));
    }

    /// The end of a connection without an answer.
    fn unanswered(&self, peer: &Peer, outcome: Outcome, wait: Duration) {
        let how = CacheStatus::Unasked;
        self.record(AccessRecord {
            peer,
            request: b"",
            how,
            outcome,
            bytes: 0,
            wait,
            stored: false,
        });
    }

    fn record(&self, record: AccessRecord<'_>) {
        self.stats.count(&record);
        self.report.request(&record);
    }
}

/// Where those who come are let in, one after the other.
struct Acceptor {
    turn: usize,
    pause: Duration,
}

impl Acceptor {
    fn new() -> Acceptor {
        Acceptor {
            turn: 0,
            pause: PAUSE.0,
        }
    }

    /// Lets the next one in, as soon as there is a place. False when nobody is there.
    async fn next<H: Handler>(&mut self, server: &Arc<Server<H>>, listener: &Listener) -> bool {
        self.turn += 1;
        if self.turn.is_multiple_of(BURST) {
            rt::yield_now().await;
        }
        server.below(server.limits.max_clients).await;
        match listener.accept() {
            Ok(client) => {
                self.pause = PAUSE.0;
                server.greet(client, Instant::now());
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) if is_about_one_connection(&e) => {}
            Err(e) => {
                server.report.notice(Event::Paused(&e, self.pause));
                rt::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(PAUSE.1);
            }
        }
        true
    }
}

/// Errors of `accept` that say something about the connection, which is gone, and nothing about us.
fn is_about_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    [Errno::CONNABORTED, Errno::PROTO, Errno::INTR, Errno::PERM]
        .into_iter()
        .any(|e| errno == Some(e))
}
