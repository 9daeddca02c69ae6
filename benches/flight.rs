//! Many readers of one poem that is still in flight.

use crate::figures::{Figure, Measured, Samples, Unit, Wanted, paired};
use crate::large::transfers;
use crate::load::Crowd;
use crate::machine::LONG;
use crate::peers::{Server, own, poetry};
use crate::upstream::Upstream;
use crate::{Context, verse};
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let (many, hundred) = (last_byte(context)?, streamed(context)?);
    let last = Measured {
        work: "10,000 clients of one poem in flight",
        figure: "last byte to last client, poetry proxy / floor",
        wanted: Wanted::AtMost(1.3),
        unit: Unit::Ratio,
        samples: many,
    };
    let streamed = Measured {
        work: "64 MiB streamed to 100 readers",
        figure: "bytes a second, poetry proxy / a send loop",
        wanted: Wanted::AtLeast(0.9),
        unit: Unit::Ratio,
        samples: hundred,
    };
    Ok(vec![
        Figure::new("flight", last),
        Figure::new("flight", streamed),
    ])
}

/// The two halves of the poem of 700 bytes that 10,000 wait for.
const HALF: usize = 350;

/// How many connect before they are all given the first half: fewer than the kernel holds for a server.
const BATCH: usize = 2000;

/// From the last byte upstream to the end of the last client: the same poem passed on by the floor and by the proxy.
fn last_byte(context: &Context) -> io::Result<Samples> {
    let clients = context.scaled(10_000, 1000);
    let (mut ours, mut floor) = (Halves::new()?, Halves::new()?);
    let ours_at = ours.upstream.addr.to_string();
    let proxy = poetry(context.cores, &["proxy", &ours_at, "--ttl", "0"])?;
    let fan = own(context.cores, "fan", &floor.upstream.addr.to_string())?;
    let (mut ours_took, mut floor_took) = (Vec::new(), Vec::new());
    for _ in 0..context.scaled(9, 3) {
        floor_took.push(floor.round(&fan, clients)?);
        ours_took.push(ours.round(&proxy, clients)?);
    }
    Ok(paired(&Ok(ours_took), &Ok(floor_took)))
}

/// An upstream that sends half a poem, and the rest when it is told to.
struct Halves {
    upstream: Upstream,
    go: Sender<()>,
    told: Receiver<Instant>,
    rounds: usize,
}

impl Halves {
    fn new() -> io::Result<Halves> {
        let (go, wait) = channel::<()>();
        let (tell, told) = channel();
        let wait = Mutex::new(wait);
        let upstream = Upstream::start(move |_, mut caller| {
            let poem = verse(2 * HALF);
            let _proxy_gone = caller.write_all(&poem.as_bytes()[..HALF]);
            let _benches_over = wait.lock().map(|wait| wait.recv());
            let last_byte = Instant::now();
            let _proxy_gone = caller.write_all(&poem.as_bytes()[HALF..]);
            drop(caller);
            let _benches_over = tell.send(last_byte);
        })?;
        Ok(Halves {
            upstream,
            go,
            told,
            rounds: 0,
        })
    }

    fn round(&mut self, server: &Server, clients: usize) -> io::Result<f64> {
        let mut crowd = Crowd::new(server.addr)?;
        for batch in (0..clients).step_by(BATCH) {
            crowd.grow(BATCH.min(clients - batch))?;
            crowd.read_part(HALF as u64)?;
        }
        let _upstream_waits = self.go.send(());
        crowd.read_whole(2 * HALF as u64)?;
        let end = Instant::now();
        let last_byte = self.told.recv_timeout(LONG).map_err(io::Error::other)?;
        self.rounds += 1;
        one_fetch_each(&self.upstream, self.rounds, 0)?;
        Ok(end.duration_since(last_byte).as_secs_f64())
    }
}

/// A poem fetched more than once would not have been one flight; it may so often be, for one who came late.
fn one_fetch_each(upstream: &Upstream, rounds: usize, spare: usize) -> io::Result<()> {
    match upstream.calls() {
        calls if (rounds..=rounds + spare).contains(&calls) => Ok(()),
        calls => Err(io::Error::other(format!(
            "{calls} fetches in {rounds} rounds"
        ))),
    }
}

/// A flight against a floor that has the whole poem in memory already.
fn streamed(context: &Context) -> io::Result<Samples> {
    let len = context.scaled(64 << 20, 8 << 20);
    let (clients, poem) = (100, verse(len));
    let upstream = Upstream::start(move |_, mut caller| {
        let _proxy_gone = caller.write_all(poem.as_bytes());
    })?;
    let from = upstream.addr.to_string();
    let room = ["--ttl", "0", "--max-poem", "128MiB", "--capacity", "512MiB"];
    let proxy = poetry(context.cores, &[&["proxy", &from][..], &room].concat())?;
    let path = context.poem(len)?;
    let servers = [own(context.cores, "large", &path)?, proxy];
    let [floor, ours] = transfers(context, &servers, len as u64, clients)?;
    std::fs::remove_file(&path)?;
    one_fetch_each(&upstream, ours.len(), ours.len() / 3)?; // the poem may have landed before the last has connected
    Ok(paired(&Ok(floor), &Ok(ours)))
}
