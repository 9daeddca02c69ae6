//! When is a server that refused the connection asked again?
//!
//! Plain data; time is an argument.

use std::time::{Duration, Instant};

/// The first pause: a server that takes one connection and is started again in a loop
/// is back within some milliseconds, and a client hardly notices.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause, after doubling: two tries a second are few for a server that is
/// being started, and it is found half a second after it is there.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The tries of one request while its server refuses.
#[derive(Debug, Clone)]
pub struct ConnectRetry {
    limit: Duration,
    /// When it is tried for the last time, once it has refused.
    until: Option<Instant>,
    pause: Duration,
}

impl ConnectRetry {
    /// Tries again for `limit` from the first refusal on; not at all if it is zero.
    pub fn new(limit: Duration) -> ConnectRetry {
        ConnectRetry {
            limit,
            until: None,
            pause: PAUSE_MIN,
        }
    }

    /// The server has refused. Returns the pause before the next try; `None` once the
    /// time is over. The last try is made at its very end.
    pub fn refused(&mut self, now: Instant) -> Option<Duration> {
        let until = *self.until.get_or_insert(now + self.limit);
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }

        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        Some(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_the_last_try_is_at_the_end() {
        let mut retry = ConnectRetry::new(Duration::from_secs(2));
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        while let Some(pause) = retry.refused(now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500, 250]);
        assert_eq!(retry.refused(now + PAUSE_MAX), None);
    }

    #[test]
    fn without_a_limit_nothing_is_tried_again() {
        let now = Instant::now();
        assert_eq!(ConnectRetry::new(Duration::ZERO).refused(now), None);
    }

    #[test]
    fn time_that_a_try_takes_counts() {
        let mut retry = ConnectRetry::new(Duration::from_secs(1));
        let now = Instant::now();
        assert_eq!(retry.refused(now), Some(PAUSE_MIN));
        assert_eq!(retry.refused(now + Duration::from_secs(1)), None);
    }
}
