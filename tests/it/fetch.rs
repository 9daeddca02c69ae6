//! `fetch`: what is printed, and the exit codes. With `-o FILE`: see `file`; for the
//! progress line: `progress`.

mod file;
mod progress;

use crate::support::{
    Connection, FakeUpstream, Process, Signal, command, poetry, run, shell, text, unused_addr,
};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::thread::spawn;

/// What a `fetch` has printed, its errors with `ADDR` for the upstream's address, and
/// its exit code.
type Outcome = (String, String, Option<i32>);

fn outcome(stdout: &str, stderr: &str, code: i32) -> Outcome {
    (stdout.into(), stderr.into(), Some(code))
}

/// Runs `fetch` against an upstream that calls `serve` with its first connection.
fn fetch(args: &[&str], serve: impl FnOnce(Connection) + Send + 'static) -> Outcome {
    let (out, addr) = fetch_output(args, serve);
    let errors = text(&out.stderr).replace(&addr, "ADDR");
    (text(&out.stdout), errors, out.status.code())
}

/// The same; gives the whole output, and the address of the upstream.
fn fetch_output(
    args: &[&str],
    serve: impl FnOnce(Connection) + Send + 'static,
) -> (Output, String) {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();

    let serving = spawn(move || serve(upstream.accept()));
    let out = poetry(&[&["fetch", &addr][..], args].concat());
    serving.join().unwrap();

    (out, addr)
}

#[test]
fn a_whole_poem_is_printed_and_nothing_else() {
    let result = fetch(&[], |connection| connection.send(b"whole\n").close());

    assert_eq!(result, outcome("whole\n", "", 0));
}

#[test]
fn a_reset_half_way_is_56_after_the_first_half() {
    let (stdout, stderr, code) = fetch(&[], |connection| connection.send(b"half").reset());

    assert!("half".starts_with(&stdout), "{stdout}");
    let length = stdout.len();
    let expected =
        format!("poetry: ADDR: cut off after {length} bytes: connection reset by peer\n");
    assert_eq!((stderr, code), (expected, Some(56)));
}

#[test]
fn an_empty_reply_is_52() {
    let result = fetch(&[], |connection| connection.close());

    assert_eq!(result, outcome("", "poetry: ADDR: an empty reply\n", 52));
}

#[test]
fn silence_is_28() {
    let idle = fetch(&["--idle-timeout", "50ms"], Connection::wait_for_hangup);
    let expected = "poetry: ADDR: no reply within 50ms (--idle-timeout)\n";
    assert_eq!(idle, outcome("", expected, 28));

    let total = fetch(&["--timeout", "50ms"], Connection::wait_for_hangup);
    let expected = "poetry: ADDR: not complete within 50ms (--timeout)\n";
    assert_eq!(total, outcome("", expected, 28));
}

#[test]
fn a_poem_over_the_limit_is_63() {
    let serve = |connection: Connection| connection.send(b"fiver").close();
    let (_, stderr, code) = fetch(&["--max-poem", "4"], serve);

    assert_eq!(stderr, "poetry: ADDR: longer than 4 bytes\n");
    assert_eq!(code, Some(63));
}

#[test]
fn a_refused_connection_is_7() {
    let refused = unused_addr().to_string();

    let out = poetry(&["fetch", &refused]);

    let expected = format!("poetry: {refused}: could not connect: connection refused\n");
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(text(&out.stderr), expected);
}

#[test]
fn a_name_that_does_not_resolve_is_6() {
    let out = poetry(&["fetch", "no-such-host.invalid:1"]);

    assert_eq!(out.status.code(), Some(6), "{}", text(&out.stderr));
}

#[test]
fn poems_come_in_the_order_asked_and_the_first_failure_decides() {
    let slow = FakeUpstream::new();
    let fast = FakeUpstream::new();
    let addrs = [slow.addr, unused_addr(), fast.addr].map(|addr| addr.to_string());

    let serving = spawn(move || {
        fast.serve_once(b"second");
        slow.serve_once(b"first ");
    });
    let out = poetry(&["fetch", &addrs[0], &addrs[1], &addrs[2]]);
    serving.join().unwrap();

    assert_eq!(text(&out.stdout), "first second");
    assert_eq!(out.status.code(), Some(7));
}

#[test]
fn a_retry_is_made_while_nothing_has_been_printed() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();

    let serving = spawn(move || {
        upstream.accept().reset();
        upstream.serve_once(b"at last");
    });
    let out = poetry(&["fetch", &addr, "--retry", "2"]);
    serving.join().unwrap();

    let error = text(&out.stderr);
    assert_eq!(text(&out.stdout), "at last");
    assert_eq!(out.status.code(), Some(0));
    assert!(error.ends_with("; retrying in 1s, 1 left\n"), "{error}");
}

#[test]
fn with_few_descriptors_all_servers_are_asked_in_turn() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem\n");

    let args = [&["fetch"], &[addr.as_str(); 1000][..]].concat();
    let out = run(shell("ulimit -n 64; exec \"$0\" \"$@\"", &args));

    assert_eq!(text(&out.stderr), "");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(out.stdout, b"poem\n".repeat(1000));
}

#[test]
fn json_describes_a_whole_poem() {
    let (out, addr) = fetch_output(&["--json"], |connection| connection.send(b"abc").close());

    let object: Value = serde_json::from_slice(&out.stdout).unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(object["address"], addr.as_str());
    assert_eq!(object["outcome"], "whole");
    assert_eq!(object["poem"], "abc");
    assert_eq!(object["bytes"], 3);
    assert_eq!(object["sha256"], sha256);
}

#[test]
fn json_has_base64_for_bytes_that_are_not_text() {
    let (out, _) = fetch_output(&["--json"], |connection| connection.send(b"\xff").close());

    let object: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(object["poem_base64"], "/w==");
    assert_eq!(object.get("poem"), None);
}

#[test]
fn json_describes_a_failure() {
    let (out, _) = fetch_output(&["--json"], |connection| connection.close());

    let object: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(object["outcome"], "empty");
    assert_eq!(out.status.code(), Some(52));
}

#[test]
fn poems_can_be_transformed_on_the_way() {
    let serve = |connection: Connection| connection.send(b"a\nb\n").close();
    let (stdout, _, code) = fetch(&["--transform", "shout,reverse"], serve);

    assert_eq!(stdout, "B\nA\n");
    assert_eq!(code, Some(0));
}

/// An upstream that floods every connection.
fn endless() -> String {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_each(|_, connection| drop(connection.flood()));
    addr
}

#[test]
fn a_closed_stdout_ends_it_quietly() {
    let mut fetch = Process::spawn(command(&["fetch", &endless()]));
    drop(fetch.child.stdout.take());

    let out = fetch.finish();

    assert_eq!(text(&out.stderr), "");
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn a_full_disk_under_stdout_is_23() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut fetch = command(&["fetch", &endless()]);
    fetch.stdout(full.unwrap());

    let out = run(fetch);

    let expected = "poetry: standard output: could not be written: no space left on device\n";
    assert_eq!(out.status.code(), Some(23));
    assert_eq!(text(&out.stderr), expected);
}

#[test]
fn without_a_file_a_signal_ends_it_as_usual() {
    let upstream = FakeUpstream::new();
    let mut fetch = Process::spawn(command(&["fetch", &upstream.addr.to_string()]));
    let connection = upstream.accept().send(b"half");

    assert_eq!(fetch.read_stdout(4), b"half");
    // SIGTERM, because a background shell may have the tests ignore SIGINT.
    fetch.signal(Signal::TERM);

    assert_eq!(fetch.wait().signal(), Some(Signal::TERM.as_raw()));
    drop(connection);
}

#[test]
fn an_end_marker_tells_a_whole_poem_from_a_part() {
    let marked = ["--end-marker", "gopher"];
    let result = fetch(&marked, |connection| {
        connection.send(b"one\r\n.\r\n").reset()
    });
    assert_eq!(result, outcome("one\r\n.\r\n", "", 0));

    let result = fetch(&marked, |connection| connection.send(b"one\r\n").close());
    let expected = "poetry: ADDR: ended before its end marker, after 5 bytes\n";
    assert_eq!(result, outcome("one\r\n", expected, 56));

    let args = ["--end-marker", "gopher", "--json"];
    let (stdout, _, code) = fetch(&args, |connection| connection.send(b"one\r\n").close());
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (object["outcome"].as_str(), code),
        (Some("reset"), Some(56))
    );
}

#[test]
fn an_empty_reply_is_a_poem_where_that_is_allowed() {
    let result = fetch(&["--allow-empty"], |connection| connection.close());
    assert_eq!(result, outcome("", "", 0));
    let (_, _, code) = fetch(&["--allow-empty"], |connection| connection.reset());
    assert_eq!(code, Some(56));

    let args = ["--allow-empty", "--json"];
    let (stdout, _, _) = fetch(&args, |connection| connection.close());
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(object["outcome"], "whole");
    assert_eq!(
        (object["bytes"].as_u64(), object["poem"].as_str()),
        (Some(0), Some(""))
    );
}
