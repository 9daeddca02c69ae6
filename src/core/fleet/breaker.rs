//! Whether the server is asked at all. Pure, and told the time.
//!
//! | state | a fetch | becomes |
//! |---|---|---|
//! | apart: no connection | asks nothing | closed once there is one |
//! | closed | asks, and waits 50 ms at most | open after three in a row that were late or made no sense; apart when the connection is lost |
//! | open | asks nothing | closed when the server answers a PING in time; one is sent every 200 ms |
//!
//! So a server that hangs costs three fetches 50 ms each, and no other one anything. A
//! change between closed and the others is told, once.

use std::time::{Duration, Instant};

/// Questions in a row without a good answer before nothing more is asked.
pub(super) const FAILURES_MOST: u32 = 3;

/// How often an open breaker lets a PING through.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(200);

/// See the table above.
#[derive(Debug)]
pub(super) struct Breaker {
    is_linked: bool,
    /// Without a good answer, in a row.
    failures: u32,
    /// What was told last: whether it is closed.
    told: Option<bool>,
    /// When that last changed.
    since: Instant,
    /// Fetches that asked nothing since then.
    alone: u64,
}

/// What a note changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Nothing that is told.
    Not,
    /// The server can't be asked any more, or not from the start.
    Down,
    /// It can be asked, for the first time.
    Up,
    /// It can be asked again.
    UpAgain {
        /// How long it could not.
        after: Duration,
        /// Fetches that asked nothing meanwhile.
        alone: u64,
    },
}

impl Breaker {
    /// Apart, since `now`.
    pub fn new(now: Instant) -> Breaker {
        Breaker {
            is_linked: false,
            failures: 0,
            told: None,
            since: now,
            alone: 0,
        }
    }

    /// Whether a fetch may ask.
    pub fn is_closed(&self) -> bool {
        self.is_linked && self.failures < FAILURES_MOST
    }

    /// For how long it has been as it is.
    pub fn state_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// A fetch goes without the server.
    pub fn went_alone(&mut self) {
        self.alone += 1;
    }

    /// Whether a fetch has gone without the server since it was closed last.
    pub fn has_gone_alone(&self) -> bool {
        self.alone > 0
    }

    /// There is a connection.
    pub fn linked(&mut self, now: Instant) -> Turned {
        self.is_linked = true;
        self.failures = 0;
        self.turn(now)
    }

    /// There is none, or none any more.
    pub fn unlinked(&mut self, now: Instant) -> Turned {
        self.is_linked = false;
        self.turn(now)
    }

    /// A question has had a good answer, in time.
    pub fn answered(&mut self, now: Instant) -> Turned {
        self.failures = 0;
        self.turn(now)
    }

    /// A question has had none.
    pub fn failed(&mut self, now: Instant) -> Turned {
        self.failures = self.failures.saturating_add(1);
        self.turn(now)
    }

    fn turn(&mut self, now: Instant) -> Turned {
        let is_closed = self.is_closed();
        let told = self.told.replace(is_closed);
        if told == Some(is_closed) {
            return Turned::Not;
        }

        let before = self.since;
        if told.is_some() {
            self.since = now;
        }
        if !is_closed {
            return Turned::Down;
        }
        let alone = std::mem::take(&mut self.alone);
        match told {
            None => Turned::Up,
            Some(_) => Turned::UpAgain {
                after: now.saturating_duration_since(before),
                alone,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(start);
        assert!(!breaker.is_closed());
        assert_eq!(breaker.linked(at(0)), Turned::Up);

        assert_eq!(breaker.failed(at(0)), Turned::Not);
        assert_eq!(breaker.failed(at(1)), Turned::Not);
        assert_eq!(breaker.answered(at(2)), Turned::Not);
        for second in [3, 4] {
            assert_eq!(breaker.failed(at(second)), Turned::Not);
            assert!(breaker.is_closed());
        }
        assert_eq!(breaker.failed(at(5)), Turned::Down);
        assert_eq!(breaker.failed(at(6)), Turned::Not, "it is told once");
        assert!(!breaker.is_closed());

        breaker.went_alone();
        let back = Turned::UpAgain {
            after: Duration::from_secs(8),
            alone: 1,
        };
        assert_eq!(breaker.answered(at(13)), back);
        assert!(breaker.is_closed() && !breaker.has_gone_alone());
        assert_eq!(breaker.answered(at(14)), Turned::Not);
    }

    #[test]
    fn a_lost_connection_is_told_once_and_so_is_a_new_one() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        assert_eq!(breaker.unlinked(start), Turned::Down, "from the start");
        assert_eq!(breaker.unlinked(start), Turned::Not);
        let back = breaker.linked(start + Duration::from_secs(1));
        assert!(matches!(back, Turned::UpAgain { alone: 0, .. }));
        let later = start + Duration::from_secs(3);
        assert_eq!(breaker.state_for(later), Duration::from_secs(2));

        for _ in 0..3 {
            breaker.failed(start);
        }
        assert_eq!(breaker.unlinked(start), Turned::Not, "it was open already");
        assert!(matches!(breaker.linked(start), Turned::UpAgain { .. }));
    }
}
