//! Figures made by hand, and the text that is made of them, read again.

use poetry::admin::metrics::{Format, Scrape, render};
use poetry::admin::process::Process;
use poetry::control::{
    CacheCounts, ConnectionCounts, ERRORS, FeedCounts, FetchCounts, FleetCounts, Histogram,
    PurgeCounts, Snapshot, StoreCounts, StoreState, TransformCounts, UpstreamCounts, UpstreamState,
    WarmCounts,
};
use poetry::stats::Stats;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

const WAIT_BOUNDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const FETCH_BOUNDS: [f64; 11] = [
    0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

/// The time of all scrapes here: 1,000,000 seconds after 1970.
pub fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn nothing(bounds: &'static [f64]) -> Histogram {
    Histogram {
        bounds,
        counts: vec![0; bounds.len() + 1],
        sum: 0.0,
    }
}

/// A service that has just started, without a cache and upstreams.
pub fn idle() -> Snapshot {
    let now = Instant::now();
    Snapshot {
        wait: nothing(&WAIT_BOUNDS),
        ..Snapshot::of(&Stats::new(now), now)
    }
}

/// A proxy for these upstreams that has just started.
pub fn idle_proxy(upstreams: &[&str]) -> Snapshot {
    Snapshot {
        fetches: Some(FetchCounts::default()),
        upstreams: upstreams.iter().map(|name| idle_upstream(name)).collect(),
        cache: Some(CacheCounts::default()),
        store: Some(StoreCounts {
            fleet: Some(FleetCounts::default()),
            ..StoreCounts::default()
        }),
        feed: Some(FeedCounts::default()),
        warm: Some(WarmCounts::default()),
        ..idle()
    }
}

pub fn idle_upstream(name: &str) -> UpstreamCounts {
    UpstreamCounts {
        name: name.to_string(),
        state: UpstreamState::Unknown,
        paused: None,
        connections: 0,
        asked: 0,
        failures: [0; ERRORS.len()],
        durations: nothing(&FETCH_BOUNDS),
        received: 0,
        last_success: None,
        last_error: None,
    }
}

/// A proxy in which no two figures are alike, so that none passes for another.
pub fn busy_proxy() -> Snapshot {
    let connections = ConnectionCounts {
        hit: 1,
        stale: 2,
        coalesced: 3,
        miss: 4,
        own: 5,
        failure: 6,
        unasked: 7,
        open: 8,
        limit: 9,
    };
    let fetches = FetchCounts {
        running: 20,
        waiting: 3,
        places: 21,
        oldest_wait: Duration::from_millis(2500),
        readers: 22,
        rate_waits: 23,
        ended: [
            [31, 32, 33, 34],
            [35, 36, 37, 38],
            [39, 40, 41, 42],
            [43, 44, 45, 46],
        ],
        ..FetchCounts::default()
    };
    let cache = CacheCounts {
        capacity: 1 << 28,
        kept: (51, 5100),
        in_flight: (52, 5200),
        failures: (53, 5300),
        evicted_kept: 54,
        evicted_failures: 55,
        ..CacheCounts::default()
    };

    Snapshot {
        connections,
        failures: std::array::from_fn(|at| 100 + at as u64),
        sent: std::array::from_fn(|at| 200 + at as u64),
        wait: counted(&WAIT_BOUNDS, 77.5),
        refused: [81, 82, 83],
        unmetered: 84,
        accept_pauses: 60,
        transforms: transforms(),
        purges: purges(),
        panics: 67,
        fetches: Some(fetches),
        upstreams: vec![busy_upstream(), idle_upstream("b:43")],
        cache: Some(cache),
        store: Some(busy_store()),
        feed: Some(busy_feed()),
        warm: Some(WarmCounts {
            fresh: 311,
            failed: 312,
            waiting: 313,
        }),
        ..idle()
    }
}

fn busy_store() -> StoreCounts {
    StoreCounts {
        name: "/var/cache/poetry/poems".into(),
        is_open: true,
        state: StoreState::Ok,
        state_for: Duration::from_secs(60),
        hits: 301,
        stale: 302,
        misses: 303,
        late: 304,
        written: 305,
        dropped: 306,
        errors: 307,
        texts: 308,
        bytes: 309,
        capacity: 310,
        fleet: Some(FleetCounts {
            follows: 311,
            leads: 312,
            alone: 313,
            takeovers: 314,
            proofs_failed: 315,
            deposed: 316,
            published: 317,
            purges_owed: 318,
        }),
    }
}

fn busy_feed() -> FeedCounts {
    FeedCounts {
        connected: Some(Duration::from_secs(401)),
        connections: 402,
        readers: 403,
        slow: 404,
        lines: 405,
        bytes: 406,
        lost: 407,
        too_long: 408,
        cut: 409,
        held: 410,
        backlog: 411,
    }
}

fn transforms() -> TransformCounts {
    TransformCounts {
        done: 61,
        failed: 62,
        declined: 63,
        known: 67,
    }
}

fn purges() -> PurgeCounts {
    PurgeCounts {
        all: 64,
        prefix: 65,
        key: 66,
    }
}

/// One in the first bucket, two in the second, and so on.
fn counted(bounds: &'static [f64], sum: f64) -> Histogram {
    Histogram {
        bounds,
        counts: (1..=bounds.len() as u64 + 1).collect(),
        sum,
    }
}

pub fn busy_upstream() -> UpstreamCounts {
    UpstreamCounts {
        name: "a:43".to_string(),
        state: UpstreamState::Down(Duration::from_secs(5)),
        paused: Some(Duration::from_secs(90)),
        connections: 70,
        asked: 71,
        failures: std::array::from_fn(|at| 72 + at as u64),
        durations: counted(&FETCH_BOUNDS, 88.25),
        received: 78,
        last_success: Some(Duration::from_millis(1500)),
        last_error: Some(("connection refused".to_string(), Duration::ZERO)),
    }
}

pub fn scrape(snapshot: Snapshot) -> Scrape {
    Scrape {
        snapshot,
        process: process(),
        lost_log_lines: 80,
        time: time(),
    }
}

/// Figures of a process, all of them.
pub fn process() -> Process {
    Process {
        cpu: Some(Duration::from_millis(1250)),
        resident_bytes: Some(81),
        open_descriptors: Some(82),
        max_descriptors: Some(83),
        start: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(999_000_500)),
        threads: Some(84),
    }
}

pub fn text(snapshot: Snapshot) -> String {
    render(scrape(snapshot), Format::Text)
}

pub fn openmetrics(snapshot: Snapshot) -> String {
    render(scrape(snapshot), Format::OpenMetrics)
}

/// The numbers of a text by their series.
pub fn series<'a>(text: &'a str) -> BTreeMap<&'a str, f64> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let parse = |line: &&'a str| {
        let (name, number) = line.rsplit_once(' ').unwrap();
        (name, number.parse().unwrap())
    };
    let parsed: BTreeMap<&str, f64> = lines.iter().map(parse).collect();
    assert_eq!(parsed.len(), lines.len(), "a series comes twice");
    parsed
}

/// A metric as a reader sees it.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Seen {
    pub kind: String,
    pub unit: String,
    /// The values of each label.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// All metrics of a busy proxy, by the names that their samples have; a histogram has
/// the one without `_bucket`.
pub fn metrics() -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    let text = openmetrics(busy_proxy());
    for block in text.split("# HELP ").skip(1) {
        let (name, metric) = metric(block);
        assert_eq!(seen.insert(name, metric), None);
    }
    seen
}

/// Reads what follows `# HELP `, up to the next metric.
fn metric(block: &str) -> (String, Seen) {
    let mut seen = Seen::default();
    let mut name = block.split(' ').next().unwrap().to_string();
    for line in block.lines().skip(1).filter(|line| *line != "# EOF") {
        if let Some(head) = line.strip_prefix("# ") {
            let words: Vec<&str> = head.split(' ').collect();
            match words[0] {
                "TYPE" => seen.kind = words[2].to_string(),
                _ => seen.unit = words[2].to_string(),
            }
            continue;
        }
        for (label, value) in labels(line) {
            seen.labels.entry(label).or_default().insert(value);
        }
    }
    match seen.kind.as_str() {
        "counter" => name.push_str("_total"),
        "info" => name.push_str("_info"),
        _ => {}
    }
    (name, seen)
}

/// The labels of a line. No value here contains a comma.
fn labels(line: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = line.split_once('{') else {
        return Vec::new();
    };
    let (labels, _) = rest.rsplit_once('}').unwrap();
    let pair = |label: &str| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_string(), value.trim_matches('"').to_string())
    };
    labels.split(',').map(pair).collect()
}
