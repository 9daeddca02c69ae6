//! What is known of one server: how often it was asked, and what came of that.
//!
//! Plain data; time is an argument. Each server of the command line has a record from
//! the start, also before it was asked and while its name does not resolve.
//!
//! | what happens | what is counted |
//! |---|---|
//! | it is asked | asked, a connection until the answer ends or is given up |
//! | bytes come | received |
//! | a feed brings lines | the last success |
//! | its answer is whole | how long it took, the last success |
//! | it fails | the failure by its kind, the last error |
//! | it declines, or we stop reading | nothing more |

use crate::control::{ERRORS, Histogram, UpstreamCounts, UpstreamState};
use crate::error::Error;
use std::time::Instant;

/// The upper bounds of the durations, in seconds. The longest is the default of
/// `--fetch-timeout`.
pub const DURATION_BOUNDS: [f64; 11] = [
    0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

/// What is known of one server.
#[derive(Debug)]
pub(super) struct Record {
    connections: u64,
    asked: u64,
    failures: [u64; ERRORS.len()],
    durations: Histogram,
    received: u64,
    /// Whether it has answered or failed.
    is_known: bool,
    last_success: Option<Instant>,
    last_error: Option<(String, Instant)>,
}

impl Record {
    pub(super) fn new() -> Record {
        Record {
            connections: 0,
            asked: 0,
            failures: Default::default(),
            durations: Histogram::new(&DURATION_BOUNDS),
            received: 0,
            is_known: false,
            last_success: None,
            last_error: None,
        }
    }

    /// It is asked. [`Record::left`] must follow.
    pub(super) fn asked(&mut self) {
        self.asked += 1;
        self.connections += 1;
    }

    /// A connection to it has ended, or could not be made.
    pub(super) fn left(&mut self) {
        self.connections -= 1;
    }

    /// It has sent bytes.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Its answer, which was asked for at `since`, is whole.
    pub(super) fn succeeded(&mut self, since: Instant, now: Instant) {
        self.is_known = true;
        self.durations.add(now.saturating_duration_since(since));
        self.last_success = Some(now);
    }

    /// It has brought a part of an answer that has no end.
    pub(super) fn brings(&mut self, now: Instant) {
        self.is_known = true;
        self.last_success = Some(now);
    }

    /// Asking it has failed. Failures of our own say nothing about it, and a request
    /// that is declined is answered.
    pub(super) fn failed(&mut self, error: &Error, now: Instant) {
        if !error.is_upstreams() {
            return;
        }
        self.is_known = true;
        if matches!(error, Error::Declined { .. }) {
            return;
        }

        self.failures[kind(error)] += 1;
        self.last_error = Some((error.to_string(), now));
    }

    /// The figures. The server is down since `down_since`, if it is.
    pub(super) fn counts(
        &self,
        name: String,
        down_since: Option<Instant>,
        now: Instant,
    ) -> UpstreamCounts {
        let ago = |then: Instant| now.saturating_duration_since(then);
        let state = match down_since {
            Some(since) => UpstreamState::Down(ago(since)),
            None if self.is_known => UpstreamState::Up,
            None => UpstreamState::Unknown,
        };
        let last_error = self.last_error.as_ref();

        UpstreamCounts {
            name,
            state,
            paused: None, // not known here
            connections: self.connections,
            asked: self.asked,
            failures: self.failures,
            durations: self.durations.clone(),
            received: self.received,
            last_success: self.last_success.map(ago),
            last_error: last_error.map(|(text, then)| (text.clone(), ago(*then))),
        }
    }
}

/// The place of an error in [`ERRORS`]. The last, `other`, is for all without a word of
/// their own there.
fn kind(error: &Error) -> usize {
    let found = ERRORS.iter().position(|word| *word == error.word());
    found.unwrap_or(ERRORS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn counts(record: &Record, now: Instant) -> UpstreamCounts {
        record.counts("a server".into(), None, now)
    }

    fn unreachable() -> Error {
        Error::Unreachable {
            subject: "a server".into(),
            why: "connection refused".into(),
        }
    }

    #[test]
    fn a_server_that_was_not_asked_has_its_record() {
        let counts = counts(&Record::new(), Instant::now());
        assert_eq!(counts.state, UpstreamState::Unknown);
        assert_eq!(counts.asked, 0);
        assert_eq!(counts.durations.counts, [0; 12]);
        assert_eq!((counts.last_success, counts.last_error), (None, None));
    }

    #[test]
    fn a_whole_answer_is_a_success_with_its_duration() {
        let mut record = Record::new();
        let now = Instant::now();

        record.asked();
        assert_eq!(counts(&record, now).connections, 1);
        assert_eq!(counts(&record, now).state, UpstreamState::Unknown);
        record.received(10);
        record.received(20);
        record.succeeded(now, now + 3 * SECOND);
        record.left();

        let counts = counts(&record, now + 5 * SECOND);
        assert_eq!(counts.state, UpstreamState::Up);
        assert_eq!((counts.asked, counts.connections), (1, 0));
        assert_eq!(counts.received, 30);
        assert_eq!(counts.durations.counts[6], 1, "at most 5 s");
        assert_eq!(counts.durations.sum, 3.0);
        assert_eq!(counts.last_success, Some(2 * SECOND));
    }

    #[test]
    fn failures_are_counted_by_their_kind() {
        let subject = || "a server".to_string();
        let why = || "a reason".to_string();
        let timeout = |stage| Error::Timeout {
            subject: subject(),
            stage,
            limit: SECOND,
        };
        let mut record = Record::new();
        let now = Instant::now();
        for error in [
            unreachable(),
            timeout(Stage::Connect),
            timeout(Stage::NextByte),
            Error::Empty { subject: subject() },
            Error::Malformed {
                subject: subject(),
                why: why(),
            },
            Error::TooLong {
                subject: subject(),
                limit: 1,
            },
        ] {
            record.failed(&error, now);
        }
        assert_eq!(counts(&record, now).failures, [0, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn what_is_not_the_servers_fault_is_no_failure() {
        let mut record = Record::new();
        let now = Instant::now();

        let ours = Error::NoRoom {
            subject: "a server".into(),
            capacity: 1,
        };
        record.failed(&ours, now);
        assert_eq!(counts(&record, now).state, UpstreamState::Unknown);

        let declined = Error::Declined {
            subject: "a server".into(),
        };
        record.failed(&declined, now);
        let counts = counts(&record, now);
        assert_eq!(counts.state, UpstreamState::Up, "it has answered");
        assert_eq!(counts.failures, [0; ERRORS.len()]);
        assert_eq!(counts.last_error, None);
    }

    #[test]
    fn the_last_error_says_what_and_when() {
        let mut record = Record::new();
        let now = Instant::now();
        record.failed(&unreachable(), now);

        let later = now + 4 * SECOND;
        let counts = record.counts("a server".into(), Some(now + SECOND), later);
        assert_eq!(counts.state, UpstreamState::Down(3 * SECOND));
        let text = "a server: could not connect: connection refused";
        assert_eq!(counts.last_error, Some((text.to_string(), 4 * SECOND)));
    }
}
