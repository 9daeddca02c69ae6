//! How often something may happen: a rate, and a meter that keeps to it.
//!
//! Plain data; time is an argument. The meter is the generic cell rate algorithm
//! (ITU-T I.371): a token bucket that holds one instant instead of a level and a time.
//! In any time `t` at most `burst + t / interval` turns are taken.
//!
//! ```
//! use poetry::rate::{Meter, Rate};
//! use std::time::{Duration, Instant};
//!
//! let rate: Rate = "30/min,burst=2".parse().expect("a rate");
//! let mut meter = Meter::new(rate);
//! let now = Instant::now();
//!
//! assert!(meter.take(now).is_ok());
//! assert!(meter.take(now).is_ok(), "a burst of two");
//! assert_eq!(meter.take(now), Err(Duration::from_secs(2)));
//! assert!(meter.take(now + Duration::from_secs(2)).is_ok());
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A number of turns in a time, and how many of them may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    turns: u32,
    unit: Unit,
    burst: u32,
}

/// The time that a rate is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    const ALL: [Unit; 4] = [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day];

    fn word(self) -> &'static str {
        match self {
            Unit::Second => "s",
            Unit::Minute => "min",
            Unit::Hour => "h",
            Unit::Day => "d",
        }
    }

    fn seconds(self) -> u64 {
        match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 60 * 60,
            Unit::Day => 24 * 60 * 60,
        }
    }
}

/// Why a text is no rate. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted a rate like 30/min, 1/s or 1000/d,burst=5")]
pub struct BadRate(&'static str);

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Rate, BadRate> {
        let (rate, burst) = match text.split_once(',') {
            None => (text, None),
            Some((rate, burst)) => (rate, Some(burst)),
        };
        let (turns, unit) = rate
            .split_once('/')
            .ok_or(BadRate("no '/' between a number and a unit of time"))?;

        Ok(Rate {
            turns: positive(turns)?,
            unit: self::unit(unit)?,
            burst: burst.map_or(Ok(1), self::burst)?,
        })
    }
}

fn unit(word: &str) -> Result<Unit, BadRate> {
    let found = Unit::ALL.into_iter().find(|unit| unit.word() == word);
    found.ok_or(match word {
        "m" => BadRate("a minute is written 'min'"),
        _ => BadRate("the unit is none of s, min, h and d"),
    })
}

fn burst(text: &str) -> Result<u32, BadRate> {
    let number = text.strip_prefix("burst=");
    positive(number.ok_or(BadRate("only burst=N may follow the comma"))?)
}

fn positive(text: &str) -> Result<u32, BadRate> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number > 0 && is_plain);
    number.ok_or(BadRate("not a whole number of 1 or more"))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.turns, self.unit.word())?;
        match self.burst {
            1 => Ok(()),
            burst => write!(f, ",burst={burst}"),
        }
    }
}

impl Rate {
    /// From one turn to the next, rounded up: never more than the rate.
    pub fn interval(&self) -> Duration {
        let nanos = self.unit.seconds() * 1_000_000_000;
        Duration::from_nanos(nanos.div_ceil(self.turns.into()))
    }

    /// The most turns at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }
}

/// Keeps to a [`Rate`].
#[derive(Debug, Clone)]
pub struct Meter {
    interval: Duration,
    /// How far `due` may be ahead of a turn: what makes a burst.
    tolerance: Duration,
    /// When the next turn would be due if all came at even intervals.
    due: Option<Instant>,
}

/// The part by which [`Meter::below`] is slower, one in so many, where that is less
/// than a turn in the rate's time.
const SLOWER: u32 = 20;

impl Meter {
    /// A meter that has not been used: a whole burst is free.
    pub fn new(rate: Rate) -> Meter {
        Meter::every(rate.interval(), rate.burst)
    }

    /// The same for what counts the turns elsewhere: slower by one turn in the rate's
    /// time, or by a twentieth if that is less. Turns are late on their way, some more
    /// and some less. At the very rate, the first late and the last early would be one
    /// too many in that time.
    pub fn below(rate: Rate) -> Meter {
        let interval = rate.interval();
        let one_turn = interval / (rate.turns - 1).max(1);
        Meter::every(interval + one_turn.min(interval / SLOWER), rate.burst)
    }

    fn every(interval: Duration, burst: u32) -> Meter {
        Meter {
            interval,
            tolerance: interval.saturating_mul(burst - 1),
            due: None,
        }
    }

    /// How long until a turn may be taken; zero if it may be now.
    pub fn wait(&self, now: Instant) -> Duration {
        let ahead = self.due.map(|due| due.saturating_duration_since(now));
        ahead.unwrap_or_default().saturating_sub(self.tolerance)
    }

    /// Takes a turn.
    ///
    /// # Errors
    /// How long until one may be taken.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.spend(now);
        Ok(())
    }

    /// Takes the next turn although it may lie ahead. Returns how long until it comes.
    pub fn book(&mut self, now: Instant) -> Duration {
        let wait = self.wait(now);
        self.spend(now);
        wait
    }

    /// Returns a turn that was taken and not used.
    pub fn give_back(&mut self) {
        self.due = self.due.and_then(|due| due.checked_sub(self.interval));
    }

    /// Lets nothing through before `until`, then a single turn, and others at even
    /// intervals.
    pub fn close_until(&mut self, until: Instant) {
        let due = until.checked_add(self.tolerance).unwrap_or(until);
        self.due = Some(self.due.map_or(due, |before| before.max(due)));
    }

    fn spend(&mut self, now: Instant) {
        let due = self.due.map_or(now, |due| due.max(now));
        // A time that no clock can show is as good as the one before it.
        self.due = Some(due.checked_add(self.interval).unwrap_or(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(text: &str) -> Rate {
        text.parse().expect(text)
    }

    #[test]
    fn what_parses_prints_as_it_was_given() {
        for (text, interval, burst) in [
            ("30/min", 2 * SECOND, 1),
            ("1/s", SECOND, 1),
            ("1000/d,burst=5", Duration::from_millis(86_400), 5),
            ("3600/h", SECOND, 1),
            ("4294967295/s", Duration::from_nanos(1), 1),
            ("3/s", Duration::from_nanos(333_333_334), 1),
        ] {
            let rate = rate(text);
            assert_eq!(rate.to_string(), text);
            assert_eq!((rate.interval(), rate.burst()), (interval, burst));
        }
    }

    #[test]
    fn below_a_rate_turns_may_come_unequally_late() {
        for (text, turns, late) in [
            ("30/min", 30, 2 * SECOND),
            ("1/s", 1, SECOND / 20),
            ("20/s", 20, SECOND / 20),
            ("1000/d", 1000, 80 * SECOND),
        ] {
            let (rate, begin) = (rate(text), Instant::now());
            let time = Duration::from_secs(rate.unit.seconds());
            let mut meter = Meter::below(rate);
            let one_too_many = (0..=turns).map(|_| meter.book(begin)).last();
            assert!(one_too_many.expect("a turn") >= time + late, "{text}");
        }
        let mut meter = Meter::below(rate("1/s,burst=2"));
        let now = Instant::now();
        assert!(meter.take(now).is_ok() && meter.take(now).is_ok());
        assert_eq!(meter.take(now), Err(SECOND + SECOND / 20));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "no '/'"),
            ("30", "no '/'"),
            ("30/m", "a minute is written 'min'"),
            ("30/", "the unit is none"),
            ("30/week", "the unit is none"),
            ("0/s", "not a whole number"),
            ("-1/s", "not a whole number"),
            ("+1/s", "not a whole number"),
            ("1.5/s", "not a whole number"),
            ("4294967296/s", "not a whole number"),
            ("1/s,5", "only burst=N"),
            ("1/s,burst=0", "not a whole number"),
            ("1/s,burst=1,burst=2", "not a whole number"),
        ] {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(error.ends_with("; wanted a rate like 30/min, 1/s or 1000/d,burst=5"));
        }
    }

    #[test]
    fn a_turn_that_is_booked_comes_after_those_before_it() {
        let mut meter = Meter::new(rate("1/s,burst=2"));
        let now = Instant::now();
        let waits: Vec<Duration> = (0..5).map(|_| meter.book(now)).collect();
        assert_eq!(waits, [0, 0, 1, 2, 3].map(Duration::from_secs));
        assert_eq!(meter.take(now + 3 * SECOND), Err(SECOND));
    }

    #[test]
    fn a_turn_that_was_not_used_is_there_for_another() {
        let mut meter = Meter::new(rate("1/s"));
        let now = Instant::now();
        assert_eq!(meter.take(now), Ok(()));
        meter.give_back();
        assert_eq!(meter.take(now), Ok(()));
        assert_eq!(meter.take(now), Err(SECOND));
    }

    #[test]
    fn after_a_pause_one_goes_and_the_others_follow_at_the_rate() {
        let mut meter = Meter::new(rate("1/s,burst=5"));
        let now = Instant::now();
        meter.close_until(now + 60 * SECOND);
        assert_eq!(meter.take(now), Err(60 * SECOND));

        let later = now + 60 * SECOND;
        assert_eq!(meter.take(later), Ok(()));
        assert_eq!(meter.take(later), Err(SECOND));
        assert_eq!(meter.take(later + SECOND), Ok(()));
    }

    /// The turns of the last `burst` intervals, of which each window may have no more
    /// than the rate allows.
    struct Windows {
        rate: Rate,
        taken: VecDeque<Instant>,
    }

    impl Windows {
        /// Any window that ends at `now` and begins at a turn has at most
        /// `burst + length / interval` turns. It is enough to look at those of the last
        /// few bursts: a longer one is made of shorter ones.
        fn take(&mut self, now: Instant) {
            self.taken.push_back(now);
            let most = 4 * self.rate.burst as usize;
            if self.taken.len() > most {
                self.taken.pop_front();
            }

            let interval = self.rate.interval().as_nanos();
            for (turns, begin) in (1..).zip(self.taken.iter().rev()) {
                let allowed = u128::from(self.rate.burst) + (now - *begin).as_nanos() / interval;
                assert!(turns <= allowed, "{turns} in {:?}", now - *begin);
            }
        }
    }

    #[test]
    fn a_million_steps_never_pass_the_rate_and_lose_none_of_it() {
        let rate = rate("7/s,burst=3");
        let (mut meter, begin) = (Meter::new(rate), Instant::now());
        let mut windows = Windows {
            rate,
            taken: VecDeque::new(),
        };
        let (mut now, mut seed, mut turns) = (begin, 1u64, 0u64);

        for _ in 0..1_000_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += Duration::from_nanos((seed >> 33) % 20_000_000);
            if meter.take(now).is_ok() {
                windows.take(now);
                turns += 1;
            }
        }

        // It is asked every 10 ms or so, and each turn comes up to 20 ms late at most.
        let due = (now - begin).as_nanos() / rate.interval().as_nanos();
        let due = due as u64;
        assert!(turns <= due + 3, "{turns} of {due}");
        assert!(
            turns + 3 >= due,
            "{turns} of {due}: some of the rate was lost"
        );
    }

    proptest! {
        #[test]
        fn no_window_has_more_turns_than_the_rate_allows(
            turns in 1u32..50, burst in 1u32..6,
            steps in prop::collection::vec((0u64..3_000_000_000, 0u8..4), 1..200),
        ) {
            let rate = Rate { turns, unit: Unit::Minute, burst };
            let (mut meter, mut now) = (Meter::new(rate), Instant::now());
            let mut windows = Windows { rate, taken: VecDeque::new() };

            for (nanos, act) in steps {
                now += Duration::from_nanos(nanos);
                match act {
                    0 => {
                        if meter.take(now).is_ok() {
                            meter.give_back();
                        }
                    }
                    1 => {
                        let wait = meter.book(now);
                        now += wait;
                        windows.take(now);
                    }
                    _ => match meter.take(now) {
                        Ok(()) => windows.take(now),
                        Err(wait) => {
                            prop_assert!(!wait.is_zero());
                            prop_assert_eq!(meter.wait(now + wait), Duration::ZERO);
                        }
                    },
                }
            }
        }
    }
}
