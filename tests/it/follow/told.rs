//! What the logs are told.

use super::member::{Fleet, MemberTier};
use super::{lead, wait_for_follows};
use crate::support::{FakeUpstream, Service, proxy, wait_until};
use poetry::observe::{AccessRecord, Event, Observer, StoreUse};
use std::sync::{Arc, Mutex};

/// What the logs are told of the store.
#[derive(Default)]
struct Told(Mutex<Vec<(Option<StoreUse>, bool)>>);

impl Told {
    fn wait_for(&self, requests: usize) {
        wait_until("they have ended", || {
            self.0.lock().unwrap().len() == requests
        });
    }
}

impl Observer for Told {
    fn request(&self, record: &AccessRecord<'_>) {
        let told = record.fetch.map(|note| (note.store, note.is_takeover));
        self.0.lock().unwrap().extend(told);
    }

    fn event(&self, _: Event<'_>) {}
}

#[test]
fn each_request_says_what_the_fleet_had_to_do_with_it() {
    let upstream = FakeUpstream::new();
    let fleet = Fleet::new();
    let told = [(); 2].map(|()| Arc::new(Told::default()));
    let build = |at: usize| proxy(&upstream).line().server_observer(told[at].clone());
    let (a, _) = join!(fleet, build(0));
    let (b, member) = join!(fleet, build(1));

    let ask = |proxy: &Service, name: &[u8]| {
        let client = proxy.request(name);
        (client, upstream.accept().skip(name.len()))
    };
    // A leads, B follows, and finds a copy of another.
    let (mut first, sending) = ask(&a, b"x\r\n");
    let mut second = b.request(b"x\r\n");
    wait_for_follows(&b, 1);
    sending.send(b"x").close();
    first.rest().unwrap();
    second.rest().unwrap();
    told[1].wait_for(1);
    let (mut first, sending) = ask(&a, b"y\r\n");
    sending.send(b"y").close();
    first.rest().unwrap();
    wait_until("it is in the fleet", || fleet.kept().len() == 2);
    b.ask(b"y\r\n").unwrap();
    told[1].wait_for(2);

    // B takes over, and is alone.
    let key = b.proxy().whole_key(b"z");
    let token = fleet.change(|ledger| lead(ledger, &key));
    let mut second = b.request(b"z\r\n");
    wait_for_follows(&b, 2);
    fleet.change(|ledger| ledger.expire_token(&key, token));
    upstream.accept().skip(3).send(b"z").close();
    second.rest().unwrap();
    told[1].wait_for(3);
    member.set_down(true);
    let (mut second, sending) = ask(&b, b"w\r\n");
    sending.send(b"w").close();
    second.rest().unwrap();

    use StoreUse::*;
    let wanted: [&[(Option<StoreUse>, bool)]; 2] = [
        &[(Some(Lead), false), (Some(Lead), false)],
        &[
            (Some(Follow), false),
            (Some(Hit), false),
            (Some(Lead), true),
            (Some(Alone), false),
        ],
    ];
    for (told, wanted) in told.iter().zip(wanted) {
        told.wait_for(wanted.len());
        assert_eq!(*told.0.lock().unwrap(), wanted);
    }
}
