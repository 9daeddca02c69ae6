//! `poetry fetch` as a whole process, from start to end, against other programs that
//! read a poem.

use crate::context::{Context, verse};
use crate::figures::{Figure, Measured, Samples, Wanted, paired};
use crate::hits::POEM;
use crate::peers::{POETRY, found, poetry};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs of each program in one round, in turn: a single run is too short to compare.
const RUNS: usize = 20;

/// A program and the arguments with which it reads what a server sends.
struct Program {
    path: PathBuf,
    args: Vec<String>,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The time of one run, in seconds.
    fn run(&self) -> io::Result<f64> {
        let start = Instant::now();
        let status = self.command().stdout(Stdio::null()).status()?;
        let time = start.elapsed().as_secs_f64();

        if status.success() {
            return Ok(time);
        }
        let path = self.path.display();
        Err(io::Error::other(format!("{path} failed: {status}")))
    }

    /// Checks that the program prints the whole poem.
    fn check(self) -> io::Result<Program> {
        if self.command().output()?.stdout == verse(POEM).as_bytes() {
            return Ok(self);
        }
        let path = self.path.display();
        Err(io::Error::other(format!("{path} does not print the poem")))
    }
}

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let server = poetry(context.cores, &["serve", &context.poem(POEM)?])?;
    let programs = programs(server.addr);
    for missing in programs.iter().filter_map(|program| program.as_ref().err()) {
        eprintln!("  {missing}");
    }

    let times = times(context, &programs)?;
    let figure = |at: usize, what, most| {
        let samples = paired(&times[0], &times[at]);
        let work = "a poem of 700 bytes fetched";
        let wanted = Wanted::AtMost(most);
        Figure::new("fetch", Measured::ratio(work, what, wanted, samples))
    };
    Ok(vec![
        figure(1, "whole process, poetry fetch / nc -N", 1.15),
        figure(2, "whole process, poetry fetch / curl", 0.25),
    ])
}

/// The time of each program's runs in each round, in seconds.
fn times(context: &Context, programs: &[Result<Program, String>; 3]) -> io::Result<[Samples; 3]> {
    let mut times: [Samples; 3] = programs
        .each_ref()
        .map(|p| p.as_ref().map(|_| Vec::new()).map_err(Clone::clone));

    for _ in 0..context.scaled(15, 3) {
        let mut sums = [0.0; 3];
        for _ in 0..RUNS {
            for (sum, program) in sums.iter_mut().zip(programs) {
                *sum += program.as_ref().map_or(Ok(0.0), Program::run)?;
            }
        }
        for (samples, sum) in times.iter_mut().zip(sums) {
            samples.iter_mut().for_each(|samples| samples.push(sum));
        }
    }
    Ok(times)
}

/// `poetry fetch`, nc and curl, or why one of them is not available.
fn programs(server: SocketAddr) -> [Result<Program, String>; 3] {
    let host = server.ip().to_string();
    let port = server.port().to_string();
    let program = |path: io::Result<PathBuf>, args: &[&str]| {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        path.map(|path| Program { path, args })
            .and_then(Program::check)
            .map_err(|e| e.to_string())
    };

    [
        program(Ok(POETRY.into()), &["fetch", &server.to_string()]),
        program(found("nc"), &["-N", &host, &port]),
        program(found("curl"), &["-s", &format!("telnet://{server}")]),
    ]
}
