//! The peers: servers of other projects, found on PATH or built in. Each gets a
//! generated configuration and a port that was free a moment ago.

use super::Server;
use crate::floor::{BACKLOG, listener, print_ready};
use crate::machine::Cores;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// nginx's stream module, answering with `poem`.
pub fn nginx(cores: Cores, folder: &Path, poem: &str) -> io::Result<Server> {
    nginx_with(cores, &folder.join("nginx"), &format!("return '{poem}'"))
}

/// nginx's stream module in front of an upstream.
pub fn nginx_proxy(cores: Cores, folder: &Path, upstream: SocketAddr) -> io::Result<Server> {
    let directive = format!("proxy_pass {upstream}");
    nginx_with(cores, &folder.join("nginx-proxy"), &directive)
}

/// nginx with one stream server. Its single worker is the only process.
fn nginx_with(cores: Cores, prefix: &Path, directive: &str) -> io::Result<Server> {
    let addr = free_addr()?;
    std::fs::create_dir_all(prefix)?;

    let load = stream_module();
    let config = format!(
        "{load} daemon off; master_process off; worker_processes 1;
         pid nginx.pid; error_log /dev/null crit;
         events {{ worker_connections 20000; multi_accept on; }}
         stream {{ server {{ listen {addr} backlog={BACKLOG}; {directive}; }} }}\n"
    );
    std::fs::write(prefix.join("nginx.conf"), config)?;

    let mut command = Command::new(found("nginx")?);
    command
        .arg("-p")
        .arg(prefix)
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

/// HAProxy in TCP mode in front of an upstream, with one thread.
pub fn haproxy(cores: Cores, folder: &Path, upstream: SocketAddr) -> io::Result<Server> {
    let addr = free_addr()?;
    let path = folder.join("haproxy.cfg");
    let config = format!(
        "global\n nbthread 1\n maxconn 1000\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen bench\n bind {addr} backlog {BACKLOG}\n server upstream {upstream}\n"
    );
    std::fs::write(&path, config)?;

    let mut command = Command::new(found("haproxy")?);
    command.arg("-db").arg("-f").arg(&path); // -db: in the foreground
    Server::start_silent(cores, command, addr)
}

/// memcached with one thread and memory to spare.
pub fn memcached(cores: Cores) -> io::Result<Server> {
    let addr = free_addr()?;
    let port = addr.port().to_string();

    let mut command = Command::new(found("memcached")?);
    command
        .args(["-l", "127.0.0.1", "-p", &port, "-U", "0"])
        .args(["-t", "1", "-m", "1024", "-u", "root"]); // -u counts only for root
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
    Server::start(&[cores.server], command)
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
