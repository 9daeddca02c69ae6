//! Two proxies and what they share: one fetches, the other follows. The fleet is in
//! memory here, so that each test decides what goes wrong.
//!
//! | file | question |
//! |---|---|
//! | `follow/copies.rs` | Which text is kept, and how long? |
//! | `follow/lost.rs` | What happens when something is lost? |
//! | `follow/room.rs` | Which fetch has a place, and what if there is no room? |
//! | `follow/told.rs` | What do the logs say? |
//! | `follow/model.rs` | Does that hold in every order? |
//! | `follow/ledger.rs`, `follow/member.rs` | the fleet in memory |
//! | `follow/scene.rs` | how the tests begin |

/// A proxy, and its part of the fleet.
macro_rules! join {
    ($fleet:expr, $builder:expr) => {{
        let member = $fleet.member();
        let proxy = $builder.tier(Arc::new(MemberTier(member.clone()))).start();
        (proxy, member)
    }};
}

mod copies;
mod ledger;
mod lost;
mod member;
mod model;
mod room;
mod scene;
mod told;

use crate::support::{FakeUpstream, HOUR, Service, ZERO, count, proxy, wait_for_count, wait_until};
use ledger::{Asked, Ledger, Look, Token};
use member::{Fleet, Member, MemberTier};
use poetry::control::FleetCounts;
use poetry::rt::block_on;
use poetry::tier::{Tier, Wish};
use std::sync::Arc;
use std::time::Instant;

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
