//! The load generator. Every connection is checked: a poem that comes short, or ends in a reset, fails the measurement.

use crate::machine::{LONG, Work, descriptors, is_stopped, until};
use crate::peers::Server;
use crate::poll::{Poll, Ready};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Read at once. Large poems are discarded in the kernel (MSG_TRUNC), so that copying them is the sender's cost alone.
const BUFFER: usize = 1 << 20;

/// A server to be measured: where it listens, and what it sends.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub addr: SocketAddr,
    pub pid: Pid,
    /// The length of its poem.
    pub len: u64,
}

/// A connection that reads a poem.
struct Listening {
    socket: Socket,
    got: u64,
}

/// What a look at a connection finds.
enum Found {
    More,
    End,
}

impl Listening {
    fn try_recv(&mut self, buffer: &mut [u8], want: u64) -> io::Result<Found> {
        loop {
            match recv(
                &self.socket,
                &mut *buffer,
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            ) {
                Ok((_, 0)) if self.got == want => return Ok(Found::End),
                Ok((_, 0)) => {
                    return Err(io::Error::other(format!(
                        "cut: {} of {want} bytes",
                        self.got
                    )));
                }
                Ok((_, count)) => self.got += count as u64,
                Err(Errno::AGAIN) => return Ok(Found::More),
                Err(Errno::INTR) => {}
                Err(e) => {
                    return Err(io::Error::other(format!(
                        "cut after {} bytes: {e}",
                        self.got
                    )));
                }
            }
        }
    }
}

/// Many connections at once.
pub struct Crowd {
    poll: Poll,
    members: Vec<Option<Listening>>,
    addr: SocketAddr,
    buffer: Vec<u8>,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(addr: SocketAddr) -> io::Result<Crowd> {
        Ok(Crowd {
            poll: Poll::new()?,
            members: Vec::new(),
            addr,
            buffer: vec![0; BUFFER],
        })
    }

    /// Connects so many more, and returns when the kernel has connected them.
    pub fn grow(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            self.members.push(None);
            self.connect(self.members.len() - 1, false)?;
        }
        Ok(())
    }

    fn connect(&mut self, at: usize, at_once: bool) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(at_once)?;
        match socket.connect(&self.addr.into()) {
            Ok(()) => {}
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INPROGRESS) => {}
            Err(e) => return Err(e),
        }
        self.poll.watch(&socket, at as u64, Ready::Input)?;
        self.members[at] = Some(Listening { socket, got: 0 });
        Ok(())
    }

    /// Reads until everyone has got `len` bytes, or also the end that must follow them. Nobody hangs up meanwhile, so
    /// that this takes as little time as it can.
    fn read_to(&mut self, len: u64, and_the_end: bool) -> io::Result<()> {
        let mut waiting = self
            .members
            .iter()
            .flatten()
            .filter(|m| and_the_end || m.got < len)
            .count();
        while waiting > 0 {
            let ready = self.poll.wait(Some(LONG))?;
            if ready.is_empty() {
                return Err(io::Error::other(format!("{waiting} clients wait in vain")));
            }
            for at in ready {
                let Some(member) = &mut self.members[at as usize] else {
                    continue;
                };
                let before = member.got;
                match member.try_recv(&mut self.buffer, len)? {
                    Found::End => {
                        self.poll.forget(&member.socket)?;
                        waiting -= 1;
                    }
                    Found::More if !and_the_end && before < len && member.got >= len => {
                        waiting -= 1
                    }
                    Found::More => {}
                }
            }
        }
        Ok(())
    }

    /// Until everyone has so much of an unfinished poem.
    pub fn read_part(&mut self, len: u64) -> io::Result<()> {
        self.read_to(len, false)
    }

    /// Until everyone has all of it.
    pub fn read_whole(&mut self, len: u64) -> io::Result<()> {
        self.read_to(len, true)
    }

    /// Asks again as soon as an answer is whole, for so long; how many were.
    fn ask_on(&mut self, len: u64, time: Duration) -> io::Result<u64> {
        let begun = Instant::now();
        let mut served = 0;
        while begun.elapsed() < time {
            for at in self.poll.wait(Some(time))? {
                let Some(member) = &mut self.members[at as usize] else {
                    continue;
                };
                if let Found::End = member.try_recv(&mut self.buffer, len)? {
                    served += 1;
                    self.members[at as usize] = None;
                    self.connect(at as usize, true)?;
                }
            }
        }
        Ok(served)
    }
}

/// Stops the process and comes back when it stands still.
fn stop(pid: Pid) -> io::Result<()> {
    kill_process(pid, Signal::STOP)?;
    until("the server stops", || Ok(is_stopped(pid)))
}

/// The time in which a server that was stopped serves everyone who queued meanwhile, in seconds.
pub fn drain(target: Target, clients: usize) -> io::Result<f64> {
    stop(target.pid)?;
    let mut crowd = Crowd::new(target.addr)?;
    let queued = crowd.grow(clients);
    let begun = Instant::now();
    kill_process(target.pid, Signal::CONT)?;
    queued?;
    crowd.read_whole(target.len)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// A rate, and how busy the cores were meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Poems a second.
    pub poems: f64,
    /// The busy part of the server's core.
    pub server: f64,
    /// The busy part of the load generator's core.
    pub load: f64,
}

/// How many ask at a time for a rate: enough to keep a burst in the server's queue, few enough to stay in its caches.
const ASKERS: usize = 128;

/// How long a server is loaded before its poems are counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// The rate at which a server answers those who ask again and again.
pub fn rate(target: Target, cores: crate::machine::Cores, time: Duration) -> io::Result<Rate> {
    let mut crowd = Crowd::new(target.addr)?;
    for at in 0..ASKERS {
        crowd.members.push(None);
        crowd.connect(at, true)?;
    }
    crowd.ask_on(target.len, WARM_UP)?;
    let (server, load) = (Work::of(cores.server)?, Work::of(cores.load)?);
    let begun = Instant::now();
    let served = crowd.ask_on(target.len, time)?;
    let poems = served as f64 / begun.elapsed().as_secs_f64();
    let (server, load) = (
        Work::of(cores.server)?.busy_since(server),
        Work::of(cores.load)?.busy_since(load),
    );
    crowd.read_whole(target.len)?; // so that the next server is not charged for what is left
    Ok(Rate {
        poems,
        server,
        load,
    })
}

/// The time in which so many clients get a large poem, in seconds.
pub fn transfer(target: Target, clients: usize) -> io::Result<f64> {
    let begun = Instant::now();
    let mut crowd = Crowd::new(target.addr)?;
    crowd.grow(clients)?;
    crowd.read_whole(target.len)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// The smallest receive buffer there is: what a client that never reads costs is then the server's side of it.
const SMALL: usize = 2048;

/// Clients that never read, until they are dropped. Returns when the server has accepted them all.
pub fn mute(server: &Server, clients: usize) -> io::Result<Vec<Socket>> {
    let before = descriptors(server.pid())?;
    let connect = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(SMALL)?;
        socket.connect(&server.addr.into())?;
        Ok(socket)
    };
    let sockets: Vec<Socket> = (0..clients).map(connect).collect::<io::Result<_>>()?;
    until("all are accepted", || {
        Ok(descriptors(server.pid())? >= before + clients)
    })?;
    Ok(sockets)
}
