//! When the log is told of lines that slow readers have lost: at once, and then once a
//! minute at most. Plain data; time is an argument.

use crate::live::FeedLosses;
use crate::observe::FeedNews;
use std::time::{Duration, Instant};

/// How often losses are looked for. A look goes through all readers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often they are told while they go on.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What was told of losses.
#[derive(Debug, Default)]
pub(super) struct LossWatch {
    next_look: Option<Instant>,
    /// Lines that were told.
    told: u64,
}

impl LossWatch {
    /// What is to be told now.
    pub(super) fn look(
        &mut self,
        now: Instant,
        losses: impl FnOnce() -> FeedLosses,
    ) -> Option<FeedNews> {
        if self.next_look.is_some_and(|next| now < next) {
            return None;
        }

        self.next_look = Some(now + LOOK_EVERY);
        let losses = losses();
        let lines = losses.lines - self.told;
        if lines == 0 {
            return None;
        }
        self.next_look = Some(now + TELL_EVERY);
        self.told = losses.lines;
        Some(FeedNews::LinesLost {
            lines,
            readers: losses.slow,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_at_once_and_then_once_a_minute() {
        let start = Instant::now();
        let mut watch = LossWatch::default();
        let mut look = |seconds, lines| {
            let losses = FeedLosses {
                readers: 3,
                lines,
                slow: 2,
            };
            watch.look(start + Duration::from_secs(seconds), || losses)
        };
        let told = |lines| Some(FeedNews::LinesLost { lines, readers: 2 });

        assert_eq!(look(0, 0), None);
        assert_eq!(look(0, 5), None, "not within a second");
        assert_eq!(look(1, 5), told(5));
        assert_eq!(look(60, 9), None);
        assert_eq!(look(61, 9), told(4));
        assert_eq!(look(121, 9), None);
        assert_eq!(look(122, 10), told(1), "a second later");
    }
}
