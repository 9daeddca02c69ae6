//! The proxies under test: the release build, each a process of its own that is killed
//! when the soak ends, and what the kernel says about it.

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
pub struct ProxyOptions {
    pub name: &'static str,
    pub protocol: &'static str,
    pub upstream: SocketAddr,
    pub capacity: usize,
}

impl ProxyOptions {
    pub fn line(name: &'static str, upstream: SocketAddr) -> ProxyOptions {
        ProxyOptions {
            name,
            protocol: "line",
            upstream,
            capacity: CAPACITY,
        }
    }

    pub fn poem(name: &'static str, upstream: SocketAddr) -> ProxyOptions {
        ProxyOptions {
            name,
            protocol: "poem",
            upstream,
            capacity: TIGHT_CAPACITY,
        }
    }

    fn command(&self) -> Command {
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let options = [
            ("--listen", "127.0.0.1:0".to_string()),
            ("--protocol", self.protocol.to_string()),
            ("--ttl", ms(TTL)),
            ("--grace", ms(GRACE)),
            ("--fail-ttl", ms(FAIL_TTL)),
            ("--idle-timeout", ms(IDLE_TIMEOUT)),
            ("--fetch-timeout", ms(FETCH_TIMEOUT)),
            ("--client-timeout", ms(CLIENT_TIMEOUT)),
            ("--drain-timeout", ms(DRAIN_TIMEOUT)),
            ("--max-poem", MAX_POEM.to_string()),
            ("--capacity", self.capacity.to_string()),
            ("--upstream-conns", UPSTREAM_CONNS.to_string()),
            ("--max-clients", MAX_CLIENTS.to_string()),
        ];
        let args = options
            .into_iter()
            .flat_map(|(name, value)| [name.to_string(), value]);

        let mut command = Command::new(POETRY);
        command
            .arg("proxy")
            .args(args)
            .arg(self.upstream.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A running proxy. Dropping it kills the process, also when the soak fails.
pub struct Proxy {
    pub name: &'static str,
    pub addr: SocketAddr,
    pub capacity: usize,
    child: Mutex<Child>,
    pid: Pid,
    /// The thread that reads the log; it returns the number of lines.
    log: Mutex<Option<JoinHandle<u64>>>,
}

impl Proxy {
    pub fn start(options: &ProxyOptions, ledger: Arc<Ledger>) -> io::Result<Proxy> {
        let name = options.name;
        let mut child = options.command().spawn()?;
        let out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let pid = Pid::from_child(&child);
        let mut proxy = Proxy {
            name,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            capacity: options.capacity,
            child: Mutex::new(child),
            pid,
            log: Mutex::default(),
        };

        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let last = line.trim_end().rsplit(' ').next().unwrap_or_default();
        let failed = |_| io::Error::other(format!("{name} did not start"));
        proxy.addr = last.parse().map_err(failed)?;

        let log = std::thread::spawn(move || watch_log(name, err, &ledger));
        proxy.log = Mutex::new(Some(log));
        Ok(proxy)
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(std::fs::read_dir(self.file("fd"))?.count())
    }

    /// Its private memory, in bytes: every page it has written that no file backs.
    pub fn memory(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(self.file("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.map(|kib| kib << 10)
            .ok_or_else(|| io::Error::other("the kernel does not report RssAnon"))
    }

    /// The processor time it has used, in clock ticks.
    pub fn ticks(&self) -> io::Result<u64> {
        // Among the fields behind the name. The system's time follows it.
        const UTIME: usize = 11;

        let stat = std::fs::read_to_string(self.file("stat"))?;
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let times = fields.skip(UTIME).take(2);
        Ok(times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid.as_raw_nonzero())
    }

    pub fn is_running(&self) -> io::Result<bool> {
        Ok(lock(&self.child).try_wait()?.is_none())
    }

    /// Sends SIGTERM. Returns the exit code, or `None` if it has not ended within the
    /// drain timeout, and the number of lines it has logged.
    pub fn stop(&self) -> io::Result<(Option<i32>, u64)> {
        const PAUSE: Duration = Duration::from_millis(10);

        self.signal(Signal::TERM)?;
        let start = Instant::now();
        let mut code = None;
        while code.is_none() && start.elapsed() < DRAIN_TIMEOUT + SLACK {
            let status = lock(&self.child).try_wait()?;
            code = status.and_then(|status| status.code());
            std::thread::sleep(PAUSE);
        }

        self.kill();
        let log = lock(&self.log).take();
        let lines = log.and_then(|log| log.join().ok());
        Ok((code, lines.unwrap_or_default()))
    }

    /// Kills the process, unless it has been reaped already.
    fn kill(&self) {
        let mut child = lock(&self.child);
        let _ended = child.kill();
        let _reaped = child.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads the log to its end and returns the number of its lines. A bug that the proxy
/// has met and survived is logged there.
fn watch_log(name: &'static str, log: ChildStderr, ledger: &Ledger) -> u64 {
    let mut log = BufReader::new(log);
    let mut count = 0;
    let mut line = Vec::new();

    while log.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let logged = String::from_utf8_lossy(&line);
        let is_bug = ["internal error", "panicked"]
            .iter()
            .any(|word| logged.contains(word));
        if is_bug {
            let logged = logged.trim_end();
            ledger.violation("internal error", format!("{name} logged: {logged}"));
        }
        count += 1;
        line.clear();
    }
    count
}
