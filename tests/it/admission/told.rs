//! What refused clients are told, and that nothing keeps it.

use super::refused;
use crate::support::{
    Client, FakeUpstream, RESET, ServerProcess, Service, count, proxy, serve, text, wait_for_count,
};
use std::io::ErrorKind;
use std::process::Command;

const TEXT: &str = "% Too many requests from {addr}; try again in {seconds} seconds.";

/// Whether this tells a client by its address to come back in an hour, or a little
/// less.
fn is_by_rate(told: &str) -> bool {
    told.contains("% Too many requests from 127.0.0.1; try again in 3")
}

fn assert_is_by_rate(told: &str) {
    assert!(
        is_by_rate(told) && told.ends_with(" seconds.\r\n"),
        "{told}"
    );
}

/// A server that has answered its one client of this hour.
fn exhausted(refusal: &str) -> Service {
    let builder = serve(&[b"poem"]).line().client_rate("1/h");
    let server = builder.refusal(refusal).start();
    assert_eq!(server.ask(b"0\r\n").unwrap(), b"poem");
    server
}

/// What this client is told before the reset.
fn told(mut client: Client) -> String {
    let (part, end) = client.part();
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    text(&part)
}

#[test]
fn a_client_over_its_rate_is_told_when_to_come_back_and_reset() {
    let server = exhausted(TEXT);
    assert_is_by_rate(&told(server.request(b"0\r\n")));
    let mut slow = server.connect();
    slow.send(b"0"); // the rest of its request is not needed
    assert_is_by_rate(&told(slow));
    assert_eq!(refused(&server), [0, 0, 2]);
    assert_eq!(count(&server.stats.failures), 0);
}

#[test]
fn a_client_that_asks_nothing_is_told_all_the_same() {
    let server = exhausted(TEXT);
    assert_is_by_rate(&told(server.connect()));
}

#[test]
fn a_client_with_too_many_connections_is_told_so() {
    let builder = serve(&[b"poem"]).line().max_per_address(1);
    let server = builder.refusal(r"3{addr}\t{seconds}").start();
    let _first = server.connect();
    server.wait_for_open(1);
    assert_eq!(told(server.request(b"0\r\n")), "3127.0.0.1\t1\r\n");
}

#[test]
fn a_client_for_which_the_queue_is_full_is_told_so() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1).upstream_queue(0);
    let proxy = builder.refusal(TEXT).start();
    let _first = proxy.request(b"one\r\n");
    let connection = upstream.accept();

    let words = "% Too many requests from 127.0.0.1; try again in 10 seconds.\r\n";
    assert_eq!(told(proxy.request(b"two\r\n")), words);
    wait_for_count("failures", &proxy.stats.failures, 1);
    let sent = proxy.snapshot().sent.iter().sum::<u64>();
    assert_eq!(sent, words.len() as u64);
    drop(connection);
}

#[test]
fn a_client_whose_fetch_has_failed_is_not_told_of_a_limit() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().refusal(TEXT).start();
    let mut client = proxy.request(b"one\r\n");
    upstream.accept().skip(5).close();
    assert_eq!(client.rest(), RESET);
    wait_for_count("failures", &proxy.stats.failures, 1);
    assert_eq!(proxy.snapshot().sent.iter().sum::<u64>(), 0);
}

#[test]
fn a_denied_client_is_told_nothing() {
    let builder = serve(&[b"poem"]).line().deny(&["127.0.0.2"]);
    let server = builder.refusal(TEXT).start();
    let client = Client::try_connect_from("127.0.0.2", server.addr);
    let part = client.map(|mut client| client.part());
    let bare = (Vec::new(), Err(ErrorKind::ConnectionReset));
    assert_eq!(part.unwrap_or(bare.clone()), bare);
}

#[test]
fn a_poem_has_no_place_for_the_text() {
    let server = serve(&[b"poem"]).client_rate("1/h").refusal(TEXT).start();
    server.get().unwrap();
    assert_eq!(server.get(), RESET);
}

#[test]
fn a_proxy_behind_does_not_keep_the_text() {
    let server = exhausted(TEXT);
    let upstream = FakeUpstream::new(); // a stand-in for the settings
    let behind = proxy(&upstream).line().upstreams(&[server.addr]).start();
    for turn in 1..=3 {
        let mut client = behind.request(b"0\r\n");
        assert_eq!(client.rest(), RESET);
        wait_for_count("failed fetches", &behind.stats.failed_fetches, turn);
    }
    assert_eq!(count(&behind.stats.kept), 0);
}

#[test]
fn of_many_refused_clients_that_wait_some_get_the_reset_alone() {
    let server = exhausted(TEXT);
    let clients = (0..300).map(|_| Client::try_connect_from("127.0.0.1", server.addr));
    let clients: Vec<_> = clients.flatten().collect();
    let mut told = 0;
    for mut client in clients {
        let (part, end) = client.part();
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        told += usize::from(is_by_rate(&text(&part)));
    }
    assert!(told >= 64, "{told}");
    assert_eq!(refused(&server), [0, 0, 300]);
}

/// The program's output, if there is such a program.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output();
    if output.is_err() {
        eprintln!("skipped: there is no {program}");
    }
    let output = output.ok()?;
    Some(text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn whois_nc_and_curl_print_what_they_are_told() {
    let args = [
        "serve",
        "--port",
        "0",
        "--protocol",
        "line",
        "--client-rate",
        "1/h",
        "--refusal",
        TEXT,
    ];
    let server = ServerProcess::start(&args);
    server.ask(b"\r\n").unwrap();
    let port = server.addr.port().to_string();
    let whois = ["-h", "127.0.0.1", "-p", &port, "name"];
    let nc = ["-c", "printf 'name\\r\\n' | nc 127.0.0.1 \"$0\"", &port];
    let curl = ["-s", &format!("gopher://127.0.0.1:{port}/1name")];
    for (program, args) in [("whois", &whois[..]), ("sh", &nc), ("curl", &curl)] {
        if let Some(printed) = run(program, args)
            && !printed.contains("not found")
        {
            assert!(is_by_rate(&printed), "{program}: {printed}");
        }
    }
}
