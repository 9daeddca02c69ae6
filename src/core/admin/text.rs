//! The answers of the line language, for people: aligned, a line each, and without
//! control characters.

use super::keys::shown;
use crate::control::{
    FlightView, KeyList, KeyState, KeyView, Snapshot, UpstreamCounts, UpstreamState,
};
use humantime::format_duration;
use std::fmt::Write;
use std::time::Duration;

/// The figures at a glance. `state` is `ok`, or what is wrong, for these reasons.
pub(super) fn status(snapshot: &Snapshot, state: &str, reasons: &[String]) -> String {
    let connections = &snapshot.connections;
    let ended = connections.ended();
    let cached = connections.hit + connections.stale;
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = Lines::default();

    lines.add("state", state.into());
    for reason in reasons {
        lines.add("", crate::escape::text(reason));
    }
    lines.add("poetry", format!("{version}, up {}", time(snapshot.uptime)));
    let limit = match connections.limit {
        0 => String::new(),
        limit => format!(" of {limit}"),
    };
    lines.add("clients", format!("{}{limit} open", connections.open));
    lines.add(
        "requests",
        format!("{ended}, {} % from the cache", percent(cached, ended)),
    );
    let classes = crate::observe::Class::ALL.iter();
    for (class, count) in classes.zip(connections.by_class()) {
        lines.add(&format!("  {}", class.word()), count.to_string());
    }
    if let Some(fetches) = &snapshot.fetches {
        let waiting = fetches.waiting;
        let longest = match waiting {
            0 => String::new(),
            _ => format!(", the oldest for {}", time(fetches.oldest_wait)),
        };
        lines.add(
            "fetches",
            format!("{} under way, {waiting} in queue{longest}", fetches.running),
        );
        let since = format!(
            "{} begun, {} kept, {} failed",
            fetches.begun, fetches.kept, fetches.failed
        );
        lines.add("  since start", since);
    }
    if let Some(cache) = &snapshot.cache {
        let used = percent(cache.bytes, cache.capacity);
        let cache = format!(
            "{} keys, {} bytes, {used} % of capacity",
            cache.keys, cache.bytes
        );
        lines.add("memory", cache);
    }
    for upstream in &snapshot.upstreams {
        lines.add(
            "upstream",
            format!("{}: {}", upstream.name, upstream_state(upstream)),
        );
    }
    lines.text()
}

/// What went wrong lately, the newest first.
pub(super) fn notices(list: &serde_json::Value) -> String {
    let notice = |notice: &serde_json::Value| {
        let word = |name: &str| notice[name].as_str().unwrap_or_default().to_string();
        let (time, level, text) = (word("time"), word("level"), word("text"));
        format!("{time}  {level:<6}{:>8} times  {text}\n", notice["count"])
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
        let _never_fails = writeln!(text, "... and more; {} keys in all", list.total);
    }
    or_none(text, "no keys")
}

/// One key: its state, the age and size of its text, its name.
pub(super) fn key(view: &KeyView) -> String {
    let state = match view.state {
        KeyState::Empty if view.is_in_flight => "fetched",
        state => state.word(),
    };
    let age = view.age.map(time).unwrap_or_else(|| "-".into());
    let left = match view.state {
        KeyState::Fresh | KeyState::Failed => time(view.fresh_for),
        KeyState::Stale => time(view.served_for),
        KeyState::Empty => "-".into(),
    };
    format!(
        "{state:<8}{:>12} bytes  age {age:<12} left {left:<12} {}\n",
        view.bytes,
        shown(&view.name)
    )
}

/// The fetches, in the order given.
pub(super) fn flights(list: &[FlightView]) -> String {
    let flight = |view: &FlightView| {
        let (phase, age) = (view.phase.word(), time(view.age));
        let (bytes, readers) = (view.bytes, view.readers);
        let name = shown(&view.name);
        format!("{phase:<26}{age:>12} {bytes:>12} bytes {readers:>6} readers  {name}\n")
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
        format!("{name:<width$}  asked {asked}, failed {failures}: {state}\n")
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

fn upstream_state(upstream: &UpstreamCounts) -> String {
    let mut state = match upstream.state {
        UpstreamState::Unknown => "not asked yet".into(),
        UpstreamState::Up => "answers".into(),
        UpstreamState::Down(since) => format!("fails for {}", time(since)),
    };
    if let (UpstreamState::Down(_), Some((error, _))) = (upstream.state, &upstream.last_error) {
        let _never_fails = write!(state, ", {}", crate::escape::text(error));
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
            text.contains("\nrequests      4, 75 % from the cache\n"),
            "{text}"
        );
        assert!(text.contains("up 1m 30s\n"), "{text}");
        assert!(
            text.lines().all(|line| line.as_bytes()[13] == b' '),
            "{text}"
        );
    }

    #[test]
    fn keys_are_sorted_and_have_no_control_characters() {
        let view = |name: &[u8]| KeyView {
            name: name.to_vec(),
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
        assert!(lines[0].contains("5 bytes  age 1m 1s"), "{text}");
        assert_eq!(lines[2], "... and more; 7 keys in all");
    }
}
