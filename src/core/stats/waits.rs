//! How long clients waited for the first byte of their answer.
//!
//! A hit that is answered on the spot has waited for nothing, and counting its wait
//! must cost nothing. So only longer waits are counted, and the first bucket is what is
//! left of all connections that had a request:
//!
//! ```text
//! first bucket = connections with a request - those counted in the other buckets
//! ```
//!
//! The two are counted one after the other and read one after the other, while more
//! connections end. The order makes the difference never too large: a wait is counted
//! before its connection, and read after it. It may be too small for a moment, and a
//! counter that shrinks looks like a restart to what reads it. So the largest
//! difference seen so far is shown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds.
pub const WAIT_BOUNDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One number for each bucket: for each bound, and for what is over all of them.
pub type WaitCounts = [u64; WAIT_BOUNDS.len() + 1];

/// The waits counted so far.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Those over the first bound, by their bucket. The first one stays 0.
    over: [AtomicU64; WAIT_BOUNDS.len() + 1],
    nanos: AtomicU64,
    /// The largest first bucket that was shown.
    first: AtomicU64,
}

impl Waits {
    /// Counts the wait of a connection with a request. No wait is no work.
    pub(super) fn add(&self, wait: Duration) {
        if wait.is_zero() {
            return;
        }

        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        let bucket = bucket(&WAIT_BOUNDS, wait);
        if bucket > 0 {
            self.over[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The buckets, where `asked` connections with a request were counted before this
    /// call.
    pub(super) fn counts(&self, asked: u64) -> WaitCounts {
        let mut counts = WaitCounts::default();
        for (count, over) in counts.iter_mut().zip(&self.over) {
            *count = over.load(Ordering::Relaxed);
        }

        let first = asked.saturating_sub(counts.iter().sum());
        let shown = self.first.fetch_max(first, Ordering::Relaxed);
        counts[0] = first.max(shown);
        counts
    }

    /// The sum of all waits.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// The bucket of a duration: the first whose bound, in seconds, is not below it.
pub(crate) fn bucket(bounds: &[f64], time: Duration) -> usize {
    let seconds = time.as_secs_f64();
    bounds.partition_point(|bound| *bound < seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        for (at, bound) in WAIT_BOUNDS.into_iter().enumerate() {
            let bound = Duration::from_secs_f64(bound);
            assert_eq!(bucket(&WAIT_BOUNDS, bound), at);
            let more = bound + Duration::from_nanos(1);
            assert_eq!(bucket(&WAIT_BOUNDS, more), at + 1);
        }
        assert_eq!(bucket(&WAIT_BOUNDS, Duration::ZERO), 0);
    }

    #[test]
    fn what_is_in_no_other_bucket_is_in_the_first() {
        let waits = Waits::default();
        for wait in [0, 1, 3, 30, 20_000] {
            waits.add(MILLISECOND * wait);
        }
        assert_eq!(waits.counts(5), [2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(waits.sum(), MILLISECOND * 20_034);
    }

    #[test]
    fn a_wait_whose_connection_is_not_counted_yet_takes_nothing_back() {
        let waits = Waits::default();
        assert_eq!(waits.counts(7)[0], 7);

        waits.add(MILLISECOND * 3);
        assert_eq!(waits.counts(7)[..2], [7, 1], "its connection comes next");
        assert_eq!(waits.counts(8)[..2], [7, 1]);
        assert_eq!(waits.counts(9)[..2], [8, 1]);
    }
}
