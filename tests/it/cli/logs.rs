//! What is logged, for people and as JSON, and in which colours.

use crate::support::{
    Client, Connection, FakeUpstream, RESET, ServerProcess, poetry, text, unused_addr,
};
use serde_json::Value;

/// The objects of a JSON log.
fn objects(log: &str) -> Vec<Value> {
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
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
    let mut objects = objects(&log);
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
    let mut objects = objects(&log);
    objects.retain(|object| object["class"].is_string());
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
    let requests = objects(&log)
        .into_iter()
        .filter(|o| o.get("class").is_some());
    let mut logged: Vec<String> = requests.map(|object| summary(&object)).collect();
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
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let addr = unused_addr().to_string();
    let is_coloured = |args: &[&str]| text(&poetry(args).stderr).contains('\x1b');

    assert!(!is_coloured(&["fetch", &addr]));
    assert!(is_coloured(&["--color", "always", "fetch", &addr]));
    assert!(is_coloured(&["fetch", &addr, "--color", "always"]));
}
