//! Servers that are compared with each other, measured in turns.

use crate::context::Context;
use crate::figures::{Figure, Measured, Wanted, paired};
use crate::load::{self, Demand, Exchange, HITS, Rate, Target};
use crate::machine::Steering;
use crate::peers::Server;
use std::io;

/// How many clients queue for a drain: well below what the kernel holds.
const QUEUED: usize = 2500;

/// A core counts as full when it is busy for at least this fraction of the time. Clock
/// ticks are coarse, so that it cannot be 1.
const FULL: f64 = 0.97;

/// How often an unsound rate is measured again. After that it is taken with a warning.
const RETRIES: usize = 3;

/// A server and its name in the table, or why it is not available.
pub struct Contender {
    pub name: &'static str,
    pub server: Result<Server, String>,
}

impl Contender {
    /// Prints why a server is not available, if it is not.
    pub fn new(name: &'static str, server: io::Result<Server>) -> Contender {
        let server = server.map_err(|e| e.to_string());
        if let Err(why) = &server {
            eprintln!("  {name} is not measured: {why}");
        }
        Contender { name, server }
    }
}

/// The samples of each contender, in their order.
pub type Series<T = f64> = Vec<Result<Vec<T>, String>>;

/// The speed at which each contender serves its queue.
pub fn drains(context: &Context, contenders: &[Contender], exchange: Exchange) -> Series {
    rounds(contenders, context.scaled(21, 3), |_, server| {
        load::drain(server.target(exchange), QUEUED).map(|time| 1.0 / time)
    })
}

/// The rate of each contender with its core full.
pub fn rates(context: &Context, contenders: &[Contender], exchange: Exchange) -> Series {
    let steering = match Steering::to(&[context.cores.server]) {
        Ok(steering) => steering,
        Err(e) => return contenders.iter().map(|_| Err(e.to_string())).collect(),
    };

    let series = rounds(contenders, context.scaled(9, 2), |name, server| {
        let target = server.target(exchange);
        Ok(sound_rate(context, name, target, HITS)?.poems)
    });
    drop(steering);
    series
}

/// A rate that is limited by the server's core, or, after some tries, one that is not.
pub fn sound_rate(
    context: &Context,
    name: &str,
    target: Target,
    demand: Demand,
) -> io::Result<Rate> {
    let mut rate = load::rate(target, context.cores, demand)?;
    for _ in 0..RETRIES {
        if is_sound(&rate) {
            return Ok(rate);
        }
        rate = load::rate(target, context.cores, demand)?;
    }

    if !is_sound(&rate) {
        eprintln!(
            "  doubtful: {name}: the server's core was busy {:.2}, the load's {:.2}",
            rate.server, rate.load
        );
    }
    Ok(rate)
}

/// A rate says something about the server only if the server's core is the full one.
fn is_sound(rate: &Rate) -> bool {
    rate.server >= FULL && rate.load <= FULL
}

/// Measures each contender once in every round. The order rotates, so that no contender
/// always runs behind the same one. `measure` gets a contender's name and its server.
pub fn rounds<T>(
    contenders: &[Contender],
    rounds: usize,
    measure: impl Fn(&str, &Server) -> io::Result<T>,
) -> Series<T> {
    let mut series: Series<T> = contenders
        .iter()
        .map(|c| c.server.as_ref().map(|_| Vec::new()).map_err(Clone::clone))
        .collect();

    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let contender = &contenders[at];
            let (Ok(server), Ok(samples)) = (&contender.server, &mut series[at]) else {
                continue;
            };
            match measure(contender.name, server) {
                Ok(sample) => samples.push(sample),
                Err(e) => series[at] = Err(format!("{}: {e}", contender.name)),
            }
        }
    }
    series
}

/// Where the contender called `name` stands among `contenders`.
fn position(contenders: &[Contender], name: &str) -> usize {
    contenders
        .iter()
        .position(|contender| contender.name == name)
        .expect("every name compared is that of a contender")
}

/// Servers of which one is compared with the others.
pub struct Comparison<'a> {
    pub part: &'static str,
    pub work: &'a str,
    pub contenders: &'a [Contender],
}

impl Comparison<'_> {
    /// The ratio of two contenders in a series. `kind` names the quantity.
    pub fn figure(
        &self,
        kind: &str,
        series: &Series,
        [ours, theirs]: [&str; 2],
        wanted: Wanted,
    ) -> Figure {
        let [above, below] = [ours, theirs].map(|name| position(self.contenders, name));
        let figure = format!("{kind}, {ours} / {theirs}");
        let samples = paired(&series[above], &series[below]);
        Figure::new(
            self.part,
            Measured::ratio(self.work, &figure, wanted, samples),
        )
    }
}
