//! The answers of the line language, for people: aligned, a line each, and without
//! control characters.

use super::health::{counted, reason_of, thousands};
use super::keys::shown;
use crate::control::{
    FeedCounts, FetchCounts, FleetCounts, FlightView, KeyList, KeyState, KeyView, Snapshot,
    StoreCounts, StoreState, UpstreamCounts, UpstreamState,
};
use humantime::format_duration;
use std::fmt::Write;
use std::time::Duration;

/// The figures at a glance. `state` is `ok`, or what is wrong, for these reasons.
pub(super) fn status(snapshot: &Snapshot, state: &str, reasons: &[String]) -> String {
    let connections = &snapshot.connections;
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = Lines::default();

    lines.add("state", state.into());
    for reason in reasons {
        lines.add("", crate::escape::text(reason));
    }
    lines.add("poetry", format!("{version}, up {}", time(snapshot.uptime)));
    let limit = match connections.limit {
        0 => String::new(),
        limit => format!(" of {}", thousands(limit)),
    };
    let open = thousands(connections.open);
    lines.add("clients", format!("{open}{limit} connected"));
    lines.add("requests", requests(snapshot));
    let classes = crate::observe::Class::ALL.iter();
    for (class, count) in classes.zip(connections.by_class()) {
        lines.add(&format!("  {}", class.word()), thousands(count));
    }
    if let Some(fetches) = &snapshot.fetches {
        lines.add("fetches", fetches_now(fetches));
        lines.add("  since start", fetches_since(fetches));
    }
    if let Some(cache) = &snapshot.cache {
        let (held, capacity) = (thousands(cache.bytes), thousands(cache.capacity));
        let keys = counted(cache.keys, "key");
        lines.add("memory", format!("{keys}, {held} of {capacity} bytes"));
    }
    if let Some(store) = &snapshot.store {
        lines.add("store", store_now(store));
        lines.add("  since start", store_since(store));
        if let Some(fleet) = &store.fleet {
            lines.add("  fleet", fleet_since(fleet));
        }
    }
    if let Some(feed) = &snapshot.feed {
        lines.add("feed", feed_now(feed));
        lines.add("  since start", feed_since(feed));
    }
    for upstream in &snapshot.upstreams {
        lines.add(
            "upstream",
            format!("{}: {}", upstream.name, upstream_state(upstream)),
        );
    }
    lines.text()
}

fn requests(snapshot: &Snapshot) -> String {
    let connections = &snapshot.connections;
    let total = format!("{} since the start", thousands(connections.ended()));
    if snapshot.cache.is_none() {
        return total;
    }

    let asked = connections.ended() - connections.unasked;
    let cached = connections.hit + connections.stale;
    format!("{total}, {} % from the cache", percent(cached, asked))
}

fn fetches_now(fetches: &FetchCounts) -> String {
    let (running, waiting) = (fetches.running, fetches.waiting);
    let mut text = format!("{running} under way, {waiting} in queue");
    if waiting > 0 {
        let _never_fails = write!(text, ", the oldest for {}", time(fetches.oldest_wait));
    }
    let _never_fails = write!(text, "; {} for them", wait(fetches.readers));
    text
}

fn store_now(store: &StoreCounts) -> String {
    let state = match store.state {
        StoreState::Ok => "in use",
        StoreState::Unwritable => "read, but not written",
        StoreState::Off => "not in use",
    };
    let held = if store.fleet.is_some() {
        String::new()
    } else {
        let (bytes, capacity) = (thousands(store.bytes), thousands(store.capacity));
        let poems = counted(store.texts, "poem");
        format!("; {poems}, {bytes} of {capacity} bytes")
    };
    let name = crate::escape::text(&store.name);
    format!("{name}: {state} for {}{held}", time(store.state_for))
}

fn store_since(store: &StoreCounts) -> String {
    let numbers = [
        store.hits,
        store.stale,
        store.misses,
        store.late,
        store.written,
        store.dropped,
    ];
    let [hits, stale, misses, late, written, dropped] = numbers.map(thousands);
    let errors = counted(store.errors, "error");
    format!(
        "{hits} found, {stale} found stale, {misses} not found, {late} too late; \
         {written} written, {dropped} not written; {errors}"
    )
}

fn fleet_since(fleet: &FleetCounts) -> String {
    let numbers = [fleet.follows, fleet.leads, fleet.alone, fleet.takeovers];
    let [follows, leads, alone, takeovers] = numbers.map(thousands);
    let owed = counted(fleet.purges_owed, "purge");
    format!("{follows} followed, {leads} led, {alone} alone, {takeovers} taken over; {owed} owed")
}

fn feed_now(feed: &FeedCounts) -> String {
    let state = match feed.connected {
        Some(since) => format!("connected for {}", time(since)),
        None => "not connected".into(),
    };
    let (readers, slow) = (counted(feed.readers, "reader"), thousands(feed.slow));
    let (held, backlog) = (thousands(feed.held), thousands(feed.backlog));
    format!("{state}; {readers}, {slow} slow; {held} bytes held for a backlog of {backlog}")
}

fn feed_since(feed: &FeedCounts) -> String {
    let numbers = [feed.bytes, feed.lost, feed.too_long, feed.cut].map(thousands);
    let [bytes, lost, too_long, cut] = numbers;
    let (lines, connections) = (
        counted(feed.lines, "line"),
        counted(feed.connections, "connection"),
    );
    format!("{lines}, {bytes} bytes by {connections}; {lost} lost, {too_long} too long, {cut} cut")
}

fn wait(clients: u64) -> String {
    let verb = if clients == 1 { "waits" } else { "wait" };
    format!("{} {verb}", counted(clients, "client"))
}

/// Those that were refused, or waited in vain, have failed without having begun.
fn fetches_since(fetches: &FetchCounts) -> String {
    let FetchCounts {
        begun,
        kept,
        failed,
        refused,
        ..
    } = *fetches;
    let numbers = [begun, kept, failed, refused].map(thousands);
    let [begun, kept, failed, refused] = numbers;
    format!("{begun} begun, {kept} kept; {failed} failed, {refused} of them for a full queue")
}

/// What went wrong lately, the newest first.
pub(super) fn notices(list: &serde_json::Value) -> String {
    let notice = |notice: &serde_json::Value| {
        let word = |name: &str| notice[name].as_str().unwrap_or_default().to_string();
        let (time, level, text) = (word("time"), word("level"), word("text"));
        let count = notice["count"].as_u64().unwrap_or_default();
        let times = if count == 1 { "time " } else { "times" };
        format!(
            "{time}  {level:<6}{:>9} {times}  {text}\n",
            thousands(count)
        )
    };
    let list = list.as_array().into_iter().flatten();
    or_none(list.map(notice).collect(), "no notices")
}

/// A page of keys, by name.
pub(super) fn keys(list: &KeyList) -> String {
    let mut keys: Vec<&KeyView> = list.keys.iter().collect();
    keys.sort_by(|one, other| one.name.cmp(&other.name));
    let mut text: String = keys.into_iter().map(key).collect();

    if list.next.is_some() {
        let keys = counted(list.total, "key");
        let _never_fails = writeln!(text, "... and more; {keys} in all");
    }
    or_none(text, "no keys")
}

/// One key: its state, the age and size of its text, its name.
pub(super) fn key(view: &KeyView) -> String {
    let state = match view.state {
        KeyState::Empty if view.is_in_flight => "fetching",
        state => state.word(),
    };
    let age = view.age.map(time).unwrap_or_else(|| "-".into());
    let left = match view.state {
        KeyState::Fresh => format!("fresh for {}", time(view.fresh_for)),
        KeyState::Stale => format!("served for {}", time(view.served_for)),
        KeyState::Failed => format!("cached for {}", time(view.served_for)),
        KeyState::Empty => "-".into(),
    };
    let (bytes, name) = (thousands(view.bytes), named(&view.name));
    format!("{state:<9}{bytes:>13} bytes  age {age:<13} {left:<26} {name}\n")
}

/// The fetches, in the order given.
pub(super) fn flights(list: &[FlightView]) -> String {
    let flight = |view: &FlightView| {
        let (phase, age) = (view.phase.word(), time(view.age));
        let (bytes, readers) = (thousands(view.bytes), counted(view.readers, "reader"));
        let name = named(&view.name);
        let refresh = if view.is_refresh { ", a refresh" } else { "" };
        format!("{phase:<26}{age:>12} {bytes:>13} bytes {readers:>14}  {name}{refresh}\n")
    };
    or_none(list.iter().map(flight).collect(), "no fetches")
}

/// The servers, in the order of the command line.
pub(super) fn upstreams(list: &[UpstreamCounts]) -> String {
    let width = list
        .iter()
        .map(|upstream| upstream.name.chars().count())
        .max();
    let width = width.unwrap_or(0);
    let upstream = |upstream: &UpstreamCounts| {
        let failures: u64 = upstream.failures.iter().sum();
        let state = upstream_state(upstream);
        let (name, asked) = (&upstream.name, upstream.asked);
        let (asked, failures) = (thousands(asked), thousands(failures));
        format!("{name:<width$}  asked {asked} times, failed {failures}: {state}\n")
    };
    or_none(list.iter().map(upstream).collect(), "no upstreams")
}

/// A list; `none` if it is empty, because an empty answer is none.
fn or_none(list: String, none: &str) -> String {
    if list.is_empty() {
        return format!("{none}\n");
    }
    list
}

/// What was asked for. The poem protocol has no requests.
fn named(request: &[u8]) -> String {
    if request.is_empty() {
        return "(empty)".into();
    }
    shown(request)
}

fn upstream_state(upstream: &UpstreamCounts) -> String {
    let mut state = match upstream.state {
        UpstreamState::Unknown => "no answer yet".into(),
        UpstreamState::Up => "answers".into(),
        UpstreamState::Down(since) => format!("has failed for {}", time(since)),
    };
    if let (UpstreamState::Down(_), Some((error, _))) = (upstream.state, &upstream.last_error) {
        let why = reason_of(error, &upstream.name);
        let _never_fails = write!(state, ": {why}");
    }
    if let Some(left) = upstream.paused {
        let _never_fails = write!(state, "; rejected, so not asked for {}", time(left));
    }
    state
}

/// A time for people: to the second, or to the millisecond below ten seconds.
fn time(time: Duration) -> String {
    let unit = if time < Duration::from_secs(10) {
        1
    } else {
        1000
    };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    format_duration(Duration::from_millis(millis / unit * unit)).to_string()
}

fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// Lines of a name and a value, the values below each other.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: String) {
        let _never_fails = writeln!(self.0, "{name:<14}{value}");
    }

    fn text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample::upstream;
    use crate::stats::Stats;
    use std::time::Instant;

    #[test]
    fn the_status_is_aligned_and_says_the_state_first() {
        let now = Instant::now();
        let stats = Stats::new(now);
        stats.hits.store(3, std::sync::atomic::Ordering::Relaxed);
        stats.misses.store(1, std::sync::atomic::Ordering::Relaxed);
        let snapshot = Snapshot::of(&stats, now + Duration::from_millis(90_500));

        let text = status(&snapshot, "stuck for 14s", &["a reason".into()]);
        assert!(
            text.starts_with("state         stuck for 14s\n              a reason\n"),
            "{text}"
        );
        assert!(
            text.contains("\nrequests      4 since the start\n"),
            "{text}"
        );
        assert!(text.contains("up 1m 30s\n"), "{text}");
        assert!(
            text.lines().all(|line| line.as_bytes()[13] == b' '),
            "{text}"
        );
    }

    #[test]
    fn the_status_says_how_the_store_is() {
        let now = Instant::now();
        let mut snapshot = Snapshot::of(&Stats::new(now), now);
        let mut store = StoreCounts {
            name: "/poems".into(),
            state_for: Duration::from_secs(90),
            hits: 1204,
            misses: 2,
            errors: 1,
            texts: 3,
            bytes: 4096,
            capacity: 1 << 20,
            ..StoreCounts::default()
        };
        snapshot.store = Some(store.clone());
        let text = status(&snapshot, "ok", &[]);
        let expected = "
store         /poems: in use for 1m 30s; 3 poems, 4,096 of 1,048,576 bytes
  since start 1,204 found, 0 found stale, 2 not found, 0 too late; 0 written, 0 not written; 1 error
";
        assert!(text.contains(expected), "{text}");

        store.state = StoreState::Off;
        store.fleet = Some(FleetCounts {
            leads: 2,
            alone: 7,
            purges_owed: 1,
            ..FleetCounts::default()
        });
        snapshot.store = Some(store);
        let text = status(&snapshot, "ok", &[]);
        assert!(
            text.contains("\nstore         /poems: not in use for 1m 30s\n"),
            "{text}"
        );
        let expected = "\n  fleet       0 followed, 2 led, 7 alone, 0 taken over; 1 purge owed\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn an_upstream_that_pauses_says_for_how_long() {
        let mut upstream = upstream("a:43", UpstreamState::Up);
        upstream.paused = Some(Duration::from_secs(59));
        let expected = "a:43  asked 412 times, failed 0: answers; rejected, so not asked for 59s\n";
        assert_eq!(upstreams(&[upstream]), expected);
    }

    #[test]
    fn keys_are_sorted_and_have_no_control_characters() {
        let view = |name: &[u8]| KeyView {
            name: name.to_vec(),
            route: None,
            state: KeyState::Fresh,
            is_in_flight: false,
            bytes: 5,
            age: Some(Duration::from_secs(61)),
            fresh_for: Duration::from_secs(60),
            served_for: Duration::from_secs(60),
        };
        let list = KeyList {
            keys: vec![view(b"b\x1b[2J"), view(b"a")],
            next: Some(1),
            total: 7,
        };

        let text = keys(&list);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with(" a") && lines[1].ends_with(r" b\u{1b}[2J"),
            "{text}"
        );
        assert!(
            lines[0].contains("5 bytes  age 1m 1s         fresh for 1m  "),
            "{text}"
        );
        assert_eq!(lines[2], "... and more; 7 keys in all");
    }
}
