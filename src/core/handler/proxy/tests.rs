//! What it costs to look at a proxy that is full.

use super::*;
use crate::coalesce::Verdict;
use crate::control::Control;
use crate::observe::Silent;
use crate::protocol::EndRule;
use crate::upstream::Upstream;
use std::hint::black_box;

fn proxy() -> (Arc<Proxy>, Arc<Stats>) {
    let hour = Duration::from_secs(3600);
    let settings = ProxySettings {
        protocol: Protocol::Line,
        target: TargetSettings {
            upstream: Upstream::built_in(),
            send: None,
            route: None,
            times: KeepTimes {
                ttl: hour,
                grace: hour,
                fail_ttl: Duration::ZERO,
            },
            ttls: TtlRules::default(),
            rejects: Rejects::default(),
            conns: 8,
            ends: EndRule::default(),
            connect_retry: Duration::ZERO,
        },
        timeouts: Timeouts {
            connect: hour,
            idle: hour,
            total: hour,
        },
        half_close: false,
        routing: None,
        capacity: 1 << 30,
        serve_stale: ServeStale::Always,
        refresh_ahead: 0.0,
        warm: None,
        max_poem: 1 << 16,
        whole: false,
        upstream_queue: 8,
        fold: KeyFold::default(),
        patience: PATIENCE,
        pipeline: None,
        original_on_failure: false,
    };
    let stats = Arc::new(Stats::default());
    (Proxy::new(settings, Arc::new(Silent), stats.clone()), stats)
}

fn fill(proxy: &Proxy, keys: usize, now: Instant) {
    for name in 0..keys {
        let key = proxy.target(b"").scope.key(&name.to_ne_bytes());
        let Found::Missed(_reader, mut fetch) = proxy.texts.find(&key, now) else {
            panic!("{name} is there already");
        };
        fetch.begin();
        fetch.append(Bytes::from_static(b"a text"));
        fetch.land(Verdict::Keep, now);
    }
}

/// The shortest of many: a loaded machine disturbs it least.
fn time_of_a_snapshot(proxy: &Proxy, stats: &Stats, now: Instant) -> Duration {
    let once = || {
        let started = Instant::now();
        black_box(proxy.snapshot(stats, now));
        started.elapsed()
    };
    std::iter::repeat_with(once).take(200).min().unwrap()
}

/// `/metrics` and `/status` take one each second. A walk over so many keys would take
/// longer, even if each cost ten nanoseconds.
fn assert_figures_are_cheap(keys: usize) {
    let (proxy, stats) = proxy();
    let now = Instant::now();
    fill(&proxy, keys, now);

    let cache = proxy.snapshot(&stats, now).cache.unwrap();
    assert_eq!(cache.keys, keys as u64);
    let took = time_of_a_snapshot(&proxy, &stats, now);
    assert!(took < Duration::from_millis(1), "{took:?}");
}

#[test]
fn the_figures_of_a_full_cache_take_less_than_a_millisecond() {
    assert_figures_are_cheap(100_000);
}

/// `cargo test --release --lib figures_of_a_million -- --ignored`
#[test]
#[ignore = "without optimisation it takes half a minute"]
fn the_figures_of_a_million_keys_take_less_than_a_millisecond() {
    assert_figures_are_cheap(1_000_000);
}
