//! Holds the table of docs/status.md against the JSON.

use super::*;
use crate::admin::clock::tests::clock;
use crate::admin::keys::keys;
use crate::admin::sample::{history, now, plain_snapshot, secs, snapshot, upstream};
use crate::control::{KeyList, KeyState, KeyView, Phase};
use crate::observe::Event;
use std::collections::BTreeSet;

const DOC: &str = include_str!("../../../../docs/status.md");

fn about() -> About {
    About {
        command: "proxy",
        version: "0.1.0",
        pid: 4711,
        protocol: "line".to_string(),
        listen: vec!["192.0.2.10:43".to_string()],
        ttl: Some(secs(86400)),
        grace: Some(secs(604800)),
    }
}

fn flight(name: &[u8]) -> FlightView {
    FlightView {
        name: name.to_vec(),
        phase: Phase::Streaming,
        upstream: Some("one.example:43".to_string()),
        age: Duration::from_millis(3100),
        bytes: 1460,
        readers: 3,
        is_refresh: false,
    }
}

/// The status of a proxy in which everything can be seen.
fn full() -> Value {
    let now = now();
    let mut snapshot = snapshot();
    let history = history(&mut snapshot, now, |snapshot, _| {
        snapshot.connections.hit += 1
    });
    snapshot.upstreams[0] = upstream("one.example:43", UpstreamState::Down(secs(90)));
    snapshot.feed = Some(FeedCounts::default());
    let notices = Notices::new();
    notices.note_event(&Event::Draining { open: 1 }, now);

    to_json(&StatusParts {
        about: &about(),
        snapshot: &snapshot,
        history: &history,
        span: secs(300),
        notices: &notices,
        flights: Some(&[flight("m\u{fc}nchen".as_bytes())]),
        is_draining: false,
        clock: &clock(now),
    })
}

/// The paths of all fields: `a.b`, and `a[].b` for lists of objects.
fn paths(value: &Value, above: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let dot = if above.is_empty() { "" } else { "." };
                paths(value, &format!("{above}{dot}{name}"), found);
            }
        }
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            list.iter()
                .for_each(|item| paths(item, &format!("{above}[]"), found));
        }
        _ => {
            found.insert(above.to_string());
        }
    }
}

fn paths_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    paths(value, "", &mut found);
    found
}

/// The first column of the table under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let section = DOC.split(heading).nth(1).expect(heading);
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| {
        let cell = row.split('|').nth(1).expect("a cell");
        cell.split('`').skip(1).step_by(2).map(str::to_string)
    });
    names.collect()
}

#[test]
fn every_field_of_the_status_is_documented() {
    // Lists with a name for each reason and kind are documented as one field.
    let mut status = full();
    for (path, name) in [
        ("/failures", "REASON"),
        ("/upstreams/0/errors", "KIND"),
        ("/upstreams/1/errors", "KIND"),
    ] {
        *status.pointer_mut(path).unwrap() = json!({ name: 1 });
    }
    let mut found = paths_of(&status);
    // These are null for a service that has none.
    found.extend(["cache", "queue", "store", "fleet", "warm", "feed"].map(str::to_string));

    assert_eq!(found, documented("## Status"));
}

#[test]
fn every_field_of_a_key_is_documented() {
    let view = KeyView {
        name: b"example.net".to_vec(),
        route: Some("*.example".into()),
        state: KeyState::Fresh,
        is_in_flight: false,
        bytes: 1,
        age: None,
        fresh_for: secs(1),
        served_for: secs(1),
    };
    let list = KeyList {
        keys: vec![view],
        next: Some(1),
        total: 1,
    };
    assert_eq!(paths_of(&keys(&list)), documented("## Keys"));
}

#[test]
fn the_status_says_what_the_page_shows() {
    let status = full();
    let table = [
        ("/schema", json!(1)),
        ("/time", json!("2026-11-26T11:47:06.000Z")),
        ("/poetry/uptime_s", json!(789.0)),
        ("/health/state", json!("degraded")),
        ("/settings/ttl_s", json!(86400.0)),
        ("/requests/hit", json!(200)),
        ("/requests/total", json!(200)),
        ("/received_bytes", json!(5800)),
        ("/wait/le", json!([0.001, 0.25, 1.0, null])),
        ("/wait/counts", json!([0, 0, 0, 0])),
        (
            "/cache/bytes",
            json!({"cached": 1200, "in_flight": 200, "failures": 0, "total": 1400}),
        ),
        (
            "/cache/entries",
            json!({"cached": 137, "in_flight": 5, "failures": 0}),
        ),
        ("/queue/places", json!(2)),
        ("/upstreams/0/state", json!("failing")),
        (
            "/upstreams/0/failing_since",
            json!("2026-11-26T11:45:36.000Z"),
        ),
        ("/upstreams/0/failures", json!(187)),
        ("/upstreams/0/errors/refused", json!(187)),
        (
            "/upstreams/0/last_error/text",
            json!("could not connect: connection refused"),
        ),
        ("/upstreams/1/state", json!("unknown")),
        ("/upstreams/1/failing_since", Value::Null),
        ("/upstreams/1/median_s", json!(0.1255)),
        ("/flights/0/phase", json!("streams")),
        ("/flights/0/id", json!("m%C3%BCnchen")),
        ("/notices/0/level", json!("info")),
    ];
    for (path, value) in table {
        assert_eq!(status.pointer(path), Some(&value), "{path}");
    }
}

#[test]
fn a_service_of_its_own_has_no_cache_and_no_upstreams() {
    let now = now();
    let status = to_json(&StatusParts {
        about: &About {
            command: "serve",
            ttl: None,
            grace: None,
            ..about()
        },
        snapshot: &plain_snapshot(),
        history: &History::new(now),
        span: Duration::ZERO,
        notices: &Notices::new(),
        flights: Some(&[]),
        is_draining: true,
        clock: &clock(now),
    });

    assert_eq!(status["cache"], Value::Null);
    assert_eq!(status["queue"], Value::Null);
    assert_eq!(status["settings"]["ttl_s"], Value::Null);
    assert_eq!(status["upstreams"], json!([]));
    assert_eq!(status["health"]["state"], "draining");
    assert_eq!(status.get("history"), None);
}

#[test]
fn names_of_requests_are_for_those_that_may_know_them_and_limited() {
    let now = now();
    let many: Vec<FlightView> = (0..60).map(|_| flight(b"\x1b")).collect();
    let status = |flights| {
        status(&StatusParts {
            about: &about(),
            snapshot: &snapshot(),
            history: &History::new(now),
            span: secs(300),
            notices: &Notices::new(),
            flights,
            is_draining: false,
            clock: &clock(now),
        })
    };

    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&status(None)).get("flights"), None);
    let shown = status(Some(&many));
    assert_eq!(
        parse(&shown)["flights"].as_array().map(Vec::len),
        Some(MAX_FLIGHTS)
    );
    assert_eq!(parse(&shown)["flights"][0]["key"], r"\u{1b}");
    assert!(!shown.contains('\x1b') && !shown.contains('\n'));
}
