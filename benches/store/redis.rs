//! A server of Redis, or of Valkey, on a unix socket of its own, and what it says of
//! itself.

use crate::machine::{on_cores, until};
use crate::peers::found;
use crate::redis_client::{self, RedisClient};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

/// The path of the program, if one of the two is installed.
pub fn installed() -> io::Result<PathBuf> {
    let none = |_| io::Error::other("neither redis-server nor valkey-server is installed");
    found("redis-server")
        .or_else(|_| found("valkey-server"))
        .map_err(none)
}

/// A running server, which is killed with this value. It saves nothing.
pub struct Redis {
    folder: tempfile::TempDir,
    child: Child,
    cores: Vec<usize>,
}

impl Redis {
    pub fn start(cores: &[usize]) -> io::Result<Redis> {
        let folder = tempfile::tempdir()?;
        let child = spawn(&folder, cores)?;
        let redis = Redis {
            folder,
            child,
            cores: cores.to_vec(),
        };
        redis.answers()?;
        Ok(redis)
    }

    fn answers(&self) -> io::Result<()> {
        until("redis answers", || Ok(self.ask(&["PING"]).is_ok()))
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills it, and returns once it has ended.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_status| ())
    }

    /// Starts it again after a kill, empty, and returns once it answers.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.child = spawn(&self.folder, &self.cores)?;
        self.answers()
    }

    /// As `--store` takes it.
    pub fn place(&self) -> String {
        redis_client::place(self.folder.path())
    }

    pub fn connect(&self) -> io::Result<RedisClient> {
        RedisClient::connect(self.folder.path())
    }

    /// Asks over a connection of its own.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        self.connect()?.ask(words)
    }

    /// A number that INFO has.
    pub fn info(&self, field: &str) -> io::Result<f64> {
        let all = self.ask(&["INFO", "everything"])?;
        let value = all
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = value.and_then(|value| value.trim_end().parse().ok());
        number.ok_or_else(|| io::Error::other(format!("INFO has no {field}")))
    }

    /// The processor time that it has used, in seconds.
    pub fn cpu(&self) -> io::Result<f64> {
        Ok(self.info("used_cpu_user")? + self.info("used_cpu_sys")?)
    }

    /// Its longest command is counted from now on.
    pub fn forget_commands(&self) -> io::Result<()> {
        let option = "latency-tracking-info-percentiles";
        self.ask(&["CONFIG", "SET", option, "100"])?;
        self.ask(&["CONFIG", "RESETSTAT"]).map(|_ok| ())
    }

    /// The time of its longest command since then, in seconds. Those of this program do
    /// not count.
    pub fn longest_command(&self) -> io::Result<f64> {
        const OWN: [&str; 6] = ["config", "info", "keys", "memory", "monitor", "randomkey"];

        let all = self.ask(&["INFO", "latencystats"])?;
        let time = |line: &str| {
            let line = line.strip_prefix("latency_percentiles_usec_")?;
            let (command, times) = line.split_once(':')?;
            let is_own = OWN.iter().any(|own| command.starts_with(own));
            let time: f64 = times.trim_end().strip_prefix("p100=")?.parse().ok()?;
            (!is_own).then_some(time * 1e-6)
        };
        let longest = all.lines().filter_map(time).reduce(f64::max);
        longest.ok_or_else(|| io::Error::other("it tells no times of commands: older than 7.0"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(folder: &tempfile::TempDir, cores: &[usize]) -> io::Result<Child> {
    let mut command = redis_client::server(installed()?, folder.path());
    on_cores(cores, || command.spawn())
}

impl RedisClient {
    /// The commands that the server gets while `work` is done, as MONITOR tells them,
    /// and this while after it.
    pub fn commands(
        mut self,
        after: Duration,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Vec<String>> {
        self.ask(&["MONITOR"])?;
        let stream = self.0.get_ref().try_clone()?;
        std::thread::scope(|scope| {
            let lines = scope.spawn(move || self.0.lines().map_while(Result::ok).collect());
            let done = work();
            std::thread::sleep(after);
            stream.shutdown(std::net::Shutdown::Both)?;
            done?;
            lines
                .join()
                .map_err(|_| io::Error::other("the reader panicked"))
        })
    }
}
