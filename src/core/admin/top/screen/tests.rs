//! The frames, of figures made by hand.

use super::*;
use crate::control::{CacheCounts, ERRORS, FetchCounts, Phase};
use crate::stats::Stats;
use std::time::Instant;

fn snapshot(seconds: u64) -> Snapshot {
    Snapshot {
        uptime: Duration::from_secs(seconds),
        ..Snapshot::of(&Stats::default(), Instant::now())
    }
}

/// The lines of a frame without what is between the words of each.
fn words(frame: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    frame.lines().map(words).collect()
}

fn has(frame: &str, line: &str) {
    assert!(
        words(frame).iter().any(|other| other == line),
        "{line} in\n{frame}"
    );
}

#[test]
fn rates_are_of_the_time_between_two_moments() {
    let mut earlier = snapshot(100);
    earlier.connections.hit = 1_000_000;
    earlier.cache = Some(CacheCounts::default());
    let mut now = snapshot(102);
    now.connections.hit = 1_000_900;
    now.connections.stale = 60;
    now.connections.miss = 39;
    now.connections.failure = 1;
    now.connections.open = 12;
    now.cache = Some(CacheCounts {
        keys: 137,
        bytes: 3 << 19,
        capacity: 256 << 20,
        ..CacheCounts::default()
    });
    now.sent[Class::Hit as usize] = 4096;

    let frame = figures(
        &earlier,
        Moment {
            figures: &now,
            flights: &[],
        },
    );

    has(&frame, "up 1m 42s, 12 clients connected");
    has(
        &frame,
        "requests 500/s 96.0 % from the cache 2.0 KiB/s sent",
    );
    has(&frame, "hit 450/s");
    has(&frame, "stale 30/s");
    has(&frame, "failure 0.5/s");
    has(&frame, "cache 137 keys, 1.5 MiB of 256 MiB");
}

#[test]
fn waits_are_those_since_the_earlier_moment() {
    let histogram = |counts: [u64; 4]| Histogram {
        bounds: &[0.001, 0.1, 2.5],
        counts: counts.to_vec(),
        sum: 0.0,
    };
    let (mut earlier, mut now) = (snapshot(1), snapshot(2));
    earlier.wait = histogram([0, 0, 0, 1000]);
    now.wait = histogram([60, 36, 4, 1000]);

    let frame = figures(
        &earlier,
        Moment {
            figures: &now,
            flights: &[],
        },
    );

    has(
        &frame,
        "waits half up to 1ms, 95 % up to 100ms, 99 % up to 2.5s",
    );
}

#[test]
fn upstreams_and_the_oldest_fetches_are_listed_and_escaped() {
    let upstream = |asked, failed| UpstreamCounts {
        name: "whois.example:43".into(),
        state: UpstreamState::Down(Duration::from_millis(75_300)),
        paused: None,
        connections: 3,
        asked,
        failures: [failed; ERRORS.len()],
        durations: Histogram::default(),
        received: 0,
        last_success: None,
        last_error: None,
    };
    let (mut earlier, mut now) = (snapshot(0), snapshot(10));
    earlier.upstreams = vec![upstream(5, 0)];
    now.upstreams = vec![upstream(25, 1)];
    now.fetches = Some(FetchCounts {
        running: 2,
        waiting: 7,
        begun: 20,
        ..FetchCounts::default()
    });
    let flights = [FlightView {
        name: b"evil\x1b[2J".to_vec(),
        phase: Phase::Streaming,
        upstream: None,
        age: Duration::from_millis(12_340),
        bytes: 2048,
        readers: 4,
        is_refresh: true,
    }];

    let frame = figures(
        &earlier,
        Moment {
            figures: &now,
            flights: &flights,
        },
    );

    has(&frame, "whois.example:43 fails 1m 15s 3 2.0/s 0.6/s");
    has(
        &frame,
        "fetches 2.0/s begun, 0/s failed, 2 running, 7 in queue",
    );
    has(
        &frame,
        r"12.3s 2.0 KiB 4 streams 'evil\u{1b}[2J', a refresh",
    );
    assert!(!frame.contains('\x1b'));
    assert!(frame.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn two_equal_moments_and_a_figure_that_shrank_are_no_rates() {
    let mut earlier = snapshot(5);
    earlier.connections.hit = 10;
    let now = snapshot(5);
    let frame = figures(
        &earlier,
        Moment {
            figures: &now,
            flights: &[],
        },
    );
    has(&frame, "requests 0/s");
}

#[test]
fn keys_are_shown_with_what_is_sure_of_them() {
    let mut sketch = Sketch::default();
    sketch.add(b"example.net", 75);
    sketch.add(b"", 25);

    let frame = keys(&sketch, Duration::from_millis(9_900));

    has(&frame, "100 requests in 9s, by what was asked for");
    has(&frame, "75.0 % 75 75 'example.net'");
    has(&frame, "25.0 % 25 25 a poem");
}

#[test]
fn a_frame_is_drawn_over_the_last_one() {
    assert_eq!(redraw("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
}
