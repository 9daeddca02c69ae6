//! Holds the tables of docs/logs.md against the objects.

use super::*;
use poetry::control::{
    CacheCounts, FeedCounts, FetchCounts, FleetCounts, Histogram, StoreCounts, WarmCounts,
};
use poetry::error::Stage;
use poetry::observe::{
    AccessRecord, CacheStatus, FeedNote, FetchCause, FetchName, FetchNote, Outcome, StoreUse,
};
use poetry::stats::Stats;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("../../../../docs/logs.md");

/// The names in back quotes in one column of the rows of the table under a heading.
fn table(heading: &str, column: usize) -> Vec<Vec<String>> {
    let section = PAGE.split(heading).nth(1).expect(heading);
    let section = section.split("\n### ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = |row: &str| {
        let cell = row.split('|').nth(column).expect("a cell");
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.map(str::to_string).collect()
    };
    rows.map(names).collect()
}

fn first_column(heading: &str) -> BTreeSet<String> {
    table(heading, 1).into_iter().flatten().collect()
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("it is JSON")
}

fn fields(object: &Value) -> BTreeSet<String> {
    let object = object.as_object().expect("it is an object");
    object.keys().cloned().collect()
}

const TIME: Duration = Duration::from_secs(1);

fn timeout() -> Error {
    Error::Timeout {
        subject: "a server".into(),
        stage: Stage::Connect,
        limit: TIME,
    }
}

/// An object of each event. The compiler asks for those that are new, in
/// `Event::word` and in `add_fields`.
fn all_events() -> Vec<Value> {
    let (error, next) = (&timeout(), "another server");
    let (bytes, time, open) = (1, TIME, 1);
    let (upstream, pause, why) = ("a server", TIME, "too short");
    let fetch = FetchName {
        upstream,
        request: b"name",
        cause: FetchCause::Stale,
        route: Some("*.example"),
    };
    let kept = true;
    let purged = Reloaded::Purged { texts: 1 };
    let poems = Reloaded::Poems { poems: 1 };
    let routes = Reloaded::Routes {
        routes: 1,
        texts: 1,
    };
    let (verb, addrs) = ("Serving", &["127.0.0.1:1".to_string()][..]);
    let signal = "SIGTERM";
    let full = &std::io::Error::from_raw_os_error(24);
    let waiting = 0;

    let events = [
        Event::Started { verb, addrs },
        Event::FetchFailed {
            fetch,
            error,
            time,
            waiting,
        },
        Event::Fetched {
            fetch,
            bytes,
            time,
            kept,
        },
        Event::FromStore {
            fetch,
            bytes,
            is_stale: true,
        },
        Event::Warmed {
            path: "a path",
            texts: 2,
            failed: 1,
            time,
        },
        Event::FetchDelayed { fetch },
        Event::Following { fetch },
        Event::TakenOver { fetch },
        Event::GivenUp { fetch, bytes, time },
        Event::Rejected { fetch, why },
        Event::NextUpstream { fetch, error, next },
        Event::UpstreamDown {
            upstream,
            error,
            pause,
        },
        Event::UpstreamPaused { upstream, pause },
        Event::ProgramSaid {
            upstream,
            line: "a line",
        },
        Event::UpstreamUp {
            upstream,
            after: TIME,
        },
        Event::SentOriginal { fetch, error },
        Event::Declined { error },
        Event::FewDescriptors { clients: 1 },
        Event::AcceptPaused { error: full, pause },
        Event::ClientsRefused {
            why,
            from: Some([192, 0, 2, 1].into()),
            count: 2,
        },
        Event::Stopping { signal, open },
        Event::Draining { open },
        Event::Cut { open },
        Event::Purged {
            scope: "prefix",
            name: b"a",
            how: "hard",
            texts: 1,
        },
        Event::Reloaded { what: purged },
        Event::Reloaded { what: poems },
        Event::Reloaded { what: routes },
        Event::Reloaded {
            what: Reloaded::Lists { nets: 3 },
        },
        Event::ReloadFailed { error },
        Event::PoemSkipped { error },
    ];
    let store_news = all_store_news();
    let store_events = store_news.iter().map(|news| {
        let path = "a path";
        event(&Event::Store { path, news })
    });

    let feed_news = [
        FeedNews::LinesLost {
            lines: 2,
            readers: 1,
        },
        FeedNews::LineTooLong { longest: 1024 },
    ];
    let feed_events = feed_news
        .iter()
        .map(|news| event(&Event::Feed { upstream, news }));

    let figures = Snapshot {
        feed: Some(FeedCounts::default()),
        store: Some(StoreCounts {
            fleet: Some(FleetCounts::default()),
            ..StoreCounts::default()
        }),
        warm: Some(WarmCounts::default()),
        fetches: Some(FetchCounts::default()),
        cache: Some(CacheCounts::default()),
        upstreams: vec![an_upstream()],
        ..Snapshot::of(&Stats::default(), Instant::now())
    };
    let others = [
        summary(&figures, 0),
        lost(1),
        super::error(error, &error.to_string()),
        warning("an odd option"),
        panic("a bug"),
    ];

    let events = events.iter().map(event).chain(store_events);
    let events = events.chain(feed_events);
    events.chain(others).map(|line| parse(&line)).collect()
}

fn all_store_news() -> [StoreNews; 18] {
    let why = || "a reason".to_string();
    [
        StoreNews::Opened {
            texts: 1,
            bytes: 1,
            past: 1,
        },
        StoreNews::Damaged {
            aside: "a path".into(),
        },
        StoreNews::DamagedText,
        StoreNews::Newer,
        StoreNews::Unwritable { why: why() },
        StoreNews::Held,
        StoreNews::Writable,
        StoreNews::QueueFull,
        StoreNews::Discarded { why: why() },
        StoreNews::Off { why: why() },
        StoreNews::Joined,
        StoreNews::Silent { limit: TIME },
        StoreNews::Unreached { why: why() },
        StoreNews::Refused { why: why() },
        StoreNews::NotRedis { why: why() },
        StoreNews::Answers {
            after: TIME,
            alone: 1,
        },
        StoreNews::Unshared { why: why() },
        StoreNews::PurgeOwed,
    ]
}

/// One that is down, with all its figures.
fn an_upstream() -> UpstreamCounts {
    UpstreamCounts {
        name: "a server".into(),
        state: UpstreamState::Down(TIME),
        paused: Some(Duration::from_secs(1)),
        connections: 1,
        asked: 2,
        failures: [1; ERRORS.len()],
        durations: Histogram::default(),
        received: 3,
        last_success: Some(TIME),
        last_error: Some(("a reason".into(), TIME)),
    }
}

#[test]
fn the_table_of_upstreams_has_each_figure_and_no_other() {
    let listed = first_column("### Upstreams");
    assert_eq!(listed, fields(&upstream(&an_upstream())));
}

/// Requests of each status that fail, and one that does not.
fn all_requests() -> Vec<Value> {
    let later = Instant::now() + TIME;
    let statuses = [
        CacheStatus::Hit(later),
        CacheStatus::Stale,
        CacheStatus::Coalesced,
        CacheStatus::Miss,
        CacheStatus::Negative,
        CacheStatus::Own,
        CacheStatus::Live,
        CacheStatus::NoRequest,
    ];
    let feed = FeedNote { lines: 3, lost: 1 };
    let failed = Outcome::Failed(Arc::new(timeout()));
    let ends = [failed, Outcome::Whole];
    let each = statuses
        .into_iter()
        .flat_map(|status| ends.clone().map(|end| (status, end)));

    let note = FetchNote {
        cause: FetchCause::Miss,
        upstream: Some("a server".into()),
        time: Some(TIME),
        store: Some(StoreUse::Stale),
        is_takeover: true,
    };
    let object = |(status, outcome)| {
        let record = AccessRecord {
            peer: &"127.0.0.1:1",
            request: b"name",
            status,
            route: None,
            fetch: Some(&note),
            outcome,
            bytes: 1,
            wait: TIME,
            total: TIME,
            stored: true,
            feed: (status == CacheStatus::Live).then_some(feed),
        };
        parse(&request(&record, 10))
    };
    each.map(object).collect()
}

#[test]
fn the_table_of_events_has_each_event_with_its_fields() {
    let names = table("### Events", 1).into_iter().flatten();
    let listed: BTreeMap<String, BTreeSet<String>> = names
        .zip(table("### Events", 4))
        .map(|(name, fields)| (name, fields.into_iter().collect()))
        .collect();

    let mut logged = BTreeMap::new();
    for object in all_events() {
        let mut fields = fields(&object);
        assert!(fields.remove("time") && fields.remove("event"), "{object}");
        let name = object["event"].as_str().expect("a name").to_string();
        logged.insert(name, fields);
    }
    assert_eq!(listed, logged);
}

#[test]
fn the_table_of_fields_has_each_field_and_no_other() {
    let objects = all_events().into_iter().chain(all_requests());
    let logged: BTreeSet<String> = objects.flat_map(|object| fields(&object)).collect();
    assert_eq!(first_column("### Fields"), logged);
}

#[test]
fn the_tables_of_classes_and_outcomes_have_what_is_logged() {
    let classes = all_requests().into_iter();
    let classes: BTreeSet<String> = classes
        .map(|object| object["class"].as_str().expect("a word").to_string())
        .collect();
    assert_eq!(first_column("### Classes"), classes);

    let outcomes = first_column("### Outcomes");
    for object in all_events().into_iter().chain(all_requests()) {
        let outcome = object["outcome"].as_str();
        assert!(
            outcome.is_none_or(|word| outcomes.contains(word)),
            "{object}"
        );
    }
}
