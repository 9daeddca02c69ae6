//! Places before the upstream, and texts that have no room or are too long.

use super::member::{Fleet, MemberTier};
use super::{fleet_counts, wait_for_follows, wait_for_no_lease};
use crate::support::{FakeUpstream, proxy, wait_until};
use std::sync::Arc;
use std::time::Instant;

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
fn a_text_without_room_at_its_holder_is_published_no_longer() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream).capacity(64 << 10));
    let (b, _) = join!(fleet, proxy(&upstream));
    let poem = vec![b'x'; 200 << 10];

    let mut first = a.connect();
    let sending = upstream.accept().send(&poem[..1000]);
    assert_eq!(first.read(1000), &poem[..1000]);
    let mut second = b.connect();
    assert_eq!(second.read(1000), &poem[..1000]);
    let sending = sending.send_in_background(&poem[1000..]);
    assert!(first.rest().unwrap() == poem[1000..]);
    sending.join().unwrap();
    upstream.serve_once(&poem);
    assert!(second.rest().unwrap() == poem[1000..]);
    wait_until("it is in the fleet", || fleet.kept().len() == 1);
    wait_for_no_lease(&fleet);
}

#[test]
fn a_follower_without_room_takes_a_place_and_goes_on_by_itself() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream));
    let (b, _) = join!(fleet, proxy(&upstream).capacity(64 << 10));
    let poem = vec![b'x'; 200 << 10];

    let mut first = a.connect();
    let sending = upstream.accept().send(&poem[..1000]);
    assert_eq!(first.read(1000), &poem[..1000]);
    let mut second = b.connect();
    assert_eq!(second.read(1000), &poem[..1000]);
    let sending = sending.send_in_background(&poem[1000..]);
    let own = upstream.accept().send_in_background(poem.clone());
    assert!(second.rest().unwrap() == poem[1000..]);
    assert!(first.rest().unwrap() == poem[1000..]);
    sending.join().unwrap();
    own.join().unwrap();
    assert_eq!(fleet_counts(&b).alone, 1);
    wait_until("all places are free", || {
        b.snapshot().fetches.unwrap().running == 0
    });
}

#[test]
fn a_text_that_is_too_long_for_the_follower_passes_through() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let (a, _) = join!(fleet, proxy(&upstream));
    let (b, _) = join!(fleet, proxy(&upstream).max_poem(9));
    let mut first = a.connect();
    let sending = upstream.accept().send(b"eight by");
    assert_eq!(first.read(8), b"eight by");
    let mut second = b.connect();
    assert_eq!(second.read(8), b"eight by");
    sending.send(b"tes, and more").close();
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest().unwrap(), b"tes, and more");
    }
    assert!(!b.get_at(Instant::now()).is_hit());
    assert_eq!(upstream.connections(), 1);
}
