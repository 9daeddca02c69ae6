//! One run of a command: its request in, its output as it comes, and its end.

use super::ExecCommand;
use crate::client::Query;
use crate::error::{Error, reason};
use crate::net::Pipe;
use crate::process::{self, GroupGuard, Running};
use crate::protocol::ReplyDecoder;
use crate::rt;
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes read from a program in one go: as much as a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// What is read at most once a program has ended: more than a pipe holds, unless a
/// process that it left behind goes on writing.
const REST_BYTES: u64 = 1 << 20;

/// The part of a line of standard error that is kept, in bytes: a long sentence.
const SAID_BYTES: usize = 300;

/// A run of a command. Dropping it kills its group.
pub(in crate::upstream) struct Run {
    command: ExecCommand,
    stdout: Pipe,
    stderr: Option<Pipe>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    _killed_when_dropped: GroupGuard,
    /// Writes the request, until that is done.
    feeding: Option<BoxFuture<'static, ()>>,
    /// The longest silence.
    idle: Duration,
    buffer: Vec<u8>,
    /// Looks at its output: exit code 0 alone makes none whole that has to end in a
    /// marker.
    decoder: ReplyDecoder,
    /// Whether standard output is closed.
    is_closed: bool,
    last_line: LastLine,
    /// How it ended, once it has.
    status: Option<Result<ExitStatus, Error>>,
}

/// What is told of the end of a program.
type EndOfRun = Result<io::Result<ExitStatus>, oneshot::Canceled>;

/// One step of a run.
enum RunStep {
    Came(usize),
    Ended(EndOfRun),
}

impl Run {
    pub(super) fn new(
        command: ExecCommand,
        running: Running,
        line: Option<Vec<u8>>,
        query: &Query<'_>,
    ) -> Run {
        let Running {
            stdin,
            stdout,
            stderr,
            ended,
            group,
        } = running;
        let feeding = async move {
            // One that closes its input early has read enough.
            let _enough = stdin.write_all(&line.unwrap_or_default()).await;
        };

        let decoder = ReplyDecoder::new(query.protocol, command.to_string(), query.limit);
        Run {
            command,
            stdout,
            stderr,
            ended,
            _killed_when_dropped: group,
            feeding: Some(feeding.boxed()),
            idle: query.timeouts.idle,
            buffer: Vec::new(),
            decoder: decoder.ending_by(query.ends),
            is_closed: false,
            last_line: LastLine::default(),
            status: None,
        }
    }

    /// The next bytes; `None` when the reply is whole.
    ///
    /// # Errors
    /// The reason why the reply is not whole: the bytes before it are only a part.
    pub(in crate::upstream) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.status.is_none() {
            match rt::within(self.idle, self.step()).await {
                None => return Err(self.decoder.read_timeout(self.idle)),
                Some(RunStep::Came(count)) => {
                    let bytes = &self.buffer[..count];
                    self.decoder.push(bytes)?;
                    return Ok(Some(Bytes::copy_from_slice(bytes)));
                }
                Some(RunStep::Ended(status)) => {
                    let rest = self.end(status);
                    self.decoder.push(&rest)?;
                    if !rest.is_empty() {
                        return Ok(Some(rest.into()));
                    }
                }
            }
        }
        self.verdict().map(|()| None)
    }

    /// Whether the reply is known to be whole: [`Run::next`] would return `None`.
    pub(in crate::upstream) fn is_over(&self) -> bool {
        let status = self.status.as_ref();
        let has_succeeded =
            status.is_some_and(|status| status.as_ref().is_ok_and(ExitStatus::success));
        has_succeeded && self.decoder.eof().is_ok()
    }

    /// Waits for bytes or the end. Meanwhile the request is written, and standard error
    /// is read: the program would wait for that.
    async fn step(&mut self) -> RunStep {
        self.buffer.resize(READ_BYTES, 0);
        loop {
            match self.next_sign().await {
                Ok(Ok(count)) if count > 0 => return RunStep::Came(count),
                Ok(_) => self.is_closed = true, // its end decides
                Err(status) => return RunStep::Ended(status),
            }
        }
    }

    /// What comes first: a read of standard output, or the end.
    async fn next_sign(&mut self) -> Result<io::Result<usize>, EndOfRun> {
        let Run {
            stdout,
            stderr,
            ended,
            feeding,
            buffer,
            is_closed,
            last_line,
            ..
        } = self;
        let reading = async {
            if *is_closed {
                return pending().await;
            }
            stdout.read(buffer).await
        };
        let (mut reading, mut hearing) = (pin!(reading), pin!(hear(stderr, last_line)));

        let read = poll_fn(|cx| {
            poll_aside(feeding, cx);
            let _never = hearing.as_mut().poll(cx);
            if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                return Poll::Ready(Ok(read));
            }
            ended.poll_unpin(cx).map(Err)
        });
        read.await
    }

    /// Notes how the program has ended. Returns what it wrote last: that is in the pipe
    /// now. The pipe is not read to its end, which a process left behind may hold open.
    fn end(&mut self, status: EndOfRun) -> Vec<u8> {
        let subject = || self.command.to_string();
        let status = match status {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(e)) => Err(Error::Program {
                subject: subject(),
                why: format!("could not be waited for: {}", reason(&e)),
            }),
            Err(oneshot::Canceled) => Err(Error::Abandoned),
        };
        let said = self.stderr.as_ref().map(|pipe| pipe.rest(REST_BYTES));
        self.last_line
            .push(&said.and_then(Result::ok).unwrap_or_default());

        let (rest, status) = match self.stdout.rest(REST_BYTES) {
            Ok(rest) => (rest, status),
            Err(e) => {
                let (subject, why) = (subject(), reason(&e));
                (Vec::new(), Err(Error::Program { subject, why }))
            }
        };
        self.status = Some(status);
        rest
    }

    /// Whether the reply is whole, now that the program has ended.
    fn verdict(&mut self) -> Result<(), Error> {
        let subject = self.command.to_string();
        let status = match &self.status {
            Some(Ok(status)) => *status,
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(Error::Abandoned),
        };

        match process::failure(status) {
            None => self.decoder.eof(),
            Some(how) => {
                let said = self.last_line.take();
                let said = said.map(|line| format!(": {line}")).unwrap_or_default();
                let why = how + &said;
                Err(Error::Program { subject, why })
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(line) = self.last_line.take() {
            *self.command.said() = Some(line);
        }
    }
}

fn poll_aside(task: &mut Option<BoxFuture<'static, ()>>, cx: &mut Context<'_>) {
    if let Some(work) = task
        && work.poll_unpin(cx).is_ready()
    {
        *task = None; // closes the pipe
    }
}

/// Reads standard error for ever.
async fn hear(stderr: &Option<Pipe>, last_line: &mut LastLine) {
    let mut buffer = [0; 1024];
    if let Some(pipe) = stderr {
        while let Ok(count) = pipe.read(&mut buffer).await
            && count > 0
        {
            last_line.push(&buffer[..count]);
        }
    }
    pending().await
}

/// The last line of a text that says something.
#[derive(Debug, Default)]
struct LastLine {
    line: Vec<u8>,
    /// Whether a line end has come after it.
    is_ended: bool,
}

impl LastLine {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.is_ended = true,
                _ => {
                    if std::mem::take(&mut self.is_ended) {
                        self.line.clear();
                    }
                    if self.line.len() < SAID_BYTES {
                        self.line.push(*byte);
                    }
                }
            }
        }
    }

    /// The line, if there was one. It may hold any bytes.
    fn take(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line).trim().to_string();
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_one_that_says_something() {
        let last = |pieces: &[&str]| {
            let mut line = LastLine::default();
            pieces.iter().for_each(|piece| line.push(piece.as_bytes()));
            line.take()
        };
        assert_eq!(last(&[]), None);
        assert_eq!(last(&["\n\n"]), None);
        assert_eq!(last(&["one\ntw", "o\n", "\n"]).as_deref(), Some("two"));
        assert_eq!(last(&["one\r\nthree"]).as_deref(), Some("three"));
        let long = last(&[&"x".repeat(1000)]).expect("a line");
        assert_eq!(long.len(), SAID_BYTES);
    }
}
