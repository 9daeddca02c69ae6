//! Figures of this process as its kernel counts them.
//!
//! All but the limits come from `/proc/self`, which a hardened unit keeps
//! (`ProcSubset=pid`). A figure that cannot be read is absent: a zero would be a lie.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Figures of this process. Each is absent where the kernel doesn't tell it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// Time that its threads have spent on a core.
    pub cpu: Option<Duration>,
    /// Memory that is in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub open_descriptors: Option<u64>,
    /// The most descriptors that may be open; absent too if there is no limit.
    pub max_descriptors: Option<u64>,
    /// When it started.
    pub start: Option<SystemTime>,
    /// Threads.
    pub threads: Option<u64>,
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct ProcStat {
    threads: u64,
    /// Clock ticks between the boot of the machine and the start of the process.
    start_ticks: u64,
    resident_pages: u64,
}

impl Process {
    /// The figures at this moment.
    pub fn read() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().and_then(ProcStat::parse);
        let stat = stat.as_ref();
        let page = rustix::param::page_size() as u64;

        Process {
            cpu: duration(clock_gettime(ClockId::ProcessCPUTime)),
            resident_bytes: stat.map(|stat| stat.resident_pages.saturating_mul(page)),
            open_descriptors: open_descriptors(),
            max_descriptors: getrlimit(Resource::Nofile).current,
            start: stat.and_then(|stat| start(stat.start_ticks)),
            threads: stat.map(|stat| stat.threads),
        }
    }
}

impl ProcStat {
    /// See proc_pid_stat(5). The name of the process, the second field, may contain
    /// blanks and parentheses, so fields are counted after its last parenthesis.
    fn parse(text: &str) -> Option<ProcStat> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The numbers are those of the page, which counts from 1.
        let field = |number: usize| fields.get(number - 3)?.parse().ok();

        Some(ProcStat {
            threads: field(20)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// Since Linux 6.2 the size of the folder is their number. Before, the folder has to be
/// read, which takes a millisecond for some thousand.
fn open_descriptors() -> Option<u64> {
    let folder = "/proc/self/fd";
    let size = fs::metadata(folder).ok()?.len();
    if size > 0 {
        return Some(size);
    }

    // One of them is for the reading itself.
    let entries = fs::read_dir(folder).ok()?.count() as u64;
    Some(entries.saturating_sub(1))
}

/// When the process started. It is found once: the two clocks are not read at the same
/// moment, and the start would seem to move.
fn start(ticks_after_boot: u64) -> Option<SystemTime> {
    static START: OnceLock<Option<SystemTime>> = OnceLock::new();

    *START.get_or_init(|| {
        let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
        let after_boot = Duration::from_millis(ticks_after_boot * 1000 / ticks_a_second);
        let age = since_boot()?.checked_sub(after_boot)?;
        SystemTime::now().checked_sub(age)
    })
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    duration(clock_gettime(ClockId::Boottime))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

fn duration(time: Timespec) -> Option<Duration> {
    Duration::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "7 (a (b) c) S 1 7 7 0 -1 4194304 209 0 0 0 12 34 0 0 20 0 5 0 \
                        123456 9000000 321 18446744073709551615 1 1 0\n";

    #[test]
    fn the_line_of_the_kernel_is_read_behind_any_name() {
        let stat = ProcStat::parse(LINE).unwrap();
        assert_eq!(stat.threads, 5);
        assert_eq!(stat.start_ticks, 123_456);
        assert_eq!(stat.resident_pages, 321);
    }

    #[test]
    fn a_line_that_ends_early_is_no_figure() {
        assert_eq!(ProcStat::parse("7 (a) S 1 7 7"), None);
        assert_eq!(ProcStat::parse(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn each_figure_of_this_process_is_plausible() {
        let file = fs::File::open("/proc/self/stat").unwrap();
        let now = SystemTime::now();
        let process = Process::read();

        assert!(process.cpu.unwrap() > Duration::ZERO);
        assert!(process.resident_bytes.unwrap() > 1 << 20);
        assert!(process.threads.unwrap() >= 1);
        let open = process.open_descriptors.unwrap();
        assert!((4..100_000).contains(&open), "{open}");
        let age = now.duration_since(process.start.unwrap()).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert_eq!(Process::read().start, process.start);
        drop(file);
    }
}
