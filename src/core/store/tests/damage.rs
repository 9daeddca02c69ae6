//! What does damage cost?

use super::*;
use crate::store::files::beside;

/// The store with these bytes, and what was told: a text is right or missing.
fn assert_right_or_missing(site: &StoreSite, bytes: &[u8], what: &str) -> bool {
    for suffix in ["", "-wal", "-shm", ".damaged", ".damaged-wal"] {
        let _absent = std::fs::remove_file(beside(&site.path(), suffix));
    }
    std::fs::write(site.path(), bytes).expect("written");
    let Ok(store) = site.try_open() else {
        return false; // it is told that this is no store
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
    assert!(store.close(LONG), "{what}");
    true
}

#[test]
fn any_flipped_bit_costs_at_most_texts() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    let bytes = site.bytes();
    // Each bit would take minutes; in use is what is not zero.
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for (turn, at) in used.iter().enumerate().step_by(7) {
        let mut damaged = bytes.clone();
        damaged[*at] ^= 1 << (turn / 7 % 8);
        assert_right_or_missing(&site, &damaged, &format!("bit of byte {at}"));
    }
}

#[test]
fn a_file_that_is_cut_costs_at_most_texts() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    let bytes = site.bytes();
    for length in (0..bytes.len()).step_by(1009).chain(1..100) {
        assert_right_or_missing(&site, &bytes[..length], &format!("cut at {length}"));
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
