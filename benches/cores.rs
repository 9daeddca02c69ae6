//! Hits of a proxy that may use 1, 2, ... cores, with a thread for each: how the rate
//! grows with them. And what several threads cost where they gain nothing: against one
//! thread on the same cores, for many clients and for one.
//!
//! The cores come from `--cores LIST`, by default all of them. The load uses the cores
//! that the proxy does not; where none is left, it shares the proxy's, and the curve
//! says less.

use crate::contenders::{Contender, rounds};
use crate::context::Context;
use crate::figures::{Figure, Measured, Samples, Spread, Wanted, paired};
use crate::hits::{HIT, POEM};
use crate::load::{self, Exchange, HITS, RequestLine, Target};
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

    let mut figures = same_cores(context)?;
    let one = &rates[0];
    let ratios: Vec<Samples> = rates
        .iter()
        .map(|rates| paired(&Ok(rates.clone()), &Ok(one.clone())))
        .collect();
    print_curve(&steps, &ratios);
    let curve = steps.iter().zip(ratios).skip(1);
    figures.extend(curve.map(|(step, ratios)| step.figure(ratios)));
    Ok(figures)
}

/// A miss of the line protocol.
const MISS: Exchange = Exchange::line(RequestLine::New, POEM);

/// Two threads are not slower than one on the same two cores by more than this.
const NOT_SLOWER: f64 = 0.97;

/// Two threads against one, both on the first two of the cores. Ratios above 1 are in
/// favour of two: of rates two / one, of times one / two.
fn same_cores(context: &Context) -> io::Result<Vec<Figure>> {
    if context.proxy_cores.len() < 2 {
        return Ok(Vec::new());
    }

    let poem = context.poem(POEM)?;
    let short = own(context.cores, "short", &poem)?;
    let line = own(context.cores, "line", &poem)?;
    let (hits, misses) = (short.addr.to_string(), line.addr.to_string());
    let hits = with_threads(context, &["proxy", &hits])?;
    let no_ttl = ["proxy", &misses, "--protocol", "line", "--ttl", "0"];
    let misses = with_threads(context, &no_ttl)?;

    let count = context.scaled(9, 2);
    let many = rounds(&hits, count, |_, server| {
        load::poems_per_second(server.target(HIT), HITS)
    });
    let times = context.scaled(500, 100);
    let lone_hit = rounds(&hits, count, |_, server| {
        load::lone(server.target(HIT), times)
    });
    let lone_miss = rounds(&misses, count, |_, server| {
        load::lone(server.target(MISS), times)
    });

    let figure = |work: &str, what: &str, samples: Samples| {
        let wanted = Wanted::AtLeast(NOT_SLOWER);
        Figure::new("cores", Measured::ratio(work, what, wanted, samples))
    };
    Ok(vec![
        figure(
            "hits of 128 clients",
            "hits a second, 2 threads / 1, on 2 cores",
            paired(&many[0], &many[1]),
        ),
        figure(
            "a lone hit",
            "median time, 1 thread / 2, on 2 cores",
            paired(&lone_hit[1], &lone_hit[0]),
        ),
        figure(
            "a lone miss",
            "median time, 1 thread / 2, on 2 cores",
            paired(&lone_miss[1], &lone_miss[0]),
        ),
    ])
}

/// The proxy with two threads, and with one.
fn with_threads(context: &Context, args: &[&str]) -> io::Result<Vec<Contender>> {
    let start = |threads: &str| {
        let args = [args, &["--threads", threads]].concat();
        poetry_on(&context.proxy_cores[..2], &args)
    };
    let contenders = vec![
        Contender::new("2 threads", Ok(start("2")?)),
        Contender::new("1 thread", Ok(start("1")?)),
    ];
    Ok(contenders)
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

        let threads = count.to_string();
        let proxy = poetry_on(&proxy_cores, &["proxy", upstream, "--threads", &threads])?;
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
