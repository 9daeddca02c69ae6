//! Where poems come from: a server across the network, or one recited slowly inside the process; and the workshop
//! that transforms them, ourselves or a service. A [`Reply`] is pulled chunk by chunk by whoever asked.

use crate::addr::Addr;
use crate::anthology::Anthology;
use crate::error::Error;
use crate::gate::Gate;
use crate::net::{self, Stream};
use crate::poem::Poem;
use crate::program::Program;
use crate::protocol::{Judge, Protocol, Scanner};
use crate::transform::Transform;
use bytes::Bytes;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

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
    Recital(Anthology, AtomicUsize),
}

/// How long a recital inside the process takes.
pub const RECITAL: Duration = Duration::from_secs(2);

/// In so many steps.
const RECITAL_STEPS: u64 = 40;

impl Upstream {
    /// The poems that come with the program, recited.
    pub fn built_in() -> Upstream {
        Upstream::Recital(Anthology::built_in(), AtomicUsize::new(0))
    }

    /// Asks for a poem.
    ///
    /// # Errors
    /// Those of [`ask`], of the last server tried.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Reply, Error> {
        match self {
            Upstream::Servers(addrs) => {
                let mut last = Error::Abandoned;
                for addr in addrs {
                    match ask(addr, question).await {
                        Err(e @ (Error::Unresolved { .. } | Error::Unreachable { .. })) => last = e,
                        Err(e @ Error::Timeout { stage: "no connection", .. }) => last = e,
                        other => return other,
                    }
                }
                Err(last)
            }
            Upstream::Recital(anthology, turn) => {
                let entries = anthology.entries();
                let poem = &entries[turn.fetch_add(1, Ordering::Relaxed) % entries.len()].poem;
                let pace = Pace {
                    bytes: poem.len().div_ceil(RECITAL_STEPS).max(1) as usize,
                    delay: RECITAL / RECITAL_STEPS as u32,
                };
                Ok(Reply::Recital(Recital::new(poem.clone(), pace)))
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
            Upstream::Recital(..) => f.write_str("builtin"),
        }
    }
}

/// What is asked of a server, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The protocol spoken.
    pub protocol: Protocol,
    /// The request, without its framing.
    pub request: &'a [u8],
    /// The most bytes a framed reply may announce.
    pub limit: u64,
    /// The deadlines.
    pub timeouts: Timeouts,
}

/// Connects to a server and sends it the request.
///
/// # Errors
/// [`Error::Unresolved`], [`Error::Unreachable`], [`Error::Timeout`], [`Error::Reset`].
pub async fn ask(addr: &Addr, question: &Question<'_>) -> Result<Reply, Error> {
    let stream = net::connect(addr, question.timeouts.connect).await?;
    let judge = Judge::new(question.protocol, addr.to_string(), question.limit);
    let framed = question.protocol.frame(question.request);
    let idle = question.timeouts.idle;
    match net::within(idle, stream.send_all(&framed)).await {
        // A server that has said all it wants may close before it has read our request: its reply still decides.
        Some(sent) => {
            let cut = sent.err().filter(|e| e.kind() == io::ErrorKind::ConnectionReset);
            let (over, end, buffer) = (false, None, Vec::new());
            Ok(Reply::Server(Box::new(Conversation { stream, judge, idle, cut, over, end, buffer })))
        }
        None => {
            Err(Error::Timeout { addr: addr.to_string(), stage: "the request was not taken", limit: idle })
        }
    }
}

/// A poem on its way to us.
pub enum Reply {
    /// From a server.
    Server(Box<Conversation>),
    /// From this process.
    Recital(Recital),
}

impl Reply {
    /// The next bytes; `None` when the reply is complete.
    ///
    /// # Errors
    /// Whatever keeps the reply from being complete; the bytes before it are a part, and not the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Reply::Server(conversation) => conversation.next().await,
            Reply::Recital(recital) => Ok(recital.next().await),
        }
    }

    /// Whether it is known that nothing more comes, and that the reply is complete.
    pub fn is_over(&self) -> bool {
        match self {
            Reply::Server(conversation) => conversation.over,
            Reply::Recital(recital) => recital.poem.is_empty(),
        }
    }
}

/// A connection to a server that is sending its reply.
pub struct Conversation {
    stream: Stream,
    judge: Judge,
    idle: Duration,
    /// The reset that sending the request met with. It is told once: reading would show a clean end instead (measured,
    /// and Linux's `sk_stream_error`). One that came behind the server's FIN is told as a broken pipe, and cuts nothing.
    cut: Option<io::Error>,
    /// Whether the reply is complete.
    over: bool,
    /// How the connection ended, where that was seen behind the last bytes: it can't be seen twice.
    end: Option<io::Result<()>>,
    buffer: Vec<u8>,
}

impl Conversation {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.over {
            return Ok(None);
        }
        if self.end.is_none() {
            self.buffer.resize(READ, 0);
            match net::within(self.idle, self.stream.read(&mut self.buffer)).await {
                None => return Err(self.judge.silent(self.idle)),
                Some(Err(e)) => self.end = Some(Err(e)),
                Some(Ok(0)) => self.end = Some(self.closed()),
                Some(Ok(count)) => return self.take(count).map(Some),
            }
        }
        match self.end.take() {
            Some(Err(e)) => Err(self.judge.broken(&e)),
            _ => self.judge.ended().map(|()| None),
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
        self.over = self.judge.take(bytes)? || matches!(self.end, Some(Ok(()))) && self.judge.ended().is_ok();
        Ok(Bytes::copy_from_slice(bytes))
    }
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
pub struct Recital {
    poem: Bytes,
    pace: Pace,
    begun: bool,
}

impl Recital {
    /// Begins at the beginning; the first bytes come without a delay.
    pub fn new(poem: Poem, pace: Pace) -> Recital {
        Recital { poem: poem.bytes(), pace, begun: false }
    }

    /// The next bytes, when it is time for them.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.poem.is_empty() {
            return None;
        }
        if std::mem::replace(&mut self.begun, true) {
            net::sleep(self.pace.delay).await;
        }
        Some(self.poem.split_to(self.pace.bytes.min(self.poem.len())))
    }
}

/// How many long built-in transformations are done at the same time. Each has its poem and what it makes of it in memory,
/// so they must be few, and each keeps a core busy.
const BENCH_PLACES: usize = 4;

/// Where they are done. It is the process's, as cores and memory are.
static BENCH: LazyLock<Gate> = LazyLock::new(|| Gate::new(BENCH_PLACES));

/// One transformation that is done here.
#[derive(Debug, Clone)]
pub enum Craft {
    /// By this program itself.
    BuiltIn(Transform),
    /// By another.
    Program(Program),
}

impl Craft {
    /// The name it is asked for by.
    pub fn name(&self) -> &str {
        match self {
            Craft::BuiltIn(transform) => transform.name(),
            Craft::Program(program) => program.name(),
        }
    }

    /// What it does, in a few words or as a command.
    pub fn about(&self) -> String {
        match self {
            Craft::BuiltIn(transform) => transform.about().to_string(),
            Craft::Program(program) => program.command(),
        }
    }

    /// The transformed poem, of at most `limit` bytes. What is built in needs no deadline, nor
    /// does waiting for a place: what is before it ends by itself.
    ///
    /// # Errors
    /// [`Error::Transform`], [`Error::TooLong`]; from a program also [`Error::Timeout`].
    pub async fn apply(&self, poem: Bytes, limit: u64, deadline: Duration) -> Result<Bytes, Error> {
        match self {
            Craft::BuiltIn(transform) => {
                let transform = *transform;
                let place = match net::is_long_work(poem.len()) {
                    true => Some(BENCH.enter(Instant::now()).await),
                    false => None,
                };
                net::busy(poem.len(), move || {
                    let _until_it_is_done = place; // also where nobody waits for it any more
                    transform.apply(&poem, limit)
                })
                .await
            }
            Craft::Program(program) => program.apply(&poem, limit, deadline).await,
        }
    }
}

impl From<Transform> for Craft {
    fn from(transform: Transform) -> Craft {
        Craft::BuiltIn(transform)
    }
}

/// All that can be asked for by name: what is built in, and the programs that were added. No two have the same name.
#[derive(Debug, Clone, Default)]
pub struct Repertoire {
    added: Vec<Program>,
}

impl Repertoire {
    /// Adds a program; gives it back where its name is taken.
    ///
    /// # Errors
    /// The program.
    pub fn add(&mut self, program: Program) -> Result<(), Program> {
        match self.named(program.name()) {
            Some(_) => Err(program),
            None => {
                self.added.push(program);
                Ok(())
            }
        }
    }

    /// Everything, in the order it is listed.
    pub fn crafts(&self) -> impl Iterator<Item = Craft> + '_ {
        let added = self.added.iter().cloned().map(Craft::Program);
        Transform::ALL.into_iter().map(Craft::BuiltIn).chain(added)
    }

    /// What has this name, if anything does.
    pub fn named(&self, name: &str) -> Option<Craft> {
        self.crafts().find(|craft| craft.name() == name)
    }
}

/// Who transforms poems, and how.
#[derive(Debug, Clone)]
pub enum Workshop {
    /// This machine, one transformation after the other.
    Own(Vec<Craft>),
    /// A transformation service, asked once for each name.
    Via(Addr, Vec<String>),
}

impl Workshop {
    /// The transformed poem. The total of the timeouts is for each transformation.
    ///
    /// # Errors
    /// Those of [`Craft::apply`] from our own, any error of a fetch from a service.
    pub async fn apply(&self, mut poem: Bytes, limit: u64, timeouts: Timeouts) -> Result<Bytes, Error> {
        match self {
            Workshop::Own(crafts) => {
                for craft in crafts {
                    poem = craft.apply(poem, limit, timeouts.total).await?;
                }
            }
            Workshop::Via(addr, names) => {
                for name in names {
                    poem = transform_via(addr, name, &poem, limit, timeouts).await?;
                }
            }
        }
        Ok(poem)
    }
}

/// Has one transformation done by a service: `NAME.POEM` as a netstring, and a netstring back.
async fn transform_via(
    addr: &Addr,
    name: &str,
    poem: &[u8],
    limit: u64,
    timeouts: Timeouts,
) -> Result<Bytes, Error> {
    let request = [name.as_bytes(), b".", poem].concat();
    let question = Question { protocol: Protocol::Netstring, request: &request, limit, timeouts };
    let work = async {
        let mut reply = ask(addr, &question).await?;
        let (mut scanner, mut done) = (Scanner::new(limit), Vec::new());
        while let Some(bytes) = reply.next().await? {
            let _judged = scanner.scan(&bytes, |run| done.extend_from_slice(run));
        }
        Ok(done.into())
    };
    let late =
        || Error::Timeout { addr: addr.to_string(), stage: "no transformation", limit: timeouts.total };
    net::within(timeouts.total, work).await.unwrap_or_else(|| Err(late()))
}
