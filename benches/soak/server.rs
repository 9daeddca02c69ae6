//! The server of the fleet: Redis or Valkey on a unix socket of its own, and what can
//! be done to it.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first that is installed is used.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// How long an answer or a start may take, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

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

    fn socket(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// As `--store` takes it.
    pub fn place(&self) -> String {
        format!("redis+unix:{}", self.socket().display())
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills it, and returns once it has ended.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        std::fs::remove_file(self.socket())
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
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut question = format!("*{}\r\n", words.len());
        for word in words {
            question.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(question.as_bytes())?;
        reply(&mut BufReader::new(stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(program: &str, folder: &tempfile::TempDir) -> io::Result<Child> {
    let path = folder.path();
    Command::new(program)
        .args(["--port", "0", "--save", "", "--appendonly", "no"])
        .arg("--unixsocket")
        .arg(path.join("server"))
        .arg("--dir")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn reply(from: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at_checked(1).unwrap_or_default();
    let count = || rest.parse::<usize>().map_err(io::Error::other);
    match kind {
        "+" | ":" => Ok(rest.into()),
        "$" if rest == "-1" => Ok(String::new()),
        "$" => {
            let mut text = vec![0; count()? + 2];
            from.read_exact(&mut text)?;
            text.truncate(text.len() - 2);
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        "*" => {
            let elements = (0..count()?).map(|_| reply(from));
            Ok(elements.collect::<io::Result<Vec<String>>>()?.join("\n"))
        }
        _ => Err(io::Error::other(format!("the server says {line:?}"))),
    }
}
