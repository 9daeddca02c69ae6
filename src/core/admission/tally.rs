//! How many connections were refused for one reason since that was last told.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Refusals for one reason. The first is told at once; the others are counted, and told
/// together a minute later.
#[derive(Debug, Default)]
pub struct Tally {
    /// Held to count or to take.
    counted: Mutex<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    /// Whether the first was told, and a minute is being waited for.
    is_open: bool,
    more: u64,
    last: Option<IpAddr>,
}

impl Tally {
    /// Counts a refusal. True if it is the first, which is to be told now.
    pub fn add(&self, from: Option<IpAddr>) -> bool {
        let mut counted = self.lock();
        if !counted.is_open {
            counted.is_open = true;
            return true;
        }

        counted.more += 1;
        counted.last = from;
        false
    }

    /// A minute is over: takes how many more there were, and the last address. `None`
    /// if there were none. Then the next one is a first again.
    pub fn take(&self) -> Option<(u64, Option<IpAddr>)> {
        let mut counted = self.lock();
        counted.is_open = counted.more > 0;
        let more = std::mem::take(&mut counted.more);
        (more > 0).then_some((more, counted.last))
    }

    fn lock(&self) -> MutexGuard<'_, Untold> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let tally = Tally::default();
        let from = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        assert!(tally.add(from(1)));
        assert!(!tally.add(from(2)));
        assert!(!tally.add(from(3)));

        assert_eq!(tally.take(), Some((2, from(3))));
        assert!(!tally.add(from(4)), "the minute goes on");
        assert_eq!(tally.take(), Some((1, from(4))));
        assert_eq!(tally.take(), None);
        assert!(tally.add(from(5)), "a first again");
    }
}
