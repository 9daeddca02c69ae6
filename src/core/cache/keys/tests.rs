//! Pages of keys while keys come and go, and purges of some keys.

use super::*;
use crate::cache::table::Table;
use crate::cache::{CacheFailure, Lookup, Plain, Policy};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Numbers = Arc<Cache<u32, Plain<u32>, u32>>;

const HOUR: Duration = Duration::from_secs(3600);
const POLICY: Policy = Policy {
    ttl: HOUR,
    grace: HOUR,
    fail_ttl: HOUR,
    capacity: 1 << 30,
};

fn numbers(capacity: u64) -> (Numbers, Instant) {
    let policy = Policy { capacity, ..POLICY };
    (Cache::new(policy), Instant::now())
}

fn keep(cache: &Numbers, key: u32, now: Instant) {
    assert!(try_keep(cache, key, now), "there is room");
}

/// Returns whether the key is kept. A purge on another thread takes its fill away.
fn try_keep(cache: &Numbers, key: u32, now: Instant) -> bool {
    match cache.lookup(&key, now, || ((), key)) {
        Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) => {
            let freshness = POLICY.freshness(now);
            lead.fill.commit(key, 100, freshness, now).is_ok()
        }
        other => panic!("{other:?}"),
    }
}

fn lead(cache: &Numbers, key: u32, now: Instant) -> crate::cache::Fill<u32, Plain<u32>, u32> {
    match cache.lookup(&key, now, || ((), key)) {
        Lookup::Miss(lead) => lead.fill,
        other => panic!("{other:?}"),
    }
}

/// All pages. `between` is called after each.
fn walk(
    cache: &Numbers,
    limit: usize,
    now: Instant,
    mut between: impl FnMut(usize),
) -> BTreeMap<u32, usize> {
    let mut seen = BTreeMap::new();
    let mut after = None;
    for number in 0.. {
        let page = cache.page(after, limit, now, |_| true);
        assert!(page.keys.len() <= limit, "a page of {}", page.keys.len());
        for known in page.keys {
            *seen.entry(known.key).or_default() += 1;
        }
        between(number);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    seen
}

#[test]
fn pages_list_each_key_once() {
    for capacity in [60 << 10, 300 << 10, 1 << 30] {
        let (cache, now) = numbers(capacity);
        assert_eq!(walk(&cache, 10, now, |_| ()), BTreeMap::new());
        for key in 0..100 {
            keep(&cache, key, now);
        }

        let all: BTreeMap<u32, usize> = (0..100).map(|key| (key, 1)).collect();
        for limit in [1, 7, 99, 100, 101] {
            assert_eq!(walk(&cache, limit, now, |_| ()), all, "{capacity} {limit}");
        }
        assert_eq!(walk(&cache, 100, now, |number| assert_eq!(number, 0)), all);
    }
}

#[test]
fn a_key_that_stays_is_listed_once_while_others_come_and_go() {
    let (cache, now) = numbers(1 << 30);
    for key in 0..1000 {
        keep(&cache, key, now);
    }

    // Of each ten keys one goes and one is refreshed, and tables grow on the way.
    let mut next = 1000;
    let seen = walk(&cache, 20, now, |number| {
        let ten = number as u32 * 10;
        if ten >= 1000 {
            return;
        }
        cache.remove(&ten, Purge::Hard, now, |_| false);
        cache.remove(&(ten + 1), Purge::Hard, now, |_| false);
        keep(&cache, ten + 1, now);
        for key in next..next + 50 {
            keep(&cache, key, now);
        }
        next += 50;
    });
    for key in (0..1000).filter(|key| key % 10 > 1) {
        assert_eq!(seen.get(&key), Some(&1), "{key}");
    }
    assert!(seen.values().all(|times| *times == 1));
}

#[test]
fn a_page_picks_keys_and_says_what_is_known_of_them() {
    let (cache, now) = numbers(1 << 30);
    keep(&cache, 1, now);
    let _in_flight = lead(&cache, 2, now);
    drop(lead(&cache, 3, now).fail(CacheFailure::Yes, now));
    drop(lead(&cache, 4, now).hit_for_miss(now));
    keep(&cache, 5, now);
    cache.remove(&5, Purge::Soft, now, |_| false);
    let at = |key, now| cache.page(None, 9, now, |other| *other == key).keys.pop();

    let freshness = POLICY.freshness(now);
    let value = KnownValue {
        bytes: 100,
        freshness,
        came: Some(now),
    };
    let empty = |key| Known {
        key,
        value: None,
        is_in_flight: false,
        failed_until: None,
    };
    let kept = Known {
        value: Some(value),
        ..empty(1)
    };
    assert_eq!(at(1, now), Some(kept.clone()));
    assert_eq!(at(1, now + HOUR), Some(kept.clone()), "stale");
    assert_eq!(at(1, now + HOUR * 2), None, "its time is over");
    assert_eq!(cache.known_of(&1, now), Some(kept));
    assert_eq!(cache.known_of(&9, now), None);

    let in_flight = Known {
        is_in_flight: true,
        ..empty(2)
    };
    assert_eq!(at(2, now + HOUR * 9), Some(in_flight));
    let failed = Known {
        failed_until: Some(now + HOUR),
        ..empty(3)
    };
    assert_eq!(at(3, now), Some(failed));
    assert_eq!(at(3, now + HOUR), None);
    assert_eq!(at(4, now), Some(empty(4)));
    assert_eq!(at(4, now + HOUR), None);

    let purged = at(5, now)
        .and_then(|known| known.value)
        .expect("it is stale");
    assert_eq!((purged.came, purged.freshness.fresh_until), (None, now));
}

#[test]
fn a_page_ends_when_many_keys_were_looked_at_in_vain() {
    let (cache, now) = numbers(1 << 30);
    for key in 0..80_000 {
        keep(&cache, key, now);
    }

    let first = cache.page(None, 10, now, |_| false);
    assert!(first.keys.is_empty() && first.next.is_some());
    let second = cache.page(first.next, 10, now, |_| false);
    assert!(second.keys.is_empty() && second.next.is_none());
    let both = walk(&cache, 50_000, now, |_| ());
    assert!(both.len() == 80_000 && both.values().all(|times| *times == 1));
}

#[test]
fn pages_that_end_because_much_was_looked_at_leave_no_key_out() {
    let (cache, now) = numbers(1 << 30);
    for key in 0..150_000 {
        keep(&cache, key, now);
    }

    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = cache.page(after, 10_000, now, |key| key % 50 == 0);
        found.extend(page.keys.into_iter().map(|known| known.key));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.sort_unstable();
    let all: Vec<u32> = (0..150_000).step_by(50).collect();
    assert!(found == all, "{} of {}", found.len(), all.len());
    assert_eq!(pages, 3, "of at least 65,536 looks, but for the last");
}

#[test]
fn the_weight_of_a_key_is_no_part_of_its_values_length() {
    let cache = Cache::<u32, Plain<u32>, u32>::weighing(POLICY, |_| 1000);
    let now = Instant::now();
    keep(&cache, 1, now);
    let known = cache.known_of(&1, now).and_then(|known| known.value);
    assert_eq!(known.map(|value| value.bytes), Some(100));
}

#[test]
fn a_value_is_shown_until_its_grace_is_over() {
    let (cache, now) = numbers(1 << 20);
    keep(&cache, 1, now);
    let end = now + HOUR * 2;
    let just_before = end - Duration::from_nanos(1);
    assert!(cache.value(&1, just_before).is_some());
    assert!(cache.value(&1, end).is_none());
}

/// A look in steps depends on it.
#[test]
fn an_entry_keeps_its_place_until_the_table_says_that_entries_moved() {
    let hasher = ahash::RandomState::new();
    let epoch = crate::cache::stamp::Epoch(Instant::now());
    let mut table = Table::<u64, Plain<u32>, u32>::new(hasher.clone(), epoch);
    let mut random = 1u64;
    let mut keys = VecDeque::new();
    let mut rehashes = 0;

    for step in 0..20_000 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let places = |table: &Table<u64, Plain<u32>, u32>, keys: &VecDeque<u64>| {
            let key = |slot: usize| table.in_slot(slot).map(|entry| entry.key);
            let slots = (0..table.slots()).filter_map(|slot| Some((key(slot)?, slot)));
            let slots: BTreeMap<u64, usize> = slots.collect();
            let of = |key: &u64| slots.get(key).copied();
            keys.iter().take(20).map(of).collect::<Vec<_>>()
        };
        let (before, moves) = (places(&table, &keys), table.moves);

        let staying = keys.clone();
        table.entry(hasher.hash_one(random), &random);
        if table.moves == moves {
            assert_eq!(places(&table, &staying), before, "step {step}");
        } else {
            rehashes += 1;
        }
        keys.push_back(random);
        if keys.len() > 100 {
            let gone = keys.pop_front().expect("it is not empty");
            let at = table.find(hasher.hash_one(gone), &gone);
            table.remove_if_void(at.expect("it was made"));
        }
    }
    assert!(rehashes > 3, "{rehashes}");
}

#[test]
fn what_stays_is_listed_once_while_another_thread_changes_the_tables() {
    let (cache, now) = numbers(1 << 30);
    const STAY: u32 = 120_000; // more than one step a shard
    for key in 0..STAY {
        keep(&cache, key, now);
    }

    let is_over = Arc::new(AtomicBool::new(false));
    let churn = std::thread::spawn({
        let (cache, is_over) = (cache.clone(), is_over.clone());
        move || {
            let mut key = STAY;
            while !is_over.load(Ordering::Relaxed) {
                keep(&cache, key, now);
                let old = key.saturating_sub(100_000).max(STAY);
                cache.remove(&old, Purge::Hard, now, |_| false);
                key += 1;
            }
        }
    });
    for _ in 0..2 {
        let seen = walk(&cache, 50_000, now, |_| ());
        let is_once = |key: u32| seen.get(&key) == Some(&1);
        assert_eq!((0..STAY).find(|key| !is_once(*key)), None);
    }
    is_over.store(true, Ordering::Relaxed);
    churn.join().expect("it has not panicked");
}

#[test]
fn only_the_keys_that_are_picked_are_purged() {
    let (cache, now) = numbers(1 << 30);
    for key in 0..100 {
        keep(&cache, key, now);
    }
    let even_in_flight = lead(&cache, 100, now);
    let odd_in_flight = lead(&cache, 101, now);

    let is_even = |key: &u32| key.is_multiple_of(2);
    let (purged, detached) = cache.purge_where(Purge::Hard, now, |_| false, is_even);
    assert_eq!((purged, detached), (50, vec![100]));
    let left: BTreeSet<u32> = walk(&cache, 9, now, |_| ()).into_keys().collect();
    assert_eq!(left, (1..=101).filter(|key| !is_even(key)).collect());

    let freshness = POLICY.freshness(now);
    assert!(even_in_flight.commit(0, 100, freshness, now).is_err());
    assert!(odd_in_flight.commit(0, 100, freshness, now).is_ok());

    let (purged, _) = cache.purge_where(Purge::Soft, now, |_| false, |key| *key < 10);
    assert_eq!(purged, 5);
    assert!(matches!(
        cache.lookup(&1, now, || ((), 0)),
        Lookup::Stale(1, Some(_))
    ));
    assert!(matches!(
        cache.lookup(&11, now, || ((), 0)),
        Lookup::Hit(11, _)
    ));
}

/// A value that notes, when it is dropped, how many entries the cache still has.
struct Witness {
    cache: std::sync::Weak<Cache<u32, Plain<Arc<Witness>>, ()>>,
    seen: Arc<std::sync::Mutex<Vec<usize>>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            let mut seen = self.seen.lock().expect("no test panics here");
            seen.push(cache.len());
        }
    }
}

#[test]
fn a_purge_of_all_frees_each_lock_after_a_step() {
    const SHARDS: usize = 32;
    const ENTRIES: u32 = 2 * 4096 * SHARDS as u32;
    let cache = Cache::new(POLICY);
    let seen = Arc::default();
    let now = Instant::now();
    for key in 0..ENTRIES {
        let Lookup::Miss(lead) = cache.lookup(&key, now, || ((), ())) else {
            panic!("{key} was never asked for");
        };
        let witness = Witness {
            cache: Arc::downgrade(&cache),
            seen: Arc::clone(&seen),
        };
        let freshness = POLICY.freshness(now);
        let kept = lead.fill.commit(witness.into(), 1, freshness, now);
        kept.expect("there is room");
    }

    let (purged, _) = cache.purge(Purge::Hard, now, |_| false);
    assert_eq!((purged, cache.len()), (ENTRIES.into(), 0));
    let mut seen = seen.lock().expect("no test panics here").clone();
    assert_eq!(seen.len(), ENTRIES as usize);
    seen.dedup();
    let steps = seen.windows(2).map(|two| two[0] - two[1]);
    let longest = steps.max().expect("there were steps");
    assert!(longest <= STEP, "{longest} entries under one lock");
}

#[test]
fn a_purge_beside_new_keys_counts_each_value_once_and_leaves_no_old_one() {
    let (cache, now) = numbers(1 << 30);
    const OLD: u32 = 200_000;
    (0..OLD).for_each(|key| keep(&cache, key, now));

    let is_over = Arc::new(AtomicBool::new(false));
    let growing = {
        let (cache, is_over) = (cache.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut key = OLD;
            while !is_over.load(Ordering::Relaxed) {
                try_keep(&cache, key, now);
                key += 1;
            }
            key
        })
    };
    let (purged, _) = cache.purge(Purge::Soft, now, |_| false);
    is_over.store(true, Ordering::Relaxed);
    let keys = growing.join().expect("it does not panic");

    assert!(purged >= OLD.into() && purged <= keys.into(), "{purged}");
    for key in 0..OLD {
        let known = cache.known_of(&key, now).expect("it is within its grace");
        let value = known.value.expect("it is within its grace");
        assert!(value.freshness.fresh_until <= now, "{key}");
    }
}
