//! `cargo bench --bench soak -- 20m`: mixed faults and mixed clients against the
//! release build, for any length of time, while what the README promises is checked.
//!
//! ```text
//! cargo bench --bench soak                    for ten seconds
//! cargo bench --bench soak -- 20m             for twenty minutes
//! cargo bench --bench soak -- 3m --seed 7     with the choices of an earlier run,
//!                                             but not its timing
//! ```
//!
//! There are three proxies: `line` has many names and little memory, `chain` asks
//! `line`, and `poem` has one poem and less memory than that needs. Behind them an
//! upstream in this process misbehaves at random. The exit code is 1 if something
//! happened that the proxy promises never to do.

#[path = "../arguments.rs"]
#[allow(
    dead_code,
    reason = "the soak only asks whether these are its arguments"
)]
mod arguments;
mod clients;
mod ledger;
mod plan;
mod proxies;
mod report;
mod text;
mod upstream;
mod watch;

use arguments::Arguments;
use clients::{Client, Endpoint};
use ledger::{Ledger, Signals};
use plan::{SIGNAL_PAUSE, SLACK, THREADS};
use proxies::{Proxy, ProxyOptions};
use rustix::process::Signal;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use upstream::UpstreamOptions;
use watch::Watched;

/// How long a soak lasts without an argument. Short: a plain `cargo bench` runs it too.
const SHORT: Duration = Duration::from_secs(10);

/// The time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if !args.is_empty() && Arguments::parse(&args).is_ok() {
        return ExitCode::SUCCESS; // `cargo bench -- hits` is meant for the figures
    }

    let result = parse(&args).and_then(|plan| soak(plan).map_err(|e| e.to_string()));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How long to soak, and with which random choices.
#[derive(Clone, Copy)]
struct Plan {
    time: Duration,
    seed: u64,
}

fn parse(args: &[String]) -> Result<Plan, String> {
    let mut plan = Plan {
        time: SHORT,
        seed: fastrand::u64(..1_000_000),
    };

    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seed" {
            let number = args.next().and_then(|number| number.parse().ok());
            plan.seed = number.ok_or("--seed wants a number")?;
        } else {
            let wanted = |e| format!("{arg}: {e}; wanted a duration like 20m, or --seed N");
            plan.time = humantime::parse_duration(arg).map_err(wanted)?;
        }
    }
    Ok(plan)
}

/// Runs the soak. Returns whether every promise was kept.
fn soak(plan: Plan) -> io::Result<bool> {
    let time = humantime::format_duration(plan.time);
    println!("soaking for {time}, seed {}", plan.seed);
    let ledger = Arc::new(Ledger::new());
    let signals: [Arc<Signals>; 3] = Default::default();
    let proxies = start_proxies(&ledger, &signals, plan.seed)?;
    let endpoints = Arc::new(endpoints(&proxies, &signals));
    warm_up(&proxies)?;
    let watched: Vec<Watched> = proxies
        .into_iter()
        .map(Watched::new)
        .collect::<io::Result<_>>()?;

    let clients = start_clients(&ledger, &endpoints, plan.seed);
    let result = watch(&watched, &ledger, &signals, plan);
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
        proxy.check_stop(&ledger)?; // a proxy before the one behind it
    }
    Ok(report::verdict(&ledger, plan.seed))
}

/// Starts `line`, `chain` and `poem`, and the upstreams behind them.
fn start_proxies(
    ledger: &Arc<Ledger>,
    signals: &[Arc<Signals>; 3],
    seed: u64,
) -> io::Result<[Arc<Proxy>; 3]> {
    let options = |name, takes_line, signals: &Arc<Signals>| UpstreamOptions {
        name,
        seed,
        takes_line,
        is_single: takes_line,
        signals: signals.clone(),
    };
    let upstream = |options| upstream::start(options, ledger.clone());
    let proxy = |options: ProxyOptions| Proxy::start(&options, ledger.clone()).map(Arc::new);

    let line_upstream: SocketAddr = upstream(options("line", true, &signals[0]))?;
    let line = proxy(ProxyOptions::line("line", line_upstream))?;
    let chain = proxy(ProxyOptions::line("chain", line.addr))?;
    let poem_upstream = upstream(options("poem", false, &signals[2]))?;
    let poem = proxy(ProxyOptions::poem("poem", poem_upstream))?;
    Ok([line, chain, poem])
}

fn endpoints(proxies: &[Arc<Proxy>; 3], signals: &[Arc<Signals>; 3]) -> Vec<Endpoint> {
    let [line, chain, poem] = proxies;
    let endpoint = |proxy: &Proxy, signals: Option<&Arc<Signals>>| Endpoint {
        name: proxy.name,
        addr: proxy.addr,
        takes_line: true,
        links: 1,
        signals: signals.cloned(),
    };

    vec![
        endpoint(line, Some(&signals[0])),
        Endpoint {
            links: 2,
            ..endpoint(chain, None)
        },
        Endpoint {
            takes_line: false,
            ..endpoint(poem, Some(&signals[2]))
        },
    ]
}

/// Sends each proxy one request, so that its threads, reactor and timers exist before
/// anything is counted.
fn warm_up(proxies: &[Arc<Proxy>; 3]) -> io::Result<()> {
    for proxy in proxies {
        let mut stream = std::net::TcpStream::connect(proxy.addr)?;
        stream.set_read_timeout(Some(plan::HANG))?;
        let _unasked = stream.write_all(b"warm-up\r\n");
        stream.read_to_end(&mut Vec::new())?;
    }

    // Until no connection lingers.
    std::thread::sleep(plan::CLIENT_TIMEOUT + SLACK);
    Ok(())
}

fn start_clients(
    ledger: &Arc<Ledger>,
    endpoints: &Arc<Vec<Endpoint>>,
    seed: u64,
) -> Vec<JoinHandle<()>> {
    let storms = Arc::new(AtomicUsize::new(0));
    let threads = THREADS as u64;

    (0..threads)
        .map(|number| Client {
            ledger: ledger.clone(),
            endpoints: endpoints.clone(),
            storms: storms.clone(),
            rng: fastrand::Rng::with_seed(seed.wrapping_mul(threads) + number),
        })
        .map(|client| std::thread::spawn(|| client.run()))
        .collect()
}

/// Takes samples, sends signals and prints progress, until the time is up.
fn watch(
    watched: &[Watched],
    ledger: &Ledger,
    signals: &[Arc<Signals>; 3],
    plan: Plan,
) -> io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut pause = || Duration::from_millis(rng.u64(SIGNAL_PAUSE));
    let start = Instant::now();
    let mut next_signal = pause();
    let mut next_progress = PROGRESS;
    let mut turn = 0;

    while start.elapsed() < plan.time {
        std::thread::sleep(watch::EVERY.min(plan.time.saturating_sub(start.elapsed())));
        for proxy in watched {
            proxy.sample(ledger)?;
        }

        if start.elapsed() > next_signal {
            signals[turn % 3].note();
            watched[turn % 3].proxy.signal(Signal::HUP)?;
            next_signal = start.elapsed() + pause();
            turn += 1;
        }
        if start.elapsed() > next_progress {
            report::progress(watched, ledger);
            next_progress += PROGRESS;
        }
    }
    Ok(())
}
