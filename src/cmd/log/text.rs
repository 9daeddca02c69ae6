//! The log for people.

use colored::{Color, Colorize};
use poetry::error::reason;
use poetry::escape;
use poetry::observe::{AccessRecord, CacheStatus, Event, FetchName, Outcome, Reloaded};
use std::time::Duration;

/// A request, where every request gets a line.
pub(super) fn request(record: &AccessRecord<'_>) -> String {
    let status = match record.status {
        CacheStatus::Hit(_) => "hit",
        CacheStatus::Stale => "stale",
        CacheStatus::Coalesced => "coalesced",
        CacheStatus::Miss => "miss",
        CacheStatus::Negative => "cached failure",
        CacheStatus::Own => "own",
        CacheStatus::NoRequest => "no request",
    };
    let end = match &record.outcome {
        Outcome::Failed(error) => format!("failed: {}", escape::text(&error.to_string())),
        other => other.word().replace('_', " "),
    };
    format!("{}: {status}, {} bytes, {end}", record.peer, record.bytes)
}

pub(super) fn warning(text: &str) -> String {
    let text = escape::text(text);
    format!("{} {text}", "poetry:".color(Color::Yellow))
}

/// What went wrong, if something did. It is logged even with `--quiet`.
pub(super) fn trouble(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Rejected { fetch, why } => {
            format!("{}: {}rejected: {why}", fetch.upstream, asked(fetch))
        }
        Event::FetchFailed { fetch, error, .. } => format!("{}{error}", asked(fetch)),
        Event::Declined { error } => error.to_string(),
        Event::NextUpstream { error, next } => format!("{error}; trying {next}"),
        Event::UpstreamDown { error, .. } => format!("upstream down: {error}"),
        Event::UpstreamUp { upstream, after } => {
            format!("{upstream} is up again after {}", short(*after))
        }
        Event::SentOriginal { error } => format!("sending the original: {error}"),
        Event::FewDescriptors { clients } => format!(
            "serving at most {clients} clients at once: the limit on open files allows no more"
        ),
        Event::AcceptPaused { error, pause } => {
            format!("accepting pauses for {}: {}", short(*pause), reason(error))
        }
        Event::Cut { open } => format!("out of time: cutting {}", connections(*open)),
        Event::ReloadFailed { error } => format!("not reloaded: {error}"),
        Event::PoemSkipped { error } => error.to_string(),
        Event::Fetching { .. }
        | Event::Fetched { .. }
        | Event::GivenUp { .. }
        | Event::Draining { .. }
        | Event::Reloaded { .. } => return None,
    })
}

/// What is going on, if nothing went wrong.
pub(super) fn progress(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Fetching { fetch } => {
            let what = named(fetch).unwrap_or("a poem".into());
            format!("fetching {what} from {}", fetch.upstream)
        }
        Event::Fetched {
            fetch,
            bytes,
            time,
            kept,
        } => {
            let kept = if *kept { "kept" } else { "not kept" };
            let time = short(*time);
            format!("{}fetched {bytes} bytes in {time}, {kept}", asked(fetch))
        }
        Event::GivenUp { fetch, bytes } => format!(
            "{}gave up after {bytes} bytes: no client is left, and the poem can't be kept",
            asked(fetch)
        ),
        Event::Draining { open } => format!(
            "stopping: finishing {}; Ctrl-C again stops at once",
            connections(*open)
        ),
        Event::Reloaded { what } => reloaded(*what),
        _ => return None,
    })
}

fn reloaded(what: Reloaded) -> String {
    match what {
        Reloaded::Purged { texts: 1 } => "purged 1 cached poem".into(),
        Reloaded::Purged { texts } => format!("purged {texts} cached poems"),
        Reloaded::Poems { poems: 1 } => "read 1 poem again".into(),
        Reloaded::Poems { poems } => format!("read {poems} poems again"),
        Reloaded::Nothing => "nothing to reload".into(),
    }
}

/// What was asked for, before the rest of a line. Nothing in the poem protocol.
fn asked(fetch: &FetchName<'_>) -> String {
    named(fetch).map_or_else(String::new, |name| format!("{name}: "))
}

/// What was asked for, in quotes.
fn named(fetch: &FetchName<'_>) -> Option<String> {
    const LONGEST: usize = 100;

    if fetch.request.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&fetch.request[..fetch.request.len().min(LONGEST)]);
    let dots = if fetch.request.len() > LONGEST {
        "..."
    } else {
        ""
    };
    Some(format!("'{}{dots}'", escape::text(&text)))
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
