//! One request: what is sent, what is read, and whether the answer is allowed.

use super::{Endpoint, READS};
use crate::ledger::Ledger;
use crate::plan::{GRACE, HANG, SLACK, TTL};
use crate::text::{Extent, examine};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// How an answer ended, as the client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Clean,
    Reset,
    /// The client ended it.
    Own,
}

/// The kind of a violation, and what happened.
type Violation = (&'static str, String);

/// A request under way.
pub struct Request<'a> {
    pub endpoint: &'a Endpoint,
    pub key: String,
    /// A moment no later than the proxy's look-up.
    at: Instant,
    behaviour: &'static str,
    pub got: Vec<u8>,
    /// Whether a write met a reset. The kernel reports a reset once; what is read after
    /// it would look like an end.
    is_broken: bool,
}

/// A connection whose reads and writes time out. `None` if it was reset already, or
/// refused by a proxy that is killed now and then.
///
/// `connect_timeout` would ask for SO_ERROR and swallow a reset that must be seen
/// behind the bytes.
pub fn connect(endpoint: &Endpoint) -> io::Result<Option<TcpStream>> {
    let stream = match TcpStream::connect(endpoint.addr) {
        Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused && endpoint.is_killed => {
            return Ok(None);
        }
        other => other?,
    };
    stream.set_read_timeout(Some(HANG))?;
    stream.set_write_timeout(Some(HANG))?;
    Ok(Some(stream))
}

impl<'a> Request<'a> {
    pub fn new(endpoint: &'a Endpoint, key: String, behaviour: &'static str) -> Request<'a> {
        Request {
            endpoint,
            key,
            at: Instant::now(),
            behaviour,
            got: Vec::new(),
            is_broken: false,
        }
    }

    /// Sends bytes. A reset here is the answer's ending. A broken pipe is not: the end
    /// came before it and is still to be read.
    pub fn send(&mut self, stream: &mut TcpStream, bytes: &[u8]) {
        let result = stream.write_all(bytes);
        if result.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset) {
            self.is_broken = true;
        }
    }

    /// Reads the rest of the answer.
    pub fn read_to_end(&mut self, stream: &mut TcpStream) -> io::Result<Ending> {
        self.read(stream)
            .map(|ending| ending.unwrap_or(Ending::Clean))
    }

    /// Reads all that `from` gives, and how it ended, where that is known.
    pub fn read(&mut self, from: &mut impl Read) -> io::Result<Option<Ending>> {
        match from.read_to_end(&mut self.got) {
            Ok(_) if self.is_broken => Ok(Some(Ending::Reset)),
            Ok(_) => Ok(Some(Ending::Clean)),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(Some(Ending::Reset)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(io::Error::other(format!(
                "{} hangs: {} bytes of {} and then nothing for {HANG:?}",
                self.behaviour,
                self.got.len(),
                self.key
            ))),
            Err(e) => Err(e),
        }
    }

    /// Checks the one rule: before a clean end stands a whole text of this key, not too
    /// old; before any other ending stands a part of such a text.
    pub fn check(&self, ledger: &Ledger, ending: Ending) {
        match self.outcome(ledger, ending) {
            Ok(outcome) => ledger.count(self.behaviour, outcome),
            Err((kind, what)) => {
                let got = self.got.len();
                let request = format!("{}: {}, {}", self.endpoint.name, self.key, self.behaviour);
                ledger.violation(kind, format!("{request}, {got} bytes, {ending:?}: {what}"));
            }
        }
    }

    fn outcome(&self, ledger: &Ledger, ending: Ending) -> Result<&'static str, Violation> {
        let extent = examine(&self.key, &self.got).map_err(|what| ("no text", what))?;
        match (extent, ending) {
            (_, Ending::Own) => Ok("left"),
            (Extent::Whole(serial), Ending::Clean) => self.source(ledger, serial),
            (extent, Ending::Clean) => Err(("a part like a whole", format!("{extent:?}"))),
            (extent, Ending::Reset) => {
                if let Extent::Whole(serial) | Extent::Part(serial) = extent {
                    self.count_if_cut(ledger, serial);
                }
                Ok("reset")
            }
        }
    }

    /// A reset is always allowed. Even so, it is worth counting how often a reader gets
    /// one instead of a text that the upstream ended cleanly.
    fn count_if_cut(&self, ledger: &Ledger, serial: u64) {
        let text = ledger.text(serial).filter(|text| text.ended.is_some());
        if let Some(text) = text {
            let outcome = if self.behaviour == READS {
                "cut"
            } else {
                "cut*"
            };
            ledger.count(text.fault, outcome);
        }
    }

    /// Where a whole text came from: the cache ("kept") or a fetch.
    ///
    /// # Errors
    /// The text did not end cleanly, or is too old, or should have been forgotten.
    fn source(&self, ledger: &Ledger, serial: u64) -> Result<&'static str, Violation> {
        let unknown = || ("too old", format!("number {serial} is no longer on record"));
        let text = ledger.text(serial).ok_or_else(unknown)?;
        let named = format!("number {serial} ({})", text.fault);
        let ended = text.ended.ok_or(("never whole", named.clone()))?;

        let oldest = (TTL + GRACE) * self.endpoint.links + SLACK;
        let age = self.at.saturating_duration_since(ended);
        if age > oldest {
            return Err(("too old", format!("{named}, {age:?}")));
        }

        let purges = self.endpoint.purges.as_ref();
        if purges.is_some_and(|purges| purges.forbid(text.began, self.at)) {
            return Err(("not purged", named));
        }
        Ok(if ended < self.at { "kept" } else { "fetched" })
    }
}
