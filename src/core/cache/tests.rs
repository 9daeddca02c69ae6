//! The cache without a runtime: time is an argument.

use super::*;
use std::time::Duration;

type Poems = Arc<Cache<&'static str, Plain<&'static str>, u32>>;
type Answer = Lookup<&'static str, Plain<&'static str>, u32, ()>;
type Shared = Arc<Cache<u32, Arc<Reservation>, u32>>;

const HOUR: Duration = Duration::from_secs(3600);
const POLICY: Policy = Policy {
    ttl: HOUR,
    grace: Duration::ZERO,
    fail_ttl: Duration::ZERO,
    capacity: 1 << 20,
};
const WITH_GRACE: Policy = Policy {
    grace: HOUR,
    ..POLICY
};
const WITH_FAIL_TTL: Policy = Policy {
    fail_ttl: HOUR,
    ..POLICY
};

fn poems(policy: Policy) -> (Poems, Instant) {
    (Cache::new(policy), Instant::now())
}

fn ask(cache: &Poems, flight: u32, now: Instant) -> Answer {
    cache.lookup(&"key", now, || ((), flight))
}

fn lead(answer: Answer) -> Fill<&'static str, Plain<&'static str>, u32> {
    match answer {
        Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) => lead.fill,
        other => panic!("no lead in {other:?}"),
    }
}

/// The right to fill a key that was never asked for.
fn fill<V: Stored<Value: std::fmt::Debug> + std::fmt::Debug>(
    cache: &Arc<Cache<u32, V, u32>>,
    key: u32,
    now: Instant,
) -> Fill<u32, V, u32> {
    match cache.lookup(&key, now, || ((), 0)) {
        Lookup::Miss(lead) => lead.fill,
        other => panic!("{other:?}"),
    }
}

fn is_hit<V: Stored>(cache: &Arc<Cache<u32, V, u32>>, key: u32) -> bool {
    matches!(
        cache.lookup(&key, Instant::now(), || ((), 0)),
        Lookup::Hit(..)
    )
}

/// Keeps a value under the cache's own policy.
fn commit<K: Eq + Hash + Clone, V: Stored, F: Clone>(
    fill: Fill<K, V, F>,
    value: V::Value,
    bytes: u64,
    now: Instant,
) -> Result<(), Reservation> {
    let freshness = fill.freshness(now);
    fill.commit(value, bytes, freshness, now)
}

/// Keeps a value that shares its reservation.
fn commit_shared(
    fill: Fill<u32, Arc<Reservation>, u32>,
    bytes: u64,
    now: Instant,
) -> Result<(), Reservation> {
    let freshness = fill.freshness(now);
    fill.commit_with(Arc::new, bytes, freshness, now)
}

fn purge<K: Eq + Hash + Clone, V: Stored, F: Clone>(cache: &Cache<K, V, F>) {
    cache.purge(Purge::Hard, Instant::now(), |_| false);
}

#[test]
fn one_request_fetches_and_the_others_join() {
    let (cache, now) = poems(POLICY);
    let fill = lead(ask(&cache, 1, now));
    assert!(matches!(ask(&cache, 2, now), Lookup::Coalesced(1)));

    assert!(commit(fill, "poem", 4, now + HOUR).is_ok());
    let last = now + HOUR * 2 - Duration::from_nanos(1);
    assert!(matches!(ask(&cache, 3, last), Lookup::Hit("poem", _)));
    let late = ask(&cache, 4, now + HOUR * 2);
    assert!(matches!(late, Lookup::Miss(_)), "it counts from the end");
}

#[test]
fn a_dropped_fill_leaves_the_key_empty() {
    let (cache, now) = poems(POLICY);
    drop(ask(&cache, 1, now));
    assert!(cache.is_empty());
    assert!(matches!(ask(&cache, 2, now), Lookup::Miss(_)));
}

#[test]
fn a_purge_wins_over_the_end_of_a_fetch() {
    let (cache, now) = poems(POLICY);
    let old = lead(ask(&cache, 1, now));
    purge(&cache);
    let new = lead(ask(&cache, 2, now));

    assert!(commit(old, "old", 3, now).is_err());
    assert!(matches!(ask(&cache, 3, now), Lookup::Coalesced(2)));
    assert!(commit(new, "new", 3, now).is_ok());
    assert!(matches!(ask(&cache, 4, now), Lookup::Hit("new", _)));
}

#[test]
fn a_soft_purge_makes_values_stale_at_once() {
    let (cache, now) = poems(WITH_GRACE);
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();
    let later = now + HOUR / 2;
    assert_eq!(cache.purge(Purge::Soft, later, |_| false).0, 1);

    let Lookup::Stale("old", Some(refresh)) = ask(&cache, 2, later) else {
        panic!("it is stale, and to be refreshed")
    };
    drop(refresh);
    assert!(matches!(ask(&cache, 3, later + HOUR), Lookup::Miss(_)));
}

#[test]
fn a_soft_purge_without_grace_leaves_nothing() {
    let (cache, now) = poems(POLICY);
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();
    assert_eq!(cache.purge(Purge::Soft, now, |_| false).0, 1);
    assert_eq!((cache.len(), cache.held()), (0, 0));
}

#[test]
fn a_purge_of_one_key_leaves_the_others() {
    let cache = Cache::<u32, Plain<&str>, u32>::new(POLICY);
    let now = Instant::now();
    for key in [1, 2] {
        commit(fill(&cache, key, now), "poem", 4, now).unwrap();
    }

    assert!(cache.remove(&1, Purge::Hard, now, |_| false).0);
    assert!(!cache.remove(&1, Purge::Hard, now, |_| false).0);
    assert!(!is_hit(&cache, 1) && is_hit(&cache, 2));
}

#[test]
fn a_purge_spares_the_flights_it_is_told_to() {
    let (cache, now) = poems(POLICY);
    let fetch = lead(ask(&cache, 1, now));
    let (_, detached) = cache.purge(Purge::Hard, now, |flight| *flight == 1);
    assert!(detached.is_empty());
    assert!(commit(fetch, "new", 3, now).is_ok());

    let fetch = lead(ask(&cache, 2, now + HOUR));
    let (_, detached) = cache.purge(Purge::Hard, now, |flight| *flight == 1);
    assert_eq!(detached, [2]);
    assert!(commit(fetch, "old", 3, now).is_err());
}

#[test]
fn a_ttl_of_zero_keeps_nothing_and_still_coalesces() {
    let (cache, now) = poems(Policy {
        ttl: Duration::ZERO,
        ..POLICY
    });
    let fill = lead(ask(&cache, 1, now));
    assert!(matches!(ask(&cache, 2, now), Lookup::Coalesced(1)));

    assert!(commit(fill, "poem", 4, now).is_err());
    assert_eq!((cache.len(), cache.held()), (0, 0));
}

#[test]
fn a_stale_value_is_served_during_its_refresh_within_grace() {
    let (cache, now) = poems(WITH_GRACE);
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();
    let refresh = lead(ask(&cache, 2, now + HOUR));
    assert_eq!(refresh.replaces(), Some(&"old"));
    assert!(matches!(
        ask(&cache, 3, now + HOUR),
        Lookup::Stale("old", None)
    ));

    let late = ask(&cache, 4, now + HOUR * 2);
    assert!(matches!(late, Lookup::Coalesced(2)), "the refresh hangs");
    drop(refresh);
    assert!(matches!(ask(&cache, 5, now + HOUR * 2), Lookup::Miss(_)));
    assert_eq!(cache.held(), 0);
}

#[test]
fn failed_refreshes_are_paused_longer_and_longer() {
    let (cache, mut now) = poems(Policy {
        grace: HOUR * 10,
        ..POLICY
    });
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();
    now += HOUR;

    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let refresh = lead(ask(&cache, 2, now));
        drop(refresh.fail(CacheFailure::Yes, now));
        let nearly = now + Duration::from_secs(pause) - Duration::from_nanos(1);
        let waits = ask(&cache, 3, nearly);
        assert!(matches!(waits, Lookup::Stale("old", None)), "{pause} s");
        now += Duration::from_secs(pause);
    }

    commit(lead(ask(&cache, 4, now)), "new", 3, now).unwrap();
    now += HOUR;
    drop(lead(ask(&cache, 5, now)).fail(CacheFailure::No, now));
    let again = ask(&cache, 6, now + Duration::from_secs(1));
    assert!(matches!(again, Lookup::Stale("new", Some(_))));
}

#[test]
fn a_pause_holds_back_no_request_once_the_value_is_gone() {
    let (cache, now) = poems(Policy {
        grace: Duration::from_millis(500),
        ..POLICY
    });
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();
    drop(lead(ask(&cache, 2, now + HOUR)).fail(CacheFailure::No, now + HOUR));

    let gone = now + HOUR + Duration::from_millis(500);
    assert!(matches!(ask(&cache, 3, gone), Lookup::Miss(_)));
}

#[test]
fn a_cached_failure_outlasts_the_stale_value() {
    let (cache, now) = poems(Policy {
        grace: Duration::from_millis(500),
        fail_ttl: HOUR,
        ..POLICY
    });
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();
    drop(lead(ask(&cache, 2, now + HOUR)).fail(CacheFailure::Yes, now + HOUR));

    let gone = now + HOUR + Duration::from_secs(1);
    assert!(matches!(ask(&cache, 3, gone), Lookup::Negative(2)));
    assert!(matches!(ask(&cache, 4, now + HOUR * 2), Lookup::Miss(_)));
}

#[test]
fn a_refresh_evicts_nothing_until_it_has_succeeded() {
    let policy = Policy {
        grace: HOUR,
        capacity: 3 * (1000 + ENTRY_WEIGHT),
        ..POLICY
    };
    let cache = Cache::<u32, Plain<&str>, u32>::new(policy);
    let now = Instant::now();
    for key in 0..3 {
        commit(fill(&cache, key, now), "old", 1000, now).unwrap();
    }

    let stale = now + HOUR;
    let mut refreshes = Vec::new();
    for key in 0..3 {
        let Lookup::Stale(_, Some(lead)) = cache.lookup(&key, stale, || ((), key)) else {
            panic!("{key} is stale")
        };
        let mut refresh = lead.fill;
        let most = 1000 + (64 << 10) - FLIGHT_WEIGHT;
        assert!(refresh.reserve(most));
        assert!(!refresh.reserve(most + 1), "that is too much");
        refreshes.push(refresh);
    }
    assert_eq!(cache.len(), 3);
    for refresh in refreshes.drain(..) {
        drop(refresh.fail(CacheFailure::No, stale));
    }

    for key in 0..3 {
        let kept = cache.lookup(&key, stale, || ((), 0));
        assert!(matches!(kept, Lookup::Stale("old", None)), "{key} is lost");
    }
}

#[test]
fn a_value_is_not_evicted_while_it_is_refreshed() {
    let policy = Policy {
        grace: HOUR,
        capacity: 2 * (1000 + ENTRY_WEIGHT),
        ..POLICY
    };
    let cache = Cache::<u32, Plain<&str>, u32>::new(policy);
    let now = Instant::now();
    commit(fill(&cache, 0, now), "old", 1000, now).unwrap();
    let stale = now + HOUR;
    let Lookup::Stale(_, Some(_refresh)) = cache.lookup(&0, stale, || ((), 0)) else {
        panic!("it is stale")
    };

    for key in 1..10 {
        let _too_large_or_kept = commit(fill(&cache, key, stale), "new", 1000, stale);
    }
    let kept = cache.lookup(&0, stale, || ((), 0));
    assert!(matches!(kept, Lookup::Stale("old", None)));
}

#[test]
fn a_value_too_large_to_be_kept_replaces_nothing() {
    let (cache, now) = poems(Policy {
        capacity: 2000,
        ..WITH_GRACE
    });
    commit(lead(ask(&cache, 1, now)), "old", 3, now).unwrap();

    let refresh = lead(ask(&cache, 2, now + HOUR));
    assert!(commit(refresh, "huge", 5000, now + HOUR).is_err());
    assert!(matches!(
        ask(&cache, 3, now + HOUR),
        Lookup::Stale("old", Some(_))
    ));
}

#[test]
fn a_failure_is_cached_for_its_time() {
    let (cache, now) = poems(WITH_FAIL_TTL);
    drop(lead(ask(&cache, 1, now)).fail(CacheFailure::Yes, now));
    assert!(matches!(
        ask(&cache, 2, now + HOUR / 2),
        Lookup::Negative(1)
    ));

    assert!(matches!(ask(&cache, 3, now + HOUR), Lookup::Miss(_)));
}

#[test]
fn a_failure_of_our_own_is_not_cached() {
    let (cache, now) = poems(WITH_FAIL_TTL);
    drop(lead(ask(&cache, 1, now)).fail(CacheFailure::No, now));
    assert!(matches!(ask(&cache, 2, now), Lookup::Miss(_)));
}

#[test]
fn cached_failures_expire_without_another_request() {
    let cache = Cache::<u32, Plain<&str>, u32>::new(Policy {
        capacity: SHARD_CAPACITY,
        ..WITH_FAIL_TTL
    });
    let mut now = Instant::now();
    for key in 0..100 {
        drop(fill(&cache, key, now).fail(CacheFailure::Yes, now));
        now += HOUR / 4;
    }
    assert_eq!(cache.len(), 4);
}

#[test]
fn values_asked_for_stay_longest_within_the_capacity() {
    let policy = Policy {
        capacity: 3 * (1000 + ENTRY_WEIGHT),
        ..POLICY
    };
    let cache = Cache::<u32, Plain<u32>, u32>::new(policy);
    let now = Instant::now();
    for key in 0..10 {
        commit(fill(&cache, key, now), key, 1000, now).unwrap();
        assert!(cache.held() <= policy.capacity);
        assert!(is_hit(&cache, 0), "0 is asked for all the time");
    }
    assert_eq!(cache.len(), 3);

    let mut whole = fill(&cache, 100, now);
    let most = policy.capacity - ENTRY_WEIGHT - FLIGHT_WEIGHT;
    assert!(!whole.reserve_whole(most + 1));
    assert!(whole.reserve_whole(most));
    assert_eq!(cache.len(), 1);
    drop(whole);
    assert_eq!((cache.held(), cache.len()), (0, 0));
}

#[test]
fn a_long_text_takes_no_more_than_free_room_and_a_quarter() {
    let policy = Policy {
        capacity: 100_000,
        ..POLICY
    };
    let cache = Cache::<u32, Plain<u32>, u32>::new(policy);
    let now = Instant::now();
    let mut key = 0;
    while cache.held() + 1000 + ENTRY_WEIGHT <= policy.capacity {
        commit(fill(&cache, key, now), key, 1000, now).unwrap();
        key += 1;
    }
    let before = cache.len();

    let mut long = fill(&cache, 1000, now);
    for total in (0..200).map(|chunk| chunk * 1000) {
        let _fits = long.reserve(total);
    }
    let evicted = before + 1 - cache.len();
    assert!(evicted <= before / 4 + 1, "{evicted} of {before}");
}

#[test]
fn waiting_fetches_take_at_most_half_of_the_capacity() {
    let policy = Policy {
        capacity: 100_000,
        ..POLICY
    };
    let cache = Cache::<u32, Plain<u32>, u32>::new(policy);
    let now = Instant::now();
    let mut waiting = Vec::new();
    while waiting.len() < 200 {
        let mut fill = fill(&cache, waiting.len() as u32, now);
        if !fill.reserve_waiting(1000) {
            break;
        }
        waiting.push(fill);
    }

    let most = 50_000 / (1000 + ENTRY_WEIGHT + FLIGHT_WEIGHT);
    assert_eq!(waiting.len() as u64, most);
}

#[test]
fn an_evicted_value_counts_until_its_last_copy_is_dropped() {
    let policy = Policy {
        capacity: 2 * (1000 + ENTRY_WEIGHT),
        ..POLICY
    };
    let cache: Shared = Cache::new(policy);
    let now = Instant::now();
    let read = [0, 1].map(|key| {
        commit_shared(fill(&cache, key, now), 1000, now).unwrap();
        match cache.lookup(&key, now, || ((), 0)) {
            Lookup::Hit(reservation, _) => reservation,
            other => panic!("{other:?}"),
        }
    });

    let mut third = fill(&cache, 2, now);
    assert!(!third.reserve_whole(1000), "what it evicts is still read");
    drop(read);
    assert!(third.reserve_whole(1000));
    assert!(commit_shared(third, 1000, now).is_ok());
    assert_eq!((cache.len(), cache.held()), (1, 1000 + ENTRY_WEIGHT));
}

#[test]
fn a_text_too_long_to_share_is_fetched_by_each_request() {
    let (cache, now) = poems(WITH_FAIL_TTL);
    drop(lead(ask(&cache, 1, now)).hit_for_miss(now));
    let [a, b, c] = [2, 3, 4].map(|flight| lead(ask(&cache, flight, now)));
    drop(a);
    drop(b.fail(CacheFailure::Yes, now));
    let next = ask(&cache, 5, now);
    assert!(matches!(next, Lookup::Miss(_)), "one failed for itself");

    assert!(commit(c, "short", 5, now).is_ok());
    assert!(matches!(ask(&cache, 6, now), Lookup::Hit("short", _)));

    purge(&cache);
    drop(lead(ask(&cache, 7, now)).hit_for_miss(now));
    let _shared_again = lead(ask(&cache, 8, now + HOUR));
    assert!(matches!(ask(&cache, 9, now + HOUR), Lookup::Coalesced(8)));
}

#[test]
fn a_rejected_value_comes_from_its_flight_for_its_time() {
    let (cache, now) = poems(WITH_FAIL_TTL);
    let mut fill = lead(ask(&cache, 1, now));
    assert!(fill.reserve(1000));
    drop(fill.reject(now));

    assert!(matches!(ask(&cache, 2, now), Lookup::Negative(1)));
    let weight = ENTRY_WEIGHT + FLIGHT_WEIGHT;
    assert_eq!(cache.held(), 1000 + weight, "it is held meanwhile");
    let _again = lead(ask(&cache, 3, now + HOUR));
    assert_eq!(cache.held(), weight);
}

#[test]
fn nothing_is_evicted_in_vain() {
    for is_rejected in [true, false] {
        let cache: Shared = Cache::new(POLICY);
        let now = Instant::now();
        let half = POLICY.capacity / 2;
        let mut read = fill(&cache, 0, now);
        assert!(read.reserve(half));
        let _read = if is_rejected {
            read.reject(now)
        } else {
            let mut held = None;
            let freshness = read.freshness(now);
            let share = |reservation: Reservation| held.insert(Arc::new(reservation)).clone();
            read.commit_with(share, half, freshness, now).unwrap();
            purge(&cache);
            held.unwrap()
        };

        commit_shared(fill(&cache, 1, now), 1000, now).unwrap();
        assert!(!fill(&cache, 2, now).reserve_whole(half));
        assert!(is_hit(&cache, 1));
    }
}

#[test]
fn values_asked_for_stay_across_shards() {
    let cache = Cache::<u32, Plain<u32>, u32>::new(Policy {
        capacity: 2 << 20,
        ..POLICY
    });
    let now = Instant::now();
    for key in 0..1000 {
        commit(fill(&cache, key, now), key, 100 << 10, now).unwrap();
        assert!(is_hit(&cache, 0), "lost at {key}");
    }
}

#[test]
fn a_long_key_counts() {
    let cache = Cache::<String, Plain<u32>, u32>::weighing(WITH_FAIL_TTL, |key| key.len() as u64);
    let now = Instant::now();
    for at in 0..20 {
        let key = format!("{at}{}", "x".repeat(100_000));
        let Lookup::Miss(lead) = cache.lookup(&key, now, || ((), 0)) else {
            panic!("{at} was never asked for")
        };
        assert!(cache.held() >= 100_000);
        drop(lead.fill.fail(CacheFailure::Yes, now));
        assert!(cache.held() >= 100_000 && cache.held() <= POLICY.capacity);
    }
}

#[test]
fn cached_failures_are_evicted_before_values() {
    let capacity = 3 * (1000 + ENTRY_WEIGHT);
    let cache = Cache::<u32, Plain<&str>, u32>::new(Policy {
        capacity,
        ..WITH_FAIL_TTL
    });
    let now = Instant::now();
    commit(fill(&cache, 0, now), "poem", 1000, now).unwrap();
    for key in 1..1000 {
        drop(fill(&cache, key, now).fail(CacheFailure::Yes, now));
        assert!(cache.held() <= capacity);
    }
    assert!(is_hit(&cache, 0));

    let mut more = fill(&cache, 1000, now);
    assert!(more.reserve_whole(1000));
    assert!(is_hit(&cache, 0));
}

#[test]
fn a_hit_takes_one_lock_and_shares_it() {
    let (cache, now) = poems(POLICY);
    commit(lead(ask(&cache, 1, now)), "poem", 4, now).unwrap();
    let shards = cache.shards.iter();
    let _others: Vec<_> = shards.map(|shard| shard.read().unwrap()).collect();

    // With an exclusive lock it would wait here for ever.
    assert!(matches!(ask(&cache, 2, now), Lookup::Hit("poem", _)));
}

#[test]
fn a_key_replaced_many_times_leaves_no_trail() {
    let (cache, mut now) = poems(POLICY);
    for flight in 0..1000 {
        commit(lead(ask(&cache, flight, now)), "poem", 4, now).unwrap();
        now += HOUR;
    }
    assert!(cache.lock(cache.hasher.hash_one("key")).turns() < 20);
    assert_eq!(cache.held(), 4 + ENTRY_WEIGHT);
}

#[test]
fn an_evicted_value_leaves_no_pause_behind() {
    let policy = Policy {
        grace: HOUR,
        capacity: 10 * ENTRY_WEIGHT,
        ..POLICY
    };
    let cache = Cache::<u32, Plain<&str>, u32>::new(policy);
    let now = Instant::now();
    let stale = now + HOUR;
    for key in 0..9 {
        commit(fill(&cache, key, now), "poem", 4, now).unwrap();
        let Lookup::Stale(_, Some(lead)) = cache.lookup(&key, stale, || ((), key)) else {
            panic!("{key} is stale")
        };
        drop(lead.fill.fail(CacheFailure::No, stale));
    }

    let mut whole = fill(&cache, 9, stale);
    assert!(whole.reserve_whole(policy.capacity - ENTRY_WEIGHT - FLIGHT_WEIGHT));
    drop(whole);
    assert_eq!((cache.len(), cache.held()), (0, 0));
}

#[test]
fn what_is_kept_never_exceeds_the_capacity() {
    let policy = Policy {
        capacity: 10 * ENTRY_WEIGHT,
        ..WITH_FAIL_TTL
    };
    let cache = Cache::<u32, Plain<&str>, u32>::new(policy);
    let now = Instant::now();
    let fetches: Vec<_> = (0..11).map(|key| fill(&cache, key, now)).collect();
    assert!(cache.in_flight() > policy.capacity);

    for key in 100..200 {
        drop(fill(&cache, key, now).fail(CacheFailure::Yes, now));
        commit(fill(&cache, key + 100, now), "poem", 4, now).unwrap();
    }
    let kept = cache.held() - cache.in_flight();
    assert!(kept <= policy.capacity, "{kept} bytes are kept");
    drop(fetches);
}

#[test]
fn what_is_kept_and_evicted_is_counted_by_its_purpose() {
    let policy = Policy {
        capacity: 20 * (ENTRY_WEIGHT + 100),
        ..WITH_FAIL_TTL
    };
    let cache = Cache::<u32, Plain<&str>, u32>::new(policy);
    let now = Instant::now();
    let numbers = || {
        let usage = cache.usage();
        (usage.kept.0, usage.negative.0)
    };

    for key in 0..3 {
        let fill = fill(&cache, key, now);
        commit(fill, "value", 100, now).expect("there is room");
    }
    drop(fill(&cache, 3, now).fail(CacheFailure::Yes, now));
    assert_eq!(numbers(), (3, 1));
    assert_eq!(cache.usage().kept.1, 3 * (ENTRY_WEIGHT + 100));
    assert_eq!(
        cache.usage().kept.1 + cache.usage().negative.1,
        cache.held()
    );

    for key in 4..30 {
        let fill = fill(&cache, key, now);
        commit(fill, "value", 100, now).expect("there is room");
    }
    let usage = cache.usage();
    assert_eq!((usage.negative.0, usage.evicted_negative), (0, 1));
    assert_eq!(usage.kept.0 + usage.evicted_kept, 29);
    assert_eq!(usage.kept.0, cache.len() as u64);

    purge(&cache);
    assert_eq!(numbers(), (0, 0));
    assert_eq!(cache.usage().evicted_kept, usage.evicted_kept);
}

#[test]
fn keys_spread_over_the_shards_and_each_makes_room() {
    let now = Instant::now();
    let policy = Policy {
        capacity: 4 << 20,
        ..POLICY
    };
    let cache = Cache::<u32, Plain<u32>, u32>::new(policy);
    assert_eq!(cache.shards.len(), 32);

    // Three times what there is room for, and all of it has been asked for.
    for key in 0..3 * 1024 {
        commit(fill(&cache, key, now), key, 4 << 10, now).expect("there is room");
        let _asked_for = is_hit(&cache, key);
        assert!(cache.held() <= policy.capacity, "{key}");
    }
    assert!(
        cache.held() > policy.capacity - (8 << 10),
        "no more than that"
    );
    let in_shard = |shard: &RwLock<Table<_, _, _>>| shard.read().expect(UNPOISONED).len();
    let fullest = cache.shards.iter().map(in_shard).max();
    assert!(
        fullest.is_some_and(|most| (20..80).contains(&most)),
        "{fullest:?}"
    );
}

/// Asks for a value of its own ttl that came at `now`: when that makes a refresh begin.
fn ask_ahead(cache: &Poems, times: &[Instant]) -> Vec<bool> {
    let is_ahead = |time: &Instant| match ask(cache, 9, *time) {
        Lookup::Hit("poem", _) => false,
        Lookup::Ahead("poem", _, lead) => {
            lead.fill.fail(CacheFailure::No, *time);
            true
        }
        other => panic!("{other:?}"),
    };
    times.iter().map(is_ahead).collect()
}

#[test]
fn a_value_that_is_asked_for_again_is_refreshed_before_it_is_stale() {
    let minute = HOUR / 60;
    for ttl in [HOUR, 2 * HOUR, minute] {
        let cache = Cache::new(POLICY).refreshing_ahead(0.1);
        let now = Instant::now();
        let fill = lead(ask(&cache, 1, now));
        let freshness = fill.freshness_for(ttl, now);
        fill.commit("poem", 4, freshness, now).expect("it fits");

        let soon = now + ttl - ttl / 10;
        let before = soon - Duration::from_millis(1);
        assert_eq!(
            ask_ahead(&cache, &[now, before, soon]),
            [false, false, true]
        );
    }
}

#[test]
fn a_value_that_was_not_asked_for_before_is_not_refreshed_ahead() {
    let (_, now) = poems(POLICY);
    let cache = Cache::new(POLICY).refreshing_ahead(0.5);
    commit(lead(ask(&cache, 1, now)), "poem", 4, now).expect("it fits");
    let soon = now + HOUR * 3 / 4;
    assert_eq!(ask_ahead(&cache, &[soon, soon]), [false, true]);
}

#[test]
fn one_refresh_begins_ahead_and_the_old_value_is_served_meanwhile() {
    let (_, now) = poems(POLICY);
    let cache = Cache::new(POLICY).refreshing_ahead(0.5);
    commit(lead(ask(&cache, 1, now)), "poem", 4, now).expect("it fits");
    let soon = now + HOUR * 3 / 4;
    assert_eq!(ask_ahead(&cache, &[now]), [false]);

    let Lookup::Ahead("poem", freshness, lead) = ask(&cache, 2, soon) else {
        panic!("it is due")
    };
    assert_eq!(freshness, POLICY.freshness(now));
    assert_eq!(lead.fill.replaces(), Some(&"poem"));
    assert_eq!(ask_ahead(&cache, &[soon, soon]), [false, false]);

    // Past the ttl, clients join it; without a grace there is nothing else.
    assert!(matches!(ask(&cache, 3, now + HOUR), Lookup::Coalesced(2)));
    commit(lead.fill, "new", 3, now + HOUR).expect("it fits");
    assert!(matches!(ask(&cache, 4, now + HOUR), Lookup::Hit("new", _)));
}

#[test]
fn after_a_failure_the_next_refresh_ahead_waits() {
    let (_, now) = poems(POLICY);
    let cache = Cache::new(POLICY).refreshing_ahead(0.5);
    commit(lead(ask(&cache, 1, now)), "poem", 4, now).expect("it fits");
    let soon = now + HOUR * 3 / 4;
    assert_eq!(ask_ahead(&cache, &[now]), [false]);

    let second = Duration::from_secs(1);
    let nano = Duration::from_nanos(1);
    let times = [0, 1, 3, 7].map(|seconds| soon + second * seconds);
    assert_eq!(ask_ahead(&cache, &times), [true; 4], "doubled each time");
    let next = soon + second * 15;
    assert_eq!(ask_ahead(&cache, &[next - nano, next]), [false, true]);
}

#[test]
fn without_a_part_no_value_is_refreshed_ahead() {
    let (cache, now) = poems(POLICY);
    commit(lead(ask(&cache, 1, now)), "poem", 4, now).expect("it fits");
    let last = now + HOUR - Duration::from_nanos(1);
    assert_eq!(ask_ahead(&cache, &[now, last, last]), [false; 3]);
}

#[test]
fn a_value_that_came_between_two_looks_is_a_hit() {
    let (cache, now) = poems(POLICY);
    commit(lead(ask(&cache, 1, now)), "poem", 4, now).expect("there is room");
    let hash = cache.hasher.hash_one("key");
    let second_look = cache.decide(hash, &"key", now, || ((), 2));
    assert!(matches!(second_look, Lookup::Hit("poem", _)));
}
