//! `poetry fetch`: poems on standard output, in the order asked, and nothing else there.
//!
//! Every server is asked at once, each into a flight of its own; the poems are printed by reading the flights one
//! after the other. Where nothing may be shown before it is whole (`--output`, `--json`), the flight is held until
//! it has ended.

use crate::cmd::report;
use crate::cmd::{connect_addr, positive_duration, size, workshop, Connecting, Output};
use base64::Engine;
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use poetry::addr::Addr;
use poetry::error::{reason, Error};
use poetry::flight::{self, Read, Reader, Writer};
use poetry::net;
use poetry::protocol::{check_line, Protocol};
use poetry::upstream::{ask, Question, Repertoire, Timeouts, Workshop};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Print the poems of one or many servers
///
/// All servers are asked at once and their poems printed in the order asked. Only a poem that came whole ends in
/// exit code 0; the other exit codes are curl's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The servers: [HOST:]PORT, [IPV6]:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:10000", value_parser = connect_addr)]
    addrs: Vec<Addr>,
    /// Write to FILE, once everything is whole; a failure leaves an existing FILE as it was
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long all of it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    timeout: Duration,
    #[command(flatten)]
    connecting: Connecting,
    /// Try again this often, after 1s, 2s, 4s and so on, while nothing has been printed
    #[arg(long, value_name = "N", default_value = "0")]
    retry: u32,
    /// Send this request line first (the line protocol: finger, whois, gopher)
    #[arg(long, value_name = "TEXT", value_parser = request_line)]
    ask: Option<String>,
    /// The longest poem that is taken; without it, any
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_poem: Option<u64>,
    /// Transform the poems; several names are applied in order
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    transform: Vec<String>,
    /// Have the transformation done by the netstring service at this address
    #[arg(long, value_name = "ADDR", requires = "transform", value_parser = connect_addr)]
    via: Option<Addr>,
    /// Print one JSON object a server instead of its poem
    #[arg(long)]
    json: bool,
}

fn request_line(text: &str) -> Result<String, String> {
    check_line(text.as_bytes())
        .map(|()| text.to_string())
        .map_err(|e| format!("{e}; wanted one line of text"))
}

/// How far a fetch may be ahead of what is printed, in bytes.
const AHEAD: u64 = 16 << 20;

/// The longest poem where it has to be held in memory, in bytes.
const HELD_MAX: u64 = 1 << 30;

/// The pause before the second attempt; it doubles up to the longest.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));

impl Args {
    /// Whether nothing may be shown of a poem before it is whole.
    fn is_held(&self) -> bool {
        self.output.is_some() || self.json
    }
}

/// Fetches and prints; the exit code.
pub async fn run(args: Args, output: &Output) -> Result<u8, Error> {
    let progress = progress(&args, output);
    let plan = Plan {
        timeout: args.timeout,
        timeouts: Timeouts {
            connect: args.connecting.connect_timeout,
            idle: args.connecting.idle_timeout,
            total: args.timeout,
        },
        ask: args.ask.clone(),
        retry: args.retry,
        workshop: workshop("fetch", &args.transform, args.via.as_ref(), &Repertoire::default()),
        max_poem: args.max_poem.unwrap_or(u64::MAX),
        progress: progress.clone(),
    };
    let (under_way, fetches): (Vec<UnderWay>, Vec<_>) =
        args.addrs.iter().map(|addr| plan.begin(addr, args.is_held())).unzip();
    let printing = async {
        let sink = Sink::open(args.output.as_deref())?;
        print_all(under_way, sink, &args, &progress).await
    };
    // In one task: nothing here needs a second thread, and starting one takes longer than a small poem.
    let fetching = async {
        join_all(fetches).await;
        std::future::pending::<Infallible>().await // what they wrote is yet to be printed
    };
    match net::race(printing, fetching).await {
        Ok(code) => code,
        Err(never) => match never {},
    }
}

async fn print_all(
    under_way: Vec<UnderWay>,
    mut sink: Sink,
    args: &Args,
    progress: &ProgressBar,
) -> Result<u8, Error> {
    let mut first_failure = None;
    for mut fetch in under_way {
        let told = match args.json {
            true => fetch.print_json(&mut sink).await,
            false => fetch.print(args.is_held(), &mut sink).await,
        };
        match told {
            Ok(()) => {}
            Err(Stop::ClosedOutput) => return Ok(0),
            Err(Stop::Failed(error @ Error::Output { .. })) => return Err(error),
            Err(Stop::Failed(error)) => {
                progress.suspend(|| report::error(&error));
                first_failure.get_or_insert(error.exit_code());
            }
        }
    }
    progress.finish_and_clear();
    match first_failure {
        None => sink.keep().map(|()| 0),
        Some(code) if args.json => sink.keep().map(|()| code),
        Some(code) => Ok(code),
    }
}

fn progress(args: &Args, output: &Output) -> ProgressBar {
    let seen =
        report::progress_is_seen() || (args.output.is_some() && io::IsTerminal::is_terminal(&io::stderr()));
    if output.quiet || !seen {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bytes} {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.expect("the template is well formed"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// What is the same for every server.
#[derive(Clone)]
struct Plan {
    timeout: Duration,
    timeouts: Timeouts,
    ask: Option<String>,
    retry: u32,
    workshop: Option<Workshop>,
    max_poem: u64,
    progress: ProgressBar,
}

/// How a fetch went, told when it has ended.
#[derive(Default)]
struct Told {
    bytes: u64,
    first_byte: Option<Duration>,
    total: Duration,
}

/// The work of one fetch, through all its attempts.
struct Errand<'a> {
    addr: &'a Addr,
    writer: Writer,
    begun: Instant,
    told: Told,
}

/// One server's poem on its way.
struct UnderWay {
    addr: Addr,
    reader: Reader,
    told: Option<oneshot::Receiver<Told>>,
}

impl Plan {
    /// What is to be read, and the work that writes it.
    fn begin<'a>(&'a self, addr: &'a Addr, held: bool) -> (UnderWay, impl Future<Output = ()> + 'a) {
        let (writer, flight) = flight::launch(if held { u64::MAX } else { AHEAD });
        let reader = flight.join().expect("a flight just launched has its beginning");
        let (tell, told) = oneshot::channel();
        (UnderWay { addr: addr.clone(), reader, told: Some(told) }, self.fetch(addr, writer, tell))
    }

    async fn fetch(&self, addr: &Addr, writer: Writer, tell: oneshot::Sender<Told>) {
        let mut errand = Errand { addr, writer, begun: Instant::now(), told: Told::default() };
        let late = || Error::Timeout { addr: addr.to_string(), stage: "not complete", limit: self.timeout };
        let result = net::within(self.timeout, self.attempts(&mut errand)).await;
        let Errand { writer, begun, told, .. } = errand;
        let _nobody_asks = tell.send(Told { total: begun.elapsed(), ..told });
        match result.unwrap_or_else(|| Err(late())) {
            Ok(()) => writer.finish_unkept(),
            Err(error) => writer.fail(error),
        }
    }

    /// Again and again, while no reader has seen anything.
    async fn attempts(&self, errand: &mut Errand<'_>) -> Result<(), Error> {
        let mut pause = RETRY_PAUSE.0;
        for left in (0..=self.retry).rev() {
            match self.attempt(errand).await {
                Err(error) if left > 0 && error.is_worth_another_try() && errand.writer.rewind() => {
                    net::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE.1);
                    continue;
                }
                result => return result,
            }
        }
        Err(Error::Abandoned)
    }

    async fn attempt(&self, errand: &mut Errand<'_>) -> Result<(), Error> {
        let Errand { addr, writer, begun, told } = errand;
        let (protocol, request) = match &self.ask {
            Some(line) => (Protocol::Line, line.as_bytes()),
            None => (Protocol::Poem, &b""[..]),
        };
        let question = Question { protocol, request, limit: self.max_poem, timeouts: self.timeouts };
        *told = Told::default();
        let mut reply = ask(addr, &question).await?;
        let limit = match self.workshop {
            Some(_) => self.max_poem.min(HELD_MAX),
            None => self.max_poem,
        };
        let mut poem = Vec::new();
        while let Some(bytes) = reply.next().await? {
            told.first_byte.get_or_insert_with(|| begun.elapsed());
            told.bytes += bytes.len() as u64;
            self.progress.inc(bytes.len() as u64);
            if told.bytes > limit {
                return Err(Error::TooLong { addr: addr.to_string(), limit });
            }
            match self.workshop {
                Some(_) => poem.extend_from_slice(&bytes),
                None => {
                    writer.room().await?;
                    writer.append(bytes);
                }
            }
        }
        if let Some(workshop) = &self.workshop {
            writer.append(workshop.apply(poem.into(), HELD_MAX, self.timeouts).await?);
        }
        Ok(())
    }
}

/// Why printing a poem ended early.
enum Stop {
    Failed(Error),
    /// Whoever reads our output has enough.
    ClosedOutput,
}

impl UnderWay {
    async fn print(&mut self, held: bool, sink: &mut Sink) -> Result<(), Stop> {
        if held {
            self.told().await;
        }
        loop {
            match self.reader.read() {
                Read::Chunk(bytes) => sink.write(bytes).await?,
                Read::Pending => self.reader.ready().await,
                Read::End => return Ok(()),
                Read::Failed(error) => return Err(Stop::Failed((*error).clone())),
            }
        }
    }

    async fn told(&mut self) -> Told {
        match self.told.take() {
            Some(told) => told.await.unwrap_or_default(),
            None => Told::default(),
        }
    }

    async fn print_json(&mut self, sink: &mut Sink) -> Result<(), Stop> {
        let told = self.told().await;
        let mut poem = Vec::new();
        let end = loop {
            match self.reader.read() {
                Read::Chunk(bytes) => poem.extend_from_slice(&bytes),
                Read::Pending => self.reader.ready().await,
                Read::End => break None,
                Read::Failed(error) => break Some(error),
            }
        };
        let mut object = json!({
            "address": self.addr.to_string(),
            "outcome": end.as_ref().map_or("whole", |error| error.word()),
            "bytes": told.bytes,
            "first_byte_ms": told.first_byte.map(|time| time.as_millis() as u64),
            "total_ms": told.total.as_millis() as u64,
        });
        if end.is_none() {
            object["sha256"] = json!(hex(&Sha256::digest(&poem)));
            match String::from_utf8(poem) {
                Ok(text) => object["poem"] = json!(text),
                Err(e) => {
                    object["poem_base64"] =
                        json!(base64::engine::general_purpose::STANDARD.encode(e.as_bytes()));
                }
            }
        }
        sink.write(format!("{object}\n").into()).await?;
        end.map_or(Ok(()), |error| Err(Stop::Failed((*error).clone())))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes and flushes. Whoever reads our output may take his time (a pager), and the servers must not wait for him: so
/// what could block is written by another thread.
async fn write_out(out: &io::Stdout, bytes: Bytes) -> io::Result<()> {
    const PIPE_BUF: usize = 4096; // so much fits where a pipe is writable (POSIX; Linux's pipes are)
    let write = |out: &io::Stdout, bytes: &[u8]| {
        let mut out = out.lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    let mut fds = [PollFd::new(out, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    match ready && bytes.len() <= PIPE_BUF {
        true => write(out, &bytes),
        false => net::unblock(move || write(&io::stdout(), &bytes)).await,
    }
}

/// Where poems go.
enum Sink {
    Stdout(io::Stdout),
    /// Beside the file it will replace.
    File {
        part: tempfile::NamedTempFile,
        path: PathBuf,
    },
    /// A device or a pipe can't be replaced: everything is held and written to it in the end.
    Special {
        held: Vec<u8>,
        path: PathBuf,
    },
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Sink, Error> {
        let Some(path) = path else { return Ok(Sink::Stdout(io::stdout())) };
        let output = |e: io::Error| Error::Output { what: path.display().to_string(), why: reason(&e) };
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()); // a link stays a link
        let old = std::fs::metadata(&path).ok();
        if old.as_ref().is_some_and(|old| !old.is_file() && !old.is_dir()) {
            return Ok(Sink::Special { held: Vec::new(), path });
        }
        if old.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(output(ErrorKind::IsADirectory.into()));
        }
        use std::os::unix::fs::PermissionsExt;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = std::fs::Permissions::from_mode(0o666); // less the umask
        let part = tempfile::Builder::new()
            .prefix(".poetry-")
            .permissions(mode)
            .tempfile_in(folder)
            .map_err(output)?;
        if let Some(old) = old {
            part.as_file().set_permissions(old.permissions()).map_err(output)?;
        }
        Ok(Sink::File { part, path })
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Stop> {
        let done = match self {
            Sink::Stdout(out) => write_out(out, bytes).await,
            Sink::File { part, .. } => part.write_all(&bytes),
            Sink::Special { held, .. } => held.write_all(&bytes),
        };
        done.map_err(|e| self.stop(&e))
    }

    fn stop(&self, error: &io::Error) -> Stop {
        match self {
            Sink::Stdout(_) if error.kind() == ErrorKind::BrokenPipe => Stop::ClosedOutput,
            _ => Stop::Failed(Error::Output { what: self.name(), why: reason(error) }),
        }
    }

    fn name(&self) -> String {
        match self {
            Sink::Stdout(_) => "standard output".into(),
            Sink::File { path, .. } | Sink::Special { path, .. } => path.display().to_string(),
        }
    }

    /// Everything is whole: puts the file in its place.
    fn keep(self) -> Result<(), Error> {
        let what = self.name();
        let output = |e: io::Error| Error::Output { what, why: reason(&e) };
        match self {
            Sink::Stdout(_) => Ok(()),
            Sink::File { part, path } => part.persist(path).map(drop).map_err(|e| output(e.error)),
            Sink::Special { held, path } => {
                let file = std::fs::OpenOptions::new().write(true).open(path);
                file.and_then(|mut file| file.write_all(&held)).map_err(output)
            }
        }
    }
}
