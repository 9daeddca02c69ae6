//! Small servers as people run them, behind the proxy: programs that answer without
//! reading the request, and netcat in a loop. What is not installed is skipped.

use crate::support::{
    LONG, Process, ServerProcess, Signal, command, long_poem, unused_addr, wait_until,
};
use rustix::process::kill_process_group;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// How many requests each server gets.
const REQUESTS: usize = 50;

/// A server that a shell runs, with all that it starts.
struct ShellServer(Process);

impl ShellServer {
    /// Runs `script` with `$PORT` and `$TEXT`. Nothing of it outlives this process for
    /// more than a minute.
    fn start(script: &str, addr: SocketAddr, text: &Path) -> ShellServer {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).process_group(0);
        shell.env("PORT", addr.port().to_string()).env("TEXT", text);
        shell.env("TESTS", std::process::id().to_string());
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        ShellServer(Process::spawn(shell))
    }
}

impl Drop for ShellServer {
    fn drop(&mut self) {
        let _already_ended = kill_process_group(self.0.pid(), Signal::KILL);
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if !is_there {
        eprintln!("skipped: there is no {program}");
    }
    is_there
}

/// A folder with a text of some packets, which ends in a marker.
fn marked_text() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let poem = [long_poem(5000), b"\nEND\r\n".to_vec()].concat();
    std::fs::write(folder.path().join("text"), &poem).unwrap();
    (folder, poem)
}

fn start_proxy(addr: SocketAddr, flags: &[&str]) -> ServerProcess {
    let addr = addr.to_string();
    let args = [
        &["proxy", "-q", "--port", "0", "--protocol", "line"],
        flags,
        &[&addr],
    ]
    .concat();
    ServerProcess::start_command(command(&args))
}

#[test]
fn programs_that_answer_without_reading_bring_the_whole_by_their_end_marker() {
    let (folder, poem) = marked_text();
    let text = folder.path().join("text");
    for (program, script) in [
        ("busybox", "exec busybox nc -ll -p $PORT -e cat $TEXT"),
        (
            "socat",
            "exec socat -U TCP-LISTEN:$PORT,bind=127.0.0.1,reuseaddr,fork EXEC:\"cat $TEXT\"",
        ),
        (
            "tcpserver",
            "exec tcpserver -RHl0 127.0.0.1 $PORT cat $TEXT",
        ),
    ] {
        if !is_installed(program) {
            continue;
        }
        let addr = unused_addr();
        let _server = ShellServer::start(script, addr, &text);
        wait_until("it listens", || TcpStream::connect(addr).is_ok());

        let proxy = start_proxy(addr, &["--end-marker", r"\nEND\r\n"]);
        for number in 0..REQUESTS {
            let answer = proxy.ask(format!("name {number}\r\n").as_bytes());
            assert!(answer.as_ref() == Ok(&poem), "{program}, request {number}");
        }
    }
}

#[test]
fn a_netcat_in_a_loop_answers_each_client_with_connect_retry() {
    let (folder, poem) = marked_text();
    let text = folder.path().join("text");
    for (program, script) in [
        ("nc.openbsd", "nc.openbsd -N -l 127.0.0.1 $PORT"),
        (
            "nc.traditional",
            "nc.traditional -q 0 -l -s 127.0.0.1 -p $PORT",
        ),
        ("busybox", "busybox nc -l -p $PORT"),
    ] {
        if !is_installed(program) {
            continue;
        }
        let addr = unused_addr();
        let script =
            format!("while kill -0 $TESTS; do timeout --foreground 60 {script} <$TEXT; done");
        let _server = ShellServer::start(&script, addr, &text);

        // Two seconds are for people; a loaded machine may take longer to start it.
        let retry = format!("{}s", LONG.as_secs() / 2);
        let proxy = start_proxy(addr, &["--connect-retry", &retry, "--upstream-conns", "1"]);
        for number in 0..REQUESTS {
            let answer = proxy.ask(format!("name {number}\r\n").as_bytes());
            assert!(answer.as_ref() == Ok(&poem), "{program}, request {number}");
        }
    }
}
