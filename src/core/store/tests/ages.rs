//! Is a text there after a restart, and how old is it?

use super::*;

#[test]
fn a_text_is_there_after_a_restart() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two"), ("a", b"three")]);
    assert_eq!(site.get("a"), Some((b"three".to_vec(), true)));
    assert_eq!(site.get("b"), Some((b"two".to_vec(), true)));
    assert_eq!(site.get("c"), None);
    assert!(site.told.has("store_open 2 poems"));
}

#[test]
fn a_text_keeps_its_age_over_a_restart_whatever_the_clock_says() {
    let site = StoreSite::new();
    site.keep(&[("a", b"text")]);

    site.clocks.pass(9 * MINUTE_MS);
    for set in [60 * MINUTE_MS, -120 * MINUTE_MS, 60 * MINUTE_MS] {
        site.clocks.set_wall(set);
        assert_eq!(site.get("a"), Some((b"text".to_vec(), true)));
    }
    site.clocks.pass(MINUTE_MS);
    assert_eq!(site.get("a"), Some((b"text".to_vec(), false)), "stale");
    site.clocks.pass(10 * MINUTE_MS);
    assert_eq!(site.get("a"), None, "past its grace");
}

#[test]
fn a_text_keeps_its_age_over_a_start_of_the_machine() {
    let site = StoreSite::new();
    site.keep(&[("a", b"text")]);
    site.clocks.reboot();
    site.clocks.pass(9 * MINUTE_MS);
    assert_eq!(site.get("a"), Some((b"text".to_vec(), true)));

    site.clocks.set_wall(-10 * MINUTE_MS);
    assert_eq!(site.get("a"), None, "before its end");
    site.clocks.set_wall(11 * MINUTE_MS);
    assert_eq!(site.get("a"), Some((b"text".to_vec(), false)));
}

#[test]
fn texts_past_their_ttl_are_told_at_the_start() {
    let site = StoreSite::new();
    site.keep(&[("a", b"1"), ("b", b"2")]);
    site.clocks.pass(11 * MINUTE_MS);
    site.keep(&[("c", b"3"), ("d", b"4"), ("e", b"5")]);
    site.clocks.pass(MINUTE_MS);
    site.run(|_| ());
    assert!(site.told.has("store_open 5 poems"), "{:?}", site.told.0);
    assert!(site.told.has(" 2 past their ttl"), "{:?}", site.told.0);
}

#[test]
fn texts_of_many_sizes_come_back_as_they_were() {
    let site = StoreSite::new();
    let sizes = [1, 8100, 8191, 8192, 8193, 65_025, 1 << 20, 3 << 20];
    let text = |size: usize| -> Vec<u8> { (0..size).map(|at| (at ^ (at >> 9)) as u8).collect() };
    site.run(|store| {
        for size in sizes {
            put(store, &size.to_string(), &text(size));
        }
    });
    for size in sizes {
        let found = site.get(&size.to_string()).expect("it is kept");
        assert!(found.0 == text(size), "{size}");
    }
}

#[test]
fn a_text_with_a_ttl_of_its_own_keeps_it_within_what_this_run_allows() {
    let site = StoreSite::new();
    site.run(|store| {
        put_for(store, "short", b"text", Some(MINUTE));
        put_for(store, "long", b"text", Some(15 * MINUTE));
        put_for(store, "longer", b"text", Some(600 * MINUTE));
    });
    let is_fresh = |key| site.get(key).expect("it is kept").1;
    site.clocks.pass(2 * MINUTE_MS);
    assert!(!is_fresh("short") && is_fresh("long") && is_fresh("longer"));
    site.clocks.pass(10 * MINUTE_MS);
    assert!(is_fresh("long") && is_fresh("longer"));
    assert_eq!(site.get("short"), None);
    site.clocks.pass(8 * MINUTE_MS);
    assert!(!is_fresh("long") && !is_fresh("longer"));
}
