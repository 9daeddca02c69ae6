//! What the tests of a fleet are made of: questions, texts on their way, what a
//! follower gets, what is told.

use crate::support::{HOUR, Redis, ZERO, wait_until};
use bytes::Bytes;
use poetry::fleet::Fleet;
use poetry::flight::{self, Writer};
use poetry::observe::{AccessRecord, Event, Observer};
use poetry::poem::Poem;
use poetry::rt;
use poetry::tier::{Claim, Follow, Lease, News, Question, StoredText, Tier, Wish};
use sha2::{Digest, Sha256};
use std::sync::Mutex;
use std::time::Duration;

/// What is told of a store.
#[derive(Default)]
pub struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        if let Event::Store { news, .. } = event {
            self.0.lock().unwrap().push(news.to_string());
        }
    }
}

impl Told {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub fn question(key: &[u8]) -> Question<'_> {
    Question {
        key,
        wish: Wish::Text,
        may_lead: true,
        ttl: HOUR,
        grace: ZERO,
    }
}

pub fn claim(fleet: &Fleet, question: Question<'_>) -> Claim {
    rt::block_on(fleet.claim(question))
}

pub fn ask(fleet: &Fleet, key: &[u8]) -> Claim {
    claim(fleet, question(key))
}

pub fn word(claim: &Claim) -> &'static str {
    match claim {
        Claim::Found(_) => "found",
        Claim::Follow(_) => "follow",
        Claim::Lead(_) => "lead",
        Claim::Vacant => "vacant",
        Claim::Alone => "alone",
    }
}

#[track_caller]
pub fn lead(fleet: &Fleet, key: &[u8]) -> Box<dyn Lease> {
    match ask(fleet, key) {
        Claim::Lead(lease) => lease,
        other => panic!("wanted to lead, got {}", word(&other)),
    }
}

#[track_caller]
pub fn follow(fleet: &Fleet, key: &[u8]) -> Box<dyn Follow> {
    match ask(fleet, key) {
        Claim::Follow(follow) => follow,
        other => panic!("wanted to follow, got {}", word(&other)),
    }
}

#[track_caller]
pub fn found(fleet: &Fleet, key: &[u8]) -> StoredText {
    match ask(fleet, key) {
        Claim::Found(found) => found,
        other => panic!("wanted a text, got {}", word(&other)),
    }
}

/// Waits until this is the answer.
pub fn wait_for(fleet: &Fleet, key: &[u8], wanted: &str) -> Claim {
    let mut last = None;
    wait_until(wanted, || {
        let claim = ask(fleet, key);
        let is_it = word(&claim) == wanted;
        last = Some(claim);
        is_it
    });
    last.unwrap()
}

/// What the lease of a key is called, before any purge.
pub fn lease_name(key: &[u8]) -> String {
    let digest = Sha256::digest(key);
    let digits: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
    format!("poetry:1:{{{digits}}}:l:0.0")
}

/// Waits until leases were renewed so many times from now on.
pub fn wait_for_renewals(redis: &Redis, times: u64) {
    // Each sets the time of a lease, and of its pieces.
    let before = redis.calls("pexpire");
    wait_until("leases are renewed", || {
        redis.calls("pexpire") >= before + 2 * times
    });
}

/// How many leases of this part have ended in the server.
pub fn ended(fleet: &Fleet) -> u64 {
    let counts = fleet.counts();
    counts.dropped
        + counts
            .fleet
            .map_or(0, |fleet| fleet.published + fleet.deposed)
}

/// Commits a text that nothing was published of.
pub fn commit(mut lease: Box<dyn Lease>, text: &[u8]) {
    lease.fence();
    lease.commit(Poem::from(Bytes::copy_from_slice(text)), None);
}

/// Has a text kept, and waits until it is.
pub fn keep(fleet: &Fleet, key: &[u8], text: &[u8]) {
    let before = fleet.counts().fleet.unwrap().published;
    commit(lead(fleet, key), text);
    wait_until("it is kept", || {
        fleet.counts().fleet.unwrap().published > before
    });
}

/// A text on its way, and the lease that publishes it.
pub struct OnItsWay {
    writer: Option<Writer>,
    text: Vec<u8>,
    pub lease: Option<Box<dyn Lease>>,
}

impl OnItsWay {
    pub fn new(mut lease: Box<dyn Lease>) -> OnItsWay {
        let writer = flight::launch(1 << 30);
        let reader = writer.flight().read_along();
        lease.publish(reader.expect("it holds its beginning"));
        OnItsWay {
            writer: Some(writer),
            text: Vec::new(),
            lease: Some(lease),
        }
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        let writer = self.writer.as_mut().expect("it goes on");
        writer.append(Bytes::copy_from_slice(bytes));
    }

    pub fn commit(mut self) {
        commit(self.lease.take().unwrap(), &self.text);
    }
}

/// All that a follower gets: the bytes, and the last news.
pub fn read(follow: &mut dyn Follow) -> (Vec<u8>, News) {
    let mut bytes = Vec::new();
    loop {
        match next(follow) {
            News::Bytes(more) => bytes.extend_from_slice(&more),
            last => return (bytes, last),
        }
    }
}

pub fn next(follow: &mut dyn Follow) -> News {
    rt::block_on(follow.next())
}

/// Follows until so many bytes have come.
pub fn read_some(follow: &mut dyn Follow, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match next(follow) {
            News::Bytes(more) => bytes.extend_from_slice(&more),
            other => panic!("after {} bytes: {other:?}", bytes.len()),
        }
    }
    bytes
}

pub fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
