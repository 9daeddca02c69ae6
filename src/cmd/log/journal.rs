//! A line with its priority. A service manager takes every line of stderr for
//! information, unless the line begins with another priority: `<4>` is a warning, as in
//! sd-daemon(3). So `journalctl -p warning` finds what matters.
//!
//! Only where stderr is the journal's own stream: in a file or a container's log the
//! prefix would be noise.

use poetry::error::Error;
use poetry::observe::{AccessRecord, Event, Outcome};
use std::fs::File;
use std::io::{self, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

/// A line of the log, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub priority: Priority,
}

/// How much a line matters, in the words and numbers of syslog(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// 3: a bug, or an error that ends the process.
    Error,
    /// 4: trouble.
    Warning,
    /// 5: purged, reloaded, stopping.
    Notice,
    /// 6: all else.
    Info,
}

impl Priority {
    /// What begins a line of the journal.
    fn prefix(self) -> &'static str {
        match self {
            Priority::Error => "<3>",
            Priority::Warning => "<4>",
            Priority::Notice => "<5>",
            Priority::Info => "<6>",
        }
    }

    /// That of an event.
    pub fn of_event(event: &Event<'_>) -> Priority {
        match event {
            _ if event.is_trouble() => Priority::Warning,
            Event::Stopping { .. } | Event::Draining { .. } | Event::Reloaded { .. } => {
                Priority::Notice
            }
            _ => Priority::Info,
        }
    }

    /// That of a request. What a client did wrong, or a script asked for, is no
    /// trouble.
    pub fn of_request(record: &AccessRecord<'_>) -> Priority {
        match &record.outcome {
            Outcome::Failed(error) => match **error {
                Error::BadRequest { .. } | Error::Rehearsed { .. } => Priority::Info,
                _ => Priority::Warning,
            },
            _ => Priority::Info,
        }
    }
}

impl Line {
    /// A line of this priority.
    pub fn new(priority: Priority, text: String) -> Line {
        Line { text, priority }
    }

    /// Trouble.
    pub fn trouble(text: String) -> Line {
        Line::new(Priority::Warning, text)
    }

    /// What begins the line; nothing where stderr is not the journal.
    pub fn prefix(&self) -> &'static str {
        static IS_JOURNAL: LazyLock<bool> = LazyLock::new(|| {
            let stream = std::env::var("JOURNAL_STREAM");
            stream.is_ok_and(|stream| is_stderr(&stream).unwrap_or(false))
        });

        if *IS_JOURNAL {
            self.priority.prefix()
        } else {
            ""
        }
    }
}

/// Whether stderr is this file: the numbers of its device and inode, `DEVICE:INODE`.
///
/// # Errors
/// The system's.
fn is_stderr(stream: &str) -> io::Result<bool> {
    let stderr = File::from(stderr().as_fd().try_clone_to_owned()?);
    let file = stderr.metadata()?;
    Ok(stream == format!("{}:{}", file.dev(), file.ino()))
}
