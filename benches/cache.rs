//! The cache alone, in this process: look-ups a second, how often they hit, and what they cost as it grows.
//!
//! Ours expires and is told the time; like the server, these loops read the clock once for so many look-ups. quick_cache
//! expires nothing. moka has a ttl and reads a clock of its own. Each has its default hasher, and the value of all three
//! is a counted reference to bytes, which a hit clones.

use crate::Context;
use crate::figures::{Figure, Measured, Samples, Unit, Wanted, paired};
use crate::machine::{Cores, on_core};
use poetry::cache::{Cache, Lookup, Policy};
use poetry::poem::Poem;
use std::hash::Hash;
use std::hint::black_box;
use std::io;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// Kept, and asked for in random order.
const KEYS: usize = 10_000;

/// How many look-ups there are between two looks at the clock: the server's burst.
const BURST: usize = 64;

const HOUR: Duration = Duration::from_secs(3600);

/// A cache that is measured: filled once, then asked.
trait Lookups<K>: Sync {
    fn put(&self, key: K, value: Value);
    fn hits(&self, key: &K, now: Instant) -> bool;
}

/// What all of them keep: what the proxy keeps.
type Value = Poem;

/// What an entry keeps where it matters how many bytes that is.
const BYTES: usize = 64;

fn value() -> Value {
    vec![b'x'; BYTES].into()
}

/// Ours, whose flights are nothing here.
type Ours<K> = Arc<Cache<K, Value, ()>>;

fn ours<K: Hash + Eq + Clone>(capacity: u64) -> Ours<K> {
    Cache::new(Policy {
        ttl: HOUR,
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
        capacity,
    })
}

/// Fills the key where it is missing; whether it was a hit.
fn ask_or_fill<K: Hash + Eq + Clone>(
    cache: &Ours<K>,
    key: &K,
    now: Instant,
    new: impl FnOnce() -> Value,
) -> bool {
    match cache.lookup(key, now, || ((), ())) {
        Lookup::Hit(..) => true,
        Lookup::Miss(lead) => {
            let _kept = lead.fill.commit(new(), BYTES as u64, now);
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

type Quick<K> = quick_cache::sync::Cache<K, Value>;

impl<K: Hash + Eq + Clone + Send + Sync> Lookups<K> for Quick<K> {
    fn put(&self, key: K, value: Value) {
        self.insert(key, value);
    }

    fn hits(&self, key: &K, _now: Instant) -> bool {
        self.get(key).map(black_box).is_some()
    }
}

type Moka<K> = moka::sync::Cache<K, Value>;

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Lookups<K> for Moka<K> {
    fn put(&self, key: K, value: Value) {
        self.insert(key, value);
    }

    fn hits(&self, key: &K, _now: Instant) -> bool {
        self.get(key).map(black_box).is_some()
    }
}

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let number = |at: usize| at as u64;
    let text = |at: usize| format!("poems.example:10001/{at:08}");
    for threads in [1, 2] {
        figures.extend(compare(context, "u64", number, threads)?);
        figures.extend(compare(context, "string", text, threads)?);
    }
    figures.push(hit_ratio(context));
    figures.extend(growth(context)?);
    Ok(figures)
}

/// Look-ups of keys that are all there, against both peers.
fn compare<K>(
    context: &Context,
    kind: &str,
    key: fn(usize) -> K,
    threads: usize,
) -> io::Result<[Figure; 2]>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    // Room to spare: none of the peers promises to keep as many as fit exactly.
    let (ours, quick) = (ours::<K>(1 << 30), Quick::<K>::new(4 * KEYS));
    let moka: Moka<K> = moka::sync::Cache::builder()
        .max_capacity(4 * KEYS as u64)
        .time_to_live(HOUR)
        .build();
    let caches: [&dyn Lookups<K>; 3] = [&ours, &quick, &moka];
    let order = asked(KEYS, KEYS, key);
    for cache in caches {
        (0..KEYS).for_each(|at| cache.put(key(at), value()));
    }
    let mut speeds = [const { Vec::new() }; 3];
    let time = Duration::from_millis(context.scaled(300, 50));
    for round in 0..context.scaled(11, 3) {
        for turn in 0..caches.len() {
            let at = (round + turn) % caches.len();
            speeds[at].push(match at {
                0 => speed(context.cores, &ours, &order, threads, time)?,
                1 => speed(context.cores, &quick, &order, threads, time)?,
                _ => speed(context.cores, &moka, &order, threads, time)?,
            });
        }
    }
    let [ours, quick, moka] = speeds.map(Ok);
    let work = format!(
        "look-ups, {kind} keys, {threads} thread{}",
        if threads == 1 { "" } else { "s" }
    );
    let figure = |figure, least, samples| {
        let wanted = Wanted::AtLeast(least);
        Figure::new(
            "cache",
            Measured {
                work: &work,
                figure,
                wanted,
                unit: Unit::Ratio,
                samples,
            },
        )
    };
    let first = figure(
        "hits a second, with ttl / quick_cache without",
        0.9,
        paired(&ours, &quick),
    );
    Ok([
        first,
        figure(
            "hits a second, with ttl / moka with ttl",
            4.0,
            paired(&ours, &moka),
        ),
    ])
}

/// `count` keys out of the first `among`, drawn at random, the same ones every time.
fn asked<K>(count: usize, among: usize, key: impl Fn(usize) -> K) -> Vec<K> {
    let mut random = fastrand::Rng::with_seed(4);
    (0..count).map(|_| key(random.usize(..among))).collect()
}

/// Hits a second, of all threads together. Each has a core of its own and its own copy of the keys, and asks them in
/// order, beginning at another place.
fn speed<K, C>(
    cores: Cores,
    cache: &C,
    order: &[K],
    threads: usize,
    time: Duration,
) -> io::Result<f64>
where
    K: Clone + Send + Sync,
    C: Lookups<K>,
{
    let barrier = Barrier::new(threads);
    let ask = |number: usize, core: usize| {
        on_core(core, || {
            let mut own = order.to_vec();
            own.rotate_left(number * order.len() / threads);
            barrier.wait();
            let (begun, mut now, mut hits) = (Instant::now(), Instant::now(), 0);
            while now - begun < time {
                for burst in own.chunks(BURST) {
                    now = Instant::now();
                    hits += burst.iter().filter(|key| cache.hits(key, now)).count();
                }
            }
            Ok(hits as f64 / begun.elapsed().as_secs_f64())
        })
    };
    let cores = [cores.server, cores.load];
    std::thread::scope(|scope| {
        let ask = &ask;
        let asking: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || ask(number, cores[number])))
            .collect();
        let rates = asking.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread that asks panicked")))
        });
        rates.sum()
    })
}

/// The hit ratios where a tenth of the keys has room, and few keys are asked for much more than others.
fn hit_ratio(context: &Context) -> Figure {
    const KEYS: usize = 100_000;
    const ROOM: usize = 10_000;
    let asks = context.scaled(2_000_000, 300_000);
    let weight = {
        let probe = ours::<u64>(1 << 20);
        probe.put(0, value());
        probe.held()
    };
    let zipf = Zipf::new(KEYS, 0.99);
    let mut ratios = Vec::new();
    for round in 0..context.scaled(5, 3) {
        let (ours, quick) = (ours::<u64>(weight * ROOM as u64), Quick::<u64>::new(ROOM));
        let mut random = fastrand::Rng::with_seed(round);
        let (mut our_hits, mut their_hits, now) = (0u32, 0u32, Instant::now());
        for ask in 0..asks {
            let key = zipf.draw(&mut random);
            let (hit, theirs) = (ask_or_fill(&ours, &key, now, value), quick.hits(&key, now));
            if !theirs {
                quick.insert(key, value());
            }
            if ask >= asks / 2 {
                our_hits += u32::from(hit); // the first half fills them
                their_hits += u32::from(theirs);
            }
        }
        ratios.push(f64::from(our_hits) / f64::from(their_hits));
    }
    let measured = Measured {
        work: "zipf 0.99, 100,000 keys, room for 10,000",
        figure: "hit ratio / quick_cache's",
        wanted: Wanted::AtLeast(0.98),
        unit: Unit::Ratio,
        samples: Ok(ratios),
    };
    Figure::new("cache", measured)
}

/// Numbers of which the n-th is drawn in proportion to 1 / n^exponent.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: usize, exponent: f64) -> Zipf {
        let weight = |rank: usize| (rank as f64).powf(-exponent);
        let sum = |sum: &mut f64, rank| {
            *sum += weight(rank);
            Some(*sum)
        };
        Zipf {
            sums: (1..=count).scan(0.0, sum).collect(),
        }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        let all = self.sums.last().copied().unwrap_or_default();
        let drawn = random.f64() * all;
        // Spread over the numbers, so that those often drawn aren't neighbours.
        (self.sums.partition_point(|sum| *sum < drawn) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The cost of a look-up among 10^4, 10^5 and 10^6 keys, beside that among 10^3: of the same thousand keys, which shows
/// what the table does, and of any key, which shows what the memory behind it does as well; there quick_cache's own
/// growth stands beside it.
fn growth(context: &Context) -> io::Result<Vec<Figure>> {
    const FIRST: usize = 1000;
    let sizes = [FIRST, 10_000, 100_000, context.scaled(1_000_000, 200_000)];
    let ours = sizes.map(|size| filled(ours::<u64>(1 << 40), size));
    let quick = sizes.map(|size| filled(Quick::<u64>::new(2 * size), size));
    let few = asked(FIRST, FIRST, |at| at as u64);
    let any = sizes.map(|size| asked(size.max(100_000), size, |at| at as u64));
    let mut speeds: [[Vec<f64>; 4]; 3] = Default::default();
    let time = Duration::from_millis(context.scaled(300, 50));
    for _ in 0..context.scaled(7, 3) {
        for at in 0..sizes.len() {
            speeds[0][at].push(speed(context.cores, &ours[at], &few, 1, time)?);
            speeds[1][at].push(speed(context.cores, &ours[at], &any[at], 1, time)?);
            speeds[2][at].push(speed(context.cores, &quick[at], &any[at], 1, time)?);
        }
    }
    let [few, any, quick] = speeds.map(|series| series.map(Samples::Ok));
    let mut figures = Vec::new();
    for (at, size) in sizes.into_iter().enumerate().skip(1) {
        let kinds = [
            (&few, "time, the same 1000 keys", Wanted::AtMost(1.3)),
            (&any, "time, any key", Wanted::AtMost(1.3)),
            (&quick, "time, any key, quick_cache", Wanted::Shown),
        ];
        for (speeds, what, wanted) in kinds {
            let (work, figure) = (
                format!("a look-up among {size} keys"),
                format!("{what}, / among {FIRST}"),
            );
            let samples = paired(&speeds[0], &speeds[at]); // speeds: the inverse of times
            let measured = Measured {
                work: &work,
                figure: &figure,
                wanted,
                unit: Unit::Ratio,
                samples,
            };
            figures.push(Figure::new("cache", measured));
        }
    }
    Ok(figures)
}

/// All keys have the same value: it is the table that grows, not what it keeps.
fn filled<C: Lookups<u64>>(cache: C, size: usize) -> C {
    let value = value();
    (0..size as u64).for_each(|key| cache.put(key, value.clone()));
    cache
}
