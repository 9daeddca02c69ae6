//! What is logged, for people and as JSON, and in which colours.

use crate::support::{
    Client, Connection, FakeUpstream, Folder, LONG, RESET, ServerProcess, Signal, poetry, shell,
    text, unused_addr,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

/// The objects of a JSON log: each line is one.
fn objects(log: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    log.lines().map(object).collect()
}

/// The objects of requests among these.
fn requests(log: &str) -> Vec<Value> {
    let objects = objects(log).into_iter();
    objects
        .filter(|object| object.get("event").is_none())
        .collect()
}

#[test]
fn the_log_tells_fetches_from_hits_and_folds_repeats() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem");
    let mut server = ServerProcess::start(&["proxy", "--port", "0", &addr]);

    for _ in 0..20 {
        assert_eq!(server.get().unwrap(), b"poem");
    }

    let log = server.stop_and_read_log();
    assert!(
        log.starts_with(&format!("fetching a poem from {addr}\n")),
        "{log}"
    );
    assert!(log.contains("using the cached poem\n"), "{log}");
    assert!(log.contains(" more within a second)"), "{log}");
    assert!(log.lines().count() < 10, "{log}");
}

#[test]
fn the_json_log_is_one_object_a_request() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem");
    let args = ["proxy", "--port", "0", "--log-format", "json", &addr];
    let mut server = ServerProcess::start(&args);

    for _ in 0..2 {
        assert_eq!(server.get().unwrap(), b"poem");
    }

    let log = server.stop_and_read_log();
    let mut objects = requests(&log);
    assert_eq!(objects.len(), 2, "{log}");
    // The close of the miss takes longer, so that its line may come second.
    objects.sort_by_key(|object| object["hit"].as_bool());
    let (miss, hit) = (&objects[0], &objects[1]);
    assert_eq!(miss["hit"], false);
    assert_eq!(miss["fwd"], "miss");
    assert_eq!(miss["outcome"], "whole");
    assert_eq!(hit["hit"], true);
    assert_eq!(hit["bytes"], 4);
    assert!(hit["ttl"].as_u64().unwrap() > 7000);
}

#[test]
fn every_request_is_in_one_class_and_the_classes_add_up() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let flags = ["--ttl", "0", "--grace", "1h", "--log-format", "json"];
    let args = [&["proxy", "--port", "0", &addr], &flags[..]].concat();
    let mut server = ServerProcess::start(&args);

    // Clients that have the beginning of one poem, and the connection it comes from.
    let join = |count: usize, beginning: &[u8]| -> (Vec<Client>, Connection) {
        let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        let connection = upstream.accept().send(beginning);
        for client in &mut clients {
            assert_eq!(client.read(beginning.len()), beginning);
        }
        (clients, connection)
    };

    let (failing, connection) = join(4, b"ha");
    connection.reset();
    for mut client in failing {
        assert_eq!(client.rest(), RESET);
    }

    let (whole, connection) = join(5, b"po");
    connection.send(b"em").close();
    for mut client in whole {
        assert_eq!(client.rest().unwrap(), b"em");
    }

    for _ in 0..6 {
        assert_eq!(server.get().unwrap(), b"poem");
    }

    let log = server.stop_and_read_log();
    let objects = requests(&log);
    let of_class = |class: &str| objects.iter().filter(|o| o["class"] == class).count();
    let counts = ["hit", "miss", "collapsed", "stale", "failure"].map(of_class);
    assert_eq!(counts, [0, 1, 4, 6, 4], "{log}");
    assert_eq!(objects.len(), 15, "{log}");

    let stored = objects.iter().filter(|object| object["stored"] == true);
    let classes: Vec<&Value> = stored.map(|object| &object["class"]).collect();
    assert_eq!(classes, ["miss"]);
}

#[test]
fn a_cached_failure_is_logged_as_a_hit() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let flags = [
        "--fail-ttl",
        "1h",
        "--reject",
        "sorry",
        "--protocol",
        "line",
    ];
    let json = ["--log-format", "json"];
    let args = [&["proxy", "--port", "0", &addr], &flags[..], &json].concat();
    let mut server = ServerProcess::start(&args);

    upstream.serve_each(|number, connection| {
        let connection = connection.skip(3);
        if number == 0 {
            connection.send(b"sorry").close();
        } else {
            connection.reset();
        }
    });
    for _ in 0..2 {
        assert_eq!(server.ask(b"a\n").unwrap(), b"sorry");
        assert_eq!(server.ask(b"b\n"), RESET);
    }

    let log = server.stop_and_read_log();
    let summary = |object: &Value| {
        let fwd = object
            .get("fwd")
            .map_or("none".to_string(), Value::to_string);
        format!(
            "{} {} {} {fwd}",
            object["key"], object["class"], object["hit"]
        )
    };
    let mut logged: Vec<String> = requests(&log).iter().map(summary).collect();
    logged.sort();
    let expected = [
        r#""a" "hit" true none"#,
        r#""a" "miss" false "miss""#,
        r#""b" "failure" false "miss""#,
        r#""b" "failure" true none"#,
    ];
    assert_eq!(logged, expected, "{log}");
}

#[test]
fn a_dead_upstream_takes_a_few_lines_a_second_and_all_are_counted() {
    let addr = unused_addr().to_string();
    let args = ["proxy", "--port", "0", "--protocol", "line", &addr];
    let mut server = ServerProcess::start(&args);

    for number in 0..300 {
        assert_eq!(server.ask(format!("name{number}\n").as_bytes()), RESET);
    }

    let log = server.stop_and_read_log();
    let refused = format!("{addr}: could not connect: connection refused");
    let mut fetches = BTreeMap::from([("fetching from", 0), ("connection refused", 0)]);
    let others = ["stopping: ", "not asked first for"];
    let is_about_a_name = |line: &&str| !others.iter().any(|other| line.contains(other));
    for line in log.lines().filter(is_about_a_name) {
        let (kind, count) = fetches
            .iter_mut()
            .find(|(kind, _)| line.contains(*kind))
            .unwrap_or_else(|| panic!("{line}"));
        let is_named = line.contains("'name");
        assert!(is_named && line.contains(&addr), "{kind}: {line}");

        let more = line.rsplit_once('(').map_or("0", |(_, more)| more);
        let more = more.strip_suffix(" more within a second)").unwrap_or("0");
        *count += 1 + more.replace(',', "").parse::<u64>().unwrap();
    }
    assert!(log.contains(&refused), "{log}");
    assert!(fetches.values().all(|count| *count == 300), "{fetches:?}");
    assert!(log.lines().count() < 60, "{log}");
}

#[test]
fn quiet_json_tells_of_a_failed_fetch() {
    let addr = unused_addr().to_string();
    let args = ["proxy", "-q", "--port", "0", "--log-format", "json", &addr];
    let mut server = ServerProcess::start(&args);
    assert_eq!(server.get(), RESET);

    let log = server.stop_and_read_log();
    let failed = |object: &Value| object["event"] == "fetch_failed";
    assert_eq!(
        objects(&log).iter().filter(|o| failed(o)).count(),
        1,
        "{log}"
    );
}

#[test]
fn a_line_of_the_text_log_names_what_was_asked_for() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_each(|_, connection| connection.skip(6).send(b"poem").close());
    for (flag, expected) in [
        ("--verbose", ": 'name': hit, 4 bytes, whole"),
        ("--color=never", "'name': using the cached poem"),
    ] {
        let args = ["proxy", "--port", "0", "--protocol", "line", &addr, flag];
        let mut server = ServerProcess::start(&args);
        for _ in 0..2 {
            assert_eq!(server.ask(b"name\n").unwrap(), b"poem");
        }

        let log = server.stop_and_read_log();
        let has = |text: &str| log.lines().any(|line| line.ends_with(text));
        assert!(has(&format!("'name': fetching from {addr}")), "{log}");
        assert!(has(expected), "{log}");
    }
}

#[test]
fn a_json_log_has_an_object_for_every_event() {
    let folder = Folder::new();
    folder.write("a.txt", "a poem");
    folder.write("b\n.txt", "its name fits no line");
    let path = folder.path("").display().to_string();
    let flags = ["--port", "0", "--protocol", "line", "--log-format", "json"];
    let mut server = ServerProcess::start(&[&["serve", &path], &flags[..]].concat());
    let log = server.stderr_lines();

    let mut all = String::new();
    let mut wait_for = |event: &str| loop {
        let line = log.recv_timeout(LONG).unwrap();
        all += &(line.clone() + "\n");
        if line.contains(&format!("\"event\":\"{event}\"")) {
            return serde_json::from_str::<Value>(&line).unwrap();
        }
    };

    let skipped = wait_for("poem_skipped");
    assert!(skipped["reason"].as_str().unwrap().contains("left out"));
    let start = wait_for("start");
    assert_eq!(start["listen"], json!([server.addr.to_string()]));

    server.signal(Signal::HUP);
    assert_eq!(wait_for("reload")["poems"], 1);
    std::fs::remove_file(folder.path("a.txt")).unwrap();
    server.signal(Signal::HUP);
    assert!(wait_for("reload_failed")["reason"].is_string());
    server.signal(Signal::TERM);
    assert_eq!(wait_for("stop")["signal"], "SIGTERM");

    assert_eq!(server.exit_code(), Some(0));
    objects(&all);
}

#[test]
fn an_error_at_the_start_is_an_object_on_a_json_log() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();

    let out = poetry(&["serve", "--listen", &addr, "--log-format", "json"]);

    let errors = objects(&text(&out.stderr));
    let reason = format!("{addr}: could not listen: address already in use");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["event"], "error");
    assert_eq!(errors[0]["reason"], reason);
}

#[test]
fn a_failure_has_its_reason_its_upstream_and_its_key() {
    let addr = unused_addr().to_string();
    let flags = ["--protocol", "line", "--log-format", "json"];
    let args = [&["proxy", "--port", "0", &addr], &flags[..]].concat();
    let mut server = ServerProcess::start(&args);

    assert_eq!(server.ask(b"name\n"), RESET);

    let log = server.stop_and_read_log();
    let failure = &requests(&log)[0];
    let reason = format!("{addr}: could not connect: connection refused");
    assert_eq!(failure["class"], "failure", "{log}");
    assert_eq!(failure["reason"], reason);
    assert_eq!(failure["upstream"], addr);
    assert_eq!(failure["key"], "name");
    assert!(failure["total_ms"].is_u64());
}

#[test]
fn a_purge_leaves_an_object() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem");
    let args = ["proxy", "--port", "0", "--log-format", "json", &addr];
    let mut server = ServerProcess::start(&args);
    let log = server.stderr_lines();
    assert_eq!(server.get().unwrap(), b"poem");
    while !log.recv_timeout(LONG).unwrap().contains("stored") {}

    server.signal(Signal::HUP);

    let line = log.recv_timeout(LONG).unwrap();
    for field in [r#""event":"purge""#, r#""how":"soft""#, r#""texts":1,"#] {
        assert!(line.contains(field), "{line}");
    }
}

#[test]
fn lost_lines_are_counted_once_the_log_is_read_again() {
    let args = ["serve", "--port", "0", "poetry/furuike.txt"];
    let json = ["--log-format", "json"];
    let mut server = ServerProcess::start(&[&args[..], &json].concat());
    let poem = std::fs::read("poetry/furuike.txt").unwrap();

    // Far more lines than a pipe and the queue of the log hold.
    const REQUESTS: u64 = 6000;
    for _ in 0..REQUESTS {
        assert_eq!(server.get().unwrap(), poem);
    }

    let log = server.stderr_lines();
    let (mut logged, mut lost) = (0, 0);
    while logged + lost < REQUESTS {
        let line = log.recv_timeout(LONG).unwrap();
        let object: Value = serde_json::from_str(&line).unwrap();
        if object["event"] == "lost" {
            lost += object["lines"].as_u64().unwrap();
        }
        logged += u64::from(object.get("class").is_some());
    }
    assert_eq!(logged + lost, REQUESTS);
    assert!(lost > 500, "{lost}");
    server.stop();
}

#[test]
fn a_health_check_without_a_byte_is_unasked_and_no_failure() {
    let args = ["serve", "--port", "0", "--protocol", "line"];
    let json = ["--log-format", "json"];
    let mut server = ServerProcess::start(&[&args[..], &json].concat());

    for _ in 0..3 {
        drop(server.connect());
        server.connect().reset();
        let mut half_closed = server.connect();
        half_closed.half_close();
        assert_eq!(half_closed.rest().unwrap(), b"");
    }

    let log = server.stop_and_read_log();
    let classes: Vec<Value> = requests(&log).iter().map(|o| o["class"].clone()).collect();
    assert!(classes.len() >= 6, "{log}"); // a reset may come before the accept
    assert!(classes.iter().all(|class| class == "unasked"), "{log}");
}

#[test]
fn a_client_by_ipv4_is_shown_so_on_a_socket_of_both_kinds() {
    let socket = TcpListener::bind("[::]:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let mut inheriting = shell(script, &["serve", "--log-format", "json"]);
    inheriting.stdin(OwnedFd::from(socket));
    let mut server = ServerProcess::start_command(inheriting);

    Client::get(([127, 0, 0, 1], port).into()).unwrap();

    let log = server.stop_and_read_log();
    let peer = requests(&log)[0]["peer"].as_str().unwrap().to_string();
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
}

#[test]
fn usr1_logs_a_summary_and_usr2_and_quit_do_nothing() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem");
    for format in ["text", "json"] {
        let args = ["proxy", "-q", "--port", "0", "--log-format", format, &addr];
        let mut server = ServerProcess::start(&args);
        let log = server.stderr_lines();
        for _ in 0..3 {
            assert_eq!(server.get().unwrap(), b"poem");
        }

        for signal in [Signal::QUIT, Signal::USR2, Signal::USR1] {
            server.signal(signal);
        }

        let line = log.recv_timeout(LONG).unwrap();
        if format == "json" {
            let summary: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(summary["event"], "summary");
            assert_eq!(summary["fetches"]["begun"], 1);
            assert_eq!(summary["cache"]["keys"], 1);
            assert_eq!(summary["cache"]["capacity"], 256 << 20);
            assert_eq!(summary["failures"]["refused"], 0);
            let of = &summary["upstreams"][0];
            assert_eq!(of["upstream"], addr);
            assert_eq!((&of["state"], &of["asked"]), (&json!("up"), &json!(1)));
        } else {
            assert!(line.starts_with("up ") && line.contains(" open"), "{line}");
            let next = || log.recv_timeout(LONG).unwrap();
            assert!(next().starts_with("connections: "));
            assert!(next().starts_with("fetches: 0 running, 0 waiting, 1 begun, 1 kept"));
            assert!(next().starts_with("cache: 1 key, "));
            let figures = "up, 0 open, 1 asked, 0 failed";
            assert_eq!(next(), format!("upstream {addr}: {figures}"));
        }
        assert_eq!(server.get().unwrap(), b"poem");
        server.stop();
    }
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let addr = unused_addr().to_string();
    let is_coloured = |args: &[&str]| text(&poetry(args).stderr).contains('\x1b');

    assert!(!is_coloured(&["fetch", &addr]));
    assert!(is_coloured(&["--color", "always", "fetch", &addr]));
    assert!(is_coloured(&["fetch", &addr, "--color", "always"]));
}
