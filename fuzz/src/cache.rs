//! The cache: any order of asking, reserving, ending, purging and waiting, for a few keys and under many policies, beside
//! a slow and obvious model.
//!
//! The model says every answer, so nothing is left open. What matters most is said again here, without the model:
//!
//! * a value is only told for the key it was committed for, fresh before its ttl and stale within its grace;
//! * one flight at most is aloft for a key, unless everyone is to fetch alone;
//! * what is kept and remembered comes to no more than the capacity, ever. With the flights it can be more only by what
//!   look-ups since the last eviction began with (256 bytes and the key each), or where flights alone are more;
//! * when all is dropped and purged, nothing is held.

mod model;

use super::head;
use model::{Model, Response, Right, Rules, weigh};
use poetry::cache::{Cache, Fill, Lookup, Policy, Reservation};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The policies' times, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// Every one makes a single shard, so that what is let go is let go in order.
const CAPACITIES: [u64; 8] = [0, 256, 400, 1000, 2000, 5000, 20_000, 100_000];
const KEYS: u8 = 5;
/// So many rights are held at once, and so many rooms.
const HELD_MAX: usize = 24;
/// What a wait may last: around and beyond the policies' times.
const WAITS: [u64; 8] = [1, 2, 5, 9, 10, 90, 100, 250];

/// Two bytes choose the policy; then each three are an act, on what, and how much.
pub fn check(data: &[u8]) {
    let ([times, capacity], acts) = head(data);
    let time = |shift: u8| TIMES[usize::from(times >> shift & 3)];
    let capacity = CAPACITIES[usize::from(capacity) % CAPACITIES.len()];
    let mut stage = Groups::new(Rules {
        ttl: time(0),
        grace: time(2),
        fail_ttl: time(4),
        capacity,
    });
    for act in acts.chunks_exact(3) {
        stage.play(act[0], act[1], act[2]);
        stage.compare();
    }
    stage.end();
}

/// What was committed, for whom and when.
type Committed = (u8, u64);

/// A room that somebody holds for whoever reads what it counts.
enum Held {
    /// Nobody else has it.
    Alone(Reservation),
    /// It counts what the cache keeps or remembers, or did, and when that came.
    Shared(Arc<Reservation>, u64),
    /// It counts what was never remembered.
    Unshared(Arc<Reservation>),
}

/// The cache and its model, and what is held of both.
struct Groups {
    cache: Arc<Cache<u8, u32, u32>>,
    model: Model,
    rules: Rules,
    start: Instant,
    now: u64,
    rights: Vec<(Fill<u8, u32, u32>, Right)>,
    rooms: Vec<Held>,
    /// Values are their places in this.
    committed: Vec<Committed>,
    flights: u32,
}

impl Groups {
    fn new(rules: Rules) -> Groups {
        let secs = Duration::from_secs;
        let policy = Policy {
            ttl: secs(rules.ttl),
            grace: secs(rules.grace),
            fail_ttl: secs(rules.fail_ttl),
            capacity: rules.capacity,
        };
        Groups {
            cache: Cache::weighing(policy, weigh),
            model: Model::new(rules),
            rules,
            start: Instant::now(),
            now: 0,
            rights: Vec::new(),
            rooms: Vec::new(),
            committed: Vec::new(),
            flights: 0,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn play(&mut self, act: u8, which: u8, size: u8) {
        match act % 16 {
            0..=3 => self.ask(which % KEYS),
            4 | 5 => self.reserve(which, size),
            6 | 7 => self.commit(which, size),
            8 => self.fail(which),
            9 => self.reject(which),
            10 => self.too_long(which),
            11 => self.give_up(which),
            12 => self.drop_fill(which),
            13 => drop_room(&mut self.rooms, &mut self.model, which),
            14 => self.now += WAITS[usize::from(which) % WAITS.len()],
            // Rarely: it ends all that has come about.
            _ if which < 64 => {
                self.cache.purge();
                self.model.purge();
            }
            _ => self.replaces(which),
        }
    }

    fn ask(&mut self, key: u8) {
        if self.rights.len() == HELD_MAX {
            return;
        }
        self.flights += 1;
        let (now, flight, mut launched) = (self.at(self.now), self.flights, 0);
        let answer = self.cache.lookup(&key, now, || {
            launched += 1;
            ((), flight)
        });
        let expected = self.model.ask(key, self.now, flight);
        self.check_told(key, &answer);
        let (lead, right) = match (answer, expected) {
            (Lookup::Hit(value, until), Response::Hit(due, end))
                if (value, until) == (due, self.at(end)) =>
            {
                return assert_eq!(launched, 0);
            }
            (Lookup::Stale(value, None), Response::Stale(due, None)) if value == due => {
                return assert_eq!(launched, 0);
            }
            (Lookup::Coalesced(joined), Response::Coalesced(due)) if joined == due => {
                return assert_eq!(launched, 0);
            }
            (Lookup::Stale(value, Some(lead)), Response::Stale(due, Some(right)))
                if value == due =>
            {
                (lead, right)
            }
            (Lookup::Miss(lead), Response::Miss(right)) => (lead, right),
            (answer, expected) => panic!("key {key} at {}: {answer:?}, but {expected:?}", self.now),
        };
        assert_eq!((launched, lead.flight), (1, flight));
        self.rights.push((lead.fill, right));
    }

    /// What is true of every value that is told, whatever the model says.
    fn check_told<W>(&self, key: u8, answer: &Lookup<u8, u32, u32, W>) {
        let (value, from, upto) = match answer {
            Lookup::Hit(value, _) => (*value, 0, self.rules.ttl),
            Lookup::Stale(value, _) => (*value, self.rules.ttl, self.rules.ttl + self.rules.grace),
            Lookup::Coalesced(_) | Lookup::Miss(_) => return,
        };
        let (owner, came) = self.committed[value as usize];
        assert_eq!(owner, key, "another key's value");
        assert!(
            (from..upto).contains(&(self.now - came)),
            "told {} s after it came",
            self.now - came
        );
    }

    fn reserve(&mut self, which: u8, size: u8) {
        let Some(at) = place(which, self.rights.len()) else {
            return;
        };
        let (fill, right) = &mut self.rights[at];
        let total = bytes(&self.rules, right.key, size);
        let fits = fill.reserve(total);
        assert_eq!(fits, self.model.reserve(right, total));
        if fits {
            self.check_space();
        }
    }

    fn commit(&mut self, which: u8, size: u8) {
        let Some((fill, right)) = self.take(which) else {
            return;
        };
        let (value, now) = (self.committed.len() as u32, self.at(self.now));
        let total = bytes(&self.rules, right.key, size);
        self.committed.push((right.key, self.now));
        let mut read = None;
        let kept = match size % 2 {
            0 => fill.commit(value, total, now),
            _ => fill.commit_with(|room| (read.insert(room), value).1, total, now),
        };
        let expected = self
            .model
            .commit(right, (value, !size.is_multiple_of(2)), total, self.now);
        match (kept, expected) {
            (Ok(()), Ok(came)) => {
                self.check_space();
                self.rooms.extend(read.map(|room| Held::Shared(room, came)));
            }
            (Err(room), Err(bytes)) => {
                assert_eq!(room.bytes(), bytes);
                self.rooms.push(Held::Alone(room));
            }
            (kept, expected) => panic!("{kept:?}, but {expected:?}"),
        }
    }

    fn fail(&mut self, which: u8) {
        let Some((fill, right)) = self.take(which) else {
            return;
        };
        let room = fill.fail(self.at(self.now));
        assert_eq!(room.bytes(), self.model.fail(right, self.now, true));
        self.rooms.push(Held::Alone(room));
    }

    fn too_long(&mut self, which: u8) {
        let Some((fill, right)) = self.take(which) else {
            return;
        };
        let room = fill.hit_for_miss(self.at(self.now));
        assert_eq!(room.bytes(), self.model.fail(right, self.now, false));
        self.rooms.push(Held::Alone(room));
    }

    fn reject(&mut self, which: u8) {
        let Some((fill, right)) = self.take(which) else {
            return;
        };
        let (room, bytes) = (fill.reject(self.at(self.now)), right.bytes);
        assert_eq!(room.bytes(), bytes);
        self.rooms.push(match self.model.reject(right, self.now) {
            Some(came) => Held::Shared(room, came),
            None => Held::Unshared(room),
        });
    }

    fn give_up(&mut self, which: u8) {
        let Some((fill, right)) = self.take(which) else {
            return;
        };
        let room = fill.give_up();
        assert_eq!(room.bytes(), self.model.give_up(right));
        self.rooms.push(Held::Alone(room));
    }

    fn drop_fill(&mut self, which: u8) {
        let Some((fill, right)) = self.take(which) else {
            return;
        };
        drop(fill);
        self.model.drop_fill(right);
    }

    fn replaces(&mut self, which: u8) {
        let Some(at) = place(which, self.rights.len()) else {
            return;
        };
        let (fill, right) = &self.rights[at];
        assert_eq!(fill.replaces(), self.model.replaces(right));
    }

    fn take(&mut self, which: u8) -> Option<(Fill<u8, u32, u32>, Right)> {
        if self.rooms.len() == HELD_MAX {
            drop_room(&mut self.rooms, &mut self.model, which);
        }
        place(which, self.rights.len()).map(|at| self.rights.swap_remove(at))
    }

    /// After whatever lets things go.
    fn check_space(&self) {
        let most = self.rules.capacity.max(self.model.in_flight);
        assert!(
            self.cache.held() <= most,
            "{} of {most} bytes",
            self.cache.held()
        );
    }

    fn compare(&self) {
        assert_eq!(
            (self.cache.held(), self.cache.len()),
            (self.model.held(), self.model.len())
        );
        assert!(self.cache.held() - self.model.in_flight <= self.rules.capacity);
    }

    /// Everything is dropped, and purged where it was kept.
    fn end(mut self) {
        while let Some((fill, right)) = self.take(0) {
            drop(fill);
            self.model.drop_fill(right);
            self.compare();
        }
        self.rooms.clear();
        self.cache.purge();
        assert_eq!((self.cache.held(), self.cache.len()), (0, 0));
    }
}

/// Lets go of one of the rooms.
fn drop_room(rooms: &mut Vec<Held>, model: &mut Model, which: u8) {
    let Some(at) = place(which, rooms.len()) else {
        return;
    };
    match rooms.swap_remove(at) {
        Held::Alone(room) => model.in_flight -= room.bytes(),
        Held::Unshared(room) => model.in_flight -= room.bytes(),
        Held::Shared(room, came) => {
            drop(room);
            model.unread(came);
        }
    }
}

/// One of so many, if there are any.
fn place(which: u8, count: usize) -> Option<usize> {
    usize::from(which).checked_rem(count)
}

/// A part of the capacity or a little more than it; and for the largest, what just fits and what just doesn't.
fn bytes(rules: &Rules, key: u8, size: u8) -> u64 {
    let all = rules.capacity.saturating_sub(model::entry_weight(key));
    match size {
        0..=249 => rules.capacity * u64::from(size) / 200,
        250..=252 => all,
        _ => all + 1,
    }
}
