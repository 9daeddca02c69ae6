//! The part of epoll that the floor and the load generator need.

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How many events are taken from the kernel at once.
const BURST: usize = 512;

/// What to wait for.
#[derive(Debug, Clone, Copy)]
pub enum Ready {
    /// There are bytes to read, or an end.
    Input,
    /// The kernel takes bytes again. Reported once for each time that it does.
    OutputEdge,
    /// Either of them, or a finished connect. Reported once for each change.
    AnyEdge,
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

    /// Watches the socket until it is closed. Its events carry the token.
    pub fn watch(&self, socket: impl AsFd, token: u64, ready: Ready) -> io::Result<()> {
        let flags = match ready {
            Ready::Input => EventFlags::IN,
            Ready::OutputEdge => EventFlags::OUT | EventFlags::ET,
            Ready::AnyEdge => EventFlags::IN | EventFlags::OUT | EventFlags::ET,
        };
        let data = EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// Stops watching the socket.
    pub fn forget(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// The tokens of the sockets that are ready. Empty when `limit` has passed.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<u64>> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });

        self.events.clear();
        let space = spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, space, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }

        let tokens = self.events.iter().map(|event| { event.data }.u64());
        Ok(tokens.collect())
    }
}
