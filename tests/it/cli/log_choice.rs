//! Which requests are logged, and what their fetch tells.

use crate::support::{
    Client, FakeUpstream, Folder, LONG, RESET, ServerProcess, poetry, text, unused_addr,
};
use serde_json::Value;

const JSON: [&str; 2] = ["--log-format", "json"];

/// The objects of a JSON log that are requests, or that are events.
fn objects(log: &str, are_requests: bool) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let objects = log.lines().map(object);
    objects
        .filter(|object: &Value| object.get("event").is_none() == are_requests)
        .collect()
}

fn requests(log: &str) -> Vec<Value> {
    objects(log, true)
}

/// The log of a proxy with these flags that has answered a miss and then 25 hits, none
/// of which has waited.
fn log_of_a_miss_and_hits(flags: &[&str]) -> String {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = [&["proxy", "--port", "0", &addr], flags].concat();
    let mut server = ServerProcess::start(&args);

    let mut first = server.connect();
    upstream.serve_once(b"poem");
    assert_eq!(first.rest().unwrap(), b"poem");
    for _ in 0..25 {
        assert_eq!(server.get().unwrap(), b"poem");
    }
    server.stop_and_read_log()
}

fn classes(log: &str) -> Vec<String> {
    let requests = requests(log).into_iter();
    requests
        .map(|object| object["class"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn only_the_classes_named_are_logged() {
    let flags = ["--log-only", "failure,miss"];
    let log = log_of_a_miss_and_hits(&[&flags[..], &JSON].concat());
    assert_eq!(classes(&log), ["miss"], "{log}");

    let log = log_of_a_miss_and_hits(&["--log-only", "miss", "-v"]);
    let of = |status: &str| log.lines().filter(|line| line.contains(status)).count();
    assert_eq!([of(": miss, "), of(": hit, ")], [1, 0], "{log}");
}

#[test]
fn slow_requests_are_logged_whatever_their_class() {
    // A hit is answered as soon as it is accepted; a miss waits.
    let slow = ["--log-slow", "0s"];
    let log = log_of_a_miss_and_hits(&[&slow[..], &JSON].concat());
    assert!(classes(&log).iter().all(|class| class != "hit"), "{log}");

    let both = ["--log-slow", "1h", "--log-only", "miss"];
    let log = log_of_a_miss_and_hits(&[&both[..], &JSON].concat());
    assert_eq!(classes(&log), ["miss"], "{log}");
}

#[test]
fn a_sample_leaves_out_hits_and_says_for_how_many_one_stands() {
    let sample = ["--log-sample", "10"];
    let log = log_of_a_miss_and_hits(&[&sample[..], &JSON].concat());

    let requests = requests(&log);
    let is_hit = |object: &&Value| object["class"] == "hit";
    let (hits, others): (Vec<&Value>, Vec<&Value>) = requests.iter().partition(is_hit);
    assert_eq!([hits.len(), others.len()], [3, 1], "{log}");
    assert!(hits.iter().all(|hit| hit["sample"] == 10), "{log}");
    assert!(others[0].get("sample").is_none(), "{log}");

    let log = log_of_a_miss_and_hits(&["--log-sample", "10", "-v"]);
    let sampled = log.lines().filter(|line| line.ends_with(" (one of 10)"));
    assert_eq!(sampled.count(), 3, "{log}");
}

#[test]
fn a_failed_fetch_is_an_event_where_no_request_tells_of_it() {
    let addr = unused_addr().to_string();
    for (only, events) in [("hit", 1), ("failure", 0)] {
        let flags = ["--log-only", only, "--protocol", "line"];
        let args = [&["proxy", "--port", "0", &addr], &flags[..], &JSON].concat();
        let mut server = ServerProcess::start(&args);
        assert_eq!(server.ask(b"name\n"), RESET);

        let log = server.stop_and_read_log();
        let all = objects(&log, false);
        let failed: Vec<&Value> = all
            .iter()
            .filter(|object| object["event"] == "fetch_failed")
            .collect();
        assert_eq!(failed.len(), events, "{log}");
        assert_eq!(requests(&log).len(), 1 - events, "{log}");
        for event in failed {
            assert_eq!(event["key"], "name");
            assert_eq!(event["cause"], "miss");
            assert_eq!(event["upstream"], addr);
            assert!(event["total_ms"].is_u64());
        }
    }
}

#[test]
fn a_server_of_its_own_poems_logs_each_failure_with_its_client() {
    let flags = ["--script", "ok,reset@3", "-v", "--log-only", "failure"];
    let args = [&["serve", "--port", "0"], &flags[..]].concat();
    let mut server = ServerProcess::start(&args);
    assert!(server.get().is_ok());
    for _ in 0..3 {
        assert_eq!(server.get(), RESET);
    }

    let log = server.stop_and_read_log();
    let is_named = |line: &&str| line.starts_with("127.0.0.1:") && line.contains("failed: ");
    assert_eq!(log.lines().filter(is_named).count(), 3, "{log}");
}

#[test]
fn a_poem_that_cannot_be_read_is_told_whatever_is_chosen() {
    let folder = Folder::new();
    folder.write("a.txt", "x".repeat(2 << 20)); // too large to be held in memory
    let poem = folder.path("a.txt").display().to_string();
    for (flags, line) in [
        (&["-v"][..], ": own, 0 bytes, failed: "),
        (&["-v", "--log-only", "own"], "poetry: "),
    ] {
        let args = [&["serve", "--port", "0", &poem], flags].concat();
        let mut server = ServerProcess::start(&args);
        std::fs::rename(folder.path("a.txt"), folder.path("b")).unwrap();
        assert_eq!(server.get(), RESET);
        std::fs::rename(folder.path("b"), folder.path("a.txt")).unwrap();

        let log = server.stop_and_read_log();
        let has_line = |text: &str| log.lines().any(|other| other.contains(text));
        assert!(has_line(line) && has_line("a.txt"), "{log}");
    }
}

#[test]
fn what_the_choice_cannot_do_is_told() {
    let needs = "--log-only, --log-slow and --log-sample need -v or --log-format json";
    let useless = "--log-sample: no answer is logged that it could leave out";
    let only = ["--log-only", "failure"];
    for (flags, warning) in [
        (&only[..], needs),
        (&["-v", "--log-sample", "5", only[0], only[1]], useless),
    ] {
        let args = [&["serve", "--port", "0"], flags].concat();
        let log = ServerProcess::start(&args).stop_and_read_log();
        assert!(log.contains(&format!("poetry: {warning}\n")), "{log}");
    }

    let out = poetry(&["serve", "--log-only", "hits"]);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    let wanted = "[possible values: hit, stale, collapsed, miss, own, failure, unasked]";
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn a_request_names_the_server_that_answered_and_its_fetch() {
    let upstream = FakeUpstream::new();
    let (dead, alive) = (unused_addr().to_string(), upstream.addr.to_string());
    let args = ["proxy", "--port", "0", &dead, &alive];
    let mut server = ServerProcess::start(&[&args[..], &JSON].concat());

    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    let connection = upstream.accept().send(b"po");
    for client in &mut clients {
        assert_eq!(client.read(2), b"po");
    }
    connection.send(b"em").close();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"em");
    }
    assert_eq!(server.get().unwrap(), b"poem");

    let log = server.stop_and_read_log();
    let requests = requests(&log);
    assert_eq!(requests.len(), 3, "{log}");
    for request in requests {
        if request["class"] == "hit" {
            let fields = ["upstream", "cause", "fetch_ms"];
            assert!(fields.iter().all(|field| request.get(field).is_none()));
        } else {
            assert_eq!(request["upstream"], alive, "{log}");
            assert_eq!(request["cause"], "miss", "{log}");
            assert!(request["fetch_ms"].is_u64(), "{log}");
        }
    }
}

#[test]
fn a_refresh_that_succeeds_is_an_event_with_its_cause() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem");
    let flags = ["--ttl", "0", "--grace", "1h"];
    let args = [&["proxy", "--port", "0", &addr], &flags[..], &JSON].concat();
    let mut server = ServerProcess::start(&args);
    let log = server.stderr_lines();
    for _ in 0..2 {
        assert_eq!(server.get().unwrap(), b"poem");
    }

    let event: Value = loop {
        let line = log.recv_timeout(LONG).unwrap();
        if line.contains(r#""event":"fetched""#) {
            break serde_json::from_str(&line).unwrap();
        }
    };
    assert_eq!(event["cause"], "stale");
    assert_eq!(event["upstream"], addr);
    assert_eq!(event["bytes"], 4);
    assert_eq!(event["stored"], true);
    server.stop();
}
