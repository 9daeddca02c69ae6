//! When each text that is kept warm is fetched next.
//!
//! Plain data; time is an argument.
//!
//! | the text | is due |
//! |---|---|
//! | was never fetched, or the list is a new one | now |
//! | came, and something was purged since | now |
//! | came, or was there already | when the last part of its ttl begins |
//! | could not be fetched, or is not kept | after 10 s, doubled up to 10 min |
//!
//! What is due longest goes first. A text that is being fetched is not due.

use crate::control::WarmCounts;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The first and the longest pause after a failure: an upstream that is down is not to
/// be asked for all of a list again and again.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The least time from one fetch of a text to the next, whatever its ttl.
const EACH_MIN: Duration = Duration::from_secs(1);

/// The texts, and when each is due.
#[derive(Debug)]
pub(super) struct Schedule {
    texts: Vec<WarmText>,
    /// Those that are not being fetched, by their time and number.
    due: BTreeSet<(Instant, usize)>,
    /// The last part of a ttl in which a text is due, from 0 to 1.
    ahead: f64,
    /// How often the list was replaced.
    list: u64,
    /// Texts that were not tried yet.
    untried: usize,
    since: Instant,
}

#[derive(Debug)]
struct WarmText {
    request: Bytes,
    fresh_until: Option<Instant>,
    is_tried: bool,
    /// Failures in a row.
    failures: u32,
}

/// A text that is due. It is not due again before it is settled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    list: u64,
    number: usize,
    pub request: Bytes,
    /// Until when the text was fresh that was fetched last.
    pub fresh_until: Option<Instant>,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextDue {
    /// This text.
    Now(Due),
    /// Nothing before this time.
    At(Instant),
    /// Nothing before one is settled, or the list is a new one.
    Never,
}

/// What became of a text that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// It is cached, and fresh until then.
    Fresh(Instant),
    /// It is not.
    Failed,
}

/// All texts of a list were tried once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstRound {
    /// Texts that came, or were there.
    pub fresh: u64,
    /// Texts that did not.
    pub failed: u64,
    /// How long that took.
    pub time: Duration,
}

impl Schedule {
    pub(super) fn new(requests: Vec<Bytes>, ahead: f64, now: Instant) -> Schedule {
        let mut schedule = Schedule {
            texts: Vec::new(),
            due: BTreeSet::new(),
            ahead,
            list: 0,
            untried: 0,
            since: now,
        };
        schedule.replace(requests, now);
        schedule
    }

    /// Takes another list. All of it is due; what is being fetched is settled in vain.
    pub(super) fn replace(&mut self, requests: Vec<Bytes>, now: Instant) {
        let text = |request| WarmText {
            request,
            fresh_until: None,
            is_tried: false,
            failures: 0,
        };
        self.texts = requests.into_iter().map(text).collect();
        self.due = (0..self.texts.len()).map(|number| (now, number)).collect();
        self.list += 1;
        self.untried = self.texts.len();
        self.since = now;
    }

    /// Something was purged. All is due but what has failed: what is still fresh need
    /// not be fetched then.
    pub(super) fn look_again(&mut self, now: Instant) {
        let due = std::mem::take(&mut self.due).into_iter();
        let texts = &mut self.texts;
        self.due = due
            .map(|(time, number)| {
                let text = &mut texts[number];
                if text.failures > 0 {
                    return (time, number);
                }
                text.fresh_until = None;
                (now, number)
            })
            .collect();
    }

    /// Takes the text that is due longest.
    pub(super) fn next(&mut self, now: Instant) -> NextDue {
        let Some(&(time, number)) = self.due.first() else {
            return NextDue::Never;
        };
        if time > now {
            return NextDue::At(time);
        }

        self.due.pop_first();
        let text = &self.texts[number];
        NextDue::Now(Due {
            list: self.list,
            number,
            request: text.request.clone(),
            fresh_until: text.fresh_until,
        })
    }

    /// Notes what became of a text. Returns the first round, if it ends with this one.
    pub(super) fn settle(&mut self, due: Due, outcome: Tried, now: Instant) -> Option<FirstRound> {
        if due.list != self.list {
            return None;
        }

        let text = &mut self.texts[due.number];
        let wait = match outcome {
            Tried::Fresh(until) => {
                text.fresh_until = Some(until);
                text.failures = 0;
                let left = until.saturating_duration_since(now);
                left.mul_f64(1.0 - self.ahead).max(EACH_MIN)
            }
            Tried::Failed => {
                let doubled = PAUSE_MIN.saturating_mul(1 << text.failures.min(6));
                text.failures = text.failures.saturating_add(1);
                doubled.min(PAUSE_MAX)
            }
        };
        self.due.insert((now + wait, due.number));

        if std::mem::replace(&mut text.is_tried, true) {
            return None;
        }
        self.untried -= 1;
        (self.untried == 0).then(|| self.first_round(now))
    }

    fn first_round(&self, now: Instant) -> FirstRound {
        let failed = self.texts.iter().filter(|text| text.failures > 0).count();
        FirstRound {
            fresh: (self.texts.len() - failed) as u64,
            failed: failed as u64,
            time: now.saturating_duration_since(self.since),
        }
    }

    /// The figures at this moment.
    pub(super) fn counts(&self, now: Instant) -> WarmCounts {
        let mut counts = WarmCounts::default();
        for text in &self.texts {
            let is_fresh = text.fresh_until.is_some_and(|until| until > now);
            let counter = if is_fresh {
                &mut counts.fresh
            } else if text.failures > 0 {
                &mut counts.failed
            } else {
                &mut counts.waiting
            };
            *counter += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule(requests: &[&'static str]) -> (Schedule, Instant) {
        let now = Instant::now();
        let requests = requests.iter().map(|text| (*text).into()).collect();
        (Schedule::new(requests, 0.1, now), now)
    }

    fn due(schedule: &mut Schedule, now: Instant) -> Due {
        match schedule.next(now) {
            NextDue::Now(due) => due,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_are_due_at_once_in_their_order() {
        let (mut schedule, now) = schedule(&["a", "b"]);
        assert_eq!(due(&mut schedule, now).request, "a");
        assert_eq!(due(&mut schedule, now).request, "b");
        assert_eq!(
            schedule.next(now + HOUR),
            NextDue::Never,
            "both are fetched"
        );
    }

    #[test]
    fn a_text_is_due_again_in_the_last_part_of_its_ttl() {
        let (mut schedule, now) = schedule(&["a"]);
        let a = due(&mut schedule, now);
        assert_eq!(a.fresh_until, None);
        schedule.settle(a, Tried::Fresh(now + HOUR), now);

        let time = now + HOUR * 9 / 10;
        assert_eq!(schedule.next(now), NextDue::At(time));
        let a = due(&mut schedule, time);
        assert_eq!(a.fresh_until, Some(now + HOUR));
        schedule.settle(a, Tried::Fresh(time), time);
        let next = NextDue::At(time + EACH_MIN);
        assert_eq!(schedule.next(time), next, "not at once without a ttl");
    }

    #[test]
    fn after_failures_a_text_waits_longer_each_time() {
        let (mut schedule, mut now) = schedule(&["a"]);
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            let a = due(&mut schedule, now);
            schedule.settle(a, Tried::Failed, now);
            let time = now + SECOND * seconds;
            assert_eq!(schedule.next(now), NextDue::At(time));
            now = time;
        }
        let a = due(&mut schedule, now);
        schedule.settle(a, Tried::Fresh(now + SECOND), now);
        let later = now + HOUR;
        let a = due(&mut schedule, later);
        schedule.settle(a, Tried::Failed, later);
        assert_eq!(schedule.next(later), NextDue::At(later + PAUSE_MIN));
    }

    #[test]
    fn the_first_round_ends_once_when_all_were_tried() {
        let (mut schedule, now) = schedule(&["a", "b"]);
        let (a, b) = (due(&mut schedule, now), due(&mut schedule, now));
        let later = now + SECOND;
        assert_eq!(schedule.settle(a, Tried::Failed, now), None);
        let counts = schedule.counts(now);
        assert_eq!((counts.fresh, counts.failed, counts.waiting), (0, 1, 1));

        let round = schedule.settle(b, Tried::Fresh(now + HOUR), later);
        let wanted = FirstRound {
            fresh: 1,
            failed: 1,
            time: SECOND,
        };
        assert_eq!(round, Some(wanted));
        let a = due(&mut schedule, now + PAUSE_MIN);
        let round = schedule.settle(a, Tried::Fresh(now + HOUR), now + PAUSE_MIN);
        assert_eq!(round, None);
        assert_eq!(schedule.counts(now).fresh, 2);
        assert_eq!(schedule.counts(now + HOUR).waiting, 2);
    }

    #[test]
    fn after_a_purge_all_is_due_but_what_has_failed() {
        let (mut schedule, now) = schedule(&["a", "b"]);
        let (a, b) = (due(&mut schedule, now), due(&mut schedule, now));
        schedule.settle(a, Tried::Fresh(now + HOUR), now);
        schedule.settle(b, Tried::Failed, now);

        schedule.look_again(now);
        let a = due(&mut schedule, now);
        assert_eq!((a.request.as_ref(), a.fresh_until), (&b"a"[..], None));
        assert_eq!(schedule.next(now), NextDue::At(now + PAUSE_MIN));
        assert_eq!(schedule.settle(a, Tried::Failed, now), None, "no round");
    }

    #[test]
    fn a_new_list_is_all_due_and_nothing_is_left_of_the_old_one() {
        let (mut schedule, now) = schedule(&["a", "b"]);
        let old = due(&mut schedule, now);
        schedule.replace(vec!["c".into()], now);
        assert_eq!(schedule.settle(old, Tried::Failed, now), None);

        let c = due(&mut schedule, now);
        assert_eq!(c.request, "c");
        assert_eq!(schedule.next(now), NextDue::Never);
        assert!(schedule.settle(c, Tried::Failed, now).is_some());
    }
}
