//! Times as a cache keeps them: half as large as an [`Instant`], and as exact.

use std::time::{Duration, Instant};

/// A time within 68 years of the cache's [`Epoch`], to the nanosecond. One further away
/// counts as that far: no process will see the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    /// Whole seconds after the epoch, rounded down.
    seconds: i32,
    nanos: u32,
}

/// What a cache counts its moments from. Which time that is makes no difference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epoch(pub(super) Instant);

impl Epoch {
    pub(super) fn stamp(self, time: Instant) -> Stamp {
        match time.checked_duration_since(self.0) {
            Some(after) => Stamp {
                seconds: i32::try_from(after.as_secs()).unwrap_or(i32::MAX),
                nanos: after.subsec_nanos(),
            },
            None => self.before(time),
        }
    }

    #[cold]
    fn before(self, time: Instant) -> Stamp {
        let before = self.0.duration_since(time);
        let (seconds, nanos) = match before.subsec_nanos() {
            0 => (before.as_secs(), 0),
            nanos => (before.as_secs() + 1, 1_000_000_000 - nanos),
        };
        Stamp {
            seconds: i32::try_from(seconds).map_or(i32::MIN, |seconds| -seconds),
            nanos,
        }
    }

    /// The same time, unless it was too far away.
    #[inline]
    pub(super) fn instant(self, stamp: Stamp) -> Instant {
        let Ok(seconds) = u64::try_from(stamp.seconds) else {
            return self.instant_before(stamp);
        };
        let after = Duration::new(seconds, stamp.nanos);
        self.0.checked_add(after).unwrap_or(self.0) // no clock ends that soon
    }

    #[cold]
    fn instant_before(self, stamp: Stamp) -> Instant {
        let seconds = Duration::from_secs(stamp.seconds.unsigned_abs().into());
        let nanos = Duration::from_nanos(stamp.nanos.into());
        self.0.checked_sub(seconds - nanos).unwrap_or(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_as_exact_as_the_time_that_it_stands_for() {
        let now = Instant::now();
        let epoch = Epoch(now);
        let year = Duration::from_secs(365 * 86_400);
        let nano = Duration::from_nanos(1);
        let times = [
            now - Duration::from_secs(3),
            now - Duration::from_millis(1500),
            now - nano,
            now,
            now + nano,
            now + Duration::from_millis(1500),
            now + year * 50 - nano,
            now + year * 50,
        ];

        for pair in times.windows(2) {
            assert!(epoch.stamp(pair[0]) < epoch.stamp(pair[1]));
        }
        for time in times {
            assert_eq!(epoch.instant(epoch.stamp(time)), time);
        }
        assert!(epoch.stamp(now + year * 500) >= epoch.stamp(now + year * 50));
    }
}
