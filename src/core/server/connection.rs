//! One connection: its request, how its answer goes out, and how it ends.

#[cfg(test)]
mod tests;

use super::admit::say;
use super::delivery::{Delivery, Pause, Progress};
use super::{Handler, Request, Response, Server};
use crate::admission::Pass;
use crate::error::Error;
use crate::net::{Peer, Received, Stream};
use crate::observe::{AccessRecord, CacheStatus, FeedNote, FetchNote, Outcome};
use crate::protocol::{Malformed, Protocol, RequestDecoder};
use crate::rt::{self, CoopBudget};
use crate::slots::Slot;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

/// Bytes that are read and discarded from a client that waits. More stay in the
/// kernel, so that a client that sends without end is stopped.
const INPUT_MOST: u32 = 64 << 10;

/// How often to look whether a client that is not read from any more has reset its
/// connection.
const RESET_CHECK: Duration = Duration::from_millis(500);

/// The part of a request that logs show, in bytes.
const REQUEST_LOGGED: usize = 1024;

/// The part of a request that logs show.
pub(super) fn logged(request: &[u8]) -> &[u8] {
    &request[..request.len().min(REQUEST_LOGGED)]
}

/// How long the first part of a failed answer may take to leave the kernel before the
/// reset.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

/// When a client may try again for which the queue was full: fetches end all the time,
/// and some of those that wait give up.
const QUEUE_RETRY: Duration = Duration::from_secs(10);

/// A connection with a task of its own.
pub(super) struct Connection<H: Handler> {
    pub(super) server: Arc<Server<H>>,
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) slot: Slot,
    pub(super) pass: Pass,
    pub(super) accepted: Instant,
}

impl<H: Handler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.server.stats.open.fetch_sub(1, Ordering::AcqRel);
        if std::thread::panicking() {
            self.record_panic();
        }
    }
}

/// A request, and how far its answer has got.
pub(super) struct Responding {
    /// The part of the request that logs show.
    request: Box<[u8]>,
    status: CacheStatus,
    pub(super) route: Option<Arc<str>>,
    delivery: Delivery,
    /// Whether the fetch that this request started was kept. Known at the end.
    stored: bool,
    /// The fetch that the answer came from. Known at the end.
    fetch: Option<Arc<FetchNote>>,
    /// What a reader of a feed got and lost. Known at the end.
    feed: Option<FeedNote>,
    pub(super) input: ClientInput,
    /// From accept to the first byte of the answer, once that is sent.
    wait: Option<Duration>,
}

impl Responding {
    pub(super) fn new(request: &[u8], status: CacheStatus, delivery: Delivery) -> Responding {
        Responding {
            request: logged(request).into(),
            status,
            route: None,
            wait: (delivery.sent > 0).then_some(Duration::ZERO),
            delivery,
            stored: false,
            fetch: None,
            feed: None,
            input: ClientInput::default(),
        }
    }

    /// Takes what is known of the fetch. A reader that is released knows nothing more.
    fn note_fetch(&mut self) {
        let reader = &self.delivery.reader;
        if reader.is_stale() {
            self.status = CacheStatus::Stale;
        }
        if matches!(self.status, CacheStatus::Miss | CacheStatus::Coalesced) {
            self.fetch = reader.note().or(self.fetch.take());
        }
        self.stored |= self.status == CacheStatus::Miss && reader.was_kept();
        self.feed = reader.feed_note().or(self.feed);
    }
}

/// What a client sends that is not read as a request.
#[derive(Clone, Copy, Default)]
pub(super) struct ClientInput {
    pub(super) received: u32,
    pub(super) is_over: bool,
    /// Whether a client that sends no more lends its slot. True until its answer
    /// begins.
    may_lend: bool,
}

impl ClientInput {
    /// Reads and discards what has arrived. The buffer is this call's own: one that
    /// lived across an await would be part of every waiting client's task.
    pub(super) fn try_recv(&mut self, stream: &Stream) -> Received {
        let received = stream.try_recv(&mut [0; 1024]);
        match received {
            Received::Bytes(count) => self.received = self.received.saturating_add(count as u32),
            Received::Eof => self.is_over = true,
            Received::Nothing | Received::Broken => {}
        }
        received
    }
}

impl<H: Handler> Connection<H> {
    /// Reads the rest of the request, whose first bytes are `begun`, and answers it. In
    /// the poem protocol there is no request.
    pub(super) async fn serve(&self, begun: Box<[u8]>) {
        let limit = self.server.limits.client_timeout;
        let request = if self.server.wire.protocol == Protocol::Poem {
            Some(Ok(Bytes::new()))
        } else {
            Box::pin(rt::within(limit, self.request(begun))).await
        };

        match request.unwrap_or(Err(Outcome::Stuck)) {
            Ok(request) => {
                let response = self.respond(request.clone()).await;
                let delivery = Delivery::new(response.reader);
                let mut responding = Responding::new(&request, response.status, delivery);
                responding.route = response.route;
                drop(request); // it may be large, and its answer may take long

                self.deliver(&mut responding).await;
            }
            Err(outcome) => {
                if matches!(outcome, Outcome::Declined | Outcome::NothingSent) {
                    let input = ClientInput {
                        received: 1,
                        is_over: outcome == Outcome::NothingSent,
                        ..ClientInput::default()
                    };
                    let _closed = Box::pin(self.close_politely(0, input)).await;
                }
                let accepted = self.accepted;
                self.server.record_unanswered(&self.peer, outcome, accepted);
            }
        }
    }

    /// Records that a panic ends the connection: one of the handler, before there is an
    /// answer. In a task, because the observer may panic, too, and a second panic
    /// during the first would end the process.
    fn record_panic(&self) {
        let server = self.server.clone();
        let peer = self.peer.clone();
        let accepted = self.accepted;
        server.stats.panics.fetch_add(1, Ordering::Relaxed);
        rt::spawn(async move {
            let outcome = Outcome::Failed(Arc::new(Error::Abandoned));
            server.record_unanswered(&peer, outcome, accepted);
        });
    }

    /// The handler's answer. A long request is hashed for its key: that runs on a
    /// thread of its own.
    async fn respond(&self, body: Bytes) -> Response {
        let is_long = rt::is_long_work(body.len());
        let handler = self.server.handler.clone();
        let request = Request {
            from: self.peer.ip(),
            body,
            accepted: self.accepted,
        };
        let respond = move || handler.respond(request, Instant::now());

        if is_long {
            Box::pin(rt::unblock(respond)).await
        } else {
            respond()
        }
    }

    async fn request(&self, begun: Box<[u8]>) -> Result<Bytes, Outcome> {
        let wire = &self.server.wire;
        let mut decoder = RequestDecoder::new(wire.protocol, wire.longest_request);
        let mut charge = self.server.budget.for_request(wire.longest_request);
        let mut is_unasked = begun.is_empty();
        let mut turns = CoopBudget::default();
        let mut begun = Some(begun).filter(|begun| !begun.is_empty());

        loop {
            // The buffer lives for the call: a slow client costs no more than what it
            // has sent.
            let decoded = if let Some(begun) = begun.take() {
                Some(decoder.push(&begun))
            } else {
                let mut buffer = [0; 16 << 10];
                match self.stream.try_recv(&mut buffer) {
                    Received::Bytes(count) => {
                        is_unasked = false;
                        Some(decoder.push(&buffer[..count]))
                    }
                    Received::Nothing => None,
                    Received::Eof | Received::Broken if is_unasked => {
                        return Err(Outcome::NothingSent);
                    }
                    Received::Eof => Some(decoder.eof().map(Some)),
                    Received::Broken => return Err(Outcome::Left),
                }
            };

            match decoded {
                // What came in one read was never charged: `with` adds no wrapper then.
                Some(Ok(Some(request))) => return Ok(charge.with(request)),
                Some(Ok(None)) => {
                    if let Err(capacity) = charge.grow(decoder.held()) {
                        let subject = self.peer.to_string();
                        let error = Error::NoRoom { subject, capacity };
                        return Err(Outcome::Failed(Arc::new(error)));
                    }
                    turns.take().await;
                }
                Some(Err(why)) => return Err(refusal(wire.protocol, &self.peer, why)),
                None => {
                    let readable = self.stream.readable().await;
                    readable.map_err(|_| Outcome::Left)?;
                }
            }
        }
    }

    /// Sends the answer, from wherever it stands to its end.
    ///
    /// A task is as large as its largest wait, and ten thousand clients wait for a
    /// poem, not for its end. So what is rare or late here is boxed, and what a step
    /// returned is not held while the next one is waited for.
    pub(super) async fn deliver(&self, responding: &mut Responding) {
        if responding.status == CacheStatus::Live {
            self.stream.keep_alive(); // a quiet feed would not notice its reader's end
        }

        let outcome = loop {
            let pause = match self.send_more(responding) {
                Ok(pause) => pause,
                Err(last) => break Box::pin(self.end(responding, last)).await,
            };

            match pause {
                Pause::Full => match Box::pin(self.writable()).await {
                    Some(Ok(())) => {}
                    Some(Err(_)) => break Outcome::Left,
                    None => break Outcome::Stuck,
                },
                Pause::Turn => rt::yield_now().await,
                Pause::Waiting => {
                    responding.input.may_lend = responding.delivery.sent == 0;
                    let ready = responding.delivery.reader.ready();
                    let waited = rt::race(ready, self.gone(&mut responding.input)).await;
                    self.slot.take_back();
                    if waited.is_err() {
                        break Outcome::Left;
                    }
                }
            }
        };
        responding.note_fetch();
        self.record(responding, outcome);
    }

    /// Sends what can be sent at once. What comes next is a pause, or the end.
    fn send_more(&self, responding: &mut Responding) -> Result<Pause, Progress> {
        let send = |bytes: &[u8], then| self.stream.send(bytes, then);
        let progress = responding.delivery.step(send);
        if responding.delivery.sent > 0 && responding.wait.is_none() {
            responding.wait = Some(self.accepted.elapsed());
        }

        match progress {
            Progress::Full => Ok(Pause::Full),
            Progress::Turn => Ok(Pause::Turn),
            Progress::Waiting => Ok(Pause::Waiting),
            last => Err(last),
        }
    }

    /// Ends an answer of which there is no more to send.
    async fn end(&self, responding: &mut Responding, last: Progress) -> Outcome {
        match last {
            Progress::Ended => {
                // The kernel has it all: a client that is slow to close holds no
                // memory.
                responding.note_fetch();
                responding.delivery.reader.release();
                let sent = responding.delivery.sent;
                self.close_politely(sent, responding.input).await
            }
            Progress::Failed(error) => self.abort(responding, error).await,
            Progress::FellBehind(window) => {
                self.flush(responding).await;
                Outcome::FellBehind(window)
            }
            Progress::Gone | Progress::Full | Progress::Turn | Progress::Waiting => Outcome::Left,
        }
    }

    /// Ends an answer that will never be whole.
    async fn abort(&self, responding: &mut Responding, error: Arc<Error>) -> Outcome {
        // Only where answers are framed does an end without one decline. Elsewhere it
        // would look like a poem's.
        let can_decline = self.server.wire.protocol == Protocol::Netstring;
        let is_declined = matches!(*error, Error::Declined { .. });
        if can_decline && is_declined && responding.delivery.sent == 0 {
            let _declined = self.close_politely(0, responding.input).await;
            return Outcome::Declined;
        }

        let is_busy = matches!(*error, Error::QueueFull { .. });
        let is_busy = is_busy && responding.delivery.sent == 0;
        let words = is_busy.then(|| self.server.refusal_words(&self.peer, QUEUE_RETRY));
        if let Some(words) = words.flatten() {
            responding.delivery.sent = say(&self.stream, &words).await;
        }
        self.flush(responding).await;
        Outcome::Failed(error)
    }

    /// Gives what was sent a moment to leave the kernel: a reset discards it.
    async fn flush(&self, responding: &Responding) {
        if responding.delivery.sent > 0 {
            let _flushed = rt::within(FLUSH, self.stream.emptied()).await;
        }
    }

    fn record(&self, responding: &Responding, outcome: Outcome) {
        let total = self.accepted.elapsed();
        self.server.record(AccessRecord {
            peer: &self.peer,
            request: &responding.request,
            status: responding.status,
            route: responding.route.as_deref(),
            fetch: responding.fetch.as_deref(),
            outcome,
            bytes: responding.delivery.sent,
            wait: responding.wait.unwrap_or(total),
            total,
            stored: responding.stored,
            feed: responding.feed,
        });
    }

    /// Ends when the client's connection breaks, and discards what it sends. A client
    /// that has only closed its sending side is not gone: it may read on. (No `async
    /// fn`, which would be twice as large: every waiting client has one.)
    fn gone<'a>(&'a self, input: &'a mut ClientInput) -> impl Future<Output = ()> + 'a {
        let mut is_reset = None;
        poll_fn(move |cx| {
            while !input.is_over && input.received < INPUT_MOST {
                // First the wait: most clients send nothing, and a look costs a call.
                if ready!(self.stream.poll_readable(cx)).is_err() {
                    return Poll::Ready(());
                }
                if input.try_recv(&self.stream) == Received::Broken {
                    return Poll::Ready(());
                }
            }

            if input.is_over && input.may_lend {
                self.slot.lend(); // it may be gone, or wait
            }

            // From now on there is always something to read, or the end, so readiness
            // does not tell of a reset.
            let is_reset = is_reset.get_or_insert_with(|| Box::pin(self.reset()));
            is_reset.as_mut().poll(cx)
        })
    }

    /// Looks for a reset now and then.
    async fn reset(&self) {
        while !self.stream.is_broken() {
            rt::sleep(RESET_CHECK).await;
        }
    }
}

/// How a request that can't be understood ends. The netstring protocol closes without a
/// reply; where no framing would tell that apart from a poem, the connection is reset.
fn refusal(protocol: Protocol, peer: &Peer, why: Malformed) -> Outcome {
    if protocol == Protocol::Netstring {
        return Outcome::Declined;
    }

    Outcome::Failed(Arc::new(Error::BadRequest {
        subject: peer.to_string(),
        why: why.to_string(),
    }))
}
