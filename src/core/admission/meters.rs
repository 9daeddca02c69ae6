//! How often each client connects: one meter for each that has done so lately.
//!
//! | a client that has | and the table | it |
//! |---|---|---|
//! | a meter | | keeps to it |
//! | none | has room, or a meter whose time is past | gets one |
//! | none | is full | comes in without one |
//!
//! The meter is that of [`rate`](crate::rate), the generic cell rate algorithm, in one
//! number: when the next turn would be due if all came at even intervals. Once that
//! time is past, a whole burst is free again. A meter then says nothing that a new one
//! would not say, and makes way.

use crate::addr::ClientNet;
use crate::rate::Rate;
use ahash::RandomState;
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most clients with a meter: some 3 MB of them. With a rate of 60/min a million
/// clients a day have room, if they come evenly. That a full table lets clients in, and
/// doesn't refuse them, keeps a flood from many addresses from locking others out.
pub const METERS: usize = 65_536;

/// A meter for each client.
#[derive(Debug)]
pub(super) struct Meters {
    interval: u64,
    /// How far a meter may be ahead: what makes a burst.
    tolerance: u64,
    began: Instant,
    /// Held for one look.
    table: Mutex<MeterTable>,
}

/// A turn that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metered {
    /// The client's meter has counted it.
    Counted,
    /// No meter has: all are in use.
    Uncounted,
}

/// Times are in nanoseconds since the start: 584 years of them.
#[derive(Debug, Default)]
struct MeterTable {
    due: HashMap<ClientNet, u64, RandomState>,
    /// The same clients, each once, by a time at which it was due. Its meter may be
    /// ahead of that.
    order: BinaryHeap<Reverse<(u64, ClientNet)>>,
}

impl Meters {
    pub(super) fn new(rate: Rate, now: Instant) -> Meters {
        let interval = nanos(rate.interval());
        let tolerance = interval.saturating_mul(u64::from(rate.burst()) - 1);
        Meters {
            interval,
            tolerance,
            began: now,
            table: Mutex::default(),
        }
    }

    /// Takes a turn of this client.
    ///
    /// # Errors
    /// How long until it may take one.
    pub(super) fn take(&self, client: ClientNet, now: Instant) -> Result<Metered, Duration> {
        let now = nanos(now.saturating_duration_since(self.began));
        let next = |due: u64| due.max(now).saturating_add(self.interval);
        let mut table = self.lock();

        if let Some(due) = table.due.get_mut(&client) {
            let ahead = due.saturating_sub(now);
            if ahead > self.tolerance {
                return Err(Duration::from_nanos(ahead - self.tolerance));
            }
            *due = next(*due);
        } else if table.due.len() < METERS || table.makes_way(now) {
            table.add(client, next(0));
        } else {
            return Ok(Metered::Uncounted);
        }
        Ok(Metered::Counted)
    }

    fn lock(&self) -> MutexGuard<'_, MeterTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MeterTable {
    fn add(&mut self, client: ClientNet, due: u64) {
        self.due.insert(client, due);
        self.order.push(Reverse((due, client)));
    }

    /// Removes a meter whose time is past. False if there is none. A meter that is
    /// ahead of its place goes back to its own time, so each is looked at once in a
    /// while.
    fn makes_way(&mut self, now: u64) -> bool {
        while let Some(Reverse((placed, client))) = self.order.peek().copied() {
            if placed > now {
                return false;
            }

            self.order.pop();
            let Entry::Occupied(meter) = self.due.entry(client) else {
                continue;
            };
            let due = *meter.get();
            if due <= now {
                meter.remove();
                return true;
            }
            self.order.push(Reverse((due, client)));
        }
        false
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Meter;
    use proptest::prelude::*;

    fn client(number: u32) -> ClientNet {
        let [a, b, c, d] = number.to_be_bytes();
        ClientNet::of([a, b, c, d].into())
    }

    fn meters(rate: &str) -> (Meters, Instant) {
        let now = Instant::now();
        (Meters::new(rate.parse().expect(rate), now), now)
    }

    #[test]
    fn a_full_table_makes_way_once_a_meters_time_is_past() {
        let (meters, now) = meters("1/s,burst=2");
        for number in 0..METERS as u32 {
            assert_eq!(meters.take(client(number), now), Ok(Metered::Counted));
        }
        assert_eq!(
            meters.take(client(0), now),
            Ok(Metered::Counted),
            "its burst"
        );
        assert!(meters.take(client(0), now).is_err());

        let newcomer = client(u32::MAX);
        for _ in 0..3 {
            assert_eq!(meters.take(newcomer, now), Ok(Metered::Uncounted));
        }

        let later = now + Duration::from_secs(1);
        for _ in 0..2 {
            let turn = meters.take(newcomer, later);
            assert_eq!(turn, Ok(Metered::Counted), "another made way");
        }
        assert!(meters.take(newcomer, later).is_err(), "it has a meter now");
        let table = meters.lock();
        assert_eq!(table.due.len(), METERS);
        assert_eq!(table.order.len(), METERS);
    }

    proptest! {
        #[test]
        fn a_clients_meter_is_like_one_that_is_its_own(
            steps in prop::collection::vec((0u32..4, 0u64..40_000_000_000), 1..200),
            burst in 1u32..6,
        ) {
            let (meters, mut now) = meters(&format!("7/min,burst={burst}"));
            let rate = format!("7/min,burst={burst}").parse().expect("a rate");
            let mut own: Vec<Meter> = (0..4).map(|_| Meter::new(rate)).collect();

            for (number, nanos) in steps {
                now += Duration::from_nanos(nanos / 4);
                let wanted = own[number as usize].take(now).map(|()| Metered::Counted);
                prop_assert_eq!(meters.take(client(number), now), wanted);
            }
        }
    }
}
