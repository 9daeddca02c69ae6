//! `poetry fetch`: poems on standard output, in the order asked, and nothing else there.
//!
//! Every server is asked at once, each into a flight of its own; the poems are printed by reading the flights one
//! after the other. What goes into a file can be taken back while it is not in its place: another attempt is another
//! flight. Where a poem is told of in one object (`--json`), its flight is held until it has ended.

mod sink;

use crate::cmd::report;
use crate::cmd::{
    Connecting, Output, connect_addr, interruptions, number, positive_duration, size, workshop,
};
use async_signal::Signal;
use base64::Engine;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use poetry::addr::Addr;
use poetry::client::{Query, Timeouts, ask};
use poetry::error::{Error, Stage};
use poetry::flight::{self, Read, Reader, Writer};
use poetry::protocol::{Protocol, check_line};
use poetry::rt;
use poetry::transform::{Pipeline, Registry};
use serde_json::json;
use sha2::{Digest, Sha256};
use sink::{Sink, Stop, Target};
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc;
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
    ///
    /// With --json, FILE gets the objects, those of failures too. A dash is standard output; to it, to a device and to
    /// a pipe poems are written as they come.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long all of it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    timeout: Duration,
    #[command(flatten)]
    connecting: Connecting,
    /// Try again this often, after 1s, 2s, 4s and so on, while nothing has been printed
    #[arg(long, value_name = "N", default_value = "0", value_parser = number(0u32))]
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
    ///
    /// Its poem is held in memory until then, so without --max-poem one of more than 1 GiB is too long.
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

/// Fetches and prints; the exit code.
pub async fn run(args: Args, output: &Output) -> Result<u8, Error> {
    let target = Target::of(args.output.as_deref());
    let progress = progress(&target, output);
    let plan = Plan {
        timeout: args.timeout,
        timeouts: Timeouts {
            connect: args.connecting.connect_timeout,
            idle: args.connecting.idle_timeout,
            total: args.timeout,
        },
        ask: args.ask.clone(),
        retry: args.retry,
        workshop: workshop(
            "fetch",
            &args.transform,
            args.via.as_ref(),
            &Registry::default(),
        ),
        max_poem: args.max_poem.unwrap_or(u64::MAX),
        json: args.json,
        taken_back: matches!(target, Target::File(_)),
        progress: progress.clone(),
    };
    let (under_way, fetches): (Vec<Pending>, Vec<_>) =
        args.addrs.iter().map(|addr| plan.begin(addr)).unzip();
    let interrupted = interrupted(plan.taken_back);
    let printing = async {
        let sink = Sink::open(target).await?;
        print_all(under_way, sink, &args, &progress).await
    };
    // In one task: nothing here needs a second thread, and starting one takes longer than a small poem.
    let fetching = async {
        join_all(fetches).await;
        std::future::pending::<Infallible>().await // what they wrote is yet to be printed
    };
    // Signals first: they are listened to before there is anything to remove.
    match rt::race(interrupted, rt::race(printing, fetching)).await {
        Ok(signal) => Ok(128 + signal as u8),
        Err(Ok(code)) => code,
        Err(Err(never)) => match never {},
    }
}

/// Waits for a signal while there is a file beside the one to be written, which would be left lying about. Where there
/// is none, a signal does what it always does.
async fn interrupted(file: bool) -> Signal {
    if !file {
        return std::future::pending().await; // and no signal is as much as asked for
    }
    if let Ok(mut signals) = interruptions()
        && let Some(Ok(signal)) = signals.next().await
    {
        return signal;
    }
    std::future::pending().await
}

async fn print_all(
    under_way: Vec<Pending>,
    mut sink: Sink,
    args: &Args,
    progress: &ProgressBar,
) -> Result<u8, Error> {
    let mut first_failure = None;
    for mut fetch in under_way {
        let told = match args.json {
            true => fetch.print_json(&mut sink).await,
            false => fetch.print(&mut sink).await,
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

fn progress(target: &Target, output: &Output) -> ProgressBar {
    let seen =
        report::progress_is_seen() || (*target != Target::Stdout && io::stderr().is_terminal());
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
    workshop: Option<Pipeline>,
    max_poem: u64,
    /// Whether a poem is told of when it has ended, and held until then.
    json: bool,
    /// Whether what was written of a poem can be taken back.
    taken_back: bool,
    progress: ProgressBar,
}

/// How a fetch went, told when it has ended.
#[derive(Default)]
struct Timing {
    bytes: u64,
    first_byte: Option<Duration>,
    total: Duration,
}

/// The work of one fetch, through all its attempts.
struct Download<'a> {
    addr: &'a Addr,
    writer: Writer,
    /// Where a part that was read can be taken back: the next attempt's reader.
    again: Option<mpsc::Sender<Reader>>,
    begun: Instant,
    told: Timing,
}

/// One server's poem on its way.
struct Pending {
    addr: Addr,
    reader: Reader,
    /// The next attempt's reader, sent before this one's fails.
    again: mpsc::Receiver<Reader>,
    told: Option<oneshot::Receiver<Timing>>,
}

impl Plan {
    /// What is to be read, and the work that writes it.
    fn begin<'a>(&'a self, addr: &'a Addr) -> (Pending, impl Future<Output = ()> + 'a) {
        let (writer, reader) = launch(if self.json { u64::MAX } else { AHEAD });
        let (tell, told) = oneshot::channel();
        let (send, again) = mpsc::channel();
        let send = self.taken_back.then_some(send);
        let errand = Download {
            addr,
            writer,
            again: send,
            begun: Instant::now(),
            told: Timing::default(),
        };
        (
            Pending {
                addr: addr.clone(),
                reader,
                again,
                told: Some(told),
            },
            self.fetch(errand, tell),
        )
    }

    async fn fetch(&self, mut errand: Download<'_>, tell: oneshot::Sender<Timing>) {
        let addr = errand.addr;
        let late = || Error::Timeout {
            subject: addr.to_string(),
            stage: Stage::Complete,
            limit: self.timeout,
        };
        let result = rt::within(self.timeout, self.attempts(&mut errand)).await;
        let Download {
            writer,
            begun,
            told,
            ..
        } = errand;
        let _nobody_asks = tell.send(Timing {
            total: begun.elapsed(),
            ..told
        });
        match result.unwrap_or_else(|| Err(late())) {
            Ok(()) => writer.finish_unkept(),
            Err(error) => writer.fail(error),
        }
    }

    /// Again and again, while what came can be taken back.
    async fn attempts(&self, errand: &mut Download<'_>) -> Result<(), Error> {
        let mut pause = RETRY_PAUSE.0;
        for left in (0..=self.retry).rev() {
            match self.attempt(errand).await {
                Err(error)
                    if left > 0 && error.is_worth_another_try() && errand.take_back(&error) =>
                {
                    rt::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE.1);
                    continue;
                }
                result => return result,
            }
        }
        Err(Error::Abandoned)
    }

    async fn attempt(&self, errand: &mut Download<'_>) -> Result<(), Error> {
        let Download {
            addr,
            writer,
            begun,
            told,
            ..
        } = errand;
        let (protocol, request) = match &self.ask {
            Some(line) => (Protocol::Line, line.as_bytes()),
            None => (Protocol::Poem, &b""[..]),
        };
        let question = Query {
            protocol,
            request,
            limit: self.max_poem,
            timeouts: self.timeouts,
        };
        *told = Timing::default();
        let mut reply = ask(addr, &question).await?;
        let limit = self.limit();
        let mut poem = Vec::new();
        while let Some(bytes) = reply.next().await? {
            told.first_byte.get_or_insert_with(|| begun.elapsed());
            told.bytes += bytes.len() as u64;
            self.progress.inc(bytes.len() as u64);
            if told.bytes > limit {
                return Err(Error::TooLong {
                    subject: addr.to_string(),
                    limit,
                });
            }
            match self.workshop {
                Some(_) => poem.extend_from_slice(&bytes),
                None => {
                    writer.writable().await?;
                    writer.append(bytes);
                }
            }
        }
        if let Some(workshop) = &self.workshop {
            writer.append(workshop.apply(poem.into(), HELD_MAX, self.timeouts).await?);
        }
        Ok(())
    }

    /// The longest poem that is taken.
    fn limit(&self) -> u64 {
        match self.json || self.workshop.is_some() {
            true => self.max_poem.min(HELD_MAX),
            false => self.max_poem,
        }
    }
}

fn launch(window: u64) -> (Writer, Reader) {
    let (writer, flight) = flight::launch(window);
    (
        writer,
        flight
            .join()
            .expect("a flight just launched has its beginning"),
    )
}

impl Download<'_> {
    /// Whether what came until this error can be taken back: it has not been read, or it stands in a file.
    fn take_back(&mut self, error: &Error) -> bool {
        if self.writer.rewind() {
            return true;
        }
        let Some(again) = &self.again else {
            return false;
        };
        let (writer, reader) = launch(AHEAD);
        let told = again.send(reader).is_ok();
        std::mem::replace(&mut self.writer, writer).fail(error.clone());
        told
    }
}

impl Pending {
    async fn print(&mut self, sink: &mut Sink) -> Result<(), Stop> {
        let beginning = sink.mark()?;
        loop {
            match self.reader.read() {
                Read::Chunk(bytes) => sink.write(bytes).await?,
                Read::Pending => self.reader.ready().await,
                Read::End => return Ok(()),
                Read::Failed(error) => match self.again.try_recv() {
                    Ok(reader) => {
                        sink.take_back(beginning)?;
                        self.reader = reader;
                    }
                    Err(_) => return Err(Stop::Failed((*error).clone())),
                },
            }
        }
    }

    async fn told(&mut self) -> Timing {
        match self.told.take() {
            Some(told) => told.await.unwrap_or_default(),
            None => Timing::default(),
        }
    }

    async fn print_json(&mut self, sink: &mut Sink) -> Result<(), Stop> {
        let told = self.told().await;
        let mut pieces = Vec::new();
        let end = loop {
            match self.reader.read() {
                Read::Chunk(bytes) => pieces.push(bytes),
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
            let poem = pieces.concat();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_in_memory_has_a_limit_also_without_max_poem() {
        let timeouts = Timeouts {
            connect: Duration::MAX,
            idle: Duration::MAX,
            total: Duration::MAX,
        };
        let plan = |json, max_poem| Plan {
            timeout: Duration::MAX,
            timeouts,
            ask: None,
            retry: 0,
            workshop: None,
            max_poem,
            json,
            taken_back: false,
            progress: ProgressBar::hidden(),
        };
        assert_eq!(plan(true, u64::MAX).limit(), HELD_MAX);
        assert_eq!(plan(true, 5).limit(), 5);
        assert_eq!(plan(false, u64::MAX).limit(), u64::MAX);
    }
}
