//! What can go wrong, once for the whole toolkit.
//!
//! Every text reads `what: why`, in lower case, and names the address, path or value exactly once; `cmd` puts
//! `poetry: ` before it. The error of a fetch is shared by everyone who waited on it, so errors are plain data that
//! can be cloned, and carry the operating system's reason as text.

use std::time::Duration;

/// The stage of an [`Error::Timeout`] while connecting.
pub const NO_CONNECTION: &str = "no connection";

/// One failure, of a fetch, of a transformation or of the machine below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host name has no address, or the resolver did not say in time.
    #[error("{addr}: could not resolve the name: {why}")]
    Unresolved {
        /// The address as it was given.
        addr: String,
        /// The resolver's reason.
        why: String,
    },

    /// No connection could be made at any of the addresses.
    #[error("{addr}: could not connect: {why}")]
    Unreachable {
        /// The address as it was given.
        addr: String,
        /// The reason for the address tried last.
        why: String,
    },

    /// A deadline passed.
    #[error("{addr}: {stage} within {}", human(*.limit))]
    Timeout {
        /// Whom we waited for.
        addr: String,
        /// What did not happen, as in `no connection`.
        stage: &'static str,
        /// The deadline that passed.
        limit: Duration,
    },

    /// The connection broke before the reply was complete: a reset, or a close inside a frame.
    #[error("{addr}: cut off after {got} bytes: {why}")]
    Reset {
        /// Who cut it.
        addr: String,
        /// How many bytes had come by then.
        got: u64,
        /// The system's reason.
        why: String,
    },

    /// The connection closed cleanly without a single byte, which no poem is.
    #[error("{addr}: an empty reply")]
    Empty {
        /// Who sent nothing.
        addr: String,
    },

    /// The poem is longer than this side takes.
    #[error("{addr}: longer than {limit} bytes")]
    TooLong {
        /// Whose poem.
        addr: String,
        /// The limit in bytes.
        limit: u64,
    },

    /// Others take up all of the room there is: fetches the capacity, or requests what they share.
    #[error("{addr}: no room left among {capacity} bytes")]
    NoRoom {
        /// Whose poem or request.
        addr: String,
        /// The room for all of them, in bytes.
        capacity: u64,
    },

    /// What a script asked for, to rehearse it.
    #[error("rehearsed: {step}")]
    Rehearsed {
        /// The script's step.
        step: String,
    },

    /// A refresh brought twice a different beginning of the poem that is kept.
    #[error("{addr}: only a part of the kept poem came, twice")]
    Doubtful {
        /// Who sent it.
        addr: String,
    },

    /// The reply breaks its own framing.
    #[error("{addr}: a malformed reply: {why}")]
    Malformed {
        /// Who sent it.
        addr: String,
        /// What is wrong with it.
        why: String,
    },

    /// A client asked in a way that its protocol does not allow.
    #[error("{addr}: a malformed request: {why}")]
    BadRequest {
        /// The client.
        addr: String,
        /// What is wrong with the request.
        why: String,
    },

    /// A service that frames its replies closed without one: its way to say no.
    #[error("{addr}: closed without a reply: the request was declined")]
    Declined {
        /// Who declined.
        addr: String,
    },

    /// A transformation could not be done here.
    #[error("{name}: {why}")]
    Transform {
        /// The transformation's name.
        name: String,
        /// Why the poem can't be transformed.
        why: String,
    },

    /// A reader was slower than the window of a poem that is too long to be kept.
    #[error("the reader fell out of the window of {window} bytes")]
    FellBehind {
        /// The window's size in bytes.
        window: u64,
    },

    /// The readers of a poem that is too long to be kept took nothing while others waited for the upstream.
    #[error("{addr}: its readers took nothing while other fetches waited")]
    TooSlow {
        /// Whose poem.
        addr: String,
    },

    /// Everyone who wanted the poem has left, and it can't be kept for those to come.
    #[error("nobody is left to read the poem")]
    Deserted,

    /// The work ended without a result: its task was dropped or panicked. Never seen unless there is a bug.
    #[error("the fetch was abandoned")]
    Abandoned,

    /// A file, an address or another resource of this machine can't be had.
    #[error("{what}: {why}")]
    Local {
        /// The path or address.
        what: String,
        /// The system's reason.
        why: String,
    },

    /// Our own output could not be written.
    #[error("{what}: could not be written: {why}")]
    Output {
        /// The path, or `standard output`.
        what: String,
        /// The system's reason.
        why: String,
    },
}

impl Error {
    /// The process's exit code for this error: curl's, so that scripts need not learn new ones.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Unresolved { .. } => 6,
            Error::Unreachable { .. } => 7,
            Error::Output { .. } => 23,
            Error::Timeout { .. } => 28,
            Error::Empty { .. } | Error::Declined { .. } => 52,
            Error::Reset { .. } | Error::Malformed { .. } | Error::Doubtful { .. } => 56,
            Error::TooLong { .. } => 63,
            Error::Transform { .. }
            | Error::BadRequest { .. }
            | Error::NoRoom { .. }
            | Error::Rehearsed { .. }
            | Error::FellBehind { .. }
            | Error::TooSlow { .. }
            | Error::Deserted
            | Error::Abandoned
            | Error::Local { .. } => 1,
        }
    }

    /// Whether nobody was reached, so that another may be asked instead.
    pub fn is_unreached(&self) -> bool {
        use Error::*;
        matches!(
            self,
            Unresolved { .. }
                | Unreachable { .. }
                | Timeout {
                    stage: NO_CONNECTION,
                    ..
                }
        )
    }

    /// Whether the same question may have another answer a little later.
    pub fn is_worth_another_try(&self) -> bool {
        use Error::*;
        matches!(
            self,
            Unresolved { .. } | Unreachable { .. } | Timeout { .. } | Reset { .. } | Empty { .. }
        )
    }

    /// The one word for this error in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Error::Unresolved { .. } => "unresolved",
            Error::Unreachable { .. } => "refused",
            Error::Timeout { .. } => "timeout",
            Error::Reset { .. } | Error::Malformed { .. } | Error::Doubtful { .. } => "reset",
            Error::Empty { .. } | Error::Declined { .. } => "empty",
            Error::TooLong { .. } => "too_long",
            Error::Transform { .. } => "untransformed",
            Error::BadRequest { .. } => "bad_request",
            Error::NoRoom { .. } => "no_room",
            Error::Rehearsed { .. } => "rehearsed",
            Error::FellBehind { .. } | Error::TooSlow { .. } => "fell_behind",
            Error::Deserted | Error::Abandoned => "abandoned",
            Error::Local { .. } | Error::Output { .. } => "failed",
        }
    }
}

/// The operating system's reason in its own words, lower case and without the number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// A duration the way people write it: at most three units, no fractions (`2h`, `1s 500ms`).
fn human(limit: Duration) -> String {
    humantime::format_duration(limit).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_the_address_once_and_the_limit_in_words() {
        let error = Error::Timeout {
            addr: "127.0.0.1:1".into(),
            stage: NO_CONNECTION,
            limit: Duration::from_secs(5),
        };
        assert_eq!(error.to_string(), "127.0.0.1:1: no connection within 5s");
        assert_eq!(error.exit_code(), 28);
        assert!(error.is_unreached());
        let silent = Error::Timeout {
            addr: String::new(),
            stage: "no reply",
            limit: Duration::ZERO,
        };
        assert!(!silent.is_unreached());
    }
}
