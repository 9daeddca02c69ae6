//! The status of a service as JSON: what the page shows, and what scripts read.
//! docs/status.md has the table of all fields.

use super::clock::Clock;
use super::health::{HealthReport, LOOK_BACK, reason_of};
use super::history::{self, History, quantile};
use super::keys::{flights, seconds};
use super::notices::Notices;
use crate::control::{
    CacheCounts, ERRORS, FeedCounts, FetchCounts, FleetCounts, FlightView, Histogram, REASONS,
    REFUSALS, Snapshot, StoreCounts, UpstreamCounts, UpstreamState, WarmCounts,
};
use crate::escape;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The version of the fields' meaning. New fields don't change it.
pub const SCHEMA: u64 = 1;

/// The most fetches that the status shows, the oldest first: more than a screen of
/// them. `/flights` has them all.
pub const MAX_FLIGHTS: usize = 50;

/// What a service is: what does not change while it runs.
#[derive(Debug, Clone)]
pub struct About {
    /// `proxy`, `serve` or `transform`.
    pub command: &'static str,
    /// The version of poetry.
    pub version: &'static str,
    /// The number of the process.
    pub pid: u32,
    /// The word for its protocol.
    pub protocol: String,
    /// The addresses it listens on.
    pub listen: Vec<String>,
    /// How long a text is fresh; `None` for a service without a cache.
    pub ttl: Option<Duration>,
    /// How long a text is served after that; `None` for a service without a cache.
    pub grace: Option<Duration>,
}

/// All that a status is made of.
pub struct StatusParts<'a> {
    /// What the service is.
    pub about: &'a About,
    /// Its figures.
    pub snapshot: &'a Snapshot,
    /// Its last five minutes.
    pub history: &'a History,
    /// How much of them is wanted; zero for none.
    pub span: Duration,
    /// Its last troubles.
    pub notices: &'a Notices,
    /// Its fetches; `None` for a reader that may not know what is asked for.
    pub flights: Option<&'a [FlightView]>,
    /// Whether it stops.
    pub is_draining: bool,
    /// This moment.
    pub clock: &'a Clock,
}

/// The status, as one line of JSON.
pub fn status(parts: &StatusParts<'_>) -> String {
    escape::json(to_json(parts).to_string())
}

/// The status.
pub fn to_json(parts: &StatusParts<'_>) -> Value {
    let StatusParts {
        about,
        snapshot,
        history,
        clock,
        ..
    } = parts;
    let health = HealthReport::of(snapshot, history, parts.is_draining, clock);
    let received: u64 = snapshot
        .upstreams
        .iter()
        .map(|upstream| upstream.received)
        .sum();

    let mut object = json!({
        "schema": SCHEMA,
        "time": clock.date(clock.now()),
        "poetry": {
            "command": about.command,
            "version": about.version,
            "pid": about.pid,
            "uptime_s": seconds(snapshot.uptime),
        },
        "health": { "state": health.condition.word(), "reasons": health.reasons },
        "settings": {
            "protocol": about.protocol,
            "listen": about.listen,
            "ttl_s": about.ttl.map(seconds),
            "grace_s": about.grace.map(seconds),
        },
        "clients": {
            "open": snapshot.connections.open,
            "limit": snapshot.connections.limit,
            "refused": named(&REFUSALS, &snapshot.refused),
            "unmetered": snapshot.unmetered,
        },
        "requests": history::requests(&snapshot.connections),
        "failures": named(&REASONS, &snapshot.failures),
        "sent_bytes": snapshot.sent.iter().sum::<u64>(),
        "received_bytes": received,
        "wait": wait(&history.wait()),
        "cache": snapshot.cache.map(|counts| cache(&counts, history)),
        "store": snapshot.store.as_ref().map(|counts| store(counts, clock)),
        "queue": snapshot.fetches.as_ref().map(queue),
        "feed": snapshot.feed.as_ref().map(feed),
        "warm": snapshot.warm.as_ref().map(warm),
        "fleet": snapshot.store.as_ref().and_then(|store| store.fleet.as_ref()).map(fleet),
        "upstreams": upstreams(&snapshot.upstreams, clock),
        "notices": parts.notices.to_json(clock),
    });
    if let Some(list) = parts.flights {
        object["flights"] = flights(&list[..list.len().min(MAX_FLIGHTS)]);
    }
    if !parts.span.is_zero() {
        object["history"] = history.to_json(parts.span, clock);
    }
    object
}

/// The upstreams, in the order of the command line.
pub fn upstreams(list: &[UpstreamCounts], clock: &Clock) -> Value {
    list.iter().map(|counts| upstream(counts, clock)).collect()
}

fn upstream(counts: &UpstreamCounts, clock: &Clock) -> Value {
    let (state, down) = match counts.state {
        UpstreamState::Unknown => ("unknown", None),
        UpstreamState::Up => ("ok", None),
        UpstreamState::Down(time) => ("failing", Some(time)),
    };
    let since = down.and_then(|time| clock.now().checked_sub(time));
    let durations = &counts.durations;
    let last_error = counts.last_error.as_ref();

    json!({
        "addr": escape::text(&counts.name),
        "state": state,
        "paused_s": counts.paused.map(seconds),
        "failing_since": since.map(|at| clock.date(at)),
        "connections": counts.connections,
        "fetches": counts.asked,
        "failures": counts.failures.iter().sum::<u64>(),
        "errors": named(&ERRORS, &counts.failures),
        "received_bytes": counts.received,
        "median_s": quantile(durations.bounds, &durations.counts, 0.5),
        "last_ok_s": counts.last_success.map(seconds),
        "last_error": last_error.map(|(text, ago)| {
            json!({ "text": reason_of(text, &counts.name), "ago_s": seconds(*ago) })
        }),
    })
}

/// The bound of the last bucket is null: it has none.
fn wait(histogram: &Histogram) -> Value {
    let mut bounds: Vec<Option<f64>> = histogram.bounds.iter().copied().map(Some).collect();
    bounds.push(None);

    let mut counts = histogram.counts.clone();
    counts.resize(bounds.len(), 0);
    json!({ "le": bounds, "counts": counts })
}

fn cache(counts: &CacheCounts, history: &History) -> Value {
    json!({
        "capacity": counts.capacity,
        "keys": counts.keys,
        "bytes": {
            "cached": counts.kept.1,
            "in_flight": counts.in_flight.1,
            "failures": counts.failures.1,
            "total": counts.bytes,
        },
        "entries": {
            "cached": counts.kept.0,
            "in_flight": counts.in_flight.0,
            "failures": counts.failures.0,
        },
        "evictions": counts.evicted_kept + counts.evicted_failures,
        "evictions_minute": history.last(LOOK_BACK).evicted(),
    })
}

fn feed(counts: &FeedCounts) -> Value {
    json!({
        "connected_s": counts.connected.map(seconds),
        "connections": counts.connections,
        "readers": counts.readers,
        "slow": counts.slow,
        "lines": counts.lines,
        "bytes": counts.bytes,
        "lost": counts.lost,
        "too_long": counts.too_long,
        "cut": counts.cut,
        "held": counts.held,
        "backlog": counts.backlog,
    })
}

fn store(counts: &StoreCounts, clock: &Clock) -> Value {
    let since = clock.now().checked_sub(counts.state_for);
    json!({
        "name": escape::text(&counts.name),
        "state": counts.state.word(),
        "since": since.map(|at| clock.date(at)),
        "hits": counts.hits,
        "stale": counts.stale,
        "misses": counts.misses,
        "late": counts.late,
        "written": counts.written,
        "dropped": counts.dropped,
        "errors": counts.errors,
        "entries": counts.texts,
        "bytes": counts.bytes,
        "capacity": counts.capacity,
    })
}

fn queue(counts: &FetchCounts) -> Value {
    json!({
        "places": counts.places,
        "running": counts.running,
        "waiting": counts.waiting,
        "oldest_wait_s": seconds(counts.oldest_wait),
        "readers": counts.readers,
        "begun": counts.begun,
        "kept": counts.kept,
        "passed": counts.passed,
        "failed": counts.failed,
        "refused": counts.refused,
        "rate_waits": counts.rate_waits,
    })
}

fn warm(counts: &WarmCounts) -> Value {
    json!({
        "fresh": counts.fresh,
        "failed": counts.failed,
        "waiting": counts.waiting,
    })
}

fn fleet(counts: &FleetCounts) -> Value {
    let mut object = named(&FleetCounts::WORDS, &counts.all());
    object["purges_owed"] = json!(counts.purges_owed);
    object
}

fn named(names: &[&str], counts: &[u64]) -> Value {
    let pairs = names.iter().zip(counts);
    let object: Map<_, _> = pairs
        .map(|(name, count)| (name.to_string(), json!(count)))
        .collect();
    Value::Object(object)
}

#[cfg(test)]
mod tests;
