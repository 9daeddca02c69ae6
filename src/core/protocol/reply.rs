//! When is a server's reply complete?

use super::marker::{AnswerTail, CLEAN_END};
use super::{EndRule, Malformed, Protocol, Scanner};
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
    /// What makes a reply without framing whole.
    rule: EndRule,
    /// Its end so far, if there is a marker to look for.
    tail: AnswerTail,
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
            rule: CLEAN_END.clone(),
            tail: AnswerTail::default(),
        }
    }

    /// The same, for a reply that is whole as this rule says. Framing goes before it.
    pub fn ending_by(self, rule: &EndRule) -> ReplyDecoder {
        let rule = rule.clone();
        ReplyDecoder { rule, ..self }
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
            if self.rule.marker.is_some() {
                self.tail.push(bytes);
            }
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
    /// a frame, [`Error::NoEndMarker`] before the marker.
    pub fn eof(&self) -> Result<(), Error> {
        let subject = self.subject.clone();
        match (&self.framing, self.got) {
            (None, 0) if self.rule.is_whole(b"") => Ok(()),
            (None, 0) => Err(Error::Empty { subject }),
            (Some(_), 0) => Err(Error::Declined { subject }),
            (Some(scanner), got) if !scanner.is_done() => Err(Error::Reset {
                subject,
                got,
                why: Malformed::Unfinished.to_string(),
            }),
            (None, got) if self.rule.marker.is_some() && !self.has_marker() => {
                Err(Error::NoEndMarker { subject, got })
            }
            _ => Ok(()),
        }
    }

    /// Whether the reply ends in its marker so far.
    fn has_marker(&self) -> bool {
        let marker = self.rule.marker.as_ref();
        self.got > 0 && marker.is_some_and(|marker| marker.ends(self.tail.bytes()))
    }

    /// Takes a connection that broke.
    ///
    /// # Errors
    /// [`Error::Reset`], whatever has come, unless the marker says that it was all.
    pub fn broken(&self, why: &io::Error) -> Result<(), Error> {
        if self.has_marker() {
            return Ok(());
        }
        Err(Error::Reset {
            subject: self.subject.clone(),
            got: self.got,
            why: reason(why),
        })
    }

    /// Takes a silence of `limit`, after which nothing more is waited for. `is_sent`
    /// says whether the whole request was taken.
    ///
    /// # Errors
    /// [`Error::Timeout`], unless the marker has come.
    pub fn silent(&self, is_sent: bool, limit: Duration) -> Result<(), Error> {
        if self.has_marker() {
            return Ok(());
        }
        Err(if is_sent {
            self.read_timeout(limit)
        } else {
            self.timeout(Stage::Send, limit)
        })
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
