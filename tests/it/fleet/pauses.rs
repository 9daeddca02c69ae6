//! Pauses of the server: up to its deadlines they cost time, beyond them a fetch.

use super::parts::{OnItsWay, ask, read, wait_for};
use crate::support::{
    Client, Connection, FakeUpstream, Redis, Service, long_poem, proxy, wait_until,
};
use poetry::fleet::{ANSWER_WAIT, Fleet};
use poetry::tier::{Claim, News, Tier};
use std::sync::Arc;

/// How long a pause is, in ms, and what the server does not do meanwhile.
const PAUSES: [(&str, &str); 6] = [
    ("300", "ALL"),
    ("300", "WRITE"),
    ("1000", "ALL"),
    ("1000", "WRITE"),
    ("5000", "ALL"),
    ("5000", "WRITE"),
];

/// With deadlines by default: 50 ms for an answer, 500 ms for bytes.
fn hasty(redis: &Redis) -> Arc<Fleet> {
    redis.fleet_of(|fleet| fleet.answer_wait = ANSWER_WAIT)
}

fn found_or_led(fleet: &Fleet) -> Claim {
    let mut last = None;
    wait_until("found or led", || {
        let claim = ask(fleet, b"k");
        let is_it = matches!(claim, Claim::Found(_) | Claim::Lead(_));
        last = Some(claim);
        is_it
    });
    last.unwrap()
}

#[test]
fn pauses_of_the_server_cost_no_text() {
    for (millis, what) in PAUSES {
        let Some(redis) = Redis::start() else { return };
        let (a, b) = (hasty(&redis), hasty(&redis));
        let poem = long_poem(200_000);
        let Claim::Lead(lease) = wait_for(&a, b"k", "lead") else {
            panic!()
        };
        let mut text = OnItsWay::new(lease);
        text.append(&poem[..70_000]);
        let Claim::Follow(mut following) = wait_for(&b, b"k", "follow") else {
            panic!()
        };

        redis.ask(&["CLIENT", "PAUSE", millis, what]);
        text.append(&poem[70_000..]);
        text.commit();
        let (bytes, end) = read(&mut *following);
        assert!(poem.starts_with(&bytes));
        match end {
            News::End { is_kept, .. } => assert!(is_kept && bytes == poem),
            News::Gone => {}
            other => panic!("{millis} {what}: {other:?}"),
        }
        wait_until("it is well again", || {
            a.counts().is_open && b.counts().is_open
        });
        if let Claim::Found(copy) = found_or_led(&b) {
            assert!(copy.text == poem);
        }
    }
}

/// Two proxies, of which the second follows the first, as soon as the machine lets it.
struct Pair {
    upstream: FakeUpstream,
    half: Connection,
    clients: [Client; 2],
    _proxies: [Service; 2],
}

fn pair(redis: &Redis, half: &[u8]) -> Pair {
    loop {
        let upstream = FakeUpstream::new();
        let start = || proxy(&upstream).tier(hasty(redis)).start();
        let (a, b) = (start(), start());
        let fleet = |proxy: &Service| proxy.snapshot().store.unwrap().fleet.unwrap();
        let first = a.connect();
        let connection = upstream.accept().send(half);
        let second = b.connect();
        wait_until("it has asked", || fleet(&b).follows + fleet(&b).alone > 0);
        if fleet(&a).leads == 1 && fleet(&b).follows == 1 && fleet(&b).alone == 0 {
            return Pair {
                upstream,
                half: connection,
                clients: [first, second],
                _proxies: [a, b],
            };
        }
    }
}

#[test]
fn clients_get_their_whole_poem_however_long_the_server_pauses() {
    let poem = long_poem(200_000);
    for (millis, what) in PAUSES {
        let Some(redis) = Redis::start() else { return };
        let pair = pair(&redis, &poem[..100_000]);
        redis.ask(&["CLIENT", "PAUSE", millis, what]);

        // B may fetch itself: it gets the same again.
        let again = poem.clone();
        pair.upstream.serve_each(move |_, connection| {
            drop(connection.send_in_background(again.clone()));
        });
        pair.half.send(&poem[100_000..]).close();
        for mut client in pair.clients {
            assert!(client.rest().unwrap() == poem, "{millis} {what}");
        }
    }
}
