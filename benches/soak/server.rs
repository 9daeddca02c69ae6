//! The server of the fleet: Redis or Valkey on a unix socket of its own, and what can
//! be done to it.

use crate::redis_client::{self, PATIENCE, RedisClient};
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first that is installed is used.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A running server, which is killed with this value.
pub struct Server {
    program: &'static str,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// `None` where none is installed.
    pub fn start() -> io::Result<Option<Server>> {
        let is_there = |program: &&str| {
            let mut asked = Command::new(program);
            asked.arg("--version").stdout(Stdio::null());
            asked.status().is_ok()
        };
        let Some(program) = PROGRAMS.into_iter().find(|program| is_there(program)) else {
            return Ok(None);
        };

        let folder = tempfile::tempdir()?;
        let child = spawn(program, &folder)?;
        let server = Server {
            program,
            folder,
            child,
        };
        server.answers()?;
        Ok(Some(server))
    }

    fn answers(&self) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(10);

        let start = Instant::now();
        while self.ask(&["PING"]).is_err() {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "{} does not answer",
                    self.program
                )));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// As `--store` takes it.
    pub fn place(&self) -> String {
        redis_client::place(self.folder.path())
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills it, and returns once it has ended.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        std::fs::remove_file(redis_client::socket(self.folder.path()))
    }

    /// Starts it again after a kill, with what it saved last, or empty. Returns once it
    /// answers.
    pub fn start_again(&mut self, keeps_its_data: bool) -> io::Result<()> {
        if !keeps_its_data {
            let _there_may_be_none = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        }
        self.child = spawn(self.program, &self.folder)?;
        self.answers()
    }

    /// Asks over a connection of its own. A list comes as one line for each element.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        RedisClient::connect(self.folder.path())?.ask(words)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(program: &str, folder: &tempfile::TempDir) -> io::Result<Child> {
    redis_client::server(program, folder.path()).spawn()
}
