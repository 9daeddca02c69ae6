//! `fetch`: what is printed, what is written, and the exit codes.

use crate::bard::{command, poetry, text, Bard, Call};
use std::process::{Output, Stdio};

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
    (text(&out.stdout), text(&out.stderr).replace(&addr, "ADDR"), out.status.code())
}

#[test]
fn a_whole_poem_is_printed_and_nothing_else() {
    let (stdout, stderr, code) = outcome(fetch(&[], |call| call.say(b"whole\n").finish()));
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("whole\n", "", Some(0)));
}

#[test]
fn a_reset_half_way_is_56_and_the_first_half_has_been_printed() {
    let (stdout, stderr, code) = outcome(fetch(&[], |call| call.say(b"half").reset()));
    assert!("half".starts_with(&stdout), "{stdout}");
    let told = format!("poetry: ADDR: cut off after {} bytes: connection reset by peer\n", stdout.len());
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
    assert_eq!((stderr.as_str(), code), ("poetry: ADDR: no reply within 50ms\n", Some(28)));
    let (_, stderr, code) = outcome(fetch(&["--timeout", "50ms"], silent));
    assert_eq!((stderr.as_str(), code), ("poetry: ADDR: not complete within 50ms\n", Some(28)));
    let (_, stderr, code) = outcome(fetch(&["--max-poem", "4"], |call| call.say(b"fiver").finish()));
    assert_eq!((stderr.as_str(), code), ("poetry: ADDR: longer than 4 bytes\n", Some(63)));
}

#[test]
fn nobody_there_is_7_and_no_such_name_is_6() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let out = poetry(&["fetch", &dead]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(text(&out.stderr), format!("poetry: {dead}: could not connect: connection refused\n"));
    let out = poetry(&["fetch", "nobody.invalid:1"]);
    assert_eq!(out.status.code(), Some(6), "{}", text(&out.stderr));
}

#[test]
fn poems_come_in_the_order_asked_and_the_first_failure_decides() {
    let (slow, fast) = (Bard::new(), Bard::new());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let addrs = [slow.addr.to_string(), dead, fast.addr.to_string()];
    let telling = std::thread::spawn(move || {
        fast.call().say(b"second").finish();
        slow.call().say(b"first ").finish();
    });
    let out = poetry(&["fetch", &addrs[0], &addrs[1], &addrs[2]]);
    telling.join().unwrap();
    assert_eq!((text(&out.stdout).as_str(), out.status.code()), ("first second", Some(7)));
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poem.txt");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "the old one").unwrap();
    let (_, _, code) = outcome(fetch(&["-o", file], |call| call.say(b"half").reset()));
    assert_eq!((code, std::fs::read_to_string(&path).unwrap().as_str()), (Some(56), "the old one"));
    let (stdout, _, code) = outcome(fetch(&["-o", file], |call| call.say(b"the new one").finish()));
    assert_eq!((stdout.as_str(), code), ("", Some(0)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the new one");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left lying about");
    let (_, _, code) = outcome(fetch(&["-o", "/dev/null"], |call| call.say(b"x").finish()));
    assert_eq!(code, Some(0));
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
    assert_eq!((text(&out.stdout).as_str(), out.status.code()), ("at last", Some(0)));
}

#[test]
fn json_tells_how_it_went() {
    let (out, addr) = fetch(&["--json"], |call| call.say(b"abc").finish());
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((told["address"].as_str(), told["outcome"].as_str()), (Some(addr.as_str()), Some("whole")));
    assert_eq!((told["poem"].as_str(), told["bytes"].as_u64()), (Some("abc"), Some(3)));
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(told["sha256"].as_str(), Some(sha256));
    let (out, _) = fetch(&["--json"], |call| call.say(b"\xff").finish());
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((told["poem_base64"].as_str(), told.get("poem")), (Some("/w=="), None));
    let (out, _) = fetch(&["--json"], |call| call.finish());
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((told["outcome"].as_str(), out.status.code()), (Some("empty"), Some(52)));
}

#[test]
fn poems_can_be_transformed_on_the_way() {
    let (stdout, _, code) =
        outcome(fetch(&["--transform", "shout,reverse"], |call| call.say(b"a\nb\n").finish()));
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
    let mut child = command(&["fetch", &addr]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((text(&out.stderr).as_str(), out.status.code()), ("", Some(0)));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = command(&["fetch", &addr]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(23));
    assert_eq!(text(&out.stderr), "poetry: standard output: could not be written: no space left on device\n");
    reciting.join().unwrap();
}
