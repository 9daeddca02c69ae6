//! What other programs do to the names of a fleet: a text is lost at most, never wrong.

use super::parts::{
    OnItsWay, ask, commit, ended, follow, found, keep, lead, next, read, read_some, wait_for, word,
};
use crate::support::{LONG, Redis, long_poem, wait_until};
use poetry::cache::Purge;
use poetry::fleet::Fleet;
use poetry::tier::{Claim, Erase, News, Tier};

/// Every name that a fleet uses for one key, by the pattern that finds it.
pub const NAMES: [&str; 7] = [
    "*:p",
    "*:l:*",
    "*:d:*",
    "*:g",
    "poetry:1:gen",
    "poetry:1:seq",
    "poetry:1:tok",
];

pub fn texts_of(fleets: [&Fleet; 2], key: &[u8], poem: &[u8]) {
    for fleet in fleets {
        if let Claim::Found(copy) = ask(fleet, key) {
            assert!(copy.text == poem, "a wrong text");
        }
    }
}

/// Has this key purged, so that it has each of the names.
fn purge(redis: &Redis, fleets: [&Fleet; 2], key: &[u8]) {
    let purges = || redis.ask(&["GET", "poetry:1:seq"]);
    let before = purges();
    fleets[0].purge_begins();
    fleets[0].purge(Erase::Key(key.to_vec()), Purge::Hard);
    wait_until("it is told", || purges() != before);
    drop(wait_for(fleets[1], key, "lead"));
    wait_until("it is given back", || redis.names("*:l:*").is_empty());
}

/// Waits until one more lease has ended, or is gone.
fn wait_for_end(redis: &Redis, fleet: &Fleet, before: u64) {
    wait_until("it has ended", || {
        ended(fleet) > before || redis.names("*:l:*").is_empty()
    });
}

/// What has happened to a text when something is deleted.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    Led,
    HalfPublished,
    Published,
    Committed,
    Read,
}

fn delete_at(
    moment: Moment,
    victim: Option<&str>,
    round: usize,
    fleets: [&Fleet; 2],
    redis: &Redis,
) {
    let [a, b] = fleets;
    let key = format!("{moment:?} {round}");
    let key = key.as_bytes();
    let poem = long_poem(200_000);
    let delete = |now: Moment| match victim {
        _ if now != moment => {}
        None => drop(redis.ask(&["FLUSHALL"])),
        Some(pattern) => redis.names(pattern).iter().for_each(|name| {
            redis.ask(&["DEL", name]);
        }),
    };
    let before = (redis.calls("xadd"), ended(a));
    let published = |pieces: u64| {
        wait_until("it is published, or over", || {
            redis.calls("xadd") >= before.0 + pieces || ended(a) > before.1
        });
    };

    purge(redis, fleets, key);
    let mut text = OnItsWay::new(lead(a, key));
    let mut following = follow(b, key);
    delete(Moment::Led);
    text.append(&poem[..100_000]);
    published(2);
    delete(Moment::HalfPublished);
    text.append(&poem[100_000..]);
    published(3);
    delete(Moment::Published);
    text.commit();
    wait_for_end(redis, a, before.1);
    delete(Moment::Committed);
    let (bytes, end) = read(&mut *following);
    assert!(poem.starts_with(&bytes));
    if matches!(end, News::End { .. }) {
        assert!(bytes == poem);
    }

    delete(Moment::Read);
    texts_of(fleets, key, &poem);
    // And the key is of use again.
    wait_until("it is found or led", || {
        matches!(word(&ask(b, key)), "found" | "lead")
    });
}

#[test]
fn whatever_is_deleted_at_whatever_moment_no_wrong_text_comes() {
    use Moment::*;
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let all_at_once = [None];
    let victims = NAMES.map(Some).into_iter().chain(all_at_once);
    for (round, victim) in victims.enumerate() {
        for moment in [Led, HalfPublished, Published, Committed, Read] {
            delete_at(moment, victim, round, [&a, &b], &redis);
        }
    }
}

#[test]
fn a_value_of_another_type_is_as_good_as_none() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    for (round, name) in NAMES.iter().enumerate() {
        let key = round.to_string();
        let key = key.as_bytes();
        purge(&redis, [&a, &b], key);
        keep(&a, key, &long_poem(10_000));
        let lease = lead(&a, b"another");
        for name in redis.names(name) {
            redis.ask(&["DEL", &name]);
            redis.ask(&["LPUSH", &name, "strange"]);
        }
        texts_of([&a, &b], key, &long_poem(10_000));
        let before = ended(&a);
        commit(lease, b"a poem");
        wait_for_end(&redis, &a, before);
        texts_of([&a, &b], b"another", b"a poem");
        assert!(b.counts().is_open, "{name}: it is asked again");

        // A text can be kept again.
        let before = ended(&b);
        wait_until("it is found", || match ask(&b, key) {
            Claim::Lead(lease) => {
                commit(lease, &long_poem(10_000));
                wait_for_end(&redis, &b, before);
                true
            }
            Claim::Found(_) => true,
            _ => false,
        });
        redis.ask(&["FLUSHALL"]);
    }
}

#[test]
fn pieces_that_were_evicted_cost_a_fetch_and_no_loop() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    keep(&a, b"k", &long_poem(100_000));
    redis.ask(&["DEL", &redis.name("*:d:*")]);
    let lease = lead(&b, b"k"); // the record is deleted, too
    assert!(redis.names("*:p").is_empty());
    commit(lease, b"new");
    drop(wait_for(&a, b"k", "found"));
}

#[test]
fn pieces_that_are_evicted_in_flight_end_it_for_those_who_follow() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let poem = long_poem(200_000);
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&poem[..70_000]);
    let mut following = follow(&b, b"k");
    read_some(&mut *following, 65_024);
    redis.ask(&["DEL", &redis.name("*:d:*")]);
    text.append(&poem[70_000..]);
    let (_, end) = read(&mut *following);
    assert!(matches!(end, News::Gone), "{end:?}");
    text.commit();
    drop(wait_for(&b, b"k", "lead"));
}

#[test]
fn bytes_that_were_changed_are_found_out_at_the_end() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(b"right");
    wait_until("it is there", || redis.calls("xadd") == 1);
    let name = redis.name("*:d:*");
    redis.ask(&["DEL", &name]);
    redis.ask(&["XADD", &name, "5-0", "b", "wrong"]);
    let mut following = follow(&b, b"k");
    assert_eq!(read_some(&mut *following, 5), b"wrong");
    text.commit();
    let (_, end) = read(&mut *following);
    assert!(matches!(end, News::Gone), "it is no end: {end:?}");
}

#[test]
fn entries_that_make_no_sense_end_it() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let entries: [&[&str]; 7] = [
        &["7-0", "b", "six by"],
        &["5-0", "b", ""],
        &["5-0", "x", "right"],
        &["5-0", "b", "right", "c", "more"],
        &["5-2", "b", "right"],
        &["0-1", "e", "kept", "at", "1", "h", "00"],
        &["0-1", "e", "strange"],
    ];
    for entry in entries {
        let held = lead(&a, b"k");
        let lease = redis.name("*:l:*");
        let token = redis.ask(&["GET", &lease]);
        let name = lease.replace(":l:0.0", ":d:") + token.lines().nth(1).unwrap();
        let mut command = vec!["XADD", name.as_str()];
        command.extend_from_slice(entry);
        redis.ask(&command);

        let mut following = follow(&b, b"k");
        assert!(matches!(next(&mut *following), News::Gone), "{entry:?}");
        drop(held);
        wait_until("it is given back", || redis.names("*:l:*").is_empty());
        redis.ask(&["DEL", &name]);
    }
}

#[test]
fn records_that_are_not_what_they_say_are_no_texts() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    keep(&a, b"k", b"a poem");
    let name = redis.name("*:p");
    let reply = redis.ask(&["GET", &name]);
    let record = reply
        .split_once("\r\n")
        .unwrap()
        .1
        .trim_end_matches("\r\n")
        .to_string();
    assert!(record.ends_with("\nka poem"), "{record}");

    let changed = [
        record.replace("ka poem", "ka poen"),
        record.replace("ka poem", "ka poem "),
        record.replace("ka poem", "ja poem"),
        record.replace(" 6 =", " 7 ="),
        record.replace(" - 1\n", " - 2\n"),
        record.replace("POEM1 ", "POEM2 "),
        record.replace("POEM1 0", "POEM1 9"),
        record.replace("POEM1 ", "POEM1 x"),
        record[..record.len() - 1].to_string(),
        "x".repeat(100_000),
        String::new(),
    ];
    for bad in &changed {
        assert_ne!(*bad, record);
        redis.ask(&["SET", &name, bad]);
        let lease = lead(&b, b"k");
        drop(lease);
        wait_until("it is given back", || redis.names("*:l:*").is_empty());
    }
    redis.ask(&["SET", &name, &record]);
    assert_eq!(found(&b, b"k").text, "a poem");
}

#[test]
fn numbers_that_no_proxy_writes_are_as_good_as_none() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    keep(&a, b"k", b"a text");
    let record = redis.name("*:p");
    let purges = record.replace(":p", ":g");
    for name in ["poetry:1:gen", "poetry:1:seq", "poetry:1:tok", &purges] {
        for strange in [
            "1e20",
            "-5",
            "1.5",
            "nan",
            "0x10",
            "99999999999999999999",
            "x",
        ] {
            redis.ask(&["DEL", &record]);
            redis.ask(&["SET", name, strange]);
            let before = a.counts().fleet.unwrap().published;
            let Claim::Lead(lease) = wait_for(&a, b"k", "lead") else {
                unreachable!();
            };
            commit(lease, b"a text");
            wait_until("it is kept", || {
                a.counts().fleet.unwrap().published > before
            });
            assert_eq!(found(&b, b"k").text, "a text", "{name} {strange}");
        }
    }
}

#[test]
fn a_lease_that_no_proxy_has_taken_is_as_good_as_none() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    for strange in ["no token", "7:never.ends"] {
        let held = lead(&a, b"k");
        redis.ask(&["SET", &redis.name("*:l:*"), strange]);
        drop(wait_for(&b, b"k", "lead"));
        drop(held);
        wait_until("none is left", || redis.names("*:l:*").is_empty());
    }

    // Or one that has lost its end since.
    let held = lead(&a, b"k");
    let name = redis.name("*:l:*");
    drop(held);
    wait_until("none is left", || redis.names("*:l:*").is_empty());
    redis.ask(&["SET", &name, "7:never.ends", "PX", "10000"]);
    let mut following = follow(&b, b"k");
    redis.ask(&["PERSIST", &name]);
    assert!(matches!(next(&mut *following), News::Gone));
}

#[test]
fn a_lease_that_is_lost_counts_once() {
    let Some(redis) = Redis::start() else { return };
    let a = redis.fleet();
    let lease = lead(&a, b"k");
    redis.ask(&["DEL", &redis.name("*:l:*")]);
    let deposed = || a.counts().fleet.unwrap().deposed;
    wait_until("it is noticed", || deposed() == 1);
    commit(lease, b"a text");
    assert!(poetry::rt::block_on(a.close(LONG)));
    assert_eq!(deposed(), 1);
}
