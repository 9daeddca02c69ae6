//! Texts, leases and purges of a fleet whose server is well.

use super::parts::{
    OnItsWay, ask, claim, commit, follow, found, keep, lead, lease_name, next, question, read,
    read_some, sleep, wait_for, wait_for_renewals, word,
};
use crate::support::{HOUR, LONG, Redis, ZERO, long_poem, wait_until};
use bytes::Bytes;
use poetry::poem::Poem;
use poetry::tier::{Claim, Failure, News, Term, Tier, Wish};
use std::time::{Duration, Instant};

#[test]
fn the_first_to_ask_leads_and_the_others_follow_and_then_all_find_it() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let lease = lead(&a, b"k");
    let mut following = follow(&b, b"k");
    assert_eq!(word(&ask(&a, b"other")), "lead");

    commit(lease, b"a poem");
    // What is short is in the record, and nothing of it was published.
    let (bytes, end) = read(&mut *following);
    assert_eq!(bytes, b"a poem");
    assert!(matches!(end, News::End { is_kept: true, .. }), "{end:?}");
    for fleet in [&a, &b] {
        let copy = found(fleet, b"k");
        assert_eq!(copy.text, "a poem");
        let Term::Since(since) = copy.term else {
            panic!()
        };
        assert!(since <= Instant::now() && since.elapsed() < Duration::from_secs(50));
        assert!(copy.lease.is_none());
    }
    assert_eq!(a.counts().hits, 1);
}

#[test]
fn a_follower_gets_what_there_is_at_once_and_the_rest_as_it_comes() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(b"the first half, ");
    let mut following = follow(&b, b"k");
    assert_eq!(read_some(&mut *following, 16), b"the first half, ");

    text.append(b"the second");
    assert_eq!(read_some(&mut *following, 10), b"the second");
    let begun = Instant::now();
    text.commit();
    let (rest, end) = read(&mut *following);
    assert!(rest.is_empty());
    let News::End { since, is_kept } = end else {
        panic!("{end:?}")
    };
    assert!(is_kept && since <= Instant::now());
    assert!(since + Duration::from_secs(5) > begun);
    assert_eq!(found(&b, b"k").text, "the first half, the second");
}

#[test]
fn texts_of_all_lengths_about_a_limit_arrive_whole() {
    const PIECE: usize = 65_024;
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let lengths = [
        1,
        8191,
        8192,
        8193,
        PIECE - 1,
        PIECE,
        PIECE + 1,
        8 * PIECE - 1,
        8 * PIECE,
        8 * PIECE + 1,
        17 * PIECE,
    ];
    for length in lengths {
        let poem = long_poem(length);
        let key = length.to_string();
        keep(&a, key.as_bytes(), &poem);
        assert!(found(&b, key.as_bytes()).text == poem, "{length} at once");

        let key = format!("{length} as it comes");
        let mut text = OnItsWay::new(lead(&a, key.as_bytes()));
        let mut following = follow(&b, key.as_bytes());
        let before = redis.calls("xadd");
        poem.chunks(100_000).for_each(|chunk| text.append(chunk));
        wait_until("some is published", || redis.calls("xadd") > before);
        text.commit();
        let (bytes, end) = read(&mut *following);
        assert!(
            matches!(end, News::End { is_kept: true, .. }),
            "{length}: {end:?}"
        );
        assert!(bytes == poem, "{length}");
        assert!(found(&b, key.as_bytes()).text == poem, "{length} later");
    }
    assert_eq!(b.counts().errors, 0);
}

#[test]
fn a_text_of_64_mib_passes() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let poem = long_poem(64 << 20);
    let mut text = OnItsWay::new(lead(&a, b"k"));
    let mut following = follow(&b, b"k");
    poem.chunks(1 << 20).for_each(|chunk| text.append(chunk));
    text.commit();

    let (bytes, end) = read(&mut *following);
    assert!(matches!(end, News::End { is_kept: true, .. }), "{end:?}");
    assert!(bytes == poem);
    assert!(found(&b, b"k").text == poem);
}

#[test]
fn one_that_joins_late_misses_nothing() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&long_poem(100_000));
    let mut first = follow(&b, b"k");
    let mut second = follow(&b, b"k");
    read_some(&mut *first, 65_024);

    // After the last piece, before the end; and after the end, before any bell.
    text.commit();
    for following in [&mut first, &mut second] {
        let (_, end) = read(&mut **following);
        assert!(matches!(end, News::End { is_kept: true, .. }), "{end:?}");
    }
}

#[test]
fn a_drip_costs_at_most_fifty_pieces_a_second() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        text.append(b"x");
        sleep(1);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let pieces = redis.calls("xadd") as f64;
    assert!(pieces <= 50.0 * seconds + 2.0, "{pieces} in {seconds} s");
    assert!(pieces >= 5.0, "{pieces}");

    text.commit();
    let (_, end) = read(&mut *follow_or_found(&b));
    assert!(matches!(end, News::End { .. }));

    /// The fetch may have ended by now.
    fn follow_or_found(fleet: &poetry::fleet::Fleet) -> Box<dyn poetry::tier::Follow> {
        struct Over;
        impl poetry::tier::Follow for Over {
            fn epoch(&self) -> u64 {
                0
            }
            fn next(&mut self) -> futures::future::BoxFuture<'_, News> {
                let since = Instant::now();
                Box::pin(std::future::ready(News::End {
                    since,
                    is_kept: true,
                }))
            }
        }
        match ask(fleet, b"k") {
            Claim::Follow(following) => following,
            _ => Box::new(Over),
        }
    }
}

#[test]
fn a_text_that_is_not_kept_is_read_to_its_end_by_those_who_follow() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let lease = lead(&a, b"short");
    let mut following = follow(&b, b"short");
    lease.pass(Poem::from(Bytes::from_static(b"a poem")));
    let (bytes, end) = read(&mut *following);
    assert_eq!(bytes, b"a poem");
    assert!(matches!(end, News::End { is_kept: false, .. }), "{end:?}");

    let lease = lead(&a, b"long");
    let mut following = follow(&b, b"long");
    lease.pass(Poem::from(Bytes::from(long_poem(200_000))));
    let (bytes, end) = read(&mut *following);
    assert!(bytes == long_poem(200_000));
    assert!(matches!(end, News::End { is_kept: false, .. }), "{end:?}");
    for key in [&b"short"[..], b"long"] {
        assert_eq!(word(&ask(&b, key)), "lead", "nothing is kept");
    }
}

#[test]
fn without_a_ttl_a_text_is_shared_by_those_who_wait_and_not_kept() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let without = |may_lead| poetry::tier::Question {
        ttl: ZERO,
        may_lead,
        ..question(b"k")
    };
    let Claim::Lead(lease) = claim(&a, without(true)) else {
        panic!()
    };
    let Claim::Follow(mut following) = claim(&b, without(false)) else {
        panic!()
    };
    commit(lease, b"a poem");
    let (bytes, end) = read(&mut *following);
    assert_eq!(bytes, b"a poem");
    assert!(matches!(end, News::End { is_kept: false, .. }));
    assert_eq!(word(&claim(&b, without(false))), "vacant");
}

#[test]
fn a_failure_is_told_and_never_kept() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(&long_poem(70_000));
    let mut following = follow(&b, b"k");
    read_some(&mut *following, 65_024);
    let why = "ä".repeat(200);
    text.lease.take().unwrap().fail(Failure::Failed, &why);
    let (_, end) = read(&mut *following);
    assert!(matches!(end, News::Failed(told) if told == "ä".repeat(128)));

    let lease = lead(&b, b"k");
    let mut following = follow(&a, b"k");
    lease.fail(Failure::Unreached, "");
    assert!(matches!(next(&mut *following), News::Unreached));
    assert_eq!(word(&ask(&a, b"k")), "lead");
}

#[test]
fn a_lease_that_is_dropped_is_given_back_at_once() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    for is_published in [false, true] {
        let lease = lead(&a, b"k");
        let mut following = follow(&b, b"k");
        let begun = Instant::now();
        if is_published {
            drop(OnItsWay::new(lease));
        } else {
            drop(lease);
        }
        assert!(matches!(next(&mut *following), News::Gone));
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "before it runs out"
        );
        drop(wait_for(&b, b"k", "lead"));
    }
    wait_until("none is left", || redis.names("*:l:*").is_empty());
}

#[test]
fn a_lease_lives_as_long_as_its_fetch_and_runs_out_without_its_holder() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let begun = Instant::now();
    let lease = lead(&a, b"k");
    wait_for_renewals(&redis, 5);
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "longer than it runs"
    );
    assert_eq!(word(&ask(&b, b"k")), "follow", "it is renewed");
    commit(lease, b"a poem");
    drop(wait_for(&b, b"k", "found"));

    // One that nothing renews: that of a holder that was killed.
    redis.ask(&["SET", &lease_name(b"dead"), "99:dead.1", "PX", "2000"]);
    let mut following = follow(&b, b"dead");
    let begun = Instant::now();
    assert!(matches!(next(&mut *following), News::Gone));
    assert!(begun.elapsed() < Duration::from_millis(2250));
    assert_eq!(word(&ask(&b, b"dead")), "lead");
}

#[test]
fn what_a_deposed_holder_commits_is_refused() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let mut text = OnItsWay::new(lead(&a, b"k"));
    text.append(b"from A");
    redis.ask(&["DEL", &redis.name("*:l:*")]);
    let lease = lead(&b, b"k");
    commit(lease, b"from B");
    wait_until("B's is kept", || word(&ask(&b, b"k")) == "found");

    wait_until("A is deposed", || a.counts().fleet.unwrap().deposed == 1);
    text.commit();
    assert!(poetry::rt::block_on(a.close(LONG)), "it has ended");
    assert_eq!(found(&b, b"k").text, "from B");
}

#[test]
fn a_text_past_its_ttl_comes_with_the_lease_to_refresh_it() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    keep(&a, b"k", b"old");
    sleep(5);
    let stale = |wish| poetry::tier::Question {
        ttl: Duration::from_millis(1),
        grace: HOUR,
        wish,
        ..question(b"k")
    };

    let Claim::Found(first) = claim(&a, stale(Wish::Text)) else {
        panic!()
    };
    assert_eq!(first.text, "old");
    let lease = first.lease.expect("it leads");
    let Claim::Found(second) = claim(&b, stale(Wish::Text)) else {
        panic!()
    };
    assert_eq!(second.text, "old");
    assert!(second.lease.is_none(), "one refreshes it");
    assert_eq!(word(&claim(&b, stale(Wish::Newer))), "follow");

    commit(lease, b"new");
    wait_until(
        "it is new",
        || matches!(ask(&b, b"k"), Claim::Found(copy) if copy.text == "new"),
    );
    let without_grace = poetry::tier::Question {
        grace: ZERO,
        ..stale(Wish::Text)
    };
    sleep(5);
    assert_eq!(word(&claim(&b, without_grace)), "lead", "it is too old");
}

#[test]
fn one_that_wants_a_new_text_gets_no_kept_one() {
    let Some(redis) = Redis::start() else { return };
    let a = redis.fleet();
    keep(&a, b"k", b"a poem");
    let new = |may_lead| poetry::tier::Question {
        wish: Wish::New,
        may_lead,
        ..question(b"k")
    };
    assert_eq!(word(&claim(&a, new(false))), "vacant");
    let Claim::Lead(_lease) = claim(&a, new(true)) else {
        panic!()
    };
    assert_eq!(word(&claim(&a, new(false))), "follow");
}

#[test]
fn fleets_of_other_names_share_nothing() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (
        redis.fleet(),
        redis.fleet_of(|fleet| fleet.name = "other".into()),
    );
    keep(&a, b"k", b"a poem");
    assert_eq!(word(&ask(&b, b"k")), "lead");
}

#[test]
fn a_text_longer_than_this_proxy_keeps_is_not_taken() {
    let Some(redis) = Redis::start() else { return };
    let a = redis.fleet();
    let b = redis.fleet_of(|fleet| fleet.longest = 99);
    keep(&a, b"k", &[b'x'; 100]);
    assert_eq!(word(&ask(&b, b"k")), "lead");
    assert_eq!(found(&a, b"k").text.len(), 100);
}

#[test]
fn after_a_hundred_ends_of_all_kinds_no_lease_and_no_subscription_is_left() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..100u64 {
        let key = round.to_string();
        let poem = long_poem(random.usize(1..200_000));
        let mut text = OnItsWay::new(lead(&a, key.as_bytes()));
        let mut following = random.bool().then(|| follow(&b, key.as_bytes()));
        text.append(&poem);
        sleep(random.u64(0..40)); // some or all of it is published
        if let Some(following) = &mut following
            && random.bool()
        {
            let _some_or_none = futures::FutureExt::now_or_never(following.next());
        }
        match random.u8(0..6) {
            0 => {
                text.commit();
                if let Some(following) = &mut following {
                    let (_, end) = read(&mut **following);
                    assert!(matches!(end, News::End { is_kept: true, .. }), "{end:?}");
                }
            }
            1 => text.lease.take().unwrap().fail(Failure::Failed, "why"),
            2 => text.lease.take().unwrap().fail(Failure::Unreached, ""),
            3 => {
                let poem = Poem::from(Bytes::from(poem));
                text.lease.take().unwrap().pass(poem);
            }
            4 => drop(redis.ask(&["DEL", &lease_name(key.as_bytes())])),
            _ => drop(text),
        }
    }
    wait_until("no lease is left", || redis.names("*:l:*").is_empty());
    wait_until("nothing is subscribed", || {
        redis.ask(&["PUBSUB", "CHANNELS"]).lines().count() <= 3 // that of purges
    });
    wait_until("no pieces are left that nothing names", || {
        let ttls = redis.names("*:d:*");
        ttls.iter()
            .all(|name| !redis.ask(&["PTTL", name]).starts_with(":-1"))
    });
}
