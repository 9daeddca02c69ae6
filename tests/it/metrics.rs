//! `/metrics`: the text, and all that is written about it outside of the code.

mod cost;
mod dist;
mod live;
mod page;
mod prometheus;
mod sample;
mod text;

use std::path::PathBuf;
use std::process::Command;

/// A file of this repository.
fn file(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Whether a program of Debian's package prometheus is there. If not, says what isn't
/// tested.
fn is_installed(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: {program} is not installed");
    }
    is_there
}
