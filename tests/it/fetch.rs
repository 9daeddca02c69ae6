//! `fetch`: what is printed, what is written, and the exit codes.

use crate::bard::{Bard, Call, LONG, command, poetry, text, until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Output, Stdio};

/// Runs `fetch` against a bard that does this to its first caller.
fn fetch(args: &[&str], act: impl FnOnce(Call) + Send + 'static) -> (Output, String) {
    let bard = Bard::new();
    let addr = bard.addr.to_string();
    let acting = std::thread::spawn(move || act(bard.call()));
    let out = poetry(&[&["fetch", &addr][..], args].concat());
    acting.join().unwrap();
    (out, addr)
}

fn outcome((out, addr): (Output, String)) -> (String, String, Option<i32>) {
    (
        text(&out.stdout),
        text(&out.stderr).replace(&addr, "ADDR"),
        out.status.code(),
    )
}

#[test]
fn a_whole_poem_is_printed_and_nothing_else() {
    let (stdout, stderr, code) = outcome(fetch(&[], |call| call.say(b"whole\n").finish()));
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("whole\n", "", Some(0))
    );
}

#[test]
fn a_reset_half_way_is_56_and_the_first_half_has_been_printed() {
    let (stdout, stderr, code) = outcome(fetch(&[], |call| call.say(b"half").reset()));
    assert!("half".starts_with(&stdout), "{stdout}");
    let told = format!(
        "poetry: ADDR: cut off after {} bytes: connection reset by peer\n",
        stdout.len()
    );
    assert_eq!((stderr, code), (told, Some(56)));
}

#[test]
fn an_empty_reply_is_52_and_silence_is_28_and_a_long_poem_is_63() {
    assert_eq!(
        outcome(fetch(&[], |call| call.finish())),
        ("".into(), "poetry: ADDR: an empty reply\n".into(), Some(52))
    );
    let silent = Call::hear_nothing;
    let (_, stderr, code) = outcome(fetch(&["--idle-timeout", "50ms"], silent));
    assert_eq!(
        (stderr.as_str(), code),
        ("poetry: ADDR: no reply within 50ms\n", Some(28))
    );
    let (_, stderr, code) = outcome(fetch(&["--timeout", "50ms"], silent));
    assert_eq!(
        (stderr.as_str(), code),
        ("poetry: ADDR: not complete within 50ms\n", Some(28))
    );
    let (_, stderr, code) = outcome(fetch(&["--max-poem", "4"], |call| {
        call.say(b"fiver").finish()
    }));
    assert_eq!(
        (stderr.as_str(), code),
        ("poetry: ADDR: longer than 4 bytes\n", Some(63))
    );
}

#[test]
fn nobody_there_is_7_and_no_such_name_is_6() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let out = poetry(&["fetch", &dead]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(
        text(&out.stderr),
        format!("poetry: {dead}: could not connect: connection refused\n")
    );
    let out = poetry(&["fetch", "nobody.invalid:1"]);
    assert_eq!(out.status.code(), Some(6), "{}", text(&out.stderr));
}

#[test]
fn poems_come_in_the_order_asked_and_the_first_failure_decides() {
    let (slow, fast) = (Bard::new(), Bard::new());
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let addrs = [slow.addr.to_string(), dead, fast.addr.to_string()];
    let telling = std::thread::spawn(move || {
        fast.call().say(b"second").finish();
        slow.call().say(b"first ").finish();
    });
    let out = poetry(&["fetch", &addrs[0], &addrs[1], &addrs[2]]);
    telling.join().unwrap();
    assert_eq!(
        (text(&out.stdout).as_str(), out.status.code()),
        ("first second", Some(7))
    );
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poem.txt");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "the old one").unwrap();
    let (_, _, code) = outcome(fetch(&["-o", file], |call| call.say(b"half").reset()));
    assert_eq!(
        (code, std::fs::read_to_string(&path).unwrap().as_str()),
        (Some(56), "the old one")
    );
    let (stdout, _, code) = outcome(fetch(&["-o", file], |call| {
        call.say(b"the new one").finish()
    }));
    assert_eq!((stdout.as_str(), code), ("", Some(0)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the new one");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left lying about"
    );
    let (_, _, code) = outcome(fetch(&["-o", "/dev/null"], |call| call.say(b"x").finish()));
    assert_eq!(code, Some(0));
}

/// Starts a `fetch` into this file, and waits for its call.
fn fetch_into(file: &Path, more: &[&str], bard: &Bard) -> (Child, Call) {
    let addr = bard.addr.to_string();
    let mut fetching = command(&["fetch", &addr, "-o", file.to_str().unwrap()]);
    let child = fetching
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    (child, bard.call())
}

/// How many bytes the files of this folder have together.
fn written(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().map_or(0, |meta| meta.len()))
        .sum()
}

#[test]
fn a_long_poem_goes_into_the_file_as_it_comes_and_not_into_memory() {
    const LENGTH: usize = 128 << 20;
    let (bard, folder) = (Bard::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("poem.txt");
    let (child, mut call) = fetch_into(&path, &[], &bard);
    let verse = [b'x'; 1 << 20];
    (0..LENGTH / verse.len())
        .for_each(|_| std::io::Write::write_all(&mut call.stream, &verse).unwrap());
    until("all of it is in the file", || {
        written(folder.path()) == LENGTH as u64
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let most = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let most: usize = most.split_whitespace().next().unwrap().parse().unwrap();
    assert!(most << 10 < LENGTH / 2, "{most} KiB");
    assert!(
        !path.exists(),
        "it is put in its place only when it is whole"
    );
    call.finish();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), LENGTH as u64);
}

#[test]
fn another_try_for_a_file_begins_at_the_beginning_of_its_poem_and_keeps_those_before_it() {
    let (first, second) = (Bard::new(), Bard::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poem.txt");
    let other = second.addr.to_string();
    let (child, call) = fetch_into(&path, &[&other, "--retry", "1"], &first);
    call.say(b"first, ").finish();
    let call = second.call().say(b"the second, cut off");
    until("the part is in the file", || written(folder.path()) == 26);
    call.reset();
    second.call().say(b"the second").finish();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "first, the second");
}

#[test]
fn what_is_no_file_is_written_to_as_the_poem_comes() {
    let (bard, folder) = (Bard::new(), tempfile::tempdir().unwrap());
    let pipe = folder.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let (child, call) = fetch_into(&pipe, &[], &bard);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut heard = [0; 4];
        let reading = std::fs::File::open(&pipe).and_then(|mut pipe| pipe.read_exact(&mut heard));
        tell.send(reading.map(|()| heard)).unwrap();
    });
    let call = call.say(b"half");
    let heard = told
        .recv_timeout(LONG)
        .expect("nothing is written while the poem comes")
        .unwrap();
    call.finish();
    assert_eq!(
        (&heard, child.wait_with_output().unwrap().status.code()),
        (b"half", Some(0))
    );
}

#[test]
fn a_dash_is_standard_output() {
    let (stdout, stderr, code) = outcome(fetch(&["-o", "-"], |call| call.say(b"whole").finish()));
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("whole", "", Some(0))
    );
    assert!(!Path::new("-").exists());
}

#[test]
fn with_json_the_file_gets_the_objects_of_failures_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("told.json");
    let (_, _, code) = outcome(fetch(&["--json", "-o", path.to_str().unwrap()], |call| {
        call.say(b"a").reset()
    }));
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((told["outcome"].as_str(), code), (Some("reset"), Some(56)));
}

#[test]
fn a_signal_removes_what_was_written_of_a_file_and_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poem.txt");
    std::fs::write(&path, "the old one").unwrap();
    let bard = Bard::new();
    let (child, call) = fetch_into(&path, &[], &bard);
    let call = call.say(b"half");
    until("the part is in a file", || written(folder.path()) == 15);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(
        (out.status.code(), text(&out.stderr).as_str()),
        (Some(128 + 15), "")
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the old one");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left lying about"
    );
    drop(call);
}

#[test]
fn what_replaces_a_file_has_its_permissions_but_no_rights_of_a_programs_own() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poem.txt");
    std::fs::write(&path, "the old one").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4741)).unwrap();
    let out = fetch(&["-o", path.to_str().unwrap()], |call| {
        call.say(b"poem").finish()
    });
    assert_eq!(outcome(out), (String::new(), String::new(), Some(0)));
    let new = std::fs::metadata(&path).unwrap();
    assert_eq!((new.len(), new.mode() & 0o7777), (4, 0o741));
}

#[test]
fn without_a_file_a_signal_does_what_it_always_does() {
    use std::os::unix::process::ExitStatusExt;
    let bard = Bard::new();
    let mut command = command(&["fetch", &bard.addr.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let call = bard.call().say(b"half");
    out.read_exact(&mut [0; 4]).unwrap();
    // The one that nobody has the tests ignore who runs them in the background.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    drop(call);
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let (bard, folder) = (Bard::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("poem.txt");
    let mut child = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' HUP INT; exec \"$@\"",
            "nohup",
            env!("CARGO_BIN_EXE_poetry"),
            "fetch",
            "-o",
        ])
        .args([path.to_str().unwrap(), &bard.addr.to_string()])
        .spawn()
        .unwrap();
    let call = bard.call().say(b"half");
    until("the part is in a file", || written(folder.path()) == 4);
    for signal in [Signal::HUP, Signal::INT] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    call.say(b" and half").finish();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "half and half");
}

#[test]
fn another_try_is_made_while_nothing_has_been_printed() {
    let bard = Bard::new();
    let addr = bard.addr.to_string();
    let acting = std::thread::spawn(move || {
        bard.call().reset();
        bard.call().say(b"at last").finish();
    });
    let out = poetry(&["fetch", &addr, "--retry", "2"]);
    acting.join().unwrap();
    assert_eq!(
        (text(&out.stdout).as_str(), out.status.code()),
        ("at last", Some(0))
    );
}

#[test]
fn json_tells_how_it_went() {
    let (out, addr) = fetch(&["--json"], |call| call.say(b"abc").finish());
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (told["address"].as_str(), told["outcome"].as_str()),
        (Some(addr.as_str()), Some("whole"))
    );
    assert_eq!(
        (told["poem"].as_str(), told["bytes"].as_u64()),
        (Some("abc"), Some(3))
    );
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(told["sha256"].as_str(), Some(sha256));
    let (out, _) = fetch(&["--json"], |call| call.say(b"\xff").finish());
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (told["poem_base64"].as_str(), told.get("poem")),
        (Some("/w=="), None)
    );
    let (out, _) = fetch(&["--json"], |call| call.finish());
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (told["outcome"].as_str(), out.status.code()),
        (Some("empty"), Some(52))
    );
}

#[test]
fn poems_can_be_transformed_on_the_way() {
    let (stdout, _, code) = outcome(fetch(&["--transform", "shout,reverse"], |call| {
        call.say(b"a\nb\n").finish()
    }));
    assert_eq!((stdout.as_str(), code), ("B\nA\n", Some(0)));
}

#[test]
fn a_closed_stdout_ends_it_quietly_and_a_full_disk_is_23() {
    let endless = |call: Call| {
        let mut stream = call.stream;
        while std::io::Write::write_all(&mut stream, &[b'x'; 1 << 16]).is_ok() {}
    };
    let bard = Bard::new();
    let addr = bard.addr.to_string();
    let reciting = std::thread::spawn(move || {
        endless(bard.call());
        endless(bard.call());
    });
    let mut child = command(&["fetch", &addr])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(
        (text(&out.stderr).as_str(), out.status.code()),
        ("", Some(0))
    );
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let out = command(&["fetch", &addr])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(23));
    assert_eq!(
        text(&out.stderr),
        "poetry: standard output: could not be written: no space left on device\n"
    );
    reciting.join().unwrap();
}
