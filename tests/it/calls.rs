//! What a miss costs, in system calls: they are counted by `strace`, where that is
//! installed and allowed. They don't depend on the machine's speed, as times do.

use crate::support::{Client, FakeUpstream, ServerProcess};
use crate::support::{Folder, Process, Signal};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

/// The most calls of a miss while others run. It took 70 once, 13 of them to wake
/// threads.
const MOST: u64 = 35;
const CLIENTS: usize = 16;
const EACH: usize = 20;

#[test]
fn a_miss_takes_few_system_calls() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_each(|_, connection| connection.skip(7).send(&[b'x'; 700]).close());
    let args = [
        "proxy",
        "--port",
        "0",
        "--protocol",
        "line",
        "--ttl",
        "0s",
        "-q",
        &addr,
    ];
    let proxy = ServerProcess::start(&args);
    assert_eq!(proxy.ask(b"aa-00\r\n").unwrap().len(), 700);

    let Some(tracer) = Tracer::attach(&proxy) else {
        eprintln!("skipped: there is no strace, or it may not trace");
        return;
    };
    let addr = proxy.addr;
    let clients = (0..CLIENTS).map(|client| {
        thread::spawn(move || {
            for at in 0..EACH {
                let key = format!("{client:02}-{at:02}\r\n");
                assert_eq!(Client::ask(addr, key.as_bytes()).unwrap().len(), 700);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());

    let calls = tracer.calls();
    let misses = (CLIENTS * EACH) as u64;
    assert!(calls <= MOST * misses, "{} for each miss", calls / misses);
}

/// Counts the system calls of a process's main thread, which does all the work. What
/// other threads do beside it depends on how long a test takes.
struct Tracer {
    strace: Child,
    folder: Folder,
}

impl Tracer {
    /// Returns once every call counts; `None` if there is no strace, or it may not
    /// trace.
    fn attach(process: &Process) -> Option<Tracer> {
        let folder = Folder::new();
        let pid = process.pid().as_raw_nonzero().to_string();
        let strace = Command::new("strace")
            .args(["-c", "-o", &folder.arg("calls"), "-p", &pid])
            .stderr(Stdio::piped())
            .spawn();
        let mut strace = strace.ok()?;

        let mut said = String::new();
        let stderr = strace.stderr.take().unwrap();
        let mut stderr = BufReader::new(stderr);
        stderr.read_line(&mut said).unwrap();
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        if said.contains("attached") {
            return Some(Tracer { strace, folder });
        }

        strace.wait().unwrap();
        None
    }

    /// The number of calls until now.
    fn calls(mut self) -> u64 {
        let pid = rustix::process::Pid::from_child(&self.strace);
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        self.strace.wait().unwrap();

        let table = self.folder.read("calls");
        println!("{table}");
        // Before a close, std looks at the descriptor in debug builds only.
        number(&table, "total") - number(&table, "fcntl")
    }
}

/// The number of calls in the row of this name; 0 without a row.
fn number(table: &str, name: &str) -> u64 {
    let row = table.lines().find(|line| line.ends_with(name));
    let calls = row.and_then(|row| row.split_whitespace().nth(3));
    calls.map_or(0, |calls| calls.parse().unwrap())
}
