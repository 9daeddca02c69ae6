//! Is a text found by the original that it was made from?

use super::*;

const ORIGINAL: OriginalDigest = [7; 32];

fn put_made(store: &Store, key: &str, text: &[u8], original: OriginalDigest) {
    let claim = block_on(store.claim(question(key, Wish::Newer)));
    let Claim::Lead(mut lease) = claim else {
        panic!("no lease")
    };
    lease.made_from(original);
    lease.fence();
    lease.commit(text.to_vec().into(), None);
}

fn made_from(store: &Store, original: OriginalDigest) -> Option<Vec<u8>> {
    let found = block_on(store.made_from(original))?;
    Some(found.text.to_vec())
}

/// A store of one transformed text, and one that is not.
fn site() -> StoreSite {
    let site = StoreSite::new();
    site.run(|store| {
        put_made(store, "a", b"ONE", ORIGINAL);
        put(store, "b", b"two");
    });
    site
}

#[test]
fn a_text_is_found_by_its_original_however_old_it_is() {
    let site = site();
    site.clocks.pass(100 * MINUTE_MS);
    site.clocks.reboot();
    site.run(|store| {
        assert_eq!(made_from(store, ORIGINAL), Some(b"ONE".to_vec()));
        assert_eq!(made_from(store, [0; 32]), None);
        assert_eq!(get(store, "a"), None, "it is past its grace");
        put_made(store, "a", b"OTHER", [8; 32]);
        wait_for_written(store, 1);
        assert_eq!(made_from(store, ORIGINAL), None, "it was replaced");
    });
}

#[test]
fn the_newest_of_several_is_found() {
    let site = site();
    site.run(|store| {
        put_made(store, "c", b"NEWER", ORIGINAL);
        wait_for_written(store, 1);
        assert_eq!(made_from(store, ORIGINAL), Some(b"NEWER".to_vec()));
    });
}

#[test]
fn what_is_purged_is_not_found_by_its_original_and_what_comes_later_is() {
    let purges: [(fn() -> Erase, Purge); 4] = [
        (|| Erase::All, Purge::Soft),
        (|| Erase::All, Purge::Hard),
        (|| Erase::Key(b"a".to_vec()), Purge::Hard),
        // Another text may be of the same original: it is not asked which.
        (|| Erase::Picked(Box::new(|key| key == b"b")), Purge::Soft),
    ];
    for (texts, how) in purges {
        let site = site();
        site.run(|store| {
            store.purge_begins();
            assert_eq!(made_from(store, ORIGINAL), None, "nothing is certain");
            store.purge(texts(), how);
            assert_eq!(made_from(store, ORIGINAL), None);
            put_made(store, "a", b"ONE!", ORIGINAL);
            wait_for_written(store, 1);
            assert_eq!(made_from(store, ORIGINAL), Some(b"ONE!".to_vec()));
        });
    }
}

#[test]
fn a_text_whose_original_was_changed_in_the_file_is_not_used() {
    let site = site();
    let mut bytes = site.bytes();
    let places: Vec<usize> = (0..bytes.len() - 32)
        .filter(|at| bytes[*at..][..32] == ORIGINAL)
        .collect();
    assert_eq!(places.len(), 2, "in its row, and in the index");
    places.iter().for_each(|at| bytes[at + 3] = 9);
    std::fs::write(site.path(), bytes).expect("written");

    let mut other = ORIGINAL;
    other[3] = 9;
    site.run(|store| assert_eq!(made_from(store, other), None));
    assert!(site.told.has("store_damaged_text"));
}
