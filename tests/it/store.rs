//! `--store`: what is there after a restart.

mod disk;
mod kills;

use crate::support::{
    FakeUpstream, Folder, HOUR, LONG, ServerProcess, Service, Signal, ZERO, command, poetry, proxy,
    run, text, unused_addr, wait_for_count, wait_until,
};
use poetry::cache::Purge;
use poetry::control::Texts;
use std::path::Path;
use std::process::Command;
use std::thread::park_timeout;
use std::time::Duration;

fn wait_for_written(proxy: &Service, texts: u64) {
    wait_until("it is written", || proxy.store().written == texts);
}

#[test]
fn the_first_hit_after_a_restart_asks_no_upstream() {
    let folder = Folder::new();
    let path = folder.path("poems");
    let upstream = FakeUpstream::new();
    let first = proxy(&upstream).store(&path);
    first.start_with(&upstream, b"a poem").stop_and_close();

    let second = proxy(&upstream).store(&path).start();
    for _ in 0..3 {
        assert_eq!(second.get().unwrap(), b"a poem");
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(second.store().hits, 1, "then it is in memory");
    second.stop_and_close();
}

#[test]
fn a_text_past_its_ttl_is_served_after_a_restart_and_refreshed_once() {
    let folder = Folder::new();
    let path = folder.path("poems");
    let upstream = FakeUpstream::new();
    let first = proxy(&upstream).store(&path);
    first.start_with(&upstream, b"old").stop_and_close();

    // Another ttl: each run applies its own.
    let second = proxy(&upstream).ttl(ZERO).grace(HOUR).store(&path).start();
    for _ in 0..3 {
        assert_eq!(second.get().unwrap(), b"old");
    }
    upstream.serve_once(b"new");
    wait_for_count("kept", &second.stats.kept, 1);
    assert_eq!(second.store().stale, 1);
    wait_for_written(&second, 1);
    second.stop_and_close();

    let third = proxy(&upstream).store(&path).start();
    assert_eq!(third.get().unwrap(), b"new");
    assert_eq!(upstream.connections(), 2);
    third.stop_and_close();
}

#[test]
fn a_text_that_memory_evicted_is_found_in_the_store() {
    let folder = Folder::new();
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().capacity(64 << 10);
    let proxy = proxy.store(&folder.path("poems")).start();
    upstream.serve_each(|_, connection| {
        let (connection, name) = connection.read(3);
        connection.send(&name.repeat(3000)).close();
    });

    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let ask = |name: &str| proxy.ask(format!("{name}\r\n").as_bytes()).unwrap();
    for name in names {
        assert_eq!(ask(name), format!("{name}\r\n").repeat(3000).as_bytes());
    }
    wait_for_count("kept", &proxy.stats.kept, 10);
    wait_for_written(&proxy, 10);
    for name in names {
        assert_eq!(ask(name), format!("{name}\r\n").repeat(3000).as_bytes());
    }
    assert!(proxy.store().hits >= 3, "at most seven fit the memory");
    assert_eq!(proxy.snapshot().fetches.unwrap().begun, 10);
    proxy.stop_and_close();
}

#[test]
fn purges_by_name_and_prefix_reach_the_store() {
    let folder = Folder::new();
    let path = folder.path("poems");
    let upstream = FakeUpstream::new();
    let first = proxy(&upstream).line().store(&path).start();
    let names = ["aa", "ab", "b", "c"];
    for name in names {
        let mut client = first.request(format!("{name}\r\n").as_bytes());
        upstream.serve_once(b"old");
        assert_eq!(client.rest().unwrap(), b"old");
    }
    wait_for_written(&first, 4);
    first.purge(Texts::Prefix(b"a"), Purge::Hard);
    first.purge(Texts::Named(b"c"), Purge::Soft);
    first.stop_and_close();

    let second = proxy(&upstream).line().store(&path).start();
    assert_eq!(second.ask(b"b\r\n").unwrap(), b"old");
    for name in ["aa", "ab", "c"] {
        let mut client = second.request(format!("{name}\r\n").as_bytes());
        upstream.serve_once(b"new");
        assert_eq!(client.rest().unwrap(), b"new");
    }
    second.stop_and_close();
}

#[test]
fn texts_of_other_upstreams_and_transformations_are_not_mixed() {
    let folder = Folder::new();
    let path = folder.path("poems");
    let (one, two) = (FakeUpstream::new(), FakeUpstream::new());
    proxy(&one)
        .store(&path)
        .start_with(&one, b"one")
        .stop_and_close();
    proxy(&two)
        .store(&path)
        .start_with(&two, b"two")
        .stop_and_close();
    let shout = proxy(&one).transform(&["shout"]).store(&path).start();
    let mut client = shout.connect();
    one.serve_once(b"one");
    assert_eq!(client.rest().unwrap(), b"ONE");
    wait_for_written(&shout, 1);
    shout.stop_and_close();

    let again = proxy(&one).store(&path).start();
    assert_eq!(again.get().unwrap(), b"one");
    again.stop_and_close();
}

/// A proxy of names as a program. Its upstream answers each with [`poem`].
struct Site {
    folder: Folder,
    upstream: String,
}

fn poem(name: &str) -> Vec<u8> {
    format!("the poem of {name}\n")
        .repeat(1 + name.len() * 97)
        .into()
}

impl Site {
    fn new() -> Site {
        let upstream = FakeUpstream::new();
        let addr = upstream.addr.to_string();
        upstream.serve_each(|_, mut connection| {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n") {
                let (rest, byte) = connection.read(1);
                connection = rest;
                request.extend(byte);
            }
            let name = text(&request);
            connection.send(&poem(name.trim_end())).close();
        });
        Site {
            folder: Folder::new(),
            upstream: addr,
        }
    }

    fn args<'a>(&'a self, store: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let fixed = ["proxy", "-l", "0", "--protocol", "line", "--store", store];
        [&fixed[..], more].concat()
    }

    fn start(&self, upstream: &str, more: &[&str]) -> ServerProcess {
        let store = self.folder.arg("poems");
        ServerProcess::start(&self.args(&store, &[more, &[upstream]].concat()))
    }

    fn start_alive(&self) -> ServerProcess {
        self.start(&self.upstream, &[])
    }
}

fn ask(proxy: &ServerProcess, name: &str) {
    let answer = proxy.ask(format!("{name}\r\n").as_bytes());
    assert!(answer.unwrap() == poem(name), "{name}");
}

/// Longer than texts wait until they are written, on a machine that has other work.
const WRITTEN: Duration = Duration::from_secs(2);

#[test]
fn sigterm_writes_what_is_to_be_written() {
    let site = Site::new();
    let mut first = site.start_alive();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| ask(&first, name));
    first.stop();

    let mut second = site.start_alive();
    names.iter().for_each(|name| ask(&second, name));
    let log = second.stop_and_read_log();
    assert!(log.contains("poems: 3 poems, "), "{log}");
    assert!(log.contains(", 0 past their ttl"), "{log}");
    assert!(log.contains("'a': using the store's copy"), "{log}");
    assert!(!log.contains("fetching"), "{log}");
}

#[test]
fn a_purge_holds_also_if_the_process_is_killed_after_it() {
    let site = Site::new();
    let mut first = site.start_alive();
    let lines = first.stderr_lines();
    ask(&first, "a");
    park_timeout(WRITTEN);
    first.signal(Signal::HUP);
    let is_purged = |line: String| line.contains("purged 1 cached answer");
    while !is_purged(lines.recv_timeout(LONG).unwrap()) {}
    first.signal(Signal::KILL);
    first.wait();

    let mut second = site.start_alive();
    ask(&second, "a");
    let log = second.stop_and_read_log();
    assert!(log.contains("'a': fetching"), "{log}");
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let site = Site::new();
    let mut first = site.start_alive();
    let store = site.folder.arg("poems");
    let out = poetry(&site.args(&store, &[&site.upstream]));
    assert_eq!(out.status.code(), Some(1));
    let log = text(&out.stderr);
    assert_eq!(log, format!("poetry: {store}: in use by another process\n"));

    ask(&first, "a");
    first.stop();
    ask(&site.start_alive(), "a");
}

#[test]
fn what_is_no_file_is_refused_and_nothing_is_left_beside_it() {
    let site = Site::new();
    let pipe = site.folder.arg("pipe");
    assert!(try_run("mkfifo", &[&pipe]).is_some());
    let dir = site.folder.arg("dir");
    std::fs::create_dir(&dir).unwrap();
    let text_file = site.folder.arg("text");
    std::fs::write(&text_file, "a poem").unwrap();
    let nowhere = site.folder.arg("nowhere/poems");
    for (store, why) in [
        (&pipe, "a device or a pipe; --store wants a file"),
        (&dir, "a folder; --store wants a file"),
        (
            &text_file,
            "not a store: --store never overwrites other files",
        ),
        (&nowhere, "its folder does not exist"),
    ] {
        let out = poetry(&site.args(store, &[&site.upstream]));
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(text(&out.stderr), format!("poetry: {store}: {why}\n"));
        assert!(!Path::new(&format!("{store}.lock")).exists(), "{store}");
    }
}

#[test]
fn a_damaged_store_is_told_and_costs_no_client() {
    let site = Site::new();
    let mut first = site.start_alive();
    ask(&first, "a");
    first.stop();
    let path = site.folder.path("poems");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..].fill(0xab);
    std::fs::write(&path, bytes).unwrap();

    let mut second = site.start_alive();
    ask(&second, "a");
    let log = second.stop_and_read_log();
    assert!(log.contains("damaged; put aside as "), "{log}");
    assert!(site.folder.path("poems.damaged").exists());
}

#[test]
fn the_json_log_tells_where_a_copy_came_from() {
    let site = Site::new();
    let mut first = site.start_alive();
    ask(&first, "a");
    first.stop();

    let mut second = site.start(&site.upstream, &["--log-format", "json"]);
    ask(&second, "a");
    let log = second.stop_and_read_log();
    let objects = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let objects: Vec<serde_json::Value> = objects.collect();
    let opened = objects.iter().find(|of| of["event"] == "store_open");
    assert_eq!(opened.expect("it is told")["texts"], 1);
    let request = objects
        .iter()
        .find(|of| of["key"] == "a")
        .expect("a request");
    assert_eq!(
        (&request["class"], &request["store"]),
        (&"miss".into(), &"hit".into())
    );
}

/// Runs a program with these arguments. `None` if there is none.
fn try_run(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok()?;
    Some(text(&out.stdout) + &text(&out.stderr))
}

#[test]
fn the_shell_of_sqlite_opens_it() {
    let site = Site::new();
    let mut first = site.start_alive();
    ask(&first, "a");
    park_timeout(WRITTEN);
    let store = site.folder.arg("poems");
    let look = "SELECT count(*), sum(length(text)) FROM poems; PRAGMA integrity_check";
    let Some(out) = try_run("sqlite3", &[&store, look]) else {
        return eprintln!("skipped: there is no sqlite3");
    };
    assert_eq!(out, format!("1|{}\nok\n", poem("a").len()));

    try_run("sqlite3", &[&store, "DELETE FROM poems"]).unwrap();
    first.stop();
    let log = site.start_alive().stop_and_read_log();
    assert!(log.contains("0 poems"), "{log}");
}

#[test]
fn flags_of_the_store_say_what_is_wanted() {
    for (args, why) in [
        (
            ["--store", "redis://h:1/0"],
            "'127.0.0.1:10001' is another server on each machine",
        ),
        (["--store", ""], "empty; wanted the path of a file"),
        (
            ["--store-capacity", "1000"],
            "too small for a store; wanted 1MiB or more",
        ),
    ] {
        let out = poetry(&[&["proxy"], &args[..]].concat());
        assert_eq!(out.status.code(), Some(2));
        let log = text(&out.stderr);
        assert!(log.contains(why), "{log}");
    }
}

#[test]
fn a_path_of_something_else_is_refused() {
    let folder = Folder::new();
    let diary = folder.write("diary", "Dear diary,");
    let upstream = unused_addr().to_string();
    let out = run(command(&["proxy", "-l", "0", "--store", &diary, &upstream]));
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("diary: not a store"),
        "{:?}",
        out
    );
    assert_eq!(folder.read("diary"), "Dear diary,");
    assert!(Path::new(&diary).exists());
}

#[test]
fn an_empty_answer_is_there_after_a_restart_if_it_is_still_allowed() {
    let folder = Folder::new();
    let path = folder.path("poems");
    let upstream = FakeUpstream::new();
    let first = proxy(&upstream).allow_empty().store(&path);
    first.start_with(&upstream, b"").stop_and_close();

    let second = proxy(&upstream).allow_empty().store(&path).start();
    assert_eq!(second.get().unwrap(), b"");
    assert_eq!(second.store().hits, 1);
    second.stop_and_close();

    let third = proxy(&upstream).store(&path).start();
    let mut client = third.connect();
    upstream.serve_once(b"a poem");
    assert_eq!(client.rest().unwrap(), b"a poem");
    third.stop_and_close();
}

#[test]
fn a_text_in_the_store_that_lacks_the_end_marker_is_fetched_again() {
    let folder = Folder::new();
    let path = folder.path("poems");
    let upstream = FakeUpstream::new();
    let first = proxy(&upstream).store(&path);
    first.start_with(&upstream, b"a poem").stop_and_close();

    let second = proxy(&upstream).end_marker("END").store(&path).start();
    let mut client = second.connect();
    upstream.serve_once(b"a poem END");
    assert_eq!(client.rest().unwrap(), b"a poem END");
    wait_for_written(&second, 1);
    second.stop_and_close();

    let third = proxy(&upstream).end_marker("END").store(&path).start();
    assert_eq!(third.get().unwrap(), b"a poem END");
    third.stop_and_close();
}
