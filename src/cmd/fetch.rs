//! `poetry fetch`: poems on standard output in the order of the arguments, and nothing
//! else there.
//!
//! All servers are asked at once. Each download writes a flight of its own, and the
//! flights are printed one after the other. A file is put in its place only when it is
//! complete, so what was written to it can be taken back and a retry can start a new
//! flight. With `--json` a flight is held in memory until it has ended.

mod download;
mod print;
mod progress;
mod sink;

use super::failure::Failure;
use super::flags::{Connecting, Output};
use super::signals;
use super::transforms::pipeline;
use super::values::{connect_addr, number, positive_duration, size};
use async_signal::Signal;
use download::{Pending, Plan};
use futures::future::join_all;
use poetry::addr::Addr;
use poetry::protocol::check_line;
use poetry::rt;
use poetry::transform::Registry;
use print::Printer;
use sink::{Sink, Target};
use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

/// Print the poems of one or many servers
///
/// All servers are asked at once, and their poems are printed in the order given. The
/// exit code is 0 only if every poem arrived whole; the other exit codes are curl's.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Servers: [HOST:]PORT, [IPV6]:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:10000", value_parser = connect_addr)]
    addrs: Vec<Addr>,
    /// Write to FILE once every poem is whole; on failure, an existing FILE stays as it
    /// was
    ///
    /// With --json, FILE also gets the objects of failures. A dash is standard output.
    /// Standard output, a device or a pipe gets the poems as they arrive.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long each fetch may take, including its retries
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    timeout: Duration,
    #[command(flatten)]
    connecting: Connecting,
    /// Retry up to N times, waiting 1s, 2s, 4s, ...; only while nothing has been
    /// printed
    #[arg(long, value_name = "N", default_value = "0", value_parser = number(0u32))]
    retry: u32,
    /// Send this request line first (the line protocol: finger, whois, gopher)
    #[arg(long, value_name = "TEXT", value_parser = request_line)]
    ask: Option<String>,
    /// Close the sending side after the request line, for servers that read to its end
    /// before they answer; others take that for a hang-up
    #[arg(long, requires = "ask")]
    half_close: bool,
    /// Longest poem to accept; by default there is no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_poem: Option<u64>,
    /// Transform the poems; several names are applied in order
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    transform: Vec<String>,
    /// Have the netstring service at ADDR transform the poems
    #[arg(long, value_name = "ADDR", requires = "transform", value_parser = connect_addr)]
    via: Option<Addr>,
    /// Print one JSON object per server instead of its poem
    ///
    /// The poem is held in memory, so without --max-poem the limit is 1 GiB.
    #[arg(long)]
    json: bool,
}

fn request_line(text: &str) -> Result<String, String> {
    match check_line(text.as_bytes()) {
        Ok(()) => Ok(text.to_string()),
        Err(error) => Err(format!("{error}; wanted one line of text")),
    }
}

/// Fetches and prints; returns the exit code.
pub(super) async fn run(args: Args, output: &Output) -> Result<u8, Failure> {
    let pipeline = pipeline(&args.transform, args.via.as_ref(), &Registry::default())?;
    let target = Target::of(args.output.as_deref());
    let is_file = matches!(target, Target::File(_));
    let progress = progress::bar(&target, output.quiet);

    let plan = Plan {
        timeouts: args.connecting.timeouts(args.timeout),
        ask: args.ask,
        half_close: args.half_close,
        retry: args.retry,
        pipeline,
        max_poem: args.max_poem.unwrap_or(u64::MAX),
        json: args.json,
        can_take_back: is_file,
        progress: progress.clone(),
    };
    let (pending_poems, downloads): (Vec<Pending>, Vec<_>) =
        args.addrs.iter().map(|addr| plan.start(addr)).unzip();

    let printing = async {
        let sink = Sink::open(target).await?;
        let printer = Printer {
            sink,
            json: args.json,
            progress,
        };
        printer.print_all(pending_poems).await
    };
    // In this task: a second thread takes longer to start than a small poem takes to
    // come.
    let downloading = async {
        join_all(downloads).await;
        pending::<Infallible>().await // the printer ends the race
    };

    // Signals come first: they are listened to before there is a file to remove.
    match rt::race(interrupted(is_file), rt::race(printing, downloading)).await {
        Ok(signal) => Ok(signals::exit_code(signal)),
        Err(Ok(code)) => Ok(code?),
        Err(Err(never)) => match never {},
    }
}

/// Waits for a signal, if there is an incomplete file that must be removed. Otherwise a
/// signal does what it does by default.
async fn interrupted(is_file: bool) -> Signal {
    if !is_file {
        return pending().await;
    }
    signals::next(signals::not_ignored()).await
}
