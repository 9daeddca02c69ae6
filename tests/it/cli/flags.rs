//! Arguments: the values that are refused, and what is said of them.

use crate::support::{ServerProcess, command, poetry, run, shell, text, unused_addr};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Holds that `args` are a usage error that says `expected`.
fn assert_usage_error(args: &[&str], expected: &str) {
    let out = poetry(args);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {error}");
    assert!(error.contains(expected), "{args:?}: {error}");
}

#[test]
fn an_address_is_checked_and_the_error_says_what_is_wanted() {
    let cases: [(&[&str], &str); 14] = [
        (
            &["fetch", "70000"],
            "wanted [HOST:]PORT, [IPV6]:PORT or unix:PATH",
        ),
        (
            &["fetch", "http://localhost:10001/"],
            "a scheme like http:// has no place in it; try localhost:10001\n",
        ),
        (
            &["fetch", "[::1]"],
            "no port after the brackets; try [::1]:10000\n",
        ),
        (
            &["fetch", "localhost"],
            "no port given; try localhost:10000\n",
        ),
        (
            &["proxy", "localhost"],
            "no port given; try localhost:10001\n",
        ),
        (&["serve", "-l", "localhost"], "try localhost:10001\n"),
        (&["fetch", "1", "--via", "h"], "try h:11000\n"),
        (&["fetch", "poem.txt"], "a file, not a server; to serve it"),
        (&["serve", "-l", ":80"], "try 0.0.0.0:80 or [::]:80\n"),
        (&["serve", "-l", "*:80"], "try 0.0.0.0:80 or [::]:80\n"),
        (
            &["proxy", "0"],
            "port 0 cannot be connected to; wanted a port from 1 to 65535\n",
        ),
        (&["proxy", "70000"], "unix:PATH, or builtin"),
        (&["fetch", "0"], "port 0 cannot be connected to"),
        (&["transform", "shout", "--listen"], "--listen"),
    ];

    for (args, expected) in cases {
        assert_usage_error(args, expected);
    }
}

#[test]
fn a_number_is_checked_and_the_error_says_what_is_wanted() {
    let cases: [(&[&str], &str); 16] = [
        (
            &["proxy", "--ttl", "soon"],
            "wanted a duration like 500ms, 30s or 2h",
        ),
        (&["proxy", "--ttl", "2"], "no unit given; try 2s or 2h\n"),
        (&["proxy", "--ttl", "-1s"], "must not be negative; wanted"),
        (
            &["proxy", "--capacity", "-1"],
            "must not be negative; wanted",
        ),
        (&["fetch", "--retry", "-1"], "must not be negative; wanted"),
        (
            &["fetch", "--timeout", "2S"],
            "units are written small; try 2s\n",
        ),
        (
            &["proxy", "--ttl", "--whole"],
            "a value is missing before it; wanted",
        ),
        (
            &["proxy", "--max-poem", "99999999999999999999GiB"],
            "wanted a size like 65536, 16MiB or 1GB",
        ),
        (
            &["proxy", "--min-bytes", "x"],
            "<N>': wanted a whole number, 0 or more",
        ),
        (&["proxy", "--upstream-conns", "-1"], "'-1'"),
        (
            &["proxy", "--max-clients", "0"],
            "<N>': wanted a whole number, 1 or more",
        ),
        (&["serve", "--threads", "0"], "1 or more"),
        (&["proxy", "--threads", "257"], "too large; wanted 256 or"),
        (
            &["serve", "--max-clients", "18446744073709551616"],
            "too large; wanted a whole number",
        ),
        (
            &["serve", "--delay", "1s", "--num-bytes", "4294967296"],
            "too large; wanted",
        ),
        (
            &["fetch", "--retry", "often"],
            "<N>': wanted a whole number, 0 or more",
        ),
    ];

    for (args, expected) in cases {
        assert_usage_error(args, expected);
    }
}

#[test]
fn a_name_or_text_is_checked_and_the_error_says_why() {
    let cases: [(&[&str], &str); 11] = [
        (&["proxy", "built-in"], "not an address; try builtin\n"),
        (&["serve", "--num-bytes", "3"], "--delay"),
        (&["fetch", "--ask", "a\nb"], "wanted one line of text"),
        (&["proxy", "--transform", "shuot"], "'shout'"),
        (
            &["proxy", "--transform", "shout,"],
            "a name is missing; wanted names of transformations",
        ),
        (&["transform", ",shout"], "a name is missing"),
        (
            &["transform", "--via", "1", "shout,,number"],
            "a name is missing",
        ),
        (&["transform"], "NAMES"),
        (
            &["proxy", "--reject", ""],
            "it matches every poem, so none would be kept",
        ),
        (
            &["proxy", "--reject", "("],
            "--reject <REGEX>': unclosed group; wanted a regular expression",
        ),
        (&["poem"], "unrecognized subcommand"),
    ];

    for (args, expected) in cases {
        assert_usage_error(args, expected);
    }
}

#[test]
fn an_argument_that_is_not_text_is_a_usage_error() {
    let mut poetry = command(&[]);
    poetry.arg(OsStr::from_bytes(b"\xff"));

    let out = run(poetry);

    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(!error.contains("internal error"), "{error}");
}

#[test]
fn a_proxy_of_itself_is_refused_at_the_start() {
    let port = unused_addr().port();
    let socket = "unix:/tmp/../tmp/p".to_string();
    let at = |host: &str| format!("{host}:{port}");
    let port = port.to_string();

    let itself: [&[&String]; 6] = [
        &[&port, &port],
        &[&at("localhost"), &at("127.0.0.1")],
        &[&at("0.0.0.0"), &unused_addr().to_string(), &at("localhost")],
        &[&at("[::]"), &at("[::1]")],
        &[&port, &at("0.0.0.0")],
        &[&socket, &socket],
    ];
    for addrs in itself {
        let mut args = vec!["proxy", "--listen"];
        args.extend(addrs.iter().map(|addr| addr.as_str()));
        assert_usage_error(&args, "it would wait for itself");
    }

    let upstream = unused_addr().to_string();
    let via = ["--transform", "shout", "--via", &port, &upstream];
    let args = [&["proxy", "--listen", &port], &via[..]].concat();
    assert_usage_error(&args, "it would wait for itself");
}

#[test]
fn a_proxy_may_share_its_port_with_an_upstream_elsewhere() {
    let starts = || {
        let upstream = ServerProcess::start(&["serve", "--listen", "[::1]:0"]);
        let port = upstream.ready.rsplit(':').next().unwrap();

        let listen = format!("127.0.0.1:{port}");
        let args = ["proxy", "--listen", &listen, &format!("[::1]:{port}")];
        ServerProcess::start(&args).ready.ends_with(&listen)
    };

    // Another test may have the port.
    assert!((0..10).any(|_| starts()));
}

#[test]
fn a_proxy_of_itself_on_an_inherited_socket_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();

    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" proxy \"$1\"";
    let mut inheriting = shell(script, &[&addr]);
    inheriting.stdin(OwnedFd::from(socket));
    let out = run(inheriting);

    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(text(&out.stdout), "");
    assert!(error.contains("it would wait for itself"), "{error}");
}
