//! Pipes and sockets that are full: nothing that is printed or announced may hold up a
//! service.

use crate::support::{
    Folder, LONG, Process, ServerProcess, Signal, command, shell, text, wait_until,
};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

/// A stream that takes no byte more, and its other end.
fn full_stream() -> (OwnedFd, UnixStream) {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    for size in [64 << 10, 1] {
        while writer.write(&vec![b'\n'; size]).is_ok() {}
    }
    writer.set_nonblocking(false).unwrap();
    (writer.into(), reader)
}

/// The poem that the socket at `path` serves, once it does.
fn wait_for_poem(path: &Path) -> Vec<u8> {
    let mut poem = Vec::new();
    wait_until("it serves", || {
        let Ok(mut stream) = UnixStream::connect(path) else {
            return false;
        };
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.read_to_end(&mut poem).is_ok()
    });
    poem
}

#[test]
fn a_full_stdout_holds_up_neither_start_nor_stop() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let listen = format!("unix:{}", path.display());
    let (stdout, _reader) = full_stream();
    let mut serve = command(&["serve", "--listen", &listen, "poetry/furuike.txt"]);
    serve.stdout(stdout);
    let mut server = Process::spawn(serve);

    let poem = wait_for_poem(&path);
    assert_eq!(poem, std::fs::read("poetry/furuike.txt").unwrap());

    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_full_stderr_holds_up_neither_reloads_nor_clients() {
    let folder = Folder::new();
    folder.write("a.txt", "a poem");
    folder.write("a\u{1}.txt", "its name fits no line");
    let poems = folder.path("").display().to_string();
    let (stderr, _reader) = full_stream();
    let mut serve = command(&["serve", "--port", "0", "--protocol", "line", &poems]);
    serve.stderr(stderr);
    let mut server = ServerProcess::start_command(serve);

    folder.write("b.txt", "another poem");
    server.signal(Signal::HUP);
    wait_until("the poems are read again", || {
        server.ask(b"b\n").unwrap() == b"another poem"
    });

    std::fs::remove_dir_all(folder.path("")).unwrap();
    server.signal(Signal::HUP);
    assert_eq!(server.ask(b"a\n").unwrap(), b"a poem");
    server.stop();
}

#[test]
fn a_full_manager_hears_later_and_holds_up_nothing() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    other.connect(&path).unwrap();
    while other.send(b"STATUS=busy").is_ok() {}

    let mut serve = command(&["serve", "--port", "0", "poetry/furuike.txt"]);
    serve.env("NOTIFY_SOCKET", &path);
    let mut server = ServerProcess::start_command(serve);
    server.get().unwrap();

    let heard = |wanted: &str| {
        let mut buffer = [0; 64];
        loop {
            let count = manager.recv(&mut buffer).unwrap();
            if text(&buffer[..count]).contains(wanted) {
                return;
            }
        }
    };
    heard("READY=1");

    while other.send(b"STATUS=busy").is_ok() {}
    server.stop();
}

#[test]
fn a_limit_on_the_size_of_files_costs_log_lines_only() {
    let folder = Folder::new();
    let log = folder.path("log");
    let script = format!("ulimit -f 8; exec \"$0\" \"$@\" 2>'{}'", log.display());
    let args = ["serve", "-v", "--port", "0", "poetry/furuike.txt"];
    let mut server = ServerProcess::start_command(shell(&script, &args));

    for _ in 0..300 {
        server.get().unwrap();
    }
    wait_until("the log has reached the limit", || {
        std::fs::metadata(&log).unwrap().len() == 8 * 512
    });
    server.get().unwrap();

    server.stop();
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_of_fetch() {
    let poem = Folder::new();
    let server = ServerProcess::start(&[
        "serve",
        "--port",
        "0",
        &poem.write("long.txt", "x".repeat(64 << 10)),
    ]);
    let out = poem.path("out");
    let script = format!("ulimit -f 8; exec \"$0\" \"$@\" >'{}'", out.display());

    let fetch = shell(&script, &["fetch", &server.addr.to_string()]);
    let out = Process::spawn(fetch).finish();

    let expected = "poetry: standard output: could not be written: file too large\n";
    assert_eq!(text(&out.stderr), expected);
    assert_eq!(out.status.code(), Some(23));
}
