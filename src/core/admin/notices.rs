//! The last troubles and changes, for an operator without a shell. What repeats is
//! counted. Nothing in it says what was asked for: that is a right of its own.

use super::clock::Clock;
use super::health::thousands;
use crate::escape;
use crate::observe::{AccessRecord, CacheStatus, Event, Observer, Outcome, Reloaded};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many are kept: a screen of them. The log has them all.
pub const MAX_NOTICES: usize = 20;

/// The longest text of one, in bytes: two lines of the page. An error may carry what a
/// program has printed.
const MAX_TEXT: usize = 240;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A change.
    Info,
    /// Trouble that clients need not feel.
    Warn,
    /// Trouble that clients feel.
    Error,
}

impl Level {
    /// The one word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// Something that happened, once or more often.
#[derive(Debug, Clone)]
struct Notice {
    /// Notices of one kind are counted together.
    kind: String,
    level: Level,
    /// The text of the last one.
    text: String,
    count: u64,
    at: Instant,
}

/// The last troubles and changes: an observer to stand beside the log.
#[derive(Default)]
pub struct Notices {
    /// The newest first; at most [`MAX_NOTICES`].
    list: Mutex<VecDeque<Notice>>,
}

impl Notices {
    /// None yet.
    pub fn new() -> Notices {
        Notices::default()
    }

    /// Takes note of an event.
    pub fn note_event(&self, event: &Event<'_>, now: Instant) {
        let Some((level, text)) = words(event) else {
            return;
        };

        // Not by its text: "cut off after N bytes" would fill the list alone.
        let error = event.error().map_or("", |error| error.word());
        let kind = match event {
            Event::PoemSkipped { .. } => text.clone(),
            _ => format!("{} {} {error}", event.word(), subject(event)),
        };
        self.add(kind, level, text, now);
    }

    /// Takes note of how a connection ended, if no event tells of it.
    pub fn note_request(&self, record: &AccessRecord<'_>, now: Instant) {
        let is_own = record.status == CacheStatus::Own;
        let is_trouble = match record.outcome {
            Outcome::Failed(_) => is_own,
            Outcome::FellBehind(_) => true,
            _ => false,
        };
        if !is_trouble {
            return; // the usual case
        }

        let reason = record.outcome.reason().unwrap_or_default();
        self.add(record.outcome.word().to_string(), Level::Warn, reason, now);
    }

    /// All of them, the newest first.
    pub fn to_json(&self, clock: &Clock) -> Value {
        let list = self.lock().clone();
        let objects = list.iter().map(|notice| {
            json!({
                "time": clock.date(notice.at),
                "level": notice.level.word(),
                "text": notice.text,
                "count": notice.count,
            })
        });
        objects.collect()
    }

    fn add(&self, kind: String, level: Level, text: String, at: Instant) {
        let text = shortened(escape::text(&text));
        let mut list = self.lock();

        let same = list.iter().position(|notice| notice.kind == kind);
        let count = same
            .and_then(|at| list.remove(at))
            .map_or(0, |notice| notice.count);
        list.truncate(MAX_NOTICES - 1);
        list.push_front(Notice {
            kind,
            level,
            text,
            count: count + 1,
            at,
        });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Notice>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Notices {
    fn request(&self, record: &AccessRecord<'_>) {
        if !matches!(record.outcome, Outcome::Whole) {
            self.note_request(record, Instant::now());
        }
    }

    fn event(&self, event: Event<'_>) {
        self.note_event(&event, Instant::now());
    }
}

/// What an event is about.
fn subject<'a>(event: &'a Event<'_>) -> &'a str {
    match event {
        Event::UpstreamDown { upstream, .. }
        | Event::UpstreamPaused { upstream, .. }
        | Event::ProgramSaid { upstream, .. }
        | Event::Feed { upstream, .. }
        | Event::UpstreamUp { upstream, .. } => upstream,
        Event::ClientsRefused { why, .. } => why,
        _ => event.fetch().map_or("", |fetch| fetch.upstream),
    }
}

/// What an operator is told of an event; `None` for the course of things.
fn words(event: &Event<'_>) -> Option<(Level, String)> {
    let error = event.error().map(|error| error.to_string());
    let error = error.unwrap_or_default();
    Some(match event {
        Event::Fetching { .. }
        | Event::FetchDelayed { .. }
        | Event::Fetched { .. }
        | Event::FromStore { .. }
        | Event::Following { .. }
        | Event::GivenUp { .. } => return None,
        Event::Warmed {
            path,
            texts,
            failed,
            ..
        } => {
            let text = format!("{path}: {texts} texts are warm, {failed} are not");
            (Level::Info, text)
        }
        Event::TakenOver { .. } => (Level::Info, "took over another proxy's fetch".into()),
        Event::Store { path, news } => {
            let level = if news.is_trouble() {
                Level::Error
            } else {
                Level::Info
            };
            (level, format!("{path}: {news}"))
        }
        Event::Feed { upstream, news } => (Level::Warn, format!("{upstream}: {news}")),
        Event::Reloaded { what } => (Level::Info, reloaded(*what)?),
        Event::Purged { scope, texts, .. } => {
            let purged = reloaded(Reloaded::Purged { texts: *texts })?;
            (Level::Info, format!("{purged}, by {scope}"))
        }

        Event::Started { verb, addrs } => (
            Level::Info,
            format!("started: {verb} on {}", addrs.join(" and ")),
        ),
        Event::Stopping { signal, .. } => (Level::Info, format!("stopping: {signal}")),
        Event::Draining { open } => (Level::Info, format!("finishing {open} open connections")),
        Event::Cut { open } => (
            Level::Error,
            format!("reset {open} connections at the end of the drain"),
        ),

        Event::FetchFailed { .. } | Event::ReloadFailed { .. } => (Level::Error, error),
        Event::Rejected { fetch, why } => {
            (Level::Warn, format!("{}: rejected: {why}", fetch.upstream))
        }
        Event::NextUpstream { next, .. } => (Level::Warn, format!("{error}; {next} is asked")),
        Event::UpstreamDown { .. } => (
            Level::Error,
            format!("{error}; it is not asked first for a while"),
        ),
        Event::UpstreamPaused { upstream, pause } => {
            let pause = humantime::format_duration(whole_seconds(*pause));
            let text = format!("{upstream}: its answer was rejected; not asked for {pause}");
            (Level::Warn, text)
        }
        Event::ProgramSaid { upstream, line } => (Level::Info, format!("{upstream} said: {line}")),
        Event::UpstreamUp { upstream, after } => {
            let after = humantime::format_duration(whole_seconds(*after));
            (
                Level::Info,
                format!("{upstream} answers again, after {after}"),
            )
        }
        Event::SentOriginal { .. } => (Level::Warn, format!("{error}; the original was sent")),
        Event::Declined { .. } => (Level::Warn, format!("declined a request: {error}")),
        Event::FewDescriptors { clients } => (
            Level::Warn,
            format!("descriptors for {clients} clients only"),
        ),
        Event::AcceptPaused { error, .. } => {
            let error = crate::error::reason(error);
            (
                Level::Error,
                format!("no connection could be accepted: {error}"),
            )
        }
        Event::ClientsRefused { why, count, .. } => (Level::Warn, refused(why, *count)),
        Event::PoemSkipped { .. } => (Level::Warn, error),
    })
}

/// Names no address: the page may be seen by more than those that may know them.
fn refused(why: &str, count: u64) -> String {
    let connections = match count {
        1 => "a connection".to_string(),
        count => format!("{} connections within a minute", thousands(count)),
    };
    format!("refused {connections}: {}", why.replace('_', " "))
}

fn reloaded(what: Reloaded) -> Option<String> {
    match what {
        Reloaded::Purged { texts: 1 } => Some("purged 1 cached answer".to_string()),
        Reloaded::Purged { texts } => Some(format!("purged {} cached answers", thousands(texts))),
        Reloaded::Poems { poems } => Some(format!("read {poems} poems again")),
        Reloaded::Routes { routes, .. } => Some(format!("read {routes} routes again")),
        Reloaded::Lists { nets } => Some(format!("read {} networks again", thousands(nets as u64))),
        Reloaded::Nothing => None,
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn shortened(mut text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }

    let is_end = |at: &usize| text.is_char_boundary(*at);
    let end = (0..=MAX_TEXT).rev().find(is_end).unwrap_or(0);
    text.truncate(end);
    text + "…"
}

#[cfg(test)]
mod tests;
