//! The proxies under test: the release build, each a process of its own that is ended with us, and what the kernel
//! tells about it.

use crate::ledger::{Ledger, lock};
use crate::plan::{
    CAPACITY, CLIENT_TIMEOUT, DRAIN_TIMEOUT, FAIL_TTL, FETCH_TIMEOUT, GRACE, IDLE_TIMEOUT,
    MAX_CLIENTS, MAX_POEM, SLACK, TIGHT_CAPACITY, TTL, UPSTREAM_CONNS,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The program under test.
pub const POETRY: &str = env!("CARGO_BIN_EXE_poetry");

/// How a proxy is started.
pub struct Role {
    pub name: &'static str,
    pub protocol: &'static str,
    pub upstream: SocketAddr,
    pub capacity: usize,
}

impl Role {
    pub fn line(name: &'static str, upstream: SocketAddr) -> Role {
        Role {
            name,
            protocol: "line",
            upstream,
            capacity: CAPACITY,
        }
    }

    pub fn poem(name: &'static str, upstream: SocketAddr) -> Role {
        Role {
            name,
            protocol: "poem",
            upstream,
            capacity: TIGHT_CAPACITY,
        }
    }
}

/// A running proxy; killed when it is dropped, also on the way out of a failure.
pub struct Proxy {
    pub name: &'static str,
    pub addr: SocketAddr,
    pub capacity: usize,
    child: Mutex<Child>,
    pid: Pid,
    log: Mutex<Option<JoinHandle<u64>>>,
}

impl Proxy {
    pub fn start(role: &Role, ledger: Arc<Ledger>) -> io::Result<Proxy> {
        let mut child = command(role).spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let pid = Pid::from_child(&child);
        let mut proxy = Proxy {
            name: role.name,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            capacity: role.capacity,
            child: Mutex::new(child),
            pid,
            log: Mutex::default(),
        };
        let mut line = String::new();
        BufReader::new(out.ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut line)?;
        let last = line.trim_end().rsplit(' ').next().unwrap_or_default();
        proxy.addr = last
            .parse()
            .map_err(|_| io::Error::other(format!("{} did not start", role.name)))?;
        let (name, err) = (role.name, err.ok_or(io::ErrorKind::BrokenPipe)?);
        proxy.log = Mutex::new(Some(std::thread::spawn(move || {
            watch_log(name, err, &ledger)
        })));
        Ok(proxy)
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(std::fs::read_dir(self.file("fd"))?.count())
    }

    /// Its own memory that no file stands behind, in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(self.file("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.map(|kib| kib << 10)
            .ok_or_else(|| io::Error::other("the kernel does not tell RssAnon"))
    }

    /// The processor's time it has used, in clock ticks.
    pub fn ticks(&self) -> io::Result<u64> {
        const UTIME: usize = 11; // of the fields behind the name, and the system's time is next to it
        let stat = std::fs::read_to_string(self.file("stat"))?;
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        Ok(fields
            .skip(UTIME)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum())
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid.as_raw_nonzero())
    }

    pub fn is_running(&self) -> io::Result<bool> {
        Ok(lock(&self.child).try_wait()?.is_none())
    }

    /// SIGTERM, and the exit code: none where it has not ended within the drain timeout. Then the lines it has logged.
    pub fn stop(&self) -> io::Result<(Option<i32>, u64)> {
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        let mut code = None;
        while code.is_none() && begun.elapsed() < DRAIN_TIMEOUT + SLACK {
            code = lock(&self.child)
                .try_wait()?
                .and_then(|status| status.code());
            std::thread::sleep(LOOK_AGAIN);
        }
        self.end();
        let log = lock(&self.log).take();
        Ok((
            code,
            log.and_then(|log| log.join().ok()).unwrap_or_default(),
        ))
    }

    fn end(&self) {
        let mut child = lock(&self.child);
        let _ended = child.kill(); // nothing where it has been reaped already
        let _reaped = child.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

fn command(role: &Role) -> Command {
    let ms = |time: Duration| format!("{}ms", time.as_millis());
    let options = [
        ("--listen", "127.0.0.1:0".to_string()),
        ("--protocol", role.protocol.to_string()),
        ("--ttl", ms(TTL)),
        ("--grace", ms(GRACE)),
        ("--fail-ttl", ms(FAIL_TTL)),
        ("--idle-timeout", ms(IDLE_TIMEOUT)),
        ("--fetch-timeout", ms(FETCH_TIMEOUT)),
        ("--client-timeout", ms(CLIENT_TIMEOUT)),
        ("--drain-timeout", ms(DRAIN_TIMEOUT)),
        ("--max-poem", MAX_POEM.to_string()),
        ("--capacity", role.capacity.to_string()),
        ("--upstream-conns", UPSTREAM_CONNS.to_string()),
        ("--max-clients", MAX_CLIENTS.to_string()),
    ];
    let mut command = Command::new(POETRY);
    command.arg("proxy").args(
        options
            .into_iter()
            .flat_map(|(name, value)| [name.to_string(), value]),
    );
    command.arg(role.upstream.to_string());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Reads the log to its end, and says how many lines it had. A bug that the proxy has met, and survived, is told there.
fn watch_log(name: &'static str, log: ChildStderr, ledger: &Ledger) -> u64 {
    let mut log = BufReader::new(log);
    let (mut lines, mut line) = (0, Vec::new());
    while log
        .read_until(b'\n', &mut line)
        .is_ok_and(|count| count > 0)
    {
        let said = String::from_utf8_lossy(&line);
        if ["internal error", "panicked"]
            .iter()
            .any(|word| said.contains(word))
        {
            ledger.violation(
                "internal error",
                format!("{name} said: {}", said.trim_end()),
            );
        }
        lines += 1;
        line.clear();
    }
    lines
}
