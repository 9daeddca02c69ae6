//! Services to look at: a proxy in trouble, the same on a good day, and a server.

use super::stand_in::Scene;
use poetry::control::{
    CacheCounts, FeedCounts, FetchCounts, FlightView, Histogram, KeyState, KeyView, Phase,
    Snapshot, StoreCounts, UpstreamCounts, UpstreamState,
};
use poetry::error::{Error, Stage};
use poetry::observe::{Event, FetchCause, FetchName, Reloaded};
use poetry::stats::Stats;
use std::time::{Duration, Instant};

const BOUNDS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const ONE: &str = "whois.registry.example:43";
const TWO: &str = "whois2.registry.example:43";

/// Before this sample of 150 all is well.
const OUTAGE: u32 = 105;

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::of(&Stats::default(), Instant::now());
    snapshot.uptime = secs(789_120);
    snapshot.connections.open = 14;
    snapshot.connections.limit = 9976;
    snapshot.wait = histogram();
    snapshot
}

fn histogram() -> Histogram {
    Histogram {
        bounds: BOUNDS,
        counts: vec![0; BOUNDS.len() + 1],
        sum: 0.0,
    }
}

fn upstream(name: &str) -> UpstreamCounts {
    UpstreamCounts {
        name: name.to_string(),
        state: UpstreamState::Unknown,
        paused: None,
        connections: 0,
        asked: 0,
        failures: Default::default(),
        durations: histogram(),
        received: 0,
        last_success: None,
        last_error: None,
    }
}

fn proxy() -> Scene {
    let mut snapshot = snapshot();
    snapshot.fetches = Some(FetchCounts {
        places: 2,
        ..FetchCounts::default()
    });
    snapshot.cache = Some(CacheCounts {
        keys: 18_432,
        bytes: 143_800_000,
        capacity: 256 << 20,
        kept: (18_432, 143_800_000),
        ..CacheCounts::default()
    });
    let mut one = upstream(ONE);
    one.state = UpstreamState::Up;
    one.asked = 412_902;
    one.durations.counts[4] = 400_000;
    one.last_success = Some(Duration::from_millis(1200));
    one.received = 2_900_000_000;
    snapshot.upstreams = vec![one, upstream(TWO)];

    let mut scene = Scene::new("proxy", snapshot);
    scene.keys = keys();
    scene.total = 18_432;
    scene
}

/// A key that is `age` seconds old.
pub fn key(name: &[u8], bytes: u64, age: u64) -> KeyView {
    let (ttl, grace) = (86_400, 7 * 86_400);
    KeyView {
        name: name.to_vec(),
        route: None,
        state: if age < ttl {
            KeyState::Fresh
        } else {
            KeyState::Stale
        },
        is_in_flight: false,
        bytes,
        age: Some(secs(age)),
        fresh_for: secs(ttl.saturating_sub(age)),
        served_for: secs(ttl + grace - age),
    }
}

fn keys() -> Vec<KeyView> {
    vec![
        key(b"example.net", 1874, 3120),
        key(b"example.org", 2011, 40_210),
        key(b"iana.example", 1312, 71_900),
        key(b"domain poetry.example", 3390, 88_400),
        key(b"192.0.2.0/24", 5210, 12_040),
        key(b"2001:db8::/32", 4790, 610),
        key("-T dn,ace k\u{f6}ln.example".as_bytes(), 988, 79_211),
        key(b"goethe.example", 1520, 204_000),
    ]
}

fn flight(name: &str, phase: Phase, millis: u64, bytes: u64, readers: u64) -> FlightView {
    FlightView {
        name: name.into(),
        phase,
        upstream: Some(TWO.to_string()),
        age: Duration::from_millis(millis),
        bytes,
        readers,
        is_refresh: false,
    }
}

/// Requests between two samples: a wave, and a storm of requests for one thing.
struct Load {
    wave: f64,
    burst: f64,
}

impl Load {
    fn at(number: u32) -> Load {
        let i = f64::from(number);
        let noise = 0.85 + 0.3 * ((i * 12.9898).sin() * 43_758.547).fract().abs();
        Load {
            wave: 2.0 * (38.0 + 14.0 * (i / 19.0).sin() + 6.0 * (i / 5.3).sin()) * noise,
            burst: 2.0 * (-(i - 62.0).powi(2) / 40.0).exp() * 46.0 * noise,
        }
    }
}

fn good_moment(scene: &mut Scene, number: u32) {
    let load = Load::at(number);
    let snapshot = &mut scene.snapshot;
    let connections = &mut snapshot.connections;
    connections.hit += (load.wave * 0.93 + load.burst * 0.2) as u64;
    connections.coalesced += load.burst as u64 + u64::from(number.is_multiple_of(3));
    connections.miss += 2 + u64::from(number % 5);
    connections.stale += u64::from(number.is_multiple_of(4));
    snapshot.sent[0] += ((load.wave + load.burst) * 2150.0) as u64;
    count_waits(&mut snapshot.wait, load.wave as u64, &[8, 3, 1, 0, 0, 0, 0]);

    let fetches = snapshot.fetches.as_mut().unwrap();
    fetches.begun += 2 + u64::from(number % 5);
}

fn bad_moment(scene: &mut Scene, number: u32) {
    let load = Load::at(number);
    let snapshot = &mut scene.snapshot;
    let connections = &mut snapshot.connections;
    connections.hit += (load.wave * 0.74) as u64;
    connections.stale += (load.wave * 0.2) as u64;
    connections.miss += u64::from(number.is_multiple_of(3));
    let failed = 2 + u64::from(number % 4);
    connections.failure += failed;
    snapshot.failures[3] += failed; // refused
    snapshot.sent[0] += (load.wave * 2150.0) as u64;
    count_waits(&mut snapshot.wait, load.wave as u64, &[4, 2, 5, 9, 8, 4, 2]);

    let fetches = snapshot.fetches.as_mut().unwrap();
    fetches.begun += u64::from(number % 2);
    fetches.ended[1][3] += 1; // a refresh failed
}

/// Most wait for less than a millisecond, some for longer.
fn count_waits(wait: &mut Histogram, hits: u64, rest: &[u64]) {
    wait.counts[0] += hits;
    for (count, more) in wait.counts[1..].iter_mut().zip(rest) {
        *count += more;
    }
}

/// All is well.
pub fn calm_proxy() -> Scene {
    let mut scene = proxy();
    scene.pass(good_moment);
    scene
}

/// The proxy on a good day, with a store.
pub fn proxy_with_store() -> Scene {
    let mut scene = calm_proxy();
    scene.snapshot.store = Some(StoreCounts {
        name: "/var/cache/poetry/poems".into(),
        is_open: true,
        state_for: secs(7200),
        hits: 1204,
        stale: 17,
        misses: 3821,
        late: 2,
        written: 3790,
        texts: 20_391,
        bytes: 101_000_000,
        capacity: 1 << 30,
        ..StoreCounts::default()
    });
    scene
}

/// The first upstream has refused connections for 90 seconds.
pub fn proxy_in_trouble() -> Scene {
    let mut scene = proxy();
    scene.pass(|scene, number| {
        if number < OUTAGE {
            good_moment(scene, number);
        } else {
            bad_moment(scene, number);
        }
    });
    break_upstream(&mut scene);
    break_figures(&mut scene);
    note_troubles(&scene);
    scene
}

fn break_upstream(scene: &mut Scene) {
    let [one, two] = &mut scene.snapshot.upstreams[..] else {
        return;
    };
    one.state = UpstreamState::Down(secs(90));
    one.failures[1] = 187;
    one.last_success = Some(secs(91));
    one.last_error = Some((refused().to_string(), Duration::from_millis(2400)));

    two.state = UpstreamState::Up;
    two.connections = 2;
    two.asked = 96;
    two.durations.counts[5] = 96;
    two.last_success = Some(Duration::from_millis(800));
}

fn break_figures(scene: &mut Scene) {
    scene.flights = vec![
        flight(
            "long-report.example",
            Phase::Streaming,
            41_200,
            7_340_032,
            6,
        ),
        flight("m\u{fc}nchen.example", Phase::Waiting, 3100, 0, 3),
        flight("-T dn,ace denic.example", Phase::InQueue, 2400, 0, 2),
        flight(
            "a-name-that-is-rather-longer-than-a-column-would-like.example",
            Phase::InQueue,
            1700,
            0,
            1,
        ),
        flight("AS64511", Phase::InQueue, 400, 0, 1),
    ];
    let fetches = scene.snapshot.fetches.as_mut().unwrap();
    fetches.running = 2;
    fetches.waiting = 3;
    fetches.oldest_wait = Duration::from_millis(2400);
    let cache = scene.snapshot.cache.as_mut().unwrap();
    cache.in_flight = (5, 8_500_000);
    cache.failures = (214, 310_000);
    cache.bytes += 8_810_000;
}

fn refused() -> Error {
    Error::Unreachable {
        subject: ONE.to_string(),
        why: "connection refused".to_string(),
    }
}

fn note_troubles(scene: &Scene) {
    let notices = &scene.notices;
    let ago = |seconds| scene.now - secs(seconds);
    let (error, next, upstream) = (&refused(), TWO, ONE);
    let request = b"example.net";
    let (pause, waiting, why) = (secs(30), 1, "matches --reject");
    let cause = FetchCause::Miss;
    let fetch = FetchName {
        upstream,
        request,
        cause,
        route: None,
    };

    let what = Reloaded::Purged { texts: 18_211 };
    notices.note_event(&Event::Reloaded { what }, ago(3610));
    for _ in 0..41 {
        notices.note_event(&Event::Rejected { fetch, why }, ago(140));
    }
    let down = Event::UpstreamDown {
        upstream,
        error,
        pause,
    };
    notices.note_event(&down, ago(88));
    let late = &Error::Timeout {
        subject: TWO.to_string(),
        stage: Stage::FirstByte,
        limit: secs(30),
    };
    for _ in 0..2 {
        let fetch = FetchName {
            upstream: TWO,
            request,
            cause,
            route: None,
        };
        let event = Event::FetchFailed {
            fetch,
            error: late,
            waiting,
            time: secs(30),
        };
        notices.note_event(&event, ago(31));
    }
    for _ in 0..187 {
        notices.note_event(&Event::NextUpstream { fetch, error, next }, ago(2));
    }
}

/// Takes note of a trouble with this text.
pub fn note(scene: &Scene, text: &str) {
    let fetch = FetchName {
        upstream: ONE,
        request: b"",
        cause: FetchCause::Miss,
        route: None,
    };
    let event = Event::Rejected { fetch, why: text };
    scene.notices.note_event(&event, scene.now);
}

/// A feed with a slow reader.
pub fn feed() -> Scene {
    let mut snapshot = snapshot();
    snapshot.upstreams = vec![upstream(ONE)];
    snapshot.upstreams[0].connections = 1;
    snapshot.upstreams[0].state = UpstreamState::Up;
    snapshot.feed = Some(FeedCounts {
        connected: Some(secs(7200)),
        connections: 3,
        readers: 12,
        slow: 1,
        lines: 7_380_000,
        bytes: 590_400_000,
        lost: 204,
        too_long: 2,
        cut: 1,
        held: 70_000,
        backlog: 64 << 10,
    });
    let mut scene = Scene::new("proxy", snapshot);
    scene.pass(|scene, number| {
        scene.snapshot.connections.coalesced += u64::from(number % 3);
    });
    scene
}

/// A service without a cache.
pub fn server() -> Scene {
    let mut snapshot = snapshot();
    snapshot.connections.limit = 1000;
    let mut scene = Scene::new("serve", snapshot);
    scene.pass(|scene, number| {
        let load = Load::at(number);
        let snapshot = &mut scene.snapshot;
        snapshot.connections.own += load.wave as u64;
        snapshot.connections.open = 4 + u64::from(number % 7);
        snapshot.sent[4] += (load.wave * 900.0) as u64;
        count_waits(&mut snapshot.wait, load.wave as u64, &[2, 1]);
    });
    let what = Reloaded::Poems { poems: 12 };
    scene
        .notices
        .note_event(&Event::Reloaded { what }, scene.now);
    scene
}
