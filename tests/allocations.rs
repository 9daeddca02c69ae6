//! A hit allocates nothing: not to find its text, not to be counted, and not where
//! operators may look on. One test, for the counters of the allocator are the whole
//! process's.

use bytes::Bytes;
use poetry::admin::Lookout;
use poetry::cache::Policy;
use poetry::coalesce::{Coalescer, Found, Verdict};
use poetry::flight::Read;
use poetry::observe::{AccessRecord, CacheStatus, Observer, Outcome, Silent};
use poetry::stats::Stats;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const HOUR: Duration = Duration::from_secs(3600);
const HITS: u64 = 1000;

/// What a service does for a hit, but for its system calls.
fn hit(texts: &Coalescer<u32>, stats: &Stats, observer: &dyn Observer, now: Instant) {
    let Found::Hit(mut reader, freshness) = texts.find(&1, now) else {
        panic!("it is cached");
    };
    let Read::Chunk(bytes) = reader.peek_ahead().0 else {
        panic!("its text is there");
    };
    let count = bytes.len();
    reader.advance(count);

    let record = AccessRecord {
        peer: &"127.0.0.1:1",
        request: b"1",
        status: CacheStatus::Hit(freshness.fresh_until),
        route: None,
        fetch: None,
        outcome: Outcome::Whole,
        bytes: count as u64,
        wait: Duration::ZERO,
        total: Duration::ZERO,
        stored: false,
        feed: None,
    };
    stats.count(&record);
    observer.request(&record);
}

#[test]
fn a_hit_allocates_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let policy = Policy {
        ttl: HOUR,
        grace: HOUR,
        fail_ttl: HOUR,
        capacity: 1 << 20,
    };
    let texts = Coalescer::new(policy, 1 << 16);
    let now = Instant::now();
    let Found::Missed(reader, mut guard) = texts.find(&1, now) else {
        panic!("it was never asked for");
    };
    guard.begin();
    guard.append(Bytes::from(vec![b'x'; 700]));
    assert!(guard.land(Verdict::Keep, now));
    drop(reader);

    let stats = Stats::new(now);
    let lookout = Lookout::new(Arc::new(Silent));
    hit(&texts, &stats, &*lookout, now);
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..HITS {
        hit(&texts, &stats, &*lookout, now);
    }
    let blocks = dhat::HeapStats::get().total_blocks - before;
    dhat::assert_eq!(blocks, 0);
}
