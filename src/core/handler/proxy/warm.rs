//! `--warm`: texts that are fetched at the start, and again before their ttl ends.
//!
//! Each is fetched as a refresh is: behind the clients' fetches, at the pace of the
//! upstream's rate, and by at most half of the places before it. What a client or the
//! store has brought meanwhile is not fetched. When each one's turn comes is a table in
//! [`schedule`].

mod file;
mod schedule;

use super::{Ask, Proxy};
use crate::control::WarmCounts;
use crate::error::Error;
use crate::observe::{Event, FetchCause};
use crate::rt;
use crate::stats::PanicCount;
use crate::sync::Notify;
pub use file::{BadWarmFile, WarmFile};
use schedule::{Due, FirstRound, NextDue, Schedule, Tried};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// The last part of each ttl in which a text is fetched again, where no other is given.
const AHEAD: f64 = 0.1;

/// The longest that a task waits before it looks again: a clock of the system may be
/// wrong about longer times.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What is kept warm.
pub(super) struct Warm {
    file: WarmFile,
    /// Held for one decision.
    schedule: Mutex<Schedule>,
    /// Wakes what waits for the next turn: that may be now.
    changed: Notify,
}

impl Warm {
    /// Keeps the requests of this file warm. `ahead` is the last part of a ttl in which
    /// texts are refreshed, 0 for none.
    pub(super) fn new(file: WarmFile, ahead: f64, now: Instant) -> Arc<Warm> {
        let ahead = if ahead > 0.0 { ahead } else { AHEAD };
        let schedule = Schedule::new(file.requests.clone(), ahead, now);
        Arc::new(Warm {
            file,
            schedule: Mutex::new(schedule),
            changed: Notify::new(),
        })
    }

    /// Reads the file again, for [`Warm::replace`].
    ///
    /// # Errors
    /// Why it can't be used.
    pub(super) fn read_again(&self) -> Result<WarmFile, Error> {
        self.file.again().map_err(|bad| Error::Local {
            subject: self.file.path.display().to_string(),
            why: bad.to_string(),
        })
    }

    /// Keeps the requests of this file warm from now on. All of its texts are due.
    pub(super) fn replace(&self, file: WarmFile, now: Instant) {
        self.lock().replace(file.requests, now);
        self.changed.notify(usize::MAX);
    }

    /// Something was purged: what is not fresh any more is fetched.
    pub(super) fn look_again(&self, now: Instant) {
        self.lock().look_again(now);
        self.changed.notify(usize::MAX);
    }

    /// The figures at this moment.
    pub(super) fn counts(&self, now: Instant) -> WarmCounts {
        self.lock().counts(now)
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        let guard = self.schedule.lock();
        guard.expect("no code panics while it holds the schedule's lock")
    }

    /// The next text that is due.
    async fn next(&self) -> Due {
        loop {
            let changed = self.changed.listen(); // before the look, or a wake is lost
            let now = Instant::now();
            let wait = match self.lock().next(now) {
                NextDue::Now(due) => return due,
                NextDue::At(time) => time.saturating_duration_since(now).min(LONGEST_WAIT),
                NextDue::Never => LONGEST_WAIT,
            };
            let _changed = rt::within(wait, changed).await;
        }
    }
}

/// Starts to keep a proxy's texts warm, for as long as it exists.
pub(super) fn start(proxy: &Arc<Proxy>, warm: &Arc<Warm>) {
    let tasks = (proxy.settings.target.conns / 2).max(1);
    for _ in 0..tasks {
        let (proxy, warm) = (Arc::downgrade(proxy), warm.clone());
        rt::spawn_home(keep_warm(proxy, warm));
    }
}

/// Fetches what is due, one text after the other.
async fn keep_warm(proxy: Weak<Proxy>, warm: Arc<Warm>) {
    loop {
        let due = warm.next().await;
        let Some(proxy) = proxy.upgrade() else {
            return;
        };
        let _counts_a_panic = PanicCount(proxy.stats.clone());

        let outcome = proxy.warm_up(&due).await;
        let round = warm.lock().settle(due, outcome, Instant::now());
        if let Some(round) = round {
            proxy.tell_warmed(&warm, round);
        }
    }
}

impl Proxy {
    /// Fetches a text, unless there is a newer one than it was due for.
    async fn warm_up(self: &Arc<Self>, due: &Due) -> Tried {
        let target = self.target(&due.request).into_owned();
        let key = target.scope.key(&due.request);
        let fresh_until = |now| {
            let cached = self.texts.cache().value(&key, now);
            cached.map(|(_, freshness)| freshness.fresh_until)
        };

        let now = Instant::now();
        let newer = fresh_until(now).filter(|until| Some(*until) > due.fresh_until);
        if let Some(until) = newer.filter(|until| *until > now) {
            return Tried::Fresh(until);
        }

        let ending = match self.texts.refresh(&key, now) {
            Err(flight) => flight.ending(),
            Ok(guard) => {
                let ending = guard.writer().flight().ending();
                let ask = Ask {
                    target,
                    request: due.request.clone(),
                    client: None,
                    cause: FetchCause::Prefetch,
                };
                self.spawn_fetch(ask, guard, now);
                ending
            }
        };
        let ended = ending.wait().await;
        drop(ending); // it holds the bytes

        let is_kept = ended.is_ok_and(|is_kept| is_kept);
        let until = fresh_until(Instant::now()).filter(|_| is_kept);
        until.map_or(Tried::Failed, Tried::Fresh)
    }

    fn tell_warmed(&self, warm: &Warm, round: FirstRound) {
        self.observer.event(Event::Warmed {
            path: &warm.file.path.display().to_string(),
            texts: round.fresh,
            failed: round.failed,
            time: round.time,
        });
    }
}
