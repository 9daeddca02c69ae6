//! `poetry proxy --live`: its options, and which others can be used with it.

use super::source::{Source, descriptors, refuse_loop, upstream};
use super::{Args, ProxyProtocol};
use crate::cmd::admin::about;
use crate::cmd::failure::Failure;
use crate::cmd::flags::Output;
use crate::cmd::service::{Service, listen};
use crate::cmd::sockets::{FdBudget, Sockets};
use crate::cmd::values::{MAX_DURATION, number, size};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, ValueEnum};
use poetry::addr::Addr;
use poetry::handler::live::{Live, LiveSettings};
use poetry::live::{BACKLOG_MIN, FeedLimits, Slow};
use poetry::protocol::Protocol;

/// The options that work with --live. All others of the proxy are about texts that end,
/// or about a cache.
const WITH_LIVE: [&str; 31] = [
    "admin",
    "admin_host",
    "admin_mode",
    "admin_token",
    "allow",
    "backlog",
    "client_rate",
    "client_timeout",
    "color",
    "connect_timeout",
    "deny",
    "drain_timeout",
    "fetch_timeout",
    "help",
    "idle_timeout",
    "listen",
    "live",
    "log_format",
    "log_only",
    "log_sample",
    "log_slow",
    "max_clients",
    "max_per_address",
    "protocol",
    "proxy_protocol",
    "quiet",
    "replay",
    "slow",
    "threads",
    "upstreams",
    "verbose",
];

/// Connections to the upstream.
const CONNECTIONS: u64 = 1;

/// The options of a feed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Feeding {
    /// Pass on lines that never end (NMEA, ADS-B, logs) from a single connection; a
    /// client begins with the next line; no limit on time or silence, unless
    /// --fetch-timeout or --idle-timeout is given
    #[arg(long)]
    pub live: bool,
    /// How far a client of --live may be behind, and the longest line; the last lines
    /// are held once for all clients
    #[arg(long, value_name = "SIZE", default_value = "64KiB", requires = "live",
          value_parser = backlog)]
    backlog: u64,
    /// Send a new client of --live the last N lines first, as far as the backlog holds
    /// them
    #[arg(long, value_name = "N", default_value = "0", requires = "live",
          value_parser = number(0u64))]
    replay: u64,
    /// What happens to a client of --live that is further behind
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "drop",
        requires = "live"
    )]
    slow: SlowClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SlowClient {
    /// It loses whole lines; the log says how many
    Drop,
    /// It is reset
    Reset,
}

fn backlog(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < BACKLOG_MIN {
        return Err("too small; wanted 1KiB or more, like 64KiB".into());
    }
    Ok(bytes)
}

impl Feeding {
    fn limits(&self) -> FeedLimits {
        FeedLimits {
            backlog: self.backlog,
            replay: self.replay,
            slow: match self.slow {
                SlowClient::Drop => Slow::Drop,
                SlowClient::Reset => Slow::Reset,
            },
        }
    }
}

/// The command line, in which --live conflicts with all that makes no sense beside it.
pub(in crate::cmd) fn arrange(command: Command) -> Command {
    command.mut_subcommand("proxy", |proxy| {
        proxy.mut_args(|option| {
            if WITH_LIVE.contains(&option.get_id().as_str()) {
                option
            } else {
                option.conflicts_with("live")
            }
        })
    })
}

/// What can't be used with --live, by its value.
pub(super) fn clash(args: &Args) -> Option<([&'static str; 2], &'static str)> {
    if !args.feeding.live {
        return None;
    }
    if args.protocol != ProxyProtocol::Poem {
        let text = "--live can only be used with --protocol poem: a feed is not asked for";
        return Some((["live", "protocol"], text));
    }
    if args.upstreams.contains(&Source::Builtin) {
        let text = "--live cannot be used with builtin, whose poems end";
        return Some((["live", "upstreams"], text));
    }
    None
}

/// A feed has no limits of time but those that were given.
pub(super) fn lift_limits(args: &mut Args, found: &ArgMatches) {
    if !args.feeding.live {
        return;
    }
    let is_default = |option| found.value_source(option) == Some(ValueSource::DefaultValue);
    if is_default("idle_timeout") {
        args.connecting.idle_timeout = MAX_DURATION;
    }
    if is_default("fetch_timeout") {
        args.fetch_timeout = MAX_DURATION;
    }
}

/// Passes the feed on until a signal.
pub(super) async fn run(args: Args, output: &Output) -> Result<u8, Failure> {
    let upstream = upstream(&args.upstreams, CONNECTIONS as usize);
    let admin = args.admin.addrs(&args.listen)?;
    let mut sockets = Sockets::open(&args.listen, &admin).await?;
    let asked: Vec<&Addr> = upstream.addrs().collect();
    refuse_loop(&asked, &sockets.listeners).await?;

    let service = Service {
        admin: args.admin.take(&mut sockets)?,
        admission: args.listening.admitting.settings(None)?,
        about: about("proxy", Protocol::Poem),
        sockets,
        listening: &args.listening,
        output,
        verb: format!("Proxying the feed of {upstream}"),
        fds: FdBudget {
            fixed: descriptors(&args.upstreams, CONNECTIONS),
            per_client: 0,
        },
    };
    let settings = LiveSettings {
        timeouts: args.connecting.timeouts(args.fetch_timeout),
        feed: args.feeding.limits(),
        upstream,
    };
    let code = listen(service, |shared| {
        let (observer, stats) = (shared.observer.clone(), shared.stats.clone());
        let live = Live::start(settings, observer, stats);
        let wire = live.wire();
        (live, wire)
    });
    Ok(code.await?)
}
