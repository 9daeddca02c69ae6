//! The machine: its cores, its limits, a network of our own, and what the kernel tells about processes.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Descriptors for 10,000 clients held, a drain's connections beside them, and what a process needs itself.
const DESCRIPTORS: u64 = 40_000;

/// Set in the process that runs in a network of its own.
const INSIDE: &str = "POETRY_BENCH_INSIDE";

/// Which core serves and which one loads it.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// The server's core, which has nothing else to do.
    pub server: usize,
    /// The load generator's core.
    pub load: usize,
}

impl Cores {
    /// The last and the first core that this process may run on.
    pub fn choose() -> io::Result<Cores> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next_back()) {
            (Some(load), Some(server)) => Ok(Cores { server, load }),
            _ => Err(io::Error::other(
                "needs two cores: the server and its load must not charge one",
            )),
        }
    }
}

/// Keeps this thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Runs `work` on a thread that is pinned to the core: a process it starts stays there.
pub fn on_core<T: Send>(core: usize, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || pin(core).and_then(|()| work()));
        pinned
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the pinned thread panicked")))
    })
}

/// As many descriptors as the benches need, for us and for the processes we start.
pub fn raise_descriptors() -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= DESCRIPTORS);
    if enough(now.current) {
        return Ok(());
    }
    let maximum = if enough(now.maximum) {
        now.maximum
    } else {
        Some(DESCRIPTORS)
    };
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(DESCRIPTORS),
            maximum,
        },
    );
    if raised.is_err() {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: now.maximum,
                maximum: now.maximum,
            },
        )?;
    }
    Ok(())
}

/// Runs this process again in a network namespace of its own, with a /sys that shows it, and returns its exit code;
/// nothing where we are inside already or the kernel does not let us. The namespace is gone when its last process is.
pub fn run_inside() -> Option<i32> {
    const SETUP: &str = "mount -t sysfs none /sys && ip link set lo up && exec \"$0\" \"$@\"";
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let unshare = |tail: &[&std::ffi::OsStr]| {
        let mut command = Command::new("unshare");
        command
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                SETUP,
            ])
            .args(tail);
        command
    };
    let may = unshare(&["true".as_ref()])
        .output()
        .is_ok_and(|out| out.status.success());
    if !may {
        return None;
    }
    let own = std::env::current_exe().ok()?.into_os_string();
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let tail: Vec<&std::ffi::OsStr> = std::iter::once(&own)
        .chain(&args)
        .map(AsRef::as_ref)
        .collect();
    let status = unshare(&tail).env(INSIDE, "1").status().ok()?;
    Some(status.code().unwrap_or(1))
}

/// Whether the network is our own, to be set up as we like.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// A server that closes first leaves a TIME_WAIT behind. By default there is room for 131,072, and a minute's load at
/// 20,000 poems a second fills that ten times over: from then on the kernel keeps none. With this little room every
/// round is in that state from its beginning, and the rounds don't depend on what ran before.
const TIME_WAITS: &str = "1024";

/// What is set once in our own network.
pub fn set_up_network() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", TIME_WAITS)?;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10240 65535")
}

/// Steers the loopback's received packets to one core, until dropped. Without it the kernel handles a packet on the
/// core that sent it, so the load generator's core would do the handshakes, which are most of a poem's cost.
pub struct Steering(());

const STEERING: &str = "/sys/class/net/lo/queues/rx-0/rps_cpus";

impl Steering {
    pub fn to(core: usize) -> io::Result<Steering> {
        if !is_inside() {
            return Err(io::Error::other(
                "needs a network namespace of its own (root, and unshare)",
            ));
        }
        std::fs::write(STEERING, mask(core))?;
        Ok(Steering(()))
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        let _gone_with_the_namespace = std::fs::write(STEERING, "0");
    }
}

/// The kernel's form of a set of cores: hexadecimal words of 32 bits, the highest first.
fn mask(core: usize) -> String {
    format!("{:x}{}", 1u32 << (core % 32), ",00000000".repeat(core / 32))
}

/// What a core has done since it was asked first, in clock ticks.
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
            return Err(io::Error::other("no such core"));
        };
        Ok(Work {
            idle: idle + waiting,
            all: ticks.iter().sum(),
        })
    }

    /// The part of the time since `before` in which the core was busy.
    pub fn busy_since(self, before: Work) -> f64 {
        let all = (self.all - before.all).max(1) as f64;
        1.0 - (self.idle - before.idle) as f64 / all
    }
}

/// Whether others use the cores for more than a twentieth of a second: then the figures are worth little.
pub fn is_busy(cores: Cores) -> io::Result<bool> {
    const LOOK: Duration = Duration::from_secs(1);
    const OTHERS: f64 = 0.05;
    let before = [Work::of(cores.server)?, Work::of(cores.load)?];
    std::thread::sleep(LOOK);
    let after = [Work::of(cores.server)?, Work::of(cores.load)?];
    Ok(after
        .into_iter()
        .zip(before)
        .any(|(after, before)| after.busy_since(before) > OTHERS))
}

/// A process's own memory that no file stands behind, in bytes: heap, stacks and what else it has written to.
pub fn own_memory(pid: Pid) -> io::Result<u64> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path)?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| io::Error::other("the kernel does not tell RssAnon"))
}

/// How many descriptors a process has open.
pub fn descriptors(pid: Pid) -> io::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))?.count())
}

/// The memory of all TCP buffers, of both directions and all processes, in bytes.
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

/// The first letter of a process's state: T is stopped.
pub fn is_stopped(pid: Pid) -> bool {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with('T'))
}

/// Waits until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    while !so()? {
        if begun.elapsed() > LONG {
            return Err(io::Error::other(format!("waited in vain: {what}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What the figures were measured on.
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
