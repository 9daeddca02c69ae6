//! Child processes that filter bytes, or answer requests: input through a pipe, output
//! through a pipe, each in a process group of its own.
//!
//! One thread, the supervisor, starts a child, waits for it, kills its group and reaps
//! it. The caller holds a `Running`, which has the pipes; dropping it kills the
//! group. A child ends in one of these ways:
//!
//! | what happens | what kills the group | what a transformation returns |
//! |---|---|---|
//! | the program exits with code 0 | its supervisor | its output up to then |
//! | it ends in any other way | its supervisor | [`Error::Transform`] |
//! | its output exceeds the limit | the dropped `Running` | [`Error::TooLong`] |
//! | its output exceeds the memory budget | the dropped `Running` | [`Error::NoRoom`] |
//! | the deadline passes | the dropped `Running` | [`Error::Timeout`] |
//! | the request is cancelled | the dropped `Running` | nothing |
//! | our own process ends | [`kill_all`] | nothing |
//!
//! The whole group is killed because a program may start others: they must not outlive
//! it, nor hold its output open. A child that leaves the group on purpose (`setsid`)
//! can't be reached, and nothing waits for it.
//!
//! [`Error::Transform`]: crate::error::Error::Transform
//! [`Error::TooLong`]: crate::error::Error::TooLong
//! [`Error::NoRoom`]: crate::error::Error::NoRoom
//! [`Error::Timeout`]: crate::error::Error::Timeout

use crate::net::Pipe;
use crate::rt;
use crate::semaphore::Permit;
use futures::channel::oneshot;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// The words of a command line, as a shell would split it, quotes included. Nothing is
/// expanded. The first word is not empty.
///
/// # Errors
/// What is wrong with the line.
pub(crate) fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let words = shell_words::split(line).map_err(|_| "a quote that is not closed")?;
    if words.first().is_none_or(String::is_empty) {
        return Err("no command");
    }
    Ok(words)
}

/// How a program has failed; `None` if it has not.
pub(crate) fn failure(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("the program ended with exit code {code}")),
        (None, Some(signal)) => Some(format!("the program was ended by signal {signal}")),
        (None, None) => Some(format!("the program ended with {status}")),
    }
}

/// A started child. Dropping it kills the child's group.
pub(crate) struct Running {
    /// The child's standard input.
    pub(crate) stdin: Pipe,
    /// The child's standard output.
    pub(crate) stdout: Pipe,
    /// The child's standard error, if its command asks for a pipe.
    pub(crate) stderr: Option<Pipe>,
    /// How the child ended, sent once its group is killed.
    pub(crate) ended: oneshot::Receiver<io::Result<ExitStatus>>,
    /// Kills the group when it is dropped.
    pub(crate) group: GroupGuard,
}

/// Starts a child with pipes for its standard input and output. The permit is held
/// until the child is reaped.
///
/// # Errors
/// The system's, if a thread, the process or a pipe can't be made;
/// [`io::ErrorKind::Interrupted`] after [`kill_all`].
pub(crate) async fn start(mut command: Command, permit: Permit) -> io::Result<Running> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);

    // A thread of its own: those of `rt::unblock` are for work that ends by itself.
    let (sender, started) = oneshot::channel();
    std::thread::Builder::new()
        .name("supervisor".into())
        .spawn(move || supervise(command, sender, permit))?;

    started
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Kills the groups of all children, and lets no further child start. Call it before
/// our own process ends: after that, nothing would end a child at its deadline.
pub fn kill_all() {
    let mut groups = groups();
    groups.closed = true;

    let (groups, _timed_out) = STARTED
        .wait_timeout_while(groups, START_WAIT, |groups| groups.starting > 0)
        .expect("no code panics while it holds the lock of the groups");
    groups.running.values().for_each(|group| kill(*group));
}

/// How long [`kill_all`] waits for children that are being started. That takes
/// milliseconds, unless the disk they are on hangs; without a limit we would hang with
/// it.
const START_WAIT: Duration = Duration::from_secs(1);

/// The process groups that may be killed.
struct Groups {
    /// The groups of children that are not reaped yet.
    running: BTreeMap<u64, Pid>,
    next_id: u64,
    /// Number of children being started: they may run already, but are not in `running`
    /// yet.
    starting: usize,
    /// Our own process is about to end: no child may be started.
    closed: bool,
}

/// Global, because the children belong to the process. The lock protects the process
/// numbers in it: each belongs to a child that is not reaped yet, so the kernel has not
/// reused it. It is held for lines, and for the system calls that kill.
static GROUPS: Mutex<Groups> = Mutex::new(Groups {
    running: BTreeMap::new(),
    next_id: 0,
    starting: 0,
    closed: false,
});

/// Notified when a child has started or failed to.
static STARTED: Condvar = Condvar::new();

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS
        .lock()
        .expect("no code panics while it holds the lock of the groups")
}

fn kill(group: Pid) {
    let _gone_or_forbidden = kill_process_group(group, Signal::KILL);
}

/// Kills a group when dropped, unless its child was reaped before.
pub(crate) struct GroupGuard {
    id: u64,
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = groups().running.get(&self.id) {
            kill(*group);
        }
    }
}

/// The right to start a child. [`kill_all`] waits until it is dropped, so that a child
/// that starts meanwhile is on the list by then, and is killed.
struct Starting;

impl Starting {
    fn open() -> io::Result<Starting> {
        let mut groups = groups();
        if groups.closed {
            return Err(io::ErrorKind::Interrupted.into());
        }

        groups.starting += 1;
        Ok(Starting)
    }

    /// Lists the group of a child that has started.
    fn enter(self, group: Pid) -> GroupGuard {
        let mut groups = groups();
        let id = groups.next_id;
        groups.next_id += 1;
        groups.running.insert(id, group);

        if groups.closed {
            kill(group); // it took longer than kill_all waits
        }
        GroupGuard { id }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        groups().starting -= 1;
        STARTED.notify_all();
    }
}

/// The life of one child, from start to reaping. It is the same whether or not the
/// caller still waits for the child. Holds the permit until the child is reaped.
fn supervise(mut command: Command, started: oneshot::Sender<io::Result<Running>>, _permit: Permit) {
    let (mut child, group) = match spawn(&mut command) {
        Ok(spawned) => spawned,
        Err(e) => {
            let _cancelled = started.send(Err(e));
            return;
        }
    };
    let id = group.id;

    // If the caller has given up meanwhile, `send` returns the `Running`, and dropping
    // it here kills the group.
    let (sender, ended) = oneshot::channel();
    drop(started.send(running(&mut child, group, ended)));

    let status = reap(child, id);
    let _cancelled = sender.send(status);
}

fn spawn(command: &mut Command) -> io::Result<(Child, GroupGuard)> {
    let starting = Starting::open()?;
    let child = command.spawn()?;
    let group = starting.enter(Pid::from_child(&child));
    Ok((child, group))
}

fn running(
    child: &mut Child,
    group: GroupGuard,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
) -> io::Result<Running> {
    let stdin = child.stdin.take().expect("the input was set to a pipe");
    let stdout = child.stdout.take().expect("the output was set to a pipe");

    let stderr = child.stderr.take();

    Ok(Running {
        stdin: Pipe::new(stdin)?,
        stdout: Pipe::new(stdout)?,
        stderr: stderr.map(Pipe::new).transpose()?,
        ended,
        group,
    })
}

/// Waits for the child's end, kills what is left of its group, reaps it, and takes it
/// from the list, all but the first under the lock: once the child is reaped the kernel
/// may give its number, which is the group's, to another process. All other code that
/// kills or reaps holds the same lock, and kills only groups on the list.
fn reap(mut child: Child, id: u64) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let ended = loop {
        match waitid(WaitId::Pid(pid), options) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };

    // Waiting fails if SIGCHLD was ignored when we were started: the kernel has reaped
    // the child by then.
    let mut groups = groups();
    if ended.is_ok() {
        kill(pid);
    }
    let status = child.wait(); // at once: it has ended
    groups.running.remove(&id);
    status
}

/// How long to wait before the next look for orphans: one that still runs, or that may
/// be a child of a supervisor, can be reaped later, and a look reads the list of all
/// processes.
const ORPHAN_CHECK: Duration = Duration::from_millis(100);

/// Reaps children that this process never started. When a program ends, the kernel
/// gives the processes that it has started to the first process of the container. They
/// would stay as zombies for ever.
///
/// Returns when none is left that has ended. Without `/proc`, nothing is reaped.
pub async fn reap_orphans() {
    loop {
        rt::sleep(ORPHAN_CHECK).await; // what ended meanwhile takes the same look
        match rt::unblock(reap_ended_orphans).await {
            Ok(0) | Err(_) => return,
            Ok(_left) => {}
        }
    }
}

/// Reaps the orphans that have ended. Returns how many children are left that have
/// ended and may belong to a supervisor.
fn reap_ended_orphans() -> io::Result<usize> {
    let mut left = 0;
    for pid in ended_children()? {
        // Under the lock no child can be started. One that is being started is not on
        // the list yet, so nothing is reaped until it is.
        let groups = groups();
        let is_ours = groups.running.values().any(|group| *group == pid);
        if is_ours || groups.starting > 0 {
            left += 1;
            continue;
        }

        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _reaped = waitid(WaitId::Pid(pid), options);
    }
    Ok(left)
}

/// The children of this process that have ended and are not reaped.
fn ended_children() -> io::Result<Vec<Pid>> {
    let parent = std::process::id().to_string();
    let mut ended = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };

        // The process may be gone by now. Its name, before the parenthesis, may hold
        // anything.
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let mut fields = fields.split(' ');
        if fields.next() == Some("Z") && fields.next() == Some(&parent) {
            ended.push(pid);
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semaphore::Semaphore;
    use rustix::process::{getpid, set_child_subreaper};
    use std::time::Instant;

    #[test]
    fn orphans_are_reaped_and_children_keep_their_status() {
        // This process is given its orphans, as the first one of a container is.
        set_child_subreaper(Some(getpid())).expect("Linux");
        let permits = Semaphore::new(1);

        for code in 0..20 {
            let mut command = Command::new("sh");
            let script = format!("setsid sh -c 'exit 7' & setsid sh -c 'exit 8' & exit {code}");
            command.args(["-c", &script]);

            rt::block_on(async {
                let permit = permits.acquire(Instant::now()).await;
                let running = start(command, permit).await.expect("sh starts");
                reap_ended_orphans().expect("there is /proc");
                let status = running.ended.await.expect("it is waited for");
                assert_eq!(status.expect("it ended").code(), Some(code));
            });
        }

        let deadline = Instant::now() + Duration::from_secs(30);
        while !ended_children().expect("there is /proc").is_empty() {
            assert!(Instant::now() < deadline, "there are zombies");
            rt::block_on(reap_orphans());
        }
    }

    #[test]
    fn the_end_waits_for_a_child_that_is_being_started() {
        const NAME: &str = "process::tests::the_end_waits_for_a_child_that_is_being_started";
        const ALONE: &str = "POETRY_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            // In a process of its own: no other test could start a child after it.
            let mut command = Command::new(std::env::current_exe().expect("it runs"));
            let out = command.args(["--exact", NAME]).env(ALONE, "1").output();
            let out = out.expect("it can be run again");
            assert!(out.status.success(), "{out:?}");
            return;
        }

        let starting = Starting::open().expect("nothing is closed");
        let starts = std::thread::spawn(move || {
            while !groups().closed {
                std::thread::yield_now();
            }
            std::thread::park_timeout(START_WAIT / 5); // as a slow disk would
            drop(starting);
        });
        kill_all();
        assert_eq!(groups().starting, 0);
        assert!(Starting::open().is_err(), "no further child starts");
        starts.join().expect("it waits and ends");
    }
}
