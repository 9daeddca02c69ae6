//! Disks that are full, pipes that are closed, and sockets and clocks of the machine.

use crate::support::{
    FakeUpstream, Folder, LONG, Process, ServerProcess, Signal, command, poetry, run, shell, text,
    wait_until,
};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[test]
fn a_full_disk_is_23() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(&[b'x'; 64 << 10]);

    let out = poetry(&["fetch", &addr, "-o", "/dev/full"]);

    let expected = "poetry: /dev/full: could not be written: no space left on device\n";
    assert_eq!(out.status.code(), Some(23));
    assert_eq!(text(&out.stderr), expected);
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(&[b'x'; 64 << 10]);
    let folder = Folder::new();
    let file = folder.write("poem", "the old one");

    // A limit on the size of files stands in for a full disk: 8 blocks of 512 bytes.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let out = run(shell(script, &["fetch", &addr, "-o", &file]));

    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(23), "{error}");
    assert!(
        error.ends_with("could not be written: file too large\n"),
        "{error}"
    );
    assert_eq!(folder.read("poem"), "the old one");
    assert_eq!(folder.count(), 1, "nothing else is left in the folder");
}

#[test]
fn a_closed_stdout_ends_a_filter_quietly() {
    let mut command = command(&["transform", "shout"]);
    command.stdin(Stdio::piped());
    let mut filter = Process::spawn(command);
    drop(filter.child.stdout.take());

    filter.write_stdin(&[b'x'; 1 << 20]);

    let out = filter.finish();
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn a_closed_stdout_stops_no_server() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let listen = format!("unix:{}", path.display());

    let script = "exec \"$0\" \"$@\" >&- 2>&-";
    let args = ["serve", "--listen", &listen, "poetry/furuike.txt"];
    let mut server = Process::spawn(shell(script, &args));
    let mut poem = Vec::new();
    wait_until("it serves", || {
        let Ok(mut stream) = UnixStream::connect(&path) else {
            return false;
        };
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.read_to_end(&mut poem).is_ok()
    });
    assert_eq!(poem, std::fs::read("poetry/furuike.txt").unwrap());

    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn an_unread_log_stops_no_server() {
    let args = ["serve", "--port", "0", "-v", "poetry/furuike.txt"];
    let mut server = ServerProcess::start(&args);
    let poem = std::fs::read("poetry/furuike.txt").unwrap();

    // Far more lines than a pipe and the queue of the log hold.
    for _ in 0..6000 {
        assert_eq!(server.get().unwrap(), poem);
    }

    server.stop();
}

#[test]
fn only_a_socket_file_without_a_listener_is_taken_over() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let listen = format!("unix:{}", path.display());
    let assert_refused = || {
        let out = poetry(&["serve", "--listen", &listen]);
        let expected = format!("poetry: {listen}: could not listen: address already in use\n");
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(text(&out.stderr), expected);
    };

    // Another kind of file.
    folder.write("socket", "another file");
    assert_refused();
    assert_eq!(folder.read("socket"), "another file");
    std::fs::remove_file(&path).unwrap();

    // A socket with a listener.
    let listener = UnixListener::bind(&path).unwrap();
    assert_refused();
    assert!(
        UnixStream::connect(&path).is_ok(),
        "it is still its holder's"
    );

    // The same without it.
    drop(listener);
    let server = ServerProcess::start(&["serve", "--listen", &listen]);
    assert!(server.ready.ends_with(&listen));
}

/// A wall clock that jumps must make nothing old, fresh or late: all times are those of
/// the monotonic clock, and the wall clock dates what is written: the JSON log, what an
/// operator reads, and the start of this process. No test can set the machine's clock,
/// so this one reads the source.
#[test]
fn the_wall_clock_dates_what_is_written_and_decides_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut readers: Vec<PathBuf> = Vec::new();

    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]").next().unwrap();
            let count = code.matches("SystemTime::now()").count();
            let name = path.strip_prefix(&root).unwrap().to_path_buf();
            readers.extend(std::iter::repeat_n(name, count));
        }
    }

    readers.sort();
    let expected = [
        "core/admin/clock.rs",
        "core/admin/process.rs",
        "core/observe/json.rs",
        "core/store/clock.rs", // ages over a start of the machine: see store/age.rs
    ];
    assert_eq!(readers, expected.map(PathBuf::from));
}
