//! Clocks that are wrong. Only the server's is ever compared, and with itself.

use super::parts::{
    OnItsWay, ask, follow, found, keep, lead, lease_name, next, read, read_some, wait_for,
    wait_for_renewals, word,
};
use crate::support::{
    FakeUpstream, LONG, Redis, ServerProcess, command, faketime, long_poem, wait_until,
};
use poetry::cache::Purge;
use poetry::tier::{Erase, News, StoredText, Term, Tier};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(4);

/// A proxy whose clock is wrong by so much: `+1d`.
fn start(redis: &Redis, upstream: &str, wrong_by: &str) -> Option<ServerProcess> {
    let place = redis.place();
    let mut args = vec!["proxy", "--listen", "127.0.0.1:0", "--protocol", "line"];
    args.extend(["--ttl", "4s", "--store", &place, "--store-timeout", "1s"]);
    args.push(upstream);
    let mut command = command(&args);
    command.envs(faketime(wrong_by)?);
    let mut proxy = ServerProcess::start_command(command);
    let log = proxy.stderr_lines();
    let told = log.recv_timeout(LONG).unwrap();
    assert!(told.ends_with("sharing poems with the fleet"), "{told}");
    std::thread::spawn(move || log.into_iter().for_each(drop));
    Some(proxy)
}

#[test]
fn proxies_whose_clocks_are_a_day_apart_keep_a_poem_equally_long() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    upstream.serve_each(move |_, connection| {
        let number = counted.fetch_add(1, Ordering::AcqRel);
        connection
            .skip(3)
            .send(number.to_string().as_bytes())
            .close();
    });
    let clocks = ["+0", "+1d", "-1d"];
    let proxies: Vec<_> = clocks
        .iter()
        .map_while(|wrong_by| start(&redis, &addr, wrong_by))
        .collect();
    if proxies.is_empty() {
        return;
    }

    let ask = |proxy: &ServerProcess, name: &str| proxy.ask(name.as_bytes()).unwrap();
    for (holder, name) in ["a\r\n", "b\r\n", "c\r\n"].iter().enumerate() {
        let before = redis.names("*:p");
        let begun = Instant::now();
        let first = ask(&proxies[holder], name);
        let fetched = Instant::now();
        wait_until("it is shared", || {
            redis.names("*:p").iter().any(|name| !before.contains(name))
        });
        for (proxy, clock) in proxies.iter().zip(clocks) {
            if begun.elapsed() < TTL {
                assert_eq!(ask(proxy, name), first, "{clock}: it is fresh");
            }
        }
        for (proxy, clock) in proxies.iter().zip(clocks) {
            wait_until("it is too old", || ask(proxy, name) != first);
            let age = fetched.elapsed();
            assert!(begun.elapsed() >= TTL, "{clock}: {age:?}");
            assert!(age < TTL + LONG / 6, "{clock}: {age:?}");
        }
    }
}

/// When the fetch of this text ended.
fn since(copy: &StoredText) -> Instant {
    match copy.term {
        Term::Since(since) => since,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_whose_clock_is_set_goes_on_and_makes_no_text_younger() {
    let Some(redis) = Redis::start_with_clock() else {
        return;
    };
    let (a, b) = (redis.fleet(), redis.fleet());
    for (round, set) in ["-1d", "-3d", "+2d", "+0"].into_iter().enumerate() {
        let key = |name: &str| format!("{name} {round}").into_bytes();
        keep(&a, &key("kept"), b"a poem");
        let mut text = OnItsWay::new(lead(&a, &key("flies")));
        text.append(&long_poem(70_000));
        let mut following = follow(&b, &key("flies"));
        read_some(&mut *following, 65_024);
        redis.set_clock(set);

        // How old what was kept is can't be known any more.
        for fleet in [&a, &b] {
            assert_ne!(word(&ask(fleet, &key("kept"))), "found", "{set}");
        }
        // Back, the lease is renewed; ahead, it has run out.
        if set.starts_with('-') {
            wait_for_renewals(&redis, 5);
            text.commit();
            let (_, end) = read(&mut *following);
            let News::End { since, is_kept } = end else {
                panic!("{set}: {end:?}")
            };
            assert!(is_kept && since <= Instant::now());
        } else {
            text.commit();
            let (_, end) = read(&mut *following);
            assert!(
                matches!(end, News::Gone | News::End { .. }),
                "{set}: {end:?}"
            );
        }

        // And all goes on with what is new.
        keep(&a, &key("new"), b"another");
        drop(wait_for(&b, &key("new"), "found")); // the text before it may count as kept
        let copy = found(&b, &key("new"));
        assert!(since(&copy) <= Instant::now() && since(&copy).elapsed() < LONG);
        b.purge_begins();
        b.purge(Erase::All, Purge::Hard);
        drop(wait_for(&a, &key("new"), "lead"));
    }
}

#[test]
fn a_lease_that_seems_to_run_for_a_day_runs_no_longer_than_any() {
    let Some(redis) = Redis::start() else { return };
    let (a, b) = (redis.fleet(), redis.fleet());
    // As after the clock was set back, and with a holder that is gone.
    drop(lead(&a, b"k"));
    let name = lease_name(b"k");
    let set = |ms| redis.ask(&["SET", &name, "99:dead.1", "PX", ms]);
    for is_following in [false, true] {
        set("86400000");
        let begun = Instant::now();
        let mut following = follow(&b, b"k");
        if is_following {
            set("86400000"); // it was set back after the question
        }
        assert!(matches!(next(&mut *following), News::Gone));
        assert!(begun.elapsed() < LONG / 4, "{:?}", begun.elapsed());
        drop(wait_for(&a, b"k", "lead"));
        wait_until("it is given back", || redis.names("*:l:*").is_empty());
    }
}
