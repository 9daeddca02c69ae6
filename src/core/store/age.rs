//! How old a stored text is, and what that allows. No clock: both times are arguments.
//!
//! A text's end is noted by two clocks: one that counts since the machine has started,
//! also while it sleeps, and the wall clock.
//!
//! | the machine | age |
//! |---|---|
//! | has not been restarted since | the difference by the first clock, whatever was done to the wall clock |
//! | has been restarted | the difference by the wall clock |
//! | the same, and the wall clock is over 2 s behind the end, or behind the latest time that was ever noted | can't be known: the text is not used |
//!
//! A wall clock that was set forward makes texts older, which is safe. An age is
//! rounded up by up to two milliseconds, so that no text is served past its ttl.
//!
//! | age | not purged | purged softly, `p` ago |
//! |---|---|---|
//! | under the ttl | fresh | stale, for `grace - p` and at most until ttl and grace are over |
//! | under ttl and grace | stale | the same |
//! | more, or `p` is over the grace | not used | not used |

use crate::cache::Freshness;
use std::time::{Duration, Instant};

/// What both clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Which start of the machine the first clock counts from.
    pub boot: [u8; 16],
    /// Milliseconds since then.
    pub boot_ms: i64,
    /// Milliseconds since 1970 by the wall clock.
    pub wall_ms: i64,
}

/// What clocks may differ by without a sign that one was set, in milliseconds.
const TOLERANCE_MS: i64 = 2000;

/// Both times are rounded down, so a difference may be one too small.
const ROUNDING_MS: i64 = 1;

/// How long ago `then` was. `latest` is the latest wall clock time ever noted. `None`
/// if it can't be known.
pub(super) fn age(then: &ClockReading, now: &ClockReading, latest: i64) -> Option<Duration> {
    let ms = if then.boot == now.boot {
        let ms = now.boot_ms.saturating_sub(then.boot_ms);
        (ms >= 0).then_some(ms)?
    } else {
        let latest = latest.max(then.wall_ms);
        let was_set_back = now.wall_ms.saturating_add(TOLERANCE_MS) < latest;
        if was_set_back {
            return None;
        }
        now.wall_ms.saturating_sub(then.wall_ms).max(0)
    };
    Some(Duration::from_millis(ms.saturating_add(ROUNDING_MS) as u64))
}

/// How long texts are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub ttl: Duration,
    pub grace: Duration,
}

impl Terms {
    /// How long a text of this age may be served. `purged` is how long ago it was
    /// purged softly. `None` if it may not.
    pub fn freshness(
        &self,
        age: Duration,
        purged: Option<Duration>,
        now: Instant,
    ) -> Option<Freshness> {
        let mut served_for = (self.ttl.saturating_add(self.grace)).checked_sub(age)?;
        if let Some(ago) = purged {
            served_for = served_for.min(self.grace.checked_sub(ago)?);
        }
        if served_for.is_zero() {
            return None;
        }

        let past_ttl = now.checked_sub(age.saturating_sub(self.ttl));
        let fresh_until = if age < self.ttl && purged.is_none() {
            now + (self.ttl - age)
        } else {
            past_ttl.unwrap_or(now)
        };
        Some(Freshness {
            fresh_until,
            stale_until: now + served_for,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: i64 = 3_600_000;

    fn reading(boot: u8, boot_ms: i64, wall_ms: i64) -> ClockReading {
        ClockReading {
            boot: [boot; 16],
            boot_ms,
            wall_ms,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_table_of_ages_holds() {
        let then = reading(1, 5000, 10 * HOUR_MS);
        let wall = |wall_ms| reading(2, 0, wall_ms);
        let end = 10 * HOUR_MS;
        for (what, now, latest, want) in [
            ("the same start", reading(1, 6000, end), end, Some(1001)),
            (
                "clock + 1 h",
                reading(1, 6000, end + HOUR_MS),
                end,
                Some(1001),
            ),
            (
                "clock - 1 h",
                reading(1, 6000, end - HOUR_MS),
                end,
                Some(1001),
            ),
            ("before its end", reading(1, 4999, end), end, None),
            ("another start", wall(end + 1000), end, Some(1001)),
            ("2 s behind its end", wall(end - 2000), end, Some(1)),
            ("more behind its end", wall(end - 2001), 0, None),
            ("2 s behind the latest", wall(end), end + 2000, Some(1)),
            ("more behind the latest", wall(end), end + 2001, None),
            ("set forward", wall(end + HOUR_MS), end, Some(3_600_001)),
            (
                "damaged",
                wall(i64::MAX),
                i64::MIN,
                Some(i64::MAX as u64 - 36_000_000 + 1),
            ),
        ] {
            assert_eq!(age(&then, &now, latest), want.map(ms), "{what}");
        }
    }

    #[test]
    fn the_table_of_uses_holds() {
        let terms = Terms {
            ttl: ms(100),
            grace: ms(50),
        };
        let now = Instant::now() + Duration::from_secs(3600);
        let plus = |ms: i64| {
            let by = Duration::from_millis(ms.unsigned_abs());
            if ms < 0 { now - by } else { now + by }
        };
        for (age, purged, want) in [
            (0, None, Some((100, 150))),
            (99, None, Some((1, 51))),
            (100, None, Some((0, 50))),
            (149, None, Some((-49, 1))),
            (150, None, None),
            (10, Some(0), Some((0, 50))),
            (10, Some(20), Some((0, 30))),
            (10, Some(49), Some((0, 1))),
            (10, Some(50), None),
            (10, Some(60), None),
            (140, Some(20), Some((-40, 10))),
        ] {
            let found = terms.freshness(ms(age), purged.map(ms), now);
            let found = found.map(|of| (of.fresh_until, of.stale_until));
            let want = want.map(|(fresh, stale)| (plus(fresh), plus(stale)));
            assert_eq!(found, want, "{age} {purged:?}");
        }
    }

    proptest! {
        #[test]
        fn an_age_is_never_below_the_true_one_in_one_start(
            then in 0i64..1 << 40, past in 0u64..1 << 40,
            clock in any::<i64>(), latest in any::<i64>(),
        ) {
            let now = reading(1, then + past as i64, clock);
            let found = age(&reading(1, then, 0), &now, latest).unwrap();
            prop_assert!(found >= ms(past) && found <= ms(past + 1));
        }

        #[test]
        fn a_clock_that_was_set_back_gives_no_age(
            then in 0i64..1 << 40, back in 2001i64..1 << 40,
        ) {
            let now = reading(2, 0, then - back);
            prop_assert_eq!(age(&reading(1, 0, then), &now, i64::MIN), None);
            let now = reading(2, 0, then);
            prop_assert_eq!(age(&reading(1, 0, then), &now, then + back), None);
        }

        #[test]
        fn no_text_is_used_past_ttl_and_grace_nor_fresh_past_its_ttl(
            of_ttl in 0u64..1000, of_grace in 0u64..1000, past in 0u64..3000,
            purged in proptest::option::of(0u64..3000),
        ) {
            let terms = Terms { ttl: ms(of_ttl), grace: ms(of_grace) };
            let now = Instant::now() + Duration::from_secs(3600);
            if let Some(found) = terms.freshness(ms(past), purged.map(ms), now) {
                let end = now - ms(past);
                prop_assert!(found.stale_until > now);
                prop_assert!(found.stale_until <= end + ms(of_ttl + of_grace));
                prop_assert!(found.fresh_until <= end + ms(of_ttl));
                if let Some(ago) = purged {
                    prop_assert!(found.fresh_until <= now);
                    prop_assert!(found.stale_until <= now - ms(ago) + ms(of_grace));
                }
            }
        }
    }
}
