//! Signals, the threads and the processes of a machine, and two starts at once.

use crate::support::{Folder, Process, ServerProcess, command, text, wait_until};
use rustix::process::{Pid, geteuid};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn of_two_starts_at_one_socket_file_one_is_refused() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let listen = format!("unix:{}", path.display());

    for _ in 0..10 {
        drop(UnixListener::bind(&path).unwrap()); // a stale file for each to remove
        let start = |_| Process::spawn(command(&["serve", "-q", "--listen", &listen]));
        let mut started: Vec<Process> = (0..4).map(start).collect();

        wait_until("all but one have ended", || {
            let ended = started
                .iter_mut()
                .filter_map(|one| one.has_ended().then_some(()));
            ended.count() == 3
        });
        for process in &mut started {
            if process.has_ended() {
                let refused = "could not listen: address already in use";
                assert_eq!(process.exit_code(), Some(1));
                assert!(process.stderr().contains(refused));
            } else {
                UnixStream::connect(&path).unwrap();
            }
        }

        drop(started);
        let _removed_by_none = std::fs::remove_file(&path);
    }
}

#[test]
fn without_a_thread_left_it_is_not_ready() {
    let mut limited = Command::new("prlimit");
    limited.args(["--nproc=1", env!("CARGO_BIN_EXE_poetry")]);
    limited.args(["serve", "--port", "0"]).current_dir("/");
    limited.stdout(Stdio::piped()).stderr(Stdio::piped());
    if geteuid().is_root() {
        limited.uid(54_321); // the limit does not hold for root
    }

    let out = Process::spawn(limited).finish();

    let error = "poetry: threads: could not be started: ";
    assert!(text(&out.stderr).starts_with(error), "{out:?}");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stdout), "");
}

/// The process numbers of the children of `parent`, and whether each is a zombie.
fn children(parent: Pid) -> Vec<(Pid, bool)> {
    let parent = parent.as_raw_nonzero().to_string();
    let of_process = |path: &Path| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        let state = fields.next()?;
        let is_child = fields.next()? == parent;
        is_child.then_some((Pid::from_raw(pid)?, state == "Z"))
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let paths = processes.map(|item| item.unwrap().path());
    paths.filter_map(|path| of_process(&path)).collect()
}

#[test]
fn the_first_process_of_a_container_reaps_orphans() {
    let unshare = ["-U", "-r", "-p", "-f", "--kill-child", "--mount-proc"];
    let may_unshare = Command::new("unshare").args(unshare).arg("true").status();
    if !may_unshare.is_ok_and(|status| status.success()) {
        return; // no container can be made here
    }

    // The program leaves a process that ends after it.
    let exec = "up=sh -c 'setsid sleep 0.01 >/dev/null & tr a-z A-Z'";
    let mut container = Command::new("unshare");
    container.args(unshare).arg(env!("CARGO_BIN_EXE_poetry"));
    container.args(["transform", "--listen", "0", "--exec", exec]);
    container.stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = ServerProcess::start_command(container);
    let (first, _) = children(server.pid())[0];

    for _ in 0..30 {
        assert_eq!(server.ask(b"7:up.poem,").unwrap(), b"4:POEM,");
    }

    wait_until("no process is left", || children(first).is_empty());
}
