//! The program itself, run to its end or as a service, and what the kernel tells about it.

use super::LONG;
use rustix::process::{Pid, Signal};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The program itself, run to its end.
pub fn poetry(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().unwrap()
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poetry"));
    command.args(args).env_remove("NO_COLOR");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The program as a service; killed in the end.
pub struct Daemon {
    pub child: Child,
    pub ready: String,
    pub addr: SocketAddr,
}

impl Daemon {
    pub fn start(args: &[&str]) -> Daemon {
        Daemon::start_command(command(args))
    }

    /// With no more than so many descriptors.
    pub fn start_with_descriptors(most: u32, args: &[&str]) -> Daemon {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!("ulimit -n {most}; exec \"$@\""),
            "sh",
            env!("CARGO_BIN_EXE_poetry"),
        ]);
        shell.args(args);
        Daemon::start_command(shell)
    }

    pub fn start_command(command: Command) -> Daemon {
        Daemon::start_with(command, Stdio::null())
    }

    /// With this as its standard input.
    pub fn start_with(mut command: Command, stdin: Stdio) -> Daemon {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let ready = ready.trim_end().to_string();
        let addr = ready.rsplit(' ').next().unwrap_or("").parse();
        Daemon {
            child,
            addr: addr.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            ready,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }

    /// The memory it has written to and no file stands behind, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// The most memory it has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            << 10
    }

    /// The time it has kept a processor busy so far, in the hundredths of a second that Linux counts in.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Whether it stands still (SIGSTOP).
    pub fn is_stopped(&self) -> bool {
        self.proc("stat")
            .rsplit(") ")
            .next()
            .unwrap()
            .starts_with('T')
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < LONG, "the process does not end");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// What it tells from now on, line by line.
    pub fn stderr_lines(&mut self) -> Receiver<String> {
        let (tell, told) = channel();
        let lines = BufReader::new(self.child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line))
        });
        told
    }

    pub fn stderr(&mut self) -> String {
        let mut told = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        told
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
