//! Which source is asked next, and when: its health, its rate, and the pause after an
//! answer that was rejected.
//!
//! Plain data; time is an argument. Several upstreams may have the same source, and
//! share its turns: a quota is the source's, whatever asks it.
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

use super::Source;
use super::health::Health;
use crate::rate::{Meter, Rate};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The first and the longest pause after rejected answers. Quotas are mostly counted by
/// the minute; being asked on is what gets a client banned.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// How often sources may be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskLimits {
    /// For each source.
    pub rate: Option<Rate>,
    /// For how long a source is not asked after an answer that was rejected.
    pub pause: RejectPause,
}

impl AskLimits {
    /// A source is asked at `rate`, and not for `pause` after an answer that was
    /// rejected: without one for a minute, doubled, if it has a rate.
    pub fn of(rate: Option<Rate>, pause: Option<Duration>) -> AskLimits {
        let pause = match pause {
            None if rate.is_some() => RejectPause::Doubling,
            None | Some(Duration::ZERO) => RejectPause::Never,
            Some(pause) => RejectPause::Fixed(pause),
        };
        AskLimits { rate, pause }
    }
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

/// When one source may be asked.
#[derive(Debug)]
pub(super) struct SourceTurns {
    pub(super) health: Health,
    limits: AskLimits,
    /// `None` without a rate.
    meter: Option<Meter>,
    pause: SourcePause,
}

/// The turns of the sources of an upstream, by their place in its list. Cloning shares
/// them.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    /// Each is held for a look or a change, and no two at once.
    sources: Arc<[Arc<Mutex<SourceTurns>>]>,
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

/// Which of several sources is asked: the least. Of equals the first is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    standing: Standing,
    wait: Duration,
    is_down: bool,
}

/// What a source is good for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Open,
    LastResort,
    Paused,
}

impl SourceTurns {
    pub(super) fn new(limits: AskLimits) -> SourceTurns {
        SourceTurns {
            health: Health::new(),
            limits,
            meter: limits.rate.map(Meter::below),
            pause: SourcePause::default(),
        }
    }

    /// The same source with other limits. It has no turn before it would have had one.
    pub(super) fn limited(&self, limits: AskLimits, now: Instant) -> SourceTurns {
        let mut meter = limits.rate.map(Meter::new);
        let wait = self.wait(now);
        if let Some(meter) = meter.as_mut().filter(|_| !wait.is_zero()) {
            meter.close_until(now + wait);
        }
        SourceTurns {
            health: self.health,
            limits,
            meter,
            pause: self.pause,
        }
    }

    /// How long until it may be asked.
    fn wait(&self, now: Instant) -> Duration {
        let wait = self.meter.as_ref().map(|meter| meter.wait(now));
        wait.unwrap_or_default().max(self.pause_left(now))
    }

    fn preference(&self, now: Instant) -> Preference {
        let is_down = !self.health.is_first(now);
        let standing = match (self.pause_left(now).is_zero(), is_down) {
            (false, _) => Standing::Paused,
            (true, true) => Standing::LastResort,
            (true, false) => Standing::Open,
        };
        Preference {
            standing,
            wait: self.wait(now),
            is_down,
        }
    }

    /// Takes a turn. False if there is none now.
    fn take(&mut self, now: Instant) -> bool {
        if !self.wait(now).is_zero() {
            return false;
        }
        self.meter
            .as_mut()
            .is_none_or(|meter| meter.take(now).is_ok())
    }

    /// For how long it is still paused.
    pub(super) fn pause_left(&self, now: Instant) -> Duration {
        let until = self.pause.until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Its answer was whole, and is to be kept.
    pub(super) fn accepted(&mut self, now: Instant) {
        if self.pause_left(now).is_zero() {
            self.pause = SourcePause::default();
        }
    }

    /// Its answer was rejected. Returns the pause that begins, if one does.
    pub(super) fn rejected(&mut self, now: Instant) -> Option<Duration> {
        if !self.pause_left(now).is_zero() {
            return None; // asked before the pause began
        }
        let before = self.pause.rejected;
        let pause = match self.limits.pause {
            RejectPause::Never => return None,
            RejectPause::Fixed(pause) => pause,
            RejectPause::Doubling => PAUSE_MIN.saturating_mul(1 << before.min(4)).min(PAUSE_MAX),
        };

        let until = now + pause;
        self.pause = SourcePause {
            until: Some(until),
            rejected: before.saturating_add(1),
        };
        if let Some(meter) = &mut self.meter {
            meter.close_until(until);
        }
        Some(pause)
    }
}

impl Turns {
    pub(super) fn of(sources: impl IntoIterator<Item = Arc<Mutex<SourceTurns>>>) -> Turns {
        Turns {
            sources: sources.into_iter().collect(),
        }
    }

    /// Whether these are the turns of the same sources.
    pub(crate) fn are_those_of(&self, other: &Turns) -> bool {
        let pairs = self.sources.iter().zip(&*other.sources);
        let mut pairs = pairs.map(|(one, two)| Arc::ptr_eq(one, two));
        self.sources.len() == other.sources.len() && pairs.all(|is_same| is_same)
    }

    fn lock(&self, source: usize) -> MutexGuard<'_, SourceTurns> {
        let guard = self.sources[source].lock();
        guard.expect("no code panics while it holds the lock of a source's turns")
    }

    /// The next turn of the sources but those in `asked`. `None` if all are in it.
    pub(super) fn next(&self, asked: &[usize], now: Instant) -> Option<NextTurn> {
        loop {
            let others = (0..self.sources.len()).filter(|source| !asked.contains(source));
            let looks = others.map(|source| (self.lock(source).preference(now), source));
            let (preference, source) = looks.min_by_key(|(preference, _)| *preference)?;

            if !preference.wait.is_zero() {
                return Some(NextTurn::Later(source, now + preference.wait));
            }
            if self.lock(source).take(now) {
                return Some(NextTurn::Now(source));
            }
            // Another upstream has taken it between the two locks.
        }
    }

    /// Takes the next turn.
    ///
    /// # Errors
    /// When it comes, if there is none now.
    pub(crate) fn take(&self, now: Instant) -> Result<Source, Instant> {
        match self.next(&[], now) {
            Some(NextTurn::Now(source)) => Ok(Source(source)),
            Some(NextTurn::Later(_, at)) => Err(at),
            None => unreachable!("an upstream has a source"),
        }
    }

    /// Takes the source's next turn, and says when it comes. During a pause it is the
    /// first after it.
    pub(super) fn book(&self, source: usize, now: Instant) -> Instant {
        let mut turns = self.lock(source);
        let wait = turns.meter.as_mut().map(|meter| meter.book(now));
        now + wait.unwrap_or_default().max(turns.pause_left(now))
    }

    /// Returns a turn that was taken and not used.
    pub(crate) fn give_back(&self, source: Source) {
        if let Some(meter) = &mut self.lock(source.0).meter {
            meter.give_back();
        }
    }

    /// For how long the source is still paused.
    pub(super) fn pause_left(&self, source: usize, now: Instant) -> Duration {
        self.lock(source).pause_left(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// From one turn to the next at 1/s, with what is left for delays on the way.
    const TURN: Duration = Duration::from_millis(1050);
    const MINUTE: Duration = Duration::from_secs(60);

    fn turns(sources: usize, rate: Option<&str>, pause: RejectPause) -> (Turns, Instant) {
        let rate = rate.map(|rate| rate.parse().expect(rate));
        let one = || Arc::new(Mutex::new(SourceTurns::new(AskLimits { rate, pause })));
        let all = std::iter::repeat_with(one).take(sources);
        (Turns::of(all), Instant::now())
    }

    #[test]
    fn without_limits_the_first_that_is_up_is_asked() {
        let (turns, now) = turns(2, None, RejectPause::Never);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        assert_eq!(turns.next(&[0], now), Some(NextTurn::Now(1)));
        assert_eq!(turns.next(&[1, 0], now), None);

        turns.lock(0).health.failed(now);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(1)));
        assert_eq!(turns.lock(0).rejected(now), None);
    }

    #[test]
    fn the_next_source_is_asked_while_the_first_has_no_turn() {
        let (turns, now) = turns(2, Some("1/s"), RejectPause::Never);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        let later = now + SECOND / 2;
        assert_eq!(turns.next(&[], later), Some(NextTurn::Now(1)));
        assert_eq!(turns.next(&[], later), Some(NextTurn::Later(0, now + TURN)));
        assert_eq!(turns.next(&[], now + TURN), Some(NextTurn::Now(0)));
    }

    #[test]
    fn a_turn_is_worth_waiting_for_while_the_other_source_is_down() {
        let (turns, now) = turns(2, Some("1/s"), RejectPause::Never);
        turns.lock(1).health.failed(now);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        assert_eq!(turns.next(&[], now), Some(NextTurn::Later(0, now + TURN)));
        assert_eq!(
            turns.next(&[0], now),
            Some(NextTurn::Now(1)),
            "no other is left"
        );
    }

    #[test]
    fn a_paused_source_is_not_asked_and_one_that_is_down_is() {
        let (turns, now) = turns(2, None, RejectPause::Doubling);
        assert_eq!(turns.lock(0).rejected(now), Some(MINUTE));
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(1)));

        turns.lock(1).health.failed(now);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(1)));
        let end = now + MINUTE;
        assert_eq!(turns.next(&[1], now), Some(NextTurn::Later(0, end)));
        assert_eq!(turns.book(0, now), end);
        assert_eq!(turns.next(&[], end), Some(NextTurn::Now(0)));
    }

    #[test]
    fn pauses_double_up_to_fifteen_minutes_and_an_answer_ends_that() {
        let (turns, mut now) = turns(1, Some("1/s,burst=9"), RejectPause::Doubling);
        for minutes in [1, 2, 4, 8, 15, 15] {
            let pause = MINUTE * minutes;
            assert_eq!(turns.lock(0).rejected(now), Some(pause));
            assert_eq!(turns.lock(0).rejected(now), None, "it was asked before");
            turns.lock(0).accepted(now);
            assert_eq!(turns.pause_left(0, now), pause);

            now += pause;
            assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
            let next = Some(NextTurn::Later(0, now + TURN));
            assert_eq!(turns.next(&[], now), next, "no burst after a pause");
        }

        turns.lock(0).accepted(now);
        assert_eq!(turns.lock(0).rejected(now), Some(MINUTE));
    }

    #[test]
    fn a_fixed_pause_stays_as_it_is() {
        let (turns, now) = turns(1, None, RejectPause::Fixed(SECOND));
        assert_eq!(turns.lock(0).rejected(now), Some(SECOND));
        assert_eq!(turns.lock(0).rejected(now + SECOND), Some(SECOND));
    }

    #[test]
    fn a_turn_that_is_given_back_is_there_again() {
        let (turns, now) = turns(1, Some("1/s"), RejectPause::Never);
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        turns.give_back(Source(0));
        assert_eq!(turns.next(&[], now), Some(NextTurn::Now(0)));
        assert_eq!(turns.book(0, now), now + TURN);
        assert_eq!(turns.book(0, now), now + 2 * TURN);
    }

    #[test]
    fn upstreams_that_share_a_source_share_its_turns() {
        let limits = AskLimits {
            rate: Some("1/s".parse().expect("a rate")),
            pause: RejectPause::Doubling,
        };
        let [shared, own] = [(); 2].map(|()| Arc::new(Mutex::new(SourceTurns::new(limits))));
        let (one, two) = (Turns::of([shared.clone()]), Turns::of([own, shared]));
        let now = Instant::now();

        assert_eq!(two.next(&[0], now), Some(NextTurn::Now(1)));
        assert_eq!(one.take(now), Err(now + TURN));
        assert_eq!(one.take(now + TURN), Ok(Source(0)));
        assert_eq!(
            two.next(&[0], now),
            Some(NextTurn::Later(1, now + 2 * TURN))
        );
        one.lock(0).rejected(now);
        assert_eq!(two.pause_left(1, now), MINUTE);
        assert_eq!(two.pause_left(0, now), Duration::ZERO);
    }
}
