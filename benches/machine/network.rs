//! A network namespace for the benches, so that its settings can be changed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Command;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "POETRY_BENCH_INSIDE";

/// Runs this process again in a network namespace of its own, with a /sys that shows
/// it, and returns the exit code. The namespace ends with its last process.
///
/// Returns `None` inside the namespace, and where the kernel does not allow one.
pub fn run_inside() -> Option<i32> {
    if is_inside() {
        return None;
    }
    let allowed = unshare(&["true".as_ref()])
        .output()
        .is_ok_and(|out| out.status.success());
    if !allowed {
        return None;
    }

    let program = std::env::current_exe().ok()?.into_os_string();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let tail: Vec<&OsStr> = std::iter::once(&program)
        .chain(&args)
        .map(AsRef::as_ref)
        .collect();
    let status = unshare(&tail).env(INSIDE, "1").status().ok()?;
    Some(status.code().unwrap_or(1))
}

/// A command that runs `tail` inside a new namespace.
fn unshare(tail: &[&OsStr]) -> Command {
    const SETUP: &str = "mount -t sysfs none /sys && ip link set lo up && exec \"$0\" \"$@\"";

    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--propagation", "private"])
        .args(["sh", "-c", SETUP])
        .args(tail);
    command
}

/// Whether this process runs inside the namespace.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// How many connections the kernel keeps in TIME_WAIT, one for each that the server
/// closed first. The default is 131,072, and a minute of load at 20,000 poems a second
/// fills that ten times over; after that the kernel keeps no more. With this small
/// limit every round is in that state from the start, so no round depends on what ran
/// before it.
const TIME_WAITS: &str = "1024";

/// Changes the settings of the namespace, once.
pub fn set_up_network() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", TIME_WAITS)?;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10240 65535")
}

/// Steers the packets that loopback receives to some cores, until it is dropped.
///
/// Without it the kernel handles a packet on the core that sent it. The load
/// generator's core would then do the handshakes, which are most of a poem's cost.
pub struct Steering(());

const STEERING: &str = "/sys/class/net/lo/queues/rx-0/rps_cpus";

impl Steering {
    pub fn to(cores: &[usize]) -> io::Result<Steering> {
        if !is_inside() {
            return Err(io::Error::other(
                "needs a network namespace of its own (root and unshare)",
            ));
        }
        std::fs::write(STEERING, mask(cores))?;
        Ok(Steering(()))
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        let _gone_with_the_namespace = std::fs::write(STEERING, "0");
    }
}

/// The kernel's form of a set of cores: hexadecimal words of 32 bits, highest first.
fn mask(cores: &[usize]) -> String {
    let last = cores.iter().max().map_or(0, |core| core / 32);
    let word = |at: usize| {
        let inside = cores.iter().filter(|core| *core / 32 == at);
        inside.fold(0u32, |word, core| word | 1 << (core % 32))
    };

    let words: Vec<String> = (0..=last)
        .rev()
        .map(|at| format!("{:08x}", word(at)))
        .collect();
    words.join(",")
}
