//! Hits of a proxy that may use 1, 2, ... cores: how the rate grows with them.
//!
//! The cores come from `--cores LIST`, by default all of them. The load uses the cores
//! that the proxy does not; where none is left, it shares the proxy's, and the curve
//! says less.

use crate::context::Context;
use crate::figures::{Figure, Measured, Samples, Spread, Wanted, paired};
use crate::hits::{HIT, POEM};
use crate::load::{self, HITS, Target};
use crate::machine::{Steering, on_cores};
use crate::peers::{Server, own, poetry_on};
use std::io;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let upstream = own(context.cores, "short", &context.poem(POEM)?)?;
    let from = upstream.addr.to_string();
    let steps: Vec<Step> = (1..=context.proxy_cores.len())
        .map(|count| Step::start(context, count, &from))
        .collect::<io::Result<_>>()?;

    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); steps.len()];
    for _ in 0..context.scaled(9, 2) {
        for (step, rates) in steps.iter().zip(&mut rates) {
            rates.push(step.rate()?);
        }
    }

    let one = &rates[0];
    let ratios: Vec<Samples> = rates
        .iter()
        .map(|rates| paired(&Ok(rates.clone()), &Ok(one.clone())))
        .collect();
    print_curve(&steps, &ratios);
    Ok(steps
        .iter()
        .zip(ratios)
        .skip(1)
        .map(|(step, ratios)| step.figure(ratios))
        .collect())
}

/// A proxy on some cores, and the cores of its load.
struct Step {
    proxy: Server,
    proxy_cores: Vec<usize>,
    load_cores: Vec<usize>,
    is_shared: bool,
}

impl Step {
    /// Starts a proxy on the first `count` of the cores to be measured.
    fn start(context: &Context, count: usize, upstream: &str) -> io::Result<Step> {
        let proxy_cores = context.proxy_cores[..count].to_vec();
        let mut load_cores = context.allowed_cores.clone();
        load_cores.retain(|core| !proxy_cores.contains(core));
        let is_shared = load_cores.is_empty();
        if is_shared {
            load_cores.clone_from(&context.allowed_cores);
        }

        let proxy = poetry_on(&proxy_cores, &["proxy", upstream])?;
        load::transfer(proxy.target(HIT), 1)?; // from now on it has the poem
        Ok(Step {
            proxy,
            proxy_cores,
            load_cores,
            is_shared,
        })
    }

    /// Hits per second. The network's work is steered to the proxy's cores, where the
    /// network is our own.
    fn rate(&self) -> io::Result<f64> {
        let steering = Steering::to(&self.proxy_cores);
        let target = self.proxy.target(HIT);

        let rate = std::thread::scope(|scope| {
            let loads: Vec<_> = self
                .load_cores
                .iter()
                .map(|core| scope.spawn(|| hits_from(*core, target)))
                .collect();
            let rates = loads.into_iter().map(|load| {
                let panicked = |_| Err(io::Error::other("a load generator panicked"));
                load.join().unwrap_or_else(panicked)
            });
            rates.sum()
        });

        drop(steering);
        rate
    }

    fn figure(&self, ratios: Samples) -> Figure {
        let count = self.proxy_cores.len();
        let shared = if self.is_shared {
            ", shared with the load"
        } else {
            ""
        };
        let figure = format!("hits a second, on {count} cores{shared} / on 1");
        let work = "a hit of 700 bytes, poetry proxy";
        Figure::new(
            "cores",
            Measured::ratio(work, &figure, Wanted::Shown, ratios),
        )
    }
}

/// Hits per second that clients on this core get.
fn hits_from(core: usize, target: Target) -> io::Result<f64> {
    on_cores(&[core], || load::poems_per_second(target, HITS))
}

/// Prints a bar for each number of cores: the rate, with that of one core as 1.
fn print_curve(steps: &[Step], ratios: &[Samples]) {
    const ONE: f64 = 20.0;

    println!("hits a second by the number of the proxy's cores, one core as 1:");
    for (step, ratios) in steps.iter().zip(ratios) {
        let Some(spread) = ratios.clone().ok().and_then(Spread::of) else {
            continue;
        };
        let bar = "#".repeat((spread.median * ONE) as usize);
        let shared = if step.is_shared {
            " (shared with the load)"
        } else {
            ""
        };
        let count = step.proxy_cores.len();
        println!("{count:>4}  {:.2}  {bar}{shared}", spread.median);
    }
}
