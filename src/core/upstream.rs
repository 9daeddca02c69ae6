//! Where poems come from: a server across the network, or one recited slowly inside the process; and the workshop
//! that transforms them, ourselves or a service. A [`Reply`] is pulled chunk by chunk by whoever asked.

mod workshop;

use crate::addr::Addr;
use crate::anthology::Anthology;
use crate::error::Error;
use crate::net::{self, Stream};
use crate::poem::Poem;
use crate::protocol::{Frame, Protocol, ReplyDecoder};
use crate::rt::{self, CoopBudget};
use crate::stats::{Event, Observer};
use bytes::Bytes;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
pub use workshop::{Pipeline, Registry, Transform};

/// How much is read from a server in one go.
const READ: usize = 64 << 10;

/// Deadlines of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the name, and for each of its addresses.
    pub connect: Duration,
    /// For each silence of the server.
    pub idle: Duration,
    /// For all of it.
    pub total: Duration,
}

/// Where a proxy's poems come from.
#[derive(Debug)]
pub enum Upstream {
    /// Servers, tried in order when one can't be reached.
    Servers(Vec<Addr>),
    /// The poems of the process itself, one after the other, each recited in about [`RECITAL`].
    Trickle(Anthology, AtomicUsize),
}

/// How long a recital inside the process takes.
pub const RECITAL: Duration = Duration::from_secs(2);

/// In so many steps.
const RECITAL_STEPS: u64 = 40;

impl Upstream {
    /// The poems that come with the program, recited.
    pub fn built_in() -> Upstream {
        Upstream::Trickle(Anthology::built_in(), AtomicUsize::new(0))
    }

    /// Asks for a poem. Where one server is tried after another, that is told.
    ///
    /// # Errors
    /// Those of [`ask`], of the last server tried.
    pub async fn ask<'a>(
        &self,
        question: &Query<'a>,
        report: &dyn Observer,
    ) -> Result<Reply<'a>, Error> {
        match self {
            Upstream::Servers(addrs) => {
                let mut answer = Err(Error::Abandoned);
                for (at, addr) in addrs.iter().enumerate() {
                    answer = ask(addr, question).await;
                    match (&answer, addrs.get(at + 1)) {
                        (Err(error), Some(next)) if error.is_unreached() => {
                            report.notice(Event::NextUpstream(error, next));
                        }
                        _ => break,
                    }
                }
                answer
            }
            Upstream::Trickle(anthology, turn) => {
                let entries = anthology.entries();
                let poem = &entries[turn.fetch_add(1, Ordering::Relaxed) % entries.len()].poem;
                let pace = Pace {
                    bytes: poem.len().div_ceil(RECITAL_STEPS).max(1) as usize,
                    delay: RECITAL / RECITAL_STEPS as u32,
                };
                Ok(Reply::Trickle(Trickle::new(poem.clone(), pace)))
            }
        }
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Upstream::Servers(addrs) => {
                let addrs: Vec<String> = addrs.iter().map(Addr::to_string).collect();
                f.write_str(&addrs.join(", "))
            }
            Upstream::Trickle(..) => f.write_str("builtin"),
        }
    }
}

/// What is asked of a server, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The protocol spoken.
    pub protocol: Protocol,
    /// The request, without its framing.
    pub request: &'a [u8],
    /// The most bytes a framed reply may announce.
    pub limit: u64,
    /// The deadlines.
    pub timeouts: Timeouts,
}

/// Connects to a server. The request is sent while the reply is waited for and read.
///
/// # Errors
/// [`Error::Unresolved`], [`Error::Unreachable`], [`Error::Timeout`], [`Error::Reset`].
pub async fn ask<'a>(addr: &Addr, question: &Query<'a>) -> Result<Reply<'a>, Error> {
    open_exchange(addr, question.protocol.frame(question.request), question).await
}

/// The same, with the question's request in a frame already.
async fn open_exchange<'a>(
    addr: &Addr,
    request: Frame<'a>,
    question: &Query<'_>,
) -> Result<Reply<'a>, Error> {
    let stream = net::connect(addr, question.timeouts.connect).await?;
    let decoder = ReplyDecoder::new(question.protocol, addr.to_string(), question.limit);
    let (idle, turns, cut, over, end, buffer) = (
        question.timeouts.idle,
        CoopBudget::default(),
        None,
        false,
        None,
        Vec::new(),
    );
    let conversation = Exchange {
        stream,
        request,
        decoder,
        idle,
        turns,
        cut,
        over,
        end,
        buffer,
    };
    Ok(Reply::Server(Box::new(conversation)))
}

/// A poem on its way to us.
pub enum Reply<'a> {
    /// From a server.
    Server(Box<Exchange<'a>>),
    /// From this process.
    Trickle(Trickle),
}

impl Reply<'_> {
    /// The next bytes; `None` when the reply is complete.
    ///
    /// # Errors
    /// Whatever keeps the reply from being complete; the bytes before it are a part, and not the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Reply::Server(conversation) => conversation.next().await,
            Reply::Trickle(recital) => Ok(recital.next().await),
        }
    }

    /// Whether it is known that nothing more comes, and that the reply is complete.
    pub fn is_over(&self) -> bool {
        match self {
            Reply::Server(conversation) => conversation.over,
            Reply::Trickle(recital) => recital.poem.is_empty(),
        }
    }
}

/// A connection to a server that is sent the request, and sends its reply. It may well do both at once: one that answers
/// while it reads would wait for us, and we for it, if we sent all before we heard anything.
pub struct Exchange<'a> {
    stream: Stream,
    /// The request, as far as it can still be sent. Once the reply is complete nobody needs the rest.
    request: Frame<'a>,
    decoder: ReplyDecoder,
    /// How long neither may the server take anything of the request, nor anything of its reply come.
    idle: Duration,
    turns: CoopBudget,
    /// The end that sending the request met with. It is told once: reading would show a clean end instead (measured, and
    /// Linux's `sk_stream_error`). Only a broken pipe is none: a server that has said all it wants may close before it
    /// has read our request, and a reset that comes behind its FIN is told as that. Its reply still decides.
    cut: Option<io::Error>,
    /// Whether the reply is complete.
    over: bool,
    /// How the connection ended, where that was seen behind the last bytes: it can't be seen twice.
    end: Option<io::Result<()>>,
    buffer: Vec<u8>,
}

/// What a conversation can come forward by.
enum Advance {
    /// Something of the request was taken, and nothing has come.
    Sent,
    /// So much has come; nothing at a clean end.
    Received(io::Result<usize>),
}

impl Exchange<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.over {
            return Ok(None);
        }
        while self.end.is_none() {
            self.buffer.resize(READ, 0);
            match rt::within(self.idle, poll_fn(|cx| self.poll_step(cx))).await {
                None => return Err(self.silent()),
                Some(Advance::Sent) => self.turns.take().await,
                Some(Advance::Received(Err(e))) => self.end = Some(Err(e)),
                Some(Advance::Received(Ok(0))) => self.end = Some(self.closed()),
                Some(Advance::Received(Ok(count))) => return self.take(count).map(Some),
            }
        }
        match self.end.take() {
            Some(Err(e)) => Err(self.decoder.io_error(&e)),
            _ => self.decoder.eof().map(|()| None),
        }
    }

    /// Sends what is taken, and hears what has come.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Advance> {
        let sent = self.poll_send(cx);
        match self.poll_hear(cx) {
            Poll::Pending => sent.map(|()| Advance::Sent),
            heard => heard.map(Advance::Received),
        }
    }

    /// Ready when something was taken.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.request.is_sent() {
            let failed = match self.stream.send_parts(self.request.rest()) {
                Ok(count) => {
                    self.request.advance(count);
                    return Poll::Ready(());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
                Err(e) => Err(e),
            };
            if let Err(e) = failed {
                self.request = Frame::default();
                self.cut = Some(e).filter(is_a_cut);
            }
        }
        Poll::Pending
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.read_now(&mut self.buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_readable(cx))?
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn silent(&self) -> Error {
        match self.request.is_sent() {
            true => self.decoder.read_timeout(self.idle),
            false => self.decoder.write_timeout(self.idle),
        }
    }

    /// What an end that reads as a clean one is.
    fn closed(&mut self) -> io::Result<()> {
        self.cut.take().map_or(Ok(()), Err)
    }

    /// So many bytes have come. Looks for what is right behind them: more, or the end, which is worth knowing early.
    fn take(&mut self, mut count: usize) -> Result<Bytes, Error> {
        while count < READ && self.end.is_none() {
            match self.stream.read_now(&mut self.buffer[count..]) {
                Ok(0) => self.end = Some(self.closed()),
                Ok(more) => count += more,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => self.end = Some(Err(e)),
            }
        }
        let bytes = &self.buffer[..count];
        self.over = self.decoder.push(bytes)?
            || matches!(self.end, Some(Ok(()))) && self.decoder.eof().is_ok();
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// Whether this error of sending says that the reply is cut off as well.
fn is_a_cut(error: &io::Error) -> bool {
    error.kind() != ErrorKind::BrokenPipe
}

/// How slowly a poem is recited.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So many bytes at a time,
    pub bytes: usize,
    /// so long apart.
    pub delay: Duration,
}

/// A poem being recited.
pub struct Trickle {
    poem: Bytes,
    pace: Pace,
    begun: bool,
}

impl Trickle {
    /// Begins at the beginning; the first bytes come without a delay.
    pub fn new(poem: Poem, pace: Pace) -> Trickle {
        Trickle {
            poem: poem.bytes(),
            pace,
            begun: false,
        }
    }

    /// The next bytes, when it is time for them.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.poem.is_empty() {
            return None;
        }
        if std::mem::replace(&mut self.begun, true) {
            rt::sleep(self.pace.delay).await;
        }
        Some(self.poem.split_to(self.pace.bytes.min(self.poem.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_says_nothing_about_the_reply() {
        assert!(!is_a_cut(&ErrorKind::BrokenPipe.into()));
        for kind in [
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionAborted,
            ErrorKind::TimedOut,
        ] {
            assert!(is_a_cut(&kind.into()), "{kind}");
        }
    }
}
