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

use crate::error::Error;
use crate::flight::{Read, Reader};
use crate::net::{self, Client, Heard, Listener, Peer, Stream, Then, BACKLOG};
use crate::protocol::{Malformed, Protocol, RequestDecoder};
use crate::stats::{How, Notice, Outcome, Record, Report, Stats};
use bytes::Bytes;
use event_listener::Event;
use futures::future::join_all;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a command does with a request.
pub trait Handler: Send + Sync + 'static {
    /// What its clients speak.
    fn protocol(&self) -> Protocol;
    /// The longest request it takes, in bytes.
    fn request_limit(&self) -> u64;
    /// What it does when it is told to begin anew (SIGHUP): a word for the log, or why everything stays as it was.
    ///
    /// # Errors
    /// Whatever kept it from reading again what it serves.
    fn renew(&self) -> Result<&'static str, Error>;
    /// The answer, without waiting: what has to wait is in the answer's reader.
    fn answer(self: Arc<Self>, request: Bytes, now: Instant) -> Answer;
}

/// An answer, here already or on its way.
#[derive(Debug)]
pub struct Answer {
    /// The bytes to send.
    pub reader: Reader,
    /// How it was come by.
    pub how: How,
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
}

/// A poem of at most this size is on the wire when `send` returns: ten segments of 1448 bytes (RFC 6928's initial
/// window). Of a longer one a part may wait in the kernel, where a client's late byte would make a close cut it off,
/// so its close lingers until the client has closed.
const ON_THE_WIRE: u64 = 14_480;

/// How long and for how many bytes a polite close listens to a client whose poem is on the wire.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u32 = 64 << 10;

/// So much of a request is told in logs, in bytes.
const REQUEST_TOLD: usize = 1024;

/// How long a failed answer's first part may take to leave the kernel before the reset.
const FLUSH: Duration = Duration::from_secs(1);

/// How many connections are accepted before other work on the thread gets its turn: some milliseconds' worth. A turn
/// costs four system calls.
const BURST: usize = 256;

/// The first and the longest pause when accepting fails for lack of resources.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A running service.
pub struct Server<H> {
    handler: Arc<H>,
    limits: Limits,
    report: Arc<dyn Report>,
    stats: Arc<Stats>,
    /// Wakes the acceptor that waits for a place, and the drain.
    left: Event,
}

impl<H: Handler> Server<H> {
    /// A service that is not listening yet.
    pub fn new(
        handler: Arc<H>,
        limits: Limits,
        report: Arc<dyn Report>,
        stats: Arc<Stats>,
    ) -> Arc<Server<H>> {
        Arc::new(Server { handler, limits, report, stats, left: Event::new() })
    }

    /// Serves until `shutdown`, then finishes what runs, for at most the drain timeout. What is not finished by then
    /// is reset by the end of the process.
    pub async fn run(self: Arc<Self>, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
        let accepting = join_all(listeners.iter().map(|listener| self.clone().accept(listener)));
        let _shut_down = net::race(accepting, shutdown).await;
        listeners.iter().for_each(|listener| self.greet_the_queue(listener));
        drop(listeners);
        self.drain().await;
    }

    /// Those in the kernel's queue believe that they are connected: they are served. Others may come all the time, so
    /// there must be an end to it: nobody who was there when we were told to stop is behind so many.
    fn greet_the_queue(self: &Arc<Self>, listener: &Listener) {
        for _ in 0..=BACKLOG {
            match listener.accept() {
                Ok(client) => self.greet(client, Instant::now()),
                Err(e) if is_about_one_connection(&e) => {}
                Err(_) => return,
            }
        }
    }

    async fn drain(&self) {
        let open = self.open();
        if open == 0 {
            return;
        }
        self.report.notice(Notice::Draining(open));
        if net::within(self.limits.drain_timeout, self.below(1)).await.is_none() {
            self.report.notice(Notice::Cut(self.open()));
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

    async fn accept(self: Arc<Self>, listener: &Listener) {
        let mut pause = PAUSE.0;
        let mut now = Instant::now();
        for turn in 1usize.. {
            self.below(self.limits.max_clients).await;
            match listener.accept() {
                Ok(client) => {
                    pause = PAUSE.0;
                    self.greet(client, now);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let _readiness = listener.ready().await; // if waiting fails, accepting will say why
                    now = Instant::now();
                }
                Err(e) if is_about_one_connection(&e) => {}
                Err(e) => {
                    self.report.notice(Notice::Paused(&e, pause));
                    net::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            if turn % BURST == 0 {
                net::yield_now().await;
                now = Instant::now();
            }
        }
    }

    /// Answers on the spot where that is possible, and makes a task of the connection where it is not.
    fn greet(self: &Arc<Self>, client: Client, now: Instant) {
        if self.handler.protocol() != Protocol::Poem {
            return self.look_after(
                client,
                now,
                move |connection| async move { connection.converse(now).await },
            );
        }
        // This is the acceptor's own task: a bug in an answer must cost this client, and nobody else.
        let answering = AssertUnwindSafe(|| self.handler.clone().answer(Bytes::new(), now));
        let Ok(answer) = std::panic::catch_unwind(answering) else {
            client.arm();
            let outcome = Outcome::Failed(Arc::new(Error::Abandoned));
            return self.unanswered(&client.peer(), outcome, Duration::ZERO);
        };
        // What goes out in one write is either all or nothing. Anything else is armed before its first byte.
        let short = answer.reader.whole_len().is_some_and(|len| len <= ON_THE_WIRE);
        if !short {
            client.arm();
        }
        let mut delivery = Delivery::new(answer.reader);
        let step = delivery.step(|bytes, then| client.send(bytes, then));
        let whole = short && matches!(step, Step::Ended);
        let mut chatter = Chatter::default();
        if whole && client.finish().is_ok() {
            match client.hear(&mut [0; 64]) {
                Heard::Silence | Heard::End | Heard::Gone => {
                    let (peer, how, bytes) = (&client.peer(), answer.how, delivery.sent);
                    let (outcome, wait) = (Outcome::Whole, Duration::ZERO);
                    return self.record(Record {
                        peer,
                        request: b"",
                        how,
                        outcome,
                        bytes,
                        wait,
                        stored: false,
                    });
                }
                Heard::Bytes(count) => chatter.heard = count as u32, // at most 64
            }
        }
        let how = answer.how;
        self.look_after(client, now, move |connection| {
            let mut answering = Answering { chatter, ..Answering::new(b"", now, how, delivery) };
            async move { connection.carry_on(&mut answering).await }
        });
    }

    /// Makes a task of a connection, and counts it until it ends, however it ends.
    fn look_after<F>(
        self: &Arc<Self>,
        client: Client,
        accepted: Instant,
        story: impl FnOnce(Connection<H>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let peer = client.peer();
        let stream = match client.register() {
            Ok(stream) => stream,
            Err(e) => {
                let why = Error::Local { what: "connection".into(), why: crate::error::reason(&e) };
                return self.unanswered(&peer, Outcome::Failed(Arc::new(why)), accepted.elapsed());
            }
        };
        self.stats.tasks.fetch_add(1, Ordering::AcqRel);
        self.stats.open.fetch_add(1, Ordering::AcqRel);
        net::spawn(story(Connection { server: self.clone(), stream, peer }));
    }

    /// The end of a connection without an answer.
    fn unanswered(&self, peer: &Peer, outcome: Outcome, wait: Duration) {
        let how = How::Unasked;
        self.record(Record { peer, request: b"", how, outcome, bytes: 0, wait, stored: false });
    }

    fn record(&self, record: Record<'_>) {
        self.stats.count(&record);
        self.report.request(&record);
    }
}

/// Errors of `accept` that say something about the connection, which is gone, and nothing about us.
fn is_about_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    [Errno::CONNABORTED, Errno::PROTO, Errno::INTR, Errno::PERM].into_iter().any(|e| errno == Some(e))
}

/// An answer on its way to one client.
struct Delivery {
    reader: Reader,
    sent: u64,
}

/// How far a delivery goes without waiting.
enum Step {
    /// The kernel takes no more for now.
    Full,
    /// There is no more to send for now.
    Waiting,
    /// Everything was taken.
    Ended,
    /// There will never be more.
    Failed(Arc<Error>),
    /// The client is gone.
    Gone,
}

impl Delivery {
    fn new(reader: Reader) -> Delivery {
        Delivery { reader, sent: 0 }
    }

    fn step(&mut self, send: impl Fn(&[u8], Then) -> io::Result<usize>) -> Step {
        loop {
            let (next, is_last) = self.reader.peek_ahead();
            let bytes = match next {
                Read::Chunk(bytes) => bytes,
                Read::Pending => return Step::Waiting,
                Read::End => return Step::Ended,
                Read::Failed(error) => return Step::Failed(error),
            };
            match send(&bytes, if is_last { Then::Finish } else { Then::Unknown }) {
                Ok(count) => {
                    self.reader.advance(count);
                    self.sent += count as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Full,
                Err(_) => return Step::Gone,
            }
        }
    }
}

/// A connection that has to wait, and so has a task of its own.
struct Connection<H: Handler> {
    server: Arc<Server<H>>,
    stream: Stream,
    peer: Peer,
}

impl<H: Handler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.server.stats.open.fetch_sub(1, Ordering::AcqRel);
        self.server.left.notify(usize::MAX);
    }
}

/// A request, and how far its answer is.
struct Answering {
    /// As much of it as is told.
    request: Box<[u8]>,
    how: How,
    delivery: Delivery,
    /// Whether the fetch it caused was kept; known in the end.
    stored: bool,
    chatter: Chatter,
    wait: Wait,
}

/// From the accept to the answer's first byte.
#[derive(Clone, Copy)]
enum Wait {
    Since(Instant),
    Over(Duration),
}

impl Wait {
    fn end(&mut self) {
        *self = Wait::Over(self.so_far());
    }

    fn so_far(self) -> Duration {
        match self {
            Wait::Since(accepted) => accepted.elapsed(),
            Wait::Over(wait) => wait,
        }
    }
}

impl Answering {
    fn new(request: &[u8], accepted: Instant, how: How, delivery: Delivery) -> Answering {
        let request = request[..request.len().min(REQUEST_TOLD)].into();
        let chatter = Chatter::default();
        let wait = if delivery.sent > 0 { Wait::Over(Duration::ZERO) } else { Wait::Since(accepted) };
        Answering { request, how, delivery, stored: false, chatter, wait }
    }

    fn is_stored(&self) -> bool {
        self.how == How::Miss && self.delivery.reader.was_kept()
    }
}

/// What a client says although nobody asks it any more.
#[derive(Clone, Copy, Default)]
struct Chatter {
    heard: u32,
    over: bool,
}

impl Chatter {
    /// Takes and forgets what has come. The buffer is this call's own: one that lived across an await would be part
    /// of every waiting client's task.
    fn hear(&mut self, stream: &Stream) -> Heard {
        let heard = stream.hear(&mut [0; 1024]);
        match heard {
            Heard::Bytes(count) => self.heard += count as u32, // of a small buffer
            Heard::End => self.over = true,
            Heard::Silence | Heard::Gone => {}
        }
        heard
    }
}

impl<H: Handler> Connection<H> {
    /// The request first, then the answer.
    async fn converse(&self, accepted: Instant) {
        match Box::pin(net::within(self.server.limits.client_timeout, self.request())).await {
            Some(Ok(request)) => {
                let answer = self.server.handler.clone().answer(request.clone(), Instant::now());
                let mut answering =
                    Answering::new(&request, accepted, answer.how, Delivery::new(answer.reader));
                drop(request); // it may be large, and its answer may take long
                self.carry_on(&mut answering).await;
            }
            Some(Err(outcome)) => {
                if outcome == Outcome::Declined {
                    Box::pin(self.close_politely(0, Chatter { heard: 1, over: false })).await;
                }
                self.refused(accepted, outcome);
            }
            None => self.refused(accepted, Outcome::Stuck),
        }
    }

    async fn request(&self) -> Result<Bytes, Outcome> {
        let protocol = self.server.handler.protocol();
        let mut decoder = RequestDecoder::new(protocol, self.server.handler.request_limit());
        loop {
            // The buffer lives for the call: a client that is slow to ask costs no more than what it has said.
            let heard = {
                let mut buffer = [0; 16 << 10];
                match self.stream.hear(&mut buffer) {
                    Heard::Bytes(count) => Some(decoder.push(&buffer[..count])),
                    Heard::Silence => None,
                    Heard::End => Some(Err(Malformed::Unfinished)),
                    Heard::Gone => return Err(Outcome::Left),
                }
            };
            match heard {
                Some(Ok(Some(request))) => return Ok(request),
                Some(Ok(None)) => {}
                Some(Err(why)) => return Err(refusal(protocol, &self.peer, why)),
                None => self.stream.readable().await.map_err(|_| Outcome::Left)?,
            }
        }
    }

    /// The answer, from wherever it stands to its end.
    ///
    /// What is rare or late here is boxed: a task is as large as its largest wait, and ten thousand clients wait for
    /// a poem, not for its end.
    async fn carry_on(&self, answering: &mut Answering) {
        let outcome = loop {
            let step = answering.delivery.step(|bytes, then| self.stream.send(bytes, then));
            if answering.delivery.sent > 0 {
                answering.wait.end();
            }
            match step {
                Step::Full => {
                    let taken = net::within(self.server.limits.client_timeout, self.stream.writable());
                    match Box::pin(taken).await {
                        Some(Ok(())) => {}
                        Some(Err(_)) => break Outcome::Left,
                        None => break Outcome::Stuck,
                    }
                }
                Step::Waiting => {
                    let Answering { delivery, chatter, .. } = &mut *answering;
                    if net::race(delivery.reader.ready(), self.gone(chatter)).await.is_err() {
                        break Outcome::Left;
                    }
                }
                Step::Ended => {
                    // The kernel has it all; a client that takes its time to close must not hold on to it.
                    answering.stored = answering.is_stored();
                    answering.delivery.reader.release();
                    Box::pin(self.close_politely(answering.delivery.sent, answering.chatter)).await;
                    break Outcome::Whole;
                }
                Step::Failed(error) => break Box::pin(self.give_up(answering, error)).await,
                Step::Gone => break Outcome::Left,
            }
        };
        self.record(answering, outcome);
    }

    /// The end of an answer that will never be whole.
    async fn give_up(&self, answering: &Answering, error: Arc<Error>) -> Outcome {
        match (&*error, answering.delivery.sent) {
            (Error::Declined { .. }, 0) => {
                self.close_politely(0, answering.chatter).await;
                return Outcome::Declined;
            }
            (_, 0) => {}
            (_, _) => {
                let _flushed = net::within(FLUSH, self.stream.emptied()).await;
            }
        }
        Outcome::Failed(error)
    }

    fn record(&self, answering: &Answering, outcome: Outcome) {
        let Answering { request, how, delivery, stored, wait, .. } = answering;
        let wait = wait.so_far();
        let (peer, how, bytes, stored) = (&self.peer, *how, delivery.sent, *stored);
        self.server.record(Record { peer, request, how, outcome, bytes, wait, stored });
    }

    /// Ends when the client's connection breaks, and discards what it says. A client that has only said that it will
    /// send no more is not gone: it may well read on.
    async fn gone(&self, chatter: &mut Chatter) {
        while !chatter.over && chatter.heard < LINGER_BYTES {
            match chatter.hear(&self.stream) {
                Heard::Gone => return,
                Heard::Silence if self.stream.readable().await.is_err() => return,
                _ => {}
            }
        }
        std::future::pending().await
    }

    /// FIN, and then a close that costs the client nothing: closing with unread input would make the kernel reset
    /// the connection and throw away what it has not sent yet.
    async fn close_politely(&self, sent: u64, mut chatter: Chatter) {
        self.stream.disarm();
        if self.stream.finish().is_err() || chatter.over {
            return;
        }
        if sent <= ON_THE_WIRE && chatter.heard == 0 && self.stream.hear(&mut [0; 64]) == Heard::Silence {
            return;
        }
        let time = if sent <= ON_THE_WIRE { LINGER } else { self.server.limits.client_timeout };
        chatter.heard = 0;
        let over = async {
            while chatter.heard < LINGER_BYTES {
                match chatter.hear(&self.stream) {
                    Heard::Bytes(_) => {}
                    Heard::Silence if self.stream.readable().await.is_ok() => {}
                    _ => return,
                }
            }
        };
        let _over = net::within(time, over).await;
    }

    /// The end of a connection without a request that could be answered.
    fn refused(&self, accepted: Instant, outcome: Outcome) {
        self.server.unanswered(&self.peer, outcome, accepted.elapsed());
    }
}

/// A request that can't be understood: the netstring protocol says so by closing without a reply; where no framing
/// would tell, the connection is reset.
fn refusal(protocol: Protocol, peer: &Peer, why: Malformed) -> Outcome {
    match protocol {
        Protocol::Netstring => Outcome::Declined,
        _ => Outcome::Failed(Arc::new(Error::Malformed { addr: peer.to_string(), why: why.to_string() })),
    }
}
