//! `--store` on a disk that is full, fails or can't be written.

use super::{Site, ask};
use crate::support::{Folder, LONG, ServerProcess, Signal, poetry, shell, text};
use std::process::Command;

#[test]
fn a_folder_that_can_t_be_written_is_an_error() {
    let site = Site::new();
    let out = poetry(&site.args("/proc/poems", &[&site.upstream]));
    assert_eq!(out.status.code(), Some(1));
    let log = text(&out.stderr);
    assert!(log.starts_with("poetry: /proc/poems.lock: "), "{log}");
}

/// A file system of 1 MiB at a folder, until this is dropped.
struct SmallDisk(String);

impl SmallDisk {
    fn mount(folder: &str) -> Option<SmallDisk> {
        let args = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder];
        let out = Command::new("mount").args(args).output().ok()?;
        out.status.success().then(|| SmallDisk(folder.into()))
    }
}

impl SmallDisk {
    fn remount(&self, how: &str) -> bool {
        let how = format!("remount,{how}");
        let out = Command::new("mount").args(["-o", &how, &self.0]).output();
        out.is_ok_and(|out| out.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").args(["-l", &self.0]).output();
    }
}

#[test]
fn a_full_disk_stops_writing_and_not_serving() {
    let folder = Folder::new();
    let mut site = Site::new();
    let Some(_disk) = SmallDisk::mount(&folder.arg("")) else {
        return eprintln!("skipped: no file system can be mounted here");
    };
    site.folder = folder;

    let mut first = site.start_alive();
    let name = |number: usize| format!("{}{number}", "n".repeat(50));
    (0..40).for_each(|number| ask(&first, &name(number)));
    let lines = first.stderr_lines();
    let is_told = |line: String| line.contains("not written: no space left");
    while !is_told(lines.recv_timeout(LONG).unwrap()) {}
    (0..40).for_each(|number| ask(&first, &name(number)));
    first.stop();

    let mut second = site.start_alive();
    (0..40).for_each(|number| ask(&second, &name(number)));
    second.stop();
}

#[test]
fn a_disk_without_any_space_costs_the_store_and_not_the_service() {
    let folder = Folder::new();
    let mut site = Site::new();
    let Some(_disk) = SmallDisk::mount(&folder.arg("")) else {
        return eprintln!("skipped: no file system can be mounted here");
    };
    let _full = std::fs::write(folder.path("full"), vec![0; 2 << 20]);
    site.folder = folder;

    let mut proxy = site.start_alive();
    ask(&proxy, "a");
    let log = proxy.stop_and_read_log();
    assert!(log.contains("not used: "), "{log}");
}

#[test]
fn a_folder_on_a_read_only_disk_is_an_error_and_changes_nothing() {
    let folder = Folder::new();
    let mut site = Site::new();
    let Some(disk) = SmallDisk::mount(&folder.arg("")) else {
        return eprintln!("skipped: no file system can be mounted here");
    };
    site.folder = folder;
    let mut first = site.start_alive();
    ask(&first, "a");
    first.stop();
    let before = std::fs::read(site.folder.path("poems")).unwrap();
    assert!(disk.remount("ro"));

    for name in ["poems", "other"] {
        let out = poetry(&site.args(&site.folder.arg(name), &[&site.upstream]));
        assert_eq!(out.status.code(), Some(1));
        let log = text(&out.stderr);
        assert!(log.ends_with("read-only file system\n"), "{log}");
    }
    assert!(std::fs::read(site.folder.path("poems")).unwrap() == before);

    assert!(disk.remount("rw"));
    let mut again = site.start_alive();
    ask(&again, "a");
    let log = again.stop_and_read_log();
    assert!(log.contains("using the store's copy"), "{log}");
}

/// A proxy whose writes fail beyond this many bytes of a file: not for lack of space,
/// but as those of a broken disk do.
fn start_on_a_broken_disk(site: &Site, bytes: u32) -> ServerProcess {
    let script = format!(
        "trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"",
        bytes / 512
    );
    let store = site.folder.arg("poems");
    let args = site.args(&store, &[&site.upstream]);
    ServerProcess::start_command(shell(&script, &args))
}

#[test]
fn a_disk_that_fails_stops_writing_and_not_serving() {
    let site = Site::new();
    let mut proxy = start_on_a_broken_disk(&site, 256 << 10);
    let name = |number: usize| format!("{}{number}", "n".repeat(50));
    let lines = proxy.stderr_lines();
    (0..40).for_each(|number| ask(&proxy, &name(number)));
    let is_told = |line: String| line.contains("not written: the disk failed");
    while !is_told(lines.recv_timeout(LONG).unwrap()) {}
    (0..40).for_each(|number| ask(&proxy, &name(number)));
    proxy.signal(Signal::KILL);
    proxy.wait();

    let mut second = site.start_alive();
    (0..40).for_each(|number| ask(&second, &name(number)));
    let log = second.stop_and_read_log();
    assert!(!log.contains("damaged"), "{log}");
}

#[test]
fn a_disk_that_fails_from_the_start_costs_the_store_and_not_the_service() {
    let site = Site::new();
    let mut proxy = start_on_a_broken_disk(&site, 8 << 10);
    ask(&proxy, "a");
    ask(&proxy, "a");
    let log = proxy.stop_and_read_log();
    assert!(log.contains("not used: the disk failed"), "{log}");
}
