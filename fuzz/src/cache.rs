//! The cache: any order of look-ups, reservations, ends, purges and waits, for a few
//! keys and under many policies, beside a slow and obvious model.
//!
//! The model predicts every answer. The most important rules are checked here again,
//! without the model:
//!
//! * a value is only returned for the key it was committed for, fresh before its ttl
//!   has passed and stale during its grace;
//! * at most one flight is under way for a key, unless every client is to fetch alone;
//! * values and negative entries never exceed the capacity. Together with the flights
//!   they may exceed it, but only by what look-ups since the last eviction started with
//!   (256 bytes and the key each), or where flights alone exceed it;
//! * when everything is dropped and purged, nothing is held.

mod model;

use super::head;
use model::{Claim, Expected, Model, Rules, weigh};
use poetry::cache::{Cache, Fill, Lookup, Policy, Reservation};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The times of the policies, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// In bytes. Each makes a single shard, so that the order of evictions is known.
const CAPACITIES: [u64; 8] = [0, 256, 400, 1000, 2000, 5000, 20_000, 100_000];
const KEYS: u8 = 5;
/// How many fills may be open at once, and how many reservations.
const HELD_MAX: usize = 24;
/// How long waits last, in seconds: around and beyond the times of the policies.
const WAITS: [u64; 8] = [1, 2, 5, 9, 10, 90, 100, 250];

/// Two bytes choose the policy. After that, three bytes each are an action: what to do,
/// to which key or fill, and with how many bytes.
pub fn check(data: &[u8]) {
    let ([times, capacity], actions) = head(data);
    let time = |shift: u8| TIMES[usize::from(times >> shift & 3)];
    let mut run = CacheRun::new(Rules {
        ttl: time(0),
        grace: time(2),
        fail_ttl: time(4),
        capacity: CAPACITIES[usize::from(capacity) % CAPACITIES.len()],
    });

    for action in actions.chunks_exact(3) {
        run.act(action[0], action[1], action[2]);
        run.compare();
    }
    run.end();
}

/// The key a value was committed for, and when.
type Committed = (u8, u64);

/// A reservation that is held for readers.
enum Held {
    /// It has no other holder.
    Alone(Reservation),
    /// It also counts a value or a negative entry of the cache, present or past, with
    /// this number in the model.
    Shared(Arc<Reservation>, u64),
    /// It counts an answer that the cache never took.
    Unshared(Arc<Reservation>),
}

/// The cache and its model, and what is held of both.
struct CacheRun {
    cache: Arc<Cache<u8, u32, u32>>,
    model: Model,
    rules: Rules,
    start: Instant,
    /// Seconds since `start`.
    now: u64,
    open: Vec<(Fill<u8, u32, u32>, Claim)>,
    held: Vec<Held>,
    /// A value is its own index in this list.
    committed: Vec<Committed>,
    flights: u32,
}

impl CacheRun {
    fn new(rules: Rules) -> CacheRun {
        let secs = Duration::from_secs;
        let policy = Policy {
            ttl: secs(rules.ttl),
            grace: secs(rules.grace),
            fail_ttl: secs(rules.fail_ttl),
            capacity: rules.capacity,
        };

        CacheRun {
            cache: Cache::weighing(policy, weigh),
            model: Model::new(rules),
            rules,
            start: Instant::now(),
            now: 0,
            open: Vec::new(),
            held: Vec::new(),
            committed: Vec::new(),
            flights: 0,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn act(&mut self, action: u8, which: u8, size: u8) {
        match action % 16 {
            0..=3 => self.look_up(which % KEYS),
            4 | 5 => self.reserve(which, size),
            6 | 7 => self.commit(which, size),
            8 => self.fail(which),
            9 => self.reject(which),
            10 => self.hit_for_miss(which),
            11 => self.give_up(which),
            12 => self.drop_fill(which),
            13 => drop_held(&mut self.held, &mut self.model, which),
            14 => self.now += WAITS[usize::from(which) % WAITS.len()],
            // Rare, because it clears everything.
            _ if which < 64 => {
                self.cache.purge();
                self.model.purge();
            }
            _ => self.replaces(which),
        }
    }

    fn look_up(&mut self, key: u8) {
        if self.open.len() == HELD_MAX {
            return;
        }

        self.flights += 1;
        let flight = self.flights;
        let mut launched = 0;
        let answer = self.cache.lookup(&key, self.at(self.now), || {
            launched += 1;
            ((), flight)
        });
        let expected = self.model.look_up(key, self.now, flight);
        self.check_value(key, &answer);

        let (lead, claim) = match (answer, expected) {
            (Lookup::Hit(value, until), Expected::Hit(due, end))
                if (value, until) == (due, self.at(end)) =>
            {
                return assert_eq!(launched, 0);
            }
            (Lookup::Stale(value, None), Expected::Stale(due, None)) if value == due => {
                return assert_eq!(launched, 0);
            }
            (Lookup::Coalesced(joined), Expected::Coalesced(due)) if joined == due => {
                return assert_eq!(launched, 0);
            }
            (Lookup::Stale(value, Some(lead)), Expected::Stale(due, Some(claim)))
                if value == due =>
            {
                (lead, claim)
            }
            (Lookup::Miss(lead), Expected::Miss(claim)) => (lead, claim),
            (answer, expected) => panic!("key {key} at {}: {answer:?}, but {expected:?}", self.now),
        };

        assert_eq!((launched, lead.flight), (1, flight));
        self.open.push((lead.fill, claim));
    }

    /// Checks what is true of every returned value, whatever the model predicts.
    fn check_value<W>(&self, key: u8, answer: &Lookup<u8, u32, u32, W>) {
        let Rules { ttl, grace, .. } = self.rules;
        let (value, ages) = match answer {
            Lookup::Hit(value, _) => (*value, 0..ttl),
            Lookup::Stale(value, _) => (*value, ttl..ttl + grace),
            Lookup::Coalesced(_) | Lookup::Miss(_) => return,
        };

        let (owner, committed_at) = self.committed[value as usize];
        assert_eq!(owner, key, "another key's value");
        let age = self.now - committed_at;
        assert!(ages.contains(&age), "returned {age} s after its commit");
    }

    fn reserve(&mut self, which: u8, size: u8) {
        let Some(at) = index(which, self.open.len()) else {
            return;
        };

        let (fill, claim) = &mut self.open[at];
        let total = bytes(&self.rules, claim.key, size);
        let fits = fill.reserve(total);
        assert_eq!(fits, self.model.reserve(claim, total));
        if fits {
            self.check_capacity();
        }
    }

    fn commit(&mut self, which: u8, size: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };

        let value = self.committed.len() as u32;
        let total = bytes(&self.rules, claim.key, size);
        let is_read = !size.is_multiple_of(2);
        self.committed.push((claim.key, self.now));
        let mut shared = None;
        let kept = if is_read {
            let share = |reservation| (shared.insert(reservation), value).1;
            fill.commit_with(share, total, self.at(self.now))
        } else {
            fill.commit(value, total, self.at(self.now))
        };

        let expected = self.model.commit(claim, (value, is_read), total, self.now);
        match (kept, expected) {
            (Ok(()), Ok(number)) => {
                self.check_capacity();
                let shared = shared.map(|reservation| Held::Shared(reservation, number));
                self.held.extend(shared);
            }
            (Err(reservation), Err(bytes)) => {
                assert_eq!(reservation.bytes(), bytes);
                self.held.push(Held::Alone(reservation));
            }
            (kept, expected) => panic!("{kept:?}, but {expected:?}"),
        }
    }

    fn fail(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let reservation = fill.fail(self.at(self.now));
        assert_eq!(reservation.bytes(), self.model.fail(claim, self.now, true));
        self.held.push(Held::Alone(reservation));
    }

    fn hit_for_miss(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let reservation = fill.hit_for_miss(self.at(self.now));
        assert_eq!(reservation.bytes(), self.model.fail(claim, self.now, false));
        self.held.push(Held::Alone(reservation));
    }

    fn reject(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let bytes = claim.bytes;
        let reservation = fill.reject(self.at(self.now));
        assert_eq!(reservation.bytes(), bytes);
        self.held.push(match self.model.reject(claim, self.now) {
            Some(number) => Held::Shared(reservation, number),
            None => Held::Unshared(reservation),
        });
    }

    fn give_up(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        let reservation = fill.give_up();
        assert_eq!(reservation.bytes(), self.model.give_up(claim));
        self.held.push(Held::Alone(reservation));
    }

    fn drop_fill(&mut self, which: u8) {
        let Some((fill, claim)) = self.take(which) else {
            return;
        };
        drop(fill);
        self.model.drop_fill(claim);
    }

    fn replaces(&mut self, which: u8) {
        let Some(at) = index(which, self.open.len()) else {
            return;
        };
        let (fill, claim) = &self.open[at];
        assert_eq!(fill.replaces(), self.model.replaces(claim));
    }

    /// Takes one of the open fills, and makes space for its reservation.
    fn take(&mut self, which: u8) -> Option<(Fill<u8, u32, u32>, Claim)> {
        if self.held.len() == HELD_MAX {
            drop_held(&mut self.held, &mut self.model, which);
        }
        index(which, self.open.len()).map(|at| self.open.swap_remove(at))
    }

    /// Checks the capacity after an operation that evicts.
    fn check_capacity(&self) {
        let most = self.rules.capacity.max(self.model.flight_bytes);
        let held = self.cache.held();
        assert!(held <= most, "{held} of {most} bytes");
    }

    fn compare(&self) {
        let actual = (self.cache.held(), self.cache.len());
        assert_eq!(actual, (self.model.held(), self.model.len()));
        let without_flights = self.cache.held() - self.model.flight_bytes;
        assert!(without_flights <= self.rules.capacity);
    }

    /// Drops everything, and purges the cache.
    fn end(mut self) {
        while let Some((fill, claim)) = self.take(0) {
            drop(fill);
            self.model.drop_fill(claim);
            self.compare();
        }

        self.held.clear();
        self.cache.purge();
        assert_eq!((self.cache.held(), self.cache.len()), (0, 0));
    }
}

/// Drops one of the held reservations.
fn drop_held(held: &mut Vec<Held>, model: &mut Model, which: u8) {
    let Some(at) = index(which, held.len()) else {
        return;
    };
    match held.swap_remove(at) {
        Held::Alone(reservation) => model.flight_bytes -= reservation.bytes(),
        Held::Unshared(reservation) => model.flight_bytes -= reservation.bytes(),
        Held::Shared(reservation, number) => {
            drop(reservation);
            model.unread(number);
        }
    }
}

/// An index below `count`. `None` if that is zero.
fn index(which: u8, count: usize) -> Option<usize> {
    usize::from(which).checked_rem(count)
}

/// A part of the capacity, or a little more than it. The largest sizes are what just
/// fits, and one byte more.
fn bytes(rules: &Rules, key: u8, size: u8) -> u64 {
    let all = rules.capacity.saturating_sub(model::entry_weight(key));
    match size {
        0..=249 => rules.capacity * u64::from(size) / 200,
        250..=252 => all,
        _ => all + 1,
    }
}
