//! How fetches end, in the cache and in its model.

use super::super::model::{Model, Offer};
use super::{CacheRun, Committed, Held, Kept, Value, bytes};
use poetry::cache::{CacheFailure, Reservation};
use std::sync::Arc;

impl CacheRun {
    /// How long a value that is committed now is to be served: as the policy says, for
    /// half of that, or stale at once.
    fn ends(&self, how: u8) -> [u64; 2] {
        let fresh = match how % 4 {
            0 | 1 => self.rules.ttl,
            2 => self.rules.ttl / 2,
            _ => 0,
        };
        let fresh_until = self.now + fresh;
        [fresh_until, fresh_until + self.rules.grace]
    }

    pub(super) fn commit(&mut self, which: u8, size: u8, how: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };

        let number = self.committed.len() as u32;
        let now = self.at(self.now);
        let total = bytes(&self.rules, &claim, size);
        let is_shared = !size.is_multiple_of(2);
        let [fresh_until, stale_until] = self.ends(how);
        let freshness = self.freshness([fresh_until, stale_until]);
        assert!(how % 4 > 1 || freshness == fill.freshness(now));
        self.committed.push(Committed {
            key: claim.key,
            fresh_until,
            stale_until,
        });

        let mut reader = None;
        let kept = if is_shared {
            let share = |reservation: Reservation| {
                let reservation = Arc::new(reservation);
                let value = Value {
                    number,
                    _shared: Some(reservation.clone()),
                };
                reader = Some(value.clone());
                Kept { value, reservation }
            };
            fill.commit_with(share, total, freshness, now)
        } else {
            let value = Value {
                number,
                _shared: None,
            };
            fill.commit(value, total, freshness, now)
        };

        let offer = Offer {
            value: number,
            bytes: total,
            fresh_until,
            stale_until,
            is_shared,
        };
        match (kept, self.model.commit(claim, offer, self.now)) {
            (Ok(()), Ok(number)) => {
                let reader = reader.map(|value| Held::Value(value, number));
                self.held.extend(reader);
            }
            (Err(reservation), Err(bytes)) => {
                assert_eq!(reservation.bytes(), bytes);
                self.held.push(Held::Alone(reservation));
            }
            (kept, expected) => panic!("{kept:?}, but {expected:?}"),
        }
    }

    pub(super) fn fail(&mut self, which: u8, how: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let is_cached = how.is_multiple_of(2);
        let caching = if is_cached {
            CacheFailure::Yes
        } else {
            CacheFailure::No
        };
        let reservation = fill.fail(caching, self.at(self.now));
        self.hold(reservation, |model, now| model.fail(claim, is_cached, now));
    }

    pub(super) fn hit_for_miss(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let reservation = fill.hit_for_miss(self.at(self.now));
        self.hold(reservation, |model, now| model.hit_for_miss(claim, now));
    }

    pub(super) fn give_up(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let reservation = fill.give_up(self.at(self.now));
        self.hold(reservation, |model, now| model.give_up(claim, now));
    }

    /// Holds the reservation of a fetch that has ended, if the model ends it alike.
    fn hold(&mut self, reservation: Reservation, end: impl FnOnce(&mut Model, u64) -> u64) {
        assert_eq!(reservation.bytes(), end(&mut self.model, self.now));
        self.held.push(Held::Alone(reservation));
    }

    pub(super) fn reject(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let bytes = claim.bytes;
        let reservation = fill.reject(self.at(self.now));
        assert_eq!(reservation.bytes(), bytes);
        self.held.push(match self.model.reject(claim, self.now) {
            Some(number) => Held::Negative(reservation, number),
            None => Held::Unshared(reservation),
        });
    }

    pub(super) fn drop_fill(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        drop(fill);
        self.model.drop_fill(claim);
    }
}
