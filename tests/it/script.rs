//! `serve --script`: trouble on demand, and an outage rehearsed with it.

use crate::bard::{Client, Daemon, LONG, poetry, text};
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

fn serve(script: &str) -> Daemon {
    Daemon::start(&[
        "serve",
        "--port",
        "0",
        "--script",
        script,
        "poetry/fascination.txt",
    ])
}

fn poem() -> Vec<u8> {
    std::fs::read("poetry/fascination.txt").unwrap()
}

#[test]
fn each_connection_gets_its_step_and_the_last_one_repeats() {
    let daemon = serve("ok,empty, eof@7 , reset@7,refuse,reset@0,eof@999999,ok");
    let reset = Err(ErrorKind::ConnectionReset);
    for wanted in [
        Ok(poem()),
        Ok(Vec::new()),
        Ok(poem()[..7].to_vec()),
        reset.clone(),
    ] {
        assert_eq!(Client::connect(daemon.addr).rest(), wanted);
    }
    for _ in 0..2 {
        let early = std::net::TcpStream::connect(daemon.addr).map_err(|e| e.kind()); // a reset may overtake it
        assert_eq!(early.and_then(|stream| Client { stream }.rest()), reset);
    }
    for _ in 0..3 {
        assert_eq!(Client::connect(daemon.addr).rest(), Ok(poem()));
    }
}

#[test]
fn a_reset_comes_behind_its_bytes_and_not_before() {
    let daemon = serve("reset@100");
    for _ in 0..20 {
        let mut client = Client::connect(daemon.addr);
        assert_eq!(client.take(100), &poem()[..100]);
        assert_eq!(
            client.stream.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}

#[test]
fn a_stall_says_no_more_and_does_not_hang_up() {
    let daemon = serve("stall@5,stall@0");
    for count in [5, 0] {
        let mut client = Client::connect(daemon.addr);
        client.take(count);
        client
            .stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert_eq!(client.rest(), Err(ErrorKind::WouldBlock));
    }
}

#[test]
fn slow_is_so_many_bytes_a_second() {
    let daemon = serve("slow@2000");
    let begun = Instant::now();
    assert_eq!(Client::connect(daemon.addr).rest(), Ok(poem()));
    assert!(
        begun.elapsed() > Duration::from_secs_f64(poem().len() as f64 / 2000.0 - 0.2),
        "it was not slow"
    );
}

#[test]
fn fetch_tells_each_kind_of_trouble_by_its_exit_code() {
    let daemon = serve("refuse,empty,reset@9,stall@9,ok");
    for code in [56, 52, 56, 28, 0] {
        let out = poetry(&["fetch", "--idle-timeout", "200ms", &daemon.addr.to_string()]);
        assert_eq!(out.status.code(), Some(code), "{}", text(&out.stderr));
    }
}

#[test]
fn what_is_no_step_is_a_usage_error() {
    for (script, told) in [
        ("ok,explode", "no such step"),
        ("reset", "no @N after it"),
        ("slow@0", "stall@0"),
    ] {
        let out = poetry(&["serve", "--script", script]);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains(told), "{}", text(&out.stderr));
    }
}

#[test]
fn an_outage_rehearsed_clients_of_a_proxy_with_grace_notice_nothing() {
    let upstream = serve("ok,refuse,reset@50,empty,eof@50,eof@60,ok");
    let upstream_addr = upstream.addr.to_string();
    let proxy = Daemon::start(&[
        "proxy",
        "--port",
        "0",
        "--ttl",
        "0",
        "--grace",
        "1h",
        &upstream_addr,
    ]);
    let begun = Instant::now();
    let mut last = Vec::new();
    // Every answer is stale and starts the next fetch, until the script is at its end.
    for _ in 0..200 {
        last = Client::connect(proxy.addr).rest().unwrap();
        assert!(last == poem(), "{} bytes", last.len());
    }
    assert!(begun.elapsed() < LONG && !last.is_empty());
}
