//! `serve`: any bytes, exactly, also for clients that send something, are slow, or have
//! closed their half.

mod files;

use crate::support::{
    Client, Folder, LONG, ServerProcess, Signal, bind, count, long_poem, poetry, serve, text,
    wait_until,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn every_byte_arrives_as_it_is() {
    let all: Vec<u8> = (0..=255).collect();
    let server = serve(&[&all]).start();

    assert_eq!(server.get().unwrap(), all);
}

#[test]
fn several_poems_take_turns() {
    let server = serve(&[b"a", b"b"]).start();

    let poems: Vec<Vec<u8>> = (0..4).map(|_| server.get().unwrap()).collect();

    assert_eq!(poems, [b"a", b"b", b"a", b"b"]);
}

#[test]
fn a_client_that_sends_bytes_loses_nothing_of_a_long_poem() {
    let poem = long_poem(4 << 20);
    let server = serve(&[&poem]).start();

    for _ in 0..20 {
        let mut client = server.connect();
        client.send(b"hi\n");
        assert!(client.rest().unwrap() == poem);
    }
}

#[test]
fn a_client_that_sends_bytes_loses_nothing_of_a_short_poem() {
    let server = serve(&[b"small"]).start();

    for _ in 0..100 {
        let mut client = server.connect();
        client.try_send(b"hi\n");
        assert_eq!(client.rest().unwrap(), b"small");
    }

    server.wait_for_open(0);
}

#[test]
fn a_client_that_half_closes_gets_the_whole_poem() {
    let poem = long_poem(4 << 20);
    let server = serve(&[&poem]).start();

    let mut client = server.connect();
    client.half_close();

    assert!(client.rest().unwrap() == poem);
}

#[test]
fn slow_poems_run_side_by_side_and_end_with_their_clients() {
    let builder = serve(&[b"slow but sure"]);
    let server = builder.pace(1, Duration::from_millis(2)).start();

    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    drop(clients.pop());
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"slow but sure");
    }

    server.wait_for_open(0);
    let ended = count(&server.stats.own) + count(&server.stats.failures);
    assert_eq!(ended, 50);
}

#[test]
fn a_hangup_reads_the_poems_again_or_keeps_the_old_ones() {
    let folder = Folder::new();
    let path = folder.write("poem.txt", "old");
    let server = ServerProcess::start(&["serve", "--port", "0", &path]);
    assert_eq!(server.get().unwrap(), b"old");

    folder.write("poem.txt", "new");
    server.signal(Signal::HUP);
    wait_until("the new poem is served", || server.get().unwrap() == b"new");

    std::fs::remove_file(&path).unwrap();
    server.signal(Signal::HUP);
    assert_eq!(server.get().unwrap(), b"new");
}

#[test]
fn a_unix_socket_serves_and_its_file_is_removed_at_the_end() {
    let folder = Folder::new();
    let path = folder.path("socket");
    // A crashed server leaves this behind: a socket file without a listener.
    drop(UnixListener::bind(&path).unwrap());

    let addr = unix(&path);
    let mut server = ServerProcess::start(&["serve", "--listen", &addr, "poetry/furuike.txt"]);
    assert_eq!(server.ready, format!("Serving 1 poem on {addr}"));

    let mut poem = Vec::new();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.read_to_end(&mut poem).unwrap();
    assert_eq!(poem, std::fs::read("poetry/furuike.txt").unwrap());

    server.stop();
    assert!(!path.exists());
}

/// The address of the socket at `path`.
fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[test]
fn a_server_removes_its_socket_file_and_not_its_successors() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let bind = || bind(&unix(&path)).unwrap();

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
fn a_socket_file_with_a_full_queue_is_in_use() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let addr = unix(&path);

    // A listener whose queue is full.
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let at = SockAddr::unix(&path).unwrap();
    let holder = socket();
    holder.bind(&at).unwrap();
    holder.listen(0).unwrap();
    let connect = || {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        client.connect(&at).map(|()| client)
    };
    let queued: Vec<Socket> = std::iter::repeat_with(connect)
        .map_while(Result::ok)
        .collect();
    assert!(!queued.is_empty());

    // Looking at it does not wait.
    let (sender, result) = channel();
    let again = addr.clone();
    std::thread::spawn(move || sender.send(bind(&again).err()));
    let error = result.recv_timeout(LONG).expect("bind waits for the queue");
    let expected = format!("{addr}: could not listen: address already in use");
    assert_eq!(error.unwrap(), expected);

    // Without its listener it is taken over. A process that another test is starting
    // may have a copy of the listener for a moment yet.
    drop((holder, queued));
    wait_until("the file is taken over", || bind(&addr).is_ok());
}

#[test]
fn an_error_says_how_long_the_path_of_a_socket_may_be() {
    let addr = format!("unix:/{}", "x".repeat(107));

    for args in [["serve", "--listen", &addr].as_slice(), &["fetch", &addr]] {
        let out = poetry(args);
        let expected = format!("poetry: {addr}: the path is longer than 107 bytes\n");
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(text(&out.stderr), expected);
    }
}
