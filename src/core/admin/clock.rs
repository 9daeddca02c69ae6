//! Dates for operators. The wall clock dates things and decides nothing: all that
//! happens is kept by the monotonic clock, and becomes a date only as it is written.
//! After the wall clock has jumped, the same things have other dates.

use std::time::{Duration, Instant, SystemTime};

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    now: Instant,
    wall: SystemTime,
}

/// Within this time a date needs no day.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Clock {
    /// This moment, by both clocks of the machine.
    pub fn read() -> Clock {
        Clock::read_at(Instant::now())
    }

    /// The moment `now`, which has just been read.
    pub(super) fn read_at(now: Instant) -> Clock {
        Clock::at(now, SystemTime::now())
    }

    /// The moment `now`, which the wall clock calls `wall`.
    pub fn at(now: Instant, wall: SystemTime) -> Clock {
        let wall = wall.max(SystemTime::UNIX_EPOCH); // an earlier one can't be written
        Clock { now, wall }
    }

    /// The moment by the monotonic clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The moment by the wall clock.
    pub(super) fn wall(&self) -> SystemTime {
        self.wall
    }

    /// When that was: RFC 3339 in UTC with milliseconds.
    pub fn date(&self, at: Instant) -> String {
        humantime::format_rfc3339_millis(self.wall_of(at)).to_string()
    }

    /// When that was, for people: `11:45:36 UTC`, with the day if it is a day ago.
    pub fn words(&self, at: Instant) -> String {
        let date = humantime::format_rfc3339_seconds(self.wall_of(at)).to_string();
        let (day, time) = date.split_once('T').unwrap_or(("", &date));
        let time = time.trim_end_matches('Z');

        if self.now.saturating_duration_since(at) < DAY {
            format!("{time} UTC")
        } else {
            format!("{day} {time} UTC")
        }
    }

    fn wall_of(&self, at: Instant) -> SystemTime {
        let age = self.now.saturating_duration_since(at);
        let wall = self.wall.checked_sub(age);
        wall.unwrap_or(SystemTime::UNIX_EPOCH)
            .max(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 2026-11-26 11:47:06 UTC.
    pub(crate) fn clock(now: Instant) -> Clock {
        let since_epoch = Duration::from_secs(1_795_693_626);
        Clock::at(now, SystemTime::UNIX_EPOCH + since_epoch)
    }

    #[test]
    fn a_moment_gets_its_date_from_its_age() {
        let begun = Instant::now();
        let now = begun + 2 * DAY;
        let clock = clock(now);

        assert_eq!(clock.date(now), "2026-11-26T11:47:06.000Z");
        assert_eq!(clock.words(now - Duration::from_secs(90)), "11:45:36 UTC");
        assert_eq!(clock.words(now - DAY), "2026-11-25 11:47:06 UTC");
    }

    #[test]
    fn a_wall_clock_before_its_epoch_still_gives_dates() {
        let begun = Instant::now();
        let long_ago = SystemTime::UNIX_EPOCH - DAY;

        let clock = Clock::at(begun + DAY, long_ago);

        assert_eq!(clock.date(begun), "1970-01-01T00:00:00.000Z");
    }
}
