//! `poetry proxy`.

use crate::cmd::report::Log;
use crate::cmd::{
    Connecting, Descriptors, Listening, Output, Service, connect_addr, duration, listen,
    listen_addr, number, open, positive_duration, size, workshop,
};
use clap::ValueEnum;
use poetry::addr::Addr;
use poetry::cache::Policy;
use poetry::client::Timeouts;
use poetry::error::Error;
use poetry::handler::proxy::{PATIENCE, Proxy, ProxySettings, Rejects};
use poetry::net::{self, Listener};
use poetry::protocol::Protocol;
use poetry::transform::Registry;
use poetry::upstream::Upstream;
use regex::bytes::Regex;
use std::process::ExitCode;
use std::time::Duration;

/// Serve another server's poems from a cache that fetches each at most once
///
/// The first client causes a fetch; all who come while it lasts join it, get what has come so far at once and the rest
/// as it comes. A complete poem is kept for the time to live. A failed fetch fails for all who wait, and is forgotten.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The servers to fetch from, tried in order when one can't be reached; `builtin` recites the built-in poems
    #[arg(value_name = "UPSTREAM", default_value = "127.0.0.1:10001", value_parser = upstream)]
    upstreams: Vec<Source>,
    /// Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one
    #[arg(short, long, visible_alias = "port", value_name = "ADDR", default_value = "127.0.0.1:10000",
          value_parser = listen_addr)]
    listen: Vec<Addr>,
    /// What clients and the upstream speak; with line and netstring, the request is the key and is passed on
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value = "poem")]
    protocol: ProxyProtocol,
    /// How long a poem is kept, from the end of its fetch; 0 keeps nothing and still fetches once for all who wait
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = duration)]
    ttl: Duration,
    /// How long after its ttl a poem may still be served while one refresh runs, and while refreshes fail
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    grace: Duration,
    /// How long a failure is remembered and answered at once; 0 fetches afresh for the next request
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    fail_ttl: Duration,
    /// Send nothing until the poem is complete; a poem over --max-poem is then a failure
    #[arg(long)]
    whole: bool,
    /// Pass on but never keep a poem that matches; it counts as a failure for --fail-ttl
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    reject: Option<Regex>,
    /// Pass on but never keep a poem of fewer bytes; it counts as a failure for --fail-ttl
    #[arg(long, value_name = "N", default_value = "0", value_parser = number(0u64))]
    min_bytes: u64,
    /// The longest poem that is kept; a longer one passes through, at the pace of its fastest reader
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_poem: u64,
    /// The most that is held, kept poems and poems in flight together
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    capacity: u64,
    /// How many connections to the upstream there may be at once; further fetches wait for their turn
    #[arg(long, value_name = "N", default_value = "8", value_parser = number(1u32))]
    upstream_conns: u32,
    /// How long a whole fetch may take, with the wait for its turn
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = positive_duration)]
    fetch_timeout: Duration,
    /// Transform poems before they are kept; several names are applied in order
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    transform: Vec<String>,
    /// Have the transformation done by the netstring service at this address
    #[arg(long, value_name = "ADDR", requires = "transform", value_parser = connect_addr)]
    via: Option<Addr>,
    /// What clients get when the transformation fails; an original is sent on and not kept
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "fail",
        requires = "transform"
    )]
    on_transform_failure: OnFailure,
    #[command(flatten)]
    connecting: Connecting,
    #[command(flatten)]
    listening: Listening,
}

fn pattern(text: &str) -> Result<Regex, String> {
    const WANTED: &str = "wanted a regular expression like '(?i)rate exceeded'";
    if text.is_empty() {
        return Err(format!(
            "it matches every poem, so that none would be kept; {WANTED}"
        ));
    }
    Regex::new(text).map_err(|e| {
        let text = e.to_string();
        let why = text.lines().last().unwrap_or_default(); // above it is the pattern again, and where in it
        format!("{}; {WANTED}", why.strip_prefix("error: ").unwrap_or(why))
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Builtin,
    Server(Addr),
}

fn upstream(text: &str) -> Result<Source, String> {
    match text {
        "builtin" => Ok(Source::Builtin),
        text => match listen_addr(text) {
            Ok(_) => connect_addr(text).map(Source::Server), // which port is wanted is said there
            Err(e) => Err(format!("{e}, or builtin")),
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProxyProtocol {
    /// The server speaks first, and only it
    Poem,
    /// A request line first, as in finger, whois and gopher
    Line,
    /// A netstring each way: a transformation service whose work an external server does
    Netstring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    /// A reset
    Fail,
    /// The poem as it was fetched
    Original,
}

/// Two options that can't be used together because of their values, which clap does not see; and how to say so.
pub fn clash(args: &Args) -> Option<([&'static str; 2], &'static str)> {
    let built_in = args.upstreams.contains(&Source::Builtin);
    match args.protocol {
        ProxyProtocol::Netstring if !args.transform.is_empty() => Some((
            ["transform", "protocol"],
            "--transform cannot be used with --protocol netstring",
        )),
        _ if built_in && args.upstreams.len() > 1 => Some((
            ["upstreams", "upstreams"],
            "builtin cannot be used with other upstreams",
        )),
        ProxyProtocol::Line | ProxyProtocol::Netstring if built_in => Some((
            ["upstreams", "protocol"],
            "builtin can only be used with --protocol poem",
        )),
        _ => None,
    }
}

/// Proxies until a signal.
pub async fn run(args: Args, output: &Output) -> Result<ExitCode, Error> {
    if let Some((_, text)) = clash(&args) {
        crate::cmd::usage_error("proxy", clap::error::ErrorKind::ArgumentConflict, text);
    }
    let upstream = servers(&args.upstreams).map_or_else(Upstream::built_in, Upstream::Servers);
    let workshop = workshop(
        "proxy",
        &args.transform,
        args.via.as_ref(),
        &Registry::default(),
    );
    let listeners = open(&args.listen).await?;
    refuse_circles(&args, &upstream, &listeners).await;
    let doing = format!("Proxying {upstream}");
    let settings = ProxySettings {
        protocol: match args.protocol {
            ProxyProtocol::Poem => Protocol::Poem,
            ProxyProtocol::Line => Protocol::Line,
            ProxyProtocol::Netstring => Protocol::Netstring,
        },
        upstream,
        timeouts: Timeouts {
            connect: args.connecting.connect_timeout,
            idle: args.connecting.idle_timeout,
            total: args.fetch_timeout,
        },
        policy: Policy {
            ttl: args.ttl,
            grace: args.grace,
            fail_ttl: args.fail_ttl,
            capacity: args.capacity,
        },
        max_poem: args.max_poem,
        whole: args.whole,
        rejects: Rejects {
            pattern: args.reject,
            min_bytes: args.min_bytes,
        },
        upstream_conns: args.upstream_conns as usize,
        patience: PATIENCE,
        workshop,
        original_on_failure: args.on_transform_failure == OnFailure::Original,
    };
    let log = Log::start(output);
    let needs = Descriptors {
        fixed: args.upstream_conns.into(),
        per_client: 0,
    };
    listen(
        Service {
            listeners,
            listening: &args.listening,
            log,
            doing,
            needs,
        },
        |report, stats| Ok(Proxy::new(settings, report, stats)),
    )
    .await
}

/// A proxy that asks itself would wait for itself. Longer circles can't be seen; their fetches end by --idle-timeout.
async fn refuse_circles(args: &Args, upstream: &Upstream, listeners: &[Listener]) {
    let servers = match upstream {
        Upstream::Servers(servers) => &servers[..],
        Upstream::BuiltIn { .. } => &[],
    };
    let servers = servers.iter().chain(&args.via);
    for (server, own) in servers.flat_map(|server| listeners.iter().map(move |own| (server, own))) {
        if net::leads_to(server, own.addr()).await {
            let text = format!("'{server}' is where this proxy listens: it would wait for itself");
            crate::cmd::usage_error("proxy", clap::error::ErrorKind::ArgumentConflict, text);
        }
    }
}

/// The servers, unless the built-in poems are among the sources.
fn servers(sources: &[Source]) -> Option<Vec<Addr>> {
    let server = |source: &Source| match source {
        Source::Server(addr) => Some(addr.clone()),
        Source::Builtin => None,
    };
    sources.iter().map(server).collect()
}
