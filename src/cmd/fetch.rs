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

use super::addrs::{PROXY_PORT, TRANSFORM_PORT, connect_addr};
use super::answers::Answers;
use super::failure::Failure;
use super::flags::{Connecting, Output};
use super::signals;
use super::sockets::FdBudget;
use super::transforms::pipeline;
use super::values::{MAX_DURATION, number, positive_limit, size};
use async_signal::Signal;
use download::{Pending, Plan};
use futures::{StreamExt, stream};
use futures_lite::future;
use poetry::addr::Addr;
use poetry::client::Timeouts;
use poetry::protocol::check_line;
use poetry::rt;
use poetry::transform::{Pipeline, Registry};
use print::Printer;
use progress::Progress;
use sink::{Sink, Target, output_error};
use std::convert::Infallible;
use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  poetry fetch 10001                          the poem of a server on this machine
  poetry fetch 10001 poems.example:10001      two poems, in this order
  poetry fetch -o poem.txt --retry 2 10001    a whole file or none, with retries
  poetry fetch --ask example.net whois:43     a question in the line protocol
  poetry fetch --json 10001 | jq .outcome     the outcome, for a script";

/// Print the poems of one or many servers
///
/// All servers are asked at once, and their poems are printed in the order given. The
/// exit code is 0 only if every poem arrived whole. Codes 6 to 63 are curl's.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Servers: [HOST:]PORT, [IPV6]:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:10000",
          value_parser = connect_addr(PROXY_PORT))]
    addrs: Vec<Addr>,
    /// Write to FILE once every poem is whole; on failure, an existing FILE stays as it
    /// was
    ///
    /// With --json, FILE also gets the objects of failures. A dash is standard output.
    /// Standard output, also under another name such as /dev/stdout, a device or a pipe
    /// gets the poems as they arrive. A symbolic link stays, and its target is written.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long each fetch may take, including its retries; by default there is no
    /// limit
    #[arg(long, value_name = "DURATION", value_parser = positive_limit)]
    timeout: Option<Duration>,
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
    /// before they answer; others take that for a hang-up; needs --ask
    #[arg(long, requires = "ask")]
    half_close: bool,
    #[command(flatten)]
    answers: Answers,
    /// Longest poem to accept; by default there is no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_poem: Option<u64>,
    /// Transform the poems; several names are applied in order
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    transform: Vec<String>,
    /// Have the netstring service at ADDR transform the poems
    #[arg(long, value_name = "ADDR", requires = "transform",
          value_parser = connect_addr(TRANSFORM_PORT))]
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
    let _a_file_too_large_is_an_error = signals::outlive_file_limit();
    let progress = Progress::new(output.quiet);

    let name = args.output_name();
    let target = Target::of(args.output.as_deref());
    let target = target.map_err(|error| output_error(name.clone(), &error))?;
    let is_file = matches!(target, Target::File(_));

    let plan = args.plan(pipeline, is_file, &progress, output);
    let (pending_poems, downloads): (Vec<Pending>, Vec<_>) =
        args.addrs.iter().map(|addr| plan.start(addr)).unzip();

    let printing = async {
        let sink = Sink::open(target, name).await?;
        if sink.is_terminal() {
            progress.hide();
        }
        let printer = Printer {
            sink,
            json: args.json,
            progress: progress.clone(),
        };
        printer.print_all(pending_poems).await
    };
    let downloading = async {
        download_all(downloads).await;
        pending::<Infallible>().await // the printer ends the race
    };

    // Signals come first: they are listened to before there is a file to remove.
    let signal = future::or(interrupted(is_file), progress.show());
    let done = rt::race(signal, rt::race(printing, downloading)).await;
    progress.clear();
    match done {
        Ok(signal) => Ok(signals::exit_code(signal)),
        Err(Ok(code)) => Ok(code?),
        Err(Err(never)) => match never {},
    }
}

impl Args {
    /// The output as the user named it.
    fn output_name(&self) -> String {
        let path = self.output.as_ref().filter(|path| path.as_os_str() != "-");
        path.map_or("standard output".into(), |path| path.display().to_string())
    }

    fn timeouts(&self) -> Timeouts {
        let total = self.timeout.unwrap_or(MAX_DURATION);
        self.connecting.timeouts(total)
    }

    fn plan(
        &self,
        pipeline: Option<Pipeline>,
        is_file: bool,
        progress: &Progress,
        output: &Output,
    ) -> Plan {
        Plan {
            timeouts: self.timeouts(),
            ask: self.ask.clone(),
            half_close: self.half_close,
            ends: self.answers.rule(),
            connect_retry: self.answers.connect_retry,
            retry: self.retry,
            pipeline,
            max_poem: self.max_poem.unwrap_or(u64::MAX),
            json: self.json,
            can_take_back: is_file,
            progress: progress.clone(),
            has_notices: !output.quiet,
        }
    }
}

/// Runs these downloads, as many at once as there are descriptors for. They start in
/// order: the one that the printer waits for is always under way or over.
///
/// All run in this task: a second thread takes longer to start than a small poem takes
/// to come.
async fn download_all(downloads: Vec<impl Future<Output = ()>>) {
    let fds = FdBudget {
        fixed: 2,      // the output, and what is written beside it
        per_client: 1, // a look-up, or a second address of the server
    };
    let at_once = fds.max_clients(0, NonZeroUsize::MIN) as usize;

    let downloads = stream::iter(downloads).buffer_unordered(at_once);
    downloads.for_each(|()| future::ready(())).await;
}

/// Waits for a signal, if there is an incomplete file that must be removed. Otherwise a
/// signal does what it does by default.
async fn interrupted(is_file: bool) -> Signal {
    if !is_file {
        return pending().await;
    }
    signals::next(signals::not_ignored()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    #[test]
    fn a_poem_that_flows_is_fetched_for_as_long_as_it_takes() {
        let timeouts = |args: &[&str]| {
            let command = <Args as clap::Args>::augment_args(Command::new("fetch"));
            let matches = command.try_get_matches_from(args).expect("it is correct");
            let args = Args::from_arg_matches(&matches).expect("it is correct");
            args.timeouts()
        };

        let default = timeouts(&["fetch"]);
        assert_eq!(default.total, MAX_DURATION);
        assert_eq!(default.idle, Duration::from_secs(30));
        let limited = timeouts(&["fetch", "--timeout", "5s"]);
        assert_eq!(limited.total, Duration::from_secs(5));
    }
}
