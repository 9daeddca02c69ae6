//! The three caches behind one trait, and the values they hold.

use super::HOUR;
use poetry::cache::{Cache, Lookup, Policy};
use poetry::poem::Poem;
use std::hash::Hash;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A cache to measure: filled once, then asked.
pub trait Lookups<K>: Sync {
    fn put(&self, key: K, value: Value);

    /// Whether the key's value is cached at `now`.
    fn hits(&self, key: &K, now: Instant) -> bool;
}

/// The value of all three caches: the one the proxy caches.
pub type Value = Poem;

/// The length of a value, in bytes.
const BYTES: usize = 64;

pub fn value() -> Value {
    vec![b'x'; BYTES].into()
}

/// Our cache, without a use for its flights.
pub type Ours<K> = Arc<Cache<K, Value, ()>>;

pub fn ours<K: Hash + Eq + Clone>(capacity: u64) -> Ours<K> {
    Cache::new(Policy {
        ttl: HOUR,
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
        capacity,
    })
}

/// Looks the key up and commits `new` if it is missing. Returns whether it was a hit.
pub fn ask_or_fill<K: Hash + Eq + Clone>(
    cache: &Ours<K>,
    key: &K,
    now: Instant,
    new: impl FnOnce() -> Value,
) -> bool {
    match cache.lookup(key, now, || ((), ())) {
        Lookup::Hit(..) => true,
        Lookup::Miss(lead) => {
            let _cached = {
                let freshness = lead.fill.freshness(now);
                lead.fill.commit(new(), BYTES as u64, freshness, now)
            };
            false
        }
        _ => false,
    }
}

impl<K: Hash + Eq + Clone + Send + Sync> Lookups<K> for Ours<K> {
    fn put(&self, key: K, value: Value) {
        ask_or_fill(self, &key, Instant::now(), || value);
    }

    fn hits(&self, key: &K, now: Instant) -> bool {
        match self.lookup(key, now, || ((), ())) {
            Lookup::Hit(value, _) => Some(black_box(value)).is_some(),
            _ => false,
        }
    }
}

pub type Quick<K> = quick_cache::sync::Cache<K, Value>;

impl<K: Hash + Eq + Clone + Send + Sync> Lookups<K> for Quick<K> {
    fn put(&self, key: K, value: Value) {
        self.insert(key, value);
    }

    fn hits(&self, key: &K, _now: Instant) -> bool {
        self.get(key).map(black_box).is_some()
    }
}

pub type Moka<K> = moka::sync::Cache<K, Value>;

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Lookups<K> for Moka<K> {
    fn put(&self, key: K, value: Value) {
        self.insert(key, value);
    }

    fn hits(&self, key: &K, _now: Instant) -> bool {
        self.get(key).map(black_box).is_some()
    }
}
