//! Misses of the line protocol: every request is for a key that nothing has been cached
//! for, so the proxy has to ask the upstream. HAProxy and nginx pass the same requests
//! on to the same upstream.
//!
//! The upstream shares the load generator's core. Packets are not steered to the
//! proxy's core: it would get the kernel's work for the client and for the upstream as
//! well.

use crate::contenders::{Comparison, Contender, Series, rounds, sound_rate};
use crate::context::Context;
use crate::figures::{Figure, Wanted};
use crate::hits::POEM;
use crate::load::{self, Demand, Exchange, Rate, RequestLine};
use crate::machine::Cores;
use crate::peers::{haproxy, nginx_proxy, own, poetry};
use std::io;
use std::time::Duration;

const MISS: Exchange = Exchange::line(RequestLine::New, POEM);

/// Processor time comes in hundredths of a second: two seconds measure it well enough.
const DEMAND: Demand = Demand {
    asking: 32,
    time: Duration::from_secs(2),
};

const PEERS: [&str; 2] = ["HAProxy", "nginx"];
const UPSTREAM: &str = "the upstream alone";

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let contenders = start(context)?;
    let (upstream, proxies) = contenders.split_last().expect("there are four");
    let rates = rounds(proxies, context.scaled(9, 2), |name, server| {
        sound_rate(context, name, server.target(MISS), DEMAND)
    });
    let lone = rounds(&contenders, context.scaled(9, 2), |_, server| {
        load::lone(server.target(MISS), context.scaled(500, 100))
    });

    let many = Comparison {
        part: "miss",
        work: "misses of 32 clients",
        contenders: proxies,
    };
    let alone = Comparison {
        part: "miss",
        work: "a lone miss",
        contenders: &contenders,
    };
    let speed = column(&rates, |rate| rate.poems);
    let cpu = column(&rates, |rate| rate.cpu);

    let mut figures = Vec::new();
    for peer in PEERS {
        let names = ["poetry proxy", peer];
        figures.push(many.figure("requests a second", &speed, names, Wanted::AtLeast(1.0)));
        figures.push(many.figure("processor time each", &cpu, names, Wanted::AtMost(1.1)));
        figures.push(alone.figure("median time", &lone, names, Wanted::AtMost(1.15)));
    }
    let names = ["poetry proxy", upstream.name];
    figures.push(alone.figure("median time", &lone, names, Wanted::Shown));
    Ok(figures)
}

/// The proxies, and as the last one their upstream.
fn start(context: &Context) -> io::Result<Vec<Contender>> {
    let cores = context.cores;
    let folder = context.folder.path();
    let upstream_cores = Cores {
        server: cores.load,
        ..cores
    };
    let upstream = own(upstream_cores, "line", &context.poem(POEM)?)?;

    let from = upstream.addr.to_string();
    let asking = DEMAND.asking.to_string(); // the peers have no limit
    let mut args = vec!["proxy", &from, "--protocol", "line", "--ttl", "0"];
    args.extend(["--upstream-conns", &asking]);
    Ok(vec![
        Contender::new("poetry proxy", Ok(poetry(cores, &args)?)),
        Contender::new(PEERS[0], haproxy(cores, folder, upstream.addr)),
        Contender::new(PEERS[1], nginx_proxy(cores, folder, upstream.addr)),
        Contender::new(UPSTREAM, Ok(upstream)),
    ])
}

/// One value of every sample.
fn column(series: &Series<Rate>, value: fn(&Rate) -> f64) -> Series {
    let values = |rates: &Vec<Rate>| rates.iter().map(value).collect();
    series
        .iter()
        .map(|samples| samples.as_ref().map(values).map_err(Clone::clone))
        .collect()
}
