//! `poetry fetch` as a whole process, from its start to its end, against other programs that read a poem.

use crate::figures::{Figure, Measured, Samples, Unit, Wanted, paired};
use crate::hits::POEM;
use crate::peers::{POETRY, found, poetry};
use crate::{Context, verse};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A round is so many runs of each, one after the other in turn: a single run is too short to be compared.
const RUNS: usize = 20;

/// A program, and how it is told to read what a server says.
struct Reader {
    program: PathBuf,
    args: Vec<String>,
}

impl Reader {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The time of one run, in seconds.
    fn run(&self) -> io::Result<f64> {
        let begun = Instant::now();
        let status = self.command().stdout(Stdio::null()).status()?;
        let took = begun.elapsed().as_secs_f64();
        match status.success() {
            true => Ok(took),
            false => Err(io::Error::other(format!(
                "{} failed: {status}",
                self.program.display()
            ))),
        }
    }

    /// Whether it brings the poem, all of it.
    fn check(self) -> io::Result<Reader> {
        match self.command().output()?.stdout == verse(POEM).as_bytes() {
            true => Ok(self),
            false => Err(io::Error::other(format!(
                "{} does not bring the poem",
                self.program.display()
            ))),
        }
    }
}

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let server = poetry(context.cores, &["serve", &context.poem(POEM)?])?;
    let readers = readers(server.addr);
    for missing in readers.iter().filter_map(|reader| reader.as_ref().err()) {
        eprintln!("  {missing}");
    }
    let mut times: [Samples; 3] = readers
        .each_ref()
        .map(|r| r.as_ref().map(|_| Vec::new()).map_err(Clone::clone));
    for _ in 0..context.scaled(15, 3) {
        let mut sums = [0.0; 3];
        for _ in 0..RUNS {
            for (sum, reader) in sums.iter_mut().zip(&readers) {
                *sum += reader.as_ref().map_or(Ok(0.0), Reader::run)?;
            }
        }
        times
            .iter_mut()
            .zip(sums)
            .for_each(|(samples, sum)| samples.iter_mut().for_each(|s| s.push(sum)));
    }
    let figure = |at: usize, figure, most| {
        let (work, wanted) = ("a poem of 700 bytes fetched", Wanted::AtMost(most));
        let samples = paired(&times[0], &times[at]);
        Figure::new(
            "fetch",
            Measured {
                work,
                figure,
                wanted,
                unit: Unit::Ratio,
                samples,
            },
        )
    };
    Ok(vec![
        figure(1, "whole process, poetry fetch / nc -N", 1.15),
        figure(2, "whole process, poetry fetch / curl", 0.25),
    ])
}

fn readers(server: SocketAddr) -> [Result<Reader, String>; 3] {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let reader = |program: io::Result<PathBuf>, args: &[&str]| {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        program
            .map(|program| Reader { program, args })
            .and_then(Reader::check)
            .map_err(|e| e.to_string())
    };
    [
        reader(Ok(POETRY.into()), &["fetch", &server.to_string()]),
        reader(found("nc"), &["-N", &host, &port]),
        reader(found("curl"), &["-s", &format!("telnet://{server}")]),
    ]
}
