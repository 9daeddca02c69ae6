//! The groups of flags that several commands share.

use super::admitting::Admitting;
use super::values::{duration, limit, number, positive_limit};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use poetry::client::Timeouts;
use poetry::observe::{Class, Selection};
use std::num::NonZeroU64;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

/// What is printed beside the poems. Every command has these.
#[derive(Debug, Clone, Args)]
pub(super) struct Output {
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log every connection
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// When to use colours on stderr
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto"
    )]
    pub color: ColorWhen,
    /// Format of the log on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Even into a pipe
    Always,
    /// Not at all
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per request and per event, in the terms of RFC 9211
    Json,
}

/// The limits of every listening command.
#[derive(Debug, Clone, Args)]
pub(super) struct Listening {
    /// Clients served at once; more wait in the kernel's backlog
    #[arg(long, value_name = "N", default_value = "10000", value_parser = number(1u64))]
    pub max_clients: u64,
    /// Threads that serve clients [default: the cores there are, at most 8]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// How long to wait for a client to send its request, or to take more of its answer
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive_limit)]
    pub client_timeout: Duration,
    /// How long open connections may take to finish after SIGTERM, SIGINT or a closed
    /// terminal
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = limit)]
    pub drain_timeout: Duration,
    #[command(flatten)]
    pub admitting: Admitting,
    #[command(flatten)]
    pub requests: LoggedRequests,
}

/// Which requests are logged, where each has a line of its own: with `--log-format
/// json`, or `-v`.
#[derive(Debug, Clone, Args)]
pub(super) struct LoggedRequests {
    /// Log only requests of these classes; needs -v or --log-format json
    #[arg(long, value_name = "CLASS", value_delimiter = ',', value_parser = class())]
    log_only: Vec<Class>,
    /// Log requests whose client waited longer for its first byte, whatever their
    /// class; without --log-only, no others
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    log_slow: Option<Duration>,
    /// Log one of N answers that needed no fetch: hits, stale and own ones
    #[arg(long, value_name = "N", value_parser = number(1u64))]
    log_sample: Option<u64>,
}

impl LoggedRequests {
    /// The same, for the log.
    pub fn selection(&self) -> Selection {
        let classes = self.log_only.iter().copied();
        Selection {
            classes: (!self.log_only.is_empty()).then(|| classes.collect()),
            slow: self.log_slow,
            sample: self.log_sample.and_then(NonZeroU64::new),
        }
    }

    /// What makes no sense with these flags.
    pub fn oddity(&self, output: &Output) -> Option<&'static str> {
        let is_given = self.selection() != Selection::default();
        let is_folded = output.log_format == LogFormat::Text && !output.verbose;
        if is_given && is_folded {
            return Some("--log-only, --log-slow and --log-sample need -v or --log-format json");
        }

        let is_useless = self.selection().samples_nothing();
        is_useless.then_some("--log-sample: no answer is logged that it could leave out")
    }
}

/// A class by its word.
fn class() -> impl TypedValueParser<Value = Class> {
    let words = PossibleValuesParser::new(Class::ALL.map(Class::word));
    words.map(|word| Class::named(&word).expect("clap takes no other words"))
}

/// The most threads by default. Most of the work is the kernel's, and eight threads
/// serve more than a network of 10 Gbit/s brings.
const THREADS_BY_DEFAULT: usize = 8;

/// The most threads. Each has a socket for each address, and memory of its own.
const THREADS_MAX: usize = 256;

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = number(1usize)(text)?;
    if threads > THREADS_MAX {
        return Err(format!("too large; wanted {THREADS_MAX} or less"));
    }
    NonZeroUsize::new(threads).ok_or_else(|| "must be greater than zero".into())
}

impl Listening {
    /// How many threads serve clients.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(|| {
            let cores = available_parallelism().map_or(1, NonZeroUsize::get);
            let threads = NonZeroUsize::new(cores.min(THREADS_BY_DEFAULT));
            threads.unwrap_or(NonZeroUsize::MIN)
        })
    }

    /// Serves with one thread if nothing else is asked for: then clients are served in
    /// the order in which they connect.
    pub fn in_order(&mut self) {
        self.threads.get_or_insert(NonZeroUsize::MIN);
    }
}

/// The time limits of every command that connects to a server.
#[derive(Debug, Clone, Args)]
pub(super) struct Connecting {
    /// How long to wait for a name to resolve, and again for a connection
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_limit)]
    pub connect_timeout: Duration,
    /// How long a server may send nothing
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_limit)]
    pub idle_timeout: Duration,
}

impl Connecting {
    /// These limits, and `total` for the whole.
    pub fn timeouts(&self, total: Duration) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout,
            idle: self.idle_timeout,
            total,
        }
    }
}
