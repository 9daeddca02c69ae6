//! What a look-up costs among ever more keys.

use super::contents::{Lookups, Quick, ours, value};
use super::{Load, random_keys};
use crate::context::Context;
use crate::figures::{Figure, Measured, Samples, Wanted, paired};
use std::io;
use std::time::Duration;

/// The size all others are compared with.
const FIRST: usize = 1000;

/// The cost of a look-up among 10^4, 10^5 and 10^6 keys, divided by that among 10^3.
/// Looking up the same thousand keys shows what the table costs. Looking up any key
/// shows the memory behind it as well; quick_cache's own growth is shown beside that.
pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let sizes = [FIRST, 10_000, 100_000, context.scaled(1_000_000, 200_000)];
    let [few, any, quick] = speeds(context, sizes)?;

    let mut figures = Vec::new();
    for (at, size) in sizes.into_iter().enumerate().skip(1) {
        let kinds = [
            (&few, "time, the same 1000 keys", Wanted::AtMost(1.3)),
            (&any, "time, any key", Wanted::AtMost(1.3)),
            (&quick, "time, any key, quick_cache", Wanted::Shown),
        ];
        for (speeds, what, wanted) in kinds {
            let work = format!("a look-up among {size} keys");
            let figure = format!("{what}, / among {FIRST}");
            let samples = paired(&speeds[0], &speeds[at]); // speeds: the inverse of times
            let measured = Measured::ratio(&work, &figure, wanted, samples);
            figures.push(Figure::new("cache", measured));
        }
    }
    Ok(figures)
}

/// The speeds among each size: ours with few keys, ours with any, quick_cache with any.
fn speeds(context: &Context, sizes: [usize; 4]) -> io::Result<[[Samples; 4]; 3]> {
    let ours = sizes.map(|size| filled(ours::<u64>(1 << 40), size));
    let quick = sizes.map(|size| filled(Quick::<u64>::new(2 * size), size));
    let few = random_keys(FIRST, FIRST, |at| at as u64);
    let any = sizes.map(|size| random_keys(size.max(100_000), size, |at| at as u64));

    let load = Load {
        cores: context.cores,
        threads: 1,
        time: Duration::from_millis(context.scaled(300, 50)),
    };
    let mut speeds: [[Vec<f64>; 4]; 3] = Default::default();
    for _ in 0..context.scaled(7, 3) {
        for at in 0..sizes.len() {
            speeds[0][at].push(load.speed(&ours[at], &few)?);
            speeds[1][at].push(load.speed(&ours[at], &any[at])?);
            speeds[2][at].push(load.speed(&quick[at], &any[at])?);
        }
    }
    Ok(speeds.map(|series| series.map(Samples::Ok)))
}

/// `cache` with the keys from 0 to `size`. They share one value: only the table is to
/// grow.
fn filled<C: Lookups<u64>>(cache: C, size: usize) -> C {
    let value = value();
    (0..size as u64).for_each(|key| cache.put(key, value.clone()));
    cache
}
