//! Pieces of poems, short and long.

use super::*;
use crate::cache::{Cache, Lookup, Policy};
use std::time::{Duration, Instant};

fn long() -> Poem {
    let piece = |byte| Bytes::from(vec![byte; SHORT]);
    Poem::from_pieces(vec![piece(b'a'), piece(b'b'), piece(b'c')])
}

#[test]
fn packed_bytes_have_no_spare_capacity() {
    let mut collected = Vec::with_capacity(2048);
    collected.extend_from_slice(&[b'x'; 1034]);
    assert_eq!(Vec::from(packed(collected)).capacity(), 1034);
}

#[test]
fn a_short_poem_is_one_piece() {
    let poem = Poem::from("once");
    assert_eq!(poem.piece(0), Some(&b"once"[..]));
    assert_eq!(poem.piece(1), None);
    assert!(poem.is_last(0));
    assert_eq!(poem.pieces(), ["once"]);
    assert!(!poem.is_empty());
}

#[test]
fn an_empty_poem_has_no_piece() {
    let poem = Poem::from("");
    assert_eq!(poem.piece(0), None);
    assert!(poem.pieces().is_empty());
    assert!(poem.is_empty());
}

#[test]
fn the_pieces_of_a_long_poem_come_in_order() {
    let poem = long();
    let firsts: Vec<u8> = (0..3).map(|at| poem.piece(at).unwrap()[0]).collect();
    assert_eq!(firsts, b"abc");
    assert_eq!(poem.piece(3), None);
    assert_eq!([0, 1, 2].map(|at| poem.is_last(at)), [false, false, true]);
    assert!(!poem.is_empty());
}

#[test]
fn only_a_poem_of_at_most_4_kib_is_copied() {
    for (length, is_copied) in [(SHORT, true), (SHORT + 1, false)] {
        let bytes = Bytes::from(vec![b'x'; length]);
        let poem = Poem::from(bytes.clone());
        let is_shared = poem.piece(0).unwrap().as_ptr() == bytes.as_ptr();
        assert_eq!(is_shared, !is_copied);
    }
}

#[test]
fn a_poem_is_cut_from_one_that_begins_with_it_and_goes_on() {
    let whole = Poem::from("once upon");
    assert!(Poem::from("once").is_cut_from(&whole));
    assert!(!Poem::from("upon").is_cut_from(&whole));
    assert!(!whole.is_cut_from(&whole));
    assert!(!Poem::from("once upon a time").is_cut_from(&whole));
}

#[test]
fn a_cached_poem_counts_until_its_last_clone_is_dropped() {
    for poem in [Poem::from("once"), long()] {
        let cache: std::sync::Arc<Cache<u32, Poem, u32>> = Cache::new(Policy {
            ttl: Duration::from_secs(60),
            grace: Duration::ZERO,
            fail_ttl: Duration::ZERO,
            capacity: 1 << 20,
        });
        let now = Instant::now();
        let Lookup::Miss(lead) = cache.lookup(&1, now, || ((), 0)) else {
            panic!("nothing is cached");
        };
        let (length, first) = (poem.len(), poem.clone());
        let freshness = lead.fill.freshness(now);
        assert!(lead.fill.commit(poem, length, freshness, now).is_ok());

        let Lookup::Hit(served, _) = cache.lookup(&1, now, || ((), 0)) else {
            panic!("it was kept");
        };
        assert!(served.reservation().is_some());
        let is_shared = served.piece(0).map(<[u8]>::as_ptr) == first.piece(0).map(<[u8]>::as_ptr);
        assert_eq!(is_shared, length > SHORT as u64);
        cache.remove(&1, crate::cache::Purge::Hard, now, |_| false);
        assert!(cache.held() >= length, "it may still be sent");
        drop(served);
        assert_eq!(cache.held(), 0);
    }
}
