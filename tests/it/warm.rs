//! `--warm`: texts that are fetched at the start, and kept warm.

use crate::support::{
    FakeUpstream, Folder, LONG, ServerProcess, Service, Signal, poetry, proxy, text, wait_until,
};
use poetry::cache::Purge;
use poetry::control::{Texts, WarmCounts};
use poetry::upstream::RejectPause;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn warm(proxy: &Service) -> WarmCounts {
    proxy.snapshot().warm.unwrap()
}

fn wait_for_fresh(proxy: &Service, wanted: u64) {
    wait_until("they are fresh", || warm(proxy).fresh == wanted);
}

/// Answers each request of four bytes with itself, and counts them.
fn echo(upstream: FakeUpstream) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    upstream.serve_each(move |_, connection| {
        let (connection, request) = connection.read(6);
        counter.fetch_add(1, Ordering::AcqRel);
        connection.try_send(&request[..4]).close();
    });
    asked
}

#[test]
fn each_request_of_the_file_is_fetched_at_the_start() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    folder.write("warm", "aaaa\nbbbb\ncccc\nbbbb\n");
    let proxy = proxy(&upstream).line().warm(&folder.path("warm")).start();
    let asked = echo(upstream);

    wait_for_fresh(&proxy, 4);
    for name in ["aaaa", "bbbb", "cccc"] {
        let request = format!("{name}\n");
        assert_eq!(proxy.ask(request.as_bytes()).unwrap(), name.as_bytes());
    }
    assert_eq!(
        asked.load(Ordering::Acquire),
        3,
        "one of them is there twice"
    );
    wait_until("they are counted", || proxy.snapshot().connections.hit == 3);
}

#[test]
fn in_the_poem_protocol_the_one_poem_is_kept_warm() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    folder.write("warm", "\n");
    let proxy = proxy(&upstream).warm(&folder.path("warm")).start();
    upstream.serve_once(b"poem");
    wait_for_fresh(&proxy, 1);
    assert_eq!(proxy.get().unwrap(), b"poem");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn what_is_warm_is_fetched_again_before_its_ttl_ends() {
    const TTL: Duration = Duration::from_secs(3);
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    folder.write("warm", "aaaa\n");
    let builder = proxy(&upstream).line().ttl(TTL).refresh_ahead(0.5);
    let proxy = builder.warm(&folder.path("warm")).start();
    let begun = Instant::now();
    let asked = echo(upstream);
    wait_until("it is fetched twice more", || {
        asked.load(Ordering::Acquire) == 3
    });
    assert!(begun.elapsed() >= TTL, "{:?}", begun.elapsed());
    assert_eq!(proxy.ask(b"aaaa\n").unwrap(), b"aaaa");
}

#[test]
fn what_could_not_be_fetched_is_counted_and_a_client_tries_again() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    folder.write("warm", "aaaa\nbbbb\n");
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.warm(&folder.path("warm")).start();
    upstream.accept().reset();
    upstream.accept().skip(6).send(b"bbbb").close();
    wait_for_fresh(&proxy, 1);
    let wanted = WarmCounts {
        fresh: 1,
        failed: 1,
        waiting: 0,
    };
    assert_eq!(warm(&proxy), wanted);

    let mut client = proxy.request(b"aaaa\n");
    upstream.accept().skip(6).send(b"poem").close();
    assert_eq!(client.rest().unwrap(), b"poem");
}

#[test]
fn what_is_purged_is_fetched_again() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    folder.write("warm", "aaaa\nbbbb\n");
    let proxy = proxy(&upstream).line().warm(&folder.path("warm")).start();
    let asked = echo(upstream);
    wait_for_fresh(&proxy, 2);

    proxy.purge(Texts::Named(b"aaaa"), Purge::Hard);
    wait_until("one is fetched", || asked.load(Ordering::Acquire) == 3);
    wait_for_fresh(&proxy, 2);
    assert_eq!(asked.load(Ordering::Acquire), 3);
}

#[test]
fn a_client_goes_before_what_is_kept_warm() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    let names: Vec<String> = (0..100).map(|at| format!("a{at:03}\n")).collect();
    folder.write("warm", names.concat());
    let builder = proxy(&upstream).line().upstream_conns(4);
    let builder = builder.limits(Some("20/s"), RejectPause::Never);
    let proxy = builder.warm(&folder.path("warm")).start();

    upstream.accept().skip(6).send(b"poem").close();
    proxy.wait_for_waiting(2); // no more than half of the places are for them
    let _client = proxy.request(b"name\n");
    proxy.wait_for_waiting(3);
    let next: Vec<Vec<u8>> = (0..2).map(|_| upstream.accept().read(6).1).collect();
    assert!(next.contains(&b"name\r\n".to_vec()), "{next:?}");
}

#[test]
fn a_hangup_reads_the_file_again() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    let file = folder.write("warm", "aaaa\n");
    let mut server = ServerProcess::start(&[
        "proxy",
        "--port",
        "0",
        "--protocol",
        "line",
        "--warm",
        &file,
        &upstream.addr.to_string(),
    ]);
    let log = server.stderr_lines();
    let next = |wanted: &str| {
        let mut lines = std::iter::from_fn(|| log.recv_timeout(LONG).ok());
        lines.find(|line| line.contains(wanted)).expect(wanted)
    };
    let answered = |name: &[u8]| {
        let (connection, request) = upstream.accept().read(6);
        assert_eq!(&request[..4], name);
        connection.send(name).close();
    };
    answered(b"aaaa");
    next("warm: 1 poem warm after");

    folder.write("warm", "bbbb\n");
    server.signal(Signal::HUP);
    answered(b"bbbb");
    next("warm: 1 poem warm after");

    folder.write("warm", "cccc\nc\0cc\n");
    server.signal(Signal::HUP);
    let line = next("not reloaded");
    assert!(line.contains("warm: line 2: a control byte"), "{line}");
    assert_eq!(server.ask(b"bbbb\n").unwrap(), b"bbbb", "nothing is stale");
    assert_eq!(upstream.connections(), 2);
}

#[cfg(feature = "store")]
#[test]
fn after_a_restart_the_store_has_what_is_kept_warm() {
    let (folder, upstream) = (Folder::new(), FakeUpstream::new());
    folder.write("warm", "aaaa\n");
    let start = || {
        let builder = proxy(&upstream).line().store(&folder.path("poems"));
        builder.warm(&folder.path("warm")).start()
    };
    let first = start();
    upstream.accept().skip(6).send(b"poem").close();
    wait_for_fresh(&first, 1);
    wait_until("it is written", || first.store().written == 1);
    first.stop_and_close();

    let second = start();
    wait_for_fresh(&second, 1);
    assert_eq!(second.ask(b"aaaa\n").unwrap(), b"poem");
    assert_eq!(upstream.connections(), 1);
    second.stop_and_close();
}

#[test]
fn a_file_that_cannot_be_used_is_a_usage_error_that_names_the_line() {
    let folder = Folder::new();
    let line = ["proxy", "--protocol", "line", "--warm"];
    let poem = ["proxy", "--warm"];
    for (args, file, wanted) in [
        (&line[..], folder.arg("none"), "no such file or directory"),
        (&line, folder.arg(""), "is a directory"),
        (
            &line,
            folder.write("control", "aaaa\nb\x1b\n"),
            "line 2: a control byte in the request line",
        ),
        (
            &line,
            folder.write("many", "a\n".repeat(10_001)),
            "too long; wanted at most 10000 lines",
        ),
        (&line, "/dev/zero".into(), "too long"),
        (
            &poem,
            folder.write("name", "aaaa\n"),
            "line 1: there is no request in the poem protocol",
        ),
    ] {
        let out = poetry(&[args, &[&file, "127.0.0.1:1"]].concat());
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{file}: {error}");
        assert!(error.contains(wanted), "{error}");
        assert!(error.contains(&file) && error.contains("--warm"), "{error}");
    }
}
