//! The heartbeat of the executors: when each last ran a task that does nothing else.
//! Another thread sees by its age whether one of them is stuck.

use crate::rt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two beats. A turn of the executor costs some microseconds, so this
/// costs nothing, and the age of a healthy heartbeat is hardly ever over two seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// When each executor last showed that it runs. Any thread may read it.
#[derive(Debug)]
pub struct Heartbeat {
    since: Instant,
    /// The last beat of each executor, in milliseconds after `since`.
    last: Box<[AtomicU64]>,
}

impl Heartbeat {
    /// The heartbeat of this many executors, which have beaten at this moment.
    pub fn new(executors: NonZeroUsize, now: Instant) -> Heartbeat {
        Heartbeat {
            since: now,
            last: (0..executors.get()).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Starts a task that beats each second for this executor, the one that runs the
    /// caller. The task ends once the heartbeat is dropped.
    pub fn start(self: &Arc<Self>, executor: usize) {
        let beating = Arc::downgrade(self);
        rt::spawn(async move {
            while let Some(heartbeat) = beating.upgrade() {
                heartbeat.beat(executor, Instant::now());
                drop(heartbeat);
                rt::sleep(INTERVAL).await;
            }
        });
    }

    /// Beats for this executor. A time before its last beat changes nothing, and a
    /// number that there is not does nothing.
    pub fn beat(&self, executor: usize, now: Instant) {
        let after = now.saturating_duration_since(self.since).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        if let Some(last) = self.last.get(executor) {
            last.fetch_max(after, Ordering::Relaxed);
        }
    }

    /// Time since the last beat of the executor that has beaten least recently, to the
    /// millisecond.
    pub fn age(&self, now: Instant) -> Duration {
        let last = self.last.iter().map(|last| last.load(Ordering::Relaxed));
        let last = Duration::from_millis(last.min().unwrap_or_default());
        now.saturating_duration_since(self.since)
            .saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn its_age_is_the_time_since_the_last_beat() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new(NonZeroUsize::MIN, start);
        assert_eq!(heartbeat.age(start + 3 * SECOND), 3 * SECOND);

        heartbeat.beat(0, start + 2 * SECOND);
        assert_eq!(heartbeat.age(start + 3 * SECOND), SECOND);
        heartbeat.beat(0, start + SECOND);
        assert_eq!(heartbeat.age(start + 3 * SECOND), SECOND, "not backwards");
        assert_eq!(heartbeat.age(start), Duration::ZERO);
    }

    #[test]
    fn its_age_is_that_of_the_executor_that_is_stuck() {
        let start = Instant::now();
        let two = NonZeroUsize::MIN.saturating_add(1);
        let heartbeat = Heartbeat::new(two, start);
        heartbeat.beat(0, start + 9 * SECOND);
        assert_eq!(heartbeat.age(start + 9 * SECOND), 9 * SECOND);
        heartbeat.beat(1, start + 8 * SECOND);
        assert_eq!(heartbeat.age(start + 9 * SECOND), SECOND);
    }

    #[test]
    fn it_beats_while_its_executor_runs_and_not_while_that_is_stuck() {
        const LONG_AGO: Duration = Duration::from_secs(3600);
        let _alone = rt::tests::at_home();
        let (hand_over, handed) = channel::<Arc<Heartbeat>>();
        let (free, freed) = channel::<()>();
        let executor = thread::spawn(move || {
            rt::run(async move {
                let long_ago = Instant::now().checked_sub(LONG_AGO);
                let long_ago = long_ago.expect("the clock is older");
                let heartbeat = Arc::new(Heartbeat::new(NonZeroUsize::MIN, long_ago));
                heartbeat.start(0);
                hand_over.send(heartbeat).expect("the test waits for it");
                let _stuck = freed.recv();

                let (_end, ended) = futures::channel::oneshot::channel::<()>();
                let _time_passed = rt::within(SECOND, ended).await;
            });
        });

        let heartbeat = handed.recv().expect("the executor runs");
        assert!(heartbeat.age(Instant::now()) >= LONG_AGO);
        drop(free);
        executor.join().expect("it ends");
        assert!(heartbeat.age(Instant::now()) < LONG_AGO / 2);
    }
}
