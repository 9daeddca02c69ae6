//! The machine: which cores to use, how busy they are, and what it is called.

mod network;
mod process;

pub use network::{Steering, is_inside, run_inside, set_up_network};
pub use process::{
    cpu_time, descriptors, is_stopped, own_memory, peak_memory, raise_descriptors, tcp_memory,
    thread_time,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::time::{Duration, Instant};

/// More time than any single step needs, even on a loaded machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Which core runs the server and which core runs the load.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// The server's core, which runs nothing else.
    pub server: usize,
    /// The load generator's core.
    pub load: usize,
}

impl Cores {
    /// The last and the first of the cores this process may run on.
    pub fn choose(allowed: &[usize]) -> io::Result<Cores> {
        match *allowed {
            [load, .., server] => Ok(Cores { server, load }),
            _ => Err(io::Error::other(
                "needs two cores: one for the server, one for its load",
            )),
        }
    }
}

/// The cores this process may run on, in ascending order.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect())
}

/// Keeps this thread, and every process it starts from now on, on these cores.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Runs `work` on a thread pinned to `cores`. A process that `work` starts stays there.
pub fn on_cores<T: Send>(
    cores: &[usize],
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || pin(cores).and_then(|()| work()));
        pinned
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the pinned thread panicked")))
    })
}

/// The clock ticks one core has spent so far.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    idle: u64,
    all: u64,
}

impl Work {
    pub fn of(core: usize) -> io::Result<Work> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{core} ");
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .unwrap_or_default();

        let ticks: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .take(8)
            .collect();
        let [_, _, _, idle, waiting, ..] = ticks[..] else {
            return Err(io::Error::other(format!("no core {core}")));
        };

        Ok(Work {
            idle: idle + waiting,
            all: ticks.iter().sum(),
        })
    }

    /// The fraction of the time since `before` in which the core was busy.
    pub fn busy_since(self, before: Work) -> f64 {
        let all = (self.all - before.all).max(1) as f64;
        1.0 - (self.idle - before.idle) as f64 / all
    }
}

/// Whether other processes use more than a twentieth of the cores during one second. If
/// so, the figures are not worth much.
pub fn is_busy(cores: Cores) -> io::Result<bool> {
    const SAMPLE: Duration = Duration::from_secs(1);
    const MOST: f64 = 0.05;

    let before = [Work::of(cores.server)?, Work::of(cores.load)?];
    std::thread::sleep(SAMPLE);
    let after = [Work::of(cores.server)?, Work::of(cores.load)?];

    Ok(after
        .into_iter()
        .zip(before)
        .any(|(after, before)| after.busy_since(before) > MOST))
}

/// Waits until `condition` holds.
///
/// # Errors
/// It does not hold within [`LONG`]; `what` names it.
pub fn until(what: &str, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > LONG {
            return Err(io::Error::other(format!("timed out waiting until {what}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The machine the figures were measured on, in a few words.
pub fn description() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);

    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: String = kernel
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();

    format!(
        "{}, {cores} cores, Linux {}",
        model.unwrap_or("unknown processor"),
        version.trim_end_matches('.')
    )
}
