//! What is measured, and what it is measured against: each a process of its own on the
//! server's core, killed when this program ends.

mod others;

pub use others::{found, haproxy, memcached, nginx, nginx_proxy, run_tokio, twisted};

use crate::load::{Exchange, Target};
use crate::machine::{Cores, on_cores, until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// The release build of the program under test.
pub const POETRY: &str = env!("CARGO_BIN_EXE_poetry");

/// A server process. Dropping it kills the process, also when a measurement fails.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

impl Server {
    /// Starts a server that prints a line on stdout whose last word is its address.
    pub fn start(cores: &[usize], mut command: Command) -> io::Result<Server> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut server = Server {
            child: on_cores(cores, || command.spawn())?,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
        };

        let out = server.child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let last = line.trim_end().rsplit(' ').next().unwrap_or_default();
        server.addr = last.parse().map_err(|_| {
            let program = command.get_program();
            io::Error::other(format!("{program:?} did not start"))
        })?;
        Ok(server)
    }

    /// Starts a server that prints nothing, on a port that was free a moment ago.
    fn start_silent(cores: Cores, mut command: Command, addr: SocketAddr) -> io::Result<Server> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = Server {
            child: on_cores(&[cores.server], || command.spawn())?,
            addr,
        };

        until("the peer listens", || {
            if let Some(status) = server.child.try_wait()? {
                let program = command.get_program();
                return Err(io::Error::other(format!("{program:?} ended: {status}")));
            }
            Ok(TcpStream::connect(addr).is_ok())
        })?;
        Ok(server)
    }

    /// Stops it with SIGTERM, and waits until it has ended.
    pub fn stop(mut self) -> io::Result<()> {
        kill_process(self.pid(), Signal::TERM)?;
        until("the server ends", || {
            self.child.try_wait().map(|status| status.is_some())
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// This server, to be measured with this exchange.
    pub fn target(&self, exchange: Exchange) -> Target {
        Target {
            addr: self.addr,
            pid: self.pid(),
            exchange,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `poetry` with these arguments, its log on as it is by default.
pub fn poetry(cores: Cores, args: &[&str]) -> io::Result<Server> {
    poetry_on(&[cores.server], args)
}

/// `poetry` pinned to some cores.
pub fn poetry_on(cores: &[usize], args: &[&str]) -> io::Result<Server> {
    let mut command = Command::new(POETRY);
    command.args(args).args(["--listen", "127.0.0.1:0"]);
    Server::start(cores, command)
}

/// One of the servers inside this program.
pub fn own(cores: Cores, name: &str, argument: &str) -> io::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([crate::PEER, name, argument]);
    Server::start(&[cores.server], command)
}
