//! The proxy, built as its scenario reads:
//! `proxy(&upstream).ttl(ZERO).grace(HOUR).start()`.

use super::service::{Builder, Service};
use super::{FakeUpstream, HOUR, LONG, wait_for_count};
use poetry::addr::Addr;
use poetry::cache::KeepTimes;
use poetry::client::Timeouts;
use poetry::handler::proxy::{
    KeyFold, Proxy, ProxySettings, Rejects, RouteSet, RouteSettings, Routing, ServeStale,
    TargetSettings, TtlRules, WarmFile,
};
use poetry::observe::{Observer, Silent};
use poetry::protocol::{EndRule, Protocol};
#[cfg(feature = "store")]
use poetry::store::{OpenStore, StoreSettings, system_clock};
use poetry::tier::Tier;
use poetry::transform::{Pipeline, Registry, Transform};
use poetry::upstream::{AskLimits, ExecCommand, Origin, RejectPause, Upstream};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A proxy of `upstream`: it keeps poems for an hour, and never loses patience.
pub fn proxy(upstream: &FakeUpstream) -> Builder<ProxyParts> {
    let timeouts = Timeouts {
        connect: LONG,
        idle: LONG,
        total: LONG,
    };
    let times = KeepTimes {
        ttl: HOUR,
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
    };
    let settings = ProxySettings {
        protocol: Protocol::Poem,
        target: TargetSettings {
            upstream: Upstream::servers(vec![upstream.addr.into()]),
            send: None,
            route: None,
            times,
            ttls: TtlRules::default(),
            rejects: Rejects::default(),
            conns: 8,
            ends: EndRule::default(),
            connect_retry: Duration::ZERO,
        },
        timeouts,
        half_close: false,
        routing: None,
        capacity: 1 << 30,
        serve_stale: ServeStale::Always,
        refresh_ahead: 0.0,
        warm: None,
        max_poem: 16 << 20,
        whole: false,
        upstream_queue: 1000,
        fold: KeyFold::default(),
        patience: LONG,
        pipeline: None,
        original_on_failure: false,
    };

    let observer = Arc::new(Silent);
    let tier = None;
    Builder::new(ProxyParts {
        settings,
        observer,
        tier,
    })
}

pub struct ProxyParts {
    settings: ProxySettings,
    observer: Arc<dyn Observer>,
    tier: Option<Arc<dyn Tier>>,
}

impl Builder<ProxyParts> {
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.of.settings.protocol = protocol;
        self
    }

    pub fn half_close(mut self) -> Self {
        self.of.settings.half_close = true;
        self
    }

    /// What each whole answer ends with, as it is written on the command line.
    pub fn end_marker(mut self, marker: &str) -> Self {
        self.of.settings.target.ends.marker = Some(marker.parse().unwrap());
        self
    }

    /// Takes an answer without a byte for a whole one.
    pub fn allow_empty(mut self) -> Self {
        self.of.settings.target.ends.allow_empty = true;
        self
    }

    /// Asks upstreams that refuse again, for this long.
    pub fn connect_retry(mut self, time: Duration) -> Self {
        self.of.settings.target.connect_retry = time;
        self
    }

    pub fn line(self) -> Self {
        self.protocol(Protocol::Line)
    }

    pub fn netstring(self) -> Self {
        self.protocol(Protocol::Netstring)
    }

    /// Asks these addresses, in this order, instead.
    pub fn upstreams(mut self, addrs: &[SocketAddr]) -> Self {
        let addrs = addrs.iter().map(|addr| (*addr).into());
        self.of.settings.target.upstream = Upstream::servers(addrs.collect());
        self
    }

    /// The same, for addresses as they are written on the command line.
    pub fn upstreams_named(mut self, addrs: &[&str]) -> Self {
        let addrs = addrs.iter().map(|addr| addr.parse().unwrap());
        self.of.settings.target.upstream = Upstream::servers(addrs.collect());
        self
    }

    /// Runs this command instead.
    pub fn command(mut self, command: &str) -> Self {
        let origin = self.exec(command);
        self.of.settings.target.upstream = Upstream::of(vec![origin]);
        self
    }

    /// Runs this command before it asks the upstream.
    pub fn command_before(mut self, command: &str) -> Self {
        let addrs: Vec<Addr> = self.of.settings.target.upstream.addrs().cloned().collect();
        let servers = addrs.into_iter().map(Origin::Server);
        let origins = [self.exec(command)].into_iter().chain(servers);
        self.of.settings.target.upstream = Upstream::of(origins.collect());
        self
    }

    fn exec(&self, command: &str) -> Origin {
        let command: ExecCommand = command.parse().unwrap();
        Origin::Exec(command.at_most(self.of.settings.target.conns))
    }

    /// Asks each upstream at most that often, and pauses after rejected answers.
    pub fn limits(mut self, rate: Option<&str>, pause: RejectPause) -> Self {
        let rate = rate.map(|rate| rate.parse().unwrap());
        let unlimited = Upstream::built_in(); // a stand-in for a moment
        let upstream = std::mem::replace(&mut self.of.settings.target.upstream, unlimited);
        self.of.settings.target.upstream = upstream.limited(AskLimits { rate, pause });
        self
    }

    /// Routes that are not read again.
    pub fn routes(mut self, routes: impl IntoIterator<Item = RouteSettings>) -> Self {
        self.of.settings.routing = Some(Routing {
            set: RouteSet::new(routes.into_iter().collect(), false).unwrap(),
            rate: None,
            reject_pause: None,
            read: None,
        });
        self
    }

    pub fn upstream_conns(mut self, most: usize) -> Self {
        self.of.settings.target.conns = most;
        self
    }

    /// How many fetches may wait for their turn.
    pub fn upstream_queue(mut self, most: usize) -> Self {
        self.of.settings.upstream_queue = most;
        self
    }

    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.of.settings.timeouts.connect = timeout;
        self
    }

    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.of.settings.timeouts.idle = timeout;
        self
    }

    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.of.settings.timeouts.total = timeout;
        self
    }

    pub fn fold(mut self, fold: KeyFold) -> Self {
        self.of.settings.fold = fold;
        self
    }

    /// How long slow readers may delay other fetches.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.of.settings.patience = patience;
        self
    }

    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.of.settings.target.times.ttl = ttl;
        self
    }

    /// A ttl of their own for texts that match, and a part of each taken off by chance.
    pub fn ttl_for(mut self, rules: &[(&str, Duration)], jitter: f64) -> Self {
        let rule =
            |(pattern, ttl): &(&str, Duration)| (regex::bytes::Regex::new(pattern).unwrap(), *ttl);
        let rules: Vec<_> = rules.iter().map(rule).collect();
        self.of.settings.target.ttls = TtlRules::new(&rules, jitter).unwrap();
        self
    }

    pub fn grace(mut self, grace: Duration) -> Self {
        self.of.settings.target.times.grace = grace;
        self
    }

    /// Serves stale texts only where a refresh fails, or takes longer than this.
    pub fn fresh_first(mut self, stale_after: Duration) -> Self {
        self.of.settings.serve_stale = ServeStale::OnError(stale_after);
        self
    }

    /// Refreshes texts that are asked for in this last part of their ttl.
    pub fn refresh_ahead(mut self, part: f64) -> Self {
        self.of.settings.refresh_ahead = part;
        self
    }

    /// Keeps the requests in the file at `path` warm.
    pub fn warm(mut self, path: &Path) -> Self {
        let file = WarmFile::read(path.into(), self.of.settings.protocol);
        self.of.settings.warm = Some(file.unwrap());
        self
    }

    pub fn fail_ttl(mut self, ttl: Duration) -> Self {
        self.of.settings.target.times.fail_ttl = ttl;
        self
    }

    pub fn capacity(mut self, bytes: u64) -> Self {
        self.of.settings.capacity = bytes;
        self
    }

    pub fn max_poem(mut self, bytes: u64) -> Self {
        self.of.settings.max_poem = bytes;
        self
    }

    pub fn whole(mut self, whole: bool) -> Self {
        self.of.settings.whole = whole;
        self
    }

    pub fn reject(mut self, pattern: &str) -> Self {
        let pattern = regex::bytes::Regex::new(pattern).unwrap();
        self.of.settings.target.rejects.pattern = Some(pattern);
        self
    }

    pub fn min_bytes(mut self, bytes: u64) -> Self {
        self.of.settings.target.rejects.min_bytes = bytes;
        self
    }

    /// Transforms poems with these built-in transformations.
    pub fn transform(mut self, names: &[&str]) -> Self {
        let builtin = |name: &&str| Registry::default().named(name).unwrap();
        let transforms: Vec<Transform> = names.iter().map(builtin).collect();
        self.of.settings.pipeline = Some(Pipeline::Own(transforms));
        self
    }

    /// Has poems transformed by the service at `addr`.
    pub fn via(mut self, addr: SocketAddr, names: &[&str]) -> Self {
        let names = names.iter().map(|name| name.to_string());
        let pipeline = Pipeline::Via(addr.into(), names.collect());
        self.of.settings.pipeline = Some(pipeline);
        self
    }

    /// Sends the original where its transformation fails.
    pub fn original_on_failure(mut self) -> Self {
        self.of.settings.original_on_failure = true;
        self
    }

    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.of.observer = observer;
        self
    }

    /// What is behind its cache.
    pub fn tier(mut self, tier: Arc<dyn Tier>) -> Self {
        self.of.tier = Some(tier);
        self
    }

    /// Keeps poems in the file at `path`, with the ttl and grace set before.
    #[cfg(feature = "store")]
    pub fn store(self, path: &Path) -> Self {
        let times = self.of.settings.target.times;
        let settings = StoreSettings {
            path: path.into(),
            capacity: 1 << 30,
            ttl: times.ttl,
            longest_ttl: HOUR,
            grace: times.grace,
            answer_wait: LONG,
            clock: system_clock(),
        };
        let store = OpenStore::open(settings).unwrap();
        let observer = self.of.observer.clone();
        self.tier(store.start(observer))
    }

    pub fn start(self) -> Service {
        let stats = self.common.stats.clone();
        let parts = self.of;
        let tier = parts.tier.clone();
        let handler = Proxy::with_tier(parts.settings, parts.tier, parts.observer, stats);
        let wire = handler.wire();
        let mut service = Service::start(handler.clone(), wire, self.common);
        service.proxy = Some(handler);
        service.tier = tier;
        service
    }

    /// Starts it, and has it keep `poem`.
    pub fn start_with(self, upstream: &FakeUpstream, poem: &[u8]) -> Service {
        let proxy = self.start();
        let mut client = proxy.connect();
        let sending = upstream.accept().send_in_background(poem);

        assert!(client.rest().unwrap() == poem);
        sending.join().unwrap();
        wait_for_count("kept", &proxy.stats.kept, 1);

        proxy
    }
}
