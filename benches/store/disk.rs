//! `--store PATH`: what it costs to write a text and to read it, and how fast a store
//! opens.
//!
//! *Open*: the time from the start of the process to its ready line, with a store less
//! without one. *Writer*: the processor time of the store's thread for a text that is
//! fetched, less that of the question whether it has it, which the thread answers too.

use super::site::Site;
use super::{Of, ask_all, median};
use crate::context::Context;
use crate::figures::Figure;
use crate::hits::POEM;
use crate::machine::thread_time;
use crate::peers::Server;
use rustix::process::{Signal, kill_process};
use std::io;
use std::time::Instant;

/// The length of a text in the store, in bytes.
pub const TEXT: usize = 5000;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut figures = vec![second_tier(context)?];
    figures.extend(full_store(context)?);
    Ok(figures)
}

/// What a text costs that is not in memory but in the store. The upstream is stopped
/// meanwhile, so that a text from there would not come.
fn second_tier(context: &Context) -> io::Result<Figure> {
    let site = Site::new(context, POEM)?;
    let count = context.scaled(2000, 200);
    let server = site.start_with_store()?;
    site.fill(&server, 0..count)?;
    server.stop()?;
    kill_process(site.upstream.pid(), Signal::STOP)?;

    let mut samples = Vec::new();
    for _ in 0..context.scaled(9, 2) {
        let server = site.start_with_store()?;
        let from_store = median(ask_all(server.addr, 0..count, POEM)?);
        let from_memory = median(ask_all(server.addr, 0..count, POEM)?);
        samples.push(from_store - from_memory);
        server.stop()?;
    }
    let work = Of("a text of 700 bytes that is in the store only");
    Ok(work.seconds("median time beyond that of a hit", 100e-6, samples))
}

/// A store of 100,000 texts: what writing them costs, and how long it takes to open.
fn full_store(context: &Context) -> io::Result<Vec<Figure>> {
    let site = Site::new(context, TEXT)?;
    let rounds = context.scaled(9, 2);
    let count = context.scaled(100_000, 2000) / rounds;
    let texts = rounds * count;
    let time_of = |server: &Server, work: &dyn Fn() -> io::Result<()>| {
        let before = thread_time(server.pid(), "store")?;
        work()?;
        let time = thread_time(server.pid(), "store")? - before;
        io::Result::Ok(time.as_secs_f64() / count as f64)
    };

    let mut fetches = Vec::new();
    let server = site.start_with_store()?;
    for round in 0..rounds {
        let names = round * count..(round + 1) * count;
        fetches.push(time_of(&server, &|| site.fill(&server, names.clone()))?);
    }
    drop(server); // it is killed

    let mut questions = Vec::new();
    let server = site.start_with_store_alone()?;
    for round in 0..rounds {
        let names = texts + round * count..texts + (round + 1) * count;
        questions.push(time_of(&server, &|| {
            site.ask_in_vain(&server, names.clone())
        })?);
    }
    drop(server);
    let question = median(questions.clone());
    let writer = fetches.iter().map(|fetch| fetch - question).collect();
    let [clean, killed] = opens(&site, rounds, texts)?;

    let work = format!("a store of {texts} texts of 5 kB");
    let work = Of(&work);
    Ok(vec![
        work.seconds("processor time of the writer, a text", 45e-6, writer),
        work.shown_seconds("processor time of a question in vain", questions),
        work.seconds("open, after a stop", 0.1, clean),
        work.seconds("open, after a kill", 0.3, killed),
    ])
}

/// How long a store that was just killed takes to open after a stop, and after a kill.
/// Names from `next` on are new.
fn opens(site: &Site, rounds: usize, mut next: usize) -> io::Result<[Vec<f64>; 2]> {
    /// So many are written before each kill, so that it leaves a log.
    const MORE: usize = 500;

    let open = |start: &dyn Fn() -> io::Result<Server>| {
        let begun = Instant::now();
        start().map(|server| (begun.elapsed().as_secs_f64(), server))
    };
    let (mut clean, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (without, server) = open(&|| site.start(&[]))?;
        drop(server);
        let (after_kill, server) = open(&|| site.start_with_store())?;
        server.stop()?;
        let (after_stop, server) = open(&|| site.start_with_store())?;
        site.fill(&server, next..next + MORE)?;
        next += MORE;
        drop(server);
        clean.push(after_stop - without);
        killed.push(after_kill - without);
    }
    Ok([clean, killed])
}
