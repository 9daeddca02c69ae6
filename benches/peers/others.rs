//! The peers: servers of other projects, found on PATH or built in.

use super::Server;
use crate::floor::{BACKLOG, listener, print_ready};
use crate::machine::Cores;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// nginx's stream module; its single worker is the only process.
pub fn nginx(cores: Cores, folder: &Path, poem: &str) -> io::Result<Server> {
    let addr = free_addr()?;
    let prefix = folder.join("nginx");
    std::fs::create_dir_all(&prefix)?;

    let load = stream_module();
    let config = format!(
        "{load} daemon off; master_process off; worker_processes 1;
         pid nginx.pid; error_log /dev/null crit;
         events {{ worker_connections 20000; multi_accept on; }}
         stream {{ server {{ listen {addr} backlog={BACKLOG}; return '{poem}'; }} }}\n"
    );
    std::fs::write(prefix.join("nginx.conf"), config)?;

    let mut command = Command::new(found("nginx")?);
    command
        .arg("-p")
        .arg(&prefix)
        .args(["-e", "/dev/null", "-c", "nginx.conf"]);
    Server::start_silent(cores, command, addr)
}

/// The line that loads nginx's stream module, where it is a file of its own.
fn stream_module() -> String {
    let paths = [
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "/usr/lib64/nginx/modules/ngx_stream_module.so",
    ];
    let module = paths.iter().find(|path| Path::new(path).exists());
    module.map_or(String::new(), |path| format!("load_module {path};"))
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

/// The path of an installed program.
pub fn found(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut programs = std::env::split_paths(&path)
        .chain(extra)
        .map(|folder| folder.join(name))
        .filter(|program| program.is_file());

    programs
        .next()
        .ok_or_else(|| io::Error::other(format!("{name} is not installed")))
}

fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// A naive server on tokio's single-threaded runtime: it accepts, and for each
/// connection a task writes, shuts down and drops it.
pub fn run_tokio(poem: &str) -> io::Result<()> {
    let poem: &'static [u8] = std::fs::read(poem)?.leak();
    let listener = listener()?;
    listener.set_nonblocking(true)?;
    print_ready(&listener)?;

    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(serve_tokio(listener.into(), poem))
}

async fn serve_tokio(listener: TcpListener, poem: &'static [u8]) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;

    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            let _gone = client.write_all(poem).await;
            let _gone = client.shutdown().await;
        });
    }
}
