//! Programs that transform poems: the poem to standard input, the result from standard
//! output, without a shell. [`process`] has the table of how they end.

use super::builtin::Builtin;
use crate::budget::Charge;
use crate::error::{Error, Stage, reason};
use crate::net::Pipe;
use crate::poem::packed;
use crate::process::{self, Running};
use crate::rt;
use crate::semaphore::Semaphore;
use bytes::Bytes;
use futures::channel::oneshot;
use std::fmt;
use std::process::{Command, ExitStatus};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Runs of one program at the same time; further requests wait, within their deadline.
/// Each run costs a thread, two pipes and a process of unknown size, so there must be a
/// limit. Each filter keeps a core busy, so that more runs would only take turns. The
/// limit is each program's own: one that hangs blocks no other.
const RUNS_MAX: usize = 64;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Bytes of a request before its poem, at most: a name and the dot.
pub(crate) const PREFIX_BYTES_MAX: u64 = NAME_BYTES_MAX as u64 + 1;

/// Bytes read from a program in one go: as much as a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// A program that transforms poems, and its name in requests. Clones share the limit on
/// runs.
#[derive(Clone)]
pub struct Program {
    name: String,
    /// The command and its arguments. The first word exists and is not empty.
    words: Vec<String>,
    runs: Semaphore,
}

/// Why a text does not describe a program. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted NAME='COMMAND ARG...', like up='tr a-z A-Z'")]
pub struct BadProgram(&'static str);

impl FromStr for Program {
    type Err = BadProgram;

    /// Splits the command into words as a shell would, quotes included, and expands
    /// nothing.
    fn from_str(text: &str) -> Result<Program, BadProgram> {
        let (name, command) = text
            .split_once('=')
            .ok_or(BadProgram("no '=' between name and command"))?;
        check_name(name)?;

        let words = process::words(command).map_err(BadProgram)?;
        Ok(Program {
            name: name.into(),
            words,
            runs: Semaphore::new(RUNS_MAX),
        })
    }
}

/// A request ends a name at the first dot, and a list of names is split at its commas.
fn check_name(name: &str) -> Result<(), BadProgram> {
    let splits = |c: char| matches!(c, '.' | ',') || c.is_whitespace() || c.is_control();

    if name.is_empty() {
        return Err(BadProgram("no name"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(BadProgram("a name of more than 255 bytes"));
    }
    if name.contains(splits) {
        return Err(BadProgram(
            "a dot, a comma, white space or a control byte in the name",
        ));
    }
    if Builtin::named(name).is_some() {
        return Err(BadProgram("the name of a built-in transformation"));
    }
    Ok(())
}

/// Shows the name and the words, and not how many runs there are at the moment.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.name)
            .field("words", &self.words)
            .finish()
    }
}

impl Program {
    /// The name in requests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command line, quoted where a shell would need it.
    pub fn command(&self) -> String {
        shell_words::join(&self.words)
    }

    /// The command and its arguments.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Runs the program on the poem. The result has at most `limit` bytes, and `charge`
    /// counts it as it grows. `deadline` includes the wait for a run. A program that
    /// exits with code 0 need not have read all of the poem.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::TooLong`], [`Error::NoRoom`]; [`Error::Transform`]
    /// if the program can't be run or fails.
    pub(super) async fn apply(
        &self,
        poem: &[u8],
        limit: u64,
        deadline: Duration,
        charge: &mut Charge,
    ) -> Result<Bytes, Error> {
        let output = Output {
            subject: &self.name,
            bytes: Vec::new(),
            limit,
            charge,
        };
        let late = || Error::Timeout {
            subject: self.name.clone(),
            stage: Stage::Program,
            limit: deadline,
        };

        let result = rt::within(deadline, self.run(poem, output)).await;
        result.unwrap_or_else(|| Err(late()))
    }

    async fn run(&self, poem: &[u8], mut output: Output<'_>) -> Result<Bytes, Error> {
        let Running {
            stdin,
            stdout,
            stderr: _, // it shares ours
            ended,
            group: _killed_when_dropped,
        } = self.start().await?;

        // Write and read at the same time: a program may stop reading until its output
        // is read. When both are done, only the program's end is left to wait for.
        let copying = async {
            match futures::try_join!(feed(stdin, poem), self.read(&stdout, &mut output)) {
                Ok(_) => std::future::pending().await,
                Err(error) => error,
            }
        };
        match rt::race(copying, ended).await {
            Ok(error) => return Err(error),
            Err(Ok(Ok(status))) => self.check(status)?,
            Err(Ok(Err(e))) => {
                return Err(self.failed(format!("could not be waited for: {}", reason(&e))));
            }
            Err(Err(oneshot::Canceled)) => return Err(Error::Abandoned),
        }

        // What the program wrote is in the pipe now. Don't read to the pipe's end: a
        // process that the program left behind may hold it open.
        let rest = stdout
            .rest(output.left().saturating_add(1))
            .map_err(|e| self.failed(reason(&e)))?;
        output.push(&rest)?;
        Ok(packed(output.bytes))
    }

    async fn start(&self) -> Result<Running, Error> {
        let permit = self.runs.acquire(Instant::now()).await;
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);

        process::start(command, permit).await.map_err(|e| {
            let command = shell_words::quote(&self.words[0]);
            self.failed(format!("could not run {command}: {}", reason(&e)))
        })
    }

    async fn read(&self, stdout: &Pipe, output: &mut Output<'_>) -> Result<(), Error> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match stdout.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => output.push(&buffer[..count])?,
                Err(e) => return Err(self.failed(reason(&e))),
            }
        }
    }

    fn check(&self, status: ExitStatus) -> Result<(), Error> {
        match process::failure(status) {
            None => Ok(()),
            Some(how) => Err(self.failed(how)),
        }
    }

    fn failed(&self, why: String) -> Error {
        Error::Transform {
            subject: self.name.clone(),
            why,
        }
    }
}

/// Writes the poem, then closes the pipe. A program that closes its input early has
/// read enough: that is not an error.
async fn feed(stdin: Pipe, poem: &[u8]) -> Result<(), Error> {
    let _enough = stdin.write_all(poem).await;
    Ok(())
}

/// The output of a program so far.
struct Output<'a> {
    /// The program's name, for errors.
    subject: &'a str,
    bytes: Vec<u8>,
    /// The most bytes it may have.
    limit: u64,
    /// The budget this output is charged to.
    charge: &'a mut Charge,
}

impl Output<'_> {
    /// Bytes left until the limit.
    fn left(&self) -> u64 {
        self.limit.saturating_sub(self.bytes.len() as u64)
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Error> {
        let length = (self.bytes.len() + more.len()) as u64;
        if length > self.limit {
            return Err(Error::TooLong {
                subject: self.subject.to_string(),
                limit: self.limit,
            });
        }

        let charged = self.charge.grow(length);
        charged.map_err(|capacity| Error::NoRoom {
            subject: self.subject.to_string(),
            capacity,
        })?;

        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_nothing_that_splits_requests_or_lists() {
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
    fn debug_output_differs_where_programs_do_and_only_there() {
        let shown = |text: &str| format!("{:?}", text.parse::<Program>().expect(text));
        assert_eq!(shown("a=tr a b"), shown("a=tr  'a' b"));
        assert_ne!(shown("a=tr a b"), shown("a=tr 'a b'"));
        assert_ne!(shown("a=tr a b"), shown("b=tr a b"));

        let program: Program = "a=cat".parse().expect("a program");
        let before = format!("{program:?}");
        let _busy = futures::FutureExt::now_or_never(program.runs.acquire(Instant::now()));
        assert_eq!(before, format!("{program:?}"));
    }

    #[test]
    fn the_output_keeps_no_spare_capacity() {
        let program: Program = "x=sh -c 'cat; printf yz'".parse().expect("a program");
        let poem = vec![b'x'; 100_000]; // more than a pipe holds, so that it comes in pieces
        let mut charge = Charge::unlimited();
        let work = program.apply(&poem, 1 << 20, Duration::from_secs(10), &mut charge);
        let output = rt::block_on(work).expect("it ends well");
        assert_eq!(
            (output.len(), Vec::from(output).capacity()),
            (100_002, 100_002)
        );
    }

    #[test]
    fn a_program_keeps_its_run_until_it_has_ended() {
        use futures::FutureExt;

        let program: Program = "x=sh -c 'echo; exec sleep 100'".parse().expect("a program");
        let acquire = || program.runs.acquire(Instant::now());
        let others: Vec<_> = (1..RUNS_MAX).map(|_| acquire().now_or_never()).collect();
        assert!(others.iter().all(Option::is_some));
        let running = rt::block_on(program.start()).expect("sh starts");
        let said = rt::block_on(running.stdout.read(&mut [0]));
        assert_eq!(said.expect("it runs"), 1);

        let mut next = Box::pin(acquire());
        assert!(next.as_mut().now_or_never().is_none(), "all runs are taken");
        drop(running); // kills it
        rt::block_on(next);
    }
}
