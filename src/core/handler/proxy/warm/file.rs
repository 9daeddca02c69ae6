//! A file of requests: one a line, as clients send them, without the end of the line.
//!
//! Nothing else is in it. An empty line is an empty request: the menu in gopher, and
//! the list of users in finger. In the poem protocol, where no request is sent, it is
//! the only line there can be.

use crate::error::reason;
use crate::protocol::{Protocol, check_line};
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// The most requests. Each is fetched again in every ttl, asked for or not.
pub const REQUESTS_MOST: usize = 10_000;

/// The longest file, in bytes: as many request lines as there may be, and some.
const BYTES_MOST: u64 = 16 << 20;

/// A file of requests, as it was read.
#[derive(Debug, Clone)]
pub struct WarmFile {
    pub(super) path: PathBuf,
    protocol: Protocol,
    pub(super) requests: Vec<Bytes>,
}

/// Why a file of requests can't be used. The caller names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWarmFile {
    /// It can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// It is too long.
    #[error("too long; wanted at most {REQUESTS_MOST} lines and {BYTES_MOST} bytes")]
    TooLong,
    /// One of its lines is no request.
    #[error("line {line}: {why}")]
    BadLine {
        /// Which, from 1.
        line: usize,
        /// Why not.
        why: String,
    },
}

impl WarmFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn read(path: PathBuf, protocol: Protocol) -> Result<WarmFile, BadWarmFile> {
        let unreadable = |error| BadWarmFile::Unreadable(reason(&error));
        let file = File::open(&path).map_err(unreadable)?;

        let mut text = Vec::new();
        let read = file.take(BYTES_MOST + 1).read_to_end(&mut text);
        read.map_err(unreadable)?;
        if text.len() as u64 > BYTES_MOST {
            return Err(BadWarmFile::TooLong);
        }
        Ok(WarmFile {
            path,
            protocol,
            requests: requests(&text, protocol)?,
        })
    }

    /// Reads the same file again.
    pub(super) fn again(&self) -> Result<WarmFile, BadWarmFile> {
        WarmFile::read(self.path.clone(), self.protocol)
    }
}

/// The requests of a text, in order.
fn requests(text: &[u8], protocol: Protocol) -> Result<Vec<Bytes>, BadWarmFile> {
    let mut requests = Vec::new();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() && protocol != Protocol::Poem {
        return Ok(requests);
    }

    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let request = line.strip_suffix(b"\r").unwrap_or(line);
        check(request, protocol).map_err(|why| BadWarmFile::BadLine { line: number, why })?;
        if number > REQUESTS_MOST {
            return Err(BadWarmFile::TooLong);
        }
        requests.push(Bytes::copy_from_slice(request));
    }
    Ok(requests)
}

fn check(request: &[u8], protocol: Protocol) -> Result<(), String> {
    match protocol {
        Protocol::Poem if !request.is_empty() => {
            Err("there is no request in the poem protocol; wanted one empty line".into())
        }
        Protocol::Poem | Protocol::Netstring => Ok(()),
        Protocol::Line => check_line(request).map_err(|why| why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, protocol: Protocol) -> Result<Vec<Bytes>, String> {
        requests(text.as_bytes(), protocol).map_err(|bad| bad.to_string())
    }

    #[test]
    fn each_line_is_a_request() {
        for (text, wanted) in [
            ("a\nb\n", &["a", "b"][..]),
            ("a\r\nb b", &["a", "b b"]),
            ("# a\n a\n\nb\n", &["# a", " a", "", "b"]),
            ("\n\n", &["", ""]),
            ("", &[]),
        ] {
            let wanted: Vec<Bytes> = wanted.iter().map(|line| (*line).into()).collect();
            assert_eq!(lines(text, Protocol::Line), Ok(wanted), "{text:?}");
        }
        assert_eq!(lines("\n", Protocol::Poem), Ok(vec![Bytes::new()]));
    }

    #[test]
    fn a_line_that_is_no_request_is_told_by_its_number() {
        let long = format!("a\n{}", "x".repeat(1025));
        for (text, protocol, wanted) in [
            ("a\nb\0\n", Protocol::Line, "line 2: a control byte"),
            (&long, Protocol::Line, "line 2: longer than 1024 bytes"),
            ("\na\n", Protocol::Poem, "line 2: there is no request"),
        ] {
            let error = lines(text, protocol).expect_err(text);
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn there_are_not_too_many_requests() {
        let text = "x\n".repeat(REQUESTS_MOST);
        assert!(lines(&text, Protocol::Line).is_ok());
        let error = lines(&(text + "x"), Protocol::Line).expect_err("one too many");
        assert!(
            error.starts_with("too long; wanted at most 10000 lines"),
            "{error}"
        );
    }
}
