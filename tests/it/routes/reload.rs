//! Routes that are read again on SIGHUP.

use super::route;
use crate::support::{FakeUpstream, Folder, LONG, ServerProcess, Signal, proxy, wait_for_count};
use poetry::handler::proxy::{RouteSet, RouteSettings};
use std::sync::mpsc::Receiver;
use std::time::Instant;

/// An upstream that answers with its name and the request.
fn naming(name: &'static str) -> String {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_each(move |number, connection| {
        let text = format!("{name} {number}");
        connection.send(text.as_bytes()).close();
    });
    addr
}

/// A proxy with this file, its folder, and what it logs.
fn start(folder: &Folder, rest: &str) -> (ServerProcess, Receiver<String>) {
    let file = folder.arg("office.routes");
    let mut args = vec!["proxy", "-l", "127.0.0.1:0", "--protocol", "line"];
    args.extend(["--routes", &file, rest]);
    let mut proxy = ServerProcess::start(&args);
    let lines = proxy.stderr_lines();
    (proxy, lines)
}

/// Waits for a line of the log with this text.
fn wait_for_line(lines: &Receiver<String>, wanted: &str) -> String {
    loop {
        let line = lines.recv_timeout(LONG).expect(wanted);
        if line.contains(wanted) {
            return line;
        }
    }
}

fn asked(proxy: &ServerProcess, request: &str) -> String {
    let answer = proxy.ask(format!("{request}\n").as_bytes());
    String::from_utf8(answer.unwrap()).unwrap()
}

#[test]
fn a_changed_route_gets_new_texts_and_an_unchanged_one_keeps_its_own() {
    let (one, two, rest) = (naming("one"), naming("two"), naming("rest"));
    let folder = Folder::new();
    folder.write("office.routes", format!("*.a {one}\n*.b {one}\n"));
    let (proxy, lines) = start(&folder, &rest);
    assert_eq!(asked(&proxy, "x.a"), "one 0");
    assert_eq!(asked(&proxy, "x.b"), "one 1");
    assert_eq!(asked(&proxy, "x"), "rest 0");

    folder.write(
        "office.routes",
        format!("*.b {two} # moved\n*.a {one} ttl=1d\n"),
    );
    proxy.signal(Signal::HUP);
    wait_for_line(&lines, "read 2 routes again, purged 0 cached answers");
    assert_eq!(asked(&proxy, "x.a"), "one 0");
    assert_eq!(asked(&proxy, "x.b"), "two 0");
    assert_eq!(asked(&proxy, "x"), "rest 0");

    folder.write("office.routes", format!("*.a {two}\n*.b {two}\n"));
    proxy.signal(Signal::HUP);
    wait_for_line(&lines, "read 2 routes again, purged 2 cached answers");
    assert_eq!(asked(&proxy, "x.a"), "two 1");
    assert_eq!(asked(&proxy, "x.b"), "two 0");
}

#[test]
fn a_file_that_cant_be_read_keeps_the_routes_there_are() {
    let (one, rest) = (naming("one"), naming("rest"));
    let folder = Folder::new();
    folder.write("office.routes", format!("*.a {one}\n"));
    let (mut proxy, lines) = start(&folder, &rest);
    assert_eq!(asked(&proxy, "x.a"), "one 0");

    folder.write("office.routes", format!("*.b {one}\n*.a {one} ttl=soon\n"));
    proxy.signal(Signal::HUP);
    let line = wait_for_line(&lines, "office.routes:2");
    assert!(line.contains("'ttl=soon': "), "{line}");
    assert_eq!(asked(&proxy, "x.a"), "one 0");
    assert_eq!(asked(&proxy, "y.a"), "one 1");
    assert_eq!(asked(&proxy, "x.b"), "rest 0", "all or nothing");

    folder.write("office.routes", format!("* {one}\n"));
    proxy.signal(Signal::HUP);
    wait_for_line(&lines, "wanted one of them");
    std::fs::remove_file(folder.arg("office.routes")).unwrap();
    proxy.signal(Signal::HUP);
    wait_for_line(&lines, "no such file");
    assert_eq!(asked(&proxy, "x.a"), "one 0");

    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn a_route_that_is_never_reached_is_a_warning_also_when_read_again() {
    let folder = Folder::new();
    let one = naming("one");
    folder.write("office.routes", format!("*.a {one}\n"));
    let (proxy, lines) = start(&folder, &one);
    folder.write("office.routes", format!("*.a {one}\n\n*.A. {one}\n"));
    proxy.signal(Signal::HUP);
    let line = wait_for_line(&lines, "is never reached");
    let is_told = line.contains("office.routes:3: '*.a'") && line.contains("office.routes:1 takes");
    assert!(is_told, "{line}");
    wait_for_line(&lines, "read 2 routes again");
}

#[test]
fn a_fetch_ends_with_the_route_that_it_began_with() {
    let (old, new, rest) = (
        FakeUpstream::new(),
        FakeUpstream::new(),
        FakeUpstream::new(),
    );
    let proxy = proxy(&rest).line().routes([route("*.a", &old)]).start();
    let mut first = proxy.request(b"x.a\n");
    let (begun, _) = old.accept().read(5);

    let routes: Vec<RouteSettings> = vec![route("*.a", &new)];
    let set = RouteSet::new(routes, false).unwrap();
    proxy.proxy().replace_routes(set, Instant::now());
    let mut second = proxy.request(b"x.a\n");
    let (newer, _) = new.accept().read(5);

    begun.send(b"old").close();
    assert_eq!(first.rest().unwrap(), b"old");
    newer.send(b"new").close();
    assert_eq!(second.rest().unwrap(), b"new");
    wait_for_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.ask(b"x.a\n").unwrap(), b"new");
}
