//! What other programs do to the names of a fleet: a text is lost at most, never wrong.

use super::parts::{
    OnItsWay, ask, commit, follow, found, keep, lead, next, read, read_some, sleep, wait_for, word,
};
use crate::support::{LONG, Redis, long_poem, wait_until};
use poetry::fleet::Fleet;
use poetry::tier::{Claim, News, Tier};

/// Every name that a fleet uses for one key, by the pattern that finds it.
const NAMES: [&str; 6] = [
    "*:p",
    "*:l:*",
    "*:d:*",
    "poetry:1:gen",
    "poetry:1:seq",
    "poetry:1:tok",
];

fn texts_of(fleets: [&Fleet; 2], key: &[u8], poem: &[u8]) {
    for fleet in fleets {
        if let Claim::Found(copy) = ask(fleet, key) {
            assert!(copy.text == poem, "a wrong text");
        }
    }
}

#[test]
fn whatever_is_deleted_at_whatever_moment_no_wrong_text_comes() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let poem = long_poem(200_000);
    let mut rounds = NAMES.map(Some).to_vec();
    rounds.push(None); // all of them
    for moment in 0..3 {
        for (round, victim) in rounds.iter().enumerate() {
            let delete = || match victim {
                None => drop(redis.ask(&["FLUSHALL"])),
                Some(pattern) => redis.names(pattern).iter().for_each(|name| {
                    redis.ask(&["DEL", name]);
                }),
            };
            let key = format!("{moment} {round}");
            let key = key.as_bytes();

            let mut text = OnItsWay::new(lead(&a, key));
            let mut following = follow(&b, key);
            if moment == 0 {
                delete();
            }
            text.append(&poem[..100_000]);
            sleep(30);
            if moment == 1 {
                delete();
            }
            text.append(&poem[100_000..]);
            text.commit();
            let (bytes, end) = read(&mut *following);
            assert!(poem.starts_with(&bytes));
            if matches!(end, News::End { .. }) {
                assert!(bytes == poem);
            }
            if moment == 2 {
                delete();
            }
            texts_of([&a, &b], key, &poem);
            // And the key is of use again.
            wait_until("it is found or led", || {
                matches!(word(&ask(&b, key)), "found" | "lead")
            });
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
        keep(&a, key, &long_poem(10_000));
        let lease = lead(&a, b"another");
        for name in redis.names(name) {
            redis.ask(&["DEL", &name]);
            redis.ask(&["LPUSH", &name, "strange"]);
        }
        texts_of([&a, &b], key, &long_poem(10_000));
        commit(lease, b"a poem");
        sleep(20);
        texts_of([&a, &b], b"another", b"a poem");
        assert!(b.counts().is_open, "{name}: it is asked again");

        // A text can be kept again.
        wait_until("it leads", || match ask(&b, key) {
            Claim::Lead(lease) => {
                commit(lease, b"new");
                true
            }
            Claim::Found(_) => true,
            _ => false,
        });
        redis.ask(&["FLUSHALL"]);
        sleep(20);
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
