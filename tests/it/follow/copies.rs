//! Which text is kept, and how long: each proxy decides that for itself.

use super::scene::Scene;
use super::{fleet_counts, wait_for_follows, wait_for_no_lease};
use crate::support::{Builder, Folder, HOUR, ProxyParts, ZERO, count, wait_until};
use poetry::cache::Purge;
use poetry::control::Texts;
use std::time::{Duration, Instant};

#[test]
fn a_copy_expires_its_ttl_after_the_end_of_the_fetch_by_each_proxys_own_ttl() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.ttl(HOUR));
    let b = scene.join_with(|proxy| proxy.ttl(HOUR * 3));

    scene.keep(&a, b"a poem");
    let now = Instant::now();
    let end = now - HOUR / 2;
    scene.set_age(HOUR / 2, now);

    assert_eq!(b.get().unwrap(), b"a poem");
    let just_before = end + HOUR * 3 - Duration::from_millis(1);
    assert!(b.get_at(just_before).is_hit());
    assert!(!b.get_at(end + HOUR * 3).is_hit());
    assert!(!a.get_at(now + HOUR * 2).is_hit(), "its own ttl is shorter");
    assert_eq!(scene.upstream.connections(), 1);
}

#[test]
fn a_copy_in_grace_is_served_at_once_and_refreshed_once() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.grace(HOUR));
    scene.keep(&a, b"old");
    scene.set_age(HOUR + HOUR / 2, Instant::now());

    let b = scene.join_with(|proxy| proxy.grace(HOUR));
    let c = scene.join_with(|proxy| proxy.grace(HOUR));
    assert_eq!(b.get().unwrap(), b"old");
    let sending = scene.upstream.accept().send(b"ne");
    for _ in 0..3 {
        assert_eq!(b.get().unwrap(), b"old");
        assert_eq!(c.get().unwrap(), b"old");
    }
    wait_for_follows(&c, 1);
    sending.send(b"w").close();
    for proxy in [&b, &c] {
        wait_until("it is refreshed", || proxy.get().unwrap() == b"new");
    }
    assert_eq!(scene.upstream.connections(), 2);
    assert_eq!(fleet_counts(&b).leads, 1);
}

#[test]
fn a_copy_older_than_the_grace_is_not_used() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.grace(HOUR));
    scene.keep(&a, b"old");
    scene.set_age(HOUR * 2, Instant::now());

    let b = scene.join_with(|proxy| proxy.grace(HOUR));
    scene.fetch(&b, b"new");
}

#[test]
fn a_proxy_that_keeps_shorter_than_the_fleet_takes_no_copy_that_is_too_old_for_it() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.ttl(HOUR * 9));
    scene.keep(&a, b"old");
    scene.set_age(HOUR, Instant::now());

    // The ttl of its pattern is shorter than the one that the tier knows of.
    let short = [("old", HOUR / 2), ("never", HOUR * 9)];
    let b = scene.join_with(|proxy| proxy.ttl_for(&short, 0.0));
    scene.fetch(&b, b"new");
}

#[test]
fn what_the_holder_rejects_is_passed_on_and_kept_nowhere() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.reject("rate"));
    let b = scene.join();
    let (sending, [mut first, mut second]) = scene.half_way(&a, &b, b"rate ");
    sending.send(b"exceeded").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"exceeded");
    }

    wait_for_no_lease(&scene.fleet);
    assert!(scene.fleet.kept().is_empty());
    wait_until("B keeps nothing", || !b.get_at(Instant::now()).is_hit());
}

#[test]
fn what_the_follower_rejects_is_passed_on_and_not_kept_by_it() {
    let scene = Scene::new();
    let a = scene.join();
    let b = scene.join_with(|proxy| proxy.min_bytes(9));
    let (sending, [mut first, mut second]) = scene.half_way(&a, &b, b"a ");
    sending.send(b"poem").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    wait_until("A keeps it", || a.get_at(Instant::now()).is_hit());
    assert!(!b.get_at(Instant::now()).is_hit());

    // And a copy of it is not used.
    scene.fetch(&b, b"a longer poem");
}

#[test]
fn without_a_ttl_all_get_one_fetch_whole_and_nothing_is_kept() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.ttl(ZERO));
    let b = scene.join_with(|proxy| proxy.ttl(ZERO));
    let (sending, [mut first, mut second]) = scene.half_way(&a, &b, b"a ");
    sending.send(b"poem").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    wait_for_no_lease(&scene.fleet);
    assert!(scene.fleet.kept().is_empty());

    scene.fetch(&b, b"another");
}

#[test]
fn a_refresh_that_brings_a_prefix_is_fetched_twice_and_published_once() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.grace(HOUR));
    let b = scene.join_with(|proxy| proxy.grace(HOUR));
    scene.keep(&a, b"a poem");
    assert_eq!(b.get().unwrap(), b"a poem");

    let late = Instant::now() + HOUR;
    scene.set_age(HOUR, Instant::now());
    assert_eq!(a.get_at(late).read(), b"a poem");
    let sending = scene.upstream.accept().send(b"a po");
    assert_eq!(b.get_at(late).read(), b"a poem");
    wait_for_follows(&b, 1);
    sending.close();
    scene.upstream.serve_once(b"another");
    for proxy in [&a, &b] {
        wait_until("it is refreshed", || proxy.get().unwrap() == b"another");
    }
    assert_eq!(scene.fleet.kept(), [b"another"]);
    assert_eq!(scene.upstream.connections(), 3);
}

#[test]
fn a_purge_reaches_the_memory_of_every_proxy() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.line());
    let b = scene.join_with(|proxy| proxy.line());
    for name in [&b"x\r\n"[..], b"y\r\n"] {
        let mut client = a.request(name);
        scene.upstream.accept().skip(name.len()).send(name).close();
        assert_eq!(client.rest().unwrap(), name);
        scene.wait_for_kept(name);
        assert_eq!(b.ask(name).unwrap(), name);
    }

    a.purge(Texts::Named(b"x"), Purge::Hard);
    let now = Instant::now();
    assert!(!b.ask_at(b"x", now).is_hit());
    assert!(b.ask_at(b"y", now).is_hit(), "others are spared");
    b.reload();
    for proxy in [&a, &b] {
        assert!(!proxy.ask_at(b"y", Instant::now()).is_hit());
    }
    assert_eq!(scene.fleet.kept().len(), 0);
}

#[test]
fn what_another_proxy_purges_is_fetched_again_where_it_is_kept_warm() {
    let folder = Folder::new();
    folder.write("warm", "aaaa\n");
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.line());
    let b = scene.join_with(|proxy| proxy.line().warm(&folder.path("warm")));
    scene.upstream.accept().skip(6).send(b"old").close();
    wait_until("it is warm", || b.snapshot().warm.unwrap().fresh == 1);
    scene.wait_for_kept(b"old");

    a.purge(Texts::Named(b"aaaa"), Purge::Hard);
    scene.upstream.accept().skip(6).send(b"new").close();
    scene.wait_for_kept(b"new");
    wait_until("it is warm", || b.snapshot().warm.unwrap().fresh == 1);
    assert_eq!(b.ask(b"aaaa\r\n").unwrap(), b"new");
    assert_eq!(scene.upstream.connections(), 2);
}

#[test]
fn a_purge_during_a_fetch_lets_all_finish_and_keeps_it_nowhere() {
    let scene = Scene::new();
    let [a, b] = scene.pair();
    let (sending, [mut first, mut second]) = scene.half_way(&a, &b, b"a po");

    b.purge(Texts::All, Purge::Hard);
    // Whoever asks from now on gets a text that was fetched after the purge.
    let mut third = b.connect();
    let again = scene.upstream.accept();
    sending.send(b"em").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"em");
    }
    assert!(scene.fleet.kept().is_empty());
    again.send(b"a new poem").close();
    assert_eq!(third.rest().unwrap(), b"a new poem");
    wait_until("it is in the fleet", || {
        scene.fleet.kept() == [b"a new poem"]
    });
}

#[test]
fn a_copy_that_does_not_suit_is_looked_at_once_also_by_a_fetch_that_waits() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.line());
    let options = |proxy: Builder<ProxyParts>| proxy.line().upstream_conns(1).reject("rate");
    let (b, member) = scene.join_as_member(options);
    let mut client = a.request(b"y\r\n");
    scene.upstream.accept().skip(3).send(b"rate").close();
    assert_eq!(client.rest().unwrap(), b"rate");
    scene.wait_for_kept(b"rate");

    let mut first = b.request(b"x\r\n");
    let busy = scene.upstream.accept().skip(3);
    let mut second = b.request(b"y\r\n");
    b.wait_for_waiting(1);
    busy.send(b"x").close();
    assert_eq!(first.rest().unwrap(), b"x");
    scene.upstream.accept().skip(3).send(b"a poem").close();
    assert_eq!(second.rest().unwrap(), b"a poem");
    // For x once; for y with a copy, without, and once more with its place.
    assert_eq!(count(&member.asked), 4);
    scene.wait_for_kept(b"a poem");
}

#[test]
fn a_purge_of_one_text_during_its_fetch_lets_all_finish() {
    let scene = Scene::new();
    let [a, b] = scene.pair();
    let (sending, [mut first, mut second]) = scene.half_way(&a, &b, b"a po");

    a.purge(Texts::Named(b""), Purge::Hard);
    scene.fetch(&b, b"another poem");
    sending.send(b"em").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"em");
    }
    assert_eq!(scene.fleet.kept(), [b"another poem"]);
    wait_for_no_lease(&scene.fleet);
}

#[test]
fn a_text_without_the_end_that_a_follower_wants_is_not_whole_for_it() {
    let scene = Scene::new();
    let a = scene.join();
    let b = scene.join_with(|proxy| proxy.end_marker("END$"));
    let (sending, [mut first, mut second]) = scene.half_way(&a, &b, b"a po");
    sending.send(b"em").close();
    assert_eq!(first.rest().unwrap(), b"em");

    // It fetches itself, and has to prove what it passed on.
    scene.upstream.serve_once(b"a poem, END");
    assert_eq!(second.rest().unwrap(), b"em, END");
    wait_until("B keeps it", || b.get_at(Instant::now()).is_hit());
}

#[test]
fn an_empty_text_is_shared_by_those_that_allow_it() {
    let scene = Scene::new();
    let a = scene.join_with(|proxy| proxy.allow_empty());
    let b = scene.join_with(|proxy| proxy.allow_empty());
    let c = scene.join();
    let mut first = a.connect();
    let sending = scene.upstream.accept();
    let mut second = b.connect();
    wait_for_follows(&b, 1);
    sending.close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"");
    }
    scene.wait_for_kept(b"");
    scene.fetch(&c, b"a poem");
}
