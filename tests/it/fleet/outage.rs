//! Whatever becomes of the server: a fetch loses 50 ms, three times, and no text.

use super::parts::{
    OnItsWay, Told, ask, commit, follow, keep, lead, next, read_some, sleep, wait_for, word,
};
use crate::support::{LONG, Redis, Signal, join, long_poem, wait_until};
use poetry::cache::Purge;
use poetry::fleet::{ANSWER_WAIT, Fleet};
use poetry::tier::{Claim, Erase, News, Tier};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// With the time for an answer that it has by default.
fn hasty(redis: &Redis) -> Arc<Fleet> {
    redis.fleet_of(|fleet| fleet.answer_wait = ANSWER_WAIT)
}

fn late(fleet: &Fleet) -> u64 {
    fleet.counts().late
}

#[test]
fn three_slow_answers_and_then_none_is_asked_until_it_answers() {
    let Some(redis) = Redis::start() else { return };
    let a = hasty(&redis);
    redis.process().freeze();
    for round in 0..10 {
        let begun = Instant::now();
        assert_eq!(word(&ask(&a, b"k")), "alone");
        let took = begun.elapsed();
        if round < 3 {
            assert!((50..1000).contains(&took.as_millis()), "{round}: {took:?}");
        } else {
            assert!(took < Duration::from_millis(40), "{round}: {took:?}");
        }
    }
    assert_eq!(late(&a), 3);
    assert!(!a.counts().is_open);

    redis.process().signal(Signal::CONT);
    let begun = Instant::now();
    wait_until("it is asked again", || a.counts().is_open);
    assert!(begun.elapsed() < Duration::from_millis(2500));
    // The leases that the late answers brought are given back.
    drop(wait_for(&a, b"k", "lead"));
    assert_eq!(late(&a), 3);
}

#[test]
fn a_purge_that_hangs_is_told_and_made_a_few_times_at_most() {
    let Some(redis) = Redis::start() else { return };
    let told = Arc::new(Told::default());
    let a = join(&redis.place(), told.clone(), |fleet| {
        fleet.answer_wait = ANSWER_WAIT;
    });
    wait_until("it joins", || a.counts().is_open);
    redis.process().freeze();
    a.purge_begins();
    a.purge(Erase::All, Purge::Hard);
    // No fetch asks the server meanwhile, so none notices that it hangs.
    wait_until("it is noticed", || !a.counts().is_open);
    sleep(1500);
    assert!(told.all()[1].starts_with("purged here"), "{:?}", told.all());

    redis.process().signal(Signal::CONT);
    drop(wait_for(&a, b"k", "lead"));
    let generation = redis.ask(&["GET", "poetry:1:gen"]);
    let purges: u32 = generation.lines().nth(1).unwrap().parse().unwrap();
    assert!((1..=5).contains(&purges), "{purges}");
}

#[test]
fn a_server_that_takes_no_writes_for_a_while_is_left_alone() {
    let Some(redis) = Redis::start() else { return };
    let a = hasty(&redis);
    // It answers a PING all the while, and no script that may write.
    redis.ask(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    for _ in 0..10 {
        assert_eq!(word(&ask(&a, b"k")), "alone");
    }
    assert_eq!(late(&a), 3);
    wait_until("it is asked again", || a.counts().is_open);
    drop(wait_for(&a, b"k", "lead"));
}

#[test]
fn a_lease_that_comes_late_is_given_back_before_it_runs_out() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (hasty(&redis), redis.fleet());
    redis.ask(&["CLIENT", "PAUSE", "300", "ALL"]);
    assert_eq!(word(&ask(&a, b"k")), "alone");
    let begun = Instant::now();
    drop(wait_for(&b, b"k", "lead"));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_claim_that_is_dropped_leaves_no_lease() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    redis.ask(&["CLIENT", "PAUSE", "200", "ALL"]);
    let asked = super::parts::question(b"k");
    poetry::rt::block_on(async {
        let claim = a.claim(asked);
        assert!(
            poetry::rt::within(Duration::from_millis(50), claim)
                .await
                .is_none()
        );
    });
    drop(wait_for(&b, b"k", "lead"));
}

#[test]
fn a_killed_server_wakes_those_who_follow_and_comes_back() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&long_poem(70_000));
    let mut following = follow(&b, b"k");
    read_some(&mut *following, 65_024);

    redis.kill();
    let begun = Instant::now();
    while let News::Bytes(_) = next(&mut *following) {}
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "it is told soon, on a busy machine as well"
    );
    assert_eq!(word(&ask(&b, b"k")), "alone");

    redis.begin();
    wait_until("both are back", || a.counts().is_open && b.counts().is_open);
    // The server has lost all. Nothing of before is committed.
    let lease = lead(&b, b"k");
    text.commit();
    commit(lease, b"new");
    let Claim::Found(copy) = wait_for(&a, b"k", "found") else {
        panic!()
    };
    assert_eq!(copy.text, "new");
}

#[test]
fn a_server_that_restarts_with_an_old_snapshot_brings_no_purged_text_back() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (a, b) = (redis.fleet(), redis.fleet());
    keep(&a, b"k", b"old");
    redis.ask(&["SAVE"]);
    a.purge_begins();
    a.purge(Erase::All, Purge::Hard);
    wait_until("it is told", || {
        redis.ask(&["GET", "poetry:1:gen"]).ends_with("\r\n1\r\n")
    });
    wait_until("B knows", || word(&ask(&b, b"k")) == "lead");

    redis.kill();
    redis.begin();
    // Its generation was lifted.
    wait_until("B leads", || {
        let answer = word(&ask(&b, b"k"));
        assert_ne!(answer, "found");
        answer == "lead"
    });
}

#[test]
fn a_purge_is_owed_while_the_server_is_away() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    redis.ask(&["CONFIG", "SET", "save", "3600 1000"]);
    let told = Arc::new(Told::default());
    let a = join(&redis.place(), told.clone(), |_| {});
    let b = redis.fleet();
    wait_until("it joins", || a.counts().is_open);
    keep(&b, b"k", b"a poem");
    redis.ask(&["SAVE"]);
    redis.kill();
    wait_until("it is gone", || !a.counts().is_open && !b.counts().is_open);
    a.purge_begins();
    a.purge(Erase::All, Purge::Soft);

    redis.begin();
    wait_until("A is back", || a.counts().is_open);
    drop(wait_for(&a, b"k", "lead"));
    wait_until("B is back", || b.counts().is_open);
    drop(wait_for(&b, b"k", "lead"));
    let owed = "purged here; the others are not told yet";
    assert!(
        told.all().iter().any(|news| news == owed),
        "{:?}",
        told.all()
    );
}

#[test]
fn what_becomes_of_the_server_is_told_once() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let told = Arc::new(Told::default());
    let a = join(&redis.place(), told.clone(), |_| {});
    wait_until("it joins", || a.counts().is_open);
    redis.kill();
    wait_until("it is gone", || !a.counts().is_open);
    for _ in 0..5 {
        assert_eq!(word(&ask(&a, b"k")), "alone");
    }
    // It tries again and again, and tells nothing of that.
    let listener = UnixListener::bind(redis.socket()).unwrap();
    for _ in 0..3 {
        drop(listener.accept().unwrap());
    }
    std::fs::remove_file(redis.socket()).unwrap();
    redis.begin();
    wait_until("it is back, and that is told", || told.all().len() == 3);
    assert!(a.counts().is_open);

    let all = told.all();
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(all[0], "sharing poems with the fleet");
    assert_eq!(
        all[1],
        "the connection is lost: on its own until it answers"
    );
    assert!(all[2].starts_with("answers again after "), "{all:?}");
    assert!(all[2].ends_with("; 5 fetches did not ask it"), "{all:?}");
}

#[test]
fn a_server_that_is_away_at_the_start_is_found_later() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    redis.kill();
    let told = Arc::new(Told::default());
    let a = join(&redis.place(), told.clone(), |_| {});
    assert_eq!(word(&ask(&a, b"k")), "alone");
    wait_until("it is told", || told.all().len() == 1);
    assert!(
        told.all()[0].ends_with(": on its own until it answers"),
        "{:?}",
        told.all()
    );
    redis.begin();
    wait_until("it joins", || a.counts().is_open);
}

#[test]
fn a_password_is_needed_and_used() {
    let Some(redis) = Redis::start() else { return };
    redis.ask(&[
        "ACL",
        "SETUSER",
        "fleet",
        "on",
        ">a:secret",
        "~*",
        "&*",
        "+@all",
    ]);
    redis.ask(&["CONFIG", "SET", "requirepass", "x"]);
    let told = Arc::new(Told::default());
    let a = join(&redis.place(), told.clone(), |_| {});
    wait_until("it is refused", || told.all().len() == 1);
    assert!(
        told.all()[0].starts_with("it does not let the proxy in: NOAUTH no password was given; "),
        "{:?}",
        told.all()
    );
    assert_eq!(word(&ask(&a, b"k")), "alone");

    let b = join(&redis.place(), Arc::new(Told::default()), |fleet| {
        fleet.place.user = Some("fleet".into());
        fleet.place.password = Some("a:secret".into());
    });
    wait_until("it joins", || b.counts().is_open);
}

#[test]
fn the_rights_in_the_documentation_are_enough() {
    let Some(redis) = Redis::start() else { return };
    let page = include_str!("../../../docs/fleet.md");
    let line = page
        .lines()
        .find(|line| line.starts_with("user poetry "))
        .unwrap();
    let words = line.replace("user poetry on >PASSWORD", "on >secret");
    let mut command = vec!["ACL", "SETUSER", "poetry"];
    command.extend(words.split(' '));
    assert_eq!(redis.ask(&command), "+OK\r\n");
    let member = || {
        let fleet = join(&redis.place(), Arc::new(Told::default()), |fleet| {
            fleet.place.user = Some("poetry".into());
            fleet.place.password = Some("secret".into());
        });
        wait_until("it joins", || fleet.counts().is_open);
        fleet
    };
    let (a, b) = (member(), member());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    let mut following = follow(&b, b"k");
    text.append(&long_poem(100_000));
    text.commit();
    let (_, end) = super::parts::read(&mut *following);
    assert!(matches!(end, News::End { is_kept: true, .. }), "{end:?}");
    redis.ask(&["DEL", &redis.name("*:d:*")]);
    drop(lead(&b, b"k"));
    drop(following);

    a.purge_begins();
    a.purge(Erase::Key(b"k".to_vec()), Purge::Hard);
    a.purge_begins();
    a.purge(Erase::All, Purge::Hard);
    wait_until("it is told", || {
        redis.ask(&["GET", "poetry:1:gen"]).ends_with("\r\n1\r\n")
    });
    assert_eq!(
        (a.counts().errors, b.counts().errors),
        (0, 1),
        "the lost pieces"
    );
    assert!(poetry::rt::block_on(a.close(LONG)));
}

#[test]
fn one_that_leaves_gives_its_leases_back() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&long_poem(70_000));
    let mut following = follow(&b, b"k");
    read_some(&mut *following, 65_024);
    let begun = Instant::now();
    assert!(poetry::rt::block_on(a.close(LONG)));
    while let News::Bytes(_) = next(&mut *following) {}
    assert!(
        begun.elapsed() < Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    drop(wait_for(&b, b"k", "lead"));
    text.commit();
}
