//! `/metrics`: the figures of a service in the text formats that Prometheus reads.
//!
//! Nothing is counted here. One [`Snapshot`] becomes at most `99 + 24 U` series for `U`
//! upstreams, 11 for a store, 7 for a fleet, 3 for what is kept warm and 11 for a feed,
//! however many texts are cached and clients come. Each known value of a label is there
//! from the start, with 0: a rate needs to see a number before it rises. A service
//! without a cache or without upstreams has no series about them.
//!
//! `docs/metrics.md` lists them all; a test holds that list against this file.

mod family;
mod feed;
mod format;
mod store;

use crate::admin::process::Process;
use crate::control::{
    CacheCounts, ERRORS, FetchCounts, Histogram, REASONS, REFUSALS, Snapshot, UpstreamCounts,
    UpstreamState, WarmCounts,
};
use crate::observe::Class;
use family::{Families, Family, NO_LABELS};
pub use format::Format;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::fmt::Result;
use std::time::{Duration, SystemTime};

/// All that `/metrics` tells, at one moment.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// The figures of the service.
    pub snapshot: Snapshot,
    /// The figures of the process.
    pub process: Process,
    /// Lines of the log that were lost since the start.
    pub lost_log_lines: u64,
    /// The time of day of the snapshot.
    pub time: SystemTime,
}

/// The text for a scrape.
pub fn render(mut scrape: Scrape, format: Format) -> String {
    scrape.snapshot.upstreams = by_name(std::mem::take(&mut scrape.snapshot.upstreams));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));

    let mut text = String::new();
    let written = match format {
        Format::Text => prometheus_text::encode(&mut text, &registry),
        Format::OpenMetrics => text::encode(&mut text, &registry),
    };
    written.expect("writing to a String never fails");
    text
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> Result {
        let mut families = Families(encoder);
        let snapshot = &self.snapshot;

        service(&mut families, snapshot)?;
        if let Some(fetches) = &snapshot.fetches {
            fetching(&mut families, fetches)?;
        }
        if !snapshot.upstreams.is_empty() {
            upstreams(&mut families, &snapshot.upstreams, self.time)?;
        }
        if let Some(cache) = &snapshot.cache {
            cached(&mut families, cache, snapshot)?;
        }
        if let Some(counts) = &snapshot.warm {
            kept_warm(&mut families, counts)?;
        }
        if let Some(counts) = &snapshot.store {
            store::stored(&mut families, counts)?;
        }
        if let Some(counts) = &snapshot.feed {
            feed::fed(&mut families, counts)?;
        }
        bugs_and_log(&mut families, snapshot, self.lost_log_lines)?;
        process(&mut families, &self.process)
    }
}

/// What every service has.
fn service(families: &mut Families<'_>, snapshot: &Snapshot) -> Result {
    let connections = &snapshot.connections;
    let classes = Class::ALL.map(Class::word);

    let build = Family::new("poetry_build", "The program that runs");
    families.info(&build, &[("version", env!("CARGO_PKG_VERSION"))])?;

    families.counter(
        &Family::new(
            "poetry_requests",
            "Connections that ended, by how they were answered",
        ),
        each("class", classes, connections.by_class()),
    )?;
    families.counter(
        &Family::new(
            "poetry_request_failures",
            "Answers that were not whole, by the reason",
        ),
        each("reason", REASONS, snapshot.failures),
    )?;
    families.counter(
        &Family::bytes("poetry_sent", "Sent to clients, by how they were answered"),
        each("class", classes, snapshot.sent),
    )?;
    families.histogram(
        &Family::seconds(
            "poetry_request_wait",
            "From accept to the first byte of the answer",
        ),
        [(NO_LABELS, &snapshot.wait)],
    )?;

    families.gauge(
        &Family::new("poetry_connections", "Connections that are open"),
        [(NO_LABELS, connections.open)],
    )?;
    families.gauge(
        &Family::new("poetry_connections_limit", "The most that may be open"),
        [(NO_LABELS, connections.limit)],
    )?;
    refused(families, snapshot)?;
    families.counter(
        &Family::new(
            "poetry_accept_pauses",
            "Pauses of accepting for lack of a resource",
        ),
        [(NO_LABELS, snapshot.accept_pauses)],
    )?;

    let transforms = &snapshot.transforms;
    let results = [
        transforms.done,
        transforms.failed,
        transforms.declined,
        transforms.known,
    ];
    families.counter(
        &Family::new("poetry_transforms", "Transformations, by how they ended"),
        each("result", ["done", "failed", "declined", "known"], results),
    )
}

/// The clients that are kept out.
fn refused(families: &mut Families<'_>, snapshot: &Snapshot) -> Result {
    families.counter(
        &Family::new(
            "poetry_connections_refused",
            "Connections refused right after accept, by the reason",
        ),
        each("reason", REFUSALS, snapshot.refused),
    )?;
    families.counter(
        &Family::new(
            "poetry_connections_unmetered",
            "Connections that --client-rate had no room to count",
        ),
        [(NO_LABELS, snapshot.unmetered)],
    )
}

/// What a service that fetches has.
fn fetching(families: &mut Families<'_>, fetches: &FetchCounts) -> Result {
    let by_cause = FetchCounts::CAUSES.into_iter().zip(fetches.ended);
    let ended = by_cause.flat_map(|(cause, numbers)| {
        let by_result = FetchCounts::RESULTS.into_iter().zip(numbers);
        by_result.map(move |(result, number)| ([("cause", cause), ("result", result)], number))
    });
    families.counter(
        &Family::new(
            "poetry_fetches",
            "Fetches that ended, by what they were for and how",
        ),
        ended,
    )?;

    families.gauge(
        &Family::new("poetry_flights", "Fetches that run or are in the queue"),
        [(NO_LABELS, fetches.running.saturating_add(fetches.waiting))],
    )?;
    families.gauge(
        &Family::new(
            "poetry_flight_readers",
            "Clients that read a fetch or wait for it",
        ),
        [(NO_LABELS, fetches.readers)],
    )?;

    families.gauge(
        &Family::new(
            "poetry_upstream_places",
            "The most fetches that may run at once",
        ),
        [(NO_LABELS, fetches.places)],
    )?;
    families.gauge(
        &Family::new("poetry_upstream_queue", "Fetches in the queue"),
        [(NO_LABELS, fetches.waiting)],
    )?;
    families.gauge(
        &Family::seconds(
            "poetry_upstream_queue_oldest",
            "How long the oldest of them waits",
        ),
        [(NO_LABELS, fetches.oldest_wait.as_secs_f64())],
    )?;
    families.counter(
        &Family::new(
            "poetry_upstream_rate_waits",
            "Fetches that waited until an upstream might be asked",
        ),
        [(NO_LABELS, fetches.rate_waits)],
    )
}

/// What is told of each server that texts are fetched from.
fn upstreams(
    families: &mut Families<'_>,
    upstreams: &[UpstreamCounts],
    time: SystemTime,
) -> Result {
    let name = |upstream: &'_ UpstreamCounts| [("upstream", upstream.name.clone())];
    let failures = upstreams.iter().flat_map(|upstream| {
        let by_error = ERRORS.into_iter().zip(upstream.failures);
        by_error.map(move |(error, number)| {
            let labels = [("upstream", upstream.name.as_str()), ("error", error)];
            (labels, number)
        })
    });
    families.counter(
        &Family::new(
            "poetry_fetch_failures",
            "Attempts that failed, by server and error",
        ),
        failures,
    )?;
    families.histogram(
        &Family::seconds(
            "poetry_fetch_duration",
            "How long whole answers of a server took",
        ),
        upstreams.iter().map(|it| (name(it), &it.durations)),
    )?;
    families.counter(
        &Family::bytes("poetry_received", "Received from a server"),
        upstreams.iter().map(|it| (name(it), it.received)),
    )?;

    families.gauge(
        &Family::new(
            "poetry_upstream_up",
            "1, but 0 from a failure to the next answer",
        ),
        upstreams.iter().map(|it| (name(it), is_up(it))),
    )?;
    families.gauge(
        &Family::new("poetry_upstream_connections", "Connections to a server"),
        upstreams.iter().map(|it| (name(it), it.connections)),
    )?;
    families.gauge(
        &Family::seconds(
            "poetry_upstream_last_success_timestamp",
            "When a server last answered whole, since 1970; 0 for never",
        ),
        upstreams
            .iter()
            .map(|it| (name(it), last_success(it, time))),
    )
}

/// What a service with a cache has.
fn cached(families: &mut Families<'_>, cache: &CacheCounts, snapshot: &Snapshot) -> Result {
    let purposes = ["kept", "in_flight", "remembered"];
    let held = [cache.kept, cache.in_flight, cache.failures];
    families.gauge(
        &Family::bytes("poetry_cache_held", "Memory held, by what holds it"),
        each("purpose", purposes, held.map(|(_, bytes)| bytes)),
    )?;
    families.gauge(
        &Family::new("poetry_cache_entries", "Texts, fetches and cached failures"),
        each("purpose", purposes, held.map(|(entries, _)| entries)),
    )?;
    families.gauge(
        &Family::bytes("poetry_cache_capacity", "The most that may be held"),
        [(NO_LABELS, cache.capacity)],
    )?;

    let evicted = [cache.evicted_kept, cache.evicted_failures];
    families.counter(
        &Family::new(
            "poetry_cache_evictions",
            "Texts and cached failures evicted for space",
        ),
        each("purpose", ["kept", "remembered"], evicted),
    )?;
    let purges = &snapshot.purges;
    families.counter(
        &Family::new("poetry_purges", "Purges, by what was purged"),
        each(
            "scope",
            ["all", "prefix", "key"],
            [purges.all, purges.prefix, purges.key],
        ),
    )
}

/// What a service has that keeps texts warm.
fn kept_warm(families: &mut Families<'_>, counts: &WarmCounts) -> Result {
    let numbers = [counts.fresh, counts.failed, counts.waiting];
    families.gauge(
        &Family::new("poetry_warm_requests", "Requests of --warm, by their text"),
        each("state", ["fresh", "failed", "waiting"], numbers),
    )
}

/// What should stay at 0.
fn bugs_and_log(families: &mut Families<'_>, snapshot: &Snapshot, lost: u64) -> Result {
    families.counter(
        &Family::new(
            "poetry_log_lines_dropped",
            "Lines of the log that were lost",
        ),
        [(NO_LABELS, lost)],
    )?;
    families.counter(
        &Family::new("poetry_panics", "Tasks that ended by a bug"),
        [(NO_LABELS, snapshot.panics)],
    )
}

/// The figures that every Prometheus client has, under the names they all use.
fn process(families: &mut Families<'_>, process: &Process) -> Result {
    if let Some(cpu) = process.cpu {
        let family = Family::seconds("process_cpu", "Time spent on a core");
        families.seconds_counter(&family, cpu.as_secs_f64())?;
    }
    if let Some(bytes) = process.resident_bytes {
        let family = Family::bytes("process_resident_memory", "Memory that is in RAM");
        families.gauge(&family, [(NO_LABELS, bytes)])?;
    }
    if let Some(open) = process.open_descriptors {
        let family = Family::new("process_open_fds", "Open descriptors");
        families.gauge(&family, [(NO_LABELS, open)])?;
    }
    if let Some(most) = process.max_descriptors {
        let family = Family::new("process_max_fds", "The most descriptors that may be open");
        families.gauge(&family, [(NO_LABELS, most)])?;
    }
    if let Some(start) = process.start {
        let family = Family::seconds("process_start_time", "When it started, since 1970");
        families.gauge(&family, [(NO_LABELS, since_1970(start))])?;
    }
    if let Some(threads) = process.threads {
        let family = Family::new("process_threads", "Threads");
        families.gauge(&family, [(NO_LABELS, threads)])?;
    }
    Ok(())
}

/// A number for each value of one label.
fn each<const N: usize>(
    label: &'static str,
    values: [&'static str; N],
    numbers: [u64; N],
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    let series = values.into_iter().zip(numbers);
    series.map(move |(value, number)| ([(label, value)], number))
}

fn is_up(upstream: &UpstreamCounts) -> u64 {
    match upstream.state {
        UpstreamState::Up | UpstreamState::Unknown => 1,
        UpstreamState::Down(_) => 0,
    }
}

fn last_success(upstream: &UpstreamCounts, time: SystemTime) -> f64 {
    let success = upstream.last_success.and_then(|ago| time.checked_sub(ago));
    success.map_or(0.0, since_1970)
}

/// In seconds; to a millisecond, as Prometheus knows no finer time.
fn since_1970(time: SystemTime) -> f64 {
    let elapsed = time.duration_since(SystemTime::UNIX_EPOCH);
    let elapsed = elapsed.unwrap_or(Duration::ZERO);
    elapsed.as_millis() as f64 / 1000.0
}

/// The upstreams, those of one name as one: a series that comes twice makes Prometheus
/// refuse the whole text, and a command line may name a server twice.
fn by_name(upstreams: Vec<UpstreamCounts>) -> Vec<UpstreamCounts> {
    let mut known: Vec<UpstreamCounts> = Vec::with_capacity(upstreams.len());
    for upstream in upstreams {
        let same = known.iter_mut().find(|known| known.name == upstream.name);
        if let Some(same) = same {
            join(same, upstream);
        } else {
            known.push(upstream);
        }
    }
    known
}

/// Adds the figures of an upstream to those of another with its name. It is up if one
/// of them is.
fn join(upstream: &mut UpstreamCounts, other: UpstreamCounts) {
    upstream.connections += other.connections;
    upstream.received += other.received;
    add(&mut upstream.failures, &other.failures);
    let Histogram { counts, sum, .. } = &mut upstream.durations;
    add(counts, &other.durations.counts);
    *sum += other.durations.sum;

    if is_up(&other) == 1 {
        upstream.state = other.state;
    }
    let successes = [upstream.last_success, other.last_success];
    upstream.last_success = successes.into_iter().flatten().min();
}

fn add(numbers: &mut [u64], others: &[u64]) {
    for (number, other) in numbers.iter_mut().zip(others) {
        *number += other;
    }
}
