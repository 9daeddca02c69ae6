//! Lines of a feed to many readers: how fast one goes out to all.

use crate::context::Context;
use crate::figures::{Figure, Measured, Samples, Wanted, paired};
use crate::load::Clients;
use crate::peers::{Server, own, poetry};
use crate::upstream::Upstream;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

/// A sentence of AIS, of the usual length.
const LINE: &[u8] =
    b"!AIVDM,1,1,,A,13HOI:0P0000VOHLCnHQKwvL05Ip,0*23                              \n";

/// Lines in a row for a sample.
const IN_A_ROW: usize = 20;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let fan_out = Measured::ratio(
        "a feed to 1,000 readers, line by line",
        "lines a second, poetry proxy --live / a send loop",
        Wanted::AtLeast(0.8),
        fan_out(context)?,
    );
    Ok(vec![Figure::new("live", fan_out)])
}

/// The next line comes once all readers have the last: that is how fast one goes out,
/// without a batch that would make it look faster.
fn fan_out(context: &Context) -> io::Result<Samples> {
    let readers = context.scaled(1000, 100);
    let mut floor = Source::new()?;
    let mut ours = Source::new()?;

    let from = ours.upstream.addr.to_string();
    // All that has come is replayed: a reader that is accepted late misses nothing.
    let args = [
        "proxy",
        "--live",
        &from,
        "--backlog",
        "16MiB",
        "--replay",
        "1000000",
    ];
    let proxy = poetry(context.cores, &args)?;
    let fan = own(context.cores, "fan", &floor.upstream.addr.to_string())?;
    floor.connect(&fan, readers)?;
    ours.connect(&proxy, readers)?;

    let mut floor_rates = Vec::new();
    let mut our_rates = Vec::new();
    for _ in 0..context.scaled(25, 5) {
        floor_rates.push(floor.rate()?);
        our_rates.push(ours.rate()?);
    }
    Ok(paired(&Ok(our_rates), &Ok(floor_rates)))
}

/// An upstream that sends a line whenever it is told to, and the readers of what passes
/// it on.
struct Source {
    upstream: Upstream,
    next: Sender<()>,
    readers: Option<Clients>,
    sent: usize,
}

impl Source {
    fn new() -> io::Result<Source> {
        let (next, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let upstream = Upstream::start(move |_, mut caller| {
            let Ok(wait) = wait.lock() else { return };
            while wait.recv().is_ok() && caller.write_all(LINE).is_ok() {}
        })?;

        Ok(Source {
            upstream,
            next,
            readers: None,
            sent: 0,
        })
    }

    fn connect(&mut self, server: &Server, readers: usize) -> io::Result<()> {
        let mut clients = Clients::new(server.addr)?;
        clients.connect_more(readers)?;
        self.readers = Some(clients);
        self.rate().map(|_warm| ())
    }

    /// Lines a second, each to all readers.
    fn rate(&mut self) -> io::Result<f64> {
        let readers = self.readers.as_mut();
        let readers = readers.ok_or_else(|| io::Error::other("no reader is connected"))?;

        let started = Instant::now();
        for _ in 0..IN_A_ROW {
            self.sent += 1;
            let _upstream_waits = self.next.send(());
            readers.read_part((self.sent * LINE.len()) as u64)?;
        }
        if self.upstream.calls() > 1 {
            return Err(io::Error::other("more than one connection to the upstream"));
        }
        Ok(IN_A_ROW as f64 / started.elapsed().as_secs_f64())
    }
}
