//! What is printed beside the poems, all of it on stderr: errors, log lines, colours.

mod json;
mod lines;
mod text;

use super::deadlines::explain;
use super::flags::{ColorWhen, LogFormat, Output};
use lines::{Answer, Lines};
use poetry::control::Snapshot;
use poetry::error::{Error, reason};
use poetry::escape;
use poetry::observe::{AccessRecord, CacheStatus, Event, Observer, Outcome};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Whether errors are printed as JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The log of a listening command, once it has started. Global, because a panic and the
/// error that ends the process must not be printed past it.
static LOG: OnceLock<Log> = OnceLock::new();

/// Decides for the whole process in which form errors are printed, and whether there
/// are colours.
pub(super) fn configure(output: &Output) {
    IS_JSON.store(output.log_format == LogFormat::Json, Ordering::Relaxed);
    set_color(output.color);
}

/// `colored` always colours. `anstream` knows the terminal, `NO_COLOR` and `TERM=dumb`,
/// and removes colours that are not wanted.
fn set_color(when: ColorWhen) {
    colored::control::set_override(true);

    let no_color = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let choice = match when {
        ColorWhen::Auto if no_color() => anstream::ColorChoice::Never,
        ColorWhen::Auto => anstream::ColorChoice::Auto,
        ColorWhen::Always => anstream::ColorChoice::Always,
        ColorWhen::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Prints an error in one line. Waits for it at most a second where a log is running:
/// the process may be about to end.
pub(super) fn error(error: &Error) {
    let text = explain(error, "--timeout");
    add_or_print(if is_json() {
        json::error(error, &text)
    } else {
        text::error(&text)
    });
    flush();
}

/// Prints a warning in one line.
pub(super) fn warning(text: &str) {
    add_or_print(if is_json() {
        json::warning(text)
    } else {
        text::warning(text)
    });
}

/// An event in plain words, as the log for people has them.
pub(super) fn words(event: &Event<'_>) -> String {
    escape::text(&text::words(event))
}

/// Has a panic print one line without a backtrace. A panic ends one task: its clients
/// are reset, and all else goes on.
pub(super) fn report_panics_in_one_line() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|at| format!("{}:{}", at.file(), at.line()))
            .unwrap_or_default();

        let reason = format!("a task ended at {place}");
        add_or_print(if is_json() {
            json::panic(&reason)
        } else {
            text::panic(&reason)
        });
    }));
}

/// Waits until everything logged so far is written, at most a second.
pub(super) fn flush() {
    if let Some(log) = LOG.get() {
        log.lines.flush();
    }
}

fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

fn add_or_print(line: String) {
    match LOG.get() {
        Some(log) => log.lines.add(line),
        None => drop(lines::print(&line)), // if stderr is closed, the line is lost
    }
}

/// The log of a listening command. Clones share it.
#[derive(Clone)]
pub(super) struct Log {
    level: Level,
    format: LogFormat,
    lines: Arc<Lines>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Quiet,
    Normal,
    Verbose,
}

impl Log {
    /// Starts the thread that writes the log. Called once.
    ///
    /// # Errors
    /// [`Error::Local`] if the system has no thread left.
    pub fn start(output: &Output) -> Result<Log, Error> {
        let lost_line = match output.log_format {
            LogFormat::Text => text::lost,
            LogFormat::Json => json::lost,
        };
        let lines = Lines::start(lost_line).map_err(|error| Error::Local {
            subject: "log".into(),
            why: reason(&error),
        })?;
        let level = match (output.quiet, output.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        let format = output.log_format;
        let log = Log {
            level,
            format,
            lines,
        };
        Ok(LOG.get_or_init(|| log).clone())
    }

    /// Logs the figures of the service, also with `--quiet`: they were asked for.
    pub fn summary(&self, snapshot: &Snapshot) {
        let lines = match self.format {
            LogFormat::Text => text::summary(snapshot),
            LogFormat::Json => vec![json::summary(snapshot)],
        };
        lines.into_iter().for_each(|line| self.lines.add(line));
    }

    fn json_event(&self, event: &Event<'_>) {
        let is_told_by_requests = self.level != Level::Quiet && is_in_requests(event);
        if !is_told_by_requests {
            self.lines.add(json::event(event));
        }
    }

    fn text_event(&self, event: &Event<'_>) {
        let is_on_stdout = matches!(event, Event::Started { .. });
        let is_silent = matches!(event, Event::Stopping { .. });
        if !is_on_stdout && !is_silent {
            self.lines.event(text::kind(event), || text::event(event));
        }
    }
}

impl Observer for Log {
    fn request(&self, record: &AccessRecord<'_>) {
        if self.format == LogFormat::Text
            && let Some(error) = own_failure(record)
        {
            self.lines
                .event(error.word().into(), || text::own_failure(error, record));
            return;
        }
        match (self.level, self.format) {
            (Level::Quiet, _) => {}
            (_, LogFormat::Json) => self.lines.add(json::request(record)),
            (Level::Verbose, LogFormat::Text) => self.lines.add(text::request(record)),
            (Level::Normal, LogFormat::Text) => {
                if let Some(answer) = answer(record) {
                    self.lines.answer(answer, || text::answer(answer, record));
                }
            }
        }
    }

    fn event(&self, event: Event<'_>) {
        if self.level == Level::Quiet && !event.is_trouble() {
            return;
        }
        match self.format {
            LogFormat::Text => self.text_event(&event),
            LogFormat::Json => self.json_event(&event),
        }
    }
}

/// The kind of line that a request gets without `-v`. `None` if it has no line: fetches
/// and failures are reported by events.
fn answer(record: &AccessRecord<'_>) -> Option<Answer> {
    match record.status {
        CacheStatus::Hit(_) => Some(Answer::Hit),
        CacheStatus::Coalesced => Some(Answer::Coalesced),
        CacheStatus::Own => (record.outcome == Outcome::Whole).then_some(Answer::Own),
        CacheStatus::Stale => Some(Answer::Stale),
        CacheStatus::Negative => Some(Answer::CachedFailure),
        CacheStatus::Miss | CacheStatus::NoRequest => None,
    }
}

/// Why a poem of our own could not be sent whole. Failures that were asked for
/// (`--script`) don't count.
fn own_failure<'a>(record: &'a AccessRecord<'_>) -> Option<&'a Error> {
    match (record.status, &record.outcome) {
        (CacheStatus::Own, Outcome::Failed(error)) => {
            Some(&**error).filter(|error| !matches!(error, Error::Rehearsed { .. }))
        }
        _ => None,
    }
}

/// Whether the JSON objects of requests report this, too.
fn is_in_requests(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::Fetching { .. } | Event::Fetched { .. } | Event::FetchFailed { waiting: 1.., .. }
    )
}
