//! The text itself: which series, which numbers.

use super::is_installed;
use super::sample::{
    busy_proxy, busy_upstream, idle, idle_proxy, idle_upstream, openmetrics, process, scrape,
    series, text,
};
use crate::support::text as lossy;
use poetry::admin::metrics::{Format, render};
use poetry::admin::process::Process;
use poetry::control::{Snapshot, UpstreamState};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

fn upstreams(snapshot: Snapshot, names: &[String]) -> Snapshot {
    Snapshot {
        upstreams: names.iter().map(|name| idle_upstream(name)).collect(),
        ..snapshot
    }
}

#[test]
fn the_number_of_series_is_bounded() {
    for count in [1, 2, 7, 100] {
        let names: Vec<String> = (0..count).map(|at| format!("{at}:43")).collect();
        let fresh = text(upstreams(idle_proxy(&[]), &names));
        let used = text(upstreams(busy_proxy(), &names));

        // With a store of a fleet, with --warm, and with a feed.
        let most = 99 + 11 + 8 + 3 + 11 + 24 * count;
        let number = series(&fresh).len();
        assert!(number <= most, "{number} of {most}");
        assert_eq!(
            series(&used).len(),
            number,
            "a series that appears later has no beginning"
        );
        let own = series(&text(idle_proxy(&[]))).len();
        assert_eq!(number - own, 24 * count);
    }
}

#[test]
fn every_known_value_is_there_from_the_start_with_0() {
    let text = text(idle_proxy(&["a:43"]));
    let series = series(&text);
    for name in [
        r#"poetry_requests_total{class="hit"}"#,
        r#"poetry_requests_total{class="collapsed"}"#,
        r#"poetry_request_failures_total{reason="client_left"}"#,
        r#"poetry_sent_bytes_total{class="stale"}"#,
        r#"poetry_request_wait_seconds_bucket{le="0.001"}"#,
        r#"poetry_request_wait_seconds_bucket{le="+Inf"}"#,
        r#"poetry_fetches_total{cause="prefetch",result="rejected"}"#,
        r#"poetry_fetch_failures_total{upstream="a:43",error="refused"}"#,
        r#"poetry_fetch_duration_seconds_count{upstream="a:43"}"#,
        r#"poetry_received_bytes_total{upstream="a:43"}"#,
        r#"poetry_upstream_last_success_timestamp_seconds{upstream="a:43"}"#,
        r#"poetry_cache_held_bytes{purpose="remembered"}"#,
        r#"poetry_purges_total{scope="key"}"#,
        r#"poetry_transforms_total{result="declined"}"#,
        "poetry_panics_total",
    ] {
        assert_eq!(series.get(name), Some(&0.0), "{name}");
    }
    assert_eq!(series[r#"poetry_upstream_up{upstream="a:43"}"#], 1.0);
}

#[test]
fn every_figure_stands_under_its_own_name() {
    let text = text(busy_proxy());
    let series = series(&text);
    for (name, number) in [
        (r#"poetry_requests_total{class="hit"}"#, 1.0),
        (r#"poetry_requests_total{class="collapsed"}"#, 3.0),
        (r#"poetry_requests_total{class="unasked"}"#, 7.0),
        (
            r#"poetry_request_failures_total{reason="client_left"}"#,
            100.0,
        ),
        (r#"poetry_request_failures_total{reason="failed"}"#, 116.0),
        (r#"poetry_sent_bytes_total{class="failure"}"#, 205.0),
        ("poetry_request_wait_seconds_sum", 77.5),
        (r#"poetry_request_wait_seconds_bucket{le="0.005"}"#, 3.0),
        (r#"poetry_request_wait_seconds_bucket{le="10"}"#, 55.0),
        (r#"poetry_request_wait_seconds_bucket{le="+Inf"}"#, 66.0),
        ("poetry_request_wait_seconds_count", 66.0),
        ("poetry_connections", 8.0),
        ("poetry_connections_limit", 9.0),
        (
            r#"poetry_connections_refused_total{reason="per_address"}"#,
            82.0,
        ),
        ("poetry_connections_unmetered_total", 84.0),
        ("poetry_accept_pauses_total", 60.0),
        (r#"poetry_fetches_total{cause="miss",result="kept"}"#, 31.0),
        (
            r#"poetry_fetches_total{cause="stale",result="failed"}"#,
            38.0,
        ),
        (
            r#"poetry_fetches_total{cause="admin",result="passed"}"#,
            44.0,
        ),
        ("poetry_flights", 23.0),
        ("poetry_flight_readers", 22.0),
        ("poetry_upstream_places", 21.0),
        ("poetry_upstream_queue", 3.0),
        ("poetry_upstream_queue_oldest_seconds", 2.5),
        ("poetry_upstream_rate_waits_total", 23.0),
        (
            r#"poetry_fetch_failures_total{upstream="a:43",error="timeout"}"#,
            74.0,
        ),
        (
            r#"poetry_fetch_duration_seconds_sum{upstream="a:43"}"#,
            88.25,
        ),
        (
            r#"poetry_fetch_duration_seconds_bucket{upstream="a:43",le="600"}"#,
            66.0,
        ),
        (r#"poetry_received_bytes_total{upstream="a:43"}"#, 78.0),
        (r#"poetry_upstream_up{upstream="a:43"}"#, 0.0),
        (r#"poetry_upstream_up{upstream="b:43"}"#, 1.0),
        (r#"poetry_upstream_connections{upstream="a:43"}"#, 70.0),
        (
            r#"poetry_upstream_last_success_timestamp_seconds{upstream="a:43"}"#,
            999_998.5,
        ),
        (r#"poetry_cache_held_bytes{purpose="kept"}"#, 5100.0),
        (r#"poetry_cache_entries{purpose="in_flight"}"#, 52.0),
        (
            r#"poetry_cache_evictions_total{purpose="remembered"}"#,
            55.0,
        ),
        ("poetry_cache_capacity_bytes", 268_435_456.0),
        (r#"poetry_purges_total{scope="prefix"}"#, 65.0),
        (r#"poetry_transforms_total{result="failed"}"#, 62.0),
        (r#"poetry_warm_requests{state="fresh"}"#, 311.0),
        (r#"poetry_warm_requests{state="failed"}"#, 312.0),
        (r#"poetry_warm_requests{state="waiting"}"#, 313.0),
        ("poetry_store_open", 1.0),
        (r#"poetry_store_reads_total{result="hit"}"#, 301.0),
        (r#"poetry_store_reads_total{result="stale"}"#, 302.0),
        (r#"poetry_store_reads_total{result="miss"}"#, 303.0),
        (r#"poetry_store_reads_total{result="late"}"#, 304.0),
        (r#"poetry_store_writes_total{result="written"}"#, 305.0),
        (r#"poetry_store_writes_total{result="dropped"}"#, 306.0),
        ("poetry_store_errors_total", 307.0),
        ("poetry_store_entries", 308.0),
        ("poetry_store_held_bytes", 309.0),
        ("poetry_store_capacity_bytes", 310.0),
        (r#"poetry_fleet_fetches_total{event="follow"}"#, 311.0),
        (r#"poetry_fleet_fetches_total{event="lead"}"#, 312.0),
        (r#"poetry_fleet_fetches_total{event="alone"}"#, 313.0),
        (r#"poetry_fleet_fetches_total{event="takeover"}"#, 314.0),
        (r#"poetry_fleet_fetches_total{event="unproven"}"#, 315.0),
        (r#"poetry_fleet_fetches_total{event="deposed"}"#, 316.0),
        (r#"poetry_fleet_fetches_total{event="published"}"#, 317.0),
        ("poetry_fleet_purges_owed", 318.0),
        ("poetry_log_lines_dropped_total", 80.0),
        ("poetry_panics_total", 67.0),
        ("process_cpu_seconds_total", 1.25),
        ("process_resident_memory_bytes", 81.0),
        ("process_open_fds", 82.0),
        ("process_max_fds", 83.0),
        ("process_start_time_seconds", 999_000.5),
        ("process_threads", 84.0),
    ] {
        assert_eq!(series.get(name), Some(&number), "{name}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let build = format!(r#"poetry_build_info{{version="{version}"}}"#);
    assert_eq!(series[build.as_str()], 1.0);
}

/// The numbers of a text. The formats differ in the order of labels, and in how they
/// write the bounds of a histogram.
fn alike(text: &str) -> BTreeMap<String, f64> {
    let bound = |label: &str| match label.strip_suffix(".0\"") {
        Some(bound) => format!("{bound}\""),
        None => label.to_string(),
    };
    let alike = |(name, number): (&str, f64)| {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let mut labels: Vec<String> = labels.trim_matches('}').split(',').map(bound).collect();
        labels.sort();
        (format!("{name} {}", labels.join(",")), number)
    };
    series(text).into_iter().map(alike).collect()
}

#[test]
fn both_formats_say_the_same() {
    let text = text(busy_proxy());
    let open = openmetrics(busy_proxy());
    assert_eq!(alike(&text), alike(&open));

    assert!(open.ends_with("\n# EOF\n"));
    assert!(open.contains("# TYPE poetry_sent_bytes counter\n# UNIT poetry_sent_bytes bytes\n"));
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    assert!(text.contains("# TYPE poetry_sent_bytes_total counter\n"));
}

#[test]
fn a_service_without_a_cache_and_upstreams_says_nothing_of_them() {
    let text = text(idle());
    for part in ["fetch", "flight", "upstream", "cache", "purge", "received"] {
        let name = format!("poetry_{part}");
        assert!(!text.contains(&name), "{name}");
    }
    assert!(text.contains("poetry_requests_total"));
    assert!(text.contains("poetry_transforms_total"));
}

#[test]
fn a_figure_that_the_kernel_does_not_tell_is_left_out() {
    let mut scrape = scrape(idle());
    scrape.process = Process {
        threads: None,
        max_descriptors: None,
        ..process()
    };
    let some = render(scrape.clone(), Format::Text);
    assert!(!some.contains("process_threads") && !some.contains("process_max_fds"));
    assert!(some.contains("process_open_fds"));

    scrape.process = Process::default();
    assert!(!render(scrape, Format::Text).contains("process_"));
}

#[test]
fn the_name_of_an_upstream_is_escaped() {
    let name = "unix:/a \"b\"\\\nc{},=é";
    let escaped = r#"poetry_upstream_up{upstream="unix:/a \"b\"\\\nc{},=é"} 1"#;
    for text in [text(idle_proxy(&[name])), openmetrics(idle_proxy(&[name]))] {
        assert!(text.lines().any(|line| line == escaped), "{text}");
    }
}

#[test]
fn an_upstream_named_twice_is_one() {
    let mut second = busy_upstream();
    second.state = UpstreamState::Up;
    second.last_success = Some(Duration::from_secs(1));
    let twice = Snapshot {
        upstreams: vec![busy_upstream(), idle_upstream("b:43"), second],
        ..busy_proxy()
    };

    let text = text(twice);
    let series = series(&text);
    assert_eq!(
        series[r#"poetry_received_bytes_total{upstream="a:43"}"#],
        156.0
    );
    assert_eq!(series[r#"poetry_upstream_up{upstream="a:43"}"#], 1.0);
    let duration = r#"poetry_fetch_duration_seconds_count{upstream="a:43"}"#;
    assert_eq!(series[duration], 156.0);
    let success = r#"poetry_upstream_last_success_timestamp_seconds{upstream="a:43"}"#;
    assert_eq!(series[success], 999_999.0);
}

#[test]
fn promtool_has_nothing_to_say_against_it() {
    if !is_installed("promtool") {
        return;
    }
    for text in [text(idle()), text(busy_proxy())] {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let out = child.wait_with_output().unwrap();
        let said = lossy(&[out.stdout, out.stderr].concat());
        assert!(out.status.success() && said.is_empty(), "{said}");
    }
}
