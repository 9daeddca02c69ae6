//! One connection: what it is asked, how its answer goes out, and how it ends.

use super::{Handler, ON_THE_WIRE, Server};
use crate::error::Error;
use crate::flight::{Read, Reader};
use crate::net::{Peer, Received, Stream, Then};
use crate::protocol::{Malformed, Protocol, RequestDecoder};
use crate::rt::{self, CoopBudget};
use crate::stats::{AccessRecord, CacheStatus, Outcome};
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

/// How long and for how many bytes a polite close listens to a client whose poem is on the wire.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u32 = 64 << 10;

/// How often to look whether a client that is not listened to any more has reset its connection.
const LOOK: Duration = Duration::from_millis(500);

/// So much of a request is told in logs, in bytes.
const REQUEST_TOLD: usize = 1024;

/// How long a failed answer's first part may take to leave the kernel before the reset.
const FLUSH: Duration = Duration::from_secs(1);

/// An answer on its way to one client.
pub(super) struct Delivery {
    pub(super) reader: Reader,
    pub(super) sent: u64,
}

/// How far a delivery goes without waiting.
pub(super) enum Progress {
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
    pub(super) fn new(reader: Reader) -> Delivery {
        Delivery { reader, sent: 0 }
    }

    pub(super) fn step(&mut self, send: impl Fn(&[u8], Then) -> io::Result<usize>) -> Progress {
        loop {
            let (next, is_last) = self.reader.peek_ahead();
            let bytes = match next {
                Read::Chunk(bytes) => bytes,
                Read::Pending => return Progress::Waiting,
                Read::End => return Progress::Ended,
                Read::Failed(error) => return Progress::Failed(error),
            };
            match send(&bytes, if is_last { Then::Finish } else { Then::Unknown }) {
                Ok(count) => {
                    self.reader.advance(count);
                    self.sent += count as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Progress::Full,
                Err(_) => return Progress::Gone,
            }
        }
    }
}

/// A connection that has to wait, and so has a task of its own.
pub(super) struct Connection<H: Handler> {
    pub(super) server: Arc<Server<H>>,
    pub(super) stream: Stream,
    pub(super) peer: Peer,
}

impl<H: Handler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.server.stats.open.fetch_sub(1, Ordering::AcqRel);
        self.server.left.notify(usize::MAX);
    }
}

/// A request, and how far its answer is.
pub(super) struct Responding {
    /// As much of it as is told.
    request: Box<[u8]>,
    how: CacheStatus,
    delivery: Delivery,
    /// Whether the fetch it caused was kept; known in the end.
    stored: bool,
    pub(super) chatter: ClientInput,
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

impl Responding {
    pub(super) fn new(
        request: &[u8],
        accepted: Instant,
        how: CacheStatus,
        delivery: Delivery,
    ) -> Responding {
        let request = request[..request.len().min(REQUEST_TOLD)].into();
        let chatter = ClientInput::default();
        let wait = if delivery.sent > 0 {
            Wait::Over(Duration::ZERO)
        } else {
            Wait::Since(accepted)
        };
        Responding {
            request,
            how,
            delivery,
            stored: false,
            chatter,
            wait,
        }
    }

    fn is_stored(&self) -> bool {
        self.how == CacheStatus::Miss && self.delivery.reader.was_kept()
    }
}

/// What a client says although nobody asks it any more.
#[derive(Clone, Copy, Default)]
pub(super) struct ClientInput {
    pub(super) heard: u32,
    over: bool,
}

impl ClientInput {
    /// Takes and forgets what has come. The buffer is this call's own: one that lived across an await would be part
    /// of every waiting client's task.
    fn try_recv(&mut self, stream: &Stream) -> Received {
        let heard = stream.try_recv(&mut [0; 1024]);
        match heard {
            Received::Bytes(count) => self.heard = self.heard.saturating_add(count as u32), // of a small buffer
            Received::Eof => self.over = true,
            Received::Nothing | Received::Broken => {}
        }
        heard
    }
}

impl<H: Handler> Connection<H> {
    /// The request first, then the answer.
    pub(super) async fn open_exchange(&self, accepted: Instant) {
        match Box::pin(rt::within(
            self.server.limits.client_timeout,
            self.request(),
        ))
        .await
        {
            Some(Ok(request)) => {
                let (handler, asked) = (self.server.handler.clone(), request.clone());
                let answer = move || handler.answer(asked, Instant::now());
                let answer = match rt::is_long_work(request.len()) {
                    true => Box::pin(rt::unblock(answer)).await, // all of it is looked at, for its key
                    false => answer(),
                };
                let mut answering =
                    Responding::new(&request, accepted, answer.how, Delivery::new(answer.reader));
                drop(request); // it may be large, and its answer may take long
                self.deliver(&mut answering).await;
            }
            Some(Err(outcome)) => {
                if outcome == Outcome::Declined {
                    let _declined = Box::pin(self.close_politely(
                        0,
                        ClientInput {
                            heard: 1,
                            over: false,
                        },
                    ))
                    .await;
                }
                self.refused(accepted, outcome);
            }
            None => self.refused(accepted, Outcome::Stuck),
        }
    }

    async fn request(&self) -> Result<Bytes, Outcome> {
        let protocol = self.server.handler.protocol();
        let limit = self.server.handler.request_limit();
        let mut decoder = RequestDecoder::new(protocol, limit);
        let mut charge = self.server.budget.of_request(limit);
        let mut turns = CoopBudget::default();
        loop {
            // The buffer lives for the call: a client that is slow to ask costs no more than what it has said.
            let heard = {
                let mut buffer = [0; 16 << 10];
                match self.stream.try_recv(&mut buffer) {
                    Received::Bytes(count) => Some(decoder.push(&buffer[..count])),
                    Received::Nothing => None,
                    Received::Eof => Some(Err(Malformed::Unfinished)),
                    Received::Broken => return Err(Outcome::Remaining),
                }
            };
            match heard {
                // One that came at once is not worth counting.
                Some(Ok(Some(request))) => return Ok(charge.with(request)),
                Some(Ok(None)) => match charge.grow(decoder.held()) {
                    Ok(()) => turns.take().await,
                    Err(capacity) => {
                        let addr = self.peer.to_string();
                        return Err(Outcome::Failed(Arc::new(Error::NoRoom {
                            subject: addr,
                            capacity,
                        })));
                    }
                },
                Some(Err(why)) => return Err(refusal(protocol, &self.peer, why)),
                None => self
                    .stream
                    .readable()
                    .await
                    .map_err(|_| Outcome::Remaining)?,
            }
        }
    }

    /// The answer, from wherever it stands to its end.
    ///
    /// What is rare or late here is boxed: a task is as large as its largest wait, and ten thousand clients wait for
    /// a poem, not for its end.
    pub(super) async fn deliver(&self, answering: &mut Responding) {
        let outcome = loop {
            let step = answering
                .delivery
                .step(|bytes, then| self.stream.send(bytes, then));
            if answering.delivery.sent > 0 {
                answering.wait.end();
            }
            match step {
                Progress::Full => {
                    let taken =
                        rt::within(self.server.limits.client_timeout, self.stream.writable());
                    match Box::pin(taken).await {
                        Some(Ok(())) => {}
                        Some(Err(_)) => break Outcome::Remaining,
                        None => break Outcome::Stuck,
                    }
                }
                Progress::Waiting => {
                    let Responding {
                        delivery, chatter, ..
                    } = &mut *answering;
                    if rt::race(delivery.reader.ready(), self.gone(chatter))
                        .await
                        .is_err()
                    {
                        break Outcome::Remaining;
                    }
                }
                Progress::Ended => {
                    // The kernel has it all; a client that takes its time to close must not hold on to it.
                    answering.stored = answering.is_stored();
                    answering.delivery.reader.release();
                    break Box::pin(
                        self.close_politely(answering.delivery.sent, answering.chatter),
                    )
                    .await;
                }
                Progress::Failed(error) => break Box::pin(self.give_up(answering, error)).await,
                Progress::Gone => break Outcome::Remaining,
            }
        };
        self.record(answering, outcome);
    }

    /// The end of an answer that will never be whole.
    async fn give_up(&self, answering: &Responding, error: Arc<Error>) -> Outcome {
        let says_no = self.server.handler.protocol() == Protocol::Netstring;
        match (&*error, answering.delivery.sent) {
            // Only where answers are framed does an end without one say no; elsewhere it would look like a poem's.
            (Error::Declined { .. }, 0) if says_no => {
                let _declined = self.close_politely(0, answering.chatter).await;
                return Outcome::Declined;
            }
            (_, 0) => {}
            (_, _) => {
                let _flushed = rt::within(FLUSH, self.stream.emptied()).await;
            }
        }
        Outcome::Failed(error)
    }

    fn record(&self, answering: &Responding, outcome: Outcome) {
        let Responding {
            request,
            how,
            delivery,
            stored,
            wait,
            ..
        } = answering;
        let wait = wait.so_far();
        let (peer, how, bytes, stored) = (&self.peer, *how, delivery.sent, *stored);
        self.server.record(AccessRecord {
            peer,
            request,
            how,
            outcome,
            bytes,
            wait,
            stored,
        });
    }

    /// Ends when the client's connection breaks, and discards what it says. A client that has only said that it will
    /// send no more is not gone: it may well read on. (No `async fn`, which would be twice as large: every waiting client
    /// has one.)
    fn gone<'a>(&'a self, chatter: &'a mut ClientInput) -> impl Future<Output = ()> + 'a {
        let mut broken = None;
        poll_fn(move |cx| {
            while !chatter.over && chatter.heard < LINGER_BYTES {
                match chatter.try_recv(&self.stream) {
                    Received::Broken => return Poll::Ready(()),
                    Received::Nothing if ready!(self.stream.poll_readable(cx)).is_err() => {
                        return Poll::Ready(());
                    }
                    _ => {}
                }
            }
            // There is always something to read from now on, or the end, and so no waking for a reset.
            broken
                .get_or_insert_with(|| Box::pin(self.broken()))
                .as_mut()
                .poll(cx)
        })
    }

    /// Looks for a reset now and then.
    async fn broken(&self) {
        while !self.stream.is_broken() {
            rt::sleep(LOOK).await;
        }
    }

    /// FIN, and then a close that costs the client nothing: closing with unread input would make the kernel reset
    /// the connection and throw away what it has not sent yet.
    async fn close_politely(&self, sent: u64, mut chatter: ClientInput) -> Outcome {
        let on_the_wire = sent <= ON_THE_WIRE;
        self.stream.disarm();
        if self.stream.finish().is_err() || chatter.over {
            return Outcome::Whole;
        }
        if on_the_wire
            && chatter.heard == 0
            && self.stream.try_recv(&mut [0; 64]) == Received::Nothing
        {
            return Outcome::Whole;
        }
        let (time, most) = match on_the_wire {
            true => (LINGER, LINGER_BYTES),
            false => (self.server.limits.client_timeout, u32::MAX), // whatever it says, its poem's end may be to come
        };
        chatter.heard = 0;
        let is_over = rt::within(time, self.discard(&mut chatter, most))
            .await
            .is_some();
        match is_over || on_the_wire || chatter.heard == 0 {
            true => Outcome::Whole,
            false => Outcome::Stuck, // it talks on, so that closing may cut the poem's end
        }
    }

    /// Reads and forgets until the client has no more to say, but no more than so many bytes.
    async fn discard(&self, chatter: &mut ClientInput, most: u32) {
        let mut turns = CoopBudget::default();
        while chatter.heard < most {
            match chatter.try_recv(&self.stream) {
                Received::Bytes(_) => turns.take().await, // it may talk without a pause
                Received::Nothing if self.stream.readable().await.is_ok() => {}
                _ => return,
            }
        }
    }

    /// The end of a connection without a request that could be answered.
    fn refused(&self, accepted: Instant, outcome: Outcome) {
        self.server
            .unanswered(&self.peer, outcome, accepted.elapsed());
    }
}

/// A request that can't be understood: the netstring protocol says so by closing without a reply; where no framing
/// would tell, the connection is reset.
fn refusal(protocol: Protocol, peer: &Peer, why: Malformed) -> Outcome {
    match protocol {
        Protocol::Netstring => Outcome::Declined,
        _ => Outcome::Failed(Arc::new(Error::BadRequest {
            subject: peer.to_string(),
            why: why.to_string(),
        })),
    }
}
