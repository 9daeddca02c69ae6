//! The floor: the least a server can do, in Rust on plain system calls. This program starts itself as one.
//!
//! | floor | does |
//! |---|---|
//! | `short POEM` | accepts in a burst; for each: `send`, `close` |
//! | `large POEM` | a thread for each client: `send` until all is sent, and `close` |
//! | `fan UPSTREAM` | the first client makes it connect upstream; everyone is sent what comes, and closed at its end |
//!
//! A floor closes plainly. It would cut off the poem of a client that has said something, and takes a failure of its
//! upstream for an end: it is what an honest server is measured against, not one.

use crate::poll::{Poll, Ready};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use socket2::{Domain, Socket, Type};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

/// As many connections as the program under test lets the kernel hold.
pub const BACKLOG: i32 = 4096;

/// The kernel's send buffer of a large poem's connection: what the program under test asks for. Left alone it grows to
/// megabytes that no longer fit a core's cache, and the floor would be slower than what stands on it (measured: 0.7).
const SEND_BUFFER: usize = 128 << 10;

/// The token of the listener, and of the upstream; clients have the others.
const LISTENER: u64 = u64::MAX;
const UPSTREAM: u64 = u64::MAX - 1;

/// A socket that listens on a free port of the loopback.
pub fn listener() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Says where it listens, in the last word of a line, as the program under test does.
pub fn say_ready(listener: &Socket) -> io::Result<()> {
    let addr = listener
        .local_addr()?
        .as_socket()
        .ok_or(Errno::AFNOSUPPORT)?;
    let mut out = io::stdout();
    writeln!(out, "ready on {addr}")?;
    out.flush()
}

/// Runs the floor of this name until it is killed.
pub fn run(name: &str, argument: &str) -> io::Result<()> {
    let listener = listener()?;
    listener.set_nonblocking(true)?;
    say_ready(&listener)?;
    match name {
        "short" => short(&listener, &std::fs::read(argument)?),
        "large" => {
            listener.set_send_buffer_size(SEND_BUFFER)?; // connections inherit it
            listener.set_nonblocking(false)?;
            large(&listener, std::fs::read(argument)?.leak())
        }
        "fan" => Fan::new(listener, argument.parse().map_err(io::Error::other)?)?.run(),
        _ => Err(io::Error::other(format!("no such floor: {name}"))),
    }
}

fn accept(listener: &Socket) -> io::Result<Option<OwnedFd>> {
    match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(client) => Ok(Some(client)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// How much the kernel takes at once; a client that is gone takes everything.
fn send_some(client: &OwnedFd, bytes: &[u8]) -> usize {
    match send(client, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(count) => count,
        Err(Errno::AGAIN) => 0,
        Err(_) => bytes.len(),
    }
}

fn short(listener: &Socket, poem: &[u8]) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.watch(listener, LISTENER, Ready::Input)?;
    loop {
        poll.wait(None)?;
        while let Some(client) = accept(listener)? {
            send_some(&client, poem);
        }
    }
}

/// The plain send loop for large poems: a thread for each client, that sends whole slices and lets the kernel wait.
fn large(listener: &Socket, poem: &'static [u8]) -> io::Result<()> {
    loop {
        let client = accept_with(listener, SocketFlags::CLOEXEC)?;
        std::thread::spawn(move || {
            let mut rest = poem;
            while let (false, Ok(count)) =
                (rest.is_empty(), send(&client, rest, SendFlags::NOSIGNAL))
            {
                rest = &rest[count..];
            }
        });
    }
}

/// One upstream, many clients, no cache: for the clients of one poem in flight.
struct Fan {
    listener: Socket,
    upstream: SocketAddr,
    from: Option<TcpStream>,
    poll: Poll,
    poem: Vec<u8>,
    whole: bool,
    clients: Vec<Option<(OwnedFd, usize)>>,
}

impl Fan {
    fn new(listener: Socket, upstream: SocketAddr) -> io::Result<Fan> {
        let (poll, clients) = (Poll::new()?, Vec::new());
        Ok(Fan {
            listener,
            upstream,
            from: None,
            poll,
            poem: Vec::new(),
            whole: false,
            clients,
        })
    }

    fn run(mut self) -> io::Result<()> {
        self.poll.watch(&self.listener, LISTENER, Ready::Input)?;
        loop {
            for token in self.poll.wait(None)? {
                match token {
                    LISTENER => self.welcome()?,
                    UPSTREAM => self.try_recv()?,
                    client => self.go_on(client as usize),
                }
            }
            if self.whole && self.clients.iter().all(Option::is_none) {
                (self.whole, self.from) = (false, None);
                self.poem.clear();
                self.clients.clear();
            }
        }
    }

    fn welcome(&mut self) -> io::Result<()> {
        while let Some(client) = accept(&self.listener)? {
            if self.from.is_none() {
                let from = TcpStream::connect(self.upstream)?;
                from.set_nonblocking(true)?;
                self.poll.watch(&from, UPSTREAM, Ready::Input)?;
                self.from = Some(from);
            }
            let at = self.clients.len();
            self.poll.watch(&client, at as u64, Ready::OutputEdge)?;
            self.clients.push(Some((client, 0)));
            self.go_on(at);
        }
        Ok(())
    }

    fn try_recv(&mut self) -> io::Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        let mut buffer = vec![0; 256 << 10];
        match recv(from, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                self.poll.forget(from)?;
                self.whole = true;
            }
            Ok((count, _)) => self.poem.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        (0..self.clients.len()).for_each(|at| self.go_on(at));
        Ok(())
    }

    fn go_on(&mut self, at: usize) {
        let Some((client, sent)) = &mut self.clients[at] else {
            return;
        };
        while *sent < self.poem.len() {
            match send_some(client, &self.poem[*sent..]) {
                0 => return,
                count => *sent += count,
            }
        }
        if self.whole {
            self.clients[at] = None;
        }
    }
}
