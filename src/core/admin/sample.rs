//! A proxy for the tests: two upstreams, a cache, and a minute of requests.

use super::history::{History, SAMPLE_INTERVAL};
use crate::control::{
    CacheCounts, ERRORS, FetchCounts, FleetCounts, Histogram, Snapshot, StoreCounts,
    UpstreamCounts, UpstreamState, WarmCounts,
};
use crate::stats::Stats;
use std::time::{Duration, Instant};

pub(super) const BOUNDS: &[f64] = &[0.001, 0.25, 1.0];

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn upstream(name: &str, state: UpstreamState) -> UpstreamCounts {
    let is_down = matches!(state, UpstreamState::Down(_));
    let error = format!("{name}: could not connect: connection refused");
    let mut failures = [0; ERRORS.len()];
    failures[1] = if is_down { 187 } else { 0 };

    UpstreamCounts {
        name: name.to_string(),
        state,
        paused: None,
        connections: 1,
        asked: 412,
        failures,
        durations: Histogram {
            bounds: BOUNDS,
            counts: vec![0, 4, 0, 0],
            sum: 0.8,
        },
        received: 2900,
        last_success: Some(secs(91)),
        last_error: is_down.then(|| (error, secs(2))),
    }
}

/// A proxy in which all is well.
pub(super) fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::of(&Stats::default(), Instant::now());
    snapshot.uptime = secs(789);
    snapshot.connections.open = 14;
    snapshot.connections.limit = 9976;
    snapshot.wait.bounds = BOUNDS;
    snapshot.wait.counts = vec![0; BOUNDS.len() + 1];
    snapshot.fetches = Some(FetchCounts {
        places: 2,
        ..FetchCounts::default()
    });
    snapshot.warm = Some(WarmCounts::default());
    snapshot.store = Some(StoreCounts {
        fleet: Some(FleetCounts::default()),
        ..StoreCounts::default()
    });
    snapshot.cache = Some(CacheCounts {
        keys: 142,
        bytes: 1400,
        capacity: 4096,
        kept: (137, 1200),
        in_flight: (5, 200),
        ..CacheCounts::default()
    });
    snapshot.upstreams = vec![
        upstream("one.example:43", UpstreamState::Up),
        upstream("two.example:43", UpstreamState::Unknown),
    ];
    snapshot
}

/// A service of our own.
pub(super) fn plain_snapshot() -> Snapshot {
    let mut snapshot = snapshot();
    (snapshot.fetches, snapshot.cache) = (None, None);
    (snapshot.store, snapshot.warm) = (None, None);
    snapshot.upstreams.clear();
    snapshot
}

/// Five minutes and more in which `change` happened before each sample, with the
/// number of the sample. Ends at `now`, in what `snapshot` has become.
pub(super) fn history(
    snapshot: &mut Snapshot,
    now: Instant,
    change: impl Fn(&mut Snapshot, u32),
) -> History {
    let samples = 200;
    let started = now - SAMPLE_INTERVAL * samples;
    let mut history = History::new(started);
    for number in 1..=samples {
        change(snapshot, number);
        history.take(snapshot, started + SAMPLE_INTERVAL * number);
    }
    history
}

/// A moment that is late enough for a history.
pub(super) fn now() -> Instant {
    Instant::now() + secs(100_000)
}
