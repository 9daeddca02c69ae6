//! `cargo bench`: measures the figures that BENCHMARKS.md lists, each beside a floor and its peers.
//!
//! ```text
//! cargo bench                      everything, and a table in the end
//! cargo bench -- hits cache        only these parts
//! cargo bench -- --quick           fewer rounds and smaller sizes: to see that it works, not to quote
//! cargo bench -- --save            also writes benches/results/ and the table in BENCHMARKS.md
//! ```
//!
//! The program starts itself again in a network namespace of its own, and as the peers that are written in Rust.

mod cache;
mod chart;
mod fetch;
mod figures;
mod flight;
mod floor;
mod hits;
mod idle;
mod large;
mod load;
mod machine;
mod memory;
mod peers;
mod poll;
mod results;
mod upstream;

use figures::{Figure, Table};
use machine::Cores;
use std::io;
use std::process::ExitCode;

/// The first argument of a process that is one of the servers measured.
pub const PEER: &str = "--peer";

/// What every part is told.
pub struct Context {
    /// Where servers run, and where their load.
    pub cores: Cores,
    /// For poems and configurations; gone in the end.
    pub folder: tempfile::TempDir,
    /// Whether to be done soon rather than sure.
    pub quick: bool,
}

impl Context {
    /// The number of rounds or the size, of which the second is for a quick look.
    pub fn scaled<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A poem of this length: printable, and with nothing in it that a configuration file would have to quote.
    pub fn poem(&self, len: usize) -> io::Result<String> {
        let path = self.folder.path().join(format!("{len}.txt"));
        if !path.exists() {
            std::fs::write(&path, verse(len))?;
        }
        Ok(path.to_string_lossy().into_owned())
    }
}

/// So many bytes of text.
pub fn verse(len: usize) -> String {
    const LINE: &str = "A line of verse to count, and not to read aloud\n";
    let mut text = LINE.repeat(len / LINE.len() + 1);
    text.truncate(len);
    text
}

/// What measures a part's figures.
type Measure = fn(&Context) -> io::Result<Vec<Figure>>;

/// The parts, in the order of the table.
const PARTS: [(&str, Measure); 7] = [
    ("hits", hits::measure),
    ("idle", idle::measure),
    ("large", large::measure),
    ("flight", flight::measure),
    ("memory", memory::measure),
    ("cache", cache::measure),
    ("fetch", fetch::measure),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let result = match &args[..] {
        [first, name, argument] if first == PEER && name == "tokio" => {
            peers::run_tokio(argument).map(|()| 0)
        }
        [first, name, argument] if first == PEER => floor::run(name, argument).map(|()| 0),
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

fn bench(args: &[String]) -> io::Result<u8> {
    let known = |arg: &&String| {
        ["--quick", "--save"].contains(&arg.as_str()) || PARTS.iter().any(|(name, _)| name == arg)
    };
    if let Some(unknown) = args.iter().find(|arg| !known(arg)) {
        let parts = PARTS.map(|(name, _)| name).join(", ");
        return Err(io::Error::other(format!(
            "{unknown}: neither --quick nor --save nor a part: {parts}"
        )));
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--quick") && has("--save") {
        return Err(io::Error::other(
            "what --quick measures is not worth to --save",
        ));
    }
    let mut machine = machine::description();
    machine::raise_descriptors()?;
    if let Some(code) = machine::run_inside() {
        return Ok(u8::try_from(code).unwrap_or(1));
    }
    match machine::is_inside() {
        true => machine::set_up_network()?,
        false => eprintln!(
            "no network namespace of our own (it takes root and unshare): no per-core rates"
        ),
    }
    let context = Context {
        cores: Cores::choose()?,
        folder: tempfile::tempdir()?,
        quick: has("--quick"),
    };
    machine::pin(context.cores.load)?;
    let all = !PARTS.iter().any(|(name, _)| has(name));
    let (mut measured, mut failed, mut busy) = (Vec::new(), 0, false);
    for (name, measure) in PARTS.iter().filter(|(name, _)| all || has(name)) {
        eprintln!("{name} ...");
        busy |= machine::is_busy(context.cores)?;
        match measure(&context) {
            Ok(figures) => measured.extend(figures),
            Err(error) => {
                eprintln!("{name}: not measured: {error}");
                failed = 1;
            }
        }
    }
    if busy {
        machine.push_str(", busy with other work"); // such figures are not to be quoted
    }
    if has("--save") {
        results::save(&machine, &measured)?;
    }
    println!("\n{machine}\n\n{}", Table(&measured));
    Ok(failed)
}
