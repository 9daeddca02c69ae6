//! The proxies under test: the release build, each a process of its own that is killed
//! when the soak ends, and what the kernel says about it.

use crate::ledger::{Ledger, lock};
use crate::plan::{
    CAPACITY, CLIENT_TIMEOUT, DRAIN_TIMEOUT, FAIL_TTL, FETCH_TIMEOUT, GRACE, HANG, IDLE_TIMEOUT,
    MAX_CLIENTS, MAX_POEM, SLACK, TIGHT_CAPACITY, TTL, UPSTREAM_CONNS,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The program under test.
pub const POETRY: &str = env!("CARGO_BIN_EXE_poetry");

/// How a proxy is started.
#[derive(Clone)]
pub struct ProxyOptions {
    pub name: &'static str,
    pub protocol: &'static str,
    pub upstream: SocketAddr,
    pub capacity: usize,
    pub max_clients: usize,
    /// As `--store` takes it.
    pub store: Option<String>,
}

impl ProxyOptions {
    pub fn line(name: &'static str, upstream: SocketAddr) -> ProxyOptions {
        ProxyOptions {
            name,
            protocol: "line",
            upstream,
            capacity: CAPACITY,
            max_clients: MAX_CLIENTS,
            store: None,
        }
    }

    pub fn poem(name: &'static str, upstream: SocketAddr) -> ProxyOptions {
        ProxyOptions {
            protocol: "poem",
            capacity: TIGHT_CAPACITY,
            ..ProxyOptions::line(name, upstream)
        }
    }

    fn command(&self) -> Command {
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let options = [
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
            ("--max-clients", self.max_clients.to_string()),
        ];
        let store = self.store.iter().map(|store| ("--store", store.clone()));
        let args = options
            .into_iter()
            .chain(store)
            .flat_map(|(name, value)| [name.to_string(), value]);

        let mut command = Command::new(POETRY);
        command
            .arg("proxy")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A proxy. Dropping it kills the process, also when the soak fails.
pub struct Proxy {
    pub name: &'static str,
    pub addr: SocketAddr,
    options: ProxyOptions,
    ledger: Arc<Ledger>,
    folder: tempfile::TempDir,
    running: Mutex<Running>,
}

/// The process of a proxy. There is another after a kill.
struct Running {
    child: Child,
    /// The thread that reads the log; it returns the number of lines.
    log: Option<JoinHandle<u64>>,
    /// The lines that the processes before it logged.
    lines_before: u64,
}

impl Proxy {
    pub fn start(options: &ProxyOptions, ledger: Arc<Ledger>) -> io::Result<Proxy> {
        let folder = tempfile::tempdir()?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (addr, running) = launch(options, any, &admin_in(&folder), &ledger)?;
        Ok(Proxy {
            name: options.name,
            addr,
            options: options.clone(),
            ledger,
            folder,
            running: Mutex::new(running),
        })
    }

    /// Kills it, and starts it again on its address.
    pub fn kill_and_restart(&self) -> io::Result<()> {
        let mut running = lock(&self.running);
        let lines_before = running.kill();

        let admin = admin_in(&self.folder);
        let (_same, new) = launch(&self.options, self.addr, &admin, &self.ledger)?;
        *running = new;
        running.lines_before = lines_before;
        Ok(())
    }

    pub fn options(&self) -> &ProxyOptions {
        &self.options
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(
            Pid::from_child(&lock(&self.running).child),
            signal,
        )?)
    }

    /// Asks its endpoint for operators, in a line or over HTTP.
    pub fn ask(&self, request: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(admin_in(&self.folder))?;
        stream.set_read_timeout(Some(HANG))?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;

        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Purges all, at once.
    pub fn purge(&self) -> io::Result<()> {
        self.ask("purge --all\n").map(|_count| ())
    }

    /// What `/status` says.
    pub fn status(&self) -> io::Result<serde_json::Value> {
        let answer = self.ask("GET /status HTTP/1.1\r\nHost: poetry\r\n\r\n")?;
        let (_head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        serde_json::from_str(body).map_err(io::Error::other)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> io::Result<usize> {
        let running = lock(&self.running);
        Ok(std::fs::read_dir(running.file("fd"))?.count())
    }

    /// Its private memory, in bytes: every page it has written that no file backs.
    pub fn memory(&self) -> io::Result<u64> {
        let running = lock(&self.running);
        let status = std::fs::read_to_string(running.file("status"))?;
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

        let running = lock(&self.running);
        let stat = std::fs::read_to_string(running.file("stat"))?;
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let times = fields.skip(UTIME).take(2);
        Ok(times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
    }

    pub fn is_running(&self) -> io::Result<bool> {
        Ok(lock(&self.running).child.try_wait()?.is_none())
    }

    /// Sends SIGTERM. Returns the exit code, or `None` if it has not ended within the
    /// drain timeout, and the number of lines it has logged.
    pub fn stop(&self) -> io::Result<(Option<i32>, u64)> {
        const PAUSE: Duration = Duration::from_millis(10);

        self.signal(Signal::TERM)?;
        let start = Instant::now();
        let mut running = lock(&self.running);
        let mut code = None;
        while code.is_none() && start.elapsed() < DRAIN_TIMEOUT + SLACK {
            let status = running.child.try_wait()?;
            code = status.and_then(|status| status.code());
            std::thread::sleep(PAUSE);
        }
        Ok((code, running.kill()))
    }
}

impl Running {
    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }

    /// Kills the process, unless it has been reaped already. Returns how many lines
    /// were logged.
    fn kill(&mut self) -> u64 {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let lines = self.log.take().and_then(|log| log.join().ok());
        self.lines_before + lines.unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn admin_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("admin")
}

/// Starts a process, and returns its address.
fn launch(
    options: &ProxyOptions,
    addr: SocketAddr,
    admin: &Path,
    ledger: &Arc<Ledger>,
) -> io::Result<(SocketAddr, Running)> {
    let name = options.name;
    let mut command = options.command();
    command
        .args(["--listen", &addr.to_string()])
        .args(["--admin", &format!("unix:{}", admin.display())])
        .arg(options.upstream.to_string());

    let mut child = command.spawn()?;
    let out = child.stdout.take().expect("stdout is piped");
    let err = child.stderr.take().expect("stderr is piped");
    let ledger = ledger.clone();
    let log = std::thread::spawn(move || watch_log(name, err, &ledger));
    let running = Running {
        child,
        log: Some(log),
        lines_before: 0,
    };

    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let last = line.trim_end().rsplit(' ').next().unwrap_or_default();
    let failed = |_| io::Error::other(format!("{name} did not start"));
    Ok((last.parse().map_err(failed)?, running))
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
