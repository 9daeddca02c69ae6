//! The program itself, run to its end or as a server, and what the kernel says of it.

use super::{Client, LONG, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_poetry");

/// Runs the program to its end.
pub fn poetry(args: &[&str]) -> Output {
    run(command(args))
}

/// Runs `command` to its end.
pub fn run(command: Command) -> Output {
    Process::spawn(command).finish()
}

/// The program with its output in pipes, and nothing on its standard input.
pub fn command(args: &[&str]) -> Command {
    piped(Command::new(PROGRAM), args)
}

/// A shell with `script`, where `"$0"` is the program and `"$@"` are its arguments.
pub fn shell(script: &str, args: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, PROGRAM]);
    piped(shell, args)
}

fn piped(mut command: Command, args: &[&str]) -> Command {
    command.args(args).env_remove("NO_COLOR");
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running program; killed when dropped.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn spawn(mut command: Command) -> Process {
        let child = command.spawn().unwrap();
        Process { child }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for its end; `None` where a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.wait().code()
    }

    /// Waits for its end, and gives what it has printed.
    pub fn finish(mut self) -> Output {
        let stdout = self.child.stdout.take().map(read_all);
        let stderr = self.child.stderr.take().map(read_all);
        let status = self.wait();

        let end = |output: Receiver<Vec<u8>>| {
            let bytes = output.recv_timeout(LONG);
            bytes.expect("the output does not end")
        };
        Output {
            status,
            stdout: stdout.map(end).unwrap_or_default(),
            stderr: stderr.map(end).unwrap_or_default(),
        }
    }

    /// Writes `bytes` to its standard input, and closes it.
    pub fn write_stdin(&mut self, bytes: &'static [u8]) {
        let mut stdin = self.child.stdin.take().unwrap();
        let written = on_thread(move || stdin.write_all(bytes));
        written
            .recv_timeout(LONG)
            .expect("the input is not read")
            .unwrap();
    }

    /// Reads exactly `count` bytes of its standard output.
    pub fn read_stdout(&mut self, count: usize) -> Vec<u8> {
        let mut stdout = self.child.stdout.take().unwrap();
        let read = on_thread(move || {
            let mut bytes = vec![0; count];
            stdout.read_exact(&mut bytes).map(|()| (bytes, stdout))
        });

        let read = read.recv_timeout(LONG).expect("nothing is printed");
        let (bytes, stdout) = read.unwrap();
        self.child.stdout = Some(stdout);
        bytes
    }

    /// What it logs from now on, line by line.
    pub fn stderr_lines(&mut self) -> Receiver<String> {
        lines(self.child.stderr.take().unwrap())
    }

    /// All that it has logged, once it has ended.
    pub fn stderr(&mut self) -> String {
        let log = read_all(self.child.stderr.take().unwrap());
        text(&log.recv_timeout(LONG).expect("the log does not end"))
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// The memory it has written to that no file backs, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// The most memory it has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();

        let kibibytes = line.split_whitespace().next().unwrap();
        kibibytes.parse::<u64>().unwrap() << 10
    }

    /// The processor time it has used; Linux counts it in hundredths of a second.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();

        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Stops it (SIGSTOP), and waits until it stands still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait_until("the process stands still", || {
            let stat = self.proc("stat");
            stat.rsplit(") ").next().unwrap().starts_with('T')
        });
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The program as a server that is ready.
pub struct ServerProcess {
    process: Process,
    /// The line that says what it serves, and where.
    pub ready: String,
    /// The address at the end of that line, where it is one of TCP's.
    pub addr: SocketAddr,
    stdout: Receiver<String>,
}

impl ServerProcess {
    pub fn start(args: &[&str]) -> ServerProcess {
        ServerProcess::start_command(command(args))
    }

    /// Starts it with at most `most` descriptors.
    pub fn start_with_descriptors(most: u32, args: &[&str]) -> ServerProcess {
        let script = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        ServerProcess::start_command(shell(&script, args))
    }

    pub fn start_command(command: Command) -> ServerProcess {
        let mut process = Process::spawn(command);
        let stdout = lines(process.child.stdout.take().unwrap());
        let ready = stdout.recv_timeout(LONG).unwrap_or_default();

        let addr = ready.rsplit(' ').next().unwrap_or("").parse();
        ServerProcess {
            process,
            addr: addr.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            ready,
            stdout,
        }
    }

    /// The next line on its standard output, if one comes.
    pub fn next_line(&self) -> Option<String> {
        self.stdout.recv_timeout(LONG).ok()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// [`Client::get`].
    pub fn get(&self) -> Result<Vec<u8>, ErrorKind> {
        Client::get(self.addr)
    }

    /// [`Client::ask`].
    pub fn ask(&self, request: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        Client::ask(self.addr, request)
    }

    /// Stops it (SIGTERM), and waits for an orderly end.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code(), Some(0));
    }

    /// Stops it, and gives all that it has logged.
    pub fn stop_and_read_log(&mut self) -> String {
        self.stop();
        self.stderr()
    }
}

impl Deref for ServerProcess {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for ServerProcess {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Reads `pipe` line by line on a thread, for as long as the lines are wanted.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    spawn(move || {
        let mut lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.try_for_each(|line| sender.send(line))
    });
    receiver
}

/// Reads `pipe` to its end on a thread.
fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    on_thread(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

/// Calls `work`, which may block, on a thread: its result is waited for with a
/// deadline.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, result) = channel();
    spawn(move || {
        let _deadline_passed = sender.send(work());
    });
    result
}
