//! The cache with its keys spread over shards. They are hashed at random, so no model
//! can predict what is evicted. But each value shows whether it has been dropped, and
//! from that follows what every answer must be:
//!
//! * only what must be evicted is: the last one that went was needed, and no value goes
//!   before all negative entries have gone;
//! * what lives is what is counted, to the byte, and what look-ups return;
//! * nothing lives after a purge, and nothing is held when everything is dropped.
//!
//! A fault may take a few replays to show again, because the hash differs each time.

use super::head;
use poetry::cache::{Cache, Fill, Lookup, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The times of the policies, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// In bytes. These make 2, 4, 8 and 32 shards.
const CAPACITIES: [u64; 4] = [128 << 10, 256 << 10, 600 << 10, 4 << 20];
const KEYS: u8 = 64;
/// How many fills may be open at once.
const HELD_MAX: usize = 24;
/// What an entry costs, in bytes. Keys hold nothing here.
const ENTRY_WEIGHT: u64 = 256;

/// Two bytes choose the policy. After that, three bytes each are an action: what to do,
/// to which key or fill, and with how many bytes.
pub fn check(data: &[u8]) {
    let ([times, capacity], actions) = head(data);
    let time = |shift: u8| TIMES[usize::from(times >> shift & 3)];
    let capacity = CAPACITIES[usize::from(capacity) % CAPACITIES.len()];
    let mut run = ShardsRun::new([time(0), time(2), time(4)], capacity);

    for action in actions.chunks_exact(3) {
        run.act(action[0], action[1], action[2]);
        run.compare();
    }
    run.end();
}

/// A value or a negative entry. It lives for as long as the cache keeps it.
struct Given {
    alive: Weak<u32>,
    /// When a value was committed, or when a negative entry ends.
    time: u64,
    bytes: u64,
}

impl Given {
    fn lives(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

/// An open fill.
struct OpenFill {
    fill: Fill<u8, Arc<u32>, Arc<u32>>,
    key: u8,
    bytes: u64,
    flight: Weak<u32>,
}

impl OpenFill {
    /// Whether its flight is still the key's: a purge drops it.
    fn is_own(&self) -> bool {
        self.flight.strong_count() > 0
    }
}

struct ShardsRun {
    cache: Arc<Cache<u8, Arc<u32>, Arc<u32>>>,
    capacity: u64,
    ttl: u64,
    grace: u64,
    fail_ttl: u64,
    start: Instant,
    /// Seconds since `start`.
    now: u64,
    count: u32,
    open: Vec<OpenFill>,
    values: BTreeMap<u8, Given>,
    negatives: BTreeMap<u8, Given>,
}

impl ShardsRun {
    fn new([ttl, grace, fail_ttl]: [u64; 3], capacity: u64) -> ShardsRun {
        let secs = Duration::from_secs;
        let policy = Policy {
            ttl: secs(ttl),
            grace: secs(grace),
            fail_ttl: secs(fail_ttl),
            capacity,
        };

        ShardsRun {
            cache: Cache::new(policy),
            capacity,
            ttl,
            grace,
            fail_ttl,
            start: Instant::now(),
            now: 0,
            count: 0,
            open: Vec::new(),
            values: BTreeMap::new(),
            negatives: BTreeMap::new(),
        }
    }

    fn act(&mut self, action: u8, which: u8, size: u8) {
        match action % 16 {
            0..=2 => self.look_up(which % KEYS),
            // A miss is committed or fails at once: that fills the cache.
            3..=6 => self.with_miss(which % KEYS, |run, at| run.commit(at, size)),
            7 | 8 => self.with_miss(which % KEYS, |run, at| run.fail(at)),
            9 | 10 => self.with_one(which, |run, at| run.reserve(at, size)),
            11 => self.with_one(which, |run, at| run.commit(at, size)),
            12 => self.with_one(which, |run, at| run.fail(at)),
            13 => self.with_one(which, |run, at| drop(run.open.swap_remove(at))),
            14 => self.now += u64::from(which % 16),
            _ if which < 32 => self.purge(),
            _ => {}
        }
    }

    /// Looks a key up, and calls `act` with the fill if there is a new one.
    fn with_miss(&mut self, key: u8, act: impl FnOnce(&mut ShardsRun, usize)) {
        let before = self.open.len();
        self.look_up(key);
        if self.open.len() > before {
            act(self, before);
        }
    }

    /// Calls `act` with one of the open fills, if there are any.
    fn with_one(&mut self, which: u8, act: impl FnOnce(&mut ShardsRun, usize)) {
        if let Some(at) = usize::from(which).checked_rem(self.open.len()) {
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

    /// A new number, which shows whether it has been dropped.
    fn numbered(&mut self) -> Arc<u32> {
        self.count += 1;
        Arc::new(self.count)
    }

    fn look_up(&mut self, key: u8) {
        if self.open.len() == HELD_MAX {
            return;
        }

        let value = self.value(key);
        let in_flight = self.is_in_flight(key);
        let flight = self.numbered();
        let alive = Arc::downgrade(&flight);
        let answer = self.cache.lookup(&key, self.at(), || ((), flight));
        let fill = self.check_answer(key, answer, value, in_flight);

        if let Some(fill) = fill {
            self.open.push(OpenFill {
                fill,
                key,
                bytes: ENTRY_WEIGHT,
                flight: alive,
            });
        }
        // Time alone may have ended the value that was asked for; all others live.
        self.values.retain(|at, given| given.lives() || *at != key);
        self.forget();
    }

    /// The living value of a key, and its age in seconds.
    fn value(&self, key: u8) -> Option<(Arc<u32>, u64)> {
        let given = self.values.get(&key)?;
        Some((given.alive.upgrade()?, self.now - given.time))
    }

    /// Whether the key has a flight or a negative entry.
    fn is_in_flight(&self, key: u8) -> bool {
        let negative = self.negatives.get(&key);
        let is_negative = negative.is_some_and(|given| given.lives() && self.now < given.time);
        let mut fills = self.open.iter();
        is_negative || fills.any(|fill| fill.key == key && fill.is_own())
    }

    /// Checks an answer against the key's value and flight. Returns the new fill, if
    /// there is one.
    fn check_answer<W: std::fmt::Debug>(
        &self,
        key: u8,
        answer: Lookup<u8, Arc<u32>, Arc<u32>, W>,
        value: Option<(Arc<u32>, u64)>,
        in_flight: bool,
    ) -> Option<Fill<u8, Arc<u32>, Arc<u32>>> {
        let kept_for = self.ttl + self.grace;
        let has_none = value.as_ref().is_none_or(|(_, age)| *age >= kept_for);

        match (answer, value) {
            (Lookup::Hit(got, _), Some((value, age))) if got == value && age < self.ttl => None,
            (Lookup::Stale(got, lead), Some((value, age)))
                if got == value && lead.is_none() == in_flight =>
            {
                let is_stale = (self.ttl..kept_for).contains(&age);
                assert!(is_stale, "stale {age} s after its commit");
                lead.map(|lead| lead.fill)
            }
            (Lookup::Coalesced(_), _) if in_flight && has_none => None,
            (Lookup::Miss(lead), _) if !in_flight && has_none => Some(lead.fill),
            (answer, value) => {
                panic!("key {key}: {answer:?}, but {value:?}, in flight: {in_flight}")
            }
        }
    }

    fn reserve(&mut self, at: usize, size: u8) {
        let total = self.bytes(size) + ENTRY_WEIGHT;
        let in_flight = self.flight_bytes() - self.open[at].bytes + total;

        let fits = self.open[at].fill.reserve(total - ENTRY_WEIGHT);
        assert_eq!(fits, in_flight <= self.capacity);
        if fits {
            self.open[at].bytes = total;
            self.check_evicted();
        }
    }

    fn commit(&mut self, at: usize, size: u8) {
        let open = self.open.swap_remove(at);
        let is_own = open.is_own();
        let value = self.numbered();
        let bytes = self.bytes(size);
        let given = Given {
            alive: Arc::downgrade(&value),
            time: self.now,
            bytes: bytes + ENTRY_WEIGHT,
        };

        let kept = open.fill.commit(value, bytes, self.at()).is_ok();
        assert_eq!(kept, is_own && self.ttl + self.grace > 0);
        if is_own {
            let old = self.values.remove(&open.key);
            assert!(old.is_none_or(|old| !old.lives()), "the old value lives on");
        }
        if kept {
            self.values.insert(open.key, given);
            self.check_evicted();
        }
    }

    fn fail(&mut self, at: usize) {
        let open = self.open.swap_remove(at);
        let is_cached = open.is_own() && self.fail_ttl > 0;

        let reservation = open.fill.fail(self.at());
        if is_cached {
            let negative = Given {
                alive: open.flight,
                time: self.now + self.fail_ttl,
                bytes: ENTRY_WEIGHT,
            };
            self.negatives.insert(open.key, negative);
            self.check_evicted();
        }
        drop(reservation);
        self.forget();
    }

    fn purge(&mut self) {
        self.cache.purge();
        assert!(self.given().all(|given| !given.lives()));
        assert!(!self.open.iter().any(OpenFill::is_own));
        self.values.clear();
        self.negatives.clear();
    }

    /// Forgets negative entries whose time has passed. They may live until the next
    /// look-up.
    fn forget(&mut self) {
        let now = self.now;
        self.negatives
            .retain(|_, given| given.lives() || now < given.time);
    }

    /// Checks that everything that was evicted had to be, and in its order.
    fn check_evicted(&mut self) {
        let is_dead = |given: &&Given| !given.lives();
        let values: Vec<&Given> = self.values.values().filter(is_dead).collect();
        let negatives: Vec<&Given> = self.negatives.values().filter(is_dead).collect();
        let held = self.cache.held();

        let is_early = negatives.iter().any(|given| self.now < given.time);
        if is_early || !values.is_empty() {
            let evicted = values.iter().chain(&negatives);
            let largest = evicted.map(|given| given.bytes).max().unwrap_or(0);
            let is_needed = held + largest > self.capacity;
            assert!(is_needed, "{held} bytes: the last one did not have to go");
        }
        let has_negatives = self.negatives.values().any(Given::lives);
        assert!(
            values.is_empty() || !has_negatives,
            "negative entries go first"
        );

        // The reservation of a failed flight counts as a flight until it is dropped.
        let in_flight = held - self.living_bytes();
        assert!(held <= self.capacity.max(in_flight), "{held} bytes");
        self.values.retain(|_, given| given.lives());
        self.negatives.retain(|_, given| given.lives());
    }

    /// All values and negative entries.
    fn given(&self) -> impl Iterator<Item = &Given> {
        self.values.values().chain(self.negatives.values())
    }

    fn flight_bytes(&self) -> u64 {
        self.open.iter().map(|open| open.bytes).sum()
    }

    /// The bytes of living values and negative entries.
    fn living_bytes(&self) -> u64 {
        let living = self.given().filter(|given| given.lives());
        living.map(|given| given.bytes).sum()
    }

    fn compare(&self) {
        assert!(self.given().all(Given::lives), "evicted without need");
        let bytes = self.flight_bytes() + self.living_bytes();
        assert_eq!(self.cache.held(), bytes);

        let own = self.open.iter().filter(|open| open.is_own());
        let keys: BTreeSet<&u8> = self
            .values
            .keys()
            .chain(self.negatives.keys())
            .chain(own.map(|open| &open.key))
            .collect();
        assert_eq!(self.cache.len(), keys.len());
    }

    fn end(mut self) {
        self.open.clear();
        self.compare();
        self.purge();
        assert_eq!((self.cache.held(), self.cache.len()), (0, 0));
    }
}
