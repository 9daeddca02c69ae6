//! The cache where its keys are spread over shards. They are hashed at random, so no model can say what is let go; but
//! whatever is let go tells that it was dropped, and from that follows what every answer must be.
//!
//! * only what must be let go is: the last that went was needed, and no value goes before all memories have;
//! * what lives is what is counted, to the byte, and what look-ups answer with;
//! * nothing lives after a purge, and nothing is held when all is dropped.
//!
//! A fault may want a few replays to be seen again, because the hash is another each time.

use super::head;
use poetry::cache::{Cache, Fill, Lookup, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The policies' times, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// These make 2, 4, 8 and 32 shards.
const CAPACITIES: [u64; 4] = [128 << 10, 256 << 10, 600 << 10, 4 << 20];
const KEYS: u8 = 64;
/// So many rights are held at once.
const HELD_MAX: usize = 24;
/// What an entry costs; keys hold nothing here.
const ENTRY_WEIGHT: u64 = 256;

/// Two bytes choose the policy; then each three are an act, on what, and how much.
pub fn check(data: &[u8]) {
    let ([times, capacity], acts) = head(data);
    let time = |shift: u8| TIMES[usize::from(times >> shift & 3)];
    let capacity = CAPACITIES[usize::from(capacity) % CAPACITIES.len()];
    let mut stage = Groups::new([time(0), time(2), time(4)], capacity);
    for act in acts.chunks_exact(3) {
        stage.play(act[0], act[1], act[2]);
        stage.compare();
    }
    stage.end();
}

/// What was given to the cache. It lives as long as the cache keeps it.
struct Given {
    alive: Weak<u32>,
    /// When it came, or until when it is remembered.
    time: u64,
    bytes: u64,
}

impl Given {
    fn lives(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

struct Right {
    fill: Fill<u8, Arc<u32>, Arc<u32>>,
    key: u8,
    bytes: u64,
    flight: Weak<u32>,
}

impl Right {
    /// Whether its flight is still the key's: a purge drops it.
    fn is_own(&self) -> bool {
        self.flight.strong_count() > 0
    }
}

struct Groups {
    cache: Arc<Cache<u8, Arc<u32>, Arc<u32>>>,
    capacity: u64,
    ttl: u64,
    grace: u64,
    fail_ttl: u64,
    start: Instant,
    now: u64,
    count: u32,
    rights: Vec<Right>,
    values: BTreeMap<u8, Given>,
    memories: BTreeMap<u8, Given>,
}

impl Groups {
    fn new([ttl, grace, fail_ttl]: [u64; 3], capacity: u64) -> Groups {
        let secs = Duration::from_secs;
        let policy = Policy {
            ttl: secs(ttl),
            grace: secs(grace),
            fail_ttl: secs(fail_ttl),
            capacity,
        };
        Groups {
            cache: Cache::new(policy),
            capacity,
            ttl,
            grace,
            fail_ttl,
            start: Instant::now(),
            now: 0,
            count: 0,
            rights: Vec::new(),
            values: BTreeMap::new(),
            memories: BTreeMap::new(),
        }
    }

    fn play(&mut self, act: u8, which: u8, size: u8) {
        match act % 16 {
            0..=2 => self.ask(which % KEYS),
            // What is asked for is committed or fails at once: that fills the cache.
            3..=6 => {
                let before = self.rights.len();
                self.ask(which % KEYS);
                if self.rights.len() > before {
                    self.commit(before, size);
                }
            }
            7 | 8 => {
                let before = self.rights.len();
                self.ask(which % KEYS);
                if self.rights.len() > before {
                    self.fail(before);
                }
            }
            9 | 10 => self.with_one(which, |stage, at| stage.reserve(at, size)),
            11 => self.with_one(which, |stage, at| stage.commit(at, size)),
            12 => self.with_one(which, |stage, at| stage.fail(at)),
            13 => self.with_one(which, |stage, at| drop(stage.rights.swap_remove(at))),
            14 => self.now += u64::from(which % 16),
            _ if which < 32 => self.purge(),
            _ => {}
        }
    }

    fn with_one(&mut self, which: u8, act: impl FnOnce(&mut Groups, usize)) {
        if let Some(at) = usize::from(which).checked_rem(self.rights.len()) {
            act(self, at);
        }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_secs(self.now)
    }

    /// A part of a quarter of the capacity.
    fn bytes(&self, size: u8) -> u64 {
        self.capacity / 1024 * u64::from(size)
    }

    fn numbered(&mut self) -> Arc<u32> {
        self.count += 1;
        Arc::new(self.count)
    }

    fn ask(&mut self, key: u8) {
        if self.rights.len() == HELD_MAX {
            return;
        }
        let (fresh_for, kept_for) = (self.ttl, self.ttl + self.grace);
        let value = self
            .values
            .get(&key)
            .and_then(|given| Some((given.alive.upgrade()?, self.now - given.time)));
        let remembered = self
            .memories
            .get(&key)
            .is_some_and(|given| given.lives() && self.now < given.time);
        let flies = remembered
            || self
                .rights
                .iter()
                .any(|right| right.key == key && right.is_own());
        let flight = self.numbered();
        let alive = Arc::downgrade(&flight);
        let answer = self.cache.lookup(&key, self.at(), || ((), flight));
        let lead = match (answer, value) {
            (Lookup::Hit(told, _), Some((value, age))) if told == value && age < fresh_for => None,
            (Lookup::Stale(told, lead), Some((value, age)))
                if told == value && lead.is_none() == flies =>
            {
                assert!(
                    (fresh_for..kept_for).contains(&age),
                    "stale {age} s after it came"
                );
                lead
            }
            (Lookup::Coalesced(_), value)
                if flies && value.as_ref().is_none_or(|(_, age)| *age >= kept_for) =>
            {
                None
            }
            (Lookup::Miss(lead), value)
                if !flies && value.as_ref().is_none_or(|(_, age)| *age >= kept_for) =>
            {
                Some(lead)
            }
            (answer, value) => panic!("key {key}: {answer:?}, but {value:?}, in flight: {flies}"),
        };
        if let Some(lead) = lead {
            self.rights.push(Right {
                fill: lead.fill,
                key,
                bytes: ENTRY_WEIGHT,
                flight: alive,
            });
        }
        // Time alone may have ended the value that was asked for; all else lives.
        self.values.retain(|at, given| given.lives() || *at != key);
        self.forget();
    }

    fn reserve(&mut self, at: usize, size: u8) {
        let total = self.bytes(size) + ENTRY_WEIGHT;
        let in_flight = self.in_flight() - self.rights[at].bytes + total;
        let fits = self.rights[at].fill.reserve(total - ENTRY_WEIGHT);
        assert_eq!(fits, in_flight <= self.capacity);
        if fits {
            self.rights[at].bytes = total;
            self.check_let_go();
        }
    }

    fn commit(&mut self, at: usize, size: u8) {
        let right = self.rights.swap_remove(at);
        let (value, bytes, is_own) = (self.numbered(), self.bytes(size), right.is_own());
        let given = Given {
            alive: Arc::downgrade(&value),
            time: self.now,
            bytes: bytes + ENTRY_WEIGHT,
        };
        let kept = right.fill.commit(value, bytes, self.at()).is_ok();
        assert_eq!(kept, is_own && self.ttl + self.grace > 0);
        if is_own {
            let old = self.values.remove(&right.key);
            assert!(old.is_none_or(|old| !old.lives()), "the old value lives on");
        }
        if kept {
            self.values.insert(right.key, given);
            self.check_let_go();
        }
    }

    fn fail(&mut self, at: usize) {
        let right = self.rights.swap_remove(at);
        let is_marked = right.is_own() && self.fail_ttl > 0;
        let room = right.fill.fail(self.at());
        if is_marked {
            let time = self.now + self.fail_ttl;
            self.memories.insert(
                right.key,
                Given {
                    alive: right.flight,
                    time,
                    bytes: ENTRY_WEIGHT,
                },
            );
            self.check_let_go();
        }
        drop(room);
        self.forget();
    }

    fn purge(&mut self) {
        self.cache.purge();
        assert!(
            self.values
                .values()
                .chain(self.memories.values())
                .all(|given| !given.lives())
        );
        assert!(!self.rights.iter().any(Right::is_own));
        self.values.clear();
        self.memories.clear();
    }

    /// Memories that time has ended may live until somebody comes by.
    fn forget(&mut self) {
        let now = self.now;
        self.memories
            .retain(|_, given| given.lives() || now < given.time);
    }

    /// What went had to, and in its order.
    fn check_let_go(&mut self) {
        let gone: Vec<&Given> = self
            .values
            .values()
            .filter(|given| !given.lives())
            .collect();
        let forgotten: Vec<&Given> = self
            .memories
            .values()
            .filter(|given| !given.lives())
            .collect();
        let untimely = forgotten.iter().any(|given| self.now < given.time);
        let (held, largest) = (
            self.cache.held(),
            gone.iter().chain(&forgotten).map(|given| given.bytes).max(),
        );
        if untimely || !gone.is_empty() {
            assert!(
                held + largest.unwrap_or(0) > self.capacity,
                "{held} bytes: the last one had not to go"
            );
        }
        assert!(
            gone.is_empty() || !self.memories.values().any(Given::lives),
            "memories make way first"
        );
        // What is dropped right after a failure counts as a flight until then.
        let in_flight = held - self.living();
        assert!(held <= self.capacity.max(in_flight), "{held} bytes");
        self.values.retain(|_, given| given.lives());
        self.memories.retain(|_, given| given.lives());
    }

    fn in_flight(&self) -> u64 {
        self.rights.iter().map(|right| right.bytes).sum()
    }

    /// The bytes of what lives beside flights.
    fn living(&self) -> u64 {
        let given = self.values.values().chain(self.memories.values());
        given
            .filter(|given| given.lives())
            .map(|given| given.bytes)
            .sum()
    }

    fn compare(&self) {
        assert!(
            self.values
                .values()
                .chain(self.memories.values())
                .all(Given::lives),
            "let go for nothing"
        );
        assert_eq!(self.cache.held(), self.in_flight() + self.living());
        let own = self
            .rights
            .iter()
            .filter(|right| right.is_own())
            .map(|right| &right.key);
        let keys: BTreeSet<&u8> = self
            .values
            .keys()
            .chain(self.memories.keys())
            .chain(own)
            .collect();
        assert_eq!(self.cache.len(), keys.len());
    }

    fn end(mut self) {
        self.rights.clear();
        self.compare();
        self.purge();
        assert_eq!((self.cache.held(), self.cache.len()), (0, 0));
    }
}
