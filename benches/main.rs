//! `cargo bench`: measures the figures that BENCHMARKS.md lists, each against a floor
//! and against other programs.
//!
//! ```text
//! cargo bench                      every part, and a table at the end
//! cargo bench -- hits cache        only these parts
//! cargo bench -- --quick           fewer rounds and smaller sizes: a smoke test, not
//!                                  figures to quote
//! cargo bench -- --save            also writes benches/results/ and the table in
//!                                  BENCHMARKS.md
//! cargo bench -- cores --cores 2-5 the proxy on 1, 2, 3 and 4 of these cores
//! ```
//!
//! The program starts itself again inside a network namespace of its own, and starts
//! itself once more for each peer that is written in Rust.

mod arguments;
mod cache;
mod chart;
mod contenders;
mod context;
mod cores;
mod fetch;
mod figures;
mod flight;
mod floor;
mod hits;
mod idle;
mod large;
mod line;
mod live;
mod load;
mod machine;
mod memory;
mod miss;
mod peers;
mod poll;
mod redis_client;
mod results;
mod store;
mod upstream;

use arguments::Arguments;
use context::Context;
use figures::{Figure, Table};
use machine::Cores;
use std::io;
use std::process::ExitCode;

/// First argument of a process that is one of the measured servers.
pub const PEER: &str = "--peer";

/// Measures the figures of one part.
type Measure = fn(&Context) -> io::Result<Vec<Figure>>;

/// The parts, in the order of the table. Their names are `arguments::PARTS`.
const PARTS: [(&str, Measure); 13] = [
    ("hits", hits::measure),
    ("line", line::measure),
    ("miss", miss::measure),
    ("idle", idle::measure),
    ("large", large::measure),
    ("flight", flight::measure),
    ("live", live::measure),
    ("memory", memory::measure),
    ("cache", cache::measure),
    ("fetch", fetch::measure),
    ("start", fetch::measure_start),
    ("store", store::measure),
    ("cores", cores::measure),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();

    let result = match &args[..] {
        [first, name, argument] if first == PEER => run_peer(name, argument).map(|()| 0),
        _ => bench(&args),
    };

    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_peer(name: &str, argument: &str) -> io::Result<()> {
    if name == "tokio" {
        peers::run_tokio(argument)
    } else {
        floor::run(name, argument)
    }
}

/// Runs the parts that `args` selects and returns the exit code.
fn bench(args: &[String]) -> io::Result<u8> {
    let arguments = Arguments::parse(args).map_err(io::Error::other)?;
    let mut machine = machine::description();

    machine::raise_descriptors()?;
    if let Some(code) = machine::run_inside() {
        return Ok(u8::try_from(code).unwrap_or(1));
    }
    if machine::is_inside() {
        machine::set_up_network()?;
    } else {
        eprintln!("no network namespace of our own (it needs root and unshare): no per-core rates");
    }

    let allowed = machine::allowed_cores()?;
    let proxy_cores = arguments.cores.clone();
    let context = Context {
        cores: Cores::choose(&allowed)?,
        proxy_cores: proxy_cores.unwrap_or_else(|| allowed.iter().rev().copied().collect()),
        allowed_cores: allowed,
        folder: tempfile::tempdir()?,
        quick: arguments.quick,
    };
    machine::pin(&[context.cores.load])?;
    let measured = measure(&context, &arguments)?;

    if measured.busy {
        machine.push_str(", busy with other work"); // such figures are not to be quoted
    }
    if arguments.save {
        results::save(&machine, &measured.figures)?;
    }
    println!("\n{machine}\n\n{}", Table(&measured.figures));
    Ok(u8::from(measured.failed))
}

/// The figures of every selected part.
#[derive(Default)]
struct AllMeasured {
    figures: Vec<Figure>,
    /// Whether a part could not be measured.
    failed: bool,
    /// Whether other processes were using the cores.
    busy: bool,
}

fn measure(context: &Context, arguments: &Arguments) -> io::Result<AllMeasured> {
    let mut all = AllMeasured::default();

    for (name, measure) in PARTS.iter().filter(|(name, _)| arguments.selects(name)) {
        eprintln!("{name} ...");
        all.busy |= machine::is_busy(context.cores)?;
        match measure(context) {
            Ok(figures) => all.figures.extend(figures),
            Err(error) => {
                eprintln!("{name}: not measured: {error}");
                all.failed = true;
            }
        }
    }

    Ok(all)
}
