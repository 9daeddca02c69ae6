//! The cache and its model side by side.

mod ends;

use super::model::{self, Claim, Expected, Model, PurgeOf, REFRESH_SLACK, Rules, Way};
use poetry::cache::{Cache, Fill, Freshness, Lookup, Policy, Purge, Reservation, Stored};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: u8 = 5;
/// How many fills may be open at once, and how many reservations.
const HELD_MAX: usize = 24;
/// How long waits last, in seconds: around and beyond the times of the policies, and
/// the pauses of failed refreshes.
const WAITS: [u64; 8] = [1, 2, 5, 9, 10, 90, 100, 250];

/// What is cached: a number and, where the value shares it, its reservation.
#[derive(Debug, Clone)]
struct Value {
    number: u32,
    _shared: Option<Arc<Reservation>>,
}

/// A value in the cache.
#[derive(Debug)]
struct Kept {
    value: Value,
    reservation: Arc<Reservation>,
}

impl Stored for Kept {
    type Value = Value;

    fn store(value: Value, reservation: Reservation) -> Kept {
        let reservation = Arc::new(reservation);
        Kept { value, reservation }
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn reservation(&self) -> Option<&Reservation> {
        Some(&self.reservation)
    }
}

/// The key a value was committed for, and until when it may be served: fresh, and at
/// all.
struct Committed {
    key: u8,
    fresh_until: u64,
    stale_until: u64,
}

/// A reservation that is held for readers.
enum Held {
    /// It has no other holder.
    Alone(Reservation),
    /// A value that shares its reservation, with this number in the model.
    Value(Value, u64),
    /// It also counts a negative entry of the cache, present or past.
    Negative(Arc<Reservation>, u64),
    /// It counts an answer that the cache never took.
    Unshared(Arc<Reservation>),
}

type OpenFill = Fill<u8, Kept, u32>;

/// The cache and its model, and what is held of both.
pub struct CacheRun {
    cache: Arc<Cache<u8, Kept, u32>>,
    model: Model,
    rules: Rules,
    start: Instant,
    /// Seconds since `start`.
    now: u64,
    open: Vec<(OpenFill, Claim)>,
    held: Vec<Held>,
    /// A value's number is its index in this list.
    committed: Vec<Committed>,
    flights: u32,
}

impl CacheRun {
    pub fn new(rules: Rules) -> CacheRun {
        let secs = Duration::from_secs;
        let policy = Policy {
            ttl: secs(rules.ttl),
            grace: secs(rules.grace),
            fail_ttl: secs(rules.fail_ttl),
            capacity: rules.capacity,
        };

        CacheRun {
            cache: Cache::weighing(policy, model::weigh),
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

    /// The low half of `action` chooses what to do, the high half how.
    pub fn act(&mut self, action: u8, which: u8, size: u8) {
        let how = action >> 4;
        match action & 15 {
            0..=3 => self.look_up(which % KEYS),
            4 | 5 => self.reserve(which, size, how),
            6 | 7 => self.commit(which, size, how),
            8 => self.fail(which, how),
            9 => self.reject(which),
            10 => self.hit_for_miss(which),
            11 => self.give_up(which),
            12 => self.drop_fill(which),
            13 => self.drop_held(which),
            14 => self.now += WAITS[usize::from(which) % WAITS.len()],
            // Rare, because it clears everything.
            _ if which < 64 => self.purge(None, how),
            _ if which < 192 => self.replaces(which),
            _ => self.purge(Some(which % KEYS), how),
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
            (Lookup::Hit(value, freshness), Expected::Hit(due, ends))
                if (value.number, freshness) == (due, self.freshness(ends)) =>
            {
                return assert_eq!(launched, 0);
            }
            (Lookup::Stale(value, None), Expected::Stale(due, None)) if value.number == due => {
                return assert_eq!(launched, 0);
            }
            (Lookup::Coalesced(joined), Expected::Coalesced(due))
            | (Lookup::Negative(joined), Expected::Negative(due))
                if joined == due =>
            {
                return assert_eq!(launched, 0);
            }
            (Lookup::Stale(value, Some(lead)), Expected::Stale(due, Some(claim)))
                if value.number == due =>
            {
                (lead, claim)
            }
            (Lookup::Miss(mut lead), Expected::Miss(claim)) => {
                lead.fill.drop_outdated(); // it would count
                (lead, claim)
            }
            (answer, expected) => panic!("key {key} at {}: {answer:?}, but {expected:?}", self.now),
        };

        assert_eq!((launched, lead.flight), (1, flight));
        self.open.push((lead.fill, claim));
    }

    fn freshness(&self, [fresh_until, stale_until]: [u64; 2]) -> Freshness {
        Freshness {
            fresh_until: self.at(fresh_until),
            stale_until: self.at(stale_until),
        }
    }

    /// Checks what is true of every returned value, whatever the model predicts.
    fn check_value<W>(&self, key: u8, answer: &Lookup<u8, Kept, u32, W>) {
        let (value, is_fresh) = match answer {
            Lookup::Hit(value, _) => (value, true),
            Lookup::Ahead(value, _, _) => (value, true),
            Lookup::Stale(value, _) => (value, false),
            Lookup::Coalesced(_) | Lookup::Negative(_) | Lookup::Miss(_) => return,
        };

        let committed = &self.committed[value.number as usize];
        assert_eq!(committed.key, key, "another key's value");
        assert_eq!(is_fresh, self.now < committed.fresh_until);
        assert!(self.now < committed.stale_until, "served for too long");
    }

    fn reserve(&mut self, which: u8, size: u8, how: u8) {
        let Some(at) = index(which, self.open.len()) else {
            return;
        };

        let way = [Way::Growing, Way::Growing, Way::Whole, Way::Waiting][usize::from(how % 4)];
        let (fill, claim) = &mut self.open[at];
        let total = bytes(&self.rules, claim, size);
        let fits = match way {
            Way::Growing => fill.reserve(total),
            Way::Whole => fill.reserve_whole(total),
            Way::Waiting => fill.reserve_waiting(total),
        };
        assert_eq!(fits, self.model.reserve(claim, total, way), "{way:?}");

        let evicts = !matches!(way, Way::Waiting) && claim.replaced.is_none();
        if fits && evicts {
            let bounded = self.cache.held() - self.model.refreshes;
            assert!(bounded <= self.rules.capacity, "{bounded} bytes");
        }
    }

    fn purge(&mut self, key: Option<u8>, how: u8) {
        let is_soft = how % 2 == 1;
        let spares_even = how & 2 > 0;
        let spares = |flight: u32| spares_even && flight.is_multiple_of(2);
        let kind = if is_soft { Purge::Soft } else { Purge::Hard };

        let now = self.at(self.now);
        let (count, mut detached) = match key {
            None => self.cache.purge(kind, now, |flight| spares(*flight)),
            Some(key) => {
                let (found, detached) = self.cache.remove(&key, kind, now, |f| spares(*f));
                (found.into(), detached)
            }
        };
        detached.sort();

        let of = PurgeOf {
            key,
            is_soft,
            spares: &spares,
        };
        let (due, mut due_detached) = self.model.purge(&of, self.now);
        due_detached.sort();
        assert_eq!((count, detached), (due, due_detached));
        self.shorten(key, if is_soft { self.rules.grace } else { 0 });
    }

    /// Records that what was committed for the key, or for all, is stale from now on,
    /// and gone after `grace`.
    fn shorten(&mut self, key: Option<u8>, grace: u64) {
        let purged = |committed: &&mut Committed| key.is_none_or(|key| key == committed.key);
        for committed in self.committed.iter_mut().filter(purged) {
            committed.fresh_until = committed.fresh_until.min(self.now);
            committed.stale_until = committed.stale_until.min(self.now + grace);
        }
    }

    fn replaces(&mut self, which: u8) {
        let Some(at) = index(which, self.open.len()) else {
            return;
        };
        let (fill, claim) = &self.open[at];
        let replaced = fill.replaces().map(|value| value.number);
        assert_eq!(replaced, claim.replaced.as_ref().map(|old| old.value));
    }

    /// Takes one of the open fills, and makes space for its reservation.
    fn take(&mut self, which: u8) -> Option<(OpenFill, Claim)> {
        if self.held.len() == HELD_MAX {
            self.drop_held(which);
        }
        index(which, self.open.len()).map(|at| self.open.swap_remove(at))
    }

    /// Drops one of the held reservations.
    fn drop_held(&mut self, which: u8) {
        let Some(at) = index(which, self.held.len()) else {
            return;
        };
        match self.held.swap_remove(at) {
            Held::Alone(reservation) => self.model.flights -= reservation.bytes(),
            Held::Unshared(reservation) => self.model.flights -= reservation.bytes(),
            Held::Value(value, number) => {
                drop(value);
                self.model.let_go(number);
            }
            Held::Negative(reservation, number) => {
                drop(reservation);
                self.model.let_go(number);
            }
        }
    }

    /// Compares each number that the cache shows, and checks the capacity.
    pub fn compare(&self) {
        let in_flight = self.model.flights + self.model.refreshes;
        let actual = (self.cache.held(), self.cache.in_flight(), self.cache.len());
        assert_eq!(actual, (self.model.held(), in_flight, self.model.len()));

        let kept = self.cache.held() - self.cache.in_flight();
        assert!(kept <= self.rules.capacity, "{kept} bytes are kept");
    }

    /// Drops everything, and purges the cache.
    pub fn end(mut self) {
        while let Some((fill, claim)) = self.take(0) {
            drop(fill);
            self.model.drop_fill(claim);
            self.compare();
        }

        self.held.clear();
        self.cache.purge(Purge::Hard, self.at(self.now), |_| false);
        assert_eq!((self.cache.held(), self.cache.len()), (0, 0));
    }
}

/// An index below `count`. `None` if that is zero.
fn index(which: u8, count: usize) -> Option<usize> {
    usize::from(which).checked_rem(count)
}

/// A part of the capacity, or a little more than it. The largest sizes are what just
/// fits one of the rules, and one byte more.
fn bytes(rules: &Rules, claim: &Claim, size: u8) -> u64 {
    let old = claim.replaced.as_ref().map_or(0, |old| old.weight);
    let most = match size {
        242 | 243 => rules.capacity / 4,
        244 | 245 => rules.capacity / 2,
        246 | 247 => old + REFRESH_SLACK,
        250..=255 => rules.capacity,
        _ => return rules.capacity * u64::from(size) / 200,
    };

    let one_more = u64::from(matches!(size, 243 | 245 | 247 | 253..=255));
    most.saturating_sub(model::flight_weight(claim.key)) + one_more
}
