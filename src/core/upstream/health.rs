//! Which of several servers is asked first: the first that has not just failed.
//!
//! Plain data; time is an argument.
//!
//! | a server is | it is asked | success | failure |
//! |---|---|---|---|
//! | up | in its place | up | down, for 1 s |
//! | down | after those that are up | up | as before |
//! | down, and its time is over | by one fetch in its place, by others as if down | up | down, twice as long, up to 30 s |

use std::time::{Duration, Instant};

/// The first and the longest time for which a server that has failed is not asked
/// first. Each failed probe doubles it.
const DOWN_MIN: Duration = Duration::from_secs(1);
const DOWN_MAX: Duration = Duration::from_secs(30);

/// How long a probe may take before another fetch may probe as well: one that was
/// aborted reports nothing.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// The health of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Up,
    Down {
        since: Instant,
        until: Instant,
        failures: u32,
        /// When a fetch last began to probe it.
        probed: Option<Instant>,
    },
}

/// A change worth reporting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It was up, and is not asked first for this long.
    WentDown(Duration),
    /// It was down for this long.
    CameUp(Duration),
}

impl Health {
    /// It is up.
    pub(super) fn new() -> Health {
        Health { state: State::Up }
    }

    /// Whether it is asked in its place. One that is to be probed is.
    pub(super) fn is_first(&self, now: Instant) -> bool {
        let State::Down { until, probed, .. } = self.state else {
            return true;
        };
        let is_free = probed.is_none_or(|since| now >= since + PROBE_TIME);
        now >= until && is_free
    }

    /// Since when it is down; `None` if it is up.
    pub(super) fn down_since(&self) -> Option<Instant> {
        match self.state {
            State::Up => None,
            State::Down { since, .. } => Some(since),
        }
    }

    /// It is asked. If it is down and its time is over, this is its probe.
    pub(super) fn asked(&mut self, now: Instant) {
        if let State::Down { until, probed, .. } = &mut self.state
            && now >= *until
        {
            *probed = Some(now);
        }
    }

    /// It has answered.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<Change> {
        let before = std::mem::replace(&mut self.state, State::Up);
        match before {
            State::Up => None,
            State::Down { since, .. } => Some(Change::CameUp(now - since)),
        }
    }

    /// It has failed.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Up => {
                self.state = State::Down {
                    since: now,
                    until: now + DOWN_MIN,
                    failures: 1,
                    probed: None,
                };
                Some(Change::WentDown(DOWN_MIN))
            }
            State::Down { until, .. } if now < until => None, // asked as a last resort
            State::Down {
                since, failures, ..
            } => {
                let pause = DOWN_MIN.saturating_mul(1 << failures.min(5)).min(DOWN_MAX);
                self.state = State::Down {
                    since,
                    until: now + pause,
                    failures: failures + 1,
                    probed: None,
                };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The health of several servers.
    struct All(Vec<Health>);

    impl All {
        fn new(servers: usize) -> All {
            All(std::iter::repeat_with(Health::new).take(servers).collect())
        }

        /// The servers in the order in which a fetch that starts now asks them.
        fn order(&self, now: Instant) -> Vec<usize> {
            let is_first = |server: &usize| self.0[*server].is_first(now);
            let (mut first, last): (Vec<_>, Vec<_>) = (0..self.0.len()).partition(is_first);
            first.extend(last);
            first
        }

        fn failed(&mut self, server: usize, now: Instant) -> Option<Change> {
            self.0[server].failed(now)
        }

        fn asked(&mut self, server: usize, now: Instant) {
            self.0[server].asked(now);
        }

        fn succeeded(&mut self, server: usize, now: Instant) -> Option<Change> {
            self.0[server].succeeded(now)
        }

        fn down_since(&self, server: usize) -> Option<Instant> {
            self.0[server].down_since()
        }
    }

    #[test]
    fn a_server_that_has_failed_is_asked_last() {
        let mut health = All::new(3);
        let now = Instant::now();
        assert_eq!(health.order(now), [0, 1, 2]);

        assert_eq!(health.failed(0, now), Some(Change::WentDown(SECOND)));
        assert_eq!(health.order(now), [1, 2, 0]);
        assert_eq!(health.failed(0, now), None, "it is reported once");

        let since = [0, 1, 2].map(|server| health.down_since(server));
        assert_eq!(since, [Some(now), None, None]);
    }

    #[test]
    fn one_fetch_probes_a_server_when_its_time_is_over() {
        let mut health = All::new(2);
        let now = Instant::now();
        health.failed(0, now);

        let later = now + SECOND;
        assert_eq!(health.order(later), [0, 1]);
        health.asked(0, later);
        assert_eq!(health.order(later), [1, 0], "one probe at a time");
        assert_eq!(health.order(later + PROBE_TIME), [0, 1], "it was lost");

        assert_eq!(health.succeeded(0, later), Some(Change::CameUp(SECOND)));
        assert_eq!(health.down_since(0), None);
        assert_eq!(health.succeeded(0, later), None);
        assert_eq!(health.order(later), [0, 1]);
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_thirty_seconds() {
        let mut health = All::new(2);
        let mut now = Instant::now();
        health.failed(0, now);

        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let nearly = now + SECOND * seconds - Duration::from_nanos(1);
            assert_eq!(health.order(nearly), [1, 0], "{seconds} s");
            now += SECOND * seconds;
            assert_eq!(health.order(now), [0, 1], "{seconds} s");
            health.asked(0, now);
            assert_eq!(health.failed(0, now), None);
        }
    }

    #[test]
    fn a_server_that_no_fetch_came_to_ask_is_not_probed() {
        let mut health = All::new(3);
        let now = Instant::now();
        health.failed(1, now);

        let later = now + SECOND;
        assert_eq!(health.order(later), [0, 1, 2]);
        health.asked(0, later);
        assert_eq!(health.order(later), [0, 1, 2]);
        health.failed(0, later);
        assert_eq!(health.order(later), [1, 2, 0]);
    }
}
