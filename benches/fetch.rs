//! `poetry fetch` as a whole process, from start to end, against other programs that
//! read a poem: a poem of 700 bytes, and one so small that starting is all there is.

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

    /// Checks that the program prints the whole poem of `len` bytes.
    fn check(self, len: usize) -> io::Result<Program> {
        if self.command().output()?.stdout == verse(len).as_bytes() {
            return Ok(self);
        }
        let path = self.path.display();
        Err(io::Error::other(format!("{path} does not print the poem")))
    }
}

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let server = poetry(context.cores, &["serve", &context.poem(POEM)?])?;
    let programs = readers(server.addr, POEM);
    let times = times(context, &programs)?;

    let figure = |at: usize, what, most| {
        let samples = paired(&times[0], &times[at]);
        let work = "a poem of 700 bytes fetched";
        let wanted = Wanted::AtMost(most);
        Figure::new("fetch", Measured::ratio(work, what, wanted, samples))
    };
    Ok(vec![
        figure(1, "whole process, poetry fetch / nc -N", 1.1),
        figure(2, "whole process, poetry fetch / curl", 0.18),
    ])
}

/// The length of a small poem, in bytes.
const SMALL: usize = 20;

/// The same with a small poem, and beside it a `poetry` that makes no connection.
pub fn measure_start(context: &Context) -> io::Result<Vec<Figure>> {
    let server = poetry(context.cores, &["serve", &context.poem(SMALL)?])?;
    let [fetch, nc, curl] = readers(server.addr, SMALL);
    let version = Program {
        path: POETRY.into(),
        args: vec!["--version".into()],
    };
    let times = times(context, &[fetch, nc, curl, Ok(version)])?;

    let figure = |[above, below]: [usize; 2], what, wanted| {
        let samples = paired(&times[above], &times[below]);
        let work = "a poem of 20 bytes fetched";
        Figure::new("start", Measured::ratio(work, what, wanted, samples))
    };
    let of_nc = "whole process, poetry fetch / nc -N";
    let of_curl = "whole process, poetry fetch / curl";
    let version_of_nc = "whole process, poetry --version / nc -N";
    Ok(vec![
        figure([0, 1], of_nc, Wanted::AtMost(1.1)),
        figure([0, 2], of_curl, Wanted::AtMost(0.18)),
        figure([3, 1], version_of_nc, Wanted::Shown),
    ])
}

/// The time of each program's runs in each round, in seconds.
fn times<const N: usize>(
    context: &Context,
    programs: &[Result<Program, String>; N],
) -> io::Result<[Samples; N]> {
    let mut times: [Samples; N] = programs
        .each_ref()
        .map(|p| p.as_ref().map(|_| Vec::new()).map_err(Clone::clone));

    for _ in 0..context.scaled(15, 3) {
        let mut sums = [0.0; N];
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
fn readers(server: SocketAddr, len: usize) -> [Result<Program, String>; 3] {
    let host = server.ip().to_string();
    let port = server.port().to_string();
    let program = |path: io::Result<PathBuf>, args: &[&str]| {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        path.map(|path| Program { path, args })
            .and_then(|program| program.check(len))
            .inspect_err(|e| eprintln!("  {e}"))
            .map_err(|e| e.to_string())
    };

    [
        program(Ok(POETRY.into()), &["fetch", &server.to_string()]),
        program(found("nc"), &["-N", &host, &port]),
        program(found("curl"), &["-s", &format!("telnet://{server}")]),
    ]
}
