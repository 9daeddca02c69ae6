//! Hits while other clients wait: the same proxy with 0, 1000 and 10,000 clients of a
//! poem that does not come.
//!
//! The idle clients have joined a flight that stalls. The proxy is then told to forget
//! it (SIGHUP), and the next fetch succeeds. From then on new clients get hits, and the
//! idle ones go on waiting.

use crate::contenders::{Contender, drains, rates};
use crate::context::{Context, verse};
use crate::figures::{Figure, Measured, Wanted, paired};
use crate::hits::{HIT, POEM};
use crate::load::silent_clients;
use crate::machine::until;
use crate::peers::{Server, poetry};
use crate::upstream::{Upstream, keep_waiting};
use rustix::process::{Signal, kill_process};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a client waits before it asks again: the proxy may not have handled the
/// signal yet.
const PATIENCE: Duration = Duration::from_millis(200);

const NAMES: [&str; 3] = ["none", "1000", "10000"];

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let counts = [0, context.scaled(1000, 100), context.scaled(10_000, 1000)];
    let mut contenders = Vec::new();
    let mut idle = Vec::new();
    for (name, count) in NAMES.into_iter().zip(counts) {
        let (server, waiting) = start(context, count)?;
        contenders.push(Contender::new(name, Ok(server)));
        idle.push(waiting);
    }

    let series = [
        ("drain", drains(context, &contenders, HIT)),
        ("per-core rate", rates(context, &contenders, HIT)),
    ];
    drop(idle);

    let mut figures = Vec::new();
    for (kind, series) in &series {
        for at in 1..NAMES.len() {
            let figure = format!("{kind}: time with {} idle / with none", counts[at]);
            let samples = paired(&series[0], &series[at]); // speeds: the inverse of times
            figures.push(Figure::new(
                "idle",
                Measured::ratio(
                    "hits beside idle clients",
                    &figure,
                    Wanted::AtMost(1.3),
                    samples,
                ),
            ));
        }
    }
    Ok(figures)
}

/// A proxy with `count` waiting clients, and a poem for all others.
fn start(context: &Context, count: usize) -> io::Result<(Server, Vec<Socket>)> {
    let upstream = Upstream::start(move |call, mut caller| {
        if call == 0 && count > 0 {
            keep_waiting(caller);
        } else {
            let _proxy_gone = caller.write_all(verse(POEM).as_bytes());
        }
    })?;

    let from = upstream.addr.to_string();
    let mut args = vec!["proxy", &from, "--max-clients", "30000"];
    args.extend(["--idle-timeout", "1h", "--fetch-timeout", "1h"]);
    let server = poetry(context.cores, &args)?;

    let mut idle = Vec::new();
    if count > 0 {
        idle = silent_clients(&server, count)?;
        kill_process(server.pid(), Signal::HUP)?;
    }
    until("the poem comes", || {
        Ok(ask(&server).is_ok_and(|poem| poem.len() == POEM))
    })?;
    Ok((server, idle))
}

fn ask(server: &Server) -> io::Result<Vec<u8>> {
    let mut poem = Vec::new();
    let mut stream = TcpStream::connect(server.addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_to_end(&mut poem)?;
    Ok(poem)
}
