//! `poetry proxy`.

mod freshness;
mod live;
mod routed;
mod routes;
mod source;

use super::addrs::{PROXY_PORT, TRANSFORM_PORT, connect_addr, listen_addr};
use super::admin::{Administration, about};
use super::admitting::{ONLY_LINE, Refusing};
use super::answers::Answers;
use super::failure::Failure;
use super::flags::{Connecting, Listening, Output};
use super::log;
use super::service::{Service, listen};
use super::sockets::{FdBudget, Sockets};
use super::store::{StoreTerms, Storing};
use super::transforms::pipeline;
use super::values::{duration, number, percent, positive_limit, size};
use clap::builder::ArgPredicate;
use clap::{ArgMatches, ValueEnum};
use freshness::Freshness;
pub(super) use live::arrange;
use poetry::addr::{Addr, ListenAddr};
use poetry::admin::status::About;
use poetry::cache::KeepTimes;
use poetry::handler::proxy::{
    KeyFold, PATIENCE, Proxy, ProxySettings, Rejects, RouteSet, RouteSettings, Routing,
    TargetSettings, TtlRules,
};
use poetry::protocol::Protocol;
use poetry::rate::{BadRate, Rate};
use poetry::transform::{Pipeline, Registry};
use poetry::upstream::{AskLimits, ExecCommand, Upstream};
use regex::bytes::Regex;
use routed::{addresses, verb};
use routes::Routes;
pub(super) use source::EXEC;
use source::{Source, refuse_loop, source};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  poetry proxy builtin                          a first try, without a server
  poetry proxy --ttl 10m poems.example:10001    keep a poem for ten minutes
  poetry proxy --grace 1d a:10001 b:10001       two servers, and a day without them
  poetry proxy --transform shout 10001          keep the poem in capitals
  poetry proxy --live -l 30003 192.0.2.7:30003  one connection, any number of readers
  poetry proxy --protocol line -l 4343 --upstream-rate 30/min whois:43";

/// Serve another server's poems from a cache; clients share each fetch
///
/// The first client to ask for a poem starts a fetch. Clients that ask while it runs
/// join it: they get at once what has arrived so far, and the rest as it arrives. A
/// complete poem is kept for its time to live. A failed fetch fails for all clients
/// that wait for it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Servers to fetch from; the next is asked if one fails before anything is passed
    /// on; `exec:COMMAND ARG...` runs a program instead, without a shell; `builtin`
    /// sends the built-in poems slowly
    #[arg(value_name = "UPSTREAM", default_value = "127.0.0.1:10001", value_parser = source,
          default_value_ifs = [NONE_WITH_ROUTE, NONE_WITH_ROUTES])]
    upstreams: Vec<Source>,
    /// Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one
    #[arg(short, long, visible_alias = "port", value_name = "ADDR",
          default_value = "127.0.0.1:10000", value_parser = listen_addr(PROXY_PORT))]
    listen: Vec<ListenAddr>,
    /// The protocol of clients and upstream; with line and netstring, the request is
    /// passed on, and each request has its own cached answer
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value = "poem")]
    protocol: ProxyProtocol,
    /// Spellings of a request that share one poem, with --protocol line: great and
    /// small ASCII letters (case), more and fewer spaces (space)
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    key_fold: Vec<Fold>,
    /// How long to keep a poem after its fetch has ended; with 0 nothing is kept, but
    /// clients that wait still share one fetch
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = duration)]
    ttl: Duration,
    /// Another ttl for poems that match a pattern, such as '(?i)no match=1h'; the first
    /// that matches decides
    #[arg(long, value_name = "REGEX=DURATION", value_parser = ttl_rule)]
    ttl_for: Vec<(Regex, Duration)>,
    /// Take up to so much of each ttl off by chance, so that poems that were fetched
    /// together are not refreshed together
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    ttl_jitter: f64,
    /// How long a poem may be served after its ttl, while a refresh runs or refreshes
    /// fail
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    grace: Duration,
    #[command(flatten)]
    freshness: Freshness,
    /// How long to keep a failure and answer with it at once; with 0 the next request
    /// starts a new fetch
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    fail_ttl: Duration,
    /// Send nothing until the poem is complete; a poem longer than --max-poem is then a
    /// failure
    #[arg(long)]
    whole: bool,
    /// Pass on but don't keep a poem that matches; it counts as a failure for
    /// --fail-ttl
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    reject: Option<Regex>,
    /// Pass on but don't keep a poem of fewer bytes; it counts as a failure for
    /// --fail-ttl
    #[arg(long, value_name = "N", default_value = "0", value_parser = number(0u64))]
    min_bytes: u64,
    /// Longest poem to keep; a longer one is passed on at the pace of its
    /// readers
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_poem: u64,
    /// Memory for poems, both kept and being fetched
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    capacity: u64,
    /// Connections to the upstream at once; further fetches wait for one to end
    #[arg(long, value_name = "N", default_value = "8", value_parser = number(1u32))]
    upstream_conns: u32,
    /// Fetches that may wait for a connection; a request beyond that fails at once
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number(0u32))]
    upstream_queue: u32,
    /// How often each upstream is asked at most, such as 30/min, 1/s or
    /// 1000/d,burst=5; further fetches wait, and stale poems are served meanwhile
    #[arg(long, value_name = "RATE", value_parser = rate)]
    upstream_rate: Option<Rate>,
    /// How long an upstream is not asked after an answer that --reject matches; with
    /// --upstream-rate 1m by default, doubled up to 15m; 0 for not at all
    #[arg(long, value_name = "DURATION", requires = "reject", value_parser = duration)]
    reject_pause: Option<Duration>,
    /// Close the sending side after each request, for upstreams that read to its end
    /// before they answer; others take that for a hang-up
    #[arg(long)]
    half_close: bool,
    #[command(flatten)]
    answers: Answers,
    /// How long a whole fetch may take, from its connection on
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = positive_limit)]
    fetch_timeout: Duration,
    /// Transform poems before they are kept; several names are applied in order
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    transform: Vec<String>,
    /// Have the netstring service at ADDR transform the poems
    #[arg(long, value_name = "ADDR", requires = "transform",
          value_parser = connect_addr(TRANSFORM_PORT))]
    via: Option<Addr>,
    /// What clients get if the transformation fails; an original is not kept;
    /// needs --transform
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "fail",
        requires = "transform"
    )]
    on_transform_failure: OnFailure,
    #[command(flatten)]
    feeding: live::Feeding,
    #[command(flatten)]
    routes: Routes,
    #[command(flatten)]
    storing: Storing,
    #[command(flatten)]
    connecting: Connecting,
    #[command(flatten)]
    refusing: Refusing,
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    admin: Administration,
}

/// With routes there is no default for what none of them takes.
type NoDefault = (&'static str, ArgPredicate, Option<&'static str>);
const NONE_WITH_ROUTE: NoDefault = ("route", ArgPredicate::IsPresent, None);
const NONE_WITH_ROUTES: NoDefault = ("routes", ArgPredicate::IsPresent, None);

fn pattern(text: &str) -> Result<Regex, String> {
    const WANTED: &str = "wanted a regular expression like '(?i)rate exceeded'";
    if text.is_empty() {
        return Err(format!(
            "it matches every poem, so none would be kept; {WANTED}"
        ));
    }

    Regex::new(text).map_err(|error| {
        let error = error.to_string();
        // The lines above the last one repeat the pattern and mark the place.
        let why = error.lines().last().unwrap_or_default();
        format!("{}; {WANTED}", why.strip_prefix("error: ").unwrap_or(why))
    })
}

/// A pattern and a ttl. The last `=` divides them: durations have none.
fn ttl_rule(text: &str) -> Result<(Regex, Duration), String> {
    const WANTED: &str = "wanted REGEX=DURATION, like '(?i)no match=1h'";
    let (regex, ttl) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("no '=' between pattern and ttl; {WANTED}"))?;
    if regex.is_empty() {
        return Err(format!("no pattern; {WANTED}"));
    }
    Ok((pattern(regex)?, duration(ttl)?))
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|error: BadRate| error.to_string())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProxyProtocol {
    /// The client sends nothing and is sent a poem
    Poem,
    /// The client sends one line first, as in finger, whois and gopher
    Line,
    /// The client sends a netstring and is sent one: a transformation service
    Netstring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fold {
    /// example.net and EXAMPLE.NET
    Case,
    /// "a b" and " a  b "
    Space,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    /// The connection is reset
    Fail,
    /// The poem as it was fetched
    Original,
}

/// Two options with values that cannot be used together. clap does not know of these.
pub(super) struct Clash {
    /// The ids of the options.
    pub options: [&'static str; 2],
    text: &'static str,
}

/// The clash in these arguments, if there is one.
pub(super) fn clash(args: &Args) -> Option<Clash> {
    if let Some((options, text)) = live::clash(args) {
        return Some(Clash { options, text });
    }
    let is_builtin = args.upstreams.contains(&Source::Builtin);
    let commands = || args.upstreams.iter().filter_map(Source::command);
    let (options, text) = match args.protocol {
        ProxyProtocol::Netstring if !args.transform.is_empty() => (
            ["transform", "protocol"],
            "--transform cannot be used with --protocol netstring",
        ),
        ProxyProtocol::Poem | ProxyProtocol::Netstring if !args.key_fold.is_empty() => (
            ["key_fold", "protocol"],
            "--key-fold can only be used with --protocol line",
        ),
        ProxyProtocol::Poem | ProxyProtocol::Netstring if args.routes.are_given() => (
            [args.routes.option(), "protocol"],
            "routes can only be used with --protocol line: there is no request to go by",
        ),
        ProxyProtocol::Poem | ProxyProtocol::Netstring if args.refusing.is_given() => {
            (["refusal", "protocol"], ONLY_LINE)
        }
        ProxyProtocol::Netstring if commands().next().is_some() => (
            ["upstreams", "protocol"],
            "exec: cannot be used with --protocol netstring; see poetry transform --exec",
        ),
        ProxyProtocol::Poem if commands().any(ExecCommand::takes_request_as_word) => (
            ["upstreams", "protocol"],
            "the word {} can only be used with --protocol line: there is no request",
        ),
        ProxyProtocol::Netstring if args.answers.end_marker.is_some() => (
            ["end_marker", "protocol"],
            "--end-marker cannot be used with --protocol netstring, which frames its answers",
        ),
        ProxyProtocol::Netstring if args.answers.allow_empty => (
            ["allow_empty", "protocol"],
            "--allow-empty cannot be used with --protocol netstring, which frames its answers",
        ),
        _ if is_builtin && args.answers.end_marker.is_some() => (
            ["end_marker", "upstreams"],
            "--end-marker cannot be used with builtin",
        ),
        ProxyProtocol::Poem if args.half_close => (
            ["half_close", "protocol"],
            "--half-close cannot be used with --protocol poem, which has no request",
        ),
        _ if is_builtin && args.upstreams.len() > 1 => (
            ["upstreams", "upstreams"],
            "builtin cannot be used with other upstreams",
        ),
        ProxyProtocol::Line | ProxyProtocol::Netstring if is_builtin => (
            ["upstreams", "protocol"],
            "builtin can only be used with --protocol poem",
        ),
        _ if args.freshness.waits_in_vain() => (
            ["stale_after", "serve_stale"],
            "--stale-after can only be used with --serve-stale on-error",
        ),
        _ => return None,
    };
    Some(Clash { options, text })
}

impl Args {
    /// Settles what is the default only beside other options.
    pub(super) fn settle(&mut self, found: &ArgMatches) {
        live::lift_limits(self, found);
    }
}

/// Values that can be used together, but make no sense.
fn oddities(args: &Args) -> Vec<String> {
    let mut oddities = Vec::new();
    let mut note = |is_odd: bool, text: &str| {
        if is_odd {
            oddities.push(text.to_string());
        }
    };

    note(
        args.max_poem > args.capacity,
        "--max-poem is over --capacity: a poem that long cannot be kept",
    );
    note(
        args.min_bytes > args.max_poem,
        "--min-bytes is over --max-poem: no poem can be kept",
    );
    note(
        args.fetch_timeout < args.connecting.connect_timeout,
        "--connect-timeout is over --fetch-timeout: the second ends every fetch before it",
    );
    let odd = args.freshness.oddities(args.ttl, args.grace);
    oddities.extend(odd.map(String::from));
    oddities.extend(args.storing.oddity(args.ttl).map(String::from));
    oddities
}

/// Proxies until a signal.
pub(super) async fn run(args: Args, output: &Output) -> Result<u8, Failure> {
    if let Some(clash) = clash(&args) {
        return Err(Failure::conflict(clash.text));
    }
    if !output.quiet {
        for text in oddities(&args) {
            log::warning(&text);
        }
    }
    if args.feeding.live {
        return live::run(args, output).await;
    }
    let routes = args.load_routes(output)?;
    if args.routes.check {
        args.check_routes(routes.as_ref())?;
        return Ok(0);
    }
    let upstream = args.rest(routes.as_ref());
    let pipeline = pipeline(&args.transform, args.via.as_ref(), &Registry::default())?;

    let refusal = args.refusing.text(args.protocol.into())?;
    let admission = args.listening.admitting.settings(refusal)?;
    let warm = args.freshness.warm(args.protocol.into())?;

    // First: a second process of one store must not take over a socket's path.
    let mut store = args.storing.open(&store_terms(&args, routes.as_ref()))?;
    let store_fds = store.as_ref().map_or(0, |store| store.fds);

    let admin = args.admin.addrs(&args.listen)?;
    let mut sockets = Sockets::open(&args.listen, &admin).await?;
    let routed = routes.iter().flat_map(addresses);
    let asked: Vec<&Addr> = upstream.addrs().chain(routed).chain(&args.via).collect();
    refuse_loop(&asked, &sockets.listeners).await?;

    let service = Service {
        admin: args.admin.take(&mut sockets)?,
        about: About {
            ttl: Some(args.ttl),
            grace: Some(args.grace),
            ..about("proxy", args.protocol.into())
        },
        sockets,
        listening: &args.listening,
        admission,
        output,
        verb: verb(&upstream, routes.as_ref()),
        fds: FdBudget {
            fixed: args.upstream_fds(routes.as_ref()) + store_fds,
            per_client: 0,
        },
    };
    let ttls = TtlRules::new(&args.ttl_for, args.ttl_jitter)
        .map_err(|_| Failure::value("ttl_for", "the patterns are too large together"))?;
    let routing = args.routing(routes, output);
    let settings = ProxySettings {
        warm,
        ..settings(&args, upstream, pipeline, ttls, routing)
    };
    let mut tier = None;
    let code = listen(service, |shared| {
        let (observer, stats) = (shared.observer.clone(), shared.stats.clone());
        tier = store.take().map(|store| {
            let tier = (store.start)(observer.clone());
            (tier, store.close_limit)
        });
        let behind = tier.as_ref().map(|(tier, _)| tier.clone());
        let proxy = Proxy::with_tier(settings, behind, observer, stats);
        let wire = proxy.wire();
        (proxy, wire)
    });

    let code = code.await;
    if let Some((tier, limit)) = tier {
        tier.close(limit).await;
        log::flush();
    }
    Ok(code?)
}

fn store_terms(args: &Args, routes: Option<&RouteSet>) -> StoreTerms {
    const FRAMING: u64 = 22; // of a netstring: its length, a colon and a comma

    let of_routes = || routes.iter().flat_map(|set| set.routes());
    let own = args.ttl_for.iter().map(|(_, ttl)| *ttl);
    let own = own.chain(of_routes().filter_map(|route| route.ttl));
    let graces = of_routes().filter_map(|route: &RouteSettings| route.grace);
    let locals = args.upstreams.iter().filter(|upstream| upstream.is_local());
    let routed = routes.into_iter().flat_map(addresses);
    let routed = routed.filter(|addr| addr.is_local()).map(Addr::to_string);
    StoreTerms {
        ttl: args.ttl,
        longest_ttl: own.fold(args.ttl, Duration::max),
        grace: graces.fold(args.grace, Duration::max),
        longest: args.max_poem.saturating_add(FRAMING),
        local_upstream: locals.map(Source::to_string).chain(routed).next(),
    }
}

fn limits(args: &Args) -> AskLimits {
    AskLimits::of(args.upstream_rate, args.reject_pause)
}

fn fold(args: &Args) -> KeyFold {
    KeyFold {
        case: args.key_fold.contains(&Fold::Case),
        space: args.key_fold.contains(&Fold::Space),
    }
}

fn settings(
    args: &Args,
    upstream: Upstream,
    pipeline: Option<Pipeline>,
    ttls: TtlRules,
    routing: Option<Routing>,
) -> ProxySettings {
    ProxySettings {
        protocol: args.protocol.into(),
        routing,
        target: TargetSettings {
            upstream,
            send: None,
            route: None,
            times: KeepTimes {
                ttl: args.ttl,
                grace: args.grace,
                fail_ttl: args.fail_ttl,
            },
            ttls,
            rejects: Rejects {
                pattern: args.reject.clone(),
                min_bytes: args.min_bytes,
            },
            conns: args.upstream_conns as usize,
            ends: args.answers.rule(),
            connect_retry: args.answers.connect_retry,
        },
        timeouts: args.connecting.timeouts(args.fetch_timeout),
        half_close: args.half_close,
        capacity: args.capacity,
        serve_stale: args.freshness.serve_stale(),
        refresh_ahead: args.freshness.refresh_ahead,
        warm: None,
        max_poem: args.max_poem,
        whole: args.whole,
        upstream_queue: args.upstream_queue as usize,
        fold: fold(args),
        patience: PATIENCE,
        pipeline,
        original_on_failure: args.on_transform_failure == OnFailure::Original,
    }
}

impl From<ProxyProtocol> for Protocol {
    fn from(protocol: ProxyProtocol) -> Protocol {
        match protocol {
            ProxyProtocol::Poem => Protocol::Poem,
            ProxyProtocol::Line => Protocol::Line,
            ProxyProtocol::Netstring => Protocol::Netstring,
        }
    }
}
