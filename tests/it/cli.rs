//! The program as people and scripts meet it.

use crate::bard::{Bard, Call, Client, Daemon, command, poetry, text};
use rustix::process::Signal;
use std::io::ErrorKind;

#[test]
fn the_ready_line_ends_in_the_real_port_and_a_signal_ends_it_with_0() {
    for (args, doing) in [
        (
            &["serve", "--port", "0", "poetry/fascination.txt"][..],
            "Serving 1 poem on 127.0.0.1:",
        ),
        (&["serve", "--port", "0"], "Serving 12 poems on 127.0.0.1:"),
        (
            &["proxy", "--port", "0", "10001"],
            "Proxying 127.0.0.1:10001 on 127.0.0.1:",
        ),
        (
            &["proxy", "builtin", "--port", "0"],
            "Proxying builtin on 127.0.0.1:",
        ),
        (&["transform", "--port", "0"], "Transforming on 127.0.0.1:"),
    ] {
        let mut daemon = Daemon::start(args);
        assert!(
            daemon.ready.starts_with(doing),
            "{args:?}: {}",
            daemon.ready
        );
        assert_ne!(daemon.addr.port(), 0);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.exit_code(), Some(0), "{args:?}");
    }
}

#[test]
fn several_addresses_have_a_ready_line_each() {
    let mut child = command(&["serve", "--port", "0", "--listen", "[::1]:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let ready: Vec<String> = lines.by_ref().take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        ready[0].contains(" on 127.0.0.1:") && ready[1].contains(" on [::1]:"),
        "{ready:?}"
    );
}

#[test]
fn an_address_in_use_is_said_in_one_line() {
    let daemon = Daemon::start(&["serve", "--port", "0"]);
    let addr = daemon.addr.to_string();
    let out = poetry(&["serve", "--listen", &addr]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        format!("poetry: {addr}: could not listen: address already in use\n")
    );
}

#[test]
fn a_file_that_is_not_there_is_said_in_one_line() {
    let out = poetry(&["serve", "--port", "0", "no/such/poem"]);
    assert_eq!(
        (out.status.code(), text(&out.stdout).as_str()),
        (Some(1), "")
    );
    assert_eq!(
        text(&out.stderr),
        "poetry: no/such/poem: no such file or directory\n"
    );
}

#[test]
fn usage_errors_quote_the_value_and_say_what_is_wanted() {
    for (args, told) in [
        (
            &["proxy", "--ttl", "soon"][..],
            "wanted a duration like 500ms, 30s or 2h",
        ),
        (
            &["proxy", "--max-poem", "99999999999999999999GiB"],
            "wanted a size like 65536, 16MiB or 1GB",
        ),
        (
            &["fetch", "http://x"],
            "wanted [HOST:]PORT, [IPV6]:PORT or unix:PATH",
        ),
        (
            &["fetch", "http://localhost:10001/"],
            "a scheme like http:// has no place in it; wanted [HOST:]PORT",
        ),
        (&["fetch", "[::1]"], "no port after the brackets; wanted"),
        (
            &["proxy", "0"],
            "port 0 cannot be connected to; wanted a port from 1 to 65535\n",
        ),
        (&["proxy", "built-in"], "unix:PATH, or builtin"),
        (&["fetch", "0"], "port 0 cannot be connected to"),
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
        (&["transform", "shout", "--listen"], "--listen"),
        (
            &["proxy", "--reject", ""],
            "it matches every poem, so none would be kept",
        ),
        (
            &["proxy", "--reject", "("],
            "--reject <REGEX>': unclosed group; wanted a regular expression",
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
        (&["poem"], "unrecognized subcommand"),
    ] {
        let out = poetry(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(
            text(&out.stderr).contains(told),
            "{args:?}: {}",
            text(&out.stderr)
        );
    }
}

#[test]
fn a_proxy_of_itself_is_refused_at_the_start() {
    for args in [
        &["proxy", "--listen", "10077", "10077"][..],
        &["proxy", "--listen", "localhost:10077", "127.0.0.1:10077"],
        &[
            "proxy",
            "--listen",
            "0.0.0.0:10077",
            "10001",
            "localhost:10077",
        ],
        &["proxy", "--listen", "[::]:10077", "127.0.0.1:10077"],
        &["proxy", "--listen", "10077", "0.0.0.0:10077"],
        &[
            "proxy",
            "--listen",
            "unix:/tmp/../tmp/p",
            "unix:/tmp/../tmp/p",
        ],
        &[
            "proxy",
            "--listen",
            "10077",
            "--transform",
            "shout",
            "--via",
            "10077",
            "10001",
        ],
    ] {
        let out = poetry(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(
            text(&out.stderr).contains("it would wait for itself"),
            "{args:?}: {}",
            text(&out.stderr)
        );
    }
}

#[test]
fn a_proxy_of_another_address_with_the_same_port_is_none_of_itself() {
    let proxied = || {
        let other = Daemon::start(&["serve", "--listen", "[::1]:0"]);
        let port = other.ready.rsplit(':').next().unwrap();
        let listen = format!("127.0.0.1:{port}");
        let daemon = Daemon::start(&["proxy", "--listen", &listen, &format!("[::1]:{port}")]);
        daemon.ready.ends_with(&listen)
    };
    assert!(
        (0..10).any(|_| proxied()),
        "and not each time because another test has the port"
    );
}

#[test]
fn a_proxy_of_itself_is_refused_also_where_a_service_manager_opened_its_socket() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" proxy \"$1\"";
    let out = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_poetry"), &addr])
        .stdin(std::os::fd::OwnedFd::from(socket))
        .output()
        .unwrap();
    assert_eq!(
        (out.status.code(), text(&out.stdout).as_str()),
        (Some(2), "")
    );
    assert!(
        text(&out.stderr).contains("it would wait for itself"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn an_argument_that_is_no_text_is_a_usage_error_and_no_panic() {
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    let out = command(&[]).arg(odd).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(
        !text(&out.stderr).contains("internal error"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn options_can_come_from_the_environment() {
    let mut serve = command(&["serve"]);
    serve.env("POEM_SERVE_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start_command(serve);
    assert_ne!(daemon.addr.port(), 0);
    let out = command(&["fetch", "1"])
        .env("POEM_FETCH_QUIET", "1")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(7));
    let out = command(&["fetch", "1"])
        .env("POEM_FETCH_MAX_POEM", "none")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
}

/// The program with these variables.
fn with_variables(variables: &[(&str, &str)], args: &[&str]) -> std::process::Command {
    let mut command = command(args);
    command.envs(variables.iter().copied());
    command
}

#[test]
fn the_command_line_wins_over_a_variable_that_it_excludes_or_that_needs_an_option() {
    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    for (variables, args) in [
        (&[("POEM_SERVE_DELAY", "1h")][..], &["--script", "ok"][..]),
        (
            &[("POEM_SERVE_SCRIPT", "empty")],
            &["--delay", "1ms", "--num-bytes", "1000"],
        ),
        (&[("POEM_SERVE_NUM_BYTES", "5")], &[]),
        (
            &[("POEM_SERVE_NUM_BYTES", "5"), ("POEM_SERVE_DELAY", "1h")],
            &["--script", "ok"],
        ),
        (
            &[("POEM_SERVE_QUIET", "no"), ("POEM_SERVE_VERBOSE", "yes")],
            &[],
        ),
    ] {
        let args = [&["serve", "--port", "0", "poetry/furuike.txt"], args].concat();
        let daemon = Daemon::start_command(with_variables(variables, &args));
        assert_eq!(
            Client::connect(daemon.addr).rest().as_ref(),
            Ok(&poem),
            "{variables:?} {args:?}"
        );
    }
    for (variables, args) in [
        (
            &[
                ("POEM_PROXY_VIA", "1"),
                ("POEM_PROXY_ON_TRANSFORM_FAILURE", "original"),
            ][..],
            &["builtin"][..],
        ),
        (&[("POEM_PROXY_PROTOCOL", "line")], &["builtin"]),
        (
            &[("POEM_PROXY_TRANSFORM", "shout")],
            &["--protocol", "netstring", "1"],
        ),
    ] {
        let args = [&["proxy", "--port", "0"], args].concat();
        let daemon = Daemon::start_command(with_variables(variables, &args));
        assert!(
            daemon.ready.starts_with("Proxying "),
            "{variables:?} {args:?}"
        );
    }
    let filter = [("POEM_TRANSFORM_LISTEN", "0")];
    let out = with_variables(&filter, &["transform", "shout", "poetry/furuike.txt"])
        .output()
        .unwrap();
    assert_eq!(
        (out.status.code(), text(&out.stderr).as_str()),
        (Some(0), "")
    );
    let out = with_variables(&[("POEM_FETCH_VIA", "1")], &["fetch", "1"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(7), "{}", text(&out.stderr));
}

#[test]
fn verbose_on_the_command_line_wins_over_quiet_in_a_variable_wherever_it_stands() {
    for args in [
        ["-v", "serve", "--port", "0"],
        ["serve", "-v", "--port", "0"],
    ] {
        let mut daemon = Daemon::start_command(with_variables(&[("POEM_SERVE_QUIET", "1")], &args));
        Client::connect(daemon.addr).rest().unwrap();
        daemon.signal(Signal::TERM);
        daemon.exit_code();
        assert!(daemon.stderr().contains(" bytes, whole"), "{args:?}");
    }
}

#[test]
fn what_is_wrong_with_a_variable_names_it() {
    for (variables, args, told) in [
        (
            &[("POEM_FETCH_MAX_POEM", "none")][..],
            &["fetch", "1"][..],
            "'none' for 'POEM_FETCH_MAX_POEM'",
        ),
        (
            &[("POEM_SERVE_PICK", "all")],
            &["serve"],
            "'all' for 'POEM_SERVE_PICK'",
        ),
        (
            &[("POEM_SERVE_QUIET", "perhaps")],
            &["serve"],
            "'perhaps' for 'POEM_SERVE_QUIET'",
        ),
        (
            &[("POEM_SERVE_QUIET", "1"), ("POEM_SERVE_VERBOSE", "1")],
            &["serve"],
            "the variable POEM_SERVE_QUIET cannot be used with POEM_SERVE_VERBOSE",
        ),
        (
            &[("POEM_SERVE_SCRIPT", "ok"), ("POEM_SERVE_DELAY", "1s")],
            &["serve"],
            "the variable POEM_SERVE_DELAY cannot be used with POEM_SERVE_SCRIPT",
        ),
        (
            &[
                ("POEM_PROXY_TRANSFORM", "shout"),
                ("POEM_PROXY_PROTOCOL", "netstring"),
            ],
            &["proxy"],
            "the variable POEM_PROXY_TRANSFORM cannot be used with POEM_PROXY_PROTOCOL",
        ),
        (
            &[("POEM_PROXY_TRANSFORM", "shuot")],
            &["proxy"],
            "POEM_PROXY_TRANSFORM: unknown transformation 'shuot'",
        ),
        (
            &[("POEM_PROXY_REJECT", "")],
            &["proxy"],
            "'' for 'POEM_PROXY_REJECT': it matches every poem",
        ),
        (
            &[("POEM_FETCH_VIA", "1")],
            &["fetch", "--max-poem", "none", "1"],
            "'none' for '--max-poem <SIZE>'",
        ),
        (
            &[("POEM_TRANSFORM_VIA", "1")],
            &["transform"],
            "required arguments were not provided",
        ),
    ] {
        let out = with_variables(variables, args).output().unwrap();
        assert_eq!(
            (out.status.code(), text(&out.stdout).as_str()),
            (Some(2), ""),
            "{variables:?}"
        );
        assert!(
            text(&out.stderr).contains(told),
            "{variables:?}: {}",
            text(&out.stderr)
        );
    }
    let out = with_variables(&[("POEM_FETCH_MAX_POEM", "none")], &["fetch", "--help"])
        .output()
        .unwrap();
    assert!(out.status.success() && text(&out.stdout).contains("[env: POEM_FETCH_MAX_POEM]"));
}

#[test]
fn a_person_is_told_when_the_proxy_fetches_and_when_it_uses_the_cached_poem() {
    let bard = Bard::new();
    let upstream = bard.addr.to_string();
    bard.trickle(b"poem");
    let mut daemon = Daemon::start(&["proxy", "--port", "0", &upstream]);
    for _ in 0..20 {
        assert_eq!(Client::connect(daemon.addr).rest().unwrap(), b"poem");
    }
    daemon.signal(Signal::TERM);
    daemon.exit_code();
    let told = daemon.stderr();
    assert!(
        told.starts_with(&format!("fetching a poem from {upstream}\n")),
        "{told}"
    );
    assert!(told.contains("using the cached poem\n"), "{told}");
    assert!(
        told.lines().count() < 10 && told.contains(" more within a second)"),
        "repeats are folded: {told}"
    );
}

#[test]
fn the_json_log_is_one_object_a_request() {
    let bard = Bard::new();
    let upstream = bard.addr.to_string();
    bard.trickle(b"poem");
    let mut daemon = Daemon::start(&["proxy", "--port", "0", &upstream, "--log-format", "json"]);
    for _ in 0..2 {
        assert_eq!(Client::connect(daemon.addr).rest().unwrap(), b"poem");
    }
    daemon.signal(Signal::TERM);
    daemon.exit_code();
    let told = daemon.stderr();
    let objects: Vec<serde_json::Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 2, "{told}");
    let (miss, hit) = match objects[0]["hit"].as_bool() {
        Some(false) => (&objects[0], &objects[1]),
        _ => (&objects[1], &objects[0]), // the miss may be told after the hit: its close takes longer
    };
    assert_eq!(
        (miss["fwd"].as_str(), miss["outcome"].as_str()),
        (Some("miss"), Some("whole"))
    );
    assert_eq!(
        (hit["hit"].as_bool(), hit["bytes"].as_u64()),
        (Some(true), Some(4))
    );
    assert!(hit["ttl"].as_u64().unwrap() > 7000);
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    assert!(!text(&poetry(&["fetch", "1"]).stderr).contains('\x1b'));
    assert!(text(&poetry(&["--color", "always", "fetch", "1"]).stderr).contains('\x1b'));
    assert!(text(&poetry(&["fetch", "1", "--color", "always"]).stderr).contains('\x1b'));
}

#[test]
fn every_request_is_in_one_class_of_the_json_log_and_the_classes_add_up() {
    let bard = Bard::new();
    let args = [
        "proxy",
        "--port",
        "0",
        "--ttl",
        "0",
        "--grace",
        "1h",
        "--log-format",
        "json",
    ];
    let mut daemon = Daemon::start(&[&args[..], &[&bard.addr.to_string()]].concat());
    let addr = daemon.addr;
    let joined = |count: usize, beginning: &[u8]| -> (Vec<Client>, Call) {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(addr)).collect();
        let call = bard.call().say(beginning);
        clients
            .iter_mut()
            .for_each(|client| assert_eq!(client.take(beginning.len()), beginning));
        (clients, call)
    };
    let (failing, call) = joined(4, b"ha");
    call.reset();
    failing
        .into_iter()
        .for_each(|mut client| assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset)));
    let (whole, call) = joined(5, b"po");
    call.say(b"em").finish();
    whole
        .into_iter()
        .for_each(|mut client| assert_eq!(client.rest().unwrap(), b"em"));
    (0..6).for_each(|_| assert_eq!(Client::connect(addr).rest().unwrap(), b"poem"));
    daemon.signal(Signal::TERM);
    daemon.exit_code();
    let log = daemon.stderr();
    let objects: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |class: &str| {
        objects
            .iter()
            .filter(|object| object["class"] == class)
            .count()
    };
    let [hits, misses, collapsed, stale, failures] =
        ["hit", "miss", "collapsed", "stale", "failure"].map(count);
    assert_eq!(
        (hits, misses, collapsed, stale, failures),
        (0, 1, 4, 6, 4),
        "{log}"
    );
    assert_eq!(objects.len(), 15, "{log}");
    let stored: Vec<&str> = objects
        .iter()
        .filter(|object| object["stored"] == true)
        .map(|object| object["class"].as_str().unwrap())
        .collect();
    assert_eq!(stored, ["miss"]);
}

#[test]
fn what_is_remembered_of_a_failed_fetch_is_a_hit_in_the_log_and_no_fetch() {
    let bard = Bard::new();
    let args = [
        "--fail-ttl",
        "1h",
        "--reject",
        "sorry",
        "--protocol",
        "line",
        "--log-format",
        "json",
    ];
    let upstream = bard.addr.to_string();
    let mut daemon = Daemon::start(&[&["proxy", "--port", "0", &upstream][..], &args].concat());
    let addr = daemon.addr;
    bard.each(|number, call| match number {
        0 => call.try_recv(3).0.say(b"sorry").finish(),
        _ => call.try_recv(3).0.reset(),
    });
    for _ in 0..2 {
        assert_eq!(Client::ask(addr, b"a\n").unwrap(), b"sorry");
        assert_eq!(Client::ask(addr, b"b\n"), Err(ErrorKind::ConnectionReset));
    }
    daemon.signal(Signal::TERM);
    daemon.exit_code();
    let log = daemon.stderr();
    let objects = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut told: Vec<String> = objects
        .filter(|object| object.get("class").is_some())
        .map(|object| {
            format!(
                "{} {} hit: {} {:?}",
                object["key"],
                object["class"],
                object["hit"],
                object.get("fwd")
            )
        })
        .collect();
    told.sort();
    let expected = [
        r#""a" "hit" hit: true None"#,
        r#""a" "miss" hit: false Some(String("miss"))"#,
        r#""b" "failure" hit: false Some(String("miss"))"#,
        r#""b" "failure" hit: true None"#,
    ];
    assert_eq!(told, expected, "{log}");
}

#[test]
fn a_socket_that_a_service_manager_opened_is_served_and_readiness_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let told_to = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&told_to).unwrap();
    manager.set_read_timeout(Some(crate::bard::LONG)).unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    // The shell makes it descriptor 3, where sd_listen_fds(3) looks for it.
    let script =
        "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve poetry/furuike.txt";
    let mut child = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_poetry")])
        .env("NOTIFY_SOCKET", &told_to)
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = [0; 64];
    let count = manager.recv(&mut told).unwrap();
    assert!(text(&told[..count]).contains("READY=1"));
    assert_eq!(
        Client::connect(addr).rest().unwrap(),
        std::fs::read("poetry/furuike.txt").unwrap()
    );
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let count = manager.recv(&mut told).unwrap();
    assert!(text(&told[..count]).contains("STOPPING=1"));
    let mut ready = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut ready).unwrap();
    assert_eq!(ready, format!("Serving 1 poem on {addr}\n"));
}
