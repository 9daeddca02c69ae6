//! Hits of the line protocol: an answer of 700 bytes to a request line, which the proxy
//! has cached. Measured as hits are, against a floor that blocks in every call.

use crate::contenders::{Comparison, Contender, drains, rates};
use crate::context::Context;
use crate::figures::{Figure, Wanted};
use crate::hits::POEM;
use crate::load::{self, Exchange, RequestLine};
use crate::peers::{own, poetry};
use std::io;

const HIT: Exchange = Exchange::line(RequestLine::Same, POEM);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let cores = context.cores;
    let poem = context.poem(POEM)?;
    let upstream = own(cores, "line", &poem)?;
    let from = upstream.addr.to_string();
    let proxy = poetry(cores, &["proxy", &from, "--protocol", "line"])?;
    load::transfer(proxy.target(HIT), 1)?; // from now on it is cached
    let contenders = [
        Contender::new("floor", Ok(own(cores, "line", &poem)?)),
        Contender::new("poetry proxy", Ok(proxy)),
    ];

    let comparison = Comparison {
        part: "line",
        work: "a hit of 700 bytes, line protocol",
        contenders: &contenders,
    };
    let figure = |kind, series| {
        let wanted = Wanted::AtLeast(0.95);
        comparison.figure(kind, &series, ["poetry proxy", "floor"], wanted)
    };
    Ok(vec![
        figure("drain", drains(context, &contenders, HIT)),
        figure("per-core rate", rates(context, &contenders, HIT)),
    ])
}
