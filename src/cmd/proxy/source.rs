//! What `poetry proxy` fetches from, as it is named on the command line.

use crate::cmd::addrs::{SERVE_PORT, connect_addr};
use crate::cmd::failure::Failure;
use crate::cmd::transforms::most_similar;
use poetry::addr::Addr;
use poetry::net::Listener;
use poetry::upstream::{BadCommand, ExecCommand, Origin, Recital, Upstream};
use std::fmt;

/// The UPSTREAM that needs no server.
const BUILTIN: &str = "builtin";

/// Before the UPSTREAM that is a command.
pub(in crate::cmd) const EXEC: &str = "exec:";

/// One UPSTREAM.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Builtin,
    Server(Addr),
    Exec(ExecCommand),
}

impl Source {
    /// The command, if it is one.
    pub(super) fn command(&self) -> Option<&ExecCommand> {
        match self {
            Source::Exec(command) => Some(command),
            Source::Builtin | Source::Server(_) => None,
        }
    }

    /// Whether the same words name another server on each machine.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Source::Builtin => true,
            Source::Server(addr) => addr.is_local(),
            Source::Exec(_) => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Builtin => f.write_str(BUILTIN),
            Source::Server(addr) => addr.fmt(f),
            Source::Exec(command) => write!(f, "{EXEC}{command}"),
        }
    }
}

/// Parses one UPSTREAM.
pub(super) fn source(text: &str) -> Result<Source, String> {
    if text == BUILTIN {
        return Ok(Source::Builtin);
    }
    if let Some(command) = text.strip_prefix(EXEC) {
        let command: Result<ExecCommand, BadCommand> = command.parse();
        return command.map(Source::Exec).map_err(|error| error.to_string());
    }
    let is_misspelt = || most_similar(text, &[BUILTIN]).is_some();
    connect_addr(SERVE_PORT)(text)
        .map(Source::Server)
        .map_err(|error| match error {
            _ if is_misspelt() => format!("not an address; try {BUILTIN}"),
            error if error.contains("; wanted [") => format!("{error}, or {BUILTIN}"),
            error => error,
        })
}

/// What they name, of which commands run at most `runs` times at once.
pub(super) fn upstream(sources: &[Source], runs: usize) -> Upstream {
    let origin = |source: &Source| match source {
        Source::Server(addr) => Origin::Server(addr.clone()),
        Source::Exec(command) => Origin::Exec(command.clone().at_most(runs)),
        Source::Builtin => Origin::BuiltIn(Recital::default()),
    };
    Upstream::of(sources.iter().map(origin).collect())
}

/// Descriptors for `conns` connections or runs.
pub(super) fn descriptors(sources: &[Source], conns: u64) -> u64 {
    let is_command = |source: &Source| matches!(source, Source::Exec(_));
    descriptors_of(conns, sources.iter().any(is_command))
}

/// The same, where any of the sources is a command or none.
pub(super) fn descriptors_of(conns: u64, runs_any: bool) -> u64 {
    const OF_A_RUN: u64 = 3; // its standard input, output and error

    if runs_any { conns * OF_A_RUN } else { conns }
}

/// Refuses a proxy that asks itself, because it would wait for itself. A loop through
/// other processes cannot be seen; its fetches end by `--idle-timeout`.
pub(super) async fn refuse_loop(servers: &[&Addr], listeners: &[Listener]) -> Result<(), Failure> {
    for server in servers {
        for listener in listeners {
            if listener.is_reached_by(server).await {
                return Err(Failure::conflict(format!(
                    "'{server}' is where this proxy listens: it would wait for itself"
                )));
            }
        }
    }
    Ok(())
}
