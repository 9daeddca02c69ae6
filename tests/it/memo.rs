//! An original that has not changed is not transformed again.

use crate::support::{
    Builder, FakeUpstream, HOUR, ProxyParts, RESET, Service, ZERO, proxy, text, wait_for_count,
};
#[cfg(feature = "store")]
use crate::support::{Folder, wait_until};
use poetry::cache::Purge;
use poetry::control::{Control, Texts};
use std::time::{Duration, Instant};

/// Longer than any text is kept.
const LATER: Duration = Duration::from_secs(3 * 3600);

fn shouting(upstream: &FakeUpstream) -> Builder<ProxyParts> {
    proxy(upstream).line().ttl(HOUR).transform(&["shout"])
}

/// Lets a request be fetched, as one that comes after `time`, and returns what it gets.
fn fetched(
    proxy: &Service,
    upstream: &FakeUpstream,
    name: &str,
    poem: &str,
    time: Duration,
) -> String {
    let now = Instant::now() + time;
    let answer = proxy.ask_at(name.as_bytes(), now);
    assert!(answer.is_miss(), "{name}");
    upstream
        .accept()
        .skip(name.len() + 2)
        .send(poem.as_bytes())
        .close();
    text(&answer.read())
}

/// Transformations done, and those that were not needed.
fn transforms(proxy: &Service) -> (u64, u64) {
    let transforms = proxy.snapshot().transforms;
    (transforms.done, transforms.known)
}

#[test]
fn a_text_that_was_fetched_again_and_has_not_changed_is_not_transformed_again() {
    let upstream = FakeUpstream::new();
    let proxy = shouting(&upstream).start();
    for turn in 0..3 {
        assert_eq!(fetched(&proxy, &upstream, "a", "one", LATER), "ONE");
        assert_eq!(transforms(&proxy), (1, turn));
    }
    assert_eq!(fetched(&proxy, &upstream, "a", "two", LATER), "TWO");
    assert_eq!(transforms(&proxy), (2, 2));
    assert_eq!(fetched(&proxy, &upstream, "a", "two", LATER), "TWO");
    assert_eq!(transforms(&proxy), (2, 3));
}

#[test]
fn a_long_text_is_not_transformed_again_either() {
    let upstream = FakeUpstream::new();
    let proxy = shouting(&upstream).start();
    let poem = "a line of some length\n".repeat(20_000);
    for turn in 0..2 {
        let got = fetched(&proxy, &upstream, "a", &poem, LATER);
        assert!(got == poem.to_uppercase());
        assert_eq!(transforms(&proxy), (1, turn));
    }
}

#[test]
fn a_refresh_within_the_grace_asks_the_service_only_if_the_original_has_changed() {
    let (upstream, service) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = proxy(&upstream).ttl(ZERO).grace(HOUR);
    let proxy = proxy.via(service.addr, &["x"]).start();
    let transform = |request: &[u8], reply: &[u8]| {
        let (connection, asked) = service.accept().read(request.len());
        assert_eq!(asked, request);
        connection.send(reply).close();
    };
    let mut client = proxy.connect();
    upstream.serve_once(b"one");
    transform(b"5:x.one,", b"3:ONE,");
    assert_eq!(client.rest().unwrap(), b"ONE");

    for refreshed in 2..4 {
        wait_for_count("kept", &proxy.stats.kept, refreshed - 1);
        assert_eq!(proxy.get().unwrap(), b"ONE");
        upstream.serve_once(b"one");
        wait_for_count("kept", &proxy.stats.kept, refreshed);
    }
    assert_eq!(service.connections(), 1);
    assert_eq!(transforms(&proxy), (1, 2));

    proxy.get().unwrap();
    upstream.serve_once(b"two!");
    transform(b"6:x.two!,", b"4:TWO!,");
    wait_for_count("kept", &proxy.stats.kept, 4);
    assert_eq!(proxy.get().unwrap(), b"TWO!");
}

#[test]
fn another_name_with_the_same_original_needs_no_transformation() {
    let upstream = FakeUpstream::new();
    let proxy = shouting(&upstream).start();
    for name in ["a", "b", "c"] {
        assert_eq!(fetched(&proxy, &upstream, name, "text", ZERO), "TEXT");
    }
    assert_eq!(transforms(&proxy), (1, 2));
}

#[test]
fn what_failed_is_tried_again() {
    let upstream = FakeUpstream::new();
    let fails = proxy(&upstream).transform(&["shout"]).start();
    for failures in 1..3 {
        let mut client = fails.connect();
        upstream.serve_once(b"\xff");
        assert_eq!(client.rest(), RESET);
        assert_eq!(fails.snapshot().transforms.failed, failures);
    }

    let original = proxy(&upstream).transform(&["shout"]).original_on_failure();
    let original = original.start();
    for failures in 1..3 {
        let mut client = original.connect();
        upstream.serve_once(b"\xff");
        assert_eq!(client.rest().unwrap(), b"\xff");
        assert_eq!(original.snapshot().transforms.failed, failures);
    }
    assert_eq!(transforms(&original), (0, 0));
}

#[test]
fn purged_texts_are_transformed_anew() {
    let upstream = FakeUpstream::new();
    let proxy = shouting(&upstream).start();
    let get = |name: &str| fetched(&proxy, &upstream, name, "text", LATER);
    get("a");
    get("b");
    assert_eq!(transforms(&proxy), (1, 1));

    let purges = [
        (Texts::All, Purge::Soft),
        (Texts::Prefix(b"a"), Purge::Hard),
        (Texts::Named(b"a"), Purge::Soft),
        (Texts::Named(b"a"), Purge::Hard),
    ];
    for (done, (texts, how)) in purges.into_iter().enumerate() {
        proxy.purge(texts, how);
        get("a");
        get("a");
        assert_eq!(transforms(&proxy), (2 + done as u64, 2 + done as u64));
    }
    get("b");
    proxy.purge(Texts::Named(b"a"), Purge::Hard);
    get("b");
    assert_eq!(transforms(&proxy), (5, 7), "the others are spared");

    proxy.reload();
    get("b");
    assert_eq!(transforms(&proxy), (6, 7));
}

#[test]
fn a_text_that_an_operator_asks_for_is_transformed_anew() {
    let upstream = FakeUpstream::new();
    let proxy = shouting(&upstream).start();
    fetched(&proxy, &upstream, "a", "text", ZERO);
    proxy.proxy().refresh(b"a", Instant::now());
    upstream.accept().skip(3).send(b"text").close();
    wait_for_count("kept", &proxy.stats.kept, 2);
    assert_eq!(transforms(&proxy), (2, 0));
}

#[test]
fn a_purge_during_a_transformation_keeps_its_result_from_being_used() {
    let (upstream, service) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = proxy(&upstream).via(service.addr, &["x"]).start();
    let mut first = proxy.connect();
    upstream.serve_once(b"one");
    let (connection, _) = service.accept().read(8);
    proxy.purge(Texts::All, Purge::Soft);
    connection.send(b"3:old,").close();
    assert_eq!(first.rest().unwrap(), b"old");

    let mut second = proxy.connect();
    upstream.serve_once(b"one");
    service.accept().skip(8).send(b"3:new,").close();
    assert_eq!(second.rest().unwrap(), b"new");
    assert_eq!(transforms(&proxy), (2, 0));
}

#[test]
fn the_notes_count_within_the_capacity_and_evict_no_more_than_their_part() {
    let upstream = FakeUpstream::new();
    let capacity = 256 << 10;
    let proxy = shouting(&upstream).capacity(capacity).start();
    upstream.serve_each(|_, connection| {
        let (connection, name) = connection.read(6);
        connection.send(&name).close();
    });
    let ask = |number: usize| {
        let name = format!("{number:04}\r\n");
        assert_eq!(proxy.ask(name.as_bytes()).unwrap(), name.as_bytes());
        let cache = proxy.snapshot().cache.unwrap();
        assert!(cache.bytes <= capacity, "{cache:?}");
        cache
    };
    for number in 0..3000 {
        ask(number);
    }
    let cache = ask(3000);
    assert!(cache.evicted_kept > 0);
    assert!(
        cache.bytes > capacity / 2 && cache.kept.0 > 1000,
        "{cache:?}"
    );
}

#[test]
fn a_text_for_which_there_is_no_room_beside_its_expired_one_replaces_it() {
    let upstream = FakeUpstream::new();
    let proxy = shouting(&upstream).capacity(64 << 10).start();
    let poem = |letter: &str| letter.repeat(45_000);
    for (turn, letter) in ["a", "b", "b", "c"].into_iter().enumerate() {
        let got = fetched(&proxy, &upstream, "a", &poem(letter), LATER);
        assert!(got == poem(letter).to_uppercase());
        wait_for_count("kept", &proxy.stats.kept, turn as u64 + 1);
    }
}

#[cfg(feature = "store")]
fn wait_for_written(proxy: &Service, texts: u64) {
    wait_until("it is written", || proxy.store().written == texts);
}

#[cfg(feature = "store")]
#[test]
fn with_a_store_an_original_is_known_after_a_restart_even_if_its_text_is_too_old() {
    let folder = Folder::new();
    let upstream = FakeUpstream::new();
    let path = folder.path("poems");
    let short = || {
        shouting(&upstream)
            .ttl(Duration::from_millis(1))
            .store(&path)
    };
    let first = short().start();
    assert_eq!(fetched(&first, &upstream, "a", "text", ZERO), "TEXT");
    wait_for_written(&first, 1);
    first.stop_and_close();

    let second = short().start();
    for name in ["a", "b"] {
        assert_eq!(fetched(&second, &upstream, name, "text", ZERO), "TEXT");
    }
    assert_eq!(transforms(&second), (0, 2));
    second.stop_and_close();
}

#[cfg(feature = "store")]
#[test]
fn with_a_store_purged_texts_are_transformed_anew_also_after_a_restart() {
    let purges: [fn(&Service); 3] = [
        |proxy| proxy.purge(Texts::All, Purge::Soft),
        |proxy| proxy.purge(Texts::Prefix(b"a"), Purge::Hard),
        |proxy| proxy.purge(Texts::Named(b"a"), Purge::Hard),
    ];
    for purge in purges {
        let folder = Folder::new();
        let upstream = FakeUpstream::new();
        let path = folder.path("poems");
        let first = shouting(&upstream).store(&path).start();
        fetched(&first, &upstream, "a", "text", ZERO);
        fetched(&first, &upstream, "b", "text", ZERO);
        wait_for_written(&first, 2);
        purge(&first);
        fetched(&first, &upstream, "a", "text", LATER);
        assert_eq!(transforms(&first), (2, 1));
        first.purge(Texts::All, Purge::Hard);
        first.stop_and_close();

        let second = shouting(&upstream).store(&path).start();
        fetched(&second, &upstream, "a", "text", ZERO);
        assert_eq!(transforms(&second), (1, 0));
        second.stop_and_close();
    }
}
