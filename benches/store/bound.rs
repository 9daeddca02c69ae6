//! `--store PATH`: how much of the disk it takes, and what is lost when its proxy is
//! killed.

use super::disk::TEXT;
use super::site::Site;
use super::{Of, ask};
use crate::context::Context;
use crate::figures::{Figure, Measured, Samples, Wanted};
use crate::peers::found;
use rustix::process::{Signal, kill_process};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut figures = bounds(context)?;
    figures.push(lost(context)?);
    Ok(figures)
}

/// The most that the file and its log take while twice the capacity is written.
fn bounds(context: &Context) -> io::Result<Vec<Figure>> {
    let alone = (0..context.scaled(3, 1)).map(|_| most_taken(context, false));
    let alone: io::Result<Vec<f64>> = alone.collect();

    let beside_reader: Samples = match found("sqlite3") {
        Ok(_) => {
            let samples = (0..context.scaled(3, 1)).map(|_| most_taken(context, true));
            Ok(samples.collect::<io::Result<Vec<f64>>>()?)
        }
        Err(why) => Err(why.to_string()),
    };

    let bound = |work, samples| {
        let what = "the most of file and log / --store-capacity";
        super::figure(Measured::ratio(work, what, Wanted::AtMost(1.05), samples))
    };
    Ok(vec![
        bound("texts of 5 kB, twice the capacity in all", Ok(alone?)),
        bound("the same beside a shell's open read", beside_reader),
    ])
}

/// One sample, and whether a shell reads the store meanwhile.
fn most_taken(context: &Context, is_read: bool) -> io::Result<f64> {
    let capacity = context.scaled(64, 4) << 20;
    let site = Site::new(context, TEXT)?;
    let bytes = capacity.to_string();
    let server = site.start(&["--store", &site.path(), "--store-capacity", &bytes])?;
    site.fill(&server, 0..100)?;
    let reader = is_read.then(|| Reader::begin(&site.path())).transpose()?;
    let most = while_looking_at(&site.path(), || {
        site.fill(&server, 100..2 * capacity / TEXT)
    })?;
    drop(reader);
    Ok(most as f64 / capacity as f64)
}

/// SQLite's shell, in a transaction that reads and does not end.
struct Reader(Child);

impl Reader {
    fn begin(path: &str) -> io::Result<Reader> {
        let mut command = Command::new(found("sqlite3")?);
        command
            .args(["-batch", "-bail", path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut reader = Reader(command.spawn()?);
        let mut shell = reader.0.stdin.take().expect("stdin is piped");
        shell.write_all(b"BEGIN; SELECT count(*) FROM sqlite_schema;\n")?;

        let out = reader.0.stdout.take().expect("stdout is piped");
        let mut count = String::new();
        BufReader::new(out).read_line(&mut count)?;
        reader.0.stdin = Some(shell); // its end would end the shell
        if count.trim().parse::<u32>().is_ok_and(|count| count > 0) {
            return Ok(reader);
        }
        Err(io::Error::other("the shell reads nothing"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Does the work, and returns the largest size of the store meanwhile.
fn while_looking_at(path: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let is_over = AtomicBool::new(false);
    let size = || {
        let of = |suffix| {
            let file = format!("{path}{suffix}");
            std::fs::metadata(file).map_or(0, |file| file.len())
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

/// For how long before a kill texts are lost: the age of the oldest that is not in the
/// store after it.
fn lost(context: &Context) -> io::Result<Figure> {
    /// Longer than anything may be lost.
    const TIME: Duration = Duration::from_millis(2500);

    let mut samples = Vec::new();
    for _ in 0..context.scaled(5, 2) {
        let site = Site::new(context, TEXT)?;
        let server = site.start_with_store()?;
        let begun = Instant::now();
        let mut answered = Vec::new();
        while begun.elapsed() < TIME {
            ask(server.addr, answered.len(), TEXT)?;
            answered.push(Instant::now());
        }
        drop(server);
        let killed = Instant::now();

        kill_process(site.upstream.pid(), Signal::KILL)?; // what is lost shall not come
        let server = site.start_with_store()?;
        let oldest = (0..answered.len()).find(|number| !site.has(&server, *number));
        let lost = oldest.map_or(Duration::ZERO, |number| killed - answered[number]);
        samples.push(lost.as_secs_f64());
    }
    let work = Of("texts of 5 kB, and a kill");
    Ok(work.seconds("the last so much is lost", 1.0, samples))
}
