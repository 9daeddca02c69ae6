//! Large poems, against a plain send loop: whole slices, until the kernel is full.

use crate::context::Context;
use crate::figures::{Figure, Measured, Samples, Wanted, paired};
use crate::load::{Exchange, transfer};
use crate::peers::{Server, own, poetry};
use std::io;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let alone = compare(context, context.scaled(1 << 30, 64 << 20), 1)?;
    let shared = compare(context, context.scaled(64 << 20, 4 << 20), 32)?;

    let figure = |work, samples| {
        let what = "bytes a second, poetry serve / a send loop";
        let wanted = Wanted::AtLeast(0.97);
        Figure::new("large", Measured::ratio(work, what, wanted, samples))
    };
    Ok(vec![
        figure("1 GiB to one client", alone),
        figure("64 MiB to 32 clients", shared),
    ])
}

fn compare(context: &Context, len: usize, clients: usize) -> io::Result<Samples> {
    let poem = context.poem(len)?;
    let servers = [
        own(context.cores, "large", &poem)?,
        poetry(context.cores, &["serve", &poem])?,
    ];

    let [floor, ours] = transfers(context, &servers, len, clients)?;
    std::fs::remove_file(&poem)?; // it may be large
    Ok(paired(&Ok(floor), &Ok(ours)))
}

/// The times of two servers in turn; which one goes first alternates.
pub fn transfers(
    context: &Context,
    servers: &[Server; 2],
    len: usize,
    clients: usize,
) -> io::Result<[Vec<f64>; 2]> {
    let mut times = [Vec::new(), Vec::new()];

    for round in 0..context.scaled(11, 3) {
        for turn in 0..2 {
            let at = (round + turn) % 2;
            times[at].push(transfer(servers[at].target(Exchange::poem(len)), clients)?);
        }
    }

    Ok(times)
}
