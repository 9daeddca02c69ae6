//! `cargo bench --bench soak -- 20m`: mixed faults and mixed clients against the
//! release build, for any length of time, while what the README promises is checked.
//!
//! ```text
//! cargo bench --bench soak                    for ten seconds
//! cargo bench --bench soak -- 20m             for twenty minutes
//! cargo bench --bench soak -- 3m --seed 7     with the choices of an earlier run,
//!                                             but not its timing
//! cargo bench --bench soak -- 20m --store     a fleet, and a proxy with a file
//! ```
//!
//! There are three proxies that share nothing: `line` has many names and little memory,
//! `chain` asks `line`, and `poem` has one poem and less memory than that needs. Behind
//! them an upstream in this process misbehaves at random. With `--store` there are four
//! others: three share a server of Redis, which is stopped, killed and emptied
//! meanwhile, and one has a file. They are killed, too. The exit code is 1 if something
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
#[path = "../redis_client.rs"]
mod redis_client;
mod report;
mod scenes;
mod server;
mod text;
mod trouble;
mod upstream;
mod watch;

use arguments::Arguments;
use clients::{Client, Scene};
use ledger::{Ledger, Purges};
use plan::{SIGNAL_PAUSE, SLACK};
use proxies::Proxy;
use rustix::process::Signal;
use scenes::SoakedFleet;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
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
    /// Whether the proxies have stores.
    has_stores: bool,
}

fn parse(args: &[String]) -> Result<Plan, String> {
    let mut plan = Plan {
        time: SHORT,
        seed: fastrand::u64(..1_000_000),
        has_stores: false,
    };

    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--store" {
            plan.has_stores = true;
        } else if arg == "--seed" {
            let number = args.next().and_then(|number| number.parse().ok());
            plan.seed = number.ok_or("--seed wants a number")?;
        } else {
            let wanted = |e| format!("{arg}: {e}; wanted a duration like 20m, --seed N or --store");
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
    let soaked = if plan.has_stores {
        scenes::with_stores(&ledger, plan.seed)?
    } else {
        Some(scenes::alone(&ledger, plan.seed)?)
    };
    let Some(soaked) = soaked else {
        println!("skipped: neither redis-server nor valkey-server is installed");
        return Ok(true);
    };

    warm_up(&soaked.proxies)?;
    let watched: Vec<Watched> = soaked
        .proxies
        .into_iter()
        .map(Watched::new)
        .collect::<io::Result<_>>()?;

    let start = Instant::now();
    let clients = start_clients(&ledger, &Arc::new(soaked.scene), plan.seed);
    let trouble = soaked
        .fleet
        .map(|fleet| start_trouble(fleet, &ledger, plan.seed));
    let result = watch(&watched, &ledger, &soaked.purges, plan);
    ledger.over.store(true, Ordering::Release);
    for client in clients {
        if client.join().is_err() {
            ledger.violation("the soak", "a client panicked");
        }
    }
    let troubled = trouble.map(|trouble| trouble.join().expect("trouble does not panic"));
    let fleet = troubled.transpose()?;
    result?;

    check(&watched, fleet, start.elapsed(), &ledger)?;
    Ok(report::verdict(&ledger, plan.seed))
}

/// Checks all once no client is left.
fn check(
    watched: &[Watched],
    fleet: Option<SoakedFleet>,
    time: Duration,
    ledger: &Ledger,
) -> io::Result<()> {
    for proxy in watched {
        proxy.check_rest(ledger)?;
    }
    if let Some(SoakedFleet {
        fleet, upstream, ..
    }) = &fleet
    {
        fleet.check(upstream.whole(), time, ledger)?;
    }

    println!();
    for proxy in watched.iter().rev() {
        proxy.check_stop(ledger)?; // a proxy before the one behind it
    }
    Ok(())
}

/// Troubles the fleet on a thread of its own, which returns it at the end.
fn start_trouble(
    mut soaked: SoakedFleet,
    ledger: &Arc<Ledger>,
    seed: u64,
) -> JoinHandle<io::Result<SoakedFleet>> {
    let ledger = ledger.clone();
    let mut rng = fastrand::Rng::with_seed(seed);
    std::thread::spawn(move || {
        let troubled = soaked.fleet.trouble(&ledger, &mut rng);
        if let Err(error) = &troubled {
            ledger.violation("the soak", error);
        }
        troubled.map(|()| soaked)
    })
}

/// Sends each proxy one request, so that its threads, reactor and timers exist before
/// anything is counted.
fn warm_up(proxies: &[Arc<Proxy>]) -> io::Result<()> {
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

fn start_clients(ledger: &Arc<Ledger>, scene: &Arc<Scene>, seed: u64) -> Vec<JoinHandle<()>> {
    let storms = Arc::new(AtomicUsize::new(0));
    let threads = scene.threads as u64;

    (0..threads)
        .map(|number| Client {
            ledger: ledger.clone(),
            scene: scene.clone(),
            storms: storms.clone(),
            rng: fastrand::Rng::with_seed(seed.wrapping_mul(threads) + number),
        })
        .map(|client| std::thread::spawn(|| client.run()))
        .collect()
}

/// Takes samples, has the proxies purge and prints progress, until the time is up.
fn watch(
    watched: &[Watched],
    ledger: &Ledger,
    purges: &[Arc<Purges>],
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

        if start.elapsed() > next_signal && !purges.is_empty() {
            purge(turn, watched, purges)?;
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

/// Has one proxy after the other purge all it has: at once, or softly by SIGHUP.
fn purge(turn: usize, watched: &[Watched], purges: &[Arc<Purges>]) -> io::Result<()> {
    let number = turn % purges.len();
    let proxy = &watched[number].proxy;
    let ordered = Instant::now();
    purges[number].note_order();

    let is_soft = (turn / purges.len()).is_multiple_of(2);
    if is_soft {
        return proxy.signal(Signal::HUP);
    }
    proxy.purge()?;
    purges[number].note_gone(ordered);
    Ok(())
}
