//! How a benchmark starts a server of Redis or Valkey on a unix socket, and asks it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long an answer may take, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What starts a server that keeps its socket, and what it may be told to save, in this
/// folder.
pub fn server(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--port", "0", "--save", "", "--appendonly", "no"])
        .arg("--unixsocket")
        .arg(socket(folder))
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The socket of the server in this folder.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("redis")
}

/// Its place as `--store` takes it.
pub fn place(folder: &Path) -> String {
    format!("redis+unix:{}", socket(folder).display())
}

/// A connection to the server.
pub struct RedisClient(pub BufReader<UnixStream>);

impl RedisClient {
    /// Connects to the server in this folder.
    pub fn connect(folder: &Path) -> io::Result<RedisClient> {
        let stream = UnixStream::connect(socket(folder))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(RedisClient(BufReader::new(stream)))
    }

    /// Sends a command, and returns the reply as text. A list has a line for each of
    /// its elements.
    pub fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        let mut question = format!("*{}\r\n", words.len());
        for word in words {
            question.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(question.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).unwrap_or_default();
        let count = || rest.parse::<usize>().map_err(io::Error::other);
        match kind {
            "+" | ":" => Ok(rest.into()),
            "$" if rest == "-1" => Ok(String::new()),
            "$" => {
                let mut text = vec![0; count()? + 2];
                self.0.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            "*" => {
                let elements = (0..count()?).map(|_| self.reply());
                Ok(elements.collect::<io::Result<Vec<String>>>()?.join("\n"))
            }
            _ => Err(io::Error::other(format!("the server says {line:?}"))),
        }
    }
}
