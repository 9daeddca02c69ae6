//! Two proxies and what they share: one fetches, the other follows. The fleet is in
//! memory here, so that each test decides what goes wrong.

mod ledger;
mod member;
mod model;

use crate::support::{
    FakeUpstream, HOUR, RESET, Service, ZERO, count, proxy, unused_addr, wait_for_count, wait_until,
};
use ledger::{Asked, Ledger, LogEnd, Look, Token};
use member::{Fleet, Member, MemberTier};
use poetry::cache::Purge;
use poetry::control::{FleetCounts, Texts};
use poetry::rt::block_on;
use poetry::tier::{Tier, Wish};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A proxy, and its part of the fleet.
macro_rules! join {
    ($fleet:expr, $builder:expr) => {{
        let member = $fleet.member();
        let proxy = $builder.tier(Arc::new(MemberTier(member.clone()))).start();
        (proxy, member)
    }};
}

/// Two proxies of one upstream.
fn pair(upstream: &FakeUpstream) -> (Arc<Fleet>, [(Service, Arc<Member>); 2]) {
    let fleet = Fleet::new();
    let both = [(); 2].map(|()| join!(fleet, proxy(upstream)));
    (fleet, both)
}

fn fleet_counts(proxy: &Service) -> FleetCounts {
    proxy.snapshot().store.unwrap().fleet.unwrap()
}

fn wait_for_readers(proxy: &Service, wanted: u64) {
    wait_until("they wait", || {
        proxy.snapshot().fetches.unwrap().readers == wanted
    });
}

fn wait_for_follows(proxy: &Service, wanted: u64) {
    wait_until("it follows", || fleet_counts(proxy).follows == wanted);
}

fn wait_for_no_lease(fleet: &Fleet) {
    wait_until("no lease is out", || fleet.leases() == 0);
}

#[test]
fn a_client_of_another_proxy_gets_what_has_come_at_once_and_the_rest_as_it_comes() {
    let upstream = FakeUpstream::new();
    let (fleet, [(a, _), (b, _)]) = pair(&upstream);

    let mut first = a.connect();
    let sending = upstream.accept().send(b"once ");
    assert_eq!(first.read(5), b"once ");
    let mut second = b.connect();
    assert_eq!(second.read(5), b"once ");

    let sending = sending.send(b"upon ");
    assert_eq!(second.read(5), b"upon ");
    sending.send(b"a time").close();
    assert_eq!(second.rest().unwrap(), b"a time");
    assert_eq!(first.rest().unwrap(), b"upon a time");

    wait_until("it is in the fleet", || {
        fleet.kept() == [b"once upon a time"]
    });
    for proxy in [&a, &b] {
        assert!(proxy.get_at(Instant::now()).is_hit());
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!((fleet_counts(&a).leads, fleet_counts(&b).follows), (1, 1));
    assert_eq!(fleet_counts(&a).published, 1);
    assert_eq!(fleet.leases(), 0);
}

#[test]
fn a_hit_and_a_second_miss_ask_the_fleet_nothing() {
    let upstream = FakeUpstream::new();
    let (_, [(a, member), _]) = pair(&upstream);

    let mut clients: Vec<_> = (0..3).map(|_| a.connect()).collect();
    wait_for_readers(&a, 3);
    upstream.serve_once(b"a poem");
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"a poem");
    }
    wait_for_count("kept", &a.stats.kept, 1);
    for _ in 0..5 {
        assert_eq!(a.get().unwrap(), b"a poem");
    }
    assert_eq!(count(&member.asked), 1);
}

#[test]
fn a_copy_expires_its_ttl_after_the_end_of_the_fetch_by_each_proxys_own_ttl() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).ttl(HOUR));
    let (b, _) = join!(fleet, proxy(&upstream).ttl(HOUR * 3));

    let mut client = a.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    wait_until("it is in the fleet", || !fleet.kept().is_empty());
    let now = Instant::now();
    let end = now - HOUR / 2;
    fleet.change(|ledger| ledger.set_age(HOUR / 2, now));

    assert_eq!(b.get().unwrap(), b"a poem");
    let just_before = end + HOUR * 3 - Duration::from_millis(1);
    assert!(b.get_at(just_before).is_hit());
    assert!(!b.get_at(end + HOUR * 3).is_hit());
    assert!(!a.get_at(now + HOUR * 2).is_hit(), "its own ttl is shorter");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_copy_in_grace_is_served_at_once_and_refreshed_once() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let build = || proxy(&upstream).grace(HOUR);
    let (a, _) = join!(fleet, build());
    let mut client = a.connect();
    upstream.serve_once(b"old");
    assert_eq!(client.rest().unwrap(), b"old");
    wait_until("it is in the fleet", || !fleet.kept().is_empty());
    fleet.change(|ledger| ledger.set_age(HOUR + HOUR / 2, Instant::now()));

    let (b, _) = join!(fleet, build());
    let (c, _) = join!(fleet, build());
    assert_eq!(b.get().unwrap(), b"old");
    let sending = upstream.accept().send(b"ne");
    for _ in 0..3 {
        assert_eq!(b.get().unwrap(), b"old");
        assert_eq!(c.get().unwrap(), b"old");
    }
    wait_for_follows(&c, 1);
    sending.send(b"w").close();
    for proxy in [&b, &c] {
        wait_until("it is refreshed", || proxy.get().unwrap() == b"new");
    }
    assert_eq!(upstream.connections(), 2);
    assert_eq!(fleet_counts(&b).leads, 1);
}

#[test]
fn a_copy_older_than_the_grace_is_not_used() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).grace(HOUR));
    let mut client = a.connect();
    upstream.serve_once(b"old");
    assert_eq!(client.rest().unwrap(), b"old");
    wait_until("it is in the fleet", || !fleet.kept().is_empty());
    fleet.change(|ledger| ledger.set_age(HOUR * 2, Instant::now()));

    let (b, _) = join!(fleet, proxy(&upstream).grace(HOUR));
    let mut client = b.connect();
    upstream.serve_once(b"new");
    assert_eq!(client.rest().unwrap(), b"new");
}

#[test]
fn a_proxy_that_keeps_shorter_than_the_fleet_takes_no_copy_that_is_too_old_for_it() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).ttl(HOUR * 9));
    let mut client = a.connect();
    upstream.serve_once(b"old");
    assert_eq!(client.rest().unwrap(), b"old");
    wait_until("it is in the fleet", || !fleet.kept().is_empty());
    fleet.change(|ledger| ledger.set_age(HOUR, Instant::now()));

    // The ttl of its pattern is shorter than the one that the tier knows of.
    let short = [("old", HOUR / 2), ("never", HOUR * 9)];
    let (b, _) = join!(fleet, proxy(&upstream).ttl_for(&short, 0.0));
    let mut client = b.connect();
    upstream.serve_once(b"new");
    assert_eq!(client.rest().unwrap(), b"new");
}

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

/// Takes the lease of a key for a process that is not there.
fn lead(ledger: &mut Ledger, key: &[u8]) -> Token {
    let asked = Asked {
        wish: Wish::New,
        may_lead: true,
        ttl: HOUR,
        grace: ZERO,
    };
    match ledger.look(key, asked, Instant::now()) {
        Look::Lead(token) => token,
        other => panic!("{other:?}"),
    }
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
    let (a, member) = join!(fleet, proxy(&upstream).upstreams(&[nowhere]));
    assert_eq!(a.get(), RESET);
    wait_for_no_lease(&fleet);
    assert_eq!(count(&member.published), 0);
}

#[test]
fn what_the_holder_rejects_is_passed_on_and_kept_nowhere() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).reject("rate"));
    let (b, _) = join!(fleet, proxy(&upstream));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"rate ");
    assert_eq!(first.read(5), b"rate ");
    let mut second = b.connect();
    assert_eq!(second.read(5), b"rate ");
    sending.send(b"exceeded").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"exceeded");
    }

    wait_for_no_lease(&fleet);
    assert!(fleet.kept().is_empty());
    wait_until("B keeps nothing", || !b.get_at(Instant::now()).is_hit());
}

#[test]
fn what_the_follower_rejects_is_passed_on_and_not_kept_by_it() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream));
    let (b, _) = join!(fleet, proxy(&upstream).min_bytes(9));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a ");
    assert_eq!(first.read(2), b"a ");
    let mut second = b.connect();
    assert_eq!(second.read(2), b"a ");
    sending.send(b"poem").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    wait_until("A keeps it", || a.get_at(Instant::now()).is_hit());
    assert!(!b.get_at(Instant::now()).is_hit());

    // And a copy of it is not used.
    let mut client = b.connect();
    upstream.serve_once(b"a longer poem");
    assert_eq!(client.rest().unwrap(), b"a longer poem");
}

#[test]
fn without_a_ttl_all_get_one_fetch_whole_and_nothing_is_kept() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).ttl(ZERO));
    let (b, _) = join!(fleet, proxy(&upstream).ttl(ZERO));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a ");
    assert_eq!(first.read(2), b"a ");
    let mut second = b.connect();
    assert_eq!(second.read(2), b"a ");
    sending.send(b"poem").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    wait_for_no_lease(&fleet);
    assert!(fleet.kept().is_empty());

    let mut client = b.connect();
    upstream.serve_once(b"another");
    assert_eq!(client.rest().unwrap(), b"another");
}

#[test]
fn a_text_that_is_too_long_for_its_holder_costs_each_proxy_its_fetch_and_no_client() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).max_poem(9));
    let (b, _) = join!(fleet, proxy(&upstream));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"eight by");
    assert_eq!(first.read(8), b"eight by");
    let mut second = b.connect();
    assert_eq!(second.read(8), b"eight by");

    let sending = sending.send(b"tes, and");
    assert_eq!(first.read(8), b"tes, and");
    upstream.serve_once(b"eight bytes, and more");
    assert_eq!(second.rest().unwrap(), b"tes, and more");
    sending.send(b" more").close();
    assert_eq!(first.rest().unwrap(), b" more");
    assert_eq!(fleet.kept(), [b"eight bytes, and more"]);
    wait_for_no_lease(&fleet);
}

#[test]
fn what_waits_for_the_whole_text_is_published_and_followed_at_its_end() {
    let upstream = FakeUpstream::new();
    for (whole_a, whole_b) in [(true, true), (true, false), (false, true)] {
        let fleet = Fleet::new();
        let (a, _) = join!(fleet, proxy(&upstream).whole(whole_a));
        let (b, _) = join!(fleet, proxy(&upstream).whole(whole_b));
        let mut first = a.connect();
        let sending = upstream.accept().send(b"a ");
        let mut second = b.connect();
        wait_for_follows(&b, 1);
        sending.send(b"poem").close();
        for client in [&mut first, &mut second] {
            assert_eq!(client.rest().unwrap(), b"a poem");
        }
        wait_until("it is in the fleet", || fleet.kept() == [b"a poem"]);
        wait_until("B keeps it", || b.get_at(Instant::now()).is_hit());
    }
}

#[test]
fn a_transformed_text_is_shared_by_those_with_the_same_transformation() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let build = || proxy(&upstream).transform(&["shout"]);
    let (a, _) = join!(fleet, build());
    let (b, _) = join!(fleet, build());
    let (c, _) = join!(fleet, proxy(&upstream));

    let mut first = a.connect();
    let sending = upstream.accept().send(b"abc");
    let mut second = b.connect();
    wait_for_follows(&b, 1);
    sending.close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"ABC");
    }
    let mut third = c.connect();
    upstream.serve_once(b"abc");
    assert_eq!(third.rest().unwrap(), b"abc");
}

#[test]
fn a_refresh_that_brings_a_prefix_is_fetched_twice_and_published_once() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let build = || proxy(&upstream).grace(HOUR);
    let (a, _) = join!(fleet, build());
    let (b, _) = join!(fleet, build());
    let mut client = a.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    wait_until("it is in the fleet", || !fleet.kept().is_empty());
    assert_eq!(b.get().unwrap(), b"a poem");

    let late = Instant::now() + HOUR;
    fleet.change(|ledger| ledger.set_age(HOUR, Instant::now()));
    assert_eq!(a.get_at(late).read(), b"a poem");
    let sending = upstream.accept().send(b"a po");
    assert_eq!(b.get_at(late).read(), b"a poem");
    wait_for_follows(&b, 1);
    sending.close();
    upstream.serve_once(b"another");
    for proxy in [&a, &b] {
        wait_until("it is refreshed", || proxy.get().unwrap() == b"another");
    }
    assert_eq!(fleet.kept(), [b"another"]);
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn a_purge_reaches_the_memory_of_every_proxy() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).line());
    let (b, _) = join!(fleet, proxy(&upstream).line());
    for name in [&b"x\r\n"[..], b"y\r\n"] {
        let mut client = a.request(name);
        upstream.accept().skip(name.len()).send(name).close();
        assert_eq!(client.rest().unwrap(), name);
        wait_until("it is in the fleet", || {
            fleet.kept().contains(&name.to_vec())
        });
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
    assert_eq!(fleet.kept().len(), 0);
}

#[test]
fn a_purge_during_a_fetch_lets_all_finish_and_keeps_it_nowhere() {
    let upstream = FakeUpstream::new();
    let (fleet, [(a, _), (b, _)]) = pair(&upstream);
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(first.read(4), b"a po");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");

    b.purge(Texts::All, Purge::Hard);
    // Whoever asks from now on gets a text that was fetched after the purge.
    let mut third = b.connect();
    let again = upstream.accept();
    sending.send(b"em").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"em");
    }
    assert!(fleet.kept().is_empty());
    again.send(b"a new poem").close();
    assert_eq!(third.rest().unwrap(), b"a new poem");
    wait_until("it is in the fleet", || fleet.kept() == [b"a new poem"]);
}

#[test]
fn a_lease_is_not_held_by_a_fetch_that_waits_for_its_place() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).line().upstream_conns(1));
    let (b, _) = join!(fleet, proxy(&upstream).line().upstream_conns(1));

    let mut first = a.request(b"x\r\n");
    let busy = upstream.accept().skip(3);
    let mut waits = a.request(b"y\r\n");
    a.wait_for_waiting(1);
    assert_eq!(fleet.leases(), 1);

    // The other proxy has a place: it fetches what the first one waits for.
    let mut other = b.request(b"y\r\n");
    let sending = upstream.accept().skip(3);
    assert_eq!(fleet.leases(), 2);
    busy.send(b"x").close();
    assert_eq!(first.rest().unwrap(), b"x");
    wait_for_follows(&a, 1);
    sending.send(b"y").close();
    for client in [&mut waits, &mut other] {
        assert_eq!(client.rest().unwrap(), b"y");
    }
    assert_eq!(upstream.connections(), 2);
    wait_until("all places are free", || {
        a.snapshot().fetches.unwrap().running == 0
    });
    assert_eq!(fleet.leases(), 0);
}

#[test]
fn a_follower_needs_no_place_before_the_upstream() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).line());
    let (b, _) = join!(fleet, proxy(&upstream).line().upstream_conns(1));
    let _busy = b.request(b"x\r\n");
    let _hangs = upstream.accept().skip(3);

    let mut first = a.request(b"y\r\n");
    let sending = upstream.accept().skip(3);
    let mut second = b.request(b"y\r\n");
    wait_for_follows(&b, 1);
    sending.send(b"y").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"y");
    }
}

#[test]
fn a_proxy_that_stops_gives_its_leases_back() {
    let upstream = FakeUpstream::new();
    let (fleet, [(a, holder), (b, _)]) = pair(&upstream);
    let _first = a.connect();
    let _sending = upstream.accept().send(b"a po");
    let mut second = b.connect();
    assert_eq!(second.read(4), b"a po");

    assert!(block_on(MemberTier(holder).close(HOUR)));
    upstream.serve_once(b"a poem");
    assert_eq!(second.rest().unwrap(), b"em");
    assert_eq!(fleet.kept(), [b"a poem"]);
}

#[test]
fn clients_that_leave_while_their_proxy_follows_change_nothing() {
    let upstream = FakeUpstream::new();
    let (_, [(a, _), (b, _)]) = pair(&upstream);
    let mut first = a.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(first.read(4), b"a po");
    let second = b.connect();
    wait_for_follows(&b, 1);
    second.reset();
    wait_for_readers(&b, 0);
    sending.send(b"em").close();
    assert_eq!(first.rest().unwrap(), b"em");
    wait_until("B keeps it", || b.get_at(Instant::now()).is_hit());
    assert_eq!(b.get().unwrap(), b"a poem");
}
