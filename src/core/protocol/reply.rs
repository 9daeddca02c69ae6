//! When is a server's reply complete?

use super::{Malformed, Protocol, Scanner};
use crate::error::{Error, Stage, reason};
use std::io;
use std::time::Duration;

/// Decides whether a reply is complete, as it comes in. No other code decides that.
#[derive(Debug)]
pub struct ReplyDecoder {
    /// The server, for errors.
    subject: String,
    /// Bytes of the reply so far.
    got: u64,
    /// Follows a framed reply.
    framing: Option<Scanner>,
}

impl ReplyDecoder {
    /// A decoder for a reply of the server `subject`. A netstring's payload may have at
    /// most `limit` bytes.
    pub fn new(protocol: Protocol, subject: String, limit: u64) -> ReplyDecoder {
        let framing = (protocol == Protocol::Netstring).then(|| Scanner::new(limit));
        ReplyDecoder {
            subject,
            got: 0,
            framing,
        }
    }

    /// Takes the next bytes. Returns whether the framing says that the reply is
    /// complete.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the framing is broken, [`Error::TooLong`] if it
    /// announces a length over the limit.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        self.got += bytes.len() as u64;
        let Some(scanner) = &mut self.framing else {
            return Ok(false);
        };

        match scanner.scan(bytes, |_| ()) {
            Ok(used) if used == bytes.len() => Ok(scanner.is_done()),
            Ok(_) => Err(self.malformed(Malformed::Trailing)),
            Err(why) => Err(self.malformed(why)),
        }
    }

    fn malformed(&self, why: Malformed) -> Error {
        let subject = self.subject.clone();
        match why {
            Malformed::TooLong(limit) => Error::TooLong { subject, limit },
            why => Error::Malformed {
                subject,
                why: why.to_string(),
            },
        }
    }

    /// Takes a clean end of the connection.
    ///
    /// # Errors
    /// [`Error::Empty`] or [`Error::Declined`] if nothing came, [`Error::Reset`] inside
    /// a frame.
    pub fn eof(&self) -> Result<(), Error> {
        let subject = self.subject.clone();
        match (&self.framing, self.got) {
            (None, 0) => Err(Error::Empty { subject }),
            (Some(_), 0) => Err(Error::Declined { subject }),
            (Some(scanner), got) if !scanner.is_done() => Err(Error::Reset {
                subject,
                got,
                why: Malformed::Unfinished.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// The error for a connection that broke: the reply is not complete, whatever has
    /// come.
    pub fn io_error(&self, why: &io::Error) -> Error {
        Error::Reset {
            subject: self.subject.clone(),
            got: self.got,
            why: reason(why),
        }
    }

    /// The error for a server that took nothing of the request and sent nothing within
    /// `limit`.
    pub(crate) fn write_timeout(&self, limit: Duration) -> Error {
        self.timeout(Stage::Send, limit)
    }

    /// The error for a server that sent nothing within `limit`.
    pub(crate) fn read_timeout(&self, limit: Duration) -> Error {
        if self.got == 0 {
            self.timeout(Stage::FirstByte, limit)
        } else {
            self.timeout(Stage::NextByte, limit)
        }
    }

    fn timeout(&self, stage: Stage, limit: Duration) -> Error {
        Error::Timeout {
            subject: self.subject.clone(),
            stage,
            limit,
        }
    }
}
