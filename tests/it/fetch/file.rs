//! `fetch -o FILE`: whole or not at all.

use super::{fetch, outcome};
use crate::support::{
    Connection, FakeUpstream, Folder, LONG, Process, Signal, command, run, shell, text, wait_until,
};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;

/// Starts a `fetch` into `file`, and waits for its connection.
fn fetch_into(file: &str, more: &[&str], upstream: &FakeUpstream) -> (Process, Connection) {
    let addr = upstream.addr.to_string();
    let args = [&["fetch", &addr, "-o", file], more].concat();

    let fetch = Process::spawn(command(&args));
    (fetch, upstream.accept())
}

fn wait_for_size(folder: &Folder, bytes: u64) {
    wait_until("the bytes are in a file", || folder.size() == bytes);
}

#[test]
fn a_cut_poem_leaves_the_old_file() {
    let folder = Folder::new();
    let file = folder.write("poem.txt", "the old one");

    let (_, _, code) = fetch(&["-o", &file], |connection| {
        connection.send(b"half").reset()
    });

    assert_eq!(code, Some(56));
    assert_eq!(folder.read("poem.txt"), "the old one");
    assert_eq!(folder.count(), 1, "nothing else is left in the folder");
}

#[test]
fn a_whole_poem_replaces_the_old_file() {
    let folder = Folder::new();
    let file = folder.write("poem.txt", "the old one");

    let serve = |connection: Connection| connection.send(b"the new one").close();
    let (stdout, _, code) = fetch(&["-o", &file], serve);

    assert_eq!((stdout.as_str(), code), ("", Some(0)));
    assert_eq!(folder.read("poem.txt"), "the new one");
    assert_eq!(folder.count(), 1, "nothing else is left in the folder");
}

#[test]
fn a_device_is_written_to() {
    let serve = |connection: Connection| connection.send(b"x").close();
    let (_, _, code) = fetch(&["-o", "/dev/null"], serve);

    assert_eq!(code, Some(0));
}

#[test]
fn a_long_poem_goes_into_the_file_and_not_into_memory() {
    const LENGTH: usize = 128 << 20;
    let upstream = FakeUpstream::new();
    let folder = Folder::new();
    let (fetch, mut connection) = fetch_into(&folder.arg("poem.txt"), &[], &upstream);

    let piece = [b'x'; 1 << 20];
    for _ in 0..LENGTH / piece.len() {
        connection.stream.write_all(&piece).unwrap();
    }
    wait_for_size(&folder, LENGTH as u64);
    let most = fetch.peak_memory();
    assert!(most < LENGTH as u64 / 2, "{most} bytes");
    assert!(!folder.path("poem.txt").exists(), "it is not whole yet");

    connection.close();
    assert_eq!(fetch.finish().status.code(), Some(0));
    let file = std::fs::metadata(folder.path("poem.txt")).unwrap();
    assert_eq!(file.len(), LENGTH as u64);
}

#[test]
fn a_retry_replaces_its_own_part_and_no_other() {
    let first = FakeUpstream::new();
    let second = FakeUpstream::new();
    let folder = Folder::new();
    let more = [&second.addr.to_string(), "--retry", "1"];
    let (fetch, connection) = fetch_into(&folder.arg("poem.txt"), &more, &first);

    connection.send(b"first, ").close();
    let cut = second.accept().send(b"the second, cut off");
    wait_for_size(&folder, 26);
    cut.reset();
    second.serve_once(b"the second");

    assert_eq!(fetch.finish().status.code(), Some(0));
    assert_eq!(folder.read("poem.txt"), "first, the second");
}

#[test]
fn a_pipe_is_written_to_as_the_poem_comes() {
    let upstream = FakeUpstream::new();
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let (fetch, connection) = fetch_into(&folder.arg("pipe"), &[], &upstream);

    let (sender, half) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4];
        let reading = std::fs::File::open(&pipe).and_then(|mut pipe| pipe.read_exact(&mut bytes));
        sender.send(reading.map(|()| bytes)).unwrap();
    });
    let connection = connection.send(b"half");
    let half = half
        .recv_timeout(LONG)
        .expect("nothing comes through the pipe");
    connection.close();

    assert_eq!(&half.unwrap(), b"half");
    assert_eq!(fetch.finish().status.code(), Some(0));
}

#[test]
fn a_dash_is_standard_output() {
    let result = fetch(&["-o", "-"], |connection| connection.send(b"whole").close());

    assert_eq!(result, outcome("whole", "", 0));
    assert!(!Path::new("-").exists());
}

#[test]
fn with_json_the_file_gets_the_objects_of_failures_too() {
    let folder = Folder::new();
    let args = ["--json", "-o", &folder.arg("result.json")];

    let (_, _, code) = fetch(&args, |connection| connection.send(b"a").reset());

    let object: Value = serde_json::from_str(&folder.read("result.json")).unwrap();
    assert_eq!(object["outcome"], "reset");
    assert_eq!(code, Some(56));
}

#[test]
fn a_signal_removes_the_part_and_sets_the_exit_code() {
    for signal in [Signal::TERM, Signal::QUIT, Signal::USR1, Signal::XCPU] {
        let upstream = FakeUpstream::new();
        let folder = Folder::new();
        let file = folder.write("poem.txt", "the old one");
        let (fetch, connection) = fetch_into(&file, &[], &upstream);
        let connection = connection.send(b"half");
        wait_for_size(&folder, 15);

        fetch.signal(signal);

        let out = fetch.finish();
        assert_eq!(out.status.code(), Some(128 + signal.as_raw()));
        assert_eq!(text(&out.stderr), "");
        assert_eq!(folder.read("poem.txt"), "the old one");
        assert_eq!(folder.count(), 1, "nothing else is left in the folder");
        drop(connection);
    }
}

#[test]
fn beyond_the_limit_on_file_sizes_it_is_23_and_leaves_nothing() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_each(|_, connection| drop(connection.flood()));
    let folder = Folder::new();
    let path = folder.arg("poem.txt");

    let limited = |script: &str, args: &[&str]| {
        let script = format!("ulimit -f 8; {script}");
        let out = run(shell(&script, args));
        assert_eq!(out.status.code(), Some(23), "{script}");
        text(&out.stderr)
    };

    let error = limited("exec \"$0\" \"$@\"", &["fetch", "-o", &path, &addr]);
    let expected = format!("poetry: {path}: could not be written: file too large\n");
    assert_eq!(error, expected);
    assert_eq!(folder.count(), 0);

    let error = limited("exec \"$0\" fetch \"$1\" >\"$2\"", &[&addr, &path]);
    let expected = "poetry: standard output: could not be written: file too large\n";
    assert_eq!(error, expected);
}

#[test]
fn another_name_of_standard_output_is_written_where_it_stands() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    upstream.serve_always(b"poem\n");
    let folder = Folder::new();
    let file = folder.arg("out");
    std::os::unix::fs::symlink("/dev/stdout", folder.path("link")).unwrap();

    let link = folder.arg("link");
    for name in ["/dev/stdout", "/dev/fd/1", "/dev/fd/5", &link] {
        let script = "exec >\"$1\" 5>&1; echo header; \"$0\" fetch -o \"$2\" \"$3\"; echo footer";
        let out = run(shell(script, &[&file, name, &addr]));

        assert_eq!(text(&out.stderr), "", "{name}");
        assert_eq!(folder.read("out"), "header\npoem\nfooter\n", "{name}");
    }
    assert_eq!(folder.count(), 2, "nothing else is left in the folder");
}

#[test]
fn a_link_stays_and_its_target_is_written() {
    for old in [None, Some("the old one")] {
        let folder = Folder::new();
        if let Some(old) = old {
            folder.write("target", old);
        }
        std::os::unix::fs::symlink("target", folder.path("link")).unwrap();
        std::os::unix::fs::symlink(folder.path("link"), folder.path("twice")).unwrap();

        let serve = |connection: Connection| connection.send(b"poem").close();
        let link = folder.arg("twice");
        assert_eq!(fetch(&["-o", &link], serve), outcome("", "", 0));

        assert_eq!(folder.read("target"), "poem");
        for link in ["link", "twice"] {
            assert!(folder.path(link).is_symlink(), "{link}");
        }
        assert_eq!(folder.count(), 3, "nothing else is left in the folder");
    }
}

#[test]
fn a_new_file_has_the_old_permissions_but_no_setuid() {
    let folder = Folder::new();
    let file = folder.write("poem.txt", "the old one");
    let setuid = std::fs::Permissions::from_mode(0o4741);
    std::fs::set_permissions(&file, setuid).unwrap();

    let serve = |connection: Connection| connection.send(b"poem").close();
    assert_eq!(fetch(&["-o", &file], serve), outcome("", "", 0));

    let new = std::fs::metadata(&file).unwrap();
    assert_eq!((new.len(), new.mode() & 0o7777), (4, 0o741));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let upstream = FakeUpstream::new();
    let folder = Folder::new();
    let args = [
        "fetch",
        "-o",
        &folder.arg("poem.txt"),
        &upstream.addr.to_string(),
    ];
    let mut fetch = Process::spawn(shell("trap '' HUP INT; exec \"$0\" \"$@\"", &args));
    let connection = upstream.accept().send(b"half");
    wait_for_size(&folder, 4);

    fetch.signal(Signal::HUP);
    fetch.signal(Signal::INT);
    connection.send(b" and half").close();

    assert_eq!(fetch.exit_code(), Some(0));
    assert_eq!(folder.read("poem.txt"), "half and half");
}
