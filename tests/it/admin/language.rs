//! The commands, over each kind of socket.

use crate::support::{
    Client, FakeUpstream, Folder, LONG, Operators, ServerProcess, Service, proxy, read_all,
    wait_until,
};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

fn keeping() -> (Service, Operators) {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start_with(&upstream, b"poem");
    let operators = Operators::healthy(&proxy);
    (proxy, operators)
}

/// What this command gets over TCP, and whether the end is clean.
fn say(addr: SocketAddr, command: &str) -> (String, bool) {
    let mut client = Client::connect(addr);
    client.try_send(format!("{command}\r\n").as_bytes());
    read_all(&mut client.stream)
}

#[test]
fn a_unix_socket_takes_every_command() {
    let (proxy, operators) = keeping();
    let (status, is_clean) = operators.unix(b"status\n");
    assert!(
        status.starts_with("state         ok\n") && is_clean,
        "{status}"
    );
    for (command, answer) in [
        ("ready\n", "ready\n"),
        ("live\r\n", "live\n"),
        ("flights\n", "no fetches\n"),
        ("notices\n", "no notices\n"),
        ("purge --all\n", "purged 1 answer\n"),
        ("purge --all\n", "purged 0 answers\n"),
    ] {
        let said = operators.unix(command.as_bytes());
        assert_eq!(said, (answer.to_string(), true), "{command}");
    }
    assert!(proxy.get_at(std::time::Instant::now()).is_miss());

    let (help, _) = operators.unix(b"help\n");
    assert!(help.contains("purge --prefix P"), "{help}");
}

#[test]
fn over_tcp_commands_change_nothing() {
    let (proxy, operators) = keeping();
    let refusal = ("only over a unix socket\n".to_string(), false);
    for command in ["purge ", "purge --all", "purge --prefix p", "refresh "] {
        assert_eq!(say(operators.loopback, command), refusal, "{command}");
        assert_eq!(say(operators.elsewhere, command), refusal, "{command}");
    }
    assert!(proxy.get_at(std::time::Instant::now()).is_hit());

    assert_eq!(say(operators.loopback, "live"), ("live\n".into(), true));
    assert!(say(operators.loopback, "status").1);
    assert_eq!(say(operators.elsewhere, "live"), ("live\n".into(), true));
    for command in ["status", "keys", "flights", "top", "log"] {
        assert_eq!(say(operators.elsewhere, command), refusal, "{command}");
    }
}

#[test]
fn what_is_no_command_is_refused_with_a_reset() {
    let (_proxy, operators) = keeping();
    let refusal = "no such command: GET; try help\n".to_string();
    assert_eq!(operators.unix(b"GET /\r\n"), (refusal.clone(), false));
    assert_eq!(say(operators.loopback, "GET /"), (refusal, false));

    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut client = Client::connect(operators.loopback);
    client.send(hello);
    assert_eq!(read_all(&mut client.stream), (String::new(), false), "TLS");
}

#[test]
fn a_command_may_end_with_the_connection() {
    let (_proxy, operators) = keeping();
    let mut client = Client::connect(operators.loopback);
    client.send(b"rea");
    client.send(b"dy");
    client.half_close();
    assert_eq!(read_all(&mut client.stream), ("ready\n".into(), true));
}

#[test]
fn four_may_watch_at_a_time() {
    let (_proxy, operators) = keeping();
    let watch = || {
        let mut client = Client::connect(operators.loopback);
        client.send(b"top\n");
        let frame = client.read(20);
        (client, frame)
    };
    let watching: Vec<_> = (0..4).map(|_| watch()).collect();
    for (_, frame) in &watching {
        assert!(frame.starts_with(b"\x1b["), "{frame:?}");
    }

    let full = ("too many are watching already\n".to_string(), false);
    assert_eq!(say(operators.loopback, "top"), full);
    drop(watching);
    wait_until("a place is free", || {
        let mut client = Client::connect(operators.loopback);
        client.send(b"top\n");
        let mut first = [0; 1];
        std::io::Read::read(&mut client.stream, &mut first).unwrap();
        first == *b"\x1b"
    });
}

#[test]
fn requests_and_hot_keys_are_shown_as_they_come() {
    let folder = Folder::new();
    let addr = format!("unix:{}", folder.arg("admin"));
    let server = ServerProcess::start(&["serve", "-l", "0", "--admin", &addr]);
    let watch = |command: &str| {
        let mut stream = UnixStream::connect(folder.path("admin")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        BufReader::new(stream)
    };
    let (mut log, mut failures, mut keys) =
        (watch("log own"), watch("log failure"), watch("top keys"));
    let until = |lines: &mut BufReader<UnixStream>, part: &str| {
        wait_until(part, || {
            server.get().unwrap(); // it may come before the watch has begun
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            line.contains(part)
        });
    };

    until(&mut log, "\"class\":\"own\"");
    until(&mut keys, "requests in ");
    let mut line = String::new();
    failures.read_line(&mut line).unwrap();
    assert_eq!(
        line, "\n",
        "nothing failed, and the connection is known to be open"
    );
}
