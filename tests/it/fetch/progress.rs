//! The progress line of `fetch`, on a terminal of its own.

use crate::support::{Connection, FakeUpstream, LONG, Process, Signal, command, text};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::Instant;

/// A terminal: what a program prints on it arrives in pieces.
struct Terminal {
    printed: Receiver<Vec<u8>>,
    all: String,
}

impl Terminal {
    /// Makes a new terminal the standard error of `command`.
    fn behind(command: &mut Command) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        unlockpt(&terminal).unwrap();
        let end = ioctl_tiocgptpeer(&terminal, flags).unwrap();
        command.stderr(end).env("TERM", "xterm");

        let (sender, printed) = channel();
        spawn(move || {
            let mut terminal = File::from(terminal);
            let mut piece = [0; 4096];
            // At the end of the last program on it, reading fails.
            while let Ok(count @ 1..) = terminal.read(&mut piece) {
                let _test_is_over = sender.send(piece[..count].to_vec());
            }
        });
        let all = String::new();
        Terminal { printed, all }
    }

    /// Waits until `wanted` is printed.
    fn wait_for(&mut self, wanted: &str) {
        while !self.all.contains(wanted) {
            let piece = self.printed.recv_timeout(LONG);
            self.all += &text(&piece.expect("nothing more is printed"));
        }
    }

    /// All that was printed, once nothing more comes.
    fn rest(mut self) -> String {
        while let Ok(piece) = self.printed.recv_timeout(LONG) {
            self.all += &text(&piece);
        }
        self.all
    }
}

/// A `fetch` of half a poem, with its progress on a terminal.
fn fetch_half(more: &[&str]) -> (Process, Terminal, Connection) {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let mut command = command(&[&["fetch", &addr], more].concat());
    let mut terminal = Terminal::behind(&mut command);
    let started = Instant::now();
    let fetch = Process::spawn(command); // drops this process's end of the terminal

    let connection = upstream.accept().send(&[b'x'; 2048]);
    terminal.wait_for(&format!("from {addr}"));
    assert!(
        started.elapsed().as_secs() >= 1,
        "it appears after a second"
    );
    assert!(terminal.all.contains("2.00 KiB, "), "{:?}", terminal.all);
    assert!(terminal.all.contains("/s, "), "{:?}", terminal.all);
    (fetch, terminal, connection)
}

/// Holds that the last thing printed is the line's removal.
fn assert_taken_away(terminal: Terminal) {
    let printed = terminal.rest();
    assert!(printed.ends_with("\r\u{1b}[2K"), "{printed:?}");
}

#[test]
fn the_progress_line_is_gone_after_the_poem() {
    let (mut fetch, terminal, connection) = fetch_half(&[]);

    connection.close();

    assert_eq!(fetch.exit_code(), Some(0));
    assert_taken_away(terminal);
}

#[test]
fn the_progress_line_is_gone_when_the_output_is_closed() {
    let (mut fetch, terminal, connection) = fetch_half(&[]);

    drop(fetch.child.stdout.take());
    let connection = connection.send(b"more");

    assert_eq!(fetch.exit_code(), Some(0));
    assert_taken_away(terminal);
    drop(connection);
}

#[test]
fn the_progress_line_is_gone_after_a_signal() {
    let (mut fetch, terminal, connection) = fetch_half(&[]);

    fetch.signal(Signal::TERM);

    assert_eq!(fetch.exit_code(), Some(128 + 15));
    assert_taken_away(terminal);
    drop(connection);
}

#[test]
fn an_error_takes_the_place_of_the_progress_line() {
    let (mut fetch, terminal, connection) = fetch_half(&[]);

    connection.reset();

    assert_eq!(fetch.exit_code(), Some(56));
    let printed = terminal.rest();
    let mut lines = printed.split("\r\u{1b}[2K");
    let is_error = |line: &str| line.contains("connection reset by peer\r\n");
    assert!(lines.any(is_error), "{printed:?}");
    assert!(printed.ends_with("\r\u{1b}[2K"), "{printed:?}");
}
