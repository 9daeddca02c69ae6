//! What the service manager hears now and then: how the service is, and that it lives.
//! The time is an argument.

use super::status::Recent;
use poetry::control::Snapshot;
use poetry::heartbeat::Heartbeat;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks at the figures: recent enough for `systemctl status`, and a
/// look costs little.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// How old the executor's heartbeat may be. Older than that it is stuck. One long
/// transformation, or a machine under load, delays a beat by a second or two.
const AGE_MAX: Duration = Duration::from_secs(10);

/// Time until the next look at a heartbeat that was too old. If the whole process was
/// stopped, its executor beats again within a moment.
const RETRY: Duration = Duration::from_secs(1);

/// A watchdog faster than this is fed no faster: it would cost a processor.
const FASTEST: Duration = Duration::from_millis(1);

/// Makes the figures.
pub(in crate::cmd) type Look = Box<dyn FnMut(Instant) -> Snapshot + Send>;

/// What is said without being told to, and when.
pub(super) struct Routine {
    look: Look,
    recent: Recent,
    /// The status that the manager shows.
    shown: String,
    status_due: Instant,
    watchdog: Option<Watchdog>,
}

impl Routine {
    pub fn new(look: Look, watchdog: Option<Watchdog>, now: Instant) -> Routine {
        Routine {
            look,
            recent: Recent::default(),
            shown: String::new(),
            status_due: now,
            watchdog,
        }
    }

    /// Everything is due now.
    pub fn begin(&mut self, now: Instant) {
        self.status_due = now;
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.due = now;
        }
    }

    /// The moment when there may be something to say.
    pub fn due(&self) -> Instant {
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.due);
        watchdog.map_or(self.status_due, |due| due.min(self.status_due))
    }

    /// Shows this status until the next look at the figures; returns its line.
    pub fn say(&mut self, status: String, now: Instant) -> String {
        self.shown = status;
        self.status_due = now + STATUS_INTERVAL;
        NotifyState::Status(&self.shown).to_string()
    }

    /// The lines that are to be sent now.
    pub fn due_lines(&mut self, now: Instant) -> Option<String> {
        let beat = self.watchdog.as_mut().and_then(|dog| dog.line(now));
        let lines: Vec<String> = beat.into_iter().chain(self.status(now)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The line of the status, if that has changed.
    fn status(&mut self, now: Instant) -> Option<String> {
        if now < self.status_due {
            return None;
        }

        let figures = (self.look)(now);
        let status = self.recent.describe(&figures);
        let is_new = status != self.shown;
        let line = self.say(status, now);
        is_new.then_some(line)
    }
}

/// The service manager's watchdog: it restarts a service that it hears nothing of.
pub(super) struct Watchdog {
    /// Half the time that it waits.
    interval: Duration,
    heartbeat: Arc<Heartbeat>,
    due: Instant,
}

impl Watchdog {
    /// A watchdog that waits for `timeout`.
    pub fn new(timeout: Duration, heartbeat: Arc<Heartbeat>, now: Instant) -> Watchdog {
        Watchdog {
            interval: (timeout / 2).max(FASTEST),
            heartbeat,
            due: now,
        }
    }

    /// The line that keeps it calm, if that is due, and the executor runs.
    fn line(&mut self, now: Instant) -> Option<String> {
        if now < self.due {
            return None;
        }

        let lives = self.heartbeat.age(now) < AGE_MAX;
        let pause = if lives {
            self.interval
        } else {
            self.interval.min(RETRY)
        };
        self.due = now + pause;
        lives.then(|| NotifyState::Watchdog.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poetry::stats::Stats;
    use std::num::NonZeroUsize;
    use std::sync::atomic::Ordering;

    const SECOND: Duration = Duration::from_secs(1);
    const BEAT: &str = "WATCHDOG=1";

    fn routine(stats: &Arc<Stats>, watchdog: Option<Watchdog>, now: Instant) -> Routine {
        let stats = stats.clone();
        Routine::new(
            Box::new(move |now| Snapshot::of(&stats, now)),
            watchdog,
            now,
        )
    }

    fn lines(routine: &mut Routine, now: Instant) -> String {
        routine.due_lines(now).unwrap_or_default()
    }

    #[test]
    fn a_status_is_said_every_ten_seconds_if_it_has_changed() {
        let start = Instant::now();
        let stats = Arc::<Stats>::default();
        let mut routine = routine(&stats, None, start);

        assert_eq!(lines(&mut routine, start), "STATUS=0 clients");
        stats.open.store(1, Ordering::Relaxed);
        assert_eq!(lines(&mut routine, start + 9 * SECOND), "");
        assert_eq!(routine.due(), start + 10 * SECOND);
        assert_eq!(lines(&mut routine, start + 10 * SECOND), "STATUS=1 client");
        assert_eq!(lines(&mut routine, start + 20 * SECOND), "", "nothing new");
        assert_eq!(routine.due(), start + 30 * SECOND);
    }

    #[test]
    fn what_became_of_a_reload_is_shown_for_ten_seconds() {
        let start = Instant::now();
        let mut routine = routine(&Arc::default(), None, start);
        lines(&mut routine, start);

        let told = routine.say("read 3 poems again".into(), start + 5 * SECOND);
        assert_eq!(told, "STATUS=read 3 poems again");
        assert_eq!(lines(&mut routine, start + 14 * SECOND), "");
        assert_eq!(lines(&mut routine, start + 15 * SECOND), "STATUS=0 clients");
    }

    #[test]
    fn a_watchdog_is_fed_at_half_its_time_while_the_executor_runs() {
        let start = Instant::now();
        let heartbeat = Arc::new(Heartbeat::new(NonZeroUsize::MIN, start));
        let watchdog = Watchdog::new(30 * SECOND, heartbeat.clone(), start);
        let mut routine = routine(&Arc::default(), Some(watchdog), start);
        let mut fed = |after: u32| lines(&mut routine, start + after * SECOND).contains(BEAT);

        assert!(fed(0));
        assert!(!fed(14));
        heartbeat.beat(0, start + 14 * SECOND);
        assert!(fed(15));

        assert!(!fed(30), "the last beat was 16 seconds before");
        heartbeat.beat(0, start + 30 * SECOND);
        assert!(!fed(30));
        assert!(fed(31), "it is looked at again after a second");
    }

    #[test]
    fn a_stuck_executor_feeds_no_watchdog_after_ten_seconds() {
        let start = Instant::now();
        let heartbeat = Arc::new(Heartbeat::new(NonZeroUsize::MIN, start));
        let watchdog = Watchdog::new(2 * SECOND, heartbeat, start);
        let mut routine = routine(&Arc::default(), Some(watchdog), start);

        let fed =
            (0..60).filter(|after| lines(&mut routine, start + *after * SECOND).contains(BEAT));
        assert_eq!(fed.collect::<Vec<u32>>(), (0..10).collect::<Vec<u32>>());
    }

    #[test]
    fn a_watchdog_without_patience_does_not_cost_a_processor() {
        let start = Instant::now();
        let heartbeat = Arc::new(Heartbeat::new(NonZeroUsize::MIN, start));
        let watchdog = Watchdog::new(Duration::from_micros(1), heartbeat, start);
        let mut routine = routine(&Arc::default(), Some(watchdog), start);

        lines(&mut routine, start);
        assert_eq!(routine.due(), start + FASTEST);
    }
}
