//! Many readers of one poem that is still in flight.

use crate::context::{Context, verse};
use crate::figures::{Figure, Measured, Samples, Wanted, paired};
use crate::large::transfers;
use crate::load::Clients;
use crate::machine::LONG;
use crate::peers::{Server, own, poetry};
use crate::upstream::Upstream;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let last = Measured::ratio(
        "10,000 clients of one poem in flight",
        "last byte to last client, poetry proxy / floor",
        Wanted::AtMost(1.3),
        last_byte(context)?,
    );
    let streamed = Measured::ratio(
        "64 MiB streamed to 100 readers",
        "bytes a second, poetry proxy / a send loop",
        Wanted::AtLeast(0.9),
        streamed(context)?,
    );
    Ok(vec![
        Figure::new("flight", last),
        Figure::new("flight", streamed),
    ])
}

/// Half the length of the poem that the 10,000 clients wait for, in bytes.
const HALF: usize = 350;

/// How many clients connect before all of them get the first half: fewer than the
/// kernel queues for a server.
const BATCH: usize = 2000;

/// The time from the upstream's last byte to the last client's end. The floor and the
/// proxy pass on the same poem.
fn last_byte(context: &Context) -> io::Result<Samples> {
    let clients = context.scaled(10_000, 1000);
    let mut floor = Halves::new()?;
    let mut ours = Halves::new()?;
    let from = ours.upstream.addr.to_string();
    let proxy = poetry(context.cores, &["proxy", &from, "--ttl", "0"])?;
    let fan = own(context.cores, "fan", &floor.upstream.addr.to_string())?;

    let mut floor_times = Vec::new();
    let mut our_times = Vec::new();
    for _ in 0..context.scaled(9, 3) {
        floor_times.push(floor.round(&fan, clients)?);
        our_times.push(ours.round(&proxy, clients)?);
    }
    Ok(paired(&Ok(our_times), &Ok(floor_times)))
}

/// An upstream that sends half a poem, and the rest when it is told to.
struct Halves {
    upstream: Upstream,
    /// Lets the upstream send the second half.
    go_on: Sender<()>,
    /// When the upstream sent its last byte.
    last_byte: Receiver<Instant>,
    rounds: usize,
}

impl Halves {
    fn new() -> io::Result<Halves> {
        let (go_on, wait) = channel::<()>();
        let (sent, last_byte) = channel();
        let wait = Mutex::new(wait);

        let upstream = Upstream::start(move |_, mut caller| {
            let poem = verse(2 * HALF);
            let _proxy_gone = caller.write_all(&poem.as_bytes()[..HALF]);
            let _benches_over = wait.lock().map(|wait| wait.recv());

            let now = Instant::now();
            let _proxy_gone = caller.write_all(&poem.as_bytes()[HALF..]);
            drop(caller);
            let _benches_over = sent.send(now);
        })?;

        Ok(Halves {
            upstream,
            go_on,
            last_byte,
            rounds: 0,
        })
    }

    /// Seconds from the last byte upstream to the last client's end.
    fn round(&mut self, server: &Server, count: usize) -> io::Result<f64> {
        let mut clients = Clients::new(server.addr)?;
        for batch in (0..count).step_by(BATCH) {
            clients.connect_more(BATCH.min(count - batch))?;
            clients.read_part(HALF as u64)?;
        }

        let _upstream_waits = self.go_on.send(());
        clients.read_whole(2 * HALF as u64)?;
        let end = Instant::now();
        let last_byte = self
            .last_byte
            .recv_timeout(LONG)
            .map_err(io::Error::other)?;

        self.rounds += 1;
        one_fetch_each(&self.upstream, self.rounds, 0)?;
        Ok(end.duration_since(last_byte).as_secs_f64())
    }
}

/// Checks that each round was one flight, that is, one fetch. `spare` more are allowed
/// for clients that came late.
fn one_fetch_each(upstream: &Upstream, rounds: usize, spare: usize) -> io::Result<()> {
    let calls = upstream.calls();
    if (rounds..=rounds + spare).contains(&calls) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{calls} fetches in {rounds} rounds"
    )))
}

/// A flight against a floor that has the whole poem in memory already.
fn streamed(context: &Context) -> io::Result<Samples> {
    const READERS: usize = 100;
    let len = context.scaled(64 << 20, 8 << 20);
    let poem = verse(len);
    let upstream = Upstream::start(move |_, mut caller| {
        let _proxy_gone = caller.write_all(poem.as_bytes());
    })?;

    let from = upstream.addr.to_string();
    let mut args = vec!["proxy", &from, "--ttl", "0"];
    args.extend(["--max-poem", "128MiB", "--capacity", "512MiB"]);
    let proxy = poetry(context.cores, &args)?;
    let path = context.poem(len)?;
    let servers = [own(context.cores, "large", &path)?, proxy];

    let [floor, ours] = transfers(context, &servers, len, READERS)?;
    std::fs::remove_file(&path)?;
    // A flight may end before the last reader of its round has connected.
    one_fetch_each(&upstream, ours.len(), ours.len() / 3)?;
    Ok(paired(&Ok(floor), &Ok(ours)))
}
