//! `serve`: any bytes, exactly, also for clients that talk, are slow, or have closed their half.

use crate::bard::{Client, Daemon, LIMITS, LONG, Running, poetry, text, until};
use poetry::addr::Addr;
use poetry::anthology::PoemSource;
use poetry::handler::serve::{Pick, Serve, ServeSettings};
use poetry::net::Listener;
use poetry::protocol::Protocol;
use poetry::rt;
use poetry::script::Script;
use poetry::trickle::Pace;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn serve(poems: &[&[u8]], pace: Option<Pace>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    for (at, poem) in poems.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{at}.txt")), poem).unwrap();
    }
    let source = PoemSource::Paths(vec![folder.path().to_path_buf()]);
    Running::start(LIMITS, |_| {
        let settings = ServeSettings {
            protocol: Protocol::Poem,
            pick: Pick::Cycle,
            pace,
        };
        Serve::new(source, settings, Script::new(Vec::new())).unwrap()
    })
}

fn large() -> Vec<u8> {
    (0..4u32 << 20).map(|i| (i ^ (i >> 7)) as u8).collect()
}

#[test]
fn every_byte_arrives_as_it_is() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(serve(&[&all], None).ask().unwrap(), all);
}

#[test]
fn several_poems_take_turns() {
    let server = serve(&[b"a", b"b"], None);
    let asked: Vec<Vec<u8>> = (0..4).map(|_| server.ask().unwrap()).collect();
    assert_eq!(asked, [b"a", b"b", b"a", b"b"]);
}

#[test]
fn a_client_that_talks_loses_nothing_of_a_large_poem() {
    let poem = large();
    let server = serve(&[&poem], None);
    for _ in 0..20 {
        let mut client = server.connect();
        client.say(b"hi\n");
        assert!(client.rest().unwrap() == poem);
    }
}

#[test]
fn a_client_that_talks_loses_nothing_of_a_small_poem_either() {
    let server = serve(&[b"small"], None);
    for _ in 0..100 {
        let mut client = server.connect();
        let _too_late_is_fine = client.stream.write_all(b"hi\n");
        assert_eq!(client.rest().unwrap(), b"small");
    }
    server.open(0);
}

#[test]
fn a_half_closed_client_is_no_gone_client() {
    let poem = large();
    let server = serve(&[&poem], None);
    let mut client = server.connect();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.rest().unwrap() == poem);
}

#[test]
fn slow_recitals_run_side_by_side_and_end_when_their_client_leaves() {
    let pace = Pace {
        bytes: 1,
        delay: Duration::from_millis(2),
    };
    let server = serve(&[b"slow but sure"], Some(pace));
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    drop(clients.pop());
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"slow but sure");
    }
    server.open(0);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&server.stats.own) + count(&server.stats.failures), 50);
}

#[test]
fn a_unix_socket_serves_and_its_file_is_removed_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    // What a crashed server leaves behind: a socket file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let arg = format!("unix:{}", path.display());
    let mut daemon = Daemon::start(&["serve", "--listen", &arg, "poetry/furuike.txt"]);
    assert_eq!(daemon.ready, format!("Serving 1 poem on {arg}"));
    let mut poem = Vec::new();
    std::io::Read::read_to_end(&mut UnixStream::connect(&path).unwrap(), &mut poem).unwrap();
    assert_eq!(poem, std::fs::read("poetry/furuike.txt").unwrap());
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_hangup_reads_the_poems_again_and_a_failure_keeps_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poem.txt");
    std::fs::write(&path, "old").unwrap();
    let daemon = Daemon::start(&["serve", "--port", "0", path.to_str().unwrap()]);
    let ask = || Client::connect(daemon.addr).rest().unwrap();
    assert_eq!(ask(), b"old");
    std::fs::write(&path, "new").unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    crate::bard::until("the new poem is served", || ask() == b"new");
    std::fs::remove_file(&path).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    assert_eq!(ask(), b"new");
}

/// A folder, and the address of a socket in it.
fn socket() -> (tempfile::TempDir, std::path::PathBuf, Addr) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let addr = Addr::Unix(path.clone());
    (folder, path, addr)
}

#[test]
fn a_server_that_stops_removes_its_socket_file_and_not_that_of_its_successor() {
    let (_folder, path, addr) = socket();
    let bind = || rt::block_on(Listener::bind(&addr)).unwrap();
    drop(bind());
    assert!(!path.exists());
    let old = bind();
    std::fs::remove_file(&path).unwrap();
    let new = bind();
    drop(old);
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
}

#[test]
fn a_socket_file_whose_queue_is_full_is_in_use_and_one_left_over_is_not() {
    let (_folder, path, addr) = socket();
    let end = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let at = socket2::SockAddr::unix(&path).unwrap();
    let holder = end();
    holder.bind(&at).unwrap();
    holder.listen(0).unwrap();
    let queued: Vec<socket2::Socket> = std::iter::repeat_with(|| {
        let client = end();
        client.set_nonblocking(true).unwrap();
        client.connect(&at).map(|()| client)
    })
    .map_while(Result::ok)
    .collect();
    assert!(!queued.is_empty());
    let (tell, told) = std::sync::mpsc::channel();
    let again = addr.clone();
    std::thread::spawn(move || {
        tell.send(
            rt::block_on(Listener::bind(&again))
                .err()
                .map(|e| e.to_string()),
        )
    });
    let why = told
        .recv_timeout(LONG)
        .expect("the probe waits for a place in the queue")
        .unwrap();
    assert_eq!(
        why,
        format!(
            "unix:{}: could not listen: address already in use",
            path.display()
        )
    );
    drop((holder, queued));
    // A process that another test is starting may have a copy of it for a moment yet.
    until("it is left over", || {
        rt::block_on(Listener::bind(&addr)).is_ok()
    });
}

#[test]
fn a_path_too_long_for_a_unix_socket_is_told_how_long_it_may_be() {
    let addr = format!("unix:/{}", "x".repeat(107));
    for args in [["serve", "--listen", &addr].as_slice(), &["fetch", &addr]] {
        let out = poetry(args);
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(
            text(&out.stderr),
            format!("poetry: {addr}: the path is longer than 107 bytes\n")
        );
    }
}
