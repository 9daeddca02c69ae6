//! What the kernel says about a process: memory, descriptors, state.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::time::Duration;

/// Descriptors for 10,000 held clients, for the connections of a drain beside them, and
/// for the process itself.
const DESCRIPTORS: u64 = 40_000;

/// Raises the descriptor limit of this process, and of those it starts, to what the
/// benches need or the system allows.
pub fn raise_descriptors() -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= DESCRIPTORS);
    if is_enough(now.current) {
        return Ok(());
    }

    let enough = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: if is_enough(now.maximum) {
            now.maximum
        } else {
            Some(DESCRIPTORS)
        },
    };
    let allowed = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    setrlimit(Resource::Nofile, enough).or_else(|_| setrlimit(Resource::Nofile, allowed))?;
    Ok(())
}

/// A file about the process under /proc.
fn proc_file(pid: Pid, name: &str) -> String {
    format!("/proc/{}/{name}", pid.as_raw_nonzero())
}

/// A process's private memory, in bytes: heap, stacks and every other page it has
/// written that no file backs.
pub fn own_memory(pid: Pid) -> io::Result<u64> {
    memory(pid, "RssAnon:")
}

/// The most physical memory that a process has ever had, in bytes, with files it maps.
pub fn peak_memory(pid: Pid) -> io::Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: Pid, name: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(proc_file(pid, "status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());

    kib.map(|kib| kib << 10)
        .ok_or_else(|| io::Error::other(format!("the kernel does not report {name}")))
}

/// The processor time a process has used, in user space and in the kernel.
pub fn cpu_time(pid: Pid) -> io::Result<Duration> {
    processor_time(&proc_file(pid, "stat"))
}

/// The processor time that a thread of this name has used.
pub fn thread_time(pid: Pid, name: &str) -> io::Result<Duration> {
    for task in std::fs::read_dir(proc_file(pid, "task"))? {
        let task = task?.path();
        let comm = std::fs::read_to_string(task.join("comm"))?;
        if comm.trim_end() == name {
            return processor_time(&task.join("stat").to_string_lossy());
        }
    }
    Err(io::Error::other(format!("no thread called {name}")))
}

/// What a file `stat` says of the time in user space and in the kernel.
fn processor_time(stat: &str) -> io::Result<Duration> {
    // Clock ticks are hundredths of a second on every architecture Linux has.
    const TICK: Duration = Duration::from_millis(10);
    // Among the fields behind the name. The system's time follows it.
    const UTIME: usize = 11;

    let stat = std::fs::read_to_string(stat)?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let times = fields.skip(UTIME).take(2);
    let ticks: u32 = times.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    Ok(TICK * ticks)
}

/// How many descriptors a process has open.
pub fn descriptors(pid: Pid) -> io::Result<usize> {
    Ok(std::fs::read_dir(proc_file(pid, "fd"))?.count())
}

/// The memory of all TCP buffers, in both directions and of all processes, in bytes.
pub fn tcp_memory() -> io::Result<u64> {
    const PAGE: u64 = 4096;
    let stat = std::fs::read_to_string("/proc/net/sockstat")?;
    let line = stat
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .unwrap_or_default();
    let pages: Option<u64> = line.rsplit(' ').next().and_then(|word| word.parse().ok());

    pages
        .map(|pages| pages * PAGE)
        .ok_or_else(|| io::Error::other("no /proc/net/sockstat"))
}

/// Whether SIGSTOP has stopped the process: its state is then the letter T.
pub fn is_stopped(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(proc_file(pid, "stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with('T'))
}
