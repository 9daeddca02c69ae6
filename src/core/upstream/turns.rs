//! Which source is asked next, and when: its health, its rate, and the pause after an
//! answer that was rejected.
//!
//! Plain data; time is an argument.
//!
//! | the sources that are up and not paused | the next turn is |
//! |---|---|
//! | one of them has a turn left by its rate | the first of these, in the order given |
//! | none of them has | the one that comes first; it is worth waiting for |
//! | there are none | one that is down, before a pause is waited for |
//!
//! | an answer | the source is |
//! |---|---|
//! | matches `--reject` | paused for a minute, twice as long each time, up to 15 minutes |
//! | the same, while the source is paused | as before: it was asked earlier |
//! | does not match | as before, and its next pause is a minute again |

use super::health::Health;
use crate::rate::{Meter, Rate};
use std::time::{Duration, Instant};

/// The first and the longest pause after rejected answers. Quotas are mostly counted by
/// the minute; being asked on is what gets a client banned.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// How often sources may be asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct AskLimits {
    /// For each source.
    pub rate: Option<Rate>,
    /// For how long a source is not asked after an answer that was rejected.
    pub pause: RejectPause,
}

/// For how long a source is not asked after an answer that was rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RejectPause {
    /// It is asked on.
    #[default]
    Never,
    /// A minute, twice as long with each further one, up to 15 minutes.
    Doubling,
    /// As long as this each time.
    Fixed(Duration),
}

/// The turns of the sources, by their place in the list.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) health: Health,
    limits: AskLimits,
    /// Empty without a rate.
    meters: Vec<Meter>,
    pauses: Vec<SourcePause>,
}

#[derive(Debug, Clone, Copy, Default)]
struct SourcePause {
    until: Option<Instant>,
    /// Rejected answers in a row, without those that came during a pause.
    rejected: u32,
}

/// The next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextTurn {
    /// Of this source, now. It is taken.
    Now(usize),
    /// Not before this time, and then of this source. It is not taken.
    Later(usize, Instant),
}

impl Turns {
    pub(super) fn new(sources: usize, limits: AskLimits) -> Turns {
        let meters = limits.rate.map(|rate| vec![Meter::new(rate); sources]);
        Turns {
            health: Health::new(sources),
            limits,
            meters: meters.unwrap_or_default(),
            pauses: vec![SourcePause::default(); sources],
        }
    }

    /// The next turn of the sources but those in `asked`. `None` if all are in it.
    pub(super) fn next(&mut self, asked: &[usize], now: Instant) -> Option<NextTurn> {
        let (mut up, mut down) = self.health.groups(now);
        for group in [&mut up, &mut down] {
            group.retain(|source| !asked.contains(source));
        }
        let is_open = |source: &usize| self.pause_left(*source, now).is_zero();
        let open: Vec<usize> = up.iter().copied().filter(is_open).collect();
        let last_resort: Vec<usize> = down.iter().copied().filter(is_open).collect();

        for group in [open, last_resort] {
            if let Some(turn) = self.soonest(&group, now) {
                return Some(turn);
            }
        }
        up.extend(down);
        self.soonest(&up, now)
    }

    /// The first of these that may be asked now, else the one that may be first.
    fn soonest(&mut self, group: &[usize], now: Instant) -> Option<NextTurn> {
        let wait = |source: usize| {
            let meter = self.meters.get(source);
            let wait = meter.map(|meter| meter.wait(now)).unwrap_or_default();
            wait.max(self.pause_left(source, now))
        };
        let waits = group.iter().map(|source| (wait(*source), *source));
        let (wait, source) = waits.min_by_key(|(wait, _)| *wait)?; // of equals the first

        if !wait.is_zero() {
            return Some(NextTurn::Later(source, now + wait));
        }
        if let Some(meter) = self.meters.get_mut(source) {
            let taken = meter.take(now);
            debug_assert!(taken.is_ok(), "its wait is over");
        }
        Some(NextTurn::Now(source))
    }

    /// Takes the source's next turn, and says when it comes. During a pause it is the
    /// first after it.
    pub(super) fn book(&mut self, source: usize, now: Instant) -> Instant {
        let meter = self.meters.get_mut(source);
        let wait = meter.map(|meter| meter.book(now)).unwrap_or_default();
        now + wait.max(self.pause_left(source, now))
    }

    /// Returns a turn that was taken and not used.
    pub(super) fn give_back(&mut self, source: usize) {
        if let Some(meter) = self.meters.get_mut(source) {
            meter.give_back();
        }
    }

    /// For how long the source is still paused.
    pub(super) fn pause_left(&self, source: usize, now: Instant) -> Duration {
        let until = self.pauses[source].until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The source's answer was whole, and is to be kept.
    pub(super) fn accepted(&mut self, source: usize, now: Instant) {
        if self.pause_left(source, now).is_zero() {
            self.pauses[source] = SourcePause::default();
        }
    }

    /// The source's answer was rejected. Returns the pause that begins, if one does.
    pub(super) fn rejected(&mut self, source: usize, now: Instant) -> Option<Duration> {
        if !self.pause_left(source, now).is_zero() {
            return None; // asked before the pause began
        }
        let before = self.pauses[source].rejected;
        let pause = match self.limits.pause {
            RejectPause::Never => return None,
            RejectPause::Fixed(pause) => pause,
            RejectPause::Doubling => PAUSE_MIN.saturating_mul(1 << before.min(4)).min(PAUSE_MAX),
        };

        let until = now + pause;
        self.pauses[source] = SourcePause {
            until: Some(until),
            rejected: before.saturating_add(1),
        };
        if let Some(meter) = self.meters.get_mut(source) {
            meter.close_until(until);
        }
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn turns(sources: usize, rate: Option<&str>, pause: RejectPause) -> (Turns, Instant) {
        let rate = rate.map(|rate| rate.parse().expect(rate));
        (
            Turns::new(sources, AskLimits { rate, pause }),
            Instant::now(),
        )
    }

    #[test]
    fn without_limits_the_first_that_is_up_is_asked() {
        let (mut turns, now) = turns(2, None, RejectPause::Never);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        assert_eq!(turns.next(&[0], now), Some(NextTurn::Now(1)));
        assert_eq!(turns.next(&[1, 0], now), None);

        turns.health.failed(0, now);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(1)));
        assert_eq!(turns.rejected(0, now), None);
    }

    #[test]
    fn the_next_source_is_asked_while_the_first_has_no_turn() {
        let (mut turns, now) = turns(2, Some("1/s"), RejectPause::Never);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        let later = now + SECOND / 2;
        assert_eq!(turns.next(&[], later), Some(NextTurn::Now(1)));
        assert_eq!(
            turns.next(&[], later),
            Some(NextTurn::Later(0, now + SECOND))
        );
        assert_eq!(turns.next(&[], now + SECOND), Some(NextTurn::Now(0)));
    }

    #[test]
    fn a_turn_is_worth_waiting_for_while_the_other_source_is_down() {
        let (mut turns, now) = turns(2, Some("1/s"), RejectPause::Never);
        turns.health.failed(1, now);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        assert_eq!(turns.next(&[], now), Some(NextTurn::Later(0, now + SECOND)));
        assert_eq!(
            turns.next(&[0], now),
            Some(NextTurn::Now(1)),
            "no other is left"
        );
    }

    #[test]
    fn a_paused_source_is_not_asked_and_one_that_is_down_is() {
        let (mut turns, now) = turns(2, None, RejectPause::Doubling);
        assert_eq!(turns.rejected(0, now), Some(MINUTE));
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(1)));

        turns.health.failed(1, now);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(1)));
        let end = now + MINUTE;
        assert_eq!(turns.next(&[1], now), Some(NextTurn::Later(0, end)));
        assert_eq!(turns.book(0, now), end);
        assert_eq!(turns.next(&[], end), Some(NextTurn::Now(0)));
    }

    #[test]
    fn pauses_double_up_to_fifteen_minutes_and_an_answer_ends_that() {
        let (mut turns, mut now) = turns(1, Some("1/s,burst=9"), RejectPause::Doubling);
        for minutes in [1, 2, 4, 8, 15, 15] {
            let pause = MINUTE * minutes;
            assert_eq!(turns.rejected(0, now), Some(pause));
            assert_eq!(turns.rejected(0, now), None, "it was asked before");
            turns.accepted(0, now);
            assert_eq!(turns.pause_left(0, now), pause);

            now += pause;
            assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
            let next = Some(NextTurn::Later(0, now + SECOND));
            assert_eq!(turns.next(&[], now), next, "no burst after a pause");
        }

        turns.accepted(0, now);
        assert_eq!(turns.rejected(0, now), Some(MINUTE));
    }

    #[test]
    fn a_fixed_pause_stays_as_it_is() {
        let (mut turns, now) = turns(1, None, RejectPause::Fixed(SECOND));
        assert_eq!(turns.rejected(0, now), Some(SECOND));
        assert_eq!(turns.rejected(0, now + SECOND), Some(SECOND));
    }

    #[test]
    fn a_turn_that_is_given_back_is_there_again() {
        let (mut turns, now) = turns(1, Some("1/s"), RejectPause::Never);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        turns.give_back(0);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        assert_eq!(turns.book(0, now), now + SECOND);
        assert_eq!(turns.book(0, now), now + 2 * SECOND);
    }
}
