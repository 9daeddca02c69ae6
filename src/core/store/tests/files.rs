//! Is the file ours, and may it be used?

use super::*;
use crate::store::database::FORMAT;

#[test]
fn a_second_user_is_refused_and_the_first_goes_on() {
    let site = StoreSite::new();
    site.run(|store| {
        let error = site.try_open().err().expect("it is in use").to_string();
        assert!(
            error.ends_with("poems: in use by another process"),
            "{error}"
        );
        put(store, "a", b"one");
    });
    assert_eq!(site.get("a"), Some((b"one".to_vec(), true)));
}

#[test]
fn a_file_that_is_something_else_is_refused_and_left_alone() {
    let site = StoreSite::new();
    let refused = |bytes: &[u8]| {
        std::fs::write(site.path(), bytes).expect("written");
        let error = site.try_open().err().expect("refused");
        assert_eq!(site.bytes(), bytes);
        error.to_string()
    };
    let error = refused(b"Dear diary,");
    assert!(
        error.ends_with("not a store: --store never overwrites other files"),
        "{error}"
    );

    std::fs::remove_file(site.path()).expect("removed");
    let other = rusqlite::Connection::open(site.path()).expect("a database");
    other.execute_batch("CREATE TABLE t (a)").expect("a table");
    drop(other);
    let error = refused(&site.bytes());
    assert!(error.ends_with("a database of another program"), "{error}");

    std::fs::remove_file(site.path()).expect("removed");
    std::fs::create_dir(site.path()).expect("a folder");
    let error = site.try_open().err().expect("refused").to_string();
    assert!(error.ends_with("a folder; --store wants a file"), "{error}");
}

#[test]
fn a_store_of_a_newer_version_is_left_as_it_is() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    let file = rusqlite::Connection::open(site.path()).expect("a database");
    file.pragma_update(None, "user_version", FORMAT + 1)
        .expect("set");
    drop(file);

    let before = site.bytes();
    site.run(|store| {
        assert!(!store.counts().is_open);
        assert!(matches!(
            block_on(store.claim(question("a", Wish::Text))),
            Claim::Alone
        ));
    });
    assert!(site.told.has("store_newer"));
    assert_eq!(site.bytes(), before);
}

#[test]
fn a_store_that_can_t_be_made_is_an_error_that_names_its_path() {
    let mut settings = StoreSite::new().settings();
    settings.path = "/nonexistent/poems".into();
    let error = OpenStore::open(settings)
        .err()
        .expect("an error")
        .to_string();
    assert_eq!(error, "/nonexistent/poems: its folder does not exist");
}

#[test]
fn a_stopped_store_answers_nothing_and_takes_nothing() {
    let site = StoreSite::new();
    let store = site.open();
    assert!(block_on(store.close(LONG)));
    assert!(matches!(
        block_on(store.claim(question("a", Wish::Text))),
        Claim::Alone
    ));
    store.purge_begins();
    store.purge(Erase::All, Purge::Hard);
}
