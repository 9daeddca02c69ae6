//! Does a purged text stay away?

use super::*;

#[test]
fn a_hard_purge_of_all_leaves_nothing() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    site.run(|store| {
        put(store, "c", b"on its way");
        store.purge_begins();
        store.purge(Erase::All, Purge::Hard);
        assert_eq!(get(store, "a"), None);
        put(store, "d", b"new");
    });
    for key in ["a", "b", "c"] {
        assert_eq!(site.get(key), None, "{key}");
    }
    assert_eq!(site.get("d"), Some((b"new".to_vec(), true)));
}

#[test]
fn a_soft_purge_of_all_leaves_stale_texts_for_the_grace() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    site.run(|store| {
        store.purge_begins();
        store.purge(Erase::All, Purge::Soft);
        assert_eq!(get(store, "a"), Some((b"one".to_vec(), false)));
        put(store, "b", b"new");
    });
    assert_eq!(site.get("a"), Some((b"one".to_vec(), false)));
    assert_eq!(site.get("b"), Some((b"new".to_vec(), true)));

    site.clocks.pass(10 * MINUTE_MS);
    assert_eq!(site.get("a"), None);
    assert_eq!(site.get("b"), Some((b"new".to_vec(), false)));
}

#[test]
fn a_purge_of_some_spares_the_others() {
    let site = StoreSite::new();
    site.keep(&[("a", b"1"), ("ab", b"2"), ("b", b"3"), ("c", b"4")]);
    site.run(|store| {
        store.purge_begins();
        store.purge(Erase::Key(b"c".to_vec()), Purge::Soft);
        store.purge_begins();
        let picks = |key: &[u8]| key.starts_with(b"a");
        store.purge(Erase::Picked(Box::new(picks)), Purge::Hard);
    });
    let left: Vec<&str> = ["a", "ab", "b", "c"]
        .into_iter()
        .filter(|key| site.get(key).is_some())
        .collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn a_text_that_lands_during_a_purge_is_not_written() {
    let site = StoreSite::new();
    site.run(|store| {
        let Claim::Lead(mut lease) = block_on(store.claim(question("a", Wish::Text))) else {
            panic!("no lease")
        };
        lease.fence();
        store.purge_begins();
        assert_eq!(get(store, "a"), None, "in the middle of it, all is missing");
        store.purge(Erase::All, Purge::Hard);
        lease.commit(b"old".to_vec().into(), None);
    });
    assert_eq!(site.get("a"), None);
}

#[test]
fn a_copy_from_before_a_purge_is_not_current() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    site.run(|store| {
        let Claim::Found(found) = block_on(store.claim(question("a", Wish::Text))) else {
            panic!("not found")
        };
        assert!(store.is_current(found.epoch));
        store.purge_begins();
        assert!(!store.is_current(found.epoch));
        store.purge(Erase::Key(b"b".to_vec()), Purge::Hard);
        assert!(!store.is_current(found.epoch));
    });
}
