//! The seam to what is shown: pages, figures and lists for programs.

use crate::control::{FlightView, KeyList, KeyView, Snapshot, UpstreamCounts, UpstreamState};
use crate::escape;
use serde_json::{Value, json};

pub(super) const PAGE: &str = "poetry\n";
pub(super) const STYLE: &str = "";
pub(super) const SCRIPT: &str = "";

/// The figures for Prometheus, and their type.
pub(super) fn metrics(snapshot: &Snapshot, _accept: &str) -> (&'static str, String) {
    let text = format!("poetry_connections {}\n", snapshot.connections.open);
    ("text/plain; version=0.0.4; charset=utf-8", text)
}

pub(super) fn status(snapshot: &Snapshot, flights: &[FlightView], state: String) -> Value {
    json!({
        "schema": 1,
        "poetry": {
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": snapshot.uptime.as_secs(),
        },
        "health": { "state": state, "reasons": [] },
        "clients": { "open": snapshot.connections.open, "limit": snapshot.connections.limit },
        "requests": { "total": snapshot.connections.ended() },
        "upstreams": upstreams(&snapshot.upstreams),
        "flights": self::flights(flights),
        "notices": notices(),
    })
}

pub(super) fn keys(list: &KeyList) -> Value {
    json!({
        "keys": list.keys.iter().map(key).collect::<Vec<_>>(),
        "next": list.next.map(|next| next.to_string()),
        "total": list.total,
    })
}

pub(super) fn key(view: &KeyView) -> Value {
    json!({ "key": shown(&view.name), "state": view.state.word(), "bytes": view.bytes })
}

pub(super) fn flights(list: &[FlightView]) -> Value {
    let flight =
        |view: &FlightView| json!({ "key": shown(&view.name), "phase": view.phase.word() });
    list.iter().map(flight).collect()
}

pub(super) fn upstreams(list: &[UpstreamCounts]) -> Value {
    let upstream = |upstream: &UpstreamCounts| {
        let is_down = matches!(upstream.state, UpstreamState::Down(_));
        json!({ "addr": upstream.name, "failing": is_down })
    };
    list.iter().map(upstream).collect()
}

pub(super) fn notices() -> Value {
    json!([])
}

/// A name as text: nothing in it controls a terminal or turns the direction of text.
pub(super) fn shown(name: &[u8]) -> String {
    escape::text(&String::from_utf8_lossy(name))
}
