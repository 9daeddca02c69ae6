//! epoll, as far as the floor and the load generator need it.

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Events taken from the kernel at once.
const BURST: usize = 512;

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub enum Ready {
    /// There is something to read, or an end.
    Input,
    /// The kernel takes more again; told once each time.
    OutputEdge,
}

/// A set of watched sockets.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BURST),
        })
    }

    /// Watches the socket until it is closed; its events carry the token.
    pub fn watch(&self, socket: impl AsFd, token: u64, ready: Ready) -> io::Result<()> {
        let flags = match ready {
            Ready::Input => EventFlags::IN,
            Ready::OutputEdge => EventFlags::OUT | EventFlags::ET,
        };
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Watches the socket no longer.
    pub fn forget(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// The tokens of the sockets that are ready; none where the time is up.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<u64>> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            limit.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(self
            .events
            .iter()
            .map(|event| { event.data }.u64())
            .collect())
    }
}
