//! The log for people.

use colored::{Color, Colorize};
use poetry::error::reason;
use poetry::escape;
use poetry::stats::{AccessRecord, CacheStatus, Event, Outcome};
use std::time::Duration;

/// A request, where every request gets a line.
pub(super) fn request(record: &AccessRecord<'_>) -> String {
    let how = match record.how {
        CacheStatus::Hit(_) => "hit",
        CacheStatus::Stale => "stale",
        CacheStatus::Coalesced => "coalesced",
        CacheStatus::Miss => "miss",
        CacheStatus::Remembered => "cached failure",
        CacheStatus::Own => "own",
        CacheStatus::Unasked => "no request",
    };
    let end = match &record.outcome {
        Outcome::Failed(error) => format!("failed: {}", escape::text(&error.to_string())),
        other => other.word().replace('_', " "),
    };
    format!("{}: {how}, {} bytes, {end}", record.peer, record.bytes)
}

pub(super) fn warning(text: &str) -> String {
    let text = escape::text(text);
    format!("{} {text}", "poetry:".color(Color::Yellow))
}

/// What went wrong, if something did. It is logged even with `--quiet`.
pub(super) fn trouble(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Rejected(from, why) => format!("{from}: rejected: {why}"),
        Event::FetchFailed(error, _) | Event::Declined(error) => error.to_string(),
        Event::NextUpstream(error, next) => format!("{error}; trying {next}"),
        Event::Untransformed(error) => format!("sending the original: {error}"),
        Event::FewDescriptors(clients) => format!(
            "serving at most {clients} clients at once: the limit on open files allows no more"
        ),
        Event::Paused(error, time) => {
            format!("accepting pauses for {}: {}", short(*time), reason(error))
        }
        Event::Cut(open) => format!("out of time: cutting {}", connections(*open)),
        Event::Fetching(_) | Event::Fetched(..) | Event::Draining(_) | Event::Reloaded(_) => {
            return None;
        }
    })
}

/// What is going on, if nothing went wrong.
pub(super) fn progress(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Fetching(from) => Some(format!("fetching a poem from {from}")),
        Event::Fetched(bytes, time, kept) => {
            let kept = if *kept { "kept" } else { "not kept" };
            let time = short(*time);
            Some(format!("fetched {bytes} bytes in {time}, {kept}"))
        }
        Event::Draining(open) => Some(format!("stopping: finishing {}", connections(*open))),
        Event::Reloaded(what) => Some(what.to_string()),
        _ => None,
    }
}

fn connections(count: u64) -> String {
    let noun = if count == 1 {
        "connection"
    } else {
        "connections"
    };
    format!("{count} {noun}")
}

/// A duration in whole milliseconds.
fn short(time: Duration) -> String {
    let time = Duration::from_millis(time.as_millis() as u64);
    humantime::format_duration(time).to_string()
}
