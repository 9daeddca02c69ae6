//! What is printed beside the poems, all of it on stderr: errors, log lines, colours.

mod json;
mod lines;
mod text;

use super::flags::{ColorWhen, LogFormat, Output};
use colored::{Color, Colorize};
use lines::{Lines, Repeated};
use poetry::escape;
use poetry::observe::{AccessRecord, CacheStatus, Event, Observer, Outcome};
use std::fmt::Display;
use std::sync::Arc;

/// Decides for the whole process whether there are colours.
///
/// `colored` always colours. `anstream` knows the terminal, `NO_COLOR` and `TERM=dumb`,
/// and removes colours that are not wanted.
pub(super) fn set_color(when: ColorWhen) {
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

/// Prints an error in one line.
pub(super) fn error(error: &impl Display) {
    let text = escape::text(&error.to_string());
    lines::print(&format!("{} {text}", "poetry:".color(Color::Red).bold()));
}

/// Prints a warning in one line, in the format of the log.
pub(super) fn warning(format: LogFormat, text: &str) {
    lines::print(&match format {
        LogFormat::Text => text::warning(text),
        LogFormat::Json => json::warning(text),
    });
}

/// Has a panic print one line without a backtrace. A panic ends one task: its clients
/// are reset, and all else goes on.
pub(super) fn report_panics_in_one_line() {
    use std::io::Write;

    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|at| format!("{}:{}", at.file(), at.line()))
            .unwrap_or_default();
        let _closed = writeln!(
            std::io::stderr(),
            "poetry: internal error: a task ended at {place}"
        );
    }));
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
    /// Starts the thread that writes the log.
    pub fn start(output: &Output) -> Log {
        let level = match (output.quiet, output.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        Log {
            level,
            format: output.log_format,
            lines: Lines::start(),
        }
    }

    /// Waits until everything logged so far is written, at most a second.
    pub fn flush(&self) {
        self.lines.flush();
    }

    fn warn(&self, text: &str) {
        self.lines.add(match self.format {
            LogFormat::Text => text::warning(text),
            LogFormat::Json => json::warning(text),
        });
    }
}

impl Observer for Log {
    fn request(&self, record: &AccessRecord<'_>) {
        match (self.level, self.format) {
            (Level::Quiet, _) => {}
            (_, LogFormat::Json) => self.lines.add(json::request(record)),
            (Level::Verbose, LogFormat::Text) => self.lines.add(text::request(record)),
            (Level::Normal, LogFormat::Text) => {
                if let Some(line) = repeated(record) {
                    self.lines.add_repeated(line);
                }
            }
        }
    }

    fn event(&self, event: Event<'_>) {
        let is_json = self.format == LogFormat::Json;

        if let Some(trouble) = text::trouble(&event) {
            if !(is_json && is_in_requests(&event)) {
                self.warn(&trouble);
            }
        } else if self.level > Level::Quiet
            && !is_json
            && let Some(progress) = text::progress(&event)
        {
            self.lines.add(progress);
        }
    }
}

/// The line for a request where not every request gets a line of its own. A fetch has
/// its own lines.
fn repeated(record: &AccessRecord<'_>) -> Option<Repeated> {
    match record.status {
        CacheStatus::Hit(_) => Some(Repeated::Hit),
        CacheStatus::Coalesced => Some(Repeated::Coalesced),
        CacheStatus::Own => (record.outcome == Outcome::Whole).then_some(Repeated::Own),
        CacheStatus::Stale => Some(Repeated::Stale),
        CacheStatus::Negative => Some(Repeated::CachedFailure),
        CacheStatus::Miss | CacheStatus::NoRequest => None,
    }
}

/// Whether the JSON objects of requests report this trouble, too.
fn is_in_requests(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::FetchFailed { waiting: 1.., .. } | Event::Declined { .. }
    )
}
