//! A fetch from one server: connect, send the request while the reply is read, and
//! decide whether the reply is complete.

mod retry;

use crate::addr::Addr;
use crate::error::Error;
use crate::net::{self, Stream};
use crate::protocol::{EndRule, Frame, Protocol, ReplyDecoder};
use crate::rt::{self, CoopBudget};
use bytes::Bytes;
pub use retry::ConnectRetry;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Bytes read from a server in one go: most replies are short, and a buffer is zeroed
/// before it is read into. Once a reply fills the first size, it is read by the second.
const FIRST_READ_BYTES: usize = 4 << 10;
const READ_BYTES: usize = 64 << 10;

/// A request of at most this length, in bytes, is sent at once: the network takes ten
/// segments before the first is acknowledged (RFC 6928).
const SHORT_REQUEST_BYTES: usize = 14_480;

/// Deadlines of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For looking up the name, and again for connecting to one of its addresses.
    pub connect: Duration,
    /// The longest silence: the server takes nothing of the request and sends nothing.
    pub idle: Duration,
    /// For the whole fetch. [`ask`] leaves this one to its caller.
    pub total: Duration,
}

/// What to ask a server, and how long to wait for the answer.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The protocol spoken.
    pub protocol: Protocol,
    /// The request, without its framing.
    pub request: &'a [u8],
    /// The longest payload a netstring reply may announce, in bytes.
    pub limit: u64,
    /// The deadlines.
    pub timeouts: Timeouts,
    /// Whether to close the sending side once the request is sent. Some servers read
    /// to the end before they answer; others take the end for a hang-up. In the poem
    /// protocol, which has no request, nothing is closed.
    pub half_close: bool,
    /// What makes the reply whole, where it has no framing.
    pub ends: &'a EndRule,
}

/// Connects to a server. The request is sent while the reply is read.
///
/// # Errors
/// [`Error::Unresolved`], [`Error::Unreachable`], [`Error::Timeout`], [`Error::Reset`].
pub async fn ask<'a>(addr: &Addr, query: &Query<'a>) -> Result<Exchange<'a>, Error> {
    open(addr, query.protocol.frame(query.request), query).await
}

/// Like [`ask`], with a request that is framed already. The query's own is not looked
/// at.
pub(crate) async fn open<'a>(
    addr: &Addr,
    request: Frame<'a>,
    query: &Query<'_>,
) -> Result<Exchange<'a>, Error> {
    let stream = net::connect(addr, query.timeouts.connect).await?;
    if request.len() > SHORT_REQUEST_BYTES {
        // Bytes that only our kernel has taken are not progress: the deadline for the
        // server's silence would start megabytes too early.
        stream.limit_unsent();
    }

    let decoder = ReplyDecoder::new(query.protocol, addr.to_string(), query.limit);
    Ok(Exchange {
        stream,
        request,
        end_due: query.half_close && query.protocol != Protocol::Poem,
        has_just_sent: false,
        decoder: decoder.ending_by(query.ends),
        idle: query.timeouts.idle,
        turns: CoopBudget::default(),
        send_error: None,
        complete: false,
        end: None,
        buffer: Vec::new(),
    })
}

/// A connection to a server that is sent a request and sends its reply, both at once. A
/// server that answers while it reads would wait for us, and we for it, if we sent the
/// whole request before reading.
pub struct Exchange<'a> {
    stream: Stream,
    /// The part of the request still to be sent; empty once sending has failed.
    request: Frame<'a>,
    /// Whether to close the sending side once the request is sent.
    end_due: bool,
    decoder: ReplyDecoder,
    /// The request's last byte has just been sent: an answer takes longer than a look
    /// for it, which would be a call in vain.
    has_just_sent: bool,
    /// The longest silence.
    idle: Duration,
    turns: CoopBudget,
    /// The error that stopped the sending and says that the connection broke. The
    /// kernel reports it once: a later read shows a clean end instead (measured; see
    /// Linux's `sk_stream_error`).
    send_error: Option<io::Error>,
    /// The reply is complete.
    complete: bool,
    /// How the connection ended, if that was seen after the last bytes: the kernel
    /// does not report it twice.
    end: Option<io::Result<()>>,
    buffer: Vec<u8>,
}

/// One step forward in an exchange.
enum Advance {
    /// The kernel took a part of the request, and no reply has arrived.
    Sent,
    /// The number of bytes that arrived, 0 at a clean end; or how the connection broke.
    Received(io::Result<usize>),
}

impl Exchange<'_> {
    /// The next bytes of the reply as they came, framing included; `None` when the
    /// reply is complete.
    ///
    /// # Errors
    /// The reason why the reply is not complete: the bytes before it are only a part.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.complete {
            return Ok(None);
        }

        if self.buffer.is_empty() {
            self.buffer.resize(FIRST_READ_BYTES, 0);
        }
        while self.end.is_none() {
            match rt::within(self.idle, poll_fn(|cx| self.poll_advance(cx))).await {
                None => return self.silent().map(|()| None),
                Some(Advance::Sent) => self.turns.take().await,
                Some(Advance::Received(Err(e))) => self.end = Some(Err(e)),
                Some(Advance::Received(Ok(0))) => self.end = Some(self.closed()),
                Some(Advance::Received(Ok(count))) => return self.received(count).map(Some),
            }
        }

        self.verdict().map(|()| None)
    }

    /// Whether the reply is complete, now that the connection has ended.
    fn verdict(&self) -> Result<(), Error> {
        match &self.end {
            Some(Err(e)) => self.decoder.broken(e),
            _ => self.decoder.eof(),
        }
    }

    /// Whether the reply is known to be complete: [`Exchange::next`] would return
    /// `None`.
    pub fn is_over(&self) -> bool {
        self.complete
    }

    /// Has the kernel notice that the server is gone without a word. For a connection
    /// that may be silent without a limit.
    pub(crate) fn keep_alive(&self) {
        self.stream.keep_alive();
    }

    /// Sends what the kernel takes, and reads what has arrived.
    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Advance> {
        let sent = self.poll_send(cx);

        match self.poll_receive(cx) {
            Poll::Pending => sent.map(|()| Advance::Sent),
            received => received.map(Advance::Received),
        }
    }

    /// Ready when the kernel took a part of the request.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.request.is_sent() {
            let result = match self.stream.send_parts(self.request.rest()) {
                Ok(count) => {
                    self.request.advance(count);
                    self.has_just_sent = self.request.is_sent();
                    self.send_end();
                    return Poll::Ready(());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
                Err(e) => Err(e),
            };

            if let Err(e) = result {
                self.request = Frame::default();
                self.end_due = false;
                self.send_error = Some(e).filter(cuts_the_reply);
            }
        }
        Poll::Pending
    }

    /// Closes the sending side if that is due.
    fn send_end(&mut self) {
        if self.end_due && self.request.is_sent() {
            self.end_due = false;
            let _broken = self.stream.finish(); // then reading says why
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.has_just_sent {
            ready!(self.stream.poll_readable(cx))?;
            self.has_just_sent = false;
        }

        loop {
            match self.stream.read_now(&mut self.buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_readable(cx))?
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn silent(&self) -> Result<(), Error> {
        self.decoder.silent(self.request.is_sent(), self.idle)
    }

    /// How the connection ended, now that reading shows a clean end.
    fn closed(&mut self) -> io::Result<()> {
        self.send_error.take().map_or(Ok(()), Err)
    }

    /// Takes the first `count` bytes of the buffer. Looks for what comes right after
    /// them, more bytes or the end: a reader that knows the end can send it together
    /// with the last bytes.
    fn received(&mut self, mut count: usize) -> Result<Bytes, Error> {
        while count < READ_BYTES && self.end.is_none() {
            if count == self.buffer.len() {
                self.buffer.resize(READ_BYTES, 0);
            }
            match self.stream.read_now(&mut self.buffer[count..]) {
                Ok(0) => self.end = Some(self.closed()),
                Ok(more) => count += more,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => self.end = Some(Err(e)),
            }
        }

        let bytes = &self.buffer[..count];
        let framing_ended = self.decoder.push(bytes)?;
        let ended_whole = self.end.is_some() && self.verdict().is_ok();
        self.complete = framing_ended || ended_whole;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// Whether this error of sending says that the reply is cut off too. EPIPE does not: a
/// server may reply and close before it has read the request, and a reset that comes
/// after its FIN is reported as EPIPE. The reply itself decides then.
fn cuts_the_reply(error: &io::Error) -> bool {
    error.kind() != ErrorKind::BrokenPipe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_leaves_the_reply_in_doubt() {
        assert!(!cuts_the_reply(&ErrorKind::BrokenPipe.into()));
        for kind in [
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionAborted,
            ErrorKind::TimedOut,
        ] {
            assert!(cuts_the_reply(&kind.into()), "{kind}");
        }
    }
}
