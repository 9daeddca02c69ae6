//! The heartbeat of an executor: the time when it last ran a task that does nothing
//! else. Another thread sees by its age whether the executor is stuck.

use crate::rt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two beats. A turn of the executor costs some microseconds, so this
/// costs nothing, and the age of a healthy heartbeat is hardly ever over two seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// When an executor last showed that it runs. Any thread may read it.
#[derive(Debug)]
pub struct Heartbeat {
    since: Instant,
    /// The last beat, in milliseconds after `since`.
    last: AtomicU64,
}

impl Heartbeat {
    /// A heartbeat that has beaten at this moment.
    pub fn new(now: Instant) -> Heartbeat {
        Heartbeat {
            since: now,
            last: AtomicU64::new(0),
        }
    }

    /// Starts a task that beats each second, on the executor that runs the caller. The
    /// task ends once the heartbeat is dropped.
    pub fn start(now: Instant) -> Arc<Heartbeat> {
        let heartbeat = Arc::new(Heartbeat::new(now));
        let beating = Arc::downgrade(&heartbeat);

        rt::spawn(async move {
            while let Some(heartbeat) = beating.upgrade() {
                heartbeat.beat(Instant::now());
                drop(heartbeat);
                rt::sleep(INTERVAL).await;
            }
        });
        heartbeat
    }

    /// Beats. A time before the last beat changes nothing.
    pub fn beat(&self, now: Instant) {
        let after = now.saturating_duration_since(self.since).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.last.fetch_max(after, Ordering::Relaxed);
    }

    /// Time since the last beat, to the millisecond.
    pub fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
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
        let heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.age(start + 3 * SECOND), 3 * SECOND);

        heartbeat.beat(start + 2 * SECOND);
        assert_eq!(heartbeat.age(start + 3 * SECOND), SECOND);
        heartbeat.beat(start + SECOND);
        assert_eq!(heartbeat.age(start + 3 * SECOND), SECOND, "not backwards");
        assert_eq!(heartbeat.age(start), Duration::ZERO);
    }

    #[test]
    fn it_beats_while_its_executor_runs_and_not_while_that_is_stuck() {
        const LONG_AGO: Duration = Duration::from_secs(3600);
        let (hand_over, handed) = channel::<Arc<Heartbeat>>();
        let (free, freed) = channel::<()>();
        let executor = thread::spawn(move || {
            rt::run(async move {
                let long_ago = Instant::now().checked_sub(LONG_AGO);
                let heartbeat = Heartbeat::start(long_ago.expect("the clock is older"));
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
