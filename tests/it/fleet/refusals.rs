//! A server that refuses: for lack of memory, because it is a replica, or because a
//! right is missing. It is read where that goes on, and no wrong text comes.

use super::damage::{NAMES, texts_of};
use super::parts::{
    OnItsWay, Told, ask, commit, follow, found, keep, lead, read, read_some, wait_for, word,
};
use crate::support::{Redis, join, long_poem, wait_until};
use poetry::cache::Purge;
use poetry::tier::{Erase, News, Tier};
use std::sync::Arc;
use std::thread::scope;

#[test]
fn a_server_without_memory_is_read_and_takes_no_texts() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    keep(&a, b"k", b"a poem");
    let lease = lead(&a, b"late");
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(found(&b, b"k").text, "a poem");
    assert_eq!(word(&ask(&b, b"other")), "alone", "no lease can be had");
    commit(lease, b"another");
    wait_until("it is told", || a.counts().errors > 0);
    assert!(a.counts().is_open && b.counts().is_open, "it is no outage");

    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    drop(wait_for(&b, b"late", "lead"));
}

#[test]
fn a_purge_that_is_refused_is_told_and_reaches_the_others_later() {
    let Some(redis) = Redis::start() else { return };
    let told = Arc::new(Told::default());
    let a = join(&redis.place(), told.clone(), |_| {});
    let b = redis.fleet();
    wait_until("it joins", || a.counts().is_open);
    keep(&b, b"k", b"a poem");
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    a.purge_begins();
    a.purge(Erase::All, Purge::Hard);
    let owed = "purged here; the others are not told yet";
    wait_until("it is told", || told.all().iter().any(|news| news == owed));
    assert!(a.counts().is_open, "it is no outage");

    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    drop(wait_for(&b, b"k", "lead"));
    let times = told.all().iter().filter(|news| *news == owed).count();
    assert_eq!(times, 1, "{:?}", told.all());
}

#[test]
fn a_replica_that_takes_no_writes_is_read() {
    let Some(redis) = Redis::start() else { return };
    let a = redis.fleet();
    keep(&a, b"k", b"a poem");
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(found(&a, b"k").text, "a poem");
    assert_eq!(word(&ask(&a, b"other")), "alone");
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(word(&ask(&a, b"other")), "lead");
}

#[test]
fn scripts_that_the_server_forgot_are_told_again() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let lease = lead(&a, b"k");
    redis.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!(word(&ask(&b, b"k")), "follow");
    redis.ask(&["SCRIPT", "FLUSH"]);
    commit(lease, b"a poem");
    drop(wait_for(&b, b"k", "found"));
}

/// Half of a text is published, and then the server takes no more of it.
fn refuse_the_rest(refuse: &[&str], why: &str) {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let poem = long_poem(300_000);
    keep(&a, b"kept", b"a poem");
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&poem[..70_000]);
    let mut following = follow(&b, b"k");
    let first = read_some(&mut *following, 65_024);

    redis.ask(refuse);
    text.append(&poem[70_000..]);
    let (rest, end) = read(&mut *following);
    assert!(poem.starts_with(&[first, rest].concat()), "{why}");
    assert!(matches!(end, News::Gone), "{why}: {end:?}");
    text.commit();
    wait_until("it is told", || a.counts().errors > 0);
    assert_eq!(found(&b, b"kept").text, "a poem", "{why}");
    texts_of([&a, &b], b"k", &poem);
}

#[test]
fn a_server_that_takes_no_more_of_a_text_ends_it_for_those_who_follow() {
    refuse_the_rest(&["CONFIG", "SET", "maxmemory", "1"], "no memory");
    refuse_the_rest(&["REPLICAOF", "127.0.0.1", "1"], "a replica");
}

/// From some moment on, the fleet has no right to one of its names.
fn refuse_a_name(name: &str) {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let poem = long_poem(100_000);
    keep(&a, b"kept", &poem);
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&poem[..70_000]);
    let mut following = follow(&b, b"k");
    read_some(&mut *following, 65_024);

    let others = NAMES.iter().filter(|other| **other != name);
    let rights: Vec<String> = others.map(|other| format!("~{other}")).collect();
    let mut command = vec!["ACL", "SETUSER", "default", "resetkeys"];
    command.extend(rights.iter().map(String::as_str));
    assert_eq!(redis.ask(&command), "+OK\r\n");

    text.append(&poem[70_000..]);
    text.commit();
    let (bytes, end) = read(&mut *following);
    assert!(poem[65_024..].starts_with(&bytes), "{name}");
    if matches!(end, News::End { .. }) {
        assert!(bytes == poem[65_024..], "{name}");
    }
    for key in [&b"kept"[..], b"k", b"new"] {
        texts_of([&a, &b], key, &poem);
    }
    let errors = || a.counts().errors + b.counts().errors;
    wait_until("it is counted", || errors() > 0);

    redis.ask(&["ACL", "SETUSER", "default", "~*"]);
    wait_until("it is asked again", || {
        a.counts().is_open && b.counts().is_open
    });
    texts_of([&a, &b], b"kept", &poem);
    drop(wait_for(&b, b"new", "lead"));
}

#[test]
fn a_name_that_the_fleet_has_no_right_to_costs_no_text() {
    scope(|scope| {
        for name in NAMES {
            scope.spawn(move || refuse_a_name(name));
        }
    });
}
