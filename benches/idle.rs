//! Hits while others wait: the same proxy with 0, 1000 and 10,000 clients of a poem that does not come.
//!
//! The idle clients have joined a flight that stalls. The proxy is then told to forget it (SIGHUP), and the next fetch
//! succeeds: from there on newcomers are hits, and the idle ones wait on.

use crate::figures::{Figure, Measured, Unit, Wanted, paired};
use crate::hits::{Contender, POEM, drains, rates};
use crate::load::mute;
use crate::machine::until;
use crate::peers::{Server, poetry};
use crate::upstream::{Upstream, keep_waiting};
use crate::{Context, verse};
use rustix::process::{Signal, kill_process};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a client waits before it asks again: the proxy may not have heard the signal yet.
const PATIENCE: Duration = Duration::from_millis(200);

const NAMES: [&str; 3] = ["none", "1000", "10000"];

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let crowds = [0, context.scaled(1000, 100), context.scaled(10_000, 1000)];
    let (mut contenders, mut idle) = (Vec::new(), Vec::new());
    for (name, crowd) in NAMES.into_iter().zip(crowds) {
        let (server, waiting) = start(context, crowd)?;
        contenders.push(Contender {
            name,
            server: Ok(server),
        });
        idle.push(waiting);
    }
    let series = [
        ("drain", drains(context, &contenders)),
        ("per-core rate", rates(context, &contenders)),
    ];
    let mut figures = Vec::new();
    for (kind, series) in &series {
        for at in 1..NAMES.len() {
            let figure = format!("{kind}: time with {} idle / with none", crowds[at]);
            let (wanted, unit) = (Wanted::AtMost(1.3), Unit::Ratio);
            let samples = paired(&series[0], &series[at]); // speeds: the inverse of times
            let measured = Measured {
                work: "hits beside idle clients",
                figure: &figure,
                wanted,
                unit,
                samples,
            };
            figures.push(Figure::new("idle", measured));
        }
    }
    drop(idle);
    Ok(figures)
}

/// A proxy with so many clients that wait, and a poem for all others.
fn start(context: &Context, crowd: usize) -> io::Result<(Server, Vec<Socket>)> {
    let upstream = Upstream::start(move |call, mut caller| {
        if call == 0 && crowd > 0 {
            keep_waiting(caller);
        } else {
            let _proxy_gone = caller.write_all(verse(POEM).as_bytes());
        }
    })?;
    let from = upstream.addr.to_string();
    let patient = [
        "--max-clients",
        "30000",
        "--idle-timeout",
        "1h",
        "--fetch-timeout",
        "1h",
    ];
    let server = poetry(context.cores, &[&["proxy", &from][..], &patient].concat())?;
    let idle = mute(&server, crowd)?;
    if crowd > 0 {
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
