//! Many client connections at once, on one thread.

use crate::machine::LONG;
use crate::poll::{Poll, Ready};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read at once. The kernel discards them (MSG_TRUNC), so that only the sender
/// pays for copying a large poem.
const BUFFER: usize = 1 << 20;

/// A connection that reads a poem.
struct Connection {
    socket: Socket,
    got: u64,
}

/// How far a connection has got.
enum Progress {
    Unfinished,
    Finished,
}

impl Connection {
    /// Reads all that is there and checks it against the poem's length, `want`.
    fn receive(&mut self, buffer: &mut [u8], want: u64) -> io::Result<Progress> {
        const FLAGS: RecvFlags = RecvFlags::DONTWAIT.union(RecvFlags::TRUNC);

        loop {
            let got = self.got;
            match recv(&self.socket, &mut *buffer, FLAGS) {
                Ok((_, 0)) if got == want => return Ok(Progress::Finished),
                Ok((_, 0)) => return Err(cut(format!("{got} of {want} bytes"))),
                Ok((_, count)) => self.got += count as u64,
                Err(Errno::AGAIN) => return Ok(Progress::Unfinished),
                Err(Errno::INTR) => {}
                Err(e) => return Err(cut(format!("{got} bytes, then {e}"))),
            }
        }
    }
}

fn cut(how: String) -> io::Error {
    io::Error::other(format!("a poem was cut: {how}"))
}

/// Where a client stops reading.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// After this many bytes of an unfinished poem.
    AtLength,
    /// At the end that must follow them.
    AtEnd,
}

/// Many connections at once.
pub struct Clients {
    poll: Poll,
    connections: Vec<Option<Connection>>,
    addr: SocketAddr,
    buffer: Vec<u8>,
}

impl Clients {
    /// Clients of the server at `addr`; none is connected yet.
    pub fn new(addr: SocketAddr) -> io::Result<Clients> {
        Ok(Clients {
            poll: Poll::new()?,
            connections: Vec::new(),
            addr,
            buffer: vec![0; BUFFER],
        })
    }

    /// Connects `count` more and returns when the kernel has connected them.
    pub fn connect_more(&mut self, count: usize) -> io::Result<()> {
        self.add(count, false)
    }

    /// Starts to connect `count` more, without waiting for it.
    pub fn start(&mut self, count: usize) -> io::Result<()> {
        self.add(count, true)
    }

    fn add(&mut self, count: usize, nonblocking: bool) -> io::Result<()> {
        for _ in 0..count {
            self.connections.push(None);
            self.connect(self.connections.len() - 1, nonblocking)?;
        }
        Ok(())
    }

    fn connect(&mut self, at: usize, nonblocking: bool) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(nonblocking)?;
        match socket.connect(&self.addr.into()) {
            Ok(()) => {}
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INPROGRESS) => {}
            Err(e) => return Err(e),
        }

        self.poll.watch(&socket, at as u64, Ready::Input)?;
        self.connections[at] = Some(Connection { socket, got: 0 });
        Ok(())
    }

    /// Reads until every client has `len` bytes of an unfinished poem.
    pub fn read_part(&mut self, len: u64) -> io::Result<()> {
        self.read_to(len, Stop::AtLength)
    }

    /// Reads until every client has the poem of `len` bytes and its end.
    pub fn read_whole(&mut self, len: u64) -> io::Result<()> {
        self.read_to(len, Stop::AtEnd)
    }

    /// No client closes its connection meanwhile, so that this takes as little time as
    /// possible.
    fn read_to(&mut self, len: u64, stop: Stop) -> io::Result<()> {
        let is_waiting = |c: &&Connection| stop == Stop::AtEnd || c.got < len;
        let mut waiting = self.connections.iter().flatten().filter(is_waiting).count();

        while waiting > 0 {
            let ready = self.poll.wait(Some(LONG))?;
            if ready.is_empty() {
                return Err(io::Error::other(format!("{waiting} clients got nothing")));
            }
            for at in ready {
                waiting -= usize::from(self.has_stopped(at as usize, len, stop)?);
            }
        }
        Ok(())
    }

    /// Reads for one client; whether it has just come to where it stops.
    fn has_stopped(&mut self, at: usize, len: u64, stop: Stop) -> io::Result<bool> {
        let Some(connection) = &mut self.connections[at] else {
            return Ok(false);
        };

        let before = connection.got;
        match connection.receive(&mut self.buffer, len)? {
            Progress::Finished => {
                self.poll.forget(&connection.socket)?;
                Ok(true)
            }
            Progress::Unfinished => {
                Ok(stop == Stop::AtLength && before < len && connection.got >= len)
            }
        }
    }

    /// Asks again as soon as an answer is complete, for `time`. Returns how many were.
    pub fn keep_asking(&mut self, len: u64, time: Duration) -> io::Result<u64> {
        let start = Instant::now();
        let mut served = 0;

        while start.elapsed() < time {
            for at in self.poll.wait(Some(time))? {
                let at = at as usize;
                let Some(connection) = &mut self.connections[at] else {
                    continue;
                };
                if let Progress::Finished = connection.receive(&mut self.buffer, len)? {
                    served += 1;
                    self.connections[at] = None;
                    self.connect(at, true)?;
                }
            }
        }
        Ok(served)
    }
}
