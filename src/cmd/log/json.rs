//! The log for machines: one JSON object per line, in the terms of RFC 9211.

use poetry::escape;
use poetry::observe::{AccessRecord, CacheStatus};
use serde_json::json;
use std::time::Instant;

pub(super) fn request(record: &AccessRecord<'_>) -> String {
    let mut object = json!({
        "time": now(),
        "peer": record.peer.to_string(),
        "class": record.class().word(),
        "hit": matches!(record.status, CacheStatus::Hit(_) | CacheStatus::Negative),
        "collapsed": record.status == CacheStatus::Coalesced,
        "bytes": record.bytes,
        "wait_ms": record.wait.as_millis() as u64,
        "total_ms": record.total.as_millis() as u64,
        "outcome": record.outcome.word(),
        "key": String::from_utf8_lossy(record.request),
    });

    match record.status {
        CacheStatus::Hit(until) => {
            let ttl = until.saturating_duration_since(Instant::now());
            object["ttl"] = json!(ttl.as_secs());
        }
        CacheStatus::Miss => {
            object["fwd"] = json!("miss");
            object["stored"] = json!(record.stored);
        }
        CacheStatus::Coalesced => object["fwd"] = json!("miss"),
        CacheStatus::Stale => object["fwd"] = json!("stale"),
        CacheStatus::Negative | CacheStatus::Own | CacheStatus::NoRequest => {}
    }
    escape::json(object.to_string())
}

pub(super) fn warning(text: &str) -> String {
    let object = json!({ "time": now(), "notice": text });
    escape::json(object.to_string())
}

fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

/// A warning about the command line.
pub(super) fn advice(text: &str) -> String {
    let object = json!({ "time": now(), "event": "warning", "reason": text });
    escape::json(object.to_string())
}
