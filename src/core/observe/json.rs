//! A request as one line of JSON, in the terms of RFC 9211. docs/logs.md has the table
//! of all fields.
//!
//! The log and all others that show requests to machines use this.

use super::{AccessRecord, CacheStatus, FetchCause};
use crate::escape;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The part of a request that is shown, in bytes.
const KEY_BYTES: usize = 1024;

/// A request. Its line stands for `sample` requests like it.
pub fn request(record: &AccessRecord<'_>, sample: u64) -> String {
    let mut object = json!({
        "time": timestamp(),
        "peer": record.peer.to_string(),
        "class": record.class().word(),
        "hit": matches!(record.status, CacheStatus::Hit(_) | CacheStatus::Negative),
        "collapsed": matches!(record.status, CacheStatus::Coalesced | CacheStatus::Live),
        "bytes": record.bytes,
        "wait_ms": millis(record.wait),
        "total_ms": millis(record.total),
        "outcome": record.outcome.word(),
        "key": key(record.request),
    });

    match record.status {
        CacheStatus::Hit(until) => {
            let ttl = until.saturating_duration_since(Instant::now());
            object["ttl"] = json!(ttl.as_secs());
        }
        CacheStatus::Miss => {
            object["fwd"] = json!(forwarded(record));
            object["stored"] = json!(record.stored);
        }
        CacheStatus::Coalesced => object["fwd"] = json!(forwarded(record)),
        CacheStatus::Stale => object["fwd"] = json!("stale"),
        CacheStatus::Negative | CacheStatus::Own | CacheStatus::Live | CacheStatus::NoRequest => {}
    }
    if let Some(route) = record.route {
        object["route"] = json!(route);
    }
    add_fetch(&mut object, record);
    if let Some(feed) = record.feed {
        object["feed_lines"] = json!(feed.lines);
        object["feed_lost"] = json!(feed.lost);
    }

    if let Some(reason) = record.outcome.reason() {
        object["reason"] = json!(reason);
    }
    if sample > 1 {
        object["sample"] = json!(sample);
    }
    line(&object)
}

/// Why an upstream was needed for a request that waited for a fetch.
fn forwarded(record: &AccessRecord<'_>) -> &'static str {
    let cause = record.fetch.map(|fetch| fetch.cause);
    match cause {
        Some(FetchCause::Stale) => "stale",
        _ => "miss",
    }
}

/// Adds what is known of the fetch that the answer came from.
fn add_fetch(object: &mut Value, record: &AccessRecord<'_>) {
    let Some(fetch) = record.fetch else {
        return;
    };

    object["cause"] = json!(fetch.cause.word());
    if let Some(upstream) = &fetch.upstream {
        object["upstream"] = json!(**upstream);
    }
    if let Some(time) = fetch.time {
        object["fetch_ms"] = json!(millis(time));
    }
    if let Some(store) = fetch.store {
        object["store"] = json!(store.word());
    }
    if fetch.is_takeover {
        object["taken_over"] = json!(true);
    }
}

/// How many lines were lost, because nothing read them in time.
pub fn lost(lines: u64) -> String {
    let mut object = start("lost");
    object["lines"] = json!(lines);
    line(&object)
}

/// The beginning of every event, by its word.
pub fn start(event: &str) -> Value {
    json!({ "time": timestamp(), "event": event })
}

/// An object as one line, in which nothing can harm a terminal.
pub fn line(object: &Value) -> String {
    escape::json(object.to_string())
}

/// What was asked for: the first 1024 bytes of a request.
pub fn key(request: &[u8]) -> String {
    let shown = request.len().min(KEY_BYTES);
    String::from_utf8_lossy(&request[..shown]).into_owned()
}

/// A duration in whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// This moment as RFC 3339 has it, in UTC with milliseconds.
fn timestamp() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}
