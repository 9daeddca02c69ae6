//! The keys that are asked for most, counted while something looks on.
//!
//! Of the requests of each second the first thousand are counted, and of the others one
//! in a hundred, which then counts for a hundred. So where there are few requests, each
//! is counted, and where there are many, counting costs them little.

use super::sketch::Sketch;
use crate::observe::{AccessRecord, CacheStatus, Event, Observer};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Requests of a second that are counted one by one.
const ALL: u64 = 1000;

/// Of the others, one in so many is counted.
const SAMPLE: u64 = 100;

/// How long until requests are counted one by one again.
const SECOND: Duration = Duration::from_secs(1);

/// Counts keys. Share it, and let it observe.
#[derive(Default)]
pub struct HotKeys {
    /// How many look on. Read for each request.
    watches: AtomicUsize,
    /// Requests of this second.
    seen: AtomicU64,
    /// Held to count one request, or to look.
    counting: Mutex<Option<Counting>>,
}

struct Counting {
    sketch: Sketch,
    /// When it began.
    begun: Instant,
    /// When this second began.
    second: Instant,
}

impl HotKeys {
    /// Counts from `now` on, or joins what has been counted, until the last watch is
    /// dropped.
    pub fn watch(self: &Arc<Self>, now: Instant) -> HotKeysWatch {
        let mut counting = self.counting();
        counting.get_or_insert_with(|| {
            self.seen.store(0, Ordering::Relaxed);
            Counting {
                sketch: Sketch::default(),
                begun: now,
                second: now,
            }
        });
        self.watches.fetch_add(1, Ordering::Relaxed);

        let keys = self.clone();
        HotKeysWatch { keys }
    }

    fn counting(&self) -> MutexGuard<'_, Option<Counting>> {
        let guard = self.counting.lock();
        guard.expect("no code panics while it holds the lock of the hot keys")
    }

    /// Counts a request at `now`, unless the sample leaves it out.
    fn count(&self, request: &[u8], now: impl FnOnce() -> Instant) {
        let Some(weight) = weight(self.seen.fetch_add(1, Ordering::Relaxed)) else {
            return;
        };

        let mut guard = self.counting();
        let Some(counting) = &mut *guard else {
            return; // the last watch has just been dropped
        };
        counting.sketch.add(request, weight);
        let now = now();
        if now.saturating_duration_since(counting.second) >= SECOND {
            counting.second = now;
            self.seen.store(0, Ordering::Relaxed);
        }
    }
}

/// For how many requests one counts that comes after `seen` others of its second;
/// `None` if it is not counted.
fn weight(seen: u64) -> Option<u64> {
    match seen.checked_sub(ALL) {
        None => Some(1),
        Some(more) => (more % SAMPLE == SAMPLE - 1).then_some(SAMPLE),
    }
}

impl Observer for HotKeys {
    fn request(&self, record: &AccessRecord<'_>) {
        let is_watched = self.watches.load(Ordering::Relaxed) > 0;
        if is_watched && record.status != CacheStatus::NoRequest {
            self.count(record.request, Instant::now);
        }
    }

    fn event(&self, _: Event<'_>) {}
}

/// A look at the keys that are asked for most. Counting ends with the last one.
pub struct HotKeysWatch {
    keys: Arc<HotKeys>,
}

impl HotKeysWatch {
    /// What has been counted until `now`, and for how long.
    pub fn look(&self, now: Instant) -> (Sketch, Duration) {
        let counting = self.keys.counting();
        counting.as_ref().map_or_else(Default::default, |counting| {
            let time = now.saturating_duration_since(counting.begun);
            (counting.sketch.clone(), time)
        })
    }
}

impl Drop for HotKeysWatch {
    fn drop(&mut self) {
        let mut counting = self.keys.counting();
        if self.keys.watches.fetch_sub(1, Ordering::Relaxed) == 1 {
            *counting = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(keys: &HotKeys, requests: u64, now: Instant) {
        for _ in 0..requests {
            keys.count(b"name", || now);
        }
    }

    fn total(watch: &HotKeysWatch, now: Instant) -> u64 {
        watch.look(now).0.total()
    }

    #[test]
    fn few_requests_are_all_counted() {
        let (keys, now) = (Arc::new(HotKeys::default()), Instant::now());
        let watch = keys.watch(now);
        for second in 0..10 {
            count(&keys, 300, now + SECOND * second);
        }
        assert_eq!(total(&watch, now), 3000);
    }

    #[test]
    fn of_many_requests_one_in_a_hundred_counts_for_a_hundred() {
        let (keys, now) = (Arc::new(HotKeys::default()), Instant::now());
        let watch = keys.watch(now);
        count(&keys, ALL + 10 * SAMPLE, now);
        assert_eq!(total(&watch, now), ALL + 10 * SAMPLE);

        count(&keys, SAMPLE - 1, now);
        assert_eq!(total(&watch, now), ALL + 10 * SAMPLE);
        count(&keys, 1, now + SECOND);
        count(&keys, 5, now + SECOND);
        assert_eq!(total(&watch, now), ALL + 11 * SAMPLE + 5);
    }

    #[test]
    fn counting_ends_with_the_last_watch() {
        let (keys, now) = (Arc::new(HotKeys::default()), Instant::now());
        let first = keys.watch(now);
        count(&keys, 3, now);
        let second = keys.watch(now + SECOND);
        drop(first);
        assert_eq!(second.look(now + SECOND).1, SECOND);
        assert_eq!(total(&second, now), 3);

        drop(second);
        count(&keys, 3, now);
        assert_eq!(keys.watches.load(Ordering::Relaxed), 0);
        assert_eq!(total(&keys.watch(now), now), 0);
    }
}
