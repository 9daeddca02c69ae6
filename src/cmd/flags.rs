//! The groups of flags that several commands share.

use super::values::{duration, number, positive_duration};
use clap::{Args, ValueEnum};
use poetry::client::Timeouts;
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
    /// One JSON object per request, in the terms of RFC 9211
    Json,
}

/// The limits of every listening command.
#[derive(Debug, Clone, Args)]
pub(super) struct Listening {
    /// Clients served at once; more wait in the kernel's backlog
    #[arg(long, value_name = "N", default_value = "10000", value_parser = number(1u64))]
    pub max_clients: u64,
    /// How long to wait for a client to send its request, or to take more of its answer
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive_duration)]
    pub client_timeout: Duration,
    /// How long open connections may take to finish after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub drain_timeout: Duration,
}

/// The time limits of every command that connects to a server.
#[derive(Debug, Clone, Args)]
pub(super) struct Connecting {
    /// How long to wait for a name to resolve, and again for a connection
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    pub connect_timeout: Duration,
    /// How long a server may send nothing
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
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
