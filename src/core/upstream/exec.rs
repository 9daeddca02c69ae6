//! A command as a source: each fetch runs it once. [`process`] has the table of how
//! programs end.
//!
//! | the program | the reply |
//! |---|---|
//! | exits with code 0 | is whole: what it has written until then |
//! | ends in any other way | is a part |
//! | writes nothing for `--idle-timeout`, or does not end | is a part, and its group is killed |
//! | has ended, and a process that it left behind holds its output | has ended |
//!
//! A run belongs to no client, as any fetch. It gets the request as a line on its
//! standard input, or in place of the word `{}`; no shell reads it.

mod run;

use crate::client::Query;
use crate::error::{Error, reason};
use crate::process;
use crate::protocol::Protocol;
use crate::semaphore::Semaphore;
pub(super) use run::Run;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// The word that stands for the request.
const REQUEST_WORD: &str = "{}";

/// What of our own environment a command gets.
const ENVIRONMENT: [&str; 3] = ["PATH", "LANG", "TZ"];

/// A command that is asked like a server. Clones share the limit on runs.
#[derive(Clone)]
pub struct ExecCommand {
    /// The command and its arguments. The first word is not empty, and not `{}`.
    words: Vec<String>,
    name: Arc<str>,
    runs: Semaphore,
    /// The last line that a run has left on standard error, for the log. Held to write
    /// or take it.
    said: Arc<Mutex<Option<String>>>,
}

/// Why a text is no command. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted a command like exec:/usr/bin/check_mk_agent or 'exec:rdap -w {{}}'")]
pub struct BadCommand(&'static str);

impl FromStr for ExecCommand {
    type Err = BadCommand;

    /// Splits the command into words as a shell would, quotes included, and expands
    /// nothing.
    fn from_str(text: &str) -> Result<ExecCommand, BadCommand> {
        let words = process::words(text).map_err(BadCommand)?;
        if words[0] == REQUEST_WORD {
            return Err(BadCommand("the command is not for clients to choose"));
        }

        Ok(ExecCommand {
            name: format!("exec:{}", shell_words::join(&words)).into(),
            words,
            runs: Semaphore::new(1),
            said: Arc::default(),
        })
    }
}

impl std::fmt::Display for ExecCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl std::fmt::Debug for ExecCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ExecCommand").field(&self.words).finish()
    }
}

impl PartialEq for ExecCommand {
    fn eq(&self, other: &ExecCommand) -> bool {
        self.words == other.words
    }
}

impl ExecCommand {
    /// The same, of which this many may run at once.
    pub fn at_most(self, runs: usize) -> ExecCommand {
        ExecCommand {
            runs: Semaphore::new(runs),
            ..self
        }
    }

    /// Whether the request is one of its words, and not on its standard input.
    pub fn takes_request_as_word(&self) -> bool {
        self.words.iter().any(|word| word == REQUEST_WORD)
    }

    /// What tells it from all other sources.
    pub(super) fn id(&self) -> Vec<u8> {
        let words = self.words.iter();
        let words = words.flat_map(|word| crate::protocol::netstring(word.as_bytes()));
        b"exec:".iter().copied().chain(words).collect()
    }

    /// The last line that a run has left on standard error since the last call.
    pub(super) fn take_said(&self) -> Option<String> {
        self.said().take()
    }

    fn said(&self) -> MutexGuard<'_, Option<String>> {
        let guard = self.said.lock();
        guard.expect("no code panics while it holds the lock of a line")
    }

    /// Starts a run.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a request that would be an option of the program;
    /// [`Error::Program`] if it can't be started.
    pub(super) async fn run(&self, query: &Query<'_>) -> Result<Run, Error> {
        let takes_word = self.takes_request_as_word();
        if takes_word && query.request.starts_with(b"-") {
            return Err(Error::BadRequest {
                subject: self.name.to_string(),
                why: "it begins with '-', and would be an option".into(),
            });
        }

        let permit = self.runs.acquire(Instant::now()).await;
        let command = self.command(query.request);
        let running = process::start(command, permit).await;
        let running = running.map_err(|e| Error::Program {
            subject: self.name.to_string(),
            why: format!("could not be run: {}", reason(&e)),
        })?;

        let has_line = query.protocol == Protocol::Line && !takes_word;
        let line = has_line.then(|| [query.request, b"\n"].concat());
        Ok(Run::new(self.clone(), running, line, query))
    }

    fn command(&self, request: &[u8]) -> Command {
        let word = |word: &'_ String| match word.as_str() {
            REQUEST_WORD => OsStr::from_bytes(request).to_owned(),
            word => word.into(),
        };
        let mut command = Command::new(&self.words[0]);
        command.args(self.words[1..].iter().map(word));

        let variables = ENVIRONMENT.into_iter();
        let variables = variables.filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.env_clear().envs(variables);
        command.current_dir("/").stderr(Stdio::piped());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_the_first_is_not_the_clients() {
        let command: ExecCommand = "rdap -w '{}' 'a  b' x{}".parse().expect("a command");
        assert!(command.takes_request_as_word());
        assert_eq!(command.to_string(), "exec:rdap -w {} 'a  b' x{}");
        let plain: ExecCommand = "agent x{}".parse().expect("a command");
        assert!(!plain.takes_request_as_word(), "only a whole word");

        for (bad, why) in [
            ("", "no command"),
            ("''", "no command"),
            ("  ", "no command"),
            ("{} a", "the command is not for clients to choose"),
            ("a 'b", "a quote that is not closed"),
        ] {
            let error = bad.parse::<ExecCommand>().expect_err(bad).to_string();
            assert!(error.starts_with(why), "{bad}: {error}");
            assert!(error.ends_with("'exec:rdap -w {}'"), "{error}");
        }
    }

    #[test]
    fn no_two_commands_have_the_same_id() {
        let id = |text: &str| text.parse::<ExecCommand>().expect(text).id();
        assert_eq!(id("a b"), id(" a  'b' "));
        assert_ne!(id("a b"), id("'a b'"));
        assert_ne!(id("a b"), id("a b ''"));
    }
}
