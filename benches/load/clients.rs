//! Many client connections at once, on one thread.

use super::{RequestLine, Target};
use crate::machine::LONG;
use crate::poll::{Poll, Ready};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes read at once. The kernel discards them (MSG_TRUNC), so that only the sender
/// pays for copying a large poem.
const BUFFER: usize = 1 << 20;

/// The length of the key in a request line, in bytes: the line without its ending.
pub const KEY_LEN: usize = 12;

/// The number of the next new request line.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

impl RequestLine {
    /// The bytes to send; `None` if there is nothing to send.
    fn bytes(self) -> Option<String> {
        let number = match self {
            RequestLine::None => return None,
            RequestLine::Same => 0,
            RequestLine::New => NEXT_KEY.fetch_add(1, Ordering::Relaxed),
        };
        Some(format!("key{number:09}\r\n"))
    }
}

/// A connection that reads a poem.
struct Connection {
    socket: Socket,
    /// The request, until the kernel has taken it.
    unsent: Option<String>,
    got: u64,
}

/// How far a connection has got.
enum Progress {
    Unfinished,
    Finished,
}

impl Connection {
    /// Sends the request if the connection is established and it has not been sent.
    fn send(&mut self) -> io::Result<()> {
        const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

        if let Some(request) = &self.unsent {
            match send(&self.socket, request.as_bytes(), FLAGS) {
                Ok(_) => self.unsent = None, // so few bytes are taken all at once
                Err(Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Sends and reads what it can.
    fn advance(&mut self, buffer: &mut [u8], want: u64) -> io::Result<Progress> {
        self.send()?;
        if self.unsent.is_some() {
            return Ok(Progress::Unfinished);
        }
        self.receive(buffer, want)
    }

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
    request: RequestLine,
    buffer: Vec<u8>,
}

impl Clients {
    /// Clients of the poem server at `addr`; none is connected yet.
    pub fn new(addr: SocketAddr) -> io::Result<Clients> {
        Clients::asking(addr, RequestLine::None)
    }

    /// Clients of this server; none is connected yet.
    pub fn of(target: Target) -> io::Result<Clients> {
        Clients::asking(target.addr, target.exchange.request)
    }

    fn asking(addr: SocketAddr, request: RequestLine) -> io::Result<Clients> {
        Ok(Clients {
            poll: Poll::new()?,
            connections: Vec::new(),
            addr,
            request,
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
        let kind = if nonblocking {
            Type::STREAM.nonblocking()
        } else {
            Type::STREAM
        };
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        match socket.connect(&self.addr.into()) {
            Ok(()) => {}
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INPROGRESS) => {}
            Err(e) => return Err(e),
        }

        let unsent = self.request.bytes();
        let ready = if unsent.is_some() {
            Ready::AnyEdge
        } else {
            Ready::Input
        };
        self.poll.watch(&socket, at as u64, ready)?;
        let connection = self.connections[at].insert(Connection {
            socket,
            unsent,
            got: 0,
        });
        // One that is still connecting would refuse the request: its event sends it.
        if nonblocking {
            Ok(())
        } else {
            connection.send()
        }
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
        match connection.advance(&mut self.buffer, len)? {
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
                if self.is_done(at, len)? {
                    served += 1;
                    self.connect(at, true)?;
                }
            }
        }
        Ok(served)
    }

    /// Asks `count` times, `at_once` at a time.
    pub fn ask_times(&mut self, len: u64, count: usize, at_once: usize) -> io::Result<()> {
        let mut open = at_once.min(count);
        let mut left = count - open;
        self.start(open)?;

        while open > 0 {
            let ready = self.poll.wait(Some(LONG))?;
            if ready.is_empty() {
                return Err(io::Error::other(format!("{open} clients got nothing")));
            }
            for at in ready {
                let at = at as usize;
                if !self.is_done(at, len)? {
                    continue;
                }
                if left > 0 {
                    left -= 1;
                    self.connect(at, true)?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(())
    }

    /// Goes on with one client, and closes it if its answer is complete.
    fn is_done(&mut self, at: usize, len: u64) -> io::Result<bool> {
        let Some(connection) = &mut self.connections[at] else {
            return Ok(false);
        };
        let progress = connection.advance(&mut self.buffer, len)?;
        let is_done = matches!(progress, Progress::Finished);
        if is_done {
            self.connections[at] = None;
        }
        Ok(is_done)
    }
}
