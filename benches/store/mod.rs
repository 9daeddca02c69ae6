//! A proxy with a store: what it costs beside a hit, and what it saves.
//!
//! | file | measures |
//! |---|---|
//! | `hits.rs` | what answers from memory cost, with either store and without |
//! | `disk.rs` | `--store PATH`: what reading and writing cost, and how fast it opens |
//! | `bound.rs` | how much of the disk it takes, and what a kill loses |
//! | `small.rs` | a fleet's misses and hits, and what they cost Redis |
//! | `relay.rs` | how far a client is behind one whose proxy fetches |
//! | `outage.rs` | Redis is stopped, killed, or is not Redis at all |
//! | `takeover.rs` | the proxy that fetches is killed |
//! | `storm.rs` | many clients at three proxies |
//!
//! Proxies of a fleet share a server of Redis that is started here. Where none is
//! installed, those rows are left out, and a line says so.

mod bound;
mod disk;
mod hits;
mod members;
mod outage;
mod redis;
mod relay;
mod site;
mod small;
mod storm;
mod takeover;

use crate::context::Context;
use crate::figures::{Figure, Measured, Spread, Wanted};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut add = |name: &str, measure: fn(&Context) -> io::Result<Vec<Figure>>| {
        eprintln!("  {name} ...");
        figures.extend(measure(context)?);
        Ok::<(), io::Error>(())
    };

    add("hits", hits::measure)?;
    add("disk", disk::measure)?;
    add("bound", bound::measure)?;
    if let Err(why) = redis::installed() {
        eprintln!("  a fleet is not measured: {why}");
        return Ok(figures);
    }
    add("small poems", small::measure)?;
    add("relay", relay::measure)?;
    add("outage", outage::measure)?;
    add("takeover", takeover::measure)?;
    add("storm", storm::measure)?;
    Ok(figures)
}

fn figure(measured: Measured<'_>) -> Figure {
    Figure::new("store", measured)
}

/// Figures of one work: what, the most of it, and its samples.
struct Of<'a>(&'a str);

impl Of<'_> {
    fn seconds(&self, what: &str, most: f64, samples: Vec<f64>) -> Figure {
        figure(Measured::seconds(
            self.0,
            what,
            Wanted::AtMost(most),
            Ok(samples),
        ))
    }

    /// What explains another figure.
    fn shown_seconds(&self, what: &str, samples: Vec<f64>) -> Figure {
        figure(Measured::seconds(self.0, what, Wanted::Shown, Ok(samples)))
    }

    fn bytes(&self, what: &str, most: f64, samples: Vec<f64>) -> Figure {
        figure(Measured::bytes(
            self.0,
            what,
            Wanted::AtMost(most),
            Ok(samples),
        ))
    }

    fn ratio(&self, what: &str, most: f64, samples: Vec<f64>) -> Figure {
        figure(Measured::ratio(
            self.0,
            what,
            Wanted::AtMost(most),
            Ok(samples),
        ))
    }
}

/// Asks for a text by a line, and reads it to its end.
fn get(addr: SocketAddr, name: &str) -> io::Result<Vec<u8>> {
    let mut stream = send(addr, name)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(text)
}

/// Asks for a text by a line, and reads nothing yet.
fn send(addr: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(crate::machine::LONG))?;
    stream.write_all(format!("{name}\r\n").as_bytes())?;
    Ok(stream)
}

/// Reads the line that a proxy sends.
fn read_name(stream: &mut TcpStream) -> io::Result<String> {
    let mut name = String::new();
    let mut byte = [0];
    while !name.ends_with('\n') {
        stream.read_exact(&mut byte)?;
        name.push(byte[0].into());
    }
    Ok(name.trim_end().into())
}

/// The name of a text, by its number.
fn name(number: usize) -> String {
    format!("text{number:09}")
}

/// Asks for a text of `len` bytes, and returns how long that took.
fn ask(addr: SocketAddr, number: usize, len: usize) -> io::Result<Duration> {
    let begun = Instant::now();
    let text = get(addr, &name(number))?;
    if text.len() != len {
        let got = text.len();
        return Err(io::Error::other(format!("{number}: {got} bytes of {len}")));
    }
    Ok(begun.elapsed())
}

/// Asks for texts of `len` bytes one after the other. Returns their times in seconds.
fn ask_all(addr: SocketAddr, numbers: std::ops::Range<usize>, len: usize) -> io::Result<Vec<f64>> {
    numbers
        .map(|number| ask(addr, number, len).map(|time| time.as_secs_f64()))
        .collect()
}

/// The middle one of some times.
fn median(times: Vec<f64>) -> f64 {
    Spread::of(times).map_or(0.0, |spread| spread.median)
}

/// All of it for the reader, and then the end.
fn send_whole(mut stream: TcpStream, text: &[u8]) {
    let _proxy_gone = stream.write_all(text);
    let _proxy_gone = stream.shutdown(Shutdown::Write);
}
