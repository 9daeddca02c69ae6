//! Hits: a poem of 700 bytes that is there already.
//!
//! *Drain*: the server is stopped, connections queue, it goes on, and the time counts until everyone is served. The
//! handshakes are over by then. *Per-core rate*: the server's core gets all of the loopback's network work as well,
//! and is full; what the load generator's core does is not counted.

use crate::figures::{Figure, Measured, Samples, Unit, Wanted, paired};
use crate::load::{self, Rate, Target, drain};
use crate::machine::Steering;
use crate::peers::{Server, nginx, own, poetry, twisted};
use crate::{Context, verse};
use std::io;
use std::time::Duration;

/// The length of the poem, in bytes.
pub const POEM: usize = 700;

/// How many queue for a drain: well below what the kernel holds.
const QUEUED: usize = 2500;

/// How long each rate is counted.
const COUNTED: Duration = Duration::from_secs(1);

/// A core is full that is idle for no more than this part of the time: the clock ticks that tell are coarse.
const FULL: f64 = 0.97;

/// How often a rate that says nothing is measured again before it is taken as it is, with a word of doubt.
const RETRIES: usize = 3;

/// A server that is measured, by its name in the table, or why it is not there.
pub struct Contender {
    pub name: &'static str,
    pub server: Result<Server, String>,
}

/// The samples of each contender, in their order.
pub type Series = Vec<Samples>;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let (contenders, _upstream) = start(context)?;
    for contender in &contenders {
        if let Err(why) = &contender.server {
            eprintln!("  {} could not be found: {why}", contender.name);
        }
    }
    let drains = drains(context, &contenders);
    let rates = rates(context, &contenders);
    let mut figures = Vec::new();
    for (ours, them, drain, per_core) in COMPARED {
        let at = |name: &str| {
            contenders
                .iter()
                .position(|contender| contender.name == name)
        };
        let (Some(ours_at), Some(them_at)) = (at(ours), at(them)) else {
            continue;
        };
        let work = if ours.starts_with("poetry") {
            "a hit of 700 bytes"
        } else {
            "a peer's 700 bytes"
        };
        for (kind, wanted, series) in [
            ("drain", drain, &drains),
            ("per-core rate", per_core, &rates),
        ] {
            let figure = format!("{kind}, {ours} / {them}");
            let samples = paired(&series[ours_at], &series[them_at]);
            figures.push(Figure::new(
                "hits",
                Measured {
                    work,
                    figure: &figure,
                    wanted,
                    unit: Unit::Ratio,
                    samples,
                },
            ));
        }
    }
    Ok(figures)
}

/// Who is compared with whom, and what is wanted of the drain and of the per-core rate.
const COMPARED: [(&str, &str, Wanted, Wanted); 11] = [
    (
        "poetry serve",
        "floor",
        Wanted::AtLeast(0.93),
        Wanted::AtLeast(0.95),
    ),
    (
        "poetry proxy",
        "floor",
        Wanted::AtLeast(0.93),
        Wanted::AtLeast(0.95),
    ),
    (
        "poetry serve",
        "nginx",
        Wanted::AtLeast(1.0),
        Wanted::AtLeast(1.0),
    ),
    (
        "poetry proxy",
        "nginx",
        Wanted::AtLeast(1.0),
        Wanted::AtLeast(1.0),
    ),
    (
        "poetry serve",
        "tokio",
        Wanted::AtLeast(1.0),
        Wanted::AtLeast(1.0),
    ),
    (
        "poetry proxy",
        "tokio",
        Wanted::AtLeast(1.0),
        Wanted::AtLeast(1.0),
    ),
    (
        "poetry serve",
        "Twisted server",
        Wanted::AtLeast(2.0),
        Wanted::AtLeast(1.5),
    ),
    (
        "poetry proxy",
        "Twisted proxy",
        Wanted::AtLeast(2.0),
        Wanted::AtLeast(1.5),
    ),
    ("nginx", "floor", Wanted::Shown, Wanted::Shown),
    ("tokio", "floor", Wanted::Shown, Wanted::Shown),
    ("Twisted server", "floor", Wanted::Shown, Wanted::Shown),
];

/// Everyone who can be started here, and the upstream of the proxies.
fn start(context: &Context) -> io::Result<(Vec<Contender>, Server)> {
    let (cores, poem) = (context.cores, context.poem(POEM)?);
    let upstream = own(cores, "short", &poem)?;
    let from = upstream.addr.to_string();
    let contender = |name, server: io::Result<Server>| Contender {
        name,
        server: server.map_err(|e| e.to_string()),
    };
    let contenders = vec![
        contender("floor", Ok(own(cores, "short", &poem)?)),
        contender("poetry serve", Ok(poetry(cores, &["serve", &poem])?)),
        contender("poetry proxy", Ok(poetry(cores, &["proxy", &from])?)),
        contender("nginx", nginx(cores, context.folder.path(), &verse(POEM))),
        contender("tokio", own(cores, "tokio", &poem)),
        contender("Twisted server", twisted(cores, "server", &poem)),
        contender("Twisted proxy", twisted(cores, "proxy", &from)),
    ];
    for server in contenders
        .iter()
        .filter_map(|contender| contender.server.as_ref().ok())
    {
        load::transfer(server.target(POEM as u64), 1)?; // now the proxies have it
    }
    Ok((contenders, upstream))
}

/// The speed at which each contender serves those who queued.
pub fn drains(context: &Context, contenders: &[Contender]) -> Series {
    rounds(contenders, context.scaled(21, 3), |target| {
        drain(target, QUEUED).map(|time| 1.0 / time)
    })
}

/// The rate of each contender with its core full.
pub fn rates(context: &Context, contenders: &[Contender]) -> Series {
    let steering = match Steering::to(context.cores.server) {
        Ok(steering) => steering,
        Err(e) => return contenders.iter().map(|_| Err(e.to_string())).collect(),
    };
    let series = rounds(contenders, context.scaled(9, 2), |target| {
        let mut rate = load::rate(target, context.cores, COUNTED)?;
        for _ in 0..RETRIES {
            if is_sound(&rate) {
                break;
            }
            rate = load::rate(target, context.cores, COUNTED)?;
        }
        if !is_sound(&rate) {
            eprintln!(
                "  doubtful: the server's core was busy {:.2}, the load's {:.2}",
                rate.server, rate.load
            );
        }
        Ok(rate.poems)
    });
    drop(steering);
    series
}

/// Measures each contender once a round, in another order each time, so that none always follows the same one.
fn rounds(
    contenders: &[Contender],
    rounds: usize,
    measure: impl Fn(Target) -> io::Result<f64>,
) -> Series {
    let mut series: Series = contenders
        .iter()
        .map(|c| c.server.as_ref().map(|_| Vec::new()).map_err(Clone::clone))
        .collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let (Ok(server), Ok(samples)) = (&contenders[at].server, &mut series[at]) else {
                continue;
            };
            match measure(server.target(POEM as u64)) {
                Ok(sample) => samples.push(sample),
                Err(e) => series[at] = Err(format!("{}: {e}", contenders[at].name)),
            }
        }
    }
    series
}

/// A rate says something about the server's core only where that is the one that is full.
fn is_sound(rate: &Rate) -> bool {
    rate.server >= FULL && rate.load <= FULL
}
