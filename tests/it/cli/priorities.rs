//! The priorities of log lines, for the journal and nothing else.

use crate::support::{Folder, RESET, ServerProcess, Signal, command, unused_addr, wait_until};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// The log, into a file that `JOURNAL_STREAM` names or does not name, of a proxy that
/// has failed, purged and stopped.
fn log(is_journal: bool, format: &str) -> String {
    let folder = Folder::new();
    let path = folder.path("log");
    let file = File::create(&path).unwrap();
    let inode = file.metadata().unwrap().ino() + u64::from(!is_journal);
    let device = file.metadata().unwrap().dev();

    let addr = unused_addr().to_string();
    let mut command = command(&["proxy", "--port", "0", "--log-format", format, &addr]);
    command.env("JOURNAL_STREAM", format!("{device}:{inode}"));
    command.stderr(file);
    let mut server = ServerProcess::start_command(command);
    assert_eq!(server.get(), RESET);
    server.signal(Signal::HUP);
    let read = || std::fs::read_to_string(&path).unwrap();
    wait_until("the purge is logged", || read().contains("purge"));
    server.stop();
    read()
}

/// The priorities of the lines that contain this.
fn priorities(log: &str, part: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(part));
    let priority = |line: &str| line.split_inclusive('>').next().unwrap().to_string();
    let found: Vec<String> = lines.map(priority).collect();
    assert!(!found.is_empty(), "{part}: {log}");
    found
}

#[test]
fn each_line_of_the_journal_has_its_priority() {
    let text = log(true, "text");
    assert_eq!(priorities(&text, "fetching a poem"), ["<6>"]);
    assert!(
        priorities(&text, "connection refused")
            .iter()
            .all(|p| p == "<4>")
    );
    assert_eq!(priorities(&text, "purged 0 cached answers"), ["<5>"]);

    let json = log(true, "json");
    assert_eq!(priorities(&json, r#""event":"start""#), ["<6>"]);
    assert_eq!(priorities(&json, r#""class":"failure""#), ["<4>"]);
    assert_eq!(priorities(&json, r#""event":"upstream_down""#), ["<4>"]);
    assert_eq!(priorities(&json, r#""event":"purge""#), ["<5>"]);
    assert_eq!(priorities(&json, r#""event":"stop""#), ["<5>"]);
    let rest = json.lines().map(|line| line.split_at(3).1);
    for line in rest {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn elsewhere_no_line_has_a_priority() {
    for format in ["text", "json"] {
        let log = log(false, format);
        let starts = |line: &str| line.starts_with('<');
        assert!(!log.is_empty() && !log.lines().any(starts), "{log}");
    }
}

#[test]
fn the_error_that_ends_the_command_is_the_worst() {
    let folder = Folder::new();
    let path = folder.path("log");
    let file = File::create(&path).unwrap();
    let metadata = file.metadata().unwrap();
    let mut command = command(&["serve", "no such folder"]);
    command.env(
        "JOURNAL_STREAM",
        format!("{}:{}", metadata.dev(), metadata.ino()),
    );
    command.stderr(file);

    assert_eq!(command.status().unwrap().code(), Some(1));
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.starts_with("<3>poetry: no such folder"), "{log}");
}
