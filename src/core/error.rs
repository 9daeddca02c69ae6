//! Everything that can go wrong, once for the whole toolkit.
//!
//! Every text reads `what: why`, in lower case, and names its subject (an address, a
//! path, a name) exactly once. `cmd` prints `poetry: ` before it. All readers of a
//! failed fetch share its error, so errors are plain data: they can be cloned, and
//! carry the operating system's reason as text.

use std::fmt;
use std::time::Duration;

/// One failure: of a fetch, of a transformation, or of this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host name has no address.
    #[error("{subject}: could not resolve the name: {why}")]
    Unresolved {
        /// The address as given.
        subject: String,
        /// The resolver's reason.
        why: String,
    },

    /// No address of the host accepted a connection.
    #[error("{subject}: could not connect: {why}")]
    Unreachable {
        /// The address as given.
        subject: String,
        /// The reason for the address tried last.
        why: String,
    },

    /// A deadline passed.
    #[error("{subject}: {stage} within {}", human(*.limit))]
    Timeout {
        /// The server, program or service that was late.
        subject: String,
        /// What did not happen in time.
        stage: Stage,
        /// The deadline that passed.
        limit: Duration,
    },

    /// The connection broke before the reply was complete: a reset, or a close inside a
    /// frame.
    #[error("{subject}: cut off after {got} bytes: {why}")]
    Reset {
        /// The server.
        subject: String,
        /// Bytes received until then.
        got: u64,
        /// The system's reason.
        why: String,
    },

    /// The connection closed cleanly without a byte. A poem has at least one, unless
    /// empty ones are allowed.
    #[error("{subject}: an empty reply")]
    Empty {
        /// The server.
        subject: String,
    },

    /// The connection closed cleanly, but each whole answer of this server ends in a
    /// marker, and this one does not.
    #[error("{subject}: ended before its end marker, after {got} bytes")]
    NoEndMarker {
        /// The server.
        subject: String,
        /// Bytes received.
        got: u64,
    },

    /// The poem is longer than the limit.
    #[error("{subject}: longer than {limit} bytes")]
    TooLong {
        /// The server, program or file the poem came from.
        subject: String,
        /// The limit in bytes.
        limit: u64,
    },

    /// The memory budget is used up: of fetches (the capacity), or of requests.
    #[error("{subject}: no room left among {capacity} bytes")]
    NoRoom {
        /// The server or client the bytes came from.
        subject: String,
        /// The whole budget in bytes.
        capacity: u64,
    },

    /// A failure that a script asked for.
    #[error("rehearsed: {step}")]
    Rehearsed {
        /// The script's step.
        step: String,
    },

    /// A refresh brought two different beginnings of the poem it was to replace.
    #[error("{subject}: only a part of the kept poem came, twice")]
    Doubtful {
        /// The server.
        subject: String,
    },

    /// The reply breaks its framing.
    #[error("{subject}: a malformed reply: {why}")]
    Malformed {
        /// The server.
        subject: String,
        /// What is wrong with the reply.
        why: String,
    },

    /// The request breaks its protocol.
    #[error("{subject}: a malformed request: {why}")]
    BadRequest {
        /// The client.
        subject: String,
        /// What is wrong with the request.
        why: String,
    },

    /// A service that frames its replies closed without one: the protocol's way to
    /// decline.
    #[error("{subject}: closed without a reply: the request was declined")]
    Declined {
        /// The service.
        subject: String,
    },

    /// A transformation failed on this machine.
    #[error("{subject}: {why}")]
    Transform {
        /// The transformation's name.
        subject: String,
        /// Why the poem could not be transformed.
        why: String,
    },

    /// A command that was asked for a text failed.
    #[error("{subject}: {why}")]
    Program {
        /// The command.
        subject: String,
        /// How it failed, and what it said last.
        why: String,
    },

    /// The readers of a poem too long to be kept took nothing while other fetches
    /// waited.
    #[error("{subject}: its readers took nothing while other fetches waited")]
    TooSlow {
        /// The server.
        subject: String,
    },

    /// Another process's fetch was followed and lost, and its text could not be had a
    /// second time: the bytes before it are only a part.
    #[error("{subject}: cut off after {got} bytes: {why}")]
    Lost {
        /// The server.
        subject: String,
        /// Bytes received until then.
        got: u64,
        /// Why no more can be added to them.
        why: &'static str,
    },

    /// Too many fetches wait for the upstream already.
    #[error("{subject}: {waiting} fetches wait for it already")]
    QueueFull {
        /// The server.
        subject: String,
        /// The most that may wait.
        waiting: usize,
    },

    /// The work ended without a result: its task was dropped or panicked. A bug.
    #[error("the fetch was abandoned")]
    Abandoned,

    /// A file, an address or another resource of this machine can't be used.
    #[error("{subject}: {why}")]
    Local {
        /// The path or address.
        subject: String,
        /// The system's reason.
        why: String,
    },

    /// The output could not be written.
    #[error("{subject}: could not be written: {why}")]
    Output {
        /// The path, or `standard output`.
        subject: String,
        /// The system's reason.
        why: String,
    },

    /// A failure of an origin that is not part of this crate.
    #[error("{subject}: {why}")]
    Other {
        /// Where the text was to come from.
        subject: String,
        /// What went wrong.
        why: String,
    },
}

/// What did not happen before a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No place before the upstream became free.
    Turn,
    /// The resolver was silent: like [`Error::Unresolved`] in words and exit codes.
    Resolve,
    /// The connection was not made.
    Connect,
    /// The server did not take the request.
    Send,
    /// The server sent no reply.
    FirstByte,
    /// The server stopped sending.
    NextByte,
    /// The reply did not end.
    Complete,
    /// The service did not transform the poem.
    Transform,
    /// The program did not end.
    Program,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Turn => "no turn to ask it",
            Stage::Resolve => "the resolver did not answer",
            Stage::Connect => "no connection",
            Stage::Send => "the request was not taken",
            Stage::FirstByte => "no reply",
            Stage::NextByte => "nothing more",
            Stage::Complete => "not complete",
            Stage::Transform => "no transformation",
            Stage::Program => "the program did not end",
        })
    }
}

impl Error {
    /// The process's exit code for this error. They are curl's, where curl has one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Unresolved { .. }
            | Error::Timeout {
                stage: Stage::Resolve,
                ..
            } => 6,
            Error::Unreachable { .. } => 7,
            Error::Output { .. } => 23,
            Error::Timeout { .. } => 28,
            Error::Empty { .. } | Error::Declined { .. } => 52,
            Error::Reset { .. }
            | Error::NoEndMarker { .. }
            | Error::Malformed { .. }
            | Error::Doubtful { .. }
            | Error::Lost { .. }
            | Error::Program { .. } => 56,
            Error::TooLong { .. } => 63,
            Error::Transform { .. }
            | Error::BadRequest { .. }
            | Error::NoRoom { .. }
            | Error::Rehearsed { .. }
            | Error::QueueFull { .. }
            | Error::TooSlow { .. }
            | Error::Abandoned
            | Error::Local { .. }
            | Error::Other { .. } => 1,
        }
    }

    /// Whether no connection was made, so that another server may be asked instead.
    pub fn is_unreached(&self) -> bool {
        match self {
            Error::Unresolved { .. } | Error::Unreachable { .. } => true,
            Error::Timeout { stage, .. } => matches!(stage, Stage::Resolve | Stage::Connect),
            _ => false,
        }
    }

    /// Whether the server refused the connection, or reset it before it sent a byte, as
    /// one that ends does to those in its backlog. Then it may be starting again.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Error::Unreachable { .. } | Error::Reset { got: 0, .. }
        )
    }

    /// Whether this says something about the server that was asked, and not only about
    /// this process or its clients.
    pub fn is_upstreams(&self) -> bool {
        match self {
            Error::Timeout { stage, .. } => *stage != Stage::Turn,
            Error::Unresolved { .. }
            | Error::Unreachable { .. }
            | Error::Reset { .. }
            | Error::NoEndMarker { .. }
            | Error::Empty { .. }
            | Error::TooLong { .. }
            | Error::Doubtful { .. }
            | Error::Malformed { .. }
            | Error::Declined { .. }
            | Error::Transform { .. }
            | Error::Program { .. }
            | Error::Other { .. } => true,
            Error::NoRoom { .. }
            | Error::QueueFull { .. }
            | Error::Rehearsed { .. }
            | Error::BadRequest { .. }
            | Error::TooSlow { .. }
            | Error::Lost { .. }
            | Error::Abandoned
            | Error::Local { .. }
            | Error::Output { .. } => false,
        }
    }

    /// Whether another server may do better with the same request.
    pub fn is_worth_another_server(&self) -> bool {
        matches!(
            self,
            Error::Unresolved { .. }
                | Error::Unreachable { .. }
                | Error::Timeout { .. }
                | Error::Reset { .. }
                | Error::NoEndMarker { .. }
                | Error::Empty { .. }
                | Error::Malformed { .. }
                | Error::Program { .. }
        )
    }

    /// Whether the same request may be answered a little later.
    pub fn is_worth_another_try(&self) -> bool {
        use Error::*;
        matches!(
            self,
            Unresolved { .. }
                | Unreachable { .. }
                | Timeout { .. }
                | Reset { .. }
                | NoEndMarker { .. }
                | Empty { .. }
        )
    }

    /// The one word for this error in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Error::Unresolved { .. }
            | Error::Timeout {
                stage: Stage::Resolve,
                ..
            } => "unresolved",
            Error::Unreachable { .. } => "refused",
            Error::Timeout { .. } => "timeout",
            Error::Reset { .. }
            | Error::NoEndMarker { .. }
            | Error::Malformed { .. }
            | Error::Doubtful { .. }
            | Error::Lost { .. }
            | Error::Program { .. } => "reset",
            Error::Empty { .. } | Error::Declined { .. } => "empty",
            Error::TooLong { .. } => "too_long",
            Error::Transform { .. } => "untransformed",
            Error::BadRequest { .. } => "bad_request",
            Error::NoRoom { .. } => "no_room",
            Error::Rehearsed { .. } => "rehearsed",
            Error::QueueFull { .. } => "queue_full",
            Error::TooSlow { .. } => "fell_behind",
            Error::Abandoned => "abandoned",
            Error::Local { .. } | Error::Output { .. } | Error::Other { .. } => "failed",
        }
    }
}

/// The operating system's reason in its own words: lower case, without the number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);

    let mut chars = text.chars();
    let first = chars.next().map(char::to_lowercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// A duration as people write it: at most three units, no fractions (`2h`, `1s 500ms`).
fn human(limit: Duration) -> String {
    humantime::format_duration(limit).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_its_subject_once_and_the_limit_in_words() {
        let timeout = |stage, limit| Error::Timeout {
            subject: "127.0.0.1:1".into(),
            stage,
            limit,
        };

        let error = timeout(Stage::Connect, Duration::from_secs(5));
        assert_eq!(error.to_string(), "127.0.0.1:1: no connection within 5s");
        assert_eq!(error.exit_code(), 28);
        assert!(error.is_unreached());

        let error = timeout(Stage::Resolve, Duration::from_secs(5));
        let text = "127.0.0.1:1: the resolver did not answer within 5s";
        assert_eq!(error.to_string(), text);
        assert_eq!((error.exit_code(), error.word()), (6, "unresolved"));
        assert!(error.is_unreached());

        let silent = timeout(Stage::FirstByte, Duration::ZERO);
        assert!(!silent.is_unreached());
    }
}
