//! Pipes to and from programs.

use async_io::Async;
use std::io;
use std::os::fd::OwnedFd;

/// Our end of a pipe to or from a program.
pub struct Pipe {
    end: Async<OwnedFd>,
}

impl Pipe {
    /// Makes it able to wait.
    pub fn new(end: impl Into<OwnedFd>) -> io::Result<Pipe> {
        Ok(Pipe {
            end: Async::new(end.into())?,
        })
    }

    /// The next bytes; 0 at the end. Asks the reactor each time, also when there is something, so that a flood leaves
    /// the thread to others now and then.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.end.readable().await?;
            match rustix::io::read(self.end.get_ref(), &mut *into) {
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What is in the pipe at this moment, but at most this many bytes of it. Doesn't wait.
    pub fn rest(&self, most: u64) -> io::Result<Vec<u8>> {
        let count = rustix::io::ioctl_fionread(self.end.get_ref())?.min(most);
        let (mut rest, mut filled) = (vec![0; count as usize], 0);
        while filled < rest.len() {
            match rustix::io::read(self.end.get_ref(), &mut rest[filled..]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        rest.truncate(filled);
        Ok(rest)
    }

    /// Writes all of it, waiting as long as it takes.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.end.writable().await?;
            match rustix::io::write(self.end.get_ref(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
