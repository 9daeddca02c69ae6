//! Does the bound hold?

use super::*;
use crate::store::files::beside;

fn size_of(path: &Path) -> u64 {
    let size = |suffix| std::fs::metadata(beside(path, suffix)).map_or(0, |file| file.len());
    size("") + size("-wal")
}

#[test]
fn the_capacity_is_never_passed_and_the_oldest_texts_go() {
    let mut site = StoreSite::new();
    site.capacity = 2 << 20;
    let most = site.capacity;
    let store = site.open();
    for turn in 0..400u64 {
        let text = vec![turn as u8; 1000 + (turn as usize * 7919) % 60_000];
        put(&store, &turn.to_string(), &text);
        if turn % 10 == 0 {
            let counts = store.counts();
            wait_for_written(&store, turn + 1 - counts.dropped);
        }
        assert!(size_of(&site.path()) <= most, "{turn}");
    }
    wait_for_written(&store, 400 - store.counts().dropped);
    assert!(get(&store, "399").is_some());
    assert!(get(&store, "0").is_none());
    assert!(block_on(store.close(LONG)));

    site.capacity = 1 << 20;
    site.run(|store| assert!(get(store, "399").is_some()));
    assert!(
        size_of(&site.path()) <= 1 << 20,
        "a lower capacity holds at once"
    );
}

#[test]
fn a_reader_that_stays_costs_texts_but_no_space() {
    let mut site = StoreSite::new();
    site.capacity = 2 << 20;
    let store = site.open();
    put(&store, "first", b"text");
    wait_for_written(&store, 1);

    let reader = rusqlite::Connection::open(site.path()).expect("a reader");
    let count = "BEGIN; SELECT count(*) FROM poems";
    reader.execute_batch(count).expect("a transaction");
    for turn in 0..200 {
        put(&store, &turn.to_string(), &[0; 50_000]);
        std::thread::park_timeout(Duration::from_millis(2));
        assert!(size_of(&site.path()) <= site.capacity * 105 / 100, "{turn}");
    }
    let begun = Instant::now();
    while !site.told.has("store_held") {
        assert!(begun.elapsed() < LONG, "{:?}", store.counts());
        put(&store, "more", &[0; 50_000]);
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert!(size_of(&site.path()) <= site.capacity * 105 / 100);

    drop(reader);
    while !site.told.has("store_writable") {
        assert!(begun.elapsed() < LONG, "{:?}", store.counts());
        put(&store, "last", b"text");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(block_on(store.close(LONG)));
}

#[test]
fn a_text_longer_than_the_log_is_not_kept() {
    let mut site = StoreSite::new();
    site.capacity = 1 << 20;
    site.keep(&[("a", &[1; 300_000]), ("b", b"two")]);
    assert!(site.told.has("store_queue_full"));
    assert_eq!(site.get("a"), None);
    assert_eq!(site.get("b"), Some((b"two".to_vec(), true)));
}
