//! Hits: a poem of 700 bytes that the server already has.
//!
//! *Drain*: the server is stopped, connections queue, it goes on, and the time counts
//! until every client is served. The handshakes are over by then. *Per-core rate*: the
//! server's core gets all of the loopback's network work as well, and is full. The work
//! on the load generator's core does not count.

use crate::contenders::{Comparison, Contender, drains, rates};
use crate::context::{Context, verse};
use crate::figures::{Figure, Wanted};
use crate::load::{self, Exchange};
use crate::machine::Cores;
use crate::peers::{Server, nginx, own, poetry, twisted};
use std::io;

/// The length of the poem, in bytes.
pub const POEM: usize = 700;

/// A hit: nothing is sent, and the poem comes.
pub const HIT: Exchange = Exchange::poem(POEM);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let (contenders, _upstream) = start(context)?;
    let series = [
        ("drain", drains(context, &contenders, HIT)),
        ("per-core rate", rates(context, &contenders, HIT)),
    ];

    let mut figures = Vec::new();
    for (ours, theirs, wanted) in COMPARED {
        let work = if ours.starts_with("poetry") {
            "a hit of 700 bytes"
        } else {
            "a peer's 700 bytes"
        };
        let comparison = Comparison {
            part: "hits",
            work,
            contenders: &contenders,
        };

        for ((kind, series), wanted) in series.iter().zip(wanted) {
            figures.push(comparison.figure(kind, series, [ours, theirs], wanted));
        }
    }
    Ok(figures)
}

/// Two names, and the targets for the first against the second: drain, per-core rate.
type Compared = (&'static str, &'static str, [Wanted; 2]);

const fn at_least(drain: f64, rate: f64) -> [Wanted; 2] {
    [Wanted::AtLeast(drain), Wanted::AtLeast(rate)]
}

const SHOWN: [Wanted; 2] = [Wanted::Shown, Wanted::Shown];

const COMPARED: [Compared; 12] = [
    ("poetry serve", "floor", at_least(0.93, 0.95)),
    ("poetry proxy", "floor", at_least(0.93, 0.95)),
    ("poetry proxy, limits", "poetry proxy", at_least(0.97, 0.97)),
    ("poetry serve", "nginx", at_least(1.0, 1.0)),
    ("poetry proxy", "nginx", at_least(1.0, 1.0)),
    ("poetry serve", "tokio", at_least(1.0, 1.0)),
    ("poetry proxy", "tokio", at_least(1.0, 1.0)),
    ("poetry serve", "Twisted server", at_least(2.0, 1.5)),
    ("poetry proxy", "Twisted proxy", at_least(2.0, 1.5)),
    ("nginx", "floor", SHOWN),
    ("tokio", "floor", SHOWN),
    ("Twisted server", "floor", SHOWN),
];

/// The proxy with every limit on its clients, of which none is reached.
fn limited(cores: Cores, upstream: &str) -> io::Result<Server> {
    let limits = [
        "proxy",
        upstream,
        "--allow",
        "127.0.0.0/8,10.0.0.0/8",
        "--deny",
        "192.0.2.0/24",
        "--max-per-address",
        "100000",
        "--client-rate",
        "4000000000/s,burst=4000000000",
    ];
    poetry(cores, &limits)
}

/// Every server that can be started here, and the upstream of the proxies.
fn start(context: &Context) -> io::Result<(Vec<Contender>, Server)> {
    let cores = context.cores;
    let poem = context.poem(POEM)?;
    let upstream = own(cores, "short", &poem)?;
    let from = upstream.addr.to_string();

    let nginx = nginx(cores, context.folder.path(), &verse(POEM));
    let contenders = vec![
        Contender::new("floor", Ok(own(cores, "short", &poem)?)),
        Contender::new("poetry serve", Ok(poetry(cores, &["serve", &poem])?)),
        Contender::new("poetry proxy", Ok(poetry(cores, &["proxy", &from])?)),
        Contender::new("poetry proxy, limits", Ok(limited(cores, &from)?)),
        Contender::new("nginx", nginx),
        Contender::new("tokio", own(cores, "tokio", &poem)),
        Contender::new("Twisted server", twisted(cores, "server", &poem)),
        Contender::new("Twisted proxy", twisted(cores, "proxy", &from)),
    ];

    // One request each: from now on the proxies have the poem.
    for server in contenders.iter().flat_map(|c| &c.server) {
        load::transfer(server.target(HIT), 1)?;
    }
    Ok((contenders, upstream))
}
