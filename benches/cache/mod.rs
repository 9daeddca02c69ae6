//! The cache alone, in this process: look-ups per second, how often they hit, and what
//! they cost as the cache grows.
//!
//! Ours expires values and takes the time as an argument. Like the server, these loops
//! read the clock once for many look-ups. quick_cache expires nothing. moka has a ttl
//! and reads a clock of its own. Each has its default hasher. The value of all three is
//! a reference-counted slice of bytes, which a hit clones.

mod contents;
mod growth;
mod zipf;

use crate::context::Context;
use crate::figures::{Figure, Measured, Wanted, paired};
use crate::machine::{Cores, on_cores};
use contents::{Lookups, Moka, Quick, ours, value};
use std::hash::Hash;
use std::io;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How many keys are cached, and asked for in random order.
const KEYS: usize = 10_000;

/// Look-ups between two readings of the clock: the server's burst.
const BURST: usize = 64;

const HOUR: Duration = Duration::from_secs(3600);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let number = |at: usize| at as u64;
    let text = |at: usize| format!("poems.example:10001/{at:08}");

    let mut figures = Vec::new();
    for threads in [1, 2] {
        figures.extend(compare(context, "u64", number, threads)?);
        figures.extend(compare(context, "string", text, threads)?);
    }
    figures.push(zipf::hit_ratio(context));
    figures.extend(growth::measure(context)?);
    Ok(figures)
}

/// Look-ups of keys that are all cached, against both peers.
fn compare<K>(
    context: &Context,
    kind: &str,
    key: fn(usize) -> K,
    threads: usize,
) -> io::Result<[Figure; 2]>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let load = Load {
        cores: context.cores,
        threads,
        time: Duration::from_millis(context.scaled(300, 50)),
    };
    let [ours, quick, moka] = speeds(context, &load, key)?.map(Ok);

    let plural = if threads == 1 { "" } else { "s" };
    let work = format!("look-ups, {kind} keys, {threads} thread{plural}");
    let figure = |what, least, samples| {
        let wanted = Wanted::AtLeast(least);
        Figure::new("cache", Measured::ratio(&work, what, wanted, samples))
    };
    let of_quick = "hits a second, with ttl / quick_cache without";
    let of_moka = "hits a second, with ttl / moka with ttl";
    Ok([
        figure(of_quick, 0.9, paired(&ours, &quick)),
        figure(of_moka, 4.0, paired(&ours, &moka)),
    ])
}

/// The hits per second of ours, quick_cache and moka, in turns.
fn speeds<K>(context: &Context, load: &Load, key: fn(usize) -> K) -> io::Result<[Vec<f64>; 3]>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    // More capacity than the keys need: no peer promises to keep exactly what fits.
    let ours = ours::<K>(1 << 30);
    let quick = Quick::<K>::new(4 * KEYS);
    let moka: Moka<K> = moka::sync::Cache::builder()
        .max_capacity(4 * KEYS as u64)
        .time_to_live(HOUR)
        .build();
    let caches: [&dyn Lookups<K>; 3] = [&ours, &quick, &moka];
    for cache in caches {
        (0..KEYS).for_each(|at| cache.put(key(at), value()));
    }

    let order = random_keys(KEYS, KEYS, key);
    let mut speeds = [const { Vec::new() }; 3];
    for round in 0..context.scaled(11, 3) {
        for turn in 0..caches.len() {
            let at = (round + turn) % caches.len();
            speeds[at].push(match at {
                0 => load.speed(&ours, &order)?,
                1 => load.speed(&quick, &order)?,
                _ => load.speed(&moka, &order)?,
            });
        }
    }
    Ok(speeds)
}

/// `count` random keys out of the first `among`, the same ones every time.
fn random_keys<K>(count: usize, among: usize, key: impl Fn(usize) -> K) -> Vec<K> {
    let mut random = fastrand::Rng::with_seed(4);
    (0..count).map(|_| key(random.usize(..among))).collect()
}

/// How look-ups are made.
struct Load {
    cores: Cores,
    threads: usize,
    /// How long look-ups are counted.
    time: Duration,
}

impl Load {
    /// Hits per second of all threads together. Each thread has a core of its own and a
    /// copy of the keys of its own, and starts at another place among them.
    fn speed<K, C>(&self, cache: &C, order: &[K]) -> io::Result<f64>
    where
        K: Clone + Send + Sync,
        C: Lookups<K>,
    {
        let barrier = Barrier::new(self.threads);
        let cores = [self.cores.server, self.cores.load];
        let ask = |number: usize| {
            on_cores(&[cores[number]], || {
                let mut keys = order.to_vec();
                keys.rotate_left(number * order.len() / self.threads);
                barrier.wait();
                Ok(hits_per_second(cache, &keys, self.time))
            })
        };

        std::thread::scope(|scope| {
            let ask = &ask;
            let asking: Vec<_> = (0..self.threads)
                .map(|number| scope.spawn(move || ask(number)))
                .collect();
            let rates = asking.into_iter().map(|thread| {
                let panicked = |_| Err(io::Error::other("a thread that asks panicked"));
                thread.join().unwrap_or_else(panicked)
            });
            rates.sum()
        })
    }
}

fn hits_per_second<K>(cache: &impl Lookups<K>, keys: &[K], time: Duration) -> f64 {
    let start = Instant::now();
    let mut now = start;
    let mut hits = 0;

    while now - start < time {
        for burst in keys.chunks(BURST) {
            now = Instant::now();
            hits += burst.iter().filter(|key| cache.hits(key, now)).count();
        }
    }
    hits as f64 / start.elapsed().as_secs_f64()
}
