//! `transform`: the service against an independent client, and the filter.

use crate::bard::{Bard, LIMITS, Running, command, poetry, text};
use poetry::transform::Registry;
use std::io::Write;
use std::process::Stdio;

fn service() -> Running {
    Running::transform(Registry::default(), LIMITS)
}

fn reply(service: &Running, request: &[u8]) -> Vec<u8> {
    let mut client = service.connect();
    client.say(request);
    client.rest().unwrap()
}

#[test]
fn the_seeds_request_gets_the_seeds_answer() {
    assert_eq!(
        reply(&service(), b"27:cummingsify.HERE IS MY POEM,"),
        b"15:here is my poem,"
    );
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let service = service();
    let mut client = service.connect();
    client.stream.set_nodelay(true).unwrap();
    b"7:shout.a,".iter().for_each(|&byte| client.say(&[byte]));
    assert_eq!(client.rest().unwrap(), b"1:A,");
}

#[test]
fn what_cannot_be_done_is_closed_cleanly_without_a_reply() {
    let service = service();
    for request in [
        &b"5:nodot,"[..],
        b"6:what.x,",
        b"7:shout.\xff,",
        b"05:shout,",
        b"x",
        b"99999999:",
        b"7:shout.ab",
        b"5:a.b",
    ] {
        let mut client = service.connect();
        client.say(request);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            client.rest(),
            Ok(Vec::new()),
            "{:?}",
            String::from_utf8_lossy(request)
        );
    }
}

#[test]
fn an_empty_poem_is_transformed_into_an_empty_poem() {
    assert_eq!(reply(&service(), b"6:shout.,"), b"0:,");
}

#[test]
fn the_filter_reads_stdin_and_writes_stdout() {
    let mut child = command(&["transform", "cummingsify,number"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"A\nB\n").unwrap();
    assert_eq!(
        text(&child.wait_with_output().unwrap().stdout),
        "1  a\n2  b\n"
    );
}

#[test]
fn the_filter_can_have_the_work_done_elsewhere() {
    let bard = Bard::new();
    let addr = bard.addr.to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("poem");
    std::fs::write(&file, "AB").unwrap();
    let working = std::thread::spawn(move || bard.call().try_recv(7).0.say(b"2:ab,").finish());
    let out = poetry(&["transform", "x", file.to_str().unwrap(), "--via", &addr]);
    working.join().unwrap();
    assert_eq!(
        (text(&out.stdout).as_str(), out.status.code()),
        ("ab", Some(0))
    );
}

#[test]
fn an_unknown_name_is_a_usage_error_that_offers_the_nearest() {
    let out = poetry(&["transform", "cumingsify"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("a similar transformation exists: 'cummingsify'"),
        "{}",
        text(&out.stderr)
    );
}
