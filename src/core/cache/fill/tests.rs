//! What a fetch may hold and a value may weigh, to the byte.

use super::*;
use crate::cache::{ENTRY_WEIGHT, Lookup, Plain, Policy};

type Numbers = Arc<Cache<u32, Plain<u32>, u32>>;

/// No multiple of four, so that a quarter of it is not a whole number.
const CAPACITY: u64 = 100_003;
/// What a fetch holds before its first byte.
const EMPTY: u64 = ENTRY_WEIGHT + FLIGHT_WEIGHT;

fn numbers() -> (Numbers, Instant) {
    let policy = Policy {
        ttl: Duration::from_secs(3600),
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
        capacity: CAPACITY,
    };
    (Cache::new(policy), Instant::now())
}

fn fill(cache: &Numbers, key: u32, now: Instant) -> Fill<u32, Plain<u32>, u32> {
    match cache.lookup(&key, now, || ((), key)) {
        Lookup::Miss(lead) => lead.fill,
        other => panic!("{other:?}"),
    }
}

fn commit(cache: &Numbers, key: u32, bytes: u64, now: Instant) -> bool {
    let fill = fill(cache, key, now);
    let freshness = fill.freshness(now);
    fill.commit(key, bytes, freshness, now).is_ok()
}

/// Commits values of 1000 bytes until no other has room. Returns how many.
fn fill_up(cache: &Numbers, now: Instant) -> u32 {
    let mut key = 0;
    while cache.held() + 1000 + ENTRY_WEIGHT <= CAPACITY {
        assert!(commit(cache, key, 1000, now));
        key += 1;
    }
    key
}

#[test]
fn a_fetch_takes_all_that_is_free_and_no_byte_more() {
    let (cache, now) = numbers();
    let mut fetch = fill(&cache, 1, now);
    assert!(fetch.reserve(CAPACITY - EMPTY));
    assert_eq!(cache.held(), CAPACITY);

    assert!(!fetch.reserve(CAPACITY - EMPTY + 1));
    assert_eq!(cache.held(), CAPACITY, "nothing has changed");
}

#[test]
fn a_fetch_evicts_for_up_to_a_quarter_of_the_capacity() {
    let (cache, now) = numbers();
    let values = fill_up(&cache, now);
    let mut fetch = fill(&cache, values, now);
    assert!(fetch.reserve(CAPACITY / 4 - EMPTY));
    let left = cache.len();
    assert!(left < values as usize);

    assert!(!fetch.reserve(CAPACITY / 4 - EMPTY + 2000));
    assert_eq!(cache.len(), left, "it evicts no more");
}

#[test]
fn a_fetch_whose_text_must_be_whole_evicts_all_others() {
    let (cache, now) = numbers();
    let values = fill_up(&cache, now);
    let mut fetch = fill(&cache, values, now);
    assert!(fetch.reserve_whole(CAPACITY - EMPTY));
    assert_eq!((cache.held(), cache.len()), (CAPACITY, 1));

    assert!(!fetch.reserve_whole(CAPACITY - EMPTY + 1));
    assert_eq!(cache.held(), CAPACITY, "nothing has changed");
}

#[test]
fn a_value_as_heavy_as_the_capacity_is_kept_and_no_heavier_one() {
    let (cache, now) = numbers();
    assert!(!commit(&cache, 1, CAPACITY - ENTRY_WEIGHT + 1, now));
    assert!(cache.is_empty());
    assert!(commit(&cache, 1, CAPACITY - ENTRY_WEIGHT, now));
    assert_eq!(cache.held(), CAPACITY);
    assert!(!cache.is_empty());
}

#[test]
fn room_is_made_in_whatever_shard_the_values_are() {
    let now = Instant::now();
    let policy = Policy {
        capacity: 2 << 20,
        ..*numbers().0.policy()
    };
    for key in 0..200 {
        let cache: Numbers = Cache::new(policy);
        assert!(commit(&cache, key, policy.capacity / 2, now));
        let is_hit = matches!(cache.lookup(&key, now, || ((), 0)), Lookup::Hit(..));
        assert!(is_hit, "so it is spared once");

        let mut fetch = fill(&cache, key + 1, now);
        assert!(fetch.reserve_whole(policy.capacity * 3 / 4), "key {key}");
    }
}
