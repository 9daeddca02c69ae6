//! The seam to what programs read: the figures and the lists in their formats.

use crate::control::Snapshot;
use crate::escape;
use serde_json::Value;

/// The figures for Prometheus, and their type.
pub(super) fn metrics(snapshot: &Snapshot, _accept: &str) -> (&'static str, String) {
    let text = format!("poetry_connections {}\n", snapshot.connections.open);
    ("text/plain; version=0.0.4; charset=utf-8", text)
}

/// A line of JSON without characters that change what a terminal shows.
pub(super) fn line(value: &Value) -> String {
    escape::json(value.to_string()) + "\n"
}
