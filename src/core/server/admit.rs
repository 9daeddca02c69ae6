//! What stands between accept and answer where clients are limited. Without limits
//! nothing here runs.
//!
//! | the connection | what becomes of it |
//! |---|---|
//! | comes from a peer of `--proxy-protocol`, its header is there | the header's address counts from here on |
//! | the same, its header is still to come | a task waits for it, [`HEADER_WAIT`] |
//! | the same, with no header or a bad one | a reset |
//! | may come in | it is handled, the short way if that is possible |
//! | is refused | a reset, before it has a task or takes a slot |
//! | is refused, and there is a text to tell | a task tells it, then a reset |
//!
//! **The text ends in a reset,** not in a clean end: a clean end says that a text is
//! whole, and a proxy behind us would keep it. A person sees the words; a program sees
//! that they are no answer. Two things keep the words from being read. A reset that
//! comes before the client has sent its request makes that sending fail, so its first
//! byte is waited for. And some clients (nc) read nothing more once they see the reset,
//! so it comes a moment after the text ([`READING`]).

use super::connection::Connection;
use super::{Arrival, Asked, FLUSH, FirstLook, Handler, Server};
use crate::admission::{Admission, Pass, Refusal};
use crate::error::Error;
use crate::net::{Accepted, Peer, Received, Stream, Then};
use crate::observe::{Event, Outcome};
use crate::protocol::{LINE_LIMIT, Protocol, ProxyHeader, V2_BYTES};
use crate::rt;
use crate::semaphore::Permit;
use crate::slots::Slot;
use bytes::Bytes;
use futures::FutureExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a peer may take for its PROXY header, which it sends as soon as it is
/// connected. Its own time-outs for a connection are about as long.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// Bytes of the first look for a header: the longest, and a request line after it.
const HEADER_LOOK: usize = V2_BYTES + LINE_LIMIT + 2;

/// How long a client that is refused with a text may take to send its request.
const REQUEST_WAIT: Duration = Duration::from_secs(1);

/// How long the reset waits for a client to read what it is told. Any that waits for an
/// answer is woken within that.
const READING: Duration = Duration::from_millis(200);

/// How many clients are told a text at the same time. Each costs a descriptor and a
/// task; of a flood the others get the reset alone.
pub const MOST_TOLD: usize = 64;

/// What a client may expect that is refused for having too many connections: one of its
/// own may end at any time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How long the refusals after the first are counted before they are told.
const COUNTING: Duration = Duration::from_secs(60);

impl<H: Handler> Server<H> {
    /// Finds out whose connection this is, and handles it if it may come in. Returns
    /// the slot if it was not needed.
    pub(super) fn admit(
        self: &Arc<Self>,
        admission: &Arc<Admission>,
        mut client: Accepted,
        slot: Slot,
        now: Instant,
    ) -> Option<Slot> {
        if !admission.expects_header(client.ip()) {
            return self.let_in(admission, (client, slot), b"", now);
        }

        let mut buffer = [0; HEADER_LOOK];
        let count = match client.try_recv(&mut buffer) {
            Received::Bytes(count) => count,
            Received::Nothing | Received::Eof | Received::Broken => 0, // a second look tells
        };
        let begun = &buffer[..count];
        match ProxyHeader::parse(begun) {
            Ok(Some(header)) => {
                client.take_header(header.source, header.length as u32);
                self.let_in(admission, (client, slot), &begun[header.length..], now)
            }
            Ok(None) => {
                self.await_header(admission, (client, slot), begun, now);
                None
            }
            Err(why) => {
                client.arm();
                let peer = client.peer();
                let outcome = bad_header(&peer, why.to_string());
                self.record_unanswered(&peer, outcome, now);
                Some(slot)
            }
        }
    }

    /// Handles a connection whose client is known, if it may come in. It has sent
    /// `rest` after its header.
    fn let_in(
        self: &Arc<Self>,
        admission: &Arc<Admission>,
        (client, slot): (Accepted, Slot),
        rest: &[u8],
        now: Instant,
    ) -> Option<Slot> {
        match admission.admit(client.ip(), now) {
            Ok(pass) => self.handle_rest(Arrival { client, slot, pass }, rest, now),
            Err(refusal) => self.refuse(admission, (client, slot), refusal),
        }
    }

    /// Handles a connection that has sent these bytes after its header.
    fn handle_rest(self: &Arc<Self>, arrival: Arrival, rest: &[u8], now: Instant) -> Option<Slot> {
        if self.wire.protocol == Protocol::Poem {
            let asked = Asked {
                request: Bytes::new(),
                received: rest.len() as u32, // at most a header's look
            };
            return self.answer(arrival, asked, now);
        }
        if rest.is_empty() {
            return self.handle(arrival, now);
        }
        self.handle_look(arrival, FirstLook::at(rest, &self.wire), now)
    }

    /// Gives a connection a task that waits for its header.
    fn await_header(
        self: &Arc<Self>,
        admission: &Arc<Admission>,
        (client, slot): (Accepted, Slot),
        begun: &[u8],
        now: Instant,
    ) {
        let admission = admission.clone();
        let begun: Vec<u8> = begun.into();
        let serve = |mut connection: Connection<H>| async move {
            let header = Box::pin(rt::within(HEADER_WAIT, connection.header(begun))).await;
            match header.unwrap_or(Err(Outcome::Stuck)) {
                Ok((source, rest)) => {
                    connection.peer = source.unwrap_or(connection.peer.clone());
                    connection.enter(&admission, rest).await;
                }
                Err(outcome) => {
                    let accepted = connection.accepted;
                    let server = &connection.server;
                    server.record_unanswered(&connection.peer, outcome, accepted);
                }
            }
        };
        let pass = Pass::uncounted();
        let arrival = Arrival { client, slot, pass };
        if let Err((peer, outcome)) = self.spawn_connection(arrival, now, serve) {
            self.record_unanswered(&peer, outcome, now);
        }
    }

    /// Resets a connection that may not come in. Returns its slot.
    fn refuse(
        self: &Arc<Self>,
        admission: &Arc<Admission>,
        (client, slot): (Accepted, Slot),
        refusal: Refusal,
    ) -> Option<Slot> {
        client.arm();
        let peer = client.peer();
        self.tell_refusal(admission, &peer, refusal);

        if let Some(text) = self.refusal_text(&peer, refusal)
            && let Some(permit) = self.may_tell()
            && let Ok(stream) = client.register()
        {
            rt::spawn(async move {
                await_request(&stream).await;
                say(&stream, &text).await;
                drop(permit);
            });
        }
        Some(slot)
    }

    /// Tells the observers of a refusal, or counts it until a minute is over.
    fn tell_refusal(self: &Arc<Self>, admission: &Arc<Admission>, peer: &Peer, refusal: Refusal) {
        if !admission.tally(refusal).add(peer.ip()) {
            return;
        }

        self.tell(Event::ClientsRefused {
            why: refusal.word(),
            from: peer.ip(),
            count: 1,
        });
        let (server, admission) = (self.clone(), admission.clone());
        rt::spawn(async move {
            loop {
                rt::sleep(COUNTING).await;
                let Some((count, from)) = admission.tally(refusal).take() else {
                    return;
                };
                let why = refusal.word();
                server.tell(Event::ClientsRefused { why, from, count });
            }
        });
    }

    /// What a refused client is told, if anything: in the line protocol alone, where a
    /// text is what is expected.
    fn refusal_text(&self, peer: &Peer, refusal: Refusal) -> Option<Vec<u8>> {
        match refusal {
            Refusal::Denied => None,
            Refusal::PerAddress => self.refusal_words(peer, AT_ONCE),
            Refusal::Rate(wait) => self.refusal_words(peer, wait),
        }
    }

    /// The text of `--refusal` for this client, which may try again after `wait`. Over
    /// a unix socket there is no reset that could follow it.
    pub(super) fn refusal_words(&self, peer: &Peer, wait: Duration) -> Option<Vec<u8>> {
        let admission = self.admission.as_ref()?;
        let text = admission.text()?;
        let is_line = self.wire.protocol == Protocol::Line;
        is_line.then(|| peer.ip().map(|ip| text.filled(ip, wait)))?
    }

    /// The right to tell a text, if not too many clients are being told one.
    fn may_tell(&self) -> Option<Permit> {
        self.telling.acquire(Instant::now()).now_or_never()
    }
}

impl<H: Handler> Connection<H> {
    /// Reads the rest of a header that begins with `bytes`. Returns the address that
    /// it names, and what was read beyond it.
    async fn header(&self, mut bytes: Vec<u8>) -> Result<(Option<Peer>, Box<[u8]>), Outcome> {
        loop {
            match ProxyHeader::parse(&bytes) {
                Ok(Some(header)) => {
                    let source = header.source.map(Peer::from);
                    return Ok((source, bytes[header.length..].into()));
                }
                Ok(None) => {} // it has fewer bytes than a header may have
                Err(why) => return Err(bad_header(&self.peer, why.to_string())),
            }

            match self.read_more(&mut bytes) {
                Received::Bytes(_) => {}
                Received::Nothing => {
                    let readable = self.stream.readable().await;
                    readable.map_err(|_| Outcome::Left)?;
                }
                Received::Eof | Received::Broken if bytes.is_empty() => {
                    return Err(Outcome::NothingSent);
                }
                Received::Eof | Received::Broken => return Err(Outcome::Left),
            }
        }
    }

    /// Reads what is there. The buffer lives for the call, and not while it waits.
    fn read_more(&self, bytes: &mut Vec<u8>) -> Received {
        let mut buffer = [0; HEADER_LOOK];
        let received = self.stream.try_recv(&mut buffer);
        if let Received::Bytes(count) = received {
            bytes.extend_from_slice(&buffer[..count]);
        }
        received
    }

    /// Serves a connection whose client is known by now, if it may come in.
    async fn enter(mut self, admission: &Arc<Admission>, rest: Box<[u8]>) {
        let server = self.server.clone();
        match admission.admit(self.peer.ip(), Instant::now()) {
            Ok(pass) => {
                self.pass = pass;
                self.serve(rest).await;
            }
            Err(refusal) => {
                server.tell_refusal(admission, &self.peer, refusal);
                if let Some(text) = server.refusal_text(&self.peer, refusal) {
                    if rest.is_empty() {
                        await_request(&self.stream).await;
                    }
                    say(&self.stream, &text).await;
                }
            }
        }
    }
}

fn bad_header(peer: &Peer, why: String) -> Outcome {
    let subject = peer.to_string();
    Outcome::Failed(Arc::new(Error::BadRequest { subject, why }))
}

/// Waits for the first bytes of a request, and discards them.
async fn await_request(stream: &Stream) {
    let _asked = rt::within(REQUEST_WAIT, stream.readable()).await;
    stream.try_recv(&mut [0; LINE_LIMIT + 2]);
}

/// Sends a text that no answer follows. Gives it a moment to leave the kernel, because
/// the reset discards what has not, and the client a moment to read it. Returns how
/// many bytes were sent.
pub(super) async fn say(stream: &Stream, text: &[u8]) -> u64 {
    let Ok(sent) = stream.send(text, Then::Unknown) else {
        return 0;
    };
    let _flushed = rt::within(FLUSH, stream.emptied()).await;
    rt::sleep(READING).await;
    sent as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::pin::pin;

    #[test]
    fn a_client_is_told_nothing_before_its_request_which_is_taken_from_the_kernel() {
        let (client, mut other_side) = Accepted::pair().expect("the loopback is there");
        let stream = client.register().expect("there is a reactor");
        let mut asked = pin!(await_request(&stream));
        assert!(asked.as_mut().now_or_never().is_none());

        other_side.write_all(b"name\r\n").expect("it is open");
        rt::block_on(asked);
        assert_eq!(stream.try_recv(&mut [0; 8]), Received::Nothing);
    }
}
