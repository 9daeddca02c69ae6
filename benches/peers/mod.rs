//! What is measured and what it is measured against: each a process of its own, on the server's core, ended with us.

use crate::load::Target;
use crate::machine::{Cores, on_core, until};
use rustix::process::Pid;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The release build of the program under test.
pub const POETRY: &str = env!("CARGO_BIN_EXE_poetry");

/// A server process; killed when it is dropped, also on the way out of a failure.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

impl Server {
    /// Starts a server that says on stdout, in the last word of a line, where it listens.
    pub fn start(cores: Cores, mut command: Command) -> io::Result<Server> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = on_core(cores.server, || command.spawn())?;
        let mut server = Server {
            child,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let out = server
            .child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no pipe"))?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let last = line.trim_end().rsplit(' ').next().unwrap_or_default();
        let silent = |_| io::Error::other(format!("{:?} did not start", command.get_program()));
        server.addr = last.parse().map_err(silent)?;
        Ok(server)
    }

    /// Starts a server that says nothing, on a port that was free a moment ago.
    fn start_silent(cores: Cores, mut command: Command, addr: SocketAddr) -> io::Result<Server> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Server {
            child: on_core(cores.server, || command.spawn())?,
            addr,
        };
        until("the peer listens", || Ok(TcpStream::connect(addr).is_ok()))?;
        Ok(server)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn target(&self, len: u64) -> Target {
        Target {
            addr: self.addr,
            pid: self.pid(),
            len,
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
    let mut command = Command::new(POETRY);
    command.args(args).args(["--listen", "127.0.0.1:0"]);
    Server::start(cores, command)
}

/// One of the servers inside this program.
pub fn own(cores: Cores, name: &str, argument: &str) -> io::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([crate::PEER, name, argument]);
    Server::start(cores, command)
}

/// nginx's stream module, one worker that is the only process.
pub fn nginx(cores: Cores, folder: &Path, poem: &str) -> io::Result<Server> {
    let addr = free_addr()?;
    let prefix = folder.join("nginx");
    std::fs::create_dir_all(&prefix)?;
    let load = [
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "/usr/lib64/nginx/modules/ngx_stream_module.so",
    ];
    let load = load.iter().find(|path| Path::new(path).exists());
    let load = load.map_or(String::new(), |path| format!("load_module {path};"));
    let config = format!(
        "{load} daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log /dev/null crit;
         events {{ worker_connections 20000; multi_accept on; }}
         stream {{ server {{ listen {addr} backlog={}; return '{poem}'; }} }}\n",
        crate::floor::BACKLOG
    );
    std::fs::write(prefix.join("nginx.conf"), config)?;
    let mut command = Command::new(found("nginx")?);
    command
        .arg("-p")
        .arg(&prefix)
        .args(["-e", "/dev/null", "-c", "nginx.conf"]);
    Server::start_silent(cores, command, addr)
}

/// One of the two Twisted peers.
pub fn twisted(cores: Cores, kind: &str, argument: &str) -> io::Result<Server> {
    let python = found("python3")?;
    let has = Command::new(&python)
        .args(["-c", "import twisted"])
        .stderr(Stdio::null())
        .status()?;
    if !has.success() {
        return Err(io::Error::other("python3 has no twisted"));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/poems.py");
    let mut command = Command::new(python);
    command.arg(script).args([kind, argument]);
    Server::start(cores, command)
}

/// The program of this name, where one is installed.
pub fn found(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut programs = folders
        .map(|folder| folder.join(name))
        .filter(|program| program.is_file());
    programs
        .next()
        .ok_or_else(|| io::Error::other(format!("{name} is not installed")))
}

fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// A naive server on tokio's runtime of one thread: accept, and a task for each connection that writes, shuts down
/// and drops it.
pub fn run_tokio(poem: &str) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let poem: &'static [u8] = std::fs::read(poem)?.leak();
    let listener = crate::floor::listener()?;
    listener.set_nonblocking(true)?;
    crate::floor::say_ready(&listener)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener.into())?;
            loop {
                let Ok((mut client, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(async move {
                    let _gone = client.write_all(poem).await;
                    let _gone = client.shutdown().await;
                });
            }
        })
}
