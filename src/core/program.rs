//! Filter programs: a poem to standard input, the result from standard output, no shell between.
//!
//! A program's whole life is on one thread, its warden's, whatever becomes of the request: started, waited for, its
//! process group killed, reaped. The request's side only talks with it, and by dropping its `Run` has the group
//! killed. So there is one way out for a program that ends and for one that hangs, floods or has lost its client:
//!
//! | what happens | who kills the group | the request gets |
//! |---|---|---|
//! | the program ends with 0 | its warden | what it has said by then |
//! | it ends in another way | its warden | [`Error::Transform`] |
//! | it says more than the limit | the dropped `Run` | [`Error::TooLong`] |
//! | it says more than there is room for | the dropped `Run` | [`Error::NoRoom`] |
//! | the deadline passes | the dropped `Run` | [`Error::Timeout`] |
//! | the request is given up | the dropped `Run` | nothing |
//! | our process ends | [`kill_all`] | nothing |
//!
//! The group, because a program may have started others: they must not outlive it, nor hold its output open. One that
//! leaves the group on purpose (`setsid`) is beyond reach, and is not waited for.

use crate::budget::Charge;
use crate::error::{Error, Stage, reason};
use crate::net::Pipe;
use crate::poem::packed;
use crate::rt;
use crate::semaphore::{Permit, Semaphore};
use crate::transform::Builtin;
use bytes::Bytes;
use futures::channel::oneshot;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How many runs of one program there are at once; further requests wait, within their deadline. Each run costs a
/// thread, two pipes and a process of unknown size, so there must be a bound; filters keep a core busy each, so more
/// would only take turns. It is each program's own, so that one that hangs fills no other's places.
const PLACES: usize = 64;

/// The longest name, in bytes.
pub const NAME_MAX: usize = 255;

/// What a request may carry beside its poem, in bytes: a name, and the dot.
pub const NAME_ROOM: u64 = NAME_MAX as u64 + 1;

/// How much is read from a program in one go: as much as a pipe holds.
const READ: usize = 64 << 10;

/// A program that transforms poems, and the name it is asked for by. Clones share its places.
#[derive(Clone)]
pub struct Program {
    name: String,
    /// What is run, and its arguments; the first is there and not empty.
    words: Vec<String>,
    permits: Semaphore,
}

/// Why a text is no program; the caller quotes the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted NAME='COMMAND ARG...', like up='tr a-z A-Z'")]
pub struct BadProgram(&'static str);

impl FromStr for Program {
    type Err = BadProgram;

    /// Splits the command as a shell would, quotes and all, and expands nothing.
    fn from_str(text: &str) -> Result<Program, BadProgram> {
        let (name, command) = text
            .split_once('=')
            .ok_or(BadProgram("no '=' between name and command"))?;
        match name {
            "" => return Err(BadProgram("no name")),
            _ if name.len() > NAME_MAX => return Err(BadProgram("a name of more than 255 bytes")),
            _ if name.contains(|c: char| {
                matches!(c, '.' | ',') || c.is_whitespace() || c.is_control()
            }) =>
            {
                return Err(BadProgram(
                    "a dot, a comma, white space or a control byte in the name",
                ));
            }
            _ if Builtin::named(name).is_some() => {
                return Err(BadProgram("the name of a built-in transformation"));
            }
            _ => {}
        }
        let words =
            shell_words::split(command).map_err(|_| BadProgram("a quote that is not closed"))?;
        match words.first().map(String::as_str) {
            None | Some("") => Err(BadProgram("no command")),
            Some(_) => Ok(Program {
                name: name.into(),
                words,
                permits: Semaphore::new(PLACES),
            }),
        }
    }
}

/// Nothing but what makes two programs different: it becomes part of a proxy's keys.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.name)
            .field("words", &self.words)
            .finish()
    }
}

impl Program {
    /// The name it is asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command line, quoted where a shell would need it.
    pub fn command(&self) -> String {
        shell_words::join(&self.words)
    }

    /// What the program makes of the poem, in at most `limit` bytes and within `deadline`, waiting for a place
    /// included. What it says is counted by the share. A program that ends well need not have read all of the poem.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::TooLong`], [`Error::NoRoom`], and [`Error::Transform`] where it can't be run or
    /// doesn't end well.
    pub async fn apply(
        &self,
        poem: &[u8],
        limit: u64,
        deadline: Duration,
        charge: &mut Charge,
    ) -> Result<Bytes, Error> {
        let late = || Error::Timeout {
            subject: self.name.clone(),
            stage: Stage::Program,
            limit: deadline,
        };
        rt::within(deadline, self.run(poem, limit, charge))
            .await
            .unwrap_or_else(|| Err(late()))
    }

    async fn run(&self, poem: &[u8], limit: u64, charge: &mut Charge) -> Result<Bytes, Error> {
        let run = self.start().await.map_err(|e| {
            self.failed(format!(
                "could not run {}: {}",
                shell_words::quote(&self.words[0]),
                reason(&e)
            ))
        })?;
        let Run {
            stdin,
            stdout,
            ended,
            ticket: _kills_when_dropped,
        } = run;
        let mut said = Said {
            text: Vec::new(),
            limit,
            charge,
        };
        // Both at once: a program may want to be read before it reads on. Once both are done there is only its end.
        let talk = async {
            match futures::try_join!(feed(stdin, poem), self.try_recv(&stdout, &mut said)) {
                Ok(_) => std::future::pending().await,
                Err(error) => error,
            }
        };
        match rt::race(talk, ended).await {
            Ok(error) => return Err(error),
            Err(Ok(Ok(status))) => self.judge(status)?,
            Err(Ok(Err(e))) => {
                return Err(self.failed(format!("could not be waited for: {}", reason(&e))));
            }
            Err(Err(oneshot::Canceled)) => return Err(Error::Abandoned),
        }
        // Not until the pipe's end, which is for whoever holds it to make: what the program said before it ended is
        // there now.
        let room = limit.saturating_sub(said.text.len() as u64);
        let rest = stdout
            .rest(room.saturating_add(1))
            .map_err(|e| self.failed(reason(&e)))?;
        self.take(&rest, &mut said)?;
        Ok(packed(said.text))
    }

    async fn start(&self) -> io::Result<Run> {
        let permit = self.permits.acquire(Instant::now()).await;
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let (tell, started) = oneshot::channel();
        // Not one of `rt::unblock`'s threads: those are for work that ends by itself.
        std::thread::Builder::new()
            .name("warden".into())
            .spawn(move || ward(command, tell, permit))?;
        started
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }

    async fn try_recv(&self, stdout: &Pipe, said: &mut Said<'_>) -> Result<(), Error> {
        let mut buffer = vec![0; READ];
        loop {
            match stdout.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => self.take(&buffer[..count], said)?,
                Err(e) => return Err(self.failed(reason(&e))),
            }
        }
    }

    fn take(&self, bytes: &[u8], said: &mut Said<'_>) -> Result<(), Error> {
        let (addr, length, limit) = (
            || self.name.clone(),
            (said.text.len() + bytes.len()) as u64,
            said.limit,
        );
        if length > limit {
            return Err(Error::TooLong {
                subject: addr(),
                limit,
            });
        }
        said.charge.grow(length).map_err(|capacity| Error::NoRoom {
            subject: addr(),
            capacity,
        })?;
        said.text.extend_from_slice(bytes);
        Ok(())
    }

    fn judge(&self, status: ExitStatus) -> Result<(), Error> {
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(self.failed(format!("the program ended with exit code {code}"))),
            (None, Some(signal)) => {
                Err(self.failed(format!("the program was ended by signal {signal}")))
            }
            (None, None) => Err(self.failed(format!("the program ended with {status}"))),
        }
    }

    fn failed(&self, why: String) -> Error {
        Error::Transform {
            subject: self.name.clone(),
            why,
        }
    }
}

/// Gives the program the poem, and then the end of it. One that takes no more has enough; that is not for us to decoder.
async fn feed(stdin: Pipe, poem: &[u8]) -> Result<(), Error> {
    let _enough = stdin.write_all(poem).await;
    Ok(())
}

/// What a program has said so far.
struct Said<'a> {
    text: Vec<u8>,
    limit: u64,
    /// Whose is what it comes to.
    charge: &'a mut Charge,
}

/// A program at work, from the side of its request. Dropped, its group is killed.
struct Run {
    stdin: Pipe,
    stdout: Pipe,
    /// How it ended, told after its group was killed.
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    ticket: GroupGuard,
}

/// The groups that may be killed.
struct Groups {
    groups: BTreeMap<u64, Pid>,
    tickets: u64,
    /// So many programs are being started, and may run already, but have no number yet that we know.
    entering: usize,
    /// Our own process is about to end: nobody may enter any more.
    closed: bool,
}

/// The process's children are the process's; so is the list of them. It protects the numbers in it: each belongs to a
/// child that is not reaped yet, and so to nobody else. Held for lines, and for the system calls that kill.
static GROUPS: Mutex<Groups> = Mutex::new(Groups {
    groups: BTreeMap::new(),
    tickets: 0,
    entering: 0,
    closed: false,
});

/// Told when somebody has entered, or won't.
static ENTERED: Condvar = Condvar::new();

fn stage() -> MutexGuard<'static, Groups> {
    GROUPS
        .lock()
        .expect("no code panics while it holds the stage's lock")
}

/// How long our end waits for programs that are just being started: that is a matter of milliseconds, unless the disk
/// they are on hangs, and then we would hang with it.
const ENTERING: Duration = Duration::from_secs(1);

/// Kills whatever programs run; from here on none is started. For a process that is about to end: nobody would be left
/// to keep their deadlines.
pub fn kill_all() {
    let mut stage = stage();
    stage.closed = true;
    let (stage, _hung) = ENTERED
        .wait_timeout_while(stage, ENTERING, |stage| stage.entering > 0)
        .expect("no code panics while it holds the stage's lock");
    stage.groups.values().for_each(|group| kill(*group));
}

fn kill(group: Pid) {
    let _gone_or_forbidden = kill_process_group(group, Signal::KILL);
}

/// The right to kill a group, for as long as its number is its own. Dropping it is how it is used.
struct GroupGuard(u64);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = stage().groups.get(&self.0) {
            kill(*group);
        }
    }
}

/// The right to start a program. Whoever holds it is waited for by [`kill_all`], so that what starts while our process
/// ends is on the list by then, and killed.
struct Starting;

impl Starting {
    fn open() -> io::Result<Starting> {
        let mut stage = stage();
        if stage.closed {
            return Err(io::ErrorKind::Interrupted.into());
        }
        stage.entering += 1;
        Ok(Starting)
    }

    /// Lists the group of a program that has started.
    fn enter(self, group: Pid) -> GroupGuard {
        let mut stage = stage();
        stage.tickets += 1;
        let ticket = stage.tickets;
        stage.groups.insert(ticket, group);
        if stage.closed {
            kill(group); // it took too long, and was not waited for
        }
        GroupGuard(ticket)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        stage().entering -= 1;
        ENTERED.notify_all();
    }
}

/// A program's life. Whether anybody still listens makes no difference to it.
fn ward(
    mut command: Command,
    tell: oneshot::Sender<io::Result<Run>>,
    _permit: Permit, // until it is reaped
) {
    let (mut child, ticket) = match start(&mut command) {
        Ok(started) => started,
        Err(e) => {
            let _given_up = tell.send(Err(e));
            return;
        }
    };
    let number = ticket.0;
    let (say, ended) = oneshot::channel();
    // Dropped at once where the request was given up meanwhile: that is what kills the group.
    drop(tell.send(run(&mut child, ticket, ended)));
    let end = reap(child, number);
    let _given_up = say.send(end);
}

fn start(command: &mut Command) -> io::Result<(Child, GroupGuard)> {
    let entrance = Starting::open()?;
    let child = command.spawn()?;
    let ticket = entrance.enter(Pid::from_child(&child));
    Ok((child, ticket))
}

fn run(
    child: &mut Child,
    ticket: GroupGuard,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
) -> io::Result<Run> {
    let stdin = Pipe::new(
        child
            .stdin
            .take()
            .expect("a program is started with a pipe for its input"),
    )?;
    let stdout = Pipe::new(
        child
            .stdout
            .take()
            .expect("a program is started with a pipe for its output"),
    )?;
    Ok(Run {
        stdin,
        stdout,
        ended,
        ticket,
    })
}

/// Waits for the program's end, kills what is left of its group, and reaps it, in this order: once it is reaped its
/// number, which is the group's, may be another's. Whoever else kills does so under the same lock, and only who is
/// still on the stage.
fn reap(mut child: Child, ticket: u64) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let ended = loop {
        match waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    let mut stage = stage();
    stage.groups.remove(&ticket);
    // It can't be waited for where SIGCHLD was ignored when we were started: then the kernel has reaped it already.
    if ended.is_ok() {
        kill(pid);
    }
    drop(stage);
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_in_it_that_a_request_or_a_list_of_names_would_split() {
        for bad in [
            "",
            "a.b",
            "a,b",
            "a b",
            "a\u{a0}b",
            "a\u{1}",
            "a\u{85}",
            "shout",
            &"a".repeat(256),
        ] {
            assert!(format!("{bad}=cat").parse::<Program>().is_err(), "{bad:?}");
        }
        for good in ["a", "-", "A-b_c", "größer", "Shout", &"a".repeat(255)] {
            let program: Program = format!("{good}=cat").parse().expect(good);
            assert_eq!(program.name(), good);
        }
    }

    #[test]
    fn the_first_equals_sign_ends_the_name() {
        let program: Program = "a=env b=c 'd e'".parse().expect("a program");
        assert_eq!(
            (program.name(), program.command().as_str()),
            ("a", "env 'b=c' 'd e'")
        );
    }

    #[test]
    fn what_a_proxy_makes_its_keys_of_differs_where_programs_do_and_only_there() {
        let shown = |text: &str| format!("{:?}", text.parse::<Program>().expect(text));
        assert_eq!(shown("a=tr a b"), shown("a=tr  'a' b"));
        assert_ne!(shown("a=tr a b"), shown("a=tr 'a b'"));
        assert_ne!(shown("a=tr a b"), shown("b=tr a b"));
        let program: Program = "a=cat".parse().expect("a program");
        let before = format!("{program:?}");
        let _busy = futures::FutureExt::now_or_never(program.permits.acquire(Instant::now()));
        assert_eq!(before, format!("{program:?}"));
    }

    #[test]
    fn what_a_program_has_said_keeps_no_room_for_more() {
        let program: Program = "x=sh -c 'cat; printf yz'".parse().expect("a program");
        let poem = vec![b'x'; 100_000]; // more than a pipe holds, so that it comes in pieces
        let said = rt::block_on(program.apply(
            &poem,
            1 << 20,
            Duration::from_secs(10),
            &mut Charge::alone(),
        ))
        .expect("it ends well");
        assert_eq!((said.len(), Vec::from(said).capacity()), (100_002, 100_002));
    }
}
