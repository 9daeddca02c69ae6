//! In which order values are evicted.

use crate::cache::{Cache, ENTRY_WEIGHT, Lookup, Plain, Policy, Purge};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Numbers = Arc<Cache<u32, Plain<u32>, u32>>;

const HOUR: Duration = Duration::from_secs(3600);
const LENGTH: u64 = 1000;

/// A cache with room for so many values.
fn room_for(values: u64) -> (Numbers, Instant) {
    let policy = Policy {
        ttl: HOUR,
        grace: HOUR,
        fail_ttl: Duration::ZERO,
        capacity: values * (LENGTH + ENTRY_WEIGHT),
    };
    (Cache::new(policy), Instant::now())
}

/// A full cache: the values of the keys from 0 on.
fn full_of(values: u32) -> (Numbers, Instant) {
    let (cache, now) = room_for(values.into());
    for key in 0..values {
        keep(&cache, key, now);
    }
    (cache, now)
}

/// Keeps a value, or another one in its place.
fn keep(cache: &Numbers, key: u32, now: Instant) {
    let fill = match cache.lookup(&key, now, || ((), key)) {
        Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) => lead.fill,
        other => panic!("{other:?}"),
    };
    let freshness = fill.freshness(now);
    fill.commit(key, LENGTH, freshness, now)
        .expect("it has room");
}

/// The keys of these that have a value.
fn kept(cache: &Numbers, keys: std::ops::Range<u32>) -> Vec<u32> {
    keys.filter(|key| cache.peek(key).is_some()).collect()
}

#[test]
fn values_that_were_not_asked_for_go_in_the_order_they_came() {
    let (cache, now) = full_of(3);
    keep(&cache, 3, now);
    assert_eq!(kept(&cache, 0..10), [1, 2, 3]);
    keep(&cache, 4, now);
    assert_eq!(kept(&cache, 0..10), [2, 3, 4]);
    keep(&cache, 5, now);
    keep(&cache, 6, now);
    assert_eq!(kept(&cache, 0..10), [4, 5, 6]);
}

#[test]
fn a_new_value_for_a_key_takes_no_turn_from_older_ones() {
    let (cache, now) = full_of(3);
    let stale = now + HOUR;
    keep(&cache, 1, stale);
    keep(&cache, 3, stale);
    assert_eq!(kept(&cache, 0..10), [1, 2, 3]);
    keep(&cache, 4, stale);
    assert_eq!(kept(&cache, 0..10), [1, 3, 4]);
}

#[test]
fn the_value_whose_turn_it_is_may_be_purged() {
    let (cache, now) = full_of(3);
    keep(&cache, 3, now);
    // It is the turn of 1 now.
    cache.remove(&1, Purge::Hard, now, |_| false);
    keep(&cache, 4, now);
    assert_eq!(kept(&cache, 0..10), [2, 3, 4]);
    keep(&cache, 5, now);
    assert_eq!(kept(&cache, 0..10), [3, 4, 5]);
}

#[test]
fn a_purged_value_keeps_its_turn_and_its_mark() {
    let (cache, now) = full_of(3);
    cache.remove(&1, Purge::Soft, now, |_| false);
    keep(&cache, 3, now);
    assert_eq!(kept(&cache, 0..10), [1, 2, 3]);
    let known = cache.known_of(&1, now).and_then(|known| known.value);
    assert_eq!(known.expect("it is stale").came, None, "it is marked");
    keep(&cache, 4, now);
    assert_eq!(kept(&cache, 0..10), [2, 3, 4]);
}

#[test]
fn the_oldest_value_stays_while_it_is_refreshed() {
    let (cache, now) = room_for(5);
    for key in 0..4 {
        keep(&cache, key, now);
    }
    let stale = now + HOUR;
    let Some(refresh) = cache.renew(&0, stale, || ((), 0)).ok() else {
        panic!("none is under way");
    };

    // The first of these makes it the turn of 0.
    for key in 4..10 {
        keep(&cache, key, stale);
        assert!(cache.peek(&0).is_some(), "lost at {key}");
    }
    drop(refresh);
}
