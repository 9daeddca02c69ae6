//! `serve --script`: failures on demand, and an outage rehearsed with it.

use crate::support::{LONG, RESET, ServerProcess, poetry, text};
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

fn serve(script: &str) -> ServerProcess {
    let poem = "poetry/fascination.txt";
    ServerProcess::start(&["serve", "--port", "0", "--script", script, poem])
}

fn poem() -> Vec<u8> {
    std::fs::read("poetry/fascination.txt").unwrap()
}

#[test]
fn each_connection_gets_its_step_and_the_last_one_repeats() {
    let server = serve("ok,empty, eof@7 , reset@7,refuse,reset@0,eof@999999,ok");

    assert_eq!(server.get(), Ok(poem()));
    assert_eq!(server.get(), Ok(Vec::new()));
    assert_eq!(server.get(), Ok(poem()[..7].to_vec()));
    for _ in ["reset@7", "refuse", "reset@0"] {
        assert_eq!(server.get(), RESET);
    }

    for _ in ["eof@999999", "ok", "ok again"] {
        assert_eq!(server.get(), Ok(poem()));
    }
}

#[test]
fn a_reset_comes_after_its_bytes_and_not_before() {
    let server = serve("reset@100");

    for _ in 0..20 {
        let mut client = server.connect();
        assert_eq!(client.read(100), &poem()[..100]);

        let error = client.stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_stall_sends_no_more_and_does_not_hang_up() {
    let server = serve("stall@5,stall@0");

    for count in [5, 0] {
        let mut client = server.connect();
        client.read(count);

        client.set_patience(Duration::from_millis(100));
        assert_eq!(client.rest(), Err(ErrorKind::WouldBlock));
    }
}

#[test]
fn slow_sends_its_number_of_bytes_a_second() {
    let server = serve("slow@2000");

    let started = Instant::now();
    assert_eq!(server.get(), Ok(poem()));

    let least = Duration::from_secs_f64(poem().len() as f64 / 2000.0 - 0.2);
    assert!(started.elapsed() > least, "it was not slow");
}

#[test]
fn fetch_has_an_exit_code_for_each_kind_of_failure() {
    let server = serve("refuse,empty,reset@9,stall@9,ok");
    let addr = server.addr.to_string();

    for code in [56, 52, 56, 28, 0] {
        let out = poetry(&["fetch", "--idle-timeout", "200ms", &addr]);
        assert_eq!(out.status.code(), Some(code), "{}", text(&out.stderr));
    }
}

#[test]
fn an_unknown_step_is_a_usage_error() {
    let cases = [
        ("ok,explode", "no such step"),
        ("reset", "no @N after it"),
        ("slow@0", "stall@0"),
    ];
    for (script, expected) in cases {
        let out = poetry(&["serve", "--script", script]);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn clients_of_a_proxy_with_grace_notice_no_outage() {
    let upstream = serve("ok,refuse,reset@50,empty,eof@50,eof@60,ok");
    let addr = upstream.addr.to_string();
    let args = ["proxy", "--port", "0", "--ttl", "0", "--grace", "1h", &addr];
    let proxy = ServerProcess::start(&args);

    let started = Instant::now();
    // Every answer is stale and starts the next fetch, until the script is at its end.
    for _ in 0..200 {
        let last = proxy.get().unwrap();
        assert!(last == poem(), "{} bytes", last.len());
    }
    assert!(started.elapsed() < LONG);
}
