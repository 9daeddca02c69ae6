//! Pipes to and from child processes.

use async_io::Async;
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Our end of a pipe.
pub(crate) struct Pipe {
    end: Async<OwnedFd>,
}

impl Pipe {
    /// Registers the end of a pipe with the reactor.
    pub(crate) fn new(end: impl Into<OwnedFd>) -> io::Result<Pipe> {
        Ok(Pipe {
            end: Async::new(end.into())?,
        })
    }

    /// Reads the next bytes; 0 at the end. Asks the reactor before each read, so that a fast
    /// writer does not keep other tasks from running.
    pub(crate) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.end.readable().await?;
            match rustix::io::read(self.end.get_ref(), &mut *into) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The bytes in the pipe now, at most `limit` of them. Does not wait.
    pub(crate) fn rest(&self, limit: u64) -> io::Result<Vec<u8>> {
        let count = rustix::io::ioctl_fionread(self.end.get_ref())?.min(limit);
        let mut rest = vec![0; count as usize];

        let mut filled = 0;
        while filled < rest.len() {
            match rustix::io::read(self.end.get_ref(), &mut rest[filled..]) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }

        rest.truncate(filled);
        Ok(rest)
    }

    /// Writes all bytes, without a deadline.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.end.writable().await?;
            match rustix::io::write(self.end.get_ref(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
