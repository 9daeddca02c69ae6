//! Accepts connections, gets each its answer, and ends each honestly.
//!
//! | the answer | how the connection ends |
//! |---|---|
//! | complete | politely: FIN, read and discard what the client sends until it has acknowledged the FIN, close |
//! | declined (netstring) | the same, without a byte of reply |
//! | failed | a reset, once the kernel has sent what came before the failure |
//! | the client is stuck | a reset |
//! | the client is refused, or its PROXY header is bad | a reset, before all else: `server/admit.rs` |
//! | the process dies | a reset: every connection with a task is armed until its polite close |
//!
//! **The short way.** An answer that is there at once is sent on the socket just
//! accepted, without a task, a timer or the reactor. So is the answer to a request that
//! is there at accept. Only a connection that has to wait becomes a task.
//! `Delivery::step` is the same code for both. A short answer that is not acknowledged
//! at once waits for that in a list.

mod acceptor;
mod admit;
mod closing;
mod connection;
mod delivery;
mod ending;
mod first_look;
mod receipt;
mod record;
#[cfg(test)]
mod tests;

use crate::admission::{Admission, Pass};
use crate::budget::Budget;
use crate::error::{Error, reason};
use crate::flight::Reader;
use crate::net::{Accepted, Listener, Peer};
use crate::observe::{AccessRecord, CacheStatus, Event, Observer, Outcome, Reloaded};
use crate::protocol::Protocol;
use crate::rt;
use crate::semaphore::Semaphore;
use crate::slots::{Slot, Slots};
use crate::stats::Stats;
use acceptor::Acceptor;
pub use admit::MOST_TOLD;
use bytes::Bytes;
use closing::Closing;
use connection::{Connection, FLUSH, Responding, logged};
use delivery::{Delivery, Progress};
use ending::AckWatch;
use first_look::{Asked, FIRST_LOOK_BYTES, FirstLook};
use futures::future::join_all;
use receipt::{Receipt, taken};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The client's address; `None` over a unix socket.
    pub from: Option<IpAddr>,
    /// The request without its framing; empty in the poem protocol.
    pub body: Bytes,
    /// When the connection was accepted.
    pub accepted: Instant,
}

/// An answer, complete or on its way.
#[derive(Debug)]
pub struct Response {
    /// The bytes to send.
    pub reader: Reader,
    /// Where they come from.
    pub status: CacheStatus,
    /// The route of the request, where there are routes.
    pub route: Option<Arc<str>>,
}

/// What a service does with a request.
pub trait Handler: Send + Sync + 'static {
    /// The answer, without waiting: whatever has to wait is in the answer's reader.
    fn respond(self: Arc<Self>, request: Request, now: Instant) -> Response;

    /// Reads again what it serves, or purges what it keeps (SIGHUP).
    ///
    /// # Errors
    /// The reason why all stays as it was.
    fn reload(&self, now: Instant) -> Result<Reloaded, Error>;

    /// The service stops: what would never end is to end now, in whatever answer it is.
    fn drain(&self) {}
}

/// What a service speaks.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    /// The protocol.
    pub protocol: Protocol,
    /// The longest request, in bytes. In the line protocol the line's own limit holds.
    pub longest_request: u64,
}

/// The limits of a listening command.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that may be open at once. Beyond that, the kernel's backlog waits.
    pub max_clients: u64,
    /// How many more may be open because as many clients have closed their sending
    /// side, or the whole connection (nothing tells which), and wait for an answer that
    /// has not begun.
    pub max_half_closed: u64,
    /// How long a client may neither send what it owes nor take what it is sent.
    pub client_timeout: Duration,
    /// How long open connections may take to finish once the service is told to stop.
    pub drain_timeout: Duration,
}

/// An answer of at most this size, in bytes, goes out in one write, all or nothing: ten
/// segments of 1448 bytes (RFC 6928's initial window). Its connection is not armed.
const SHORT: u64 = 14_480;

/// How long the drain waits for all threads to have looked at their backlogs before it
/// tells how many connections are open. They take some microseconds, where there are
/// slots.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// A service as one thread runs it.
pub struct Server<H> {
    handler: Arc<H>,
    wire: Wire,
    limits: Limits,
    slots: Slots,
    closing: Closing,
    /// Which clients may come in; `None` if all may.
    admission: Option<Arc<Admission>>,
    /// The right to tell a refused client why.
    telling: Semaphore,
    /// What clients' requests hold.
    budget: Budget,
    observer: Arc<dyn Observer>,
    stats: Arc<Stats>,
}

/// What a service is made of.
pub struct Parts<H> {
    /// Answers the requests.
    pub handler: Arc<H>,
    /// What it speaks.
    pub wire: Wire,
    /// Its limits.
    pub limits: Limits,
    /// Which clients may come in; `None` if all may.
    pub admission: Option<Arc<Admission>>,
    /// The memory that clients' requests share.
    pub budget: Budget,
    /// Receives what happens.
    pub observer: Arc<dyn Observer>,
    /// Counts what happens.
    pub stats: Arc<Stats>,
}

impl<H: Handler> Server<H> {
    /// A service that does not listen yet.
    pub fn new(parts: Parts<H>) -> Arc<Server<H>> {
        let most = parts.limits.max_clients;
        parts.stats.max_clients.store(most, Ordering::Release);

        Arc::new(Server {
            handler: parts.handler,
            wire: parts.wire,
            limits: parts.limits,
            slots: Slots::new(parts.limits.max_clients, parts.limits.max_half_closed),
            closing: Closing::default(),
            admission: parts.admission,
            telling: Semaphore::new(MOST_TOLD),
            budget: parts.budget,
            observer: parts.observer,
            stats: parts.stats,
        })
    }

    /// The same service for one more thread. All is shared but the list of connections
    /// that are being closed: only one thread ever looks at that.
    pub(crate) fn for_another_thread(&self) -> Arc<Server<H>> {
        Arc::new(Server {
            handler: self.handler.clone(),
            wire: self.wire,
            limits: self.limits,
            slots: self.slots.clone(),
            closing: Closing::default(),
            admission: self.admission.clone(),
            telling: self.telling.clone(),
            budget: self.budget.clone(),
            observer: self.observer.clone(),
            stats: self.stats.clone(),
        })
    }

    /// Serves on this thread until `shutdown` is ready, then finishes what is open, for
    /// at most the drain timeout. An answer that is not finished by then is reset by
    /// the end of the process; one that is sent is left to the kernel.
    pub async fn run(
        self: Arc<Self>,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
        self.accept_until(&listeners, shutdown).await;
        self.drain(self.drain_backlogs(listeners)).await;
    }

    /// Accepts connections until `shutdown` is ready.
    pub(crate) async fn accept_until(
        self: &Arc<Self>,
        listeners: &[Arc<Listener>],
        shutdown: impl Future<Output = ()>,
    ) {
        let acceptors = listeners.iter().map(|listener| self.accept(listener));
        let _shut_down = rt::race(join_all(acceptors), shutdown).await;
    }

    /// Serves the connections that the kernel has already completed, and stops
    /// listening.
    pub(crate) async fn drain_backlogs(self: &Arc<Self>, listeners: Vec<Arc<Listener>>) {
        let backlogs = listeners.into_iter();
        join_all(backlogs.map(|listener| self.drain_backlog(listener))).await;
    }

    /// Finishes what is open on all threads, once `backlogs` has ended, for at most the
    /// drain timeout. Tells of it once, with the sum.
    pub(crate) async fn drain(&self, backlogs: impl Future<Output = ()>) {
        let limit = self.limits.drain_timeout;
        let began = Instant::now();
        self.guarded(|| self.handler.drain());
        let mut backlogs = Box::pin(backlogs);
        let is_drained = rt::within(limit.min(LAST_LOOK), backlogs.as_mut()).await;
        if is_drained.is_some() && self.slots.held() == 0 {
            return;
        }

        // Not the slots: an acceptor may hold one for the next connection.
        let open = self.stats.open_now();
        if open > 0 {
            self.tell(Event::Draining { open });
        }
        let finished = async {
            if is_drained.is_none() {
                backlogs.await;
            }
            self.slots.all_free().await;
        };
        let limit = limit.saturating_sub(began.elapsed());
        if rt::within(limit, finished).await.is_none() {
            let open = self.stats.unanswered();
            if open > 0 {
                self.tell(Event::Cut { open });
            }
        }
    }

    /// Accepts connections for ever.
    async fn accept(self: &Arc<Self>, listener: &Listener) {
        let mut acceptor = Acceptor::new();
        loop {
            if !acceptor.accept_next(self, listener).await {
                acceptor.wait(listener).await;
            }
        }
    }

    /// Serves connections that the kernel has already completed. More may come all
    /// the time, so it ends after one backlog and one more. It looks before it waits
    /// for a slot: an empty backlog needs none, and new clients are to be refused.
    async fn drain_backlog(self: &Arc<Self>, listener: Arc<Listener>) {
        let mut acceptor = Acceptor::new();
        for _ in 0..=crate::net::BACKLOG {
            if !listener.has_waiting() || !acceptor.accept_next(self, &listener).await {
                return;
            }
        }
    }

    /// Handles a connection just accepted, if its client may come in. Returns the slot
    /// if it was not needed.
    fn arrive(self: &Arc<Self>, client: Accepted, slot: Slot, now: Instant) -> Option<Slot> {
        let Some(admission) = &self.admission else {
            let pass = Pass::uncounted();
            return self.handle(Arrival { client, slot, pass }, now);
        };
        self.admit(admission, client, slot, now)
    }

    /// Answers a connection at once where that is possible, and gives it a task
    /// otherwise. Returns the slot if it was not needed.
    fn handle(self: &Arc<Self>, arrival: Arrival, now: Instant) -> Option<Slot> {
        if self.wire.protocol == Protocol::Poem {
            return self.answer(arrival, Asked::nothing(), now);
        }

        let mut buffer = [0; FIRST_LOOK_BYTES];
        let look = FirstLook::of(&arrival.client, &self.wire, &mut buffer);
        self.handle_look(arrival, look, now)
    }

    /// Handles a connection that has sent what this look has found.
    fn handle_look(
        self: &Arc<Self>,
        arrival: Arrival,
        look: FirstLook<'_>,
        now: Instant,
    ) -> Option<Slot> {
        match look {
            FirstLook::Request(asked) => self.answer(arrival, asked, now),
            FirstLook::Begun(begun) => {
                let begun: Box<[u8]> = begun.into();
                let serve =
                    |connection: Connection<H>| async move { connection.serve(begun).await };
                if let Err((peer, outcome)) = self.spawn_connection(arrival, now, serve) {
                    self.record_unanswered(&peer, outcome, now);
                }
                None
            }
        }
    }

    /// Answers a request that is there, like [`Server::handle`].
    fn answer(self: &Arc<Self>, arrival: Arrival, asked: Asked, now: Instant) -> Option<Slot> {
        let Arrival { client, slot, pass } = arrival;
        let peer = client.peer();
        let Some(response) = self.respond(&peer, asked.request.clone(), now) else {
            client.arm();
            let outcome = Outcome::Failed(Arc::new(Error::Abandoned));
            self.record_unanswered(&peer, outcome, now);
            return Some(slot);
        };

        // A short whole poem goes out in one write, all or nothing. Any other
        // connection is armed before its first byte.
        let length = response.reader.whole_len();
        let is_short = length.is_some_and(|length| length <= SHORT);
        if !is_short {
            client.arm();
        }
        let mut delivery = Delivery::new(response.reader);
        let progress = delivery.step(|bytes, then| client.send(bytes, then));

        let answer = Answer {
            client,
            slot,
            pass,
            asked,
            status: response.status,
            route: response.route,
            delivery,
            accepted: now,
        };
        if is_short && matches!(progress, Progress::Ended) && answer.client.finish().is_ok() {
            self.close_short(answer)
        } else {
            self.go_on(answer, 0);
            None
        }
    }

    /// Closes a connection whose short answer and end are sent. Returns the slot if the
    /// client has taken both.
    fn close_short(self: &Arc<Self>, mut answer: Answer) -> Option<Slot> {
        match taken(&answer.client, answer.asked.received, answer.delivery.sent) {
            Receipt::All => {
                self.record(answer.record(Outcome::Whole, &answer.client.peer(), answer.accepted));
                return Some(answer.slot);
            }
            Receipt::Part(info) => {
                answer.delivery.reader.release();
                let watch = AckWatch::new(&info, Instant::now());
                self.close_later(answer, watch);
            }
            Receipt::HasSentBytes { received } => self.go_on(answer, received),
        }
        None
    }

    /// Gives a connection a task that finishes its answer. It has sent `received`
    /// bytes.
    fn go_on(self: &Arc<Self>, answer: Answer, received: u32) {
        let Answer {
            client,
            slot,
            pass,
            asked,
            status,
            route,
            delivery,
            accepted,
        } = answer;
        let sent = delivery.sent;
        let mut responding = Responding::new(&asked.request, status, delivery);
        responding.route = route;
        drop(asked);
        responding.input.received = received;

        let deliver = move |connection: Connection<H>| async move {
            connection.deliver(&mut responding).await;
            drop(responding); // a client that sees the end finds its reader gone
        };
        let arrival = Arrival { client, slot, pass };
        if let Err((peer, outcome)) = self.spawn_connection(arrival, accepted, deliver) {
            self.record_cut(&peer, outcome, (status, sent), accepted);
        }
    }

    /// The handler's answer. `None` if it panicked: on the acceptor's own task, a bug
    /// in one answer must cost only that client.
    fn respond(&self, peer: &Peer, body: Bytes, accepted: Instant) -> Option<Response> {
        let request = Request {
            from: peer.ip(),
            body,
            accepted,
        };
        let handler = self.handler.clone();
        self.guarded(|| handler.respond(request, accepted))
    }

    /// Gives a connection a task, which holds the slot until it ends, in whatever way.
    ///
    /// # Errors
    /// How the connection ended, if the reactor could not take it.
    fn spawn_connection<F>(
        self: &Arc<Self>,
        arrival: Arrival,
        accepted: Instant,
        serve: impl FnOnce(Connection<H>) -> F,
    ) -> Result<(), (Peer, Outcome)>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Arrival { client, slot, pass } = arrival;
        let peer = client.peer();
        let stream = match client.register() {
            Ok(stream) => stream,
            Err(e) => {
                let error = Error::Local {
                    subject: "connection".into(),
                    why: reason(&e),
                };
                return Err((peer, Outcome::Failed(Arc::new(error))));
            }
        };

        self.stats.tasks.fetch_add(1, Ordering::AcqRel);
        self.stats.open.fetch_add(1, Ordering::AcqRel);
        rt::spawn(serve(Connection {
            server: self.clone(),
            stream,
            peer,
            slot,
            pass,
            accepted,
        }));
        Ok(())
    }
}

/// A connection just accepted that may come in.
struct Arrival {
    client: Accepted,
    slot: Slot,
    /// Counts it where connections are limited by address.
    pass: Pass,
}

/// An answer on the socket just accepted.
struct Answer {
    client: Accepted,
    slot: Slot,
    pass: Pass,
    asked: Asked,
    status: CacheStatus,
    route: Option<Arc<str>>,
    delivery: Delivery,
    accepted: Instant,
}

impl Answer {
    /// What to record of this answer if it ends `now`.
    fn record<'a>(&'a self, outcome: Outcome, peer: &'a Peer, now: Instant) -> AccessRecord<'a> {
        AccessRecord {
            peer,
            request: logged(&self.asked.request),
            status: self.status,
            route: self.route.as_deref(),
            fetch: None, // a short answer comes from the cache
            outcome,
            bytes: self.delivery.sent,
            wait: Duration::ZERO,
            total: now.duration_since(self.accepted),
            stored: false,
            feed: None,
        }
    }
}
