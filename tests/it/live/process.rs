//! The program as a feed: its signals, its log, its figures.

use crate::support::{FakeUpstream, LONG, ServerProcess, Signal, wait_until};
use std::io::{Read, Write};
use std::sync::mpsc::Receiver;
use std::time::Duration;

fn start(upstream: &FakeUpstream, more: &[&str]) -> ServerProcess {
    let addr = upstream.addr.to_string();
    let args = [&["proxy", "--live", "--listen", "0", &addr], more].concat();
    ServerProcess::start(&args)
}

/// The next line of the log that contains `part`.
fn logged(lines: &Receiver<String>, part: &str) -> String {
    loop {
        let line = lines.recv_timeout(LONG).expect(part);
        if line.contains(part) {
            return line;
        }
    }
}

#[test]
fn the_program_serves_a_feed_until_sigterm() {
    let upstream = FakeUpstream::new();
    let mut process = start(&upstream, &["--replay", "1"]);
    let ready = format!("Proxying the feed of {} on ", upstream.addr);
    assert!(process.ready.starts_with(&ready), "{}", process.ready);

    let source = upstream.accept().send(b"first\n");
    let mut reader = process.connect();
    assert_eq!(reader.line(), "first\n");
    let source = source.send(b"last\nhal");
    assert_eq!(reader.line(), "last\n");
    process.signal(Signal::TERM);
    assert_eq!(
        reader.rest(),
        Ok(Vec::new()),
        "a clean end after a whole line"
    );
    source.wait_for_hangup();
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn an_outage_is_told_once_and_so_is_its_end() {
    let upstream = FakeUpstream::new();
    let mut process = start(&upstream, &[]);
    let log = process.stderr_lines();
    upstream.accept().send(b"one\n").close();
    logged(&log, "the feed ended");
    upstream.accept().close();

    let _source = upstream.accept().send(b"two\n");
    let next = log.recv_timeout(LONG).unwrap();
    assert!(next.contains("answers again"), "{next}");
}

#[test]
fn the_json_log_says_what_a_reader_got_and_lost() {
    let upstream = FakeUpstream::new();
    let mut process = start(&upstream, &["--log-format", "json"]);
    let log = process.stderr_lines();
    let mut source = upstream.accept();
    let reader = process.connect();
    reader.set_patience(Duration::from_millis(100));
    wait_until("it reads", || {
        source.stream.write_all(b"line\n").unwrap();
        (&reader.stream).read(&mut [0; 100]).is_ok()
    });
    drop(reader);

    // What is sent to one that is gone is answered with a reset.
    let feeding = std::thread::spawn(move || {
        while source.stream.write_all(b"line\n").is_ok() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    let line = logged(&log, "\"class\"");
    assert!(line.contains("\"class\":\"collapsed\""), "{line}");
    assert!(line.contains("\"outcome\":\"client_left\""), "{line}");
    assert!(line.contains("\"feed_lost\":0"), "{line}");
    assert!(!line.contains("\"feed_lines\":0"), "{line}");
    drop(process);
    feeding.join().unwrap();
}

#[test]
fn operators_see_the_feed() {
    let upstream = FakeUpstream::new();
    let mut process = start(&upstream, &["--admin", "0"]);
    let admin = process.next_line().unwrap();
    let admin = admin.rsplit(' ').next().unwrap().parse().unwrap();
    let source = upstream.accept().send(b"one\ntwo\n");

    let get = |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = crate::support::Client::ask(admin, request.as_bytes()).unwrap();
        String::from_utf8(answer).unwrap()
    };
    wait_until("two lines", || get("/status").contains("\"lines\":2"));
    let metrics = get("/metrics");
    assert!(metrics.contains("poetry_feed_lines_total 2"), "{metrics}");
    assert!(metrics.contains("poetry_upstream_up{"), "{metrics}");
    let health = get("/health/ready?upstream");
    assert!(health.contains("200 OK"), "{health}");
    drop(source);
    process.stop();
}
