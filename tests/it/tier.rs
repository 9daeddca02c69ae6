//! What is behind the cache: who asks it, and what becomes of its answers. It is a
//! script here.

use crate::support::{FakeUpstream, HOUR, RESET, ZERO, count, proxy, wait_for_count, wait_until};
use futures::FutureExt;
use futures::future::BoxFuture;
use poetry::cache::{Freshness, Purge};
use poetry::control::{StoreCounts, Texts};
use poetry::poem::Poem;
use poetry::semaphore::Semaphore;
use poetry::tier::{
    Claim, Erase, Lease, OnPurge, PurgedElsewhere, Question, StoredText, Term, Tier, Wish,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// By the end of their keys: texts, and how long they may be served.
type Copies = HashMap<Vec<u8>, (&'static [u8], Freshness)>;

/// A tier that has what a test puts into it.
#[derive(Default)]
struct Script {
    texts: Mutex<Copies>,
    asked: AtomicU64,
    asked_for_newer: AtomicU64,
    is_silent: AtomicBool,
    leases: Arc<AtomicU64>,
    committed: Arc<Mutex<Vec<Vec<u8>>>>,
    purges: AtomicU64,
    tell: Mutex<Option<OnPurge>>,
}

impl Script {
    fn with(text: &'static [u8], fresh_until: Instant, stale_until: Instant) -> Arc<Script> {
        let script = Script::default();
        let freshness = Freshness {
            fresh_until,
            stale_until,
        };
        let mut texts = script.texts.lock().unwrap();
        texts.insert(Vec::new(), (text, freshness));
        drop(texts);
        Arc::new(script)
    }

    /// As if another process had purged these.
    fn purged_elsewhere(&self, texts: PurgedElsewhere<'_>) {
        let tell = self.tell.lock().unwrap().clone().unwrap();
        tell(texts, Purge::Hard);
    }

    fn committed(&self) -> Vec<Vec<u8>> {
        self.committed.lock().unwrap().clone()
    }
}

impl Tier for Script {
    fn claim<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Claim> {
        let Question { key, wish, .. } = question;
        if self.is_silent.load(Ordering::Relaxed) {
            return std::future::pending().boxed();
        }
        if wish != Wish::Text {
            self.asked_for_newer.fetch_add(1, Ordering::Relaxed);
        } else {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let texts = self.texts.lock().unwrap();
            let found = texts.iter().find(|(end, _)| key.ends_with(end));
            if let Some((_, (text, freshness))) = found {
                let found = StoredText {
                    text: (*text).into(),
                    term: Term::Until(*freshness),
                    epoch: self.purges.load(Ordering::Relaxed),
                    permit: Semaphore::new(1)
                        .acquire(Instant::now())
                        .now_or_never()
                        .unwrap(),
                    lease: None,
                };
                return std::future::ready(Claim::Found(found)).boxed();
            }
        }

        self.leases.fetch_add(1, Ordering::Relaxed);
        let lease = ScriptLease {
            leases: self.leases.clone(),
            committed: self.committed.clone(),
            is_fenced: false,
        };
        std::future::ready(Claim::Lead(Box::new(lease))).boxed()
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.purges.load(Ordering::Relaxed) == epoch
    }

    fn purge_begins(&self) {
        self.purges.fetch_add(1, Ordering::Relaxed);
    }

    fn purge(&self, texts: Erase, _: Purge) {
        let mut kept = self.texts.lock().unwrap();
        kept.retain(|key, _| !texts.takes(key));
    }

    fn on_purge(&self, tell: OnPurge) {
        *self.tell.lock().unwrap() = Some(tell);
    }

    fn counts(&self) -> StoreCounts {
        StoreCounts::default()
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, bool> {
        std::future::ready(true).boxed()
    }
}

struct ScriptLease {
    leases: Arc<AtomicU64>,
    committed: Arc<Mutex<Vec<Vec<u8>>>>,
    is_fenced: bool,
}

impl Lease for ScriptLease {
    fn fence(&mut self) {
        self.is_fenced = true;
    }

    fn commit(self: Box<Self>, text: Poem, _: Option<Duration>) {
        assert!(self.is_fenced);
        self.committed.lock().unwrap().push(text.bytes().to_vec());
    }
}

impl Drop for ScriptLease {
    fn drop(&mut self) {
        self.leases.fetch_sub(1, Ordering::Relaxed);
    }
}

fn soon(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[test]
fn a_miss_asks_the_tier_once_and_a_hit_never() {
    let upstream = FakeUpstream::new();
    let tier = Arc::new(Script::default());
    let proxy = proxy(&upstream).tier(tier.clone()).start();

    let clients: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    let sending = upstream.accept();
    wait_until("all have joined", || {
        proxy.snapshot().fetches.unwrap().readers == 3
    });
    sending.send(b"a poem").close();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"a poem");
    }
    wait_for_count("kept", &proxy.stats.kept, 1);
    for _ in 0..10 {
        assert_eq!(proxy.get().unwrap(), b"a poem");
    }

    assert_eq!(count(&tier.asked), 1);
    assert_eq!(tier.committed(), [b"a poem"]);
    assert_eq!(count(&tier.leases), 0);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_copy_lands_with_its_age_and_asks_no_upstream() {
    let upstream = FakeUpstream::new();
    let end = soon(600);
    let tier = Script::with(b"a copy", end, end);
    let proxy = proxy(&upstream).tier(tier.clone()).start();

    assert_eq!(proxy.get().unwrap(), b"a copy");
    let just_before = end - Duration::from_millis(1);
    assert!(proxy.get_at(just_before).is_hit());
    assert!(!proxy.get_at(end).is_hit());
    assert_eq!(proxy.get_at(just_before).read(), b"a copy");
    assert!(tier.committed().is_empty());
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_stale_copy_is_sent_and_refreshed_once() {
    let upstream = FakeUpstream::new();
    let tier = Script::with(b"stale", Instant::now(), soon(600));
    let proxy = proxy(&upstream).grace(HOUR).tier(tier.clone()).start();

    for _ in 0..5 {
        assert_eq!(proxy.get().unwrap(), b"stale");
    }
    upstream.serve_once(b"new");
    wait_for_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.get().unwrap(), b"new");
    assert_eq!((count(&tier.asked), count(&tier.asked_for_newer)), (1, 1));
    assert_eq!(tier.committed(), [b"new"]);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_copy_is_served_while_all_places_before_the_upstream_are_taken() {
    let upstream = FakeUpstream::new();
    let tier = Script::with(b"a copy", soon(600), soon(600));
    let mut texts = tier.texts.lock().unwrap();
    let copy = texts.remove(&b""[..]).unwrap();
    texts.insert(b"1:b,".to_vec(), copy);
    drop(texts);
    let proxy = proxy(&upstream).line().upstream_conns(1).tier(tier).start();

    let _waits = proxy.request(b"a\r\n");
    let _hangs = upstream.accept();
    assert_eq!(proxy.ask(b"b\r\n").unwrap(), b"a copy");
}

#[test]
fn a_copy_that_this_proxy_rejects_is_fetched() {
    let upstream = FakeUpstream::new();
    let tier = Script::with(b"rate exceeded", soon(600), soon(600));
    let proxy = proxy(&upstream).reject("rate").tier(tier.clone()).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    wait_until("it is committed", || tier.committed() == [b"a poem"]);
}

#[test]
fn a_copy_that_is_too_long_is_fetched() {
    let upstream = FakeUpstream::new();
    let tier = Script::with(b"eleven more", soon(600), soon(600));
    let proxy = proxy(&upstream).max_poem(10).tier(tier).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
}

#[test]
fn what_is_not_kept_is_not_committed() {
    let upstream = FakeUpstream::new();
    let tier = Arc::new(Script::default());
    let proxy = proxy(&upstream)
        .min_bytes(6)
        .max_poem(10)
        .tier(tier.clone())
        .start();

    for (poem, want) in [(&b"short"[..], Ok(b"short".to_vec())), (b"", RESET)] {
        let mut client = proxy.connect();
        upstream.serve_once(poem);
        assert_eq!(client.rest(), want);
    }
    let mut client = proxy.connect();
    upstream.serve_once(b"longer than ten");
    assert_eq!(client.rest().unwrap(), b"longer than ten");

    wait_until("all leases are back", || count(&tier.leases) == 0);
    assert!(tier.committed().is_empty());
}

#[test]
fn without_a_ttl_nothing_is_committed() {
    let upstream = FakeUpstream::new();
    let tier = Arc::new(Script::default());
    let proxy = proxy(&upstream).ttl(ZERO).tier(tier.clone()).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    wait_until("the lease is back", || count(&tier.leases) == 0);
    assert!(tier.committed().is_empty());
}

#[test]
fn a_text_that_was_purged_on_its_way_is_not_committed() {
    let upstream = FakeUpstream::new();
    let tier = Arc::new(Script::default());
    let proxy = proxy(&upstream).tier(tier.clone()).start();

    let mut client = proxy.connect();
    let sending = upstream.accept().send(b"a po");
    assert_eq!(client.read(4), b"a po");
    proxy.purge(Texts::All, Purge::Hard);
    sending.send(b"em").close();
    assert_eq!(client.rest().unwrap(), b"em");
    wait_until("the lease is back", || count(&tier.leases) == 0);
    assert!(tier.committed().is_empty());
}

#[test]
fn purges_of_all_kinds_reach_the_tier() {
    let upstream = FakeUpstream::new();
    let tier = Script::with(b"a copy", soon(600), soon(600));
    let proxy = proxy(&upstream).tier(tier.clone()).start();

    proxy.reload();
    proxy.purge(Texts::Prefix(b"a"), Purge::Hard);
    proxy.purge(Texts::Named(b""), Purge::Soft);
    assert_eq!(count(&tier.purges), 3);
    assert!(tier.texts.lock().unwrap().is_empty());
}

#[test]
fn clients_that_leave_while_the_tier_is_asked_cost_no_fetch() {
    let upstream = FakeUpstream::new();
    let tier = Arc::new(Script::default());
    tier.is_silent.store(true, Ordering::Relaxed);
    let proxy = proxy(&upstream).tier(tier.clone()).start();

    let readers = || proxy.snapshot().fetches.unwrap().readers;
    let client = proxy.connect();
    wait_until("it waits", || readers() == 1);
    client.reset();
    wait_until("it has left", || readers() == 0);
    assert_eq!(upstream.connections(), 0);

    tier.is_silent.store(false, Ordering::Relaxed);
    let mut client = proxy.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
}

#[test]
fn what_another_process_purges_is_transformed_anew() {
    let upstream = FakeUpstream::new();
    let tier = Arc::new(Script::default());
    let proxy = proxy(&upstream).line().ttl(HOUR).transform(&["shout"]);
    let proxy = proxy.tier(tier.clone()).start();
    let transforms = |name: &[u8]| {
        let answer = proxy.ask_at(name, Instant::now() + 3 * HOUR);
        let request = upstream.accept().skip(name.len() + 2);
        request.send(b"text").close();
        assert_eq!(answer.read(), b"TEXT");
        let transforms = proxy.snapshot().transforms;
        (transforms.done, transforms.known)
    };
    assert_eq!(transforms(b"a"), (1, 0));
    assert_eq!(transforms(b"b"), (1, 1), "the same original");

    let key = proxy.proxy().whole_key(b"a");
    tier.purged_elsewhere(PurgedElsewhere::Key(&key));
    assert_eq!(transforms(b"a"), (2, 1));
    assert_eq!(transforms(b"b"), (2, 2));
    tier.purged_elsewhere(PurgedElsewhere::All);
    assert_eq!(transforms(b"b"), (3, 2));
}
