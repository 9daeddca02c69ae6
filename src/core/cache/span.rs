//! Durations as a cache keeps them: a quarter as large as a
//! [`Duration`].

use std::time::Duration;

/// A duration of at most 34 years; a longer one counts as that long. It is rounded down
/// to the finest unit in which it is less than 2^30, by a millionth at most: whole
/// seconds stay exact, and so does what a person writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(u32);

/// The units in nanoseconds, by the number that stands above the count.
const UNITS: [u64; 4] = [1, 1_000, 1_000_000, 1_000_000_000];

const COUNT_BITS: u32 = 30;
const COUNT_MOST: u32 = (1 << COUNT_BITS) - 1;

impl Span {
    pub(super) const ZERO: Span = Span(0);

    pub(super) fn of(time: Duration) -> Span {
        let nanos = time.as_nanos();
        for (number, unit) in (0..).zip(UNITS) {
            let count = nanos / u128::from(unit);
            if let Ok(count) = u32::try_from(count)
                && count <= COUNT_MOST
            {
                return Span(number << COUNT_BITS | count);
            }
        }
        Span(u32::MAX)
    }

    #[inline]
    pub(super) fn duration(self) -> Duration {
        let unit = UNITS[(self.0 >> COUNT_BITS) as usize];
        Duration::from_nanos(u64::from(self.0 & COUNT_MOST) * unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_person_writes_stays_exact() {
        let day = Duration::from_secs(86_400);
        for time in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(500),
            Duration::from_secs(90),
            Duration::from_secs(7200),
            day + Duration::from_secs(1),
            day * 365 * 30,
        ] {
            assert_eq!(Span::of(time).duration(), time);
        }
        assert_eq!(Span::of(Duration::ZERO), Span::ZERO);
        assert_eq!(
            Span::of(Duration::MAX).duration(),
            Duration::from_secs(COUNT_MOST.into())
        );
    }

    proptest! {
        #[test]
        fn a_span_is_never_longer_and_hardly_shorter(
            seconds in 0u64..1 << 30, nanos in 0u32..1_000_000_000, scale in 0u32..30,
        ) {
            let time = Duration::new(seconds >> scale, nanos);
            let kept = Span::of(time).duration();
            prop_assert!(kept <= time);
            prop_assert!(time - kept <= time / 1_000_000, "{time:?} {kept:?}");
            prop_assert_eq!(Span::of(kept).duration(), kept);
        }
    }
}
