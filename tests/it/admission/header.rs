//! The PROXY protocol: the client's address is that in the header.

use super::{POEM, refused};
use crate::support::{
    Builder, Client, FakeUpstream, Folder, Process, RESET, ServeParts, ServerProcess, Service,
    count, proxy, serve, unused_addr, wait_for_count, wait_until,
};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 43\r\n";

/// A header of version 2 with this command and family, and these addresses.
fn v2(fields: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &fields[..], &length, rest].concat()
}

/// A header that names 192.0.2.1.
fn v2_tcp() -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 0, 43];
    v2([0x21, 0x11], &addresses)
}

/// A header that names no other client.
fn v2_local() -> Vec<u8> {
    v2([0x20, 0], &[])
}

/// A server of one poem in the line protocol, behind this machine.
fn behind() -> Builder<ServeParts> {
    let builder = serve(&[b"poem"]).line();
    builder.proxy_protocol(&["127.0.0.1"])
}

#[test]
fn a_request_comes_after_the_header_however_its_bytes_are_split() {
    let server = behind().start();
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    for header in [V1.to_vec(), v2_tcp(), v2_local(), unknown] {
        let all = [&header[..], b"0\r\n"].concat();
        assert_eq!(server.ask(&all).unwrap(), b"poem");

        for at in 1..all.len() {
            let mut client = server.connect();
            client.stream.set_nodelay(true).unwrap();
            client.send(&all[..at]);
            client.send(&all[at..]);
            assert_eq!(client.rest().unwrap(), b"poem", "split at {at}");
        }
        let mut client = server.connect();
        client.stream.set_nodelay(true).unwrap();
        for byte in &all {
            client.send(&[*byte]);
        }
        assert_eq!(client.rest().unwrap(), b"poem");
    }
}

#[test]
fn a_peer_without_its_header_is_reset() {
    let server = behind().start();
    let bad: [&[u8]; 5] = [
        b"0\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n0\r\n",
        b"PROXY TCP9 192.0.2.1 198.51.100.1 56324 43\r\n0\r\n",
        &v2([0x21, 0x12], &[0; 12]),
        &[b'P'; 600],
    ];
    for (at, bytes) in (1..).zip(bad) {
        assert_eq!(server.ask(bytes), RESET);
        wait_for_count("failures", &server.stats.failures, at);
    }
    assert_eq!(refused(&server), [0; 3]);

    let mut client = server.connect();
    client.send(&V1[..20]);
    client.half_close();
    assert_eq!(client.rest(), RESET);
    wait_for_count("failures", &server.stats.failures, 6);
    let silent = server.connect();
    silent.half_close();
    wait_for_count("without a request", &server.stats.unasked, 1);
}

#[test]
fn a_peer_that_sends_no_header_is_reset_after_five_seconds() {
    let server = behind().start();
    let mut slow = server.connect();
    slow.send(b"PROX");
    assert_eq!(server.connect().rest(), RESET);
    assert_eq!(slow.rest(), RESET);
    wait_for_count("failures", &server.stats.failures, 2);
}

#[test]
fn the_address_in_the_header_is_the_one_that_is_judged() {
    let builder = behind().deny(&["192.0.2.0/24"]).max_per_address(1);
    let server = builder.client_rate("3/h,burst=3").start();
    for header in [V1, &v2_tcp()] {
        assert_eq!(server.ask(&[header, b"0\r\n"].concat()), RESET);
        let mut split = server.connect();
        split.stream.set_nodelay(true).unwrap();
        split.send(&header[..10]);
        split.send(&header[10..]);
        assert_eq!(split.rest(), RESET, "before its request");
    }
    assert_eq!(refused(&server), [4, 0, 0]);

    let of = |last: u8| format!("PROXY TCP4 198.51.100.{last} 192.0.2.1 1 43\r\n");
    let ask = |last: u8| server.ask(format!("{}0\r\n", of(last)).as_bytes());
    let mut first = server.request(of(1).as_bytes());
    server.wait_for_open(1);
    assert_eq!(ask(1), RESET, "it has one already");
    assert_eq!(ask(2).unwrap(), b"poem");
    first.send(b"0\r\n");
    assert_eq!(first.rest().unwrap(), b"poem");
    assert_eq!(refused(&server), [4, 1, 0]);

    for turn in 0..5 {
        server.wait_for_open(0);
        assert_eq!(ask(3).is_ok(), turn < 3, "{turn}");
    }
    assert_eq!(refused(&server), [4, 1, 2]);
}

#[test]
fn a_local_header_keeps_the_address_of_the_peer() {
    let server = behind().deny(&["127.0.0.1"]).start();
    for header in [v2_local(), b"PROXY UNKNOWN\r\n".to_vec()] {
        let all = [&header[..], b"0\r\n"].concat();
        assert_eq!(server.ask(&all), RESET);
    }
    assert_eq!(server.ask(&[V1, b"0\r\n"].concat()).unwrap(), b"poem");
}

#[test]
fn only_the_named_peers_send_a_header() {
    let builder = serve(&[b"poem"]).line();
    let server = builder.proxy_protocol(&["127.0.0.2"]).start();
    assert_eq!(server.ask(b"0\r\n").unwrap(), b"poem");
    let mut other = Client::connect_from("127.0.0.2", server.addr);
    other.send(&[V1, b"0\r\n"].concat());
    assert_eq!(other.rest().unwrap(), b"poem");
    let named = server.ask(V1).unwrap();
    assert!(named.starts_with(b"sorry, no poem of that name"));
}

/// Clients that have sent these bytes before they are accepted: the one place is taken
/// until then.
fn send_before_accept(service: &Service, bytes: &[u8], clients: usize) -> Vec<Client> {
    let holder = service.connect();
    service.wait_for_open(1);
    let clients = (0..clients).map(|_| service.request(bytes)).collect();
    holder.reset();
    clients
}

#[test]
fn a_hit_whose_header_is_there_makes_no_task() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).proxy_protocol(&["127.0.0.1"]);
    let proxy = builder.max_clients(1).max_per_address(500).start();
    let mut first = proxy.request(V1);
    upstream.accept().send(&POEM).close();
    assert_eq!(first.rest().unwrap(), POEM);
    proxy.wait_for_open(0);

    let tasks = count(&proxy.stats.tasks);
    for mut client in send_before_accept(&proxy, &v2_tcp(), 100) {
        assert_eq!(client.rest().unwrap(), POEM);
    }
    wait_for_count("hits", &proxy.stats.hits, 100);
    assert_eq!(count(&proxy.stats.tasks), tasks + 1, "the holder's alone");

    for mut client in send_before_accept(&proxy, &[V1, b"more"].concat(), 10) {
        assert_eq!(client.rest().unwrap(), POEM);
    }
}

#[test]
fn a_line_whose_header_is_there_makes_no_task() {
    let server = behind().max_clients(1).start();
    let all = [V1, b"0\r\n"].concat();
    for mut client in send_before_accept(&server, &all, 100) {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    wait_for_count("answers", &server.stats.own, 100);
    assert_eq!(count(&server.stats.tasks), 1, "the holder's alone");
}

/// haproxy before this server; `None` if it is not installed.
fn haproxy(server: &ServerProcess, option: &str) -> Option<(Process, SocketAddr)> {
    let mut version = Command::new("haproxy");
    if version.arg("-v").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no haproxy");
        return None;
    }

    let (folder, front) = (Folder::new(), unused_addr());
    let config = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
         listen front\n bind {front}\n server back {} {option}\n",
        server.addr
    );
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", &folder.write("haproxy.cfg", config)]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::spawn(command);
    wait_until("haproxy listens", || Client::try_connect(front).is_ok());
    Some((process, front))
}

#[test]
fn haproxy_names_the_client() {
    for option in ["send-proxy", "send-proxy-v2"] {
        let args = [
            "serve",
            "--port",
            "0",
            "--protocol",
            "line",
            "-v",
            "--proxy-protocol",
            "127.0.0.1",
            "--deny",
            "127.0.0.7",
        ];
        let mut server = ServerProcess::start(&args);
        let log = server.stderr_lines();
        let Some((_haproxy, front)) = haproxy(&server, option) else {
            return;
        };

        let mut client = Client::connect_from("127.0.0.9", front);
        client.send(b"\r\n");
        assert!(!client.rest().unwrap().is_empty());
        let mut lines = log.iter();
        assert!(lines.any(|line| line.starts_with("127.0.0.9:")));

        let mut denied = Client::connect_from("127.0.0.7", front);
        denied.try_send(b"\r\n");
        assert!(denied.part().0.is_empty());
        assert!(lines.any(|line| line.contains("refused a connection from 127.0.0.7")));
    }
}
