//! The line protocol: `serve`, `proxy` and `fetch --ask`, against plain clients like
//! those of finger and whois.

use crate::support::{
    Client, FakeUpstream, Folder, RESET, ServerProcess, Signal, count, poetry, proxy, text,
    wait_for_count, wait_until,
};
use poetry::handler::proxy::KeyFold;

#[test]
fn a_line_names_the_poem_and_an_empty_one_lists_the_names() {
    let server = ServerProcess::start(&["serve", "--port", "0", "--protocol", "line"]);
    let fascination = std::fs::read("poetry/fascination.txt").unwrap();

    assert_eq!(server.ask(b"fascination\r\n").unwrap(), fascination);
    assert_eq!(server.ask(b"fascination\n").unwrap(), fascination);

    let list = text(&server.ask(b"\r\n").unwrap());
    assert!(list.contains("\r\nfascination\r\n"), "{list}");

    let addr = server.addr.to_string();
    let out = poetry(&["fetch", &addr, "--ask", "fascination"]);
    assert_eq!(out.stdout, fascination);
}

#[test]
fn an_unknown_name_is_answered_with_a_sentence() {
    let server = ServerProcess::start(&["serve", "--port", "0", "--protocol", "line"]);

    let names = [
        "nothing",
        "../Cargo",
        "/etc/passwd",
        "fascination.txt",
        "Fascination",
    ];
    for name in names {
        let answer = server.ask(format!("{name}\r\n").as_bytes()).unwrap();
        assert!(text(&answer).starts_with("sorry, "), "{name}");
    }
}

#[test]
fn a_proxy_can_pass_on_an_unknown_name_without_keeping_it() {
    let folder = Folder::new();
    folder.write("known.txt", "a poem");
    let serve = [
        "serve",
        "--port",
        "0",
        "--protocol",
        "line",
        &folder.arg(""),
    ];
    let upstream = ServerProcess::start(&serve);
    let addr = upstream.addr.to_string();
    let proxy = ["proxy", "--port", "0", "--protocol", "line", &addr];
    let reject = ["--reject", "^sorry, no poem"];
    let proxy = ServerProcess::start(&[&proxy[..], &reject].concat());

    assert_eq!(proxy.ask(b"known\n").unwrap(), b"a poem");
    for _ in 0..2 {
        let answer = proxy.ask(b"new\n").unwrap();
        assert!(text(&answer).starts_with("sorry, no poem"));
    }

    folder.write("new.txt", "a new poem");
    upstream.signal(Signal::HUP);
    wait_until("the new poem comes through", || {
        proxy.ask(b"new\n").unwrap() == b"a new poem"
    });
}

#[test]
fn a_poem_that_no_line_can_name_is_left_out_and_logged() {
    let folder = Folder::new();
    for name in ["plain.txt", "two\r\nlines.txt", "bell\x07.txt", "plain.md"] {
        folder.write(name, name);
    }

    let paths = [folder.arg(""), folder.arg("plain.md")];
    let args = [
        "serve",
        "--port",
        "0",
        "--protocol",
        "line",
        &paths[0],
        &paths[1],
    ];
    let mut server = ServerProcess::start(&args);
    assert!(
        server.ready.starts_with("Serving 1 poem on "),
        "{}",
        server.ready
    );
    assert_eq!(server.ask(b"\r\n").unwrap(), b"plain\r\n");
    assert_eq!(server.ask(b"plain\r\n").unwrap(), b"plain.txt");

    let log = server.stop_and_read_log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("left out"))
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    for line in &lines {
        assert!(
            line.starts_with("poetry: ") && !line.contains('\x07'),
            "{log}"
        );
    }
    let doubled = format!(
        "poetry: {}: left out: another poem has the name 'plain'",
        folder.arg("plain.md")
    );
    assert_eq!(lines[2], doubled);
}

#[test]
fn the_line_is_the_key_and_answers_never_mix() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();

    let mut clients = Vec::new();
    for name in 0..20 {
        for ending in ["\r\n", "\n", "\r\n", "\n", "\r\n"] {
            let request = format!("name{name:02}{ending}");
            clients.push((name, proxy.request(request.as_bytes())));
        }
    }
    proxy.wait_for_open(100);

    for _ in 0..20 {
        let (connection, line) = upstream.accept().read(8);
        assert!(line.ends_with(b"\r\n"), "the upstream gets CRLF");
        connection.send(b"about ").send(&line[..6]).close();
    }

    for (name, client) in &mut clients {
        let poem = text(&client.rest().unwrap());
        assert_eq!(poem, format!("about name{name:02}"));
    }
    assert_eq!(upstream.connections(), 20);
}

#[test]
fn a_line_may_end_with_the_clients_half_close() {
    let folder = Folder::new();
    folder.write("root.txt", "at the desk");
    let server = [
        "serve",
        "--port",
        "0",
        "--protocol",
        "line",
        &folder.arg(""),
    ];
    let server = ServerProcess::start(&server);
    let upstream = server.addr.to_string();
    let proxy = ["proxy", "--port", "0", "--protocol", "line", &upstream];
    let proxy = ServerProcess::start(&proxy);

    for line in [&b"root"[..], b"root\r", b"root\r\0", b"root\r\n"] {
        for addr in [server.addr, proxy.addr] {
            let mut client = Client::connect(addr);
            client.send(line);
            client.half_close();
            assert_eq!(client.rest().unwrap(), b"at the desk", "{line:?}");
        }
    }
}

#[test]
fn a_half_close_without_a_byte_is_no_request() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();

    let mut client = proxy.connect();
    client.half_close();
    assert_eq!(client.rest().unwrap(), b"");

    wait_for_count("connections without a request", &proxy.stats.unasked, 1);
    assert_eq!(count(&proxy.stats.failures), 0);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_malformed_line_never_reaches_the_upstream() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();

    for request in [&b"a\x1b[2J\r\n"[..], b"a\0b\n", &[b'x'; 1025], b"a\rb\n"] {
        assert_eq!(proxy.ask(request), RESET);
    }

    assert_eq!(upstream.connections(), 0);
}

#[test]
fn spellings_that_are_folded_share_a_fetch_and_the_first_is_sent() {
    let upstream = FakeUpstream::new();
    let fold = KeyFold {
        case: true,
        space: true,
    };
    let proxy = proxy(&upstream).line().fold(fold).start();
    let mut first = proxy.request(b" Example.COM  A\r\n");
    let (connection, asked) = upstream.accept().read(17);
    assert_eq!(asked, b" Example.COM  A\r\n", "as it was written");

    let mut joined = proxy.request(b"example.com a\n");
    proxy.wait_for_open(2);
    connection.send(b"answer").close();
    assert_eq!(first.rest().unwrap(), b"answer");
    assert_eq!(joined.rest().unwrap(), b"answer");

    for request in [
        "EXAMPLE.COM A\n",
        "example.com a   \n",
        "  eXample.com   a\n",
    ] {
        assert_eq!(proxy.ask(request.as_bytes()).unwrap(), b"answer");
    }
    assert_eq!(upstream.connections(), 1);

    let mut other = proxy.request(b"example.com\ta\n");
    upstream.accept().skip(15).send(b"another").close();
    assert_eq!(other.rest().unwrap(), b"another");
}

#[test]
fn without_a_fold_every_spelling_is_a_request_of_its_own() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();
    for request in [&b"name\n"[..], b"NAME\n", b"name \n"] {
        let mut client = proxy.request(request);
        upstream
            .accept()
            .skip(request.len() + 1)
            .send(request)
            .close();
        assert_eq!(client.rest().unwrap(), request);
    }
}

#[test]
fn keys_are_folded_in_the_line_protocol_only() {
    let out = poetry(&["proxy", "--key-fold", "case"]);
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stderr);
    assert!(
        said.contains("--key-fold can only be used with --protocol line"),
        "{said}"
    );
}
