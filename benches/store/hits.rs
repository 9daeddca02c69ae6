//! What answers from memory cost, with either store and without: a hit, a client that
//! waits, and hits while the store writes.

use super::redis::{Redis, installed};
use super::site::{Site, at_once, beside};
use super::{Of, ask, figure};
use crate::contenders::{Comparison, Contender, drains, rates, rounds, sound_rate};
use crate::context::Context;
use crate::figures::{Figure, Measured, Wanted, paired};
use crate::hits::{HIT, POEM};
use crate::load::{self, Exchange, HITS, RequestLine};
use crate::machine::Steering;
use crate::memory::per_client;
use crate::peers::{own, poetry};
use crate::upstream::{Upstream, keep_waiting};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Names of the contenders.
const DISK: &str = "with --store PATH";
const FLEET: &str = "with --store redis";
const WITHOUT: &str = "without";

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let redis = match installed() {
        Ok(_) => Some(Redis::start(&[context.cores.load])?),
        Err(_) => None,
    };
    let mut figures = hits(context, redis.as_ref())?;
    figures.extend(waiting(context, redis.as_ref())?);
    figures.push(beside_writes(context)?);
    Ok(figures)
}

/// Hits of one text: they never ask the store.
fn hits(context: &Context, redis: Option<&Redis>) -> io::Result<Vec<Figure>> {
    let cores = context.cores;
    let upstream = own(beside(cores), "short", &context.poem(POEM)?)?;
    let from = upstream.addr.to_string();
    let path = context.folder.path().join("hits").display().to_string();
    let start = |store: &[&str]| poetry(cores, &[&["proxy", &from], store].concat());
    let mut contenders = vec![
        Contender::new(WITHOUT, start(&[])),
        Contender::new(DISK, start(&["--store", &path])),
    ];
    if let Some(redis) = redis {
        let server = start(&["--store", &redis.place()]);
        contenders.push(Contender::new(FLEET, server));
    }
    for server in contenders.iter().flat_map(|c| &c.server) {
        load::transfer(server.target(HIT), 1)?; // from now on it is cached
    }

    let comparison = Comparison {
        part: "store",
        work: "a hit of 700 bytes",
        contenders: &contenders,
    };
    let series = [
        ("drain", drains(context, &contenders, HIT)),
        ("per-core rate", rates(context, &contenders, HIT)),
    ];
    let mut figures = Vec::new();
    for with in contenders[1..].iter().map(|contender| contender.name) {
        for (kind, series) in &series {
            let wanted = Wanted::AtLeast(0.98);
            figures.push(comparison.figure(kind, series, [with, WITHOUT], wanted));
        }
    }
    Ok(figures)
}

/// The memory of a client that waits for a fetch.
fn waiting(context: &Context, redis: Option<&Redis>) -> io::Result<Vec<Figure>> {
    let silent = Upstream::start(|_, caller| keep_waiting(caller))?;
    let silent = silent.addr.to_string();
    let clients = context.scaled(10_000, 1000);
    let rounds = context.scaled(3, 1);
    let samples = |arguments: &dyn Fn(usize) -> Vec<String>| -> io::Result<Vec<f64>> {
        let each = (0..rounds).map(|round| {
            let store = arguments(round);
            let store: Vec<&str> = store.iter().map(String::as_str).collect();
            let args = [&["proxy", silent.as_str()], &store[..]].concat();
            Ok(per_client(context, &args, clients)?.own)
        });
        each.collect()
    };

    let work = format!("{clients} clients wait on a cold cache");
    let work = Of(&work);
    let figure = |with, samples| work.bytes(&format!("user space, {with}, each"), 700.0, samples);
    let path = context.folder.path().join("waiting").display().to_string();
    let on_disk = samples(&|_| vec!["--store".into(), path.clone()])?;
    let mut figures = vec![figure(DISK, on_disk)];
    if let Some(redis) = redis {
        // The lease of the last round's proxy, which was killed, is another fleet's.
        let in_fleet = samples(&|round| {
            let name = format!("round{round}");
            vec!["--store".into(), redis.place(), "--store-name".into(), name]
        })?;
        figures.push(figure(FLEET, in_fleet));
    }
    Ok(figures)
}

/// Hits while 1000 texts a second are fetched, with a store that they are written to
/// and without one.
fn beside_writes(context: &Context) -> io::Result<Figure> {
    const HIT: Exchange = Exchange::line(RequestLine::Same, POEM);

    let site = Site::new(context, POEM)?;
    let contenders = [
        Contender::new(DISK, site.start_with_store()),
        Contender::new(WITHOUT, site.start(&[])),
    ];
    for server in contenders.iter().flat_map(|c| &c.server) {
        load::transfer(server.target(HIT), 1)?;
    }

    let steering = Steering::to(&[context.cores.server]);
    let next = AtomicUsize::new(0);
    let series = rounds(&contenders, context.scaled(5, 2), |name, server| {
        let is_over = AtomicBool::new(false);
        let write = || -> io::Result<()> {
            let mut due = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                ask(server.addr, next.fetch_add(1, Ordering::Relaxed), POEM)?;
                due += EACH;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| at_once(WRITERS, write));
            let rate = sound_rate(context, name, server.target(HIT), HITS);
            is_over.store(true, Ordering::Relaxed);
            let written = writing.join();
            written.map_err(|_| io::Error::other("a writer panicked"))??;
            Ok(rate?.poems)
        })
    });
    drop(steering);

    let [with, without] = [&series[0], &series[1]];
    Ok(figure(Measured::ratio(
        "hits beside 1000 fetches a second",
        "per-core rate, with --store PATH / without",
        Wanted::AtLeast(0.95),
        paired(with, without),
    )))
}

/// Threads that fetch, and the time that each takes for one: together 1000 a second.
const WRITERS: usize = 20;
const EACH: Duration = Duration::from_millis(20);
