//! The most frequent of many keys, in little memory: Space-Saving (Metwally, Agrawal
//! and El Abbadi, 2005).
//!
//! A key that has no counter takes over the smallest one, and its count. So a count may
//! be too high, by `error` at most, and is never too low. Any key that makes up more
//! than one part in [`COUNTERS`] of all requests has a counter.

/// The number of keys that are counted. Ten of them are shown; the others keep their
/// errors small.
pub const COUNTERS: usize = 64;

/// The most frequent keys.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    counters: Vec<HotKey>,
    total: u64,
}

/// A key, and how often it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// The request's first 1024 bytes; empty in the poem protocol.
    pub key: Box<[u8]>,
    /// How often, at most.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
}

impl Sketch {
    /// Counts `weight` requests of a key.
    pub fn add(&mut self, key: &[u8], weight: u64) {
        self.total += weight;

        let mut counters = self.counters.iter_mut();
        if let Some(counter) = counters.find(|counter| *counter.key == *key) {
            counter.count += weight;
            return;
        }

        let error = if self.counters.len() < COUNTERS {
            0
        } else {
            self.take_smallest()
        };
        self.counters.push(HotKey {
            key: key.into(),
            count: error + weight,
            error,
        });
    }

    /// Removes the smallest counter. Returns its count.
    fn take_smallest(&mut self) -> u64 {
        let counts = self.counters.iter().map(|counter| counter.count);
        let smallest = counts.enumerate().min_by_key(|(_, count)| *count);
        smallest.map_or(0, |(at, _)| self.counters.swap_remove(at).count)
    }

    /// All requests, of whatever key.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The keys with the highest counts, at most `most` of them, the highest first.
    pub fn top(&self, most: usize) -> Vec<HotKey> {
        let mut top = self.counters.clone();
        top.sort_by(|one, other| other.count.cmp(&one.count).then(one.key.cmp(&other.key)));
        top.truncate(most);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Requests of which a key `n` has a part of about 1 in `n + 1`.
    fn skewed(count: u64) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..count)
            .map(|_| (1.0 / (random.f64() + 0.0005)) as u64)
            .collect()
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        let mut sketch = Sketch::default();
        for (key, weight) in [("a", 1), ("b", 5), ("a", 1), ("c", 1)] {
            sketch.add(key.as_bytes(), weight);
        }

        let top = sketch.top(2);
        let counts: Vec<_> = top.iter().map(|hot| (&*hot.key, hot.count)).collect();
        assert_eq!(counts, [(&b"b"[..], 5), (&b"a"[..], 2)]);
        assert!(top.iter().all(|hot| hot.error == 0));
        assert_eq!(sketch.total(), 8);
    }

    #[test]
    fn the_hottest_of_many_keys_are_found_and_no_count_is_too_low() {
        let (mut sketch, mut exact) = (Sketch::default(), HashMap::new());
        for number in skewed(100_000) {
            sketch.add(&number.to_be_bytes(), 1);
            *exact.entry(number).or_insert(0u64) += 1;
        }
        assert!(exact.len() > 4 * COUNTERS);

        let of = |hot: &HotKey| {
            let number = u64::from_be_bytes((*hot.key).try_into().expect("eight bytes"));
            exact[&number]
        };
        let top = sketch.top(COUNTERS);
        for hot in &top {
            let count = of(hot);
            assert!(hot.count >= count && hot.count - hot.error <= count);
        }
        let mut hottest: Vec<u64> = exact.values().copied().collect();
        hottest.sort_unstable_by(|one, other| other.cmp(one));
        let found: Vec<u64> = top.iter().take(5).map(of).collect();
        assert_eq!(found, hottest[..5]);
    }
}
