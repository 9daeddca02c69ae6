//! The cache with its keys spread over shards. They are hashed at random, so no model
//! can predict what is evicted. But each value shows whether it has been dropped, and
//! from that follows what every answer must be:
//!
//! * only what must be evicted is: the last one that went was needed, no value goes
//!   before all negative entries have gone, and none while it is refreshed;
//! * what lives is what is counted, to the byte, and what look-ups return;
//! * a refresh that fails is not tried again before its pause is over;
//! * nothing lives after a hard purge, and nothing is held when everything is dropped.
//!
//! A fault may take a few replays to show again, because the hash differs each time.

mod ends;
mod kept;

use super::head;
use kept::{Given, Kept, Pause};
use poetry::cache::{Cache, ENTRY_WEIGHT, FLIGHT_WEIGHT, Fill, Lookup, Plain, Policy, Purge};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The times of the policies, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// In bytes. These make 2, 4, 8 and 32 shards.
const CAPACITIES: [u64; 4] = [128 << 10, 256 << 10, 600 << 10, 4 << 20];
const KEYS: u8 = 64;
/// How many fills may be open at once.
const HELD_MAX: usize = 24;
/// What an entry costs while it is fetched, and as a cached failure, in bytes. Keys
/// hold nothing here.
const FETCHED_WEIGHT: u64 = ENTRY_WEIGHT + FLIGHT_WEIGHT;
/// What a refresh may hold beyond the weight of the old value, in bytes.
const REFRESH_SLACK: u64 = 64 << 10;

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

/// An open fill.
struct OpenFill {
    fill: Fill<u8, Plain<Arc<u32>>, Arc<u32>>,
    key: u8,
    bytes: u64,
    flight: Weak<u32>,
    /// The weight of the value that it refreshes.
    replaces: Option<u64>,
    /// Refreshes that had failed in a row before it.
    failures: usize,
}

impl OpenFill {
    /// Whether its flight is still the key's: a purge drops it.
    fn is_own(&self) -> bool {
        self.flight.strong_count() > 0
    }
}

struct ShardsRun {
    cache: Arc<Cache<u8, Plain<Arc<u32>>, Arc<u32>>>,
    capacity: u64,
    ttl: u64,
    grace: u64,
    fail_ttl: u64,
    start: Instant,
    /// Seconds since `start`.
    now: u64,
    count: u32,
    open: Vec<OpenFill>,
    kept: Kept,
}

/// How bytes are reserved.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Growing,
    Whole,
    Waiting,
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
            kept: Kept::default(),
        }
    }

    /// The low half of `action` chooses what to do, the high half how.
    fn act(&mut self, action: u8, which: u8, size: u8) {
        let how = action >> 4;
        match action & 15 {
            0..=2 => self.look_up(which % KEYS),
            // A miss is committed or fails at once: that fills the cache.
            3..=6 => self.with_miss(which % KEYS, |run, at| run.commit(at, size)),
            7 | 8 => self.with_miss(which % KEYS, |run, at| run.fail(at, how)),
            9 | 10 => self.with_one(which, |run, at| run.reserve(at, size, how)),
            11 => self.with_one(which, |run, at| run.commit(at, size)),
            12 => self.with_one(which, |run, at| run.fail(at, how)),
            13 => self.with_one(which, |run, at| drop(run.open.swap_remove(at))),
            14 => self.now += u64::from(which % 16),
            _ if which < 32 => self.purge(None, how),
            _ if which < 128 => self.purge(Some(which % KEYS), how),
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

        self.kept.expire(key, self.now);
        let due = self.kept.values.get(&key);
        let due = due.and_then(|given| Some((given.alive.upgrade()?, given.fresh_until)));
        let in_flight = self.is_in_flight(key);
        let is_paused = self.kept.is_paused(key, self.now);
        let flight = self.numbered();
        let alive = Arc::downgrade(&flight);

        let lead = match (self.cache.lookup(&key, self.at(), || ((), flight)), due) {
            (Lookup::Hit(got, _), Some((value, end))) if got == value && self.now < end => None,
            (Lookup::Stale(got, lead), Some((value, end)))
                if got == value && lead.is_none() == (in_flight || is_paused) =>
            {
                assert!(self.now >= end, "it is still fresh");
                lead
            }
            (Lookup::Coalesced(_) | Lookup::Negative(_), None) if in_flight => None,
            (Lookup::Miss(lead), None) if !in_flight => Some(lead),
            (answer, due) => {
                panic!("key {key}: {answer:?}, but {due:?}, {in_flight}, {is_paused}")
            }
        };
        if let Some(lead) = lead {
            self.opened(lead.fill, key, alive);
        }
    }

    /// Whether the key has a flight, or a negative entry that can be joined.
    fn is_in_flight(&self, key: u8) -> bool {
        let negative = self.kept.negatives.get(&key);
        let is_negative = negative.is_some_and(|given| self.now < given.stale_until);
        is_negative || self.is_pinned(key)
    }

    /// Whether a fetch of the key is under way, so that its value must stay.
    fn is_pinned(&self, key: u8) -> bool {
        let mut fills = self.open.iter();
        fills.any(|fill| fill.key == key && fill.is_own())
    }

    /// Takes a new fill in. What is known of the fetch before it is gone.
    fn opened(&mut self, fill: Fill<u8, Plain<Arc<u32>>, Arc<u32>>, key: u8, flight: Weak<u32>) {
        self.kept.negatives.remove(&key);
        let pause = self.kept.pauses.remove(&key);
        let replaces = self.kept.values.get(&key).map(|given| given.bytes);
        assert_eq!(fill.replaces().is_some(), replaces.is_some());

        self.open.push(OpenFill {
            fill,
            key,
            bytes: FETCHED_WEIGHT,
            flight,
            replaces,
            failures: pause.map_or(0, |pause| pause.failures),
        });
    }

    fn reserve(&mut self, at: usize, size: u8, how: u8) {
        let way = [Way::Growing, Way::Growing, Way::Whole, Way::Waiting][usize::from(how % 4)];
        let times = if how & 4 > 0 { 3 } else { 1 };
        let total = self.bytes(size) * times + FETCHED_WEIGHT;
        let before = std::mem::replace(&mut self.open[at].bytes, total);
        let due = self.can_reserve(at, way);

        let fill = &mut self.open[at].fill;
        let fits = match way {
            Way::Growing => fill.reserve(total - FETCHED_WEIGHT),
            Way::Whole => fill.reserve_whole(total - FETCHED_WEIGHT),
            Way::Waiting => fill.reserve_waiting(total - FETCHED_WEIGHT),
        };
        assert_eq!(fits, due, "{way:?} {total}");

        if self.can_evict(at, way) {
            self.check_evicted(self.flights());
        }
        if !fits {
            self.open[at].bytes = before;
        }
    }

    /// Whether a reservation, made already, may evict what is kept.
    fn can_evict(&self, at: usize, way: Way) -> bool {
        let open = &self.open[at];
        let is_short = way == Way::Whole || open.bytes <= self.capacity / 4;
        open.replaces.is_none() && way != Way::Waiting && is_short
    }

    /// Whether there is room for a reservation that was made already.
    fn can_reserve(&self, at: usize, way: Way) -> bool {
        let open = &self.open[at];
        let kept = self.kept.bytes();
        if way == Way::Waiting {
            return self.flights() + self.refreshes() <= self.capacity / 2;
        }
        if let Some(old) = open.replaces {
            let held = self.flights() + self.refreshes() + kept;
            return open.bytes <= old + REFRESH_SLACK || held <= self.capacity;
        }

        let stays = if self.can_evict(at, way) {
            self.pinned_bytes()
        } else {
            kept
        };
        self.flights() + stays <= self.capacity
    }

    /// The bytes of fetches under way that replace nothing.
    fn flights(&self) -> u64 {
        let flights = self.open.iter().filter(|open| open.replaces.is_none());
        flights.map(|open| open.bytes).sum()
    }

    /// The bytes of fetches under way that replace a value.
    fn refreshes(&self) -> u64 {
        let refreshes = self.open.iter().filter(|open| open.replaces.is_some());
        refreshes.map(|open| open.bytes).sum()
    }

    /// The bytes of values that are being refreshed.
    fn pinned_bytes(&self) -> u64 {
        let values = self.kept.values.iter();
        let pinned = values.filter(|(key, _)| self.is_pinned(**key));
        pinned.map(|(_, given)| given.bytes).sum()
    }

    fn purge(&mut self, key: Option<u8>, how: u8) {
        let is_soft = how % 2 == 1;
        let spares = how & 2 > 0;
        let kind = if is_soft { Purge::Soft } else { Purge::Hard };
        let picked = |at: u8| key.is_none_or(|key| key == at);
        let own = self.open.iter().filter(|open| open.is_own());
        let own = own.filter(|open| picked(open.key)).count();
        let values = self.kept.values.keys().filter(|at| picked(**at)).count();
        let negatives = self.kept.negatives.keys();
        let negatives = negatives.filter(|at| picked(**at)).count();

        let (count, detached) = match key {
            None => self.cache.purge(kind, self.at(), |_| spares),
            Some(key) => {
                let (found, detached) = self.cache.remove(&key, kind, self.at(), |_| spares);
                (found.into(), detached)
            }
        };
        // A negative entry counts as long as it is there, which may be past its time.
        let most = values + negatives;
        assert!((values as u64..=most as u64).contains(&count), "{count}");
        assert_eq!(detached.len(), if spares { 0 } else { own });
        drop(detached);

        let gone = self
            .kept
            .purge(picked, self.now, if is_soft { self.grace } else { 0 });
        assert!(!gone.iter().any(|given| self.lives(given)), "it lives on");
    }

    fn end(mut self) {
        self.open.clear();
        self.compare();
        self.purge(None, 0);
        assert_eq!((self.cache.held(), self.cache.len()), (0, 0));
    }
}
