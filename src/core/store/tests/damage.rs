//! What does damage cost?

use super::*;
use crate::store::files::beside;

/// The store with these bytes, and what was told: a text is right or missing.
fn assert_right_or_missing(site: &StoreSite, bytes: &[u8], what: &str) {
    for suffix in ["", "-wal", "-shm", ".damaged", ".damaged-wal"] {
        let _absent = std::fs::remove_file(beside(&site.path(), suffix));
    }
    std::fs::write(site.path(), bytes).expect("written");
    assert_texts_right_or_missing(site, what);
}

fn assert_texts_right_or_missing(site: &StoreSite, what: &str) {
    let Ok(store) = site.try_open() else {
        return; // it is told that this is no store
    };
    for (key, text) in [("a", b"one"), ("b", b"two")] {
        let found = get(&store, key);
        let is_right = found
            .as_ref()
            .is_none_or(|(found, is_fresh)| found == text && *is_fresh);
        assert!(is_right, "{what}: {key}: {found:?}");
    }
    if store.counts().is_open {
        put(&store, "new", b"new"); // else it is of a newer version now
    }
    assert!(block_on(store.close(LONG)), "{what}");
}

/// A store of two texts, and its bytes.
fn two_texts() -> (StoreSite, Vec<u8>) {
    let site = StoreSite::in_memory();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    let bytes = site.bytes();
    (site, bytes)
}

#[test]
fn any_flipped_bit_costs_at_most_texts() {
    let (site, bytes) = two_texts();
    let in_use = (0..bytes.len()).filter(|at| bytes[*at] != 0);
    for (at, bit) in in_use.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        assert_right_or_missing(&site, &damaged, &format!("bit {bit} of byte {at}"));
    }
}

#[test]
fn a_zeroed_page_costs_at_most_texts() {
    let (site, bytes) = two_texts();
    for page in 0..bytes.len() / 8192 {
        let mut damaged = bytes.clone();
        damaged[page * 8192..][..8192].fill(0);
        assert_right_or_missing(&site, &damaged, &format!("page {page}"));
    }
}

#[test]
fn a_file_that_is_cut_costs_at_most_texts() {
    let (site, bytes) = two_texts();
    for length in (0..bytes.len()).step_by(131).chain(1..110) {
        assert_right_or_missing(&site, &bytes[..length], &format!("cut at {length}"));
    }
}

#[test]
fn a_log_that_is_cut_or_damaged_costs_at_most_texts() {
    let site = StoreSite::in_memory();
    let store = site.open();
    put(&store, "a", b"one");
    wait_for_written(&store, 1);
    put(&store, "b", b"two");
    wait_for_written(&store, 2);
    let log = beside(&site.path(), "-wal");
    let (bytes, log_bytes) = (site.bytes(), std::fs::read(&log).expect("a log"));
    assert!(block_on(store.close(LONG)));

    let with_log = |log_bytes: &[u8], what: &str| {
        let again = StoreSite::in_memory();
        std::fs::write(beside(&again.path(), "-wal"), log_bytes).expect("written");
        std::fs::write(again.path(), &bytes).expect("written");
        assert_texts_right_or_missing(&again, what);
    };
    for length in (0..log_bytes.len()).step_by(613) {
        with_log(&log_bytes[..length], &format!("log cut at {length}"));
    }
    for at in (0..log_bytes.len())
        .filter(|at| log_bytes[*at] != 0)
        .step_by(7)
    {
        let mut damaged = log_bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        with_log(&damaged, &format!("bit of byte {at} of the log"));
    }
}

#[test]
fn a_damaged_text_is_told_and_costs_no_other() {
    let site = StoreSite::new();
    site.keep(&[("a", b"a text of some length"), ("b", b"two")]);
    let mut bytes = site.bytes();
    let is_text = |part: &[u8]| part == b"a text of some length";
    let at = bytes.windows(21).position(is_text).expect("it is there");
    bytes[at] ^= 1;
    std::fs::write(site.path(), &bytes).expect("written");

    assert_eq!(site.get("a"), None);
    assert!(site.told.has("store_damaged_text"));
    assert_eq!(site.get("b"), Some((b"two".to_vec(), true)));
}

#[test]
fn a_damaged_file_is_put_aside() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    let mut bytes = site.bytes();
    bytes[100..8192].fill(0xff);
    std::fs::write(site.path(), &bytes).expect("written");

    assert_eq!(site.get("a"), None);
    assert!(site.told.has("store_damaged "), "{:?}", site.told.0);
    assert_eq!(
        std::fs::read(beside(&site.path(), ".damaged")).expect("aside"),
        bytes
    );
    site.keep(&[("a", b"again")]);
    assert_eq!(site.get("a"), Some((b"again".to_vec(), true)));
}
