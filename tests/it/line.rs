//! The line protocol: `serve`, `proxy` and `fetch --ask`, against plain clients of finger's and whois's kind.

use crate::bard::{Bard, Client, Daemon, LIMITS, Running, poetry, settings, text};
use poetry::handler::proxy::ProxySettings;
use poetry::protocol::Protocol;
use std::io::ErrorKind;

fn ask(addr: std::net::SocketAddr, line: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let mut client = Client::connect(addr);
    client.say(line);
    client.rest()
}

fn proxy(bard: &Bard) -> Running {
    Running::proxy_with(
        ProxySettings {
            protocol: Protocol::Line,
            ..settings(bard)
        },
        LIMITS,
    )
}

#[test]
fn a_line_names_the_poem_and_an_empty_one_lists_the_names() {
    let daemon = Daemon::start(&["serve", "--port", "0", "--protocol", "line"]);
    let fascination = std::fs::read("poetry/fascination.txt").unwrap();
    assert_eq!(ask(daemon.addr, b"fascination\r\n").unwrap(), fascination);
    assert_eq!(ask(daemon.addr, b"fascination\n").unwrap(), fascination);
    assert!(text(&ask(daemon.addr, b"\r\n").unwrap()).contains("\r\nfascination\r\n"));
    for trick in [
        "nothing",
        "../Cargo",
        "/etc/passwd",
        "fascination.txt",
        "Fascination",
    ] {
        let answer = text(&ask(daemon.addr, format!("{trick}\r\n").as_bytes()).unwrap());
        assert!(answer.starts_with("sorry, "), "{trick}: {answer}");
    }
    let out = poetry(&["fetch", &daemon.addr.to_string(), "--ask", "fascination"]);
    assert_eq!(out.stdout, fascination);
}

#[test]
fn a_poem_that_cannot_be_asked_for_by_name_is_left_out_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for name in ["plain.txt", "two\r\nlines.txt", "bell\x07.txt", "plain.md"] {
        std::fs::write(path(name), name).unwrap();
    }
    let whole_folder = folder.path().to_str().unwrap();
    let args = [
        "serve",
        "--port",
        "0",
        "--protocol",
        "line",
        whole_folder,
        &path("plain.md"),
    ];
    let mut daemon = Daemon::start(&args);
    assert!(
        daemon.ready.starts_with("Serving 1 poem on "),
        "{}",
        daemon.ready
    );
    assert_eq!(ask(daemon.addr, b"\r\n").unwrap(), b"plain\r\n");
    assert_eq!(ask(daemon.addr, b"plain\r\n").unwrap(), b"plain.txt");
    daemon.signal(rustix::process::Signal::TERM);
    daemon.exit_code();
    let told = daemon.stderr();
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("left out"))
        .collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("poetry: ") && !line.contains('\x07')),
        "{told}"
    );
    assert_eq!(
        lines[2],
        format!(
            "poetry: {}: left out: another poem has the name 'plain'",
            path("plain.md")
        )
    );
}

#[test]
fn the_line_is_the_key_and_answers_are_never_mixed_up() {
    let bard = Bard::new();
    let proxy = proxy(&bard);
    let mut clients = Vec::new();
    for name in 0..20 {
        for ending in ["\r\n", "\n", "\r\n", "\n", "\r\n"] {
            let mut client = proxy.connect();
            client.say(format!("name{name:02}{ending}").as_bytes());
            clients.push((name, client));
        }
    }
    proxy.open(100);
    for _ in 0..20 {
        let (call, line) = bard.call().try_recv(8);
        assert!(line.ends_with(b"\r\n"), "the upstream gets CRLF");
        call.say(b"about ").say(&line[..6]).finish();
    }
    for (name, client) in &mut clients {
        assert_eq!(
            text(&client.rest().unwrap()),
            format!("about name{name:02}")
        );
    }
    assert_eq!(bard.callers(), 20);
}

#[test]
fn what_is_no_line_is_refused_before_the_upstream_hears_of_it() {
    let bard = Bard::new();
    let proxy = proxy(&bard);
    for request in [&b"a\x1b[2J\r\n"[..], b"a\0b\n", &[b'x'; 1025], b"a\rb\n"] {
        assert_eq!(ask(proxy.addr, request), Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(bard.callers(), 0);
}
