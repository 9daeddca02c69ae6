//! `cargo bench --bench soak -- 20m`: mixed faults and mixed clients against the release build, for as long as one
//! likes, and what the README promises is checked all the while.
//!
//! ```text
//! cargo bench --bench soak                    for ten seconds
//! cargo bench --bench soak -- 20m             for that long
//! cargo bench --bench soak -- 3m --seed 7     with the choices of an earlier run, though not its timing
//! ```
//!
//! Three proxies: `line` has many names and little room, `chain` asks `line`, and `poem` has one poem and less room than
//! that needs. Behind them, in this process, an upstream that misbehaves at random. The exit code is 1 where something
//! happened that the proxy promises never to do.

mod clients;
mod ledger;
mod plan;
mod proxies;
mod text;
mod upstream;
mod watch;

use clients::{Client, Target};
use ledger::{Counts, Ledger, Signals};
use plan::{SIGNAL_PAUSE, SLACK, THREADS};
use proxies::{Proxy, Role};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use watch::Watched;

/// Without an argument: `cargo bench` runs this as well, and has other things to do.
const SHORT: Duration = Duration::from_secs(10);

/// How often is told how it goes.
const PROGRESS: Duration = Duration::from_secs(30);

/// What the other bench is told; `cargo bench -- hits` tells it to both.
const OF_THE_FIGURES: [&str; 9] = [
    "--quick", "--save", "hits", "idle", "large", "flight", "memory", "cache", "fetch",
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if !args.is_empty()
        && args
            .iter()
            .all(|arg| OF_THE_FIGURES.contains(&arg.as_str()))
    {
        return ExitCode::SUCCESS;
    }
    let result = parse(&args).and_then(|(time, seed)| soak(time, seed).map_err(|e| e.to_string()));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How long, and with which seed.
fn parse(args: &[String]) -> Result<(Duration, u64), String> {
    let (mut time, mut seed) = (SHORT, fastrand::u64(..1_000_000));
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => {
                let number = args.next().and_then(|number| number.parse().ok());
                seed = number.ok_or("--seed wants a number")?;
            }
            arg => {
                let wanted = |e| format!("{arg}: {e}; wanted a duration like 20m, or --seed N");
                time = humantime::parse_duration(arg).map_err(wanted)?;
            }
        }
    }
    Ok((time, seed))
}

/// Whether all went as promised.
fn soak(time: Duration, seed: u64) -> io::Result<bool> {
    println!(
        "soaking for {}, seed {seed}",
        humantime::format_duration(time)
    );
    let ledger = Arc::new(Ledger::new());
    let signals = [
        Arc::new(Signals::default()),
        Arc::new(Signals::default()),
        Arc::new(Signals::default()),
    ];
    let proxies = start_proxies(&ledger, &signals, seed)?;
    let targets = Arc::new(targets(&proxies, &signals));
    warm_up(&proxies)?;
    let watched: Vec<Watched> = proxies
        .into_iter()
        .map(Watched::new)
        .collect::<io::Result<_>>()?;
    let storms = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..THREADS as u64)
        .map(|number| Client {
            ledger: ledger.clone(),
            targets: targets.clone(),
            storms: storms.clone(),
            rng: fastrand::Rng::with_seed(seed.wrapping_mul(THREADS as u64) + number),
        })
        .map(|client| std::thread::spawn(|| client.run()))
        .collect();
    let result = watch(&watched, &ledger, &signals, time, seed);
    ledger.over.store(true, Ordering::Release);
    for client in clients {
        if client.join().is_err() {
            ledger.violation("the soak", "a client panicked");
        }
    }
    result?;
    for proxy in &watched {
        proxy.check_rest(&ledger)?;
    }
    println!();
    for proxy in watched.iter().rev() {
        proxy.check_stop(&ledger)?; // the one that asks another first
    }
    Ok(tell(&ledger, seed))
}

/// `line`, `chain` and `poem`, and the upstreams behind them.
fn start_proxies(
    ledger: &Arc<Ledger>,
    signals: &[Arc<Signals>; 3],
    seed: u64,
) -> io::Result<[Arc<Proxy>; 3]> {
    let upstream = |name, asks, is_single, signals: &Arc<Signals>| {
        upstream::start(
            upstream::Role {
                name,
                seed,
                asks,
                is_single,
                signals: signals.clone(),
            },
            ledger.clone(),
        )
    };
    let start = |role: Role| Proxy::start(&role, ledger.clone()).map(Arc::new);
    let line = start(Role::line(
        "line",
        upstream("line", true, true, &signals[0])?,
    ))?;
    let chain = start(Role::line("chain", line.addr))?;
    let poem = start(Role::poem(
        "poem",
        upstream("poem", false, false, &signals[2])?,
    ))?;
    Ok([line, chain, poem])
}

fn targets(proxies: &[Arc<Proxy>; 3], signals: &[Arc<Signals>; 3]) -> Vec<Target> {
    let target = |at: usize, asks, links, signals: Option<&Arc<Signals>>| Target {
        name: proxies[at].name,
        addr: proxies[at].addr,
        asks,
        links,
        signals: signals.cloned(),
    };
    vec![
        target(0, true, 1, Some(&signals[0])),
        target(1, true, 2, None),
        target(2, false, 1, Some(&signals[2])),
    ]
}

/// One request each, so that threads, reactor and timers are there before anything is counted.
fn warm_up(proxies: &[Arc<Proxy>; 3]) -> io::Result<()> {
    for proxy in proxies {
        let mut stream = std::net::TcpStream::connect(proxy.addr)?;
        stream.set_read_timeout(Some(plan::HANG))?;
        let _unasked = stream.write_all(b"warm-up\r\n");
        stream.read_to_end(&mut Vec::new())?;
    }
    std::thread::sleep(plan::CLIENT_TIMEOUT + SLACK); // whatever lingers has left by then
    Ok(())
}

/// Samples, signals and progress, until the time is up.
fn watch(
    watched: &[Watched],
    ledger: &Ledger,
    signals: &[Arc<Signals>; 3],
    time: Duration,
    seed: u64,
) -> io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut pause = || Duration::from_millis(rng.u64(SIGNAL_PAUSE));
    let (mut next_signal, mut next_progress, mut turn) = (pause(), PROGRESS, 0);
    while begun.elapsed() < time {
        std::thread::sleep(watch::EVERY.min(time.saturating_sub(begun.elapsed())));
        for proxy in watched {
            proxy.sample(ledger)?;
        }
        if begun.elapsed() > next_signal {
            signals[turn % 3].note();
            watched[turn % 3].proxy.signal(Signal::HUP)?;
            (next_signal, turn) = (begun.elapsed() + pause(), turn + 1);
        }
        if begun.elapsed() > next_progress {
            progress(watched, ledger);
            next_progress += PROGRESS;
        }
    }
    Ok(())
}

fn progress(watched: &[Watched], ledger: &Ledger) {
    let counts = ledger.counts();
    let all: u64 = counts
        .iter()
        .filter(|((_, end), _)| OUTCOMES.contains(end))
        .map(|(_, count)| count)
        .sum();
    let most: Vec<String> = watched
        .iter()
        .map(|watched| (watched.proxy.name, watched.most()))
        .map(|(name, most)| format!("{name} {} fds {} kB", most.descriptors, most.memory >> 10))
        .collect();
    let (seconds, violations) = (
        ledger.begun.elapsed().as_secs(),
        ledger.violations().values().sum::<u64>(),
    );
    println!(
        "{seconds} s: {all} requests, {violations} violations; at most: {}",
        most.join(", ")
    );
}

/// What becomes of calls at the upstream. Somebody was *cut* who got a reset although his text was ended as a whole: it
/// came too late, was too long for its window, or was never read to its end. With a star, one who does more than read.
const ENDS: [&str; 3] = ["calls", "cut", "cut*"];

/// What becomes of requests.
const OUTCOMES: [&str; 4] = ["kept", "fetched", "reset", "left"];

/// A row for each that has such outcomes.
fn table(title: &str, columns: &[&str], counts: &Counts) {
    let row = |cells: Vec<String>| {
        cells
            .iter()
            .map(|cell| format!("{cell:>10}"))
            .collect::<String>()
    };
    println!(
        "\n{title:<28}{}",
        row(columns.iter().map(|column| column.to_string()).collect())
    );
    let rows = counts
        .keys()
        .filter(|(_, outcome)| columns.contains(outcome))
        .map(|(name, _)| *name);
    for name in rows.collect::<BTreeSet<_>>() {
        let count = |column: &&str| {
            counts
                .iter()
                .find(|((row, outcome), _)| *row == name && outcome == column)
        };
        let cells = columns
            .iter()
            .map(|column| count(column).map_or(0, |(_, count)| *count).to_string());
        println!("{name:<28}{}", row(cells.collect()));
    }
}

/// The tables, and the verdict.
fn tell(ledger: &Ledger, seed: u64) -> bool {
    let counts = ledger.counts();
    table("what the upstream did", &ENDS, &counts);
    table("a client that", &OUTCOMES, &counts);
    let violations = ledger.violations();
    println!(
        "\n{} violations, seed {seed}",
        violations.values().sum::<u64>()
    );
    for (kind, count) in &violations {
        println!("  {kind}: {count}");
    }
    violations.is_empty()
}
