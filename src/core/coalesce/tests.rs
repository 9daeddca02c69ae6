//! What each of several clients gets.

use super::*;
use crate::cache::{CacheFailure, KeepTimes};
use crate::error::Error;
use crate::flight::Read;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const POLICY: Policy = Policy {
    ttl: HOUR,
    grace: HOUR,
    fail_ttl: Duration::ZERO,
    capacity: 1 << 20,
};

fn missed(texts: &Coalescer<u8>, now: Instant) -> (Reader, FlightGuard<u8>) {
    match texts.find(&0, now) {
        Found::Missed(reader, guard) => (reader, guard),
        _ => panic!("nothing was asked for yet"),
    }
}

#[test]
fn a_fetch_that_no_client_waits_for_does_not_begin() {
    let texts = Coalescer::new(POLICY, 1 << 16);
    let now = Instant::now();
    let (reader, mut guard) = missed(&texts, now);
    let Found::Joined(second) = texts.find(&0, now) else {
        panic!("the flight can be joined")
    };

    drop(reader);
    assert!(guard.writer().flight().join().is_some_and(|_| true));
    drop(second);
    assert!(!guard.begin());

    // The next client starts afresh, also before the guard is dropped.
    let (_, mut next) = missed(&texts, now);
    drop(guard);
    assert!(!next.begin(), "its reader is gone, too");
    drop(next);
    assert!(texts.cache().is_empty());
}

#[test]
fn a_fetch_that_has_begun_belongs_to_no_client() {
    let texts = Coalescer::new(POLICY, 1 << 16);
    let now = Instant::now();
    let (reader, mut guard) = missed(&texts, now);
    assert!(guard.begin());

    drop(reader);
    guard.append("text".into());
    assert!(guard.land(Verdict::Keep, now));
    assert!(matches!(texts.find(&0, now), Found::Hit(..)));
}

#[test]
fn a_purge_spares_what_has_not_begun_and_orphans_what_has() {
    let texts = Coalescer::new(POLICY, 1 << 16);
    let now = Instant::now();
    let (_reader, mut guard) = missed(&texts, now);
    assert_eq!(texts.purge_all(Purge::Hard, now).fetches, 0);
    assert_eq!(texts.purge(&0, Purge::Hard, now).fetches, 0);
    assert_eq!(texts.purge_where(Purge::Hard, now, |_| true).fetches, 0);
    assert!(matches!(texts.find(&0, now), Found::Joined(_)));

    assert!(guard.begin());
    assert_eq!(texts.purge_all(Purge::Hard, now).fetches, 1);
    let (_, next) = missed(&texts, now);
    drop(next);
    guard.append("old".into());
    assert!(!guard.land(Verdict::Keep, now));
    assert!(texts.cache().is_empty());
}

#[test]
fn a_purge_of_some_texts_orphans_their_fetches_alone() {
    type PurgeSome = fn(&Coalescer<u8>, Instant) -> Purged;
    let ways: [PurgeSome; 2] = [
        |texts, now| texts.purge(&0, Purge::Hard, now),
        |texts, now| texts.purge_where(Purge::Hard, now, |key| *key == 0),
    ];
    for purge in ways {
        let texts = Coalescer::new(POLICY, 1 << 16);
        let now = Instant::now();
        let (_reader, mut guard) = missed(&texts, now);
        assert!(guard.begin());
        let Found::Missed(_other_reader, mut other) = texts.find(&1, now) else {
            panic!("nothing was asked for yet")
        };
        assert!(other.begin());

        assert_eq!(purge(&texts, now).fetches, 1);
        assert!(matches!(texts.find(&0, now), Found::Missed(..)));
        assert!(matches!(texts.find(&1, now), Found::Joined(_)));
    }
}

#[test]
fn the_fastest_reader_goes_on_without_those_that_do_not_keep_pace() {
    let texts = Coalescer::new(POLICY, 16);
    let now = Instant::now();
    let (mut fast, mut guard) = missed(&texts, now);
    let Found::Joined(slow) = texts.find(&0, now) else {
        panic!("the flight can be joined")
    };
    assert!(guard.begin());
    guard.append("a text of the window's".into());
    while let Read::Chunk(_) = fast.read() {}
    assert!(!guard.keeps_pace(1));
    guard.append(" size".into());
    assert!(matches!(slow.peek(), Read::Chunk(_)));

    guard.leave_laggards();
    assert!(matches!(slow.peek(), Read::FellBehind { .. }));
    while let Read::Chunk(_) = fast.read() {}
    assert!(guard.keeps_pace(1));
}

#[test]
fn a_refresh_compares_with_the_old_text_whatever_the_capacity() {
    let policy = Policy {
        capacity: 2000,
        ..POLICY
    };
    let texts = Coalescer::new(policy, 1 << 16);
    let now = Instant::now();
    let (_reader, mut guard) = missed(&texts, now);
    assert!(guard.begin() && guard.reserve(600));
    guard.append(vec![b'x'; 600].into());
    assert!(guard.land(Verdict::Keep, now));

    let later = now + HOUR;
    let Found::Stale(_, Some(mut refresh)) = texts.find(&0, later) else {
        panic!("it is stale")
    };
    assert!(refresh.begin() && refresh.reserve(500));
    assert_eq!(refresh.replaces().map(Poem::len), Some(600));
    refresh.fail(Error::Abandoned, CacheFailure::No, later);

    let Found::Stale(mut reader, None) = texts.find(&0, later) else {
        panic!("the refresh is paused, and the text is still there")
    };
    assert!(matches!(reader.read(), Read::Chunk(bytes) if bytes.len() == 600));
}

#[test]
fn a_text_without_room_passes_through_uncounted() {
    let policy = Policy {
        capacity: 1000,
        ..POLICY
    };
    let texts = Coalescer::new(policy, 1 << 16);
    let now = Instant::now();
    let (_reader, mut guard) = missed(&texts, now);
    assert!(guard.begin());

    guard.reserve_or_pass(2000, 1 << 16, now);
    assert!(!guard.is_keeping() && guard.unaccounted().is_some());
    let (_, next) = missed(&texts, now);
    assert!(next.is_keeping(), "its key is free");
}

#[test]
fn a_text_that_passes_through_counts_until_it_is_read() {
    let policy = Policy {
        capacity: 10_000,
        ..POLICY
    };
    let now = Instant::now();
    for (why, longest) in [("no room", 1 << 16), ("too long", 7000)] {
        let texts = Coalescer::new(policy, 1 << 16);
        let (reader, mut guard) = missed(&texts, now);
        assert!(guard.begin() && guard.reserve(6000));
        guard.append(vec![b'x'; 6000].into());

        guard.reserve_or_pass(20_000, longest, now);
        assert!(!guard.is_keeping(), "{why}");
        assert!(texts.cache().held() >= 6000, "{why}");
        guard.append(vec![b'x'; 20_000].into());
        assert!(!guard.land(Verdict::Keep, now), "{why}");
        assert!(texts.cache().held() >= 6000, "{why}: it is still read");
        drop(reader);
        assert!(texts.cache().held() < 6000, "{why}");
    }
}

#[test]
fn a_refused_fetch_holds_nothing_for_its_readers() {
    let texts = Coalescer::new(POLICY, 1 << 16);
    let now = Instant::now();
    let (mut reader, guard) = missed(&texts, now);
    guard.refuse(Error::Abandoned, now);
    assert_eq!(texts.cache().held(), 0);
    assert!(matches!(reader.read(), Read::Failed(_)));

    let (mut reader, guard) = missed(&texts, now);
    guard.fail(Error::Abandoned, CacheFailure::No, now);
    assert!(texts.cache().held() > 0, "its reader has a flight");
    assert!(matches!(reader.read(), Read::Failed(_)));
    drop(reader);
    assert_eq!(texts.cache().held(), 0);
}

#[test]
fn a_purge_spares_a_flight_whose_client_has_not_joined_yet() {
    let texts = Coalescer::<u8>::new(POLICY, 1 << 16);
    let (_writer, flight) = texts.launch();
    assert!(!flight.has_begun(), "as a purge on another thread sees it");
    assert!(flight.join().is_some());
}

#[test]
fn what_a_fetch_brings_is_kept_for_times_of_its_own() {
    let texts = Coalescer::new(POLICY, 1 << 16);
    let now = Instant::now();
    let times = KeepTimes {
        ttl: HOUR / 2,
        grace: HOUR / 4,
        fail_ttl: HOUR,
    };
    let (_reader, mut guard) = missed(&texts, now);
    guard.set_times(times);
    guard.begin();
    guard.append("text".into());
    guard.land(Verdict::Keep, now);

    let Found::Hit(_, freshness) = texts.find(&0, now) else {
        panic!("it was kept")
    };
    assert_eq!(freshness, times.freshness(now));
    assert_eq!(texts.purge_all(Purge::Soft, now).texts, 1);
    let late = now + HOUR / 4;
    let just_before = late - Duration::from_nanos(1);
    assert!(matches!(texts.find(&0, just_before), Found::Stale(..)));

    let (_reader, mut guard) = missed(&texts, late);
    guard.set_times(times);
    guard.begin();
    let subject = "a.invalid".to_string();
    guard.fail(Error::Empty { subject }, CacheFailure::Yes, late);
    let end = late + HOUR;
    let just_before = end - Duration::from_nanos(1);
    assert!(matches!(texts.find(&0, just_before), Found::Negative(_)));
    missed(&texts, end);
}

/// A text of this length that has expired, and the fetch that finds it so.
fn expired(texts: &Coalescer<u8>, length: usize) -> (Reader, FlightGuard<u8>) {
    let now = Instant::now();
    let (_, mut guard) = missed(texts, now);
    guard.append(vec![b'x'; length].into());
    assert!(guard.land(Verdict::Keep, now));
    missed(texts, now + 3 * HOUR)
}

#[test]
fn a_fetch_holds_the_expired_text_only_where_that_is_wanted() {
    let texts = Coalescer::new(POLICY, 1 << 16);
    let (_reader, guard) = expired(&texts, 1000);
    assert!(guard.outdated().is_none());

    let texts = Coalescer::new(POLICY, 1 << 16).holding_outdated();
    let (reader, mut guard) = expired(&texts, 1000);
    assert_eq!(guard.outdated().map(Poem::len), Some(1000));
    assert!(guard.replaces().is_none(), "it is served to none");
    assert!(texts.cache().held() > 1000, "it counts");

    guard.drop_outdated();
    assert!(texts.cache().held() < 1000 + crate::cache::FLIGHT_WEIGHT);
    drop((reader, guard));
    assert_eq!(texts.cache().held(), 0);
}

#[test]
fn an_expired_text_that_takes_much_of_the_capacity_is_not_held() {
    let texts = Coalescer::new(POLICY, 1 << 20).holding_outdated();
    let (_reader, guard) = expired(&texts, 300_000);
    assert!(guard.outdated().is_none());
    assert!(texts.cache().held() < 10_000);
}
