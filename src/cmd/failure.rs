//! Why a command failed.

use clap::error::ErrorKind;
use poetry::error::Error;

/// Why a command failed. Only `cli` turns it into text and an exit code.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line parses, but makes no sense.
    Usage(Usage),
    /// The command line is fine; the work failed.
    Work(Error),
}

/// What is wrong with a command line that clap could parse.
#[derive(Debug)]
pub(super) struct Usage {
    /// The kind of error in clap's terms.
    pub kind: ErrorKind,
    /// The option to blame, if its value alone is wrong.
    pub option: Option<&'static str>,
    /// What is wrong and what is wanted.
    pub text: String,
}

impl Failure {
    /// Two options, or an option and an address, cannot be used together.
    pub fn conflict(text: impl Into<String>) -> Failure {
        Failure::Usage(Usage {
            kind: ErrorKind::ArgumentConflict,
            option: None,
            text: text.into(),
        })
    }

    /// The value of `option` cannot be used.
    pub fn value(option: &'static str, text: impl Into<String>) -> Failure {
        Failure::Usage(Usage {
            kind: ErrorKind::ValueValidation,
            option: Some(option),
            text: text.into(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Work(error)
    }
}
