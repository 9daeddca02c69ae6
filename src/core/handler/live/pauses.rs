//! How long a feed waits before it connects again. Plain data; chance is an argument.
//!
//! | the last connection | the pause |
//! |---|---|
//! | lasted 10 s or longer | 1 s |
//! | was shorter, or could not be made | twice the one before, up to 30 s |
//!
//! Up to a quarter is taken off by chance, so that many proxies of one source don't
//! come back at the same moment.

use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A connection that lasts this long was a good one. A server for one client that is
/// taken answers with a text and closes: that is none.
const GOOD: Duration = Duration::from_secs(10);

/// The part that chance takes off at most.
const JITTER: f64 = 0.25;

/// The pauses of a feed.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    /// The pause after a connection that lasted so long, the attempt included. `chance`
    /// is from 0 to 1.
    pub(super) fn after(&mut self, lasted: Duration, chance: f64) -> Duration {
        let last = self.last.filter(|_| lasted < GOOD);
        let pause = last.map_or(PAUSE_MIN, |last| (last * 2).min(PAUSE_MAX));
        self.last = Some(pause);
        pause.mul_f64(1.0 - JITTER * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_connection_lasts() {
        let mut pauses = Pauses::default();
        let mut after = |seconds| pauses.after(Duration::from_secs(seconds), 0.0).as_secs();
        let short = [0, 1, 0, 9, 0, 0, 0].map(&mut after);
        assert_eq!(short, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!([10, 0].map(after), [1, 2]);
    }

    #[test]
    fn chance_takes_off_a_quarter_at_most() {
        let pause = |chance| Pauses::default().after(Duration::ZERO, chance);
        assert_eq!(pause(0.0), PAUSE_MIN);
        assert_eq!(pause(1.0), Duration::from_millis(750));
    }
}
