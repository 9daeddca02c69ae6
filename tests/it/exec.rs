//! `transform --exec`: programs that do what they should, and programs that don't.

mod filter;
mod flags;
mod service;

use crate::support::{Folder, poetry, text, wait_until};
use std::path::Path;
use std::process::Output;

/// Runs the filter with one program, `x`, over `poem`.
fn filter(folder: &Folder, program: &str, poem: &[u8], more: &[&str]) -> Output {
    let path = folder.write("poem", poem);
    let exec = format!("--exec=x={program}");
    poetry(&[&["transform", &exec, "x", &path], more].concat())
}

/// Its output and its exit code.
fn outcome(out: &Output) -> (String, Option<i32>) {
    (text(&out.stdout), out.status.code())
}

/// Its errors and its exit code.
fn error(out: &Output) -> (String, Option<i32>) {
    (text(&out.stderr), out.status.code())
}

/// A program that writes its process group into `folder`. It hangs, and so does its
/// child. Both outlive the deadline of the tests, and end soon after it if nothing
/// kills them.
pub fn hanging_program(folder: &Folder) -> String {
    let note = folder.arg("group");
    format!("sh -c 'sleep 100 & echo $$ >{note}.new && mv {note}.new {note}; sleep 100'")
}

/// The process group of a program that has written it into `folder`.
pub fn group_of_program(folder: &Folder) -> u32 {
    let note = folder.path("group");
    wait_until("the program writes its group", || note.exists());
    folder.read("group").trim().parse().unwrap()
}

pub fn wait_until_group_is_dead(folder: &Folder) {
    let group = group_of_program(folder);
    let is_alive = |p: &Stat| p.group == group && p.state != 'Z';

    wait_until("the group is dead", || !processes().iter().any(is_alive));
}

/// How many children the process `parent` has.
fn children(parent: u32) -> usize {
    processes().iter().filter(|p| p.parent == parent).count()
}

/// What the kernel says of a process.
struct Stat {
    state: char,
    parent: u32,
    group: u32,
}

fn processes() -> Vec<Stat> {
    let read = |path: &Path| {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        Some(Stat {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    };

    let items = std::fs::read_dir("/proc").unwrap();
    items
        .filter_map(|item| read(&item.unwrap().path()))
        .collect()
}
