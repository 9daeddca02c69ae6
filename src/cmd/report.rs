//! All that is printed beside the poems: errors, log lines, colours.
//!
//! Everything goes to stderr. Log lines are written by a thread of their own, so that a slow terminal slows no
//! connection; a line that comes again within a second is counted instead, and the count follows. Telling a hit costs
//! an atomic addition, but for the first in each second.

use crate::cmd::Output;
use clap::ValueEnum;
use colored::{Color, Colorize};
use poetry::error::Error;
use poetry::escape;
use poetry::stats::{AccessRecord, CacheStatus, Event, Observer, Outcome};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Even into a pipe
    Always,
    /// Not at all
    Never,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object a request, in the words of RFC 9211
    Json,
}

/// Settles for the whole process whether there are colours. `colored` always paints; `anstream` knows the terminal,
/// `NO_COLOR` and `TERM=dumb`, and washes the paint off where it is not wanted.
pub fn set_color(when: ColorWhen) {
    colored::control::set_override(true);
    match when {
        ColorWhen::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => {
            anstream::ColorChoice::Never.write_global();
        }
        ColorWhen::Auto => anstream::ColorChoice::Auto.write_global(),
        ColorWhen::Always => anstream::ColorChoice::Always.write_global(),
        ColorWhen::Never => anstream::ColorChoice::Never.write_global(),
    }
}

/// An error, in one line.
pub fn error(error: &Error) {
    let text = format!(
        "{} {}",
        "poetry:".color(Color::Red).bold(),
        escape::text(&error.to_string())
    );
    line(&text);
}

fn line(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}"); // there is nowhere to say that stderr is closed
}

/// Whether a person looks at stderr while stdout goes elsewhere.
pub fn progress_is_seen() -> bool {
    std::io::stderr().is_terminal() && !std::io::stdout().is_terminal()
}

/// The log of a listening command. Cloning shares it.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    level: Level,
    format: LogFormat,
    folds: Vec<Fold>,
    lines: SyncSender<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Quiet,
    Normal,
    Verbose,
}

/// A line that is told so often that it is counted.
struct Fold {
    text: &'static str,
    count: AtomicU64,
}

/// The lines that are counted, in the order of [`Common`].
const COMMON: [&str; 5] = [
    "using the cached poem",
    "joining the fetch that is under way",
    "sending a poem",
    "using a stale poem",
    "passing on what is remembered of a failed fetch",
];

enum Common {
    Hit,
    Coalesced,
    Own,
    Stale,
    Remembered,
}

enum Message {
    /// The fold of this number has begun to count.
    Begun(usize),
    Line(String),
    Flush(SyncSender<()>),
}

/// So many lines may wait for a slow stderr; what comes beyond is dropped, because a log must not stop the service.
const WAITING_LINES: usize = 4096;

/// How long repeats are counted before the count is told.
const FOLD: Duration = Duration::from_secs(1);

impl Log {
    /// Starts the thread that writes.
    pub fn start(output: &Output) -> Log {
        let (lines, waiting) = sync_channel(WAITING_LINES);
        let level = match (output.quiet, output.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        let folds = COMMON
            .map(|text| Fold {
                text,
                count: AtomicU64::new(0),
            })
            .into();
        let shared = Arc::new(Shared {
            level,
            format: output.log_format,
            folds,
            lines,
        });
        let log = Log { shared };
        let writing = log.clone();
        std::thread::spawn(move || writing.write(&waiting));
        log
    }

    /// Returns once everything told so far is written, or after a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.shared.lines.try_send(Message::Flush(done)).is_ok() {
            let _written = wait.recv_timeout(FOLD);
        }
    }

    fn write(&self, waiting: &Receiver<Message>) {
        let mut open: Vec<(usize, std::time::Instant)> = Vec::new();
        loop {
            let next = match open.first() {
                Some((_, since)) => waiting
                    .recv_timeout(FOLD.saturating_sub(since.elapsed()))
                    .ok(),
                None => waiting.recv().ok(),
            };
            match next {
                Some(Message::Begun(at)) => {
                    line(&self.shared.folds[at].text.dimmed().to_string());
                    open.push((at, std::time::Instant::now()));
                }
                Some(Message::Line(text)) => line(&text),
                Some(Message::Flush(done)) => {
                    open.drain(..).for_each(|(at, _)| self.close(at));
                    let _nobody_waits = done.send(());
                }
                None => {}
            }
            while open
                .first()
                .is_some_and(|(_, since)| since.elapsed() >= FOLD)
            {
                self.close(open.remove(0).0);
            }
        }
    }

    fn close(&self, at: usize) {
        let fold = &self.shared.folds[at];
        let repeats = fold.count.swap(0, Ordering::Relaxed).saturating_sub(1);
        if repeats > 0 {
            line(
                &format!("{} ({repeats} more within a second)", fold.text)
                    .dimmed()
                    .to_string(),
            );
        }
    }

    fn common(&self, common: Common) {
        let at = common as usize;
        if self.shared.folds[at].count.fetch_add(1, Ordering::Relaxed) == 0
            && self.shared.lines.try_send(Message::Begun(at)).is_err()
        {
            self.shared.folds[at].count.store(0, Ordering::Relaxed);
        }
    }

    fn say(&self, text: String) {
        let _dropped = self.shared.lines.try_send(Message::Line(text));
    }

    fn warn(&self, text: &str) {
        match self.shared.format {
            LogFormat::Text => self.say(format!(
                "{} {}",
                "poetry:".color(Color::Yellow),
                escape::text(text)
            )),
            LogFormat::Json => self.say(escape::json(
                json!({ "time": now(), "notice": text }).to_string(),
            )),
        }
    }
}

impl Observer for Log {
    fn request(&self, record: &AccessRecord<'_>) {
        if self.shared.level == Level::Quiet {
            return;
        }
        if self.shared.format == LogFormat::Json {
            return self.say(object(record));
        }
        if self.shared.level == Level::Verbose {
            return self.say(sentence(record));
        }
        match record.how {
            CacheStatus::Hit(_) => self.common(Common::Hit),
            CacheStatus::Coalesced => self.common(Common::Coalesced),
            CacheStatus::Own if record.outcome == Outcome::Whole => self.common(Common::Own),
            CacheStatus::Stale => self.common(Common::Stale),
            CacheStatus::Remembered => self.common(Common::Remembered),
            CacheStatus::Own | CacheStatus::Miss | CacheStatus::Unasked => {}
        }
    }

    fn notice(&self, notice: Event<'_>) {
        // For machines, trouble that no request's own object tells.
        let json = self.shared.format == LogFormat::Json;
        let told = self.shared.level > Level::Quiet && !json;
        match notice {
            Event::Fetching(from) if told => self.say(format!("fetching a poem from {from}")),
            Event::Fetched(bytes, time, kept) if told => {
                let kept = if kept { "kept" } else { "not kept" };
                self.say(format!("fetched {bytes} bytes in {}, {kept}", short(time)));
            }
            Event::Rejected(from, why) => self.warn(&format!("{from}: rejected: {why}")),
            Event::FetchFailed(error, waiting) if !json || waiting == 0 => {
                self.warn(&error.to_string())
            }
            Event::NextUpstream(error, next) => self.warn(&format!("{error}; trying {next}")),
            Event::Untransformed(error) => self.warn(&format!("sending the original: {error}")),
            Event::Declined(error) if !json => self.warn(&error.to_string()),
            Event::FewDescriptors(room) => {
                self.warn(&format!(
                    "looking after {room} clients at once: the limit on open files allows no more"
                ));
            }
            Event::Paused(error, time) => {
                let why = poetry::error::reason(error);
                self.warn(&format!("accepting pauses for {}: {why}", short(time)));
            }
            Event::Draining(open) if told => {
                self.say(format!("stopping: finishing {}", connections(open)))
            }
            Event::Cut(open) => self.warn(&format!("out of time: cutting {}", connections(open))),
            Event::Reloaded(what) if told => self.say(what.to_string()),
            _ => {}
        }
    }
}

fn connections(count: u64) -> String {
    format!(
        "{count} {}",
        if count == 1 {
            "connection"
        } else {
            "connections"
        }
    )
}

fn short(time: Duration) -> String {
    humantime::format_duration(Duration::from_millis(time.as_millis() as u64)).to_string()
}

/// One request for a person who asked for every one.
fn sentence(record: &AccessRecord<'_>) -> String {
    let how = match record.how {
        CacheStatus::Hit(_) => "hit",
        CacheStatus::Stale => "stale",
        CacheStatus::Coalesced => "coalesced",
        CacheStatus::Miss => "miss",
        CacheStatus::Remembered => "remembered",
        CacheStatus::Own => "own",
        CacheStatus::Unasked => "no request",
    };
    let end = match &record.outcome {
        Outcome::Failed(error) => format!("failed: {}", escape::text(&error.to_string())),
        other => other.word().replace('_', " "),
    };
    format!("{}: {how}, {} bytes, {end}", record.peer, record.bytes)
}

fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

/// One request for a machine.
fn object(record: &AccessRecord<'_>) -> String {
    let mut object = json!({
        "time": now(),
        "peer": record.peer.to_string(),
        "class": record.class().word(),
        "hit": matches!(record.how, CacheStatus::Hit(_) | CacheStatus::Remembered),
        "collapsed": record.how == CacheStatus::Coalesced,
        "bytes": record.bytes,
        "wait_ms": record.wait.as_millis() as u64,
        "outcome": record.outcome.word(),
        "key": String::from_utf8_lossy(record.request),
    });
    match record.how {
        CacheStatus::Hit(until) => {
            let ttl = until.saturating_duration_since(std::time::Instant::now());
            object["ttl"] = json!(ttl.as_secs());
        }
        CacheStatus::Miss => {
            object["fwd"] = json!("miss");
            object["stored"] = json!(record.stored);
        }
        CacheStatus::Coalesced => object["fwd"] = json!("miss"),
        CacheStatus::Stale => object["fwd"] = json!("stale"),
        CacheStatus::Remembered | CacheStatus::Own | CacheStatus::Unasked => {}
    }
    escape::json(object.to_string())
}
