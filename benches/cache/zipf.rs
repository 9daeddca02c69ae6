//! How often look-ups hit when only a tenth of the keys fits.

use super::contents::{Lookups, Quick, ask_or_fill, ours, value};
use crate::context::Context;
use crate::figures::{Figure, Measured, Wanted};
use std::time::Instant;

const KEYS: usize = 100_000;

/// How many keys fit.
const CAPACITY: usize = 10_000;

/// Our hit ratio against quick_cache's. A few keys are asked for much more often than
/// the others.
pub fn hit_ratio(context: &Context) -> Figure {
    let asks = context.scaled(2_000_000, 300_000);
    let weight = {
        let probe = ours::<u64>(1 << 20);
        probe.put(0, value());
        probe.held()
    };

    let zipf = Zipf::new(KEYS, 0.99);
    let mut ratios = Vec::new();
    for round in 0..context.scaled(5, 3) {
        let random = fastrand::Rng::with_seed(round);
        let [ours, theirs] = hits(&zipf, random, asks, weight);
        ratios.push(f64::from(ours) / f64::from(theirs));
    }

    let measured = Measured::ratio(
        "zipf 0.99, 100,000 keys, room for 10,000",
        "hit ratio / quick_cache's",
        Wanted::AtLeast(0.98),
        Ok(ratios),
    );
    Figure::new("cache", measured)
}

/// Our hits and quick_cache's, of the second half of `asks` look-ups. The first half
/// fills the caches.
fn hits(zipf: &Zipf, mut random: fastrand::Rng, asks: usize, weight: u64) -> [u32; 2] {
    let ours = ours::<u64>(weight * CAPACITY as u64);
    let quick = Quick::<u64>::new(CAPACITY);
    let now = Instant::now();

    let mut hits = [0; 2];
    for ask in 0..asks {
        let key = zipf.draw(&mut random);
        let our_hit = ask_or_fill(&ours, &key, now, value);
        let their_hit = quick.hits(&key, now);
        if !their_hit {
            quick.insert(key, value());
        }

        if ask >= asks / 2 {
            hits[0] += u32::from(our_hit);
            hits[1] += u32::from(their_hit);
        }
    }
    hits
}

/// Numbers of which the n-th is drawn in proportion to 1 / n^exponent.
struct Zipf {
    /// The sum of the weights up to each rank.
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
        // Spreads the ranks over all numbers, so that popular ones are not neighbours.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

        let all = self.sums.last().copied().unwrap_or_default();
        let drawn = random.f64() * all;
        let rank = self.sums.partition_point(|sum| *sum < drawn);
        (rank as u64).wrapping_mul(SPREAD)
    }
}
