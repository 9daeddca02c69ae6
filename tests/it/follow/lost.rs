//! What happens when a holder, the store or the pieces are lost, or a fetch fails.

use super::ledger::LogEnd;
use super::member::{Fleet, MemberTier};
use super::{fleet_counts, lead, pair, wait_for_follows, wait_for_no_lease};
use crate::support::{
    Client, FakeUpstream, HOUR, RESET, Trap, count, proxy, unused_addr, wait_for_count, wait_until,
};
use poetry::cache::Purge;
use poetry::control::{FleetCounts, Texts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{park_timeout, scope, spawn};
use std::time::{Duration, Instant};

/// What becomes of a client of B if the proxy that fetches dies, and the next fetch
/// brings `again`.
fn dies(passed: &[u8], again: &[u8], want: Result<Vec<u8>, std::io::ErrorKind>) {
    let upstream = FakeUpstream::new();
    let (fleet, [(a, holder), (b, _)]) = pair(&upstream);
    let mut first = a.connect();
    let sending = upstream.accept().send(passed);
    assert_eq!(first.read(passed.len()), passed);

    let mut second = b.connect();
    assert_eq!(second.read(passed.len()), passed);
    wait_for_follows(&b, 1);
    holder.die();
    upstream.serve_once(again);
    let want = want.map(|whole| whole[passed.len()..].to_vec());
    assert_eq!(second.rest(), want);

    let counts = fleet_counts(&b);
    assert_eq!((counts.takeovers, counts.leads), (1, 1));
    assert_eq!(counts.proofs_failed, u64::from(want.is_err()));
    wait_for_no_lease(&fleet);
    let kept: &[Vec<u8>] = &[again.to_vec()];
    assert_eq!(fleet.kept(), if want.is_ok() { kept } else { &[] });

    sending.send(b"'s own").close();
    let own = first.rest().unwrap();
    assert_eq!(own, b"'s own", "its own client gets its own poem");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_follower_whose_holder_dies_fetches_itself() {
    dies(b"", b"a poem", Ok(b"a poem".to_vec()));
}

#[test]
fn the_same_bytes_again_prove_a_text_and_are_passed_on_once() {
    dies(b"a po", b"a poem", Ok(b"a poem".to_vec()));
    dies(b"a poem", b"a poem", Ok(b"a poem".to_vec()));
}

#[test]
fn another_text_is_not_added_to_what_was_passed_on() {
    dies(b"a po", b"a bold poem", RESET);
    dies(b"a po", b"a p", RESET);
}

#[test]
fn of_several_followers_one_takes_over_and_the_others_follow_it() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, holder) = join!(fleet, proxy(&upstream));
    let others: Vec<_> = (0..3).map(|_| join!(fleet, proxy(&upstream))).collect();

    let _first = a.connect();
    let _sending = upstream.accept().send(b"once ");
    let mut clients: Vec<_> = others.iter().map(|(proxy, _)| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.read(5), b"once ");
    }
    holder.die();
    let sending = upstream.accept().send(b"once upon ");
    for client in &mut clients {
        assert_eq!(client.read(5), b"upon ");
    }

    // The one that took over dies, too.
    let taker = |counts: &FleetCounts| counts.leads == 1;
    let taken = others.iter().find(|(b, _)| taker(&fleet_counts(b)));
    taken.unwrap().1.die();
    upstream.serve_once(b"once upon a time");
    sending.send(b"a time").close();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"a time");
    }
    let all = others.iter().map(|(proxy, _)| fleet_counts(proxy));
    assert_eq!(all.map(|counts| counts.takeovers).sum::<u64>(), 2);
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn pieces_that_are_lost_cost_a_fetch_and_no_client() {
    let upstream = FakeUpstream::new();
    let (fleet, [(a, _), (b, _)]) = pair(&upstream);
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(first.read(4), b"a po");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");

    let key = a.proxy().whole_key(b"");
    fleet.change(|ledger| {
        ledger.evict_logs(&key);
        ledger.expire_leases(&key);
    });
    upstream.serve_once(b"a poem");
    sending.send(b"em").close();
    assert_eq!(first.rest().unwrap(), b"em");
    assert_eq!(second.rest().unwrap(), b"em");
    assert_eq!(fleet.kept(), [b"a poem"]);
    wait_until("it is deposed", || fleet_counts(&a).deposed == 1);
}

#[test]
fn without_the_store_each_proxy_fetches_for_itself_and_goes_on_with_what_it_has() {
    let upstream = FakeUpstream::new();
    let (fleet, [(a, _), (b, member)]) = pair(&upstream);
    let _first = a.connect();
    let _sending = upstream.accept().send(b"a po");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");

    member.set_down(true);
    fleet.change(|_| ()); // it learns of it
    upstream.serve_once(b"a poem");
    assert_eq!(second.rest().unwrap(), b"em");
    assert_eq!(fleet_counts(&b).alone, 1);
    wait_until("B keeps it", || b.get_at(Instant::now()).is_hit());
}

#[test]
fn a_failure_at_the_holder_fails_its_followers_and_their_fail_ttl_applies() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream));
    let (b, _) = join!(fleet, proxy(&upstream).fail_ttl(HOUR));

    let mut first = a.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(first.read(4), b"a po");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");
    sending.reset();
    assert_eq!(first.rest(), RESET);
    assert_eq!(second.rest(), RESET);

    assert_eq!(b.get(), RESET, "the failure is cached");
    assert_eq!(upstream.connections(), 1);
    wait_for_no_lease(&fleet);
    let mut client = a.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
}

#[test]
fn a_follower_of_a_proxy_that_reaches_no_upstream_tries_once_itself() {
    let upstream = FakeUpstream::new();
    let (fleet, [(b, _), _]) = pair(&upstream);
    let key = b.proxy().whole_key(b"");
    let token = fleet.change(|ledger| lead(ledger, &key));
    let mut client = b.connect();
    wait_for_follows(&b, 1);

    let unreached = LogEnd::Unreached;
    fleet.change(|ledger| ledger.end(&key, token, unreached, Instant::now()));
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    assert_eq!((fleet_counts(&b).leads, fleet_counts(&b).takeovers), (1, 0));
}

#[test]
fn a_second_proxy_that_reaches_no_upstream_fails_a_follower() {
    let upstream = FakeUpstream::new();
    let (fleet, [(b, _), _]) = pair(&upstream);
    let key = b.proxy().whole_key(b"");
    let first = fleet.change(|ledger| lead(ledger, &key));
    let mut client = b.connect();
    wait_for_follows(&b, 1);

    let now = Instant::now();
    let second = fleet.change(|ledger| {
        ledger.end(&key, first, LogEnd::Unreached, now);
        lead(ledger, &key)
    });
    wait_for_follows(&b, 2);
    fleet.change(|ledger| ledger.end(&key, second, LogEnd::Unreached, now));
    assert_eq!(client.rest(), RESET);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_holder_that_reaches_no_upstream_says_so() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let nowhere = unused_addr();
    let (a, _) = join!(fleet, proxy(&upstream).upstreams(&[nowhere]));
    assert_eq!(a.get(), RESET);
    wait_for_no_lease(&fleet);
    let key = a.proxy().whole_key(b"");
    let told = fleet.change(|ledger| ledger.read(&key, 1, 0, Instant::now()));
    assert_eq!(told, Some((Vec::new(), Some(LogEnd::Unreached))));
}

#[test]
fn a_panic_in_a_fetch_gives_its_lease_back_and_costs_others_nothing() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let trap = Trap::at_the_end_of_a_fetch();
    let (a, _) = join!(fleet, proxy(&upstream).observer(trap.clone()));
    let (b, _) = join!(fleet, proxy(&upstream));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(first.read(4), b"a po");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");

    trap.arm();
    sending.reset();
    assert_eq!(first.rest(), RESET);
    upstream.serve_once(b"a poem");
    assert_eq!(second.rest().unwrap(), b"em");
    assert!(!trap.is_armed(), "it was the panic that ended it");
    wait_for_no_lease(&fleet);
}

#[test]
fn a_panic_in_a_follower_fails_its_clients_and_no_one_elses() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let trap = Trap::at_the_start_of_a_fetch();
    let (a, _) = join!(fleet, proxy(&upstream));
    let (b, _) = join!(fleet, proxy(&upstream).observer(trap.clone()));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(first.read(4), b"a po");

    trap.arm();
    assert_eq!(b.get(), RESET);
    wait_for_count("panics", &b.stats.panics, 1);
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");
    sending.send(b"em").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"em");
    }
}

#[test]
fn a_follower_asks_three_holders_and_fetches_alone_then() {
    let upstream = FakeUpstream::new();
    let (fleet, [(b, _), _]) = pair(&upstream);
    let key = b.proxy().whole_key(b"");
    let mut token = fleet.change(|ledger| lead(ledger, &key));
    let mut client = b.connect();
    for follows in 1..=3 {
        wait_for_follows(&b, follows);
        token = fleet.change(|ledger| {
            ledger.expire_token(&key, token);
            lead(ledger, &key)
        });
    }
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    let counts = fleet_counts(&b);
    assert_eq!((counts.follows, counts.alone, counts.leads), (3, 1, 0));
}

/// The poem of a name: long enough to come in pieces.
fn poem_of(name: &[u8]) -> Vec<u8> {
    [name, &b"x".repeat(3000)].concat()
}

#[test]
fn in_a_storm_of_deaths_purges_and_losses_every_client_gets_its_whole_poem() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let build = || proxy(&upstream).line().ttl(Duration::from_millis(30));
    let members: Vec<_> = (0..3).map(|_| join!(fleet, build())).collect();
    upstream.serve_each(|_, connection| {
        spawn(move || {
            let (connection, request) = connection.read(3);
            let poem = poem_of(&request[..1]);
            let (first, rest) = poem.split_at(1000);
            park_timeout(Duration::from_millis(1));
            let connection = connection.try_send(first);
            park_timeout(Duration::from_millis(4));
            connection.try_send(rest).close();
        });
    });

    let until = Instant::now() + Duration::from_secs(3);
    let answers = AtomicU64::new(0);
    scope(|scope| {
        for client in 0..9 {
            let addr = members[client % 3].0.addr;
            let answers = &answers;
            scope.spawn(move || {
                for turn in client.. {
                    let name = [b'a' + (turn % 8) as u8];
                    let request = [&name[..], b"\r\n"].concat();
                    assert_eq!(Client::ask(addr, &request), Ok(poem_of(&name)), "{turn}");
                    answers.fetch_add(1, Ordering::Relaxed);
                    if Instant::now() > until {
                        return;
                    }
                }
            });
        }

        // What goes wrong meanwhile.
        for turn in 0.. {
            let (proxy, member) = &members[turn % 3];
            let key = proxy.proxy().whole_key(&[b'a' + (turn % 8) as u8]);
            match turn % 5 {
                0 => member.die(),
                1 => fleet.change(|ledger| ledger.evict_logs(&key)),
                2 => fleet.change(|ledger| ledger.expire_leases(&key)),
                3 => proxy.purge(Texts::All, Purge::Hard),
                _ => members
                    .iter()
                    .for_each(|(_, member)| member.set_down(false)),
            }
            fleet.change(|_| ()); // those that follow look
            park_timeout(Duration::from_millis(2));
            if Instant::now() > until {
                break;
            }
        }
    });

    let counts: Vec<_> = members
        .iter()
        .map(|(proxy, _)| fleet_counts(proxy))
        .collect();
    println!("{} answers, {counts:?}", answers.into_inner());
    assert!(
        counts
            .iter()
            .all(|counts| counts.follows > 0 && counts.proofs_failed == 0)
    );
    for (proxy, member) in &members {
        member.set_down(false);
        wait_until("all places are free", || {
            proxy.snapshot().fetches.unwrap().running == 0
        });
        assert_eq!(count(&proxy.stats.panics), 0);
    }
}
