//! What the cache says that it holds, against the counters of the allocator. One test,
//! for the counters are the whole process's.

use bytes::Bytes;
use poetry::cache::{CacheFailure, Policy};
use poetry::coalesce::{Coalescer, FlightGuard, Found, Verdict};
use poetry::error::Error;
use poetry::handler::proxy::Key;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const HOUR: Duration = Duration::from_secs(3600);

/// Enough for tables and queues to have grown, and few enough to be quick.
const MANY: u32 = 40_000;

/// The lengths of a key and of an answer.
const KEY: usize = 16;
const ANSWER: usize = 100;

type Texts = Coalescer<Key>;

/// Bytes on the heap at this moment.
fn allocated() -> u64 {
    dhat::HeapStats::get().curr_bytes as u64
}

fn texts() -> Texts {
    let policy = Policy {
        ttl: HOUR,
        grace: Duration::ZERO,
        fail_ttl: HOUR,
        capacity: 1 << 30,
    };
    Coalescer::weighing(policy, 1 << 20, Key::heap_bytes)
}

fn guard(texts: &Texts, name: u32, now: Instant) -> FlightGuard<Key> {
    let key = Key::new(format!("{name:0KEY$}").as_bytes());
    match texts.find(&key, now) {
        Found::Missed(reader, mut guard) => {
            guard.begin();
            drop(reader);
            guard
        }
        _ => panic!("{name} was never asked for"),
    }
}

/// What one of many costs: as the cache counts it, and as the allocator does.
fn cost(texts: &Texts, make: impl Fn(u32)) -> (f64, f64) {
    let counted = texts.cache().held();
    let before = allocated();
    (0..MANY).for_each(make);

    let each = |bytes: u64| bytes as f64 / f64::from(MANY);
    (
        each(texts.cache().held() - counted),
        each(allocated() - before),
    )
}

/// Counted at least as much as it is, and not much more.
fn assert_true_cost(what: &str, (counted, real): (f64, f64)) {
    println!("{what}: {counted:.0} counted, {real:.0} allocated");
    assert!(counted >= real, "{what}: {counted:.0} of {real:.0}");
    assert!(counted <= real * 1.5, "{what}: {counted:.0} of {real:.0}");
}

#[test]
fn the_cache_counts_what_it_costs() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let now = Instant::now();

    let kept = texts();
    let cost_kept = cost(&kept, |name| {
        let mut guard = guard(&kept, name, now);
        let text = vec![b'x'; ANSWER];
        assert!(guard.reserve(ANSWER as u64));
        guard.append(Bytes::from(text));
        assert!(guard.land(Verdict::Keep, now));
    });
    assert_true_cost("an answer of 100 bytes", cost_kept);
    let beside = cost_kept.1 - (KEY + ANSWER) as f64;
    assert!(beside <= 100.0, "{beside:.0} bytes beside key and value");

    let failed = texts();
    let cost_failed = cost(&failed, |name| {
        let error = Error::Empty {
            subject: "127.0.0.1:10001".into(),
        };
        guard(&failed, name, now).fail(error, CacheFailure::Yes, now);
    });
    assert_true_cost("a cached failure", cost_failed);

    let rejected = texts();
    let cost_rejected = cost(&rejected, |name| {
        let mut guard = guard(&rejected, name, now);
        assert!(guard.reserve(100));
        guard.append(Bytes::from(vec![b'x'; 100]));
        assert!(!guard.land(Verdict::Reject, now));
    });
    assert_true_cost("a rejected answer of 100 bytes", cost_rejected);
}
