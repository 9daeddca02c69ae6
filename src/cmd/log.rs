//! What is printed beside the poems, all of it on stderr: errors, log lines, colours.

mod journal;
mod json;
mod lines;
mod text;

use super::deadlines::explain;
use super::flags::{ColorWhen, LogFormat, Output};
use journal::{Line, Priority};
use lines::{Answer, Lines};
use poetry::control::Snapshot;
use poetry::error::{Error, reason};
use poetry::escape;
use poetry::observe::{
    AccessRecord, CacheStatus, Class, Event, FetchCause, Observer, Outcome, Selection, Selector,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    let line = if is_json() {
        json::error(error, &text)
    } else {
        text::error(&text)
    };
    add_or_print(Line::new(Priority::Error, line));
    flush();
}

/// Prints a warning in one line.
pub(super) fn warning(text: &str) {
    let line = if is_json() {
        json::warning(text)
    } else {
        text::warning(text)
    };
    add_or_print(Line::trouble(line));
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
        let line = if is_json() {
            json::panic(&reason)
        } else {
            text::panic(&reason)
        };
        add_or_print(Line::new(Priority::Error, line));
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

fn add_or_print(line: Line) {
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
    /// Which requests have a line of their own.
    selector: Arc<Selector>,
    lines: Arc<Lines>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Quiet,
    Normal,
    Verbose,
}

impl Log {
    /// Starts the thread that writes the log. Called once. `selection` says which
    /// requests have a line of their own.
    ///
    /// # Errors
    /// [`Error::Local`] if the system has no thread left.
    pub fn start(output: &Output, selection: Selection) -> Result<Log, Error> {
        let lost_line = match output.log_format {
            LogFormat::Text => |lines| Line::trouble(text::lost(lines)),
            LogFormat::Json => |lines| Line::trouble(json::lost(lines)),
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
            selector: Arc::new(Selector::new(selection)),
            lines,
        };
        Ok(LOG.get_or_init(|| log).clone())
    }

    /// How many lines were lost since the start; it goes on counting.
    pub fn lost(&self) -> Arc<AtomicU64> {
        self.lines.lost()
    }

    /// Logs the figures of the service, also with `--quiet`: they were asked for.
    pub fn summary(&self, snapshot: &Snapshot) {
        let lost = self.lost().load(Ordering::Relaxed);
        let lines = match self.format {
            LogFormat::Text => text::summary(snapshot, lost),
            LogFormat::Json => vec![json::summary(snapshot, lost)],
        };
        for line in lines {
            self.lines.add(Line::new(Priority::Info, line));
        }
    }

    /// Logs a request in a line of its own, if it is among those selected. A failure
    /// of our own is told in any case: no event reports it.
    fn each_request(&self, record: &AccessRecord<'_>) {
        let Some(sample) = self.selector.pick(record) else {
            return self.fold_own_failure(record);
        };

        let line = match self.format {
            LogFormat::Text => text::request(record, sample),
            LogFormat::Json => json::request(record, sample),
        };
        self.lines
            .add(Line::new(Priority::of_request(record), line));
    }

    /// Logs a request in text without `-v`: lines of a kind are folded.
    fn fold_request(&self, record: &AccessRecord<'_>) {
        self.fold_own_failure(record);
        self.tell_lost_lines(record);
        if self.level == Level::Quiet {
            return;
        }

        if let Some(answer) = answer(record) {
            let line = || Line::new(Priority::Info, text::answer(answer, record));
            self.lines.answer(answer, line);
        }
    }

    /// A reader of a feed that lost lines is told of by itself: how many, and where.
    fn tell_lost_lines(&self, record: &AccessRecord<'_>) {
        if let Some(note) = record.feed.filter(|note| note.lost > 0) {
            let line = || Line::trouble(text::lost_by_reader(note, record));
            self.lines.event("lost_by_reader".into(), line);
        }
    }

    fn fold_own_failure(&self, record: &AccessRecord<'_>) {
        if self.format == LogFormat::Text
            && let Some(error) = own_failure(record)
        {
            let line = || Line::trouble(text::own_failure(error, record));
            self.lines.event(error.word().into(), line);
        }
    }

    fn json_event(&self, event: &Event<'_>) {
        let selection = self.selector.selection();
        let has_requests = self.level != Level::Quiet;
        let is_told_by_requests = match event {
            Event::Fetching { .. } => true,
            Event::FromStore { .. } | Event::Following { .. } => selection.is_everything(),
            // A refresh has no request.
            Event::Fetched { fetch, .. } => {
                fetch.cause == FetchCause::Miss || !selection.is_everything()
            }
            Event::FetchFailed { waiting, .. } => {
                has_requests && *waiting > 0 && selection.shows_all(Class::Failure)
            }
            _ => false,
        };

        if !is_told_by_requests {
            let line = json::event(event);
            self.lines.add(Line::new(Priority::of_event(event), line));
        }
    }

    fn text_event(&self, event: &Event<'_>) {
        let is_on_stdout = matches!(event, Event::Started { .. });
        let is_silent = matches!(event, Event::Stopping { .. });
        if !is_on_stdout && !is_silent {
            let line = || Line::new(Priority::of_event(event), text::event(event));
            self.lines.event(text::kind(event), line);
        }
    }
}

impl Observer for Log {
    fn request(&self, record: &AccessRecord<'_>) {
        match (self.level, self.format) {
            (Level::Quiet, LogFormat::Json) => {}
            (_, LogFormat::Json) | (Level::Verbose, _) => self.each_request(record),
            (Level::Quiet | Level::Normal, LogFormat::Text) => self.fold_request(record),
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
        CacheStatus::Live => Some(Answer::Live),
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
