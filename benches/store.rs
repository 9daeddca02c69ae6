//! A proxy with a store, `--store PATH`: what it costs beside a hit, what it saves, how
//! fast it opens, and how much of the disk it takes.
//!
//! *Open*: the time from the start of the process to its ready line, with a store less
//! without one. *Writer*: the processor time of the store's thread. The upstream shares
//! the load generator's core.

use crate::contenders::{Comparison, Contender, drains, rates};
use crate::context::Context;
use crate::figures::{Figure, Measured, Wanted, paired};
use crate::hits::{HIT, POEM};
use crate::load;
use crate::machine::{Cores, thread_time};
use crate::peers::{Server, own, poetry};
use rustix::process::{Signal, kill_process};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The length of a text in the store, in bytes.
const TEXT: usize = 5000;

/// Clients that ask at the same time while a store is filled.
const CLIENTS: usize = 4;

/// Longer than texts wait until they are written.
const WRITTEN: Duration = Duration::from_millis(600);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut figures = hits(context)?;
    figures.push(second_tier(context)?);
    figures.extend(full_store(context)?);
    figures.push(bound(context)?);
    Ok(figures)
}

fn figure(measured: Measured<'_>) -> Figure {
    Figure::new("store", measured)
}

/// Hits of one text: they never ask the store.
fn hits(context: &Context) -> io::Result<Vec<Figure>> {
    let cores = context.cores;
    let upstream = own(cores, "short", &context.poem(POEM)?)?;
    let from = upstream.addr.to_string();
    let path = context.folder.path().join("hits").display().to_string();
    let contenders = [
        Contender::new(
            "with --store",
            poetry(cores, &["proxy", &from, "--store", &path]),
        ),
        Contender::new("without", poetry(cores, &["proxy", &from])),
    ];
    for server in contenders.iter().flat_map(|c| &c.server) {
        load::transfer(server.target(HIT), 1)?; // from now on it is cached
    }

    let comparison = Comparison {
        part: "store",
        work: "a hit of 700 bytes",
        contenders: &contenders,
    };
    let figure = |kind, series| {
        let names = ["with --store", "without"];
        comparison.figure(kind, &series, names, Wanted::AtLeast(0.98))
    };
    Ok(vec![
        figure("drain", drains(context, &contenders, HIT)),
        figure("per-core rate", rates(context, &contenders, HIT)),
    ])
}

/// A store, and the upstream of its proxies.
struct Site {
    cores: Cores,
    folder: tempfile::TempDir,
    upstream: Server,
    text: usize,
}

impl Site {
    /// Its texts are `text` bytes long.
    fn new(context: &Context, text: usize) -> io::Result<Site> {
        let beside = Cores {
            server: context.cores.load,
            ..context.cores
        };
        Ok(Site {
            cores: context.cores,
            folder: tempfile::tempdir_in(context.folder.path())?,
            upstream: own(beside, "line", &context.poem(text)?)?,
            text,
        })
    }

    /// A proxy that keeps little in memory.
    fn start(&self, more: &[&str]) -> io::Result<Server> {
        let from = self.upstream.addr.to_string();
        let fixed = ["proxy", &from, "--protocol", "line", "--ttl", "1d"];
        poetry(
            self.cores,
            &[&fixed[..], &["--capacity", "16MiB"], more].concat(),
        )
    }

    fn path(&self) -> String {
        self.folder.path().join("poems").display().to_string()
    }

    fn start_with_store(&self) -> io::Result<Server> {
        self.start(&["--store", &self.path()])
    }

    /// Asks for these texts, and waits until they are written.
    fn fill(&self, server: &Server, names: Range<usize>) -> io::Result<()> {
        let next = AtomicU64::new(names.start as u64);
        let ask_some = || -> io::Result<()> {
            loop {
                let name = next.fetch_add(1, Ordering::Relaxed) as usize;
                if name >= names.end {
                    return Ok(());
                }
                ask(server.addr, name, self.text)?;
            }
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask_some)).collect();
            let ended = clients.into_iter().map(|client| {
                let panicked = |_| Err(io::Error::other("a client panicked"));
                client.join().unwrap_or_else(panicked)
            });
            ended.collect::<io::Result<()>>()
        })?;
        std::thread::sleep(WRITTEN);
        Ok(())
    }
}

/// Asks for a text, and returns how long that took.
fn ask(addr: SocketAddr, name: usize, len: usize) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(format!("text{name:09}\r\n").as_bytes())?;
    let mut text = Vec::with_capacity(len + 1);
    stream.read_to_end(&mut text)?;
    if text.len() != len {
        let got = text.len();
        return Err(io::Error::other(format!("{name}: {got} bytes of {len}")));
    }
    Ok(begun.elapsed())
}

/// The middle one, in seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
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
        let asked = || {
            (0..count)
                .map(|name| ask(server.addr, name, POEM))
                .collect()
        };
        let from_store: io::Result<Vec<Duration>> = asked();
        let from_memory: io::Result<Vec<Duration>> = asked();
        samples.push(median(from_store?) - median(from_memory?));
        server.stop()?;
    }
    Ok(figure(Measured::seconds(
        "a text of 700 bytes that is in the store only",
        "median time beyond that of a hit",
        Wanted::AtMost(100e-6),
        Ok(samples),
    )))
}

/// A store of 100,000 texts: what writing them costs, and how long it takes to open.
fn full_store(context: &Context) -> io::Result<Vec<Figure>> {
    let site = Site::new(context, TEXT)?;
    let rounds = context.scaled(9, 2);
    let count = context.scaled(100_000, 2000) / rounds;
    let mut writer = Vec::new();
    let server = site.start_with_store()?;
    for round in 0..rounds {
        let before = thread_time(server.pid(), "store")?;
        site.fill(&server, round * count..(round + 1) * count)?;
        let time = thread_time(server.pid(), "store")? - before;
        writer.push(time.as_secs_f64() / count as f64);
    }
    drop(server); // it is killed

    let open = |start: &dyn Fn() -> io::Result<Server>| {
        let begun = Instant::now();
        start().map(|server| (begun.elapsed().as_secs_f64(), server))
    };
    let (mut clean, mut killed) = (Vec::new(), Vec::new());
    let mut names = rounds * count;
    for _ in 0..rounds {
        let (without, server) = open(&|| site.start(&[]))?;
        drop(server);
        let (after_kill, server) = open(&|| site.start_with_store())?;
        server.stop()?;
        let (after_stop, server) = open(&|| site.start_with_store())?;
        site.fill(&server, names..names + 500)?; // so that the next kill leaves a log
        names += 500;
        drop(server);
        clean.push(after_stop - without);
        killed.push(after_kill - without);
    }

    let texts = rounds * count;
    let work = format!("a store of {texts} texts of 5 kB");
    let seconds = |what, most, samples| {
        figure(Measured::seconds(
            &work,
            what,
            Wanted::AtMost(most),
            Ok(samples),
        ))
    };
    Ok(vec![
        seconds("processor time of the writer, a text", 45e-6, writer),
        seconds("open, after a stop", 0.1, clean),
        seconds("open, after a kill", 0.3, killed),
    ])
}

/// The most that the file and its log take while twice the capacity is written.
fn bound(context: &Context) -> io::Result<Figure> {
    let capacity = context.scaled(64, 4) << 20;
    let mut samples = Vec::new();
    for _ in 0..context.scaled(3, 1) {
        let site = Site::new(context, TEXT)?;
        let bytes = capacity.to_string();
        let args = ["--store", &site.path(), "--store-capacity", &bytes];
        let server = site.start(&args)?;
        let most = while_looking_at(&site.path(), || site.fill(&server, 0..2 * capacity / TEXT))?;
        samples.push(most as f64);
    }
    let wanted = Wanted::AtMost(1.05);
    let of = vec![capacity as f64; samples.len()];
    let samples = paired(&Ok(samples), &Ok(of));
    let work = "texts of 5 kB, twice the capacity in all";
    Ok(figure(Measured::ratio(
        work,
        "the most of file and log / --store-capacity",
        wanted,
        samples,
    )))
}

/// Does the work, and returns the largest size of the store meanwhile.
fn while_looking_at(path: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let is_over = AtomicBool::new(false);
    let size = || {
        let of = |suffix| {
            let file = format!("{path}{suffix}");
            std::fs::metadata(Path::new(&file)).map_or(0, |file| file.len())
        };
        of("") + of("-wal")
    };
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = size().max(most);
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let most = looking.join();
        done?;
        most.map_err(|_| io::Error::other("the look at the file panicked"))
    })
}
