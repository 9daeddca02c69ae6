//! Purges of a fleet: how they reach all, and what they spare.

use super::parts::{
    OnItsWay, ask, commit, follow, found, keep, lead, read, read_some, wait_for, wait_for_renewals,
    word,
};
use crate::support::{Redis, long_poem, wait_until};
use poetry::cache::Purge;
use poetry::tier::{Claim, Erase, News, PurgedElsewhere, Tier};
use std::sync::{Arc, Mutex};

/// What a part of a fleet is told of purges.
type PurgesHeard = Arc<Mutex<Vec<(Option<Vec<u8>>, Purge)>>>;

fn heard_by(fleet: &poetry::fleet::Fleet) -> PurgesHeard {
    let heard = PurgesHeard::default();
    let list = heard.clone();
    fleet.on_purge(Arc::new(move |texts, how| {
        let key = match texts {
            PurgedElsewhere::All => None,
            PurgedElsewhere::Key(key) => Some(key.to_vec()),
        };
        list.lock().unwrap().push((key, how));
    }));
    heard
}

fn purge(fleet: &poetry::fleet::Fleet, texts: Erase, how: Purge) {
    fleet.purge_begins();
    fleet.purge(texts, how);
}

#[test]
fn a_purge_of_all_reaches_the_others_and_their_texts() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let (heard_by_a, heard_by_b) = (heard_by(&a), heard_by(&b));
    keep(&a, b"k", b"a poem");
    let copy = found(&b, b"k");
    assert!(b.is_current(copy.epoch));

    purge(&a, Erase::All, Purge::Soft);
    wait_until("B is told", || !heard_by_b.lock().unwrap().is_empty());
    assert_eq!(*heard_by_b.lock().unwrap(), [(None, Purge::Soft)]);
    assert!(!b.is_current(copy.epoch));
    assert_eq!(word(&ask(&b, b"k")), "lead");
    assert!(heard_by_a.lock().unwrap().is_empty(), "A knows");
}

#[test]
fn a_purge_of_one_spares_the_others() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let heard = heard_by(&b);
    keep(&a, b"one", b"a poem");
    keep(&a, b"two", b"a poem");
    purge(&a, Erase::Key(b"one".to_vec()), Purge::Hard);
    wait_until("B is told", || !heard.lock().unwrap().is_empty());
    assert_eq!(
        *heard.lock().unwrap(),
        [(Some(b"one".to_vec()), Purge::Hard)]
    );
    assert_eq!(word(&ask(&b, b"one")), "lead");
    assert_eq!(word(&ask(&b, b"two")), "found");
}

#[test]
fn a_text_whose_fetch_began_before_a_purge_is_not_kept() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&long_poem(70_000));
    let mut following = follow(&b, b"k");
    read_some(&mut *following, 65_024);
    purge(&b, Erase::All, Purge::Hard);
    wait_until("it is told", || {
        redis.ask(&["GET", "poetry:1:gen"]).ends_with("\r\n1\r\n")
    });
    text.commit();
    let (_, end) = read(&mut *following);
    assert!(matches!(end, News::End { is_kept: false, .. }), "{end:?}");
    assert!(matches!(wait_for(&b, b"k", "lead"), Claim::Lead(_)));
}

#[test]
fn after_a_purge_no_fetch_from_before_it_is_followed_and_none_is_cut() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    for texts in [Erase::All, Erase::Key(b"k".to_vec())] {
        let mut old = OnItsWay::new(lead(&a, b"k"));
        old.append(&long_poem(70_000));
        let mut following = follow(&b, b"k");
        read_some(&mut *following, 65_024);

        let heard = heard_by(&b);
        purge(&a, texts, Purge::Hard);
        wait_until("B is told", || !heard.lock().unwrap().is_empty());
        let lease = lead(&b, b"k");
        wait_for_renewals(&redis, 3); // both are renewed as often
        old.commit();
        let (_, end) = read(&mut *following);
        assert!(matches!(end, News::End { is_kept: false, .. }), "{end:?}");
        commit(lease, b"new");
        let Claim::Found(copy) = wait_for(&b, b"k", "found") else {
            panic!()
        };
        assert_eq!(copy.text, "new");
        purge(&a, Erase::All, Purge::Hard);
        drop(wait_for(&a, b"k", "lead"));
        drop(wait_for(&b, b"k", "lead"));
    }
}

#[test]
fn a_purge_that_was_missed_is_made_up_for() {
    let Some(redis) = Redis::start() else { return };
    let a = redis.fleet();
    let heard = heard_by(&a);
    // As if the messages had been lost.
    redis.ask(&["SET", "poetry:1:gen", "7"]);
    drop(ask(&a, b"k"));
    assert_eq!(*heard.lock().unwrap(), [(None, Purge::Hard)]);
    redis.ask(&["SET", "poetry:1:seq", "7"]);
    drop(ask(&a, b"k2"));
    assert_eq!(heard.lock().unwrap().len(), 2);
    drop(ask(&a, b"k3"));
    assert_eq!(heard.lock().unwrap().len(), 2, "once each");
}
