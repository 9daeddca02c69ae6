//! The floor: the least a server can do, in Rust on plain system calls. This program
//! starts itself as one.
//!
//! | floor | does |
//! |---|---|
//! | `short POEM` | accepts in a burst; for each client: `send`, `close` |
//! | `line POEM` | one client at a time, blocking: `accept`, `recv`, `send`, `close` |
//! | `large POEM` | a thread for each client: `send` until all is sent, then `close` |
//! | `fan UPSTREAM` | connects upstream for the first client; passes on what comes |
//!
//! A floor closes plainly. It would cut off the poem of a client that has sent
//! anything, and takes a failure of its upstream for an end. An honest server is
//! measured against it; it is not one itself.

mod fan;

use crate::poll::{Poll, Ready};
use fan::Fan;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use socket2::{Domain, Socket, Type};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Length of the kernel's accept queue: that of the program under test.
pub const BACKLOG: i32 = 4096;

/// The kernel's send buffer for a large poem, in bytes: the program under test asks for
/// the same. Left alone it grows to megabytes that no longer fit a core's cache, and
/// the floor would be slower than what stands on it (measured: 0.7).
const SEND_BUFFER: usize = 128 << 10;

/// The token of the listener. Clients have the tokens from 0 up.
const LISTENER: u64 = u64::MAX;

/// A socket that listens on a free loopback port.
pub fn listener() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Prints a line whose last word is the address, as the program under test does.
pub fn print_ready(listener: &Socket) -> io::Result<()> {
    let addr = listener
        .local_addr()?
        .as_socket()
        .ok_or(Errno::AFNOSUPPORT)?;
    let mut out = io::stdout();
    writeln!(out, "ready on {addr}")?;
    out.flush()
}

/// Runs the floor called `name` until it is killed.
pub fn run(name: &str, argument: &str) -> io::Result<()> {
    let listener = listener()?;
    listener.set_nonblocking(true)?;
    print_ready(&listener)?;

    match name {
        "short" => short(&listener, &std::fs::read(argument)?),
        "line" => {
            listener.set_nonblocking(false)?;
            line(&listener, &std::fs::read(argument)?)
        }
        "large" => {
            listener.set_send_buffer_size(SEND_BUFFER)?; // connections inherit it
            listener.set_nonblocking(false)?;
            large(&listener, std::fs::read(argument)?.leak())
        }
        "fan" => Fan::new(listener, argument.parse().map_err(io::Error::other)?)?.run(),
        _ => Err(io::Error::other(format!("no such floor: {name}"))),
    }
}

/// The next queued client; `None` if there is none.
fn accept(listener: &Socket) -> io::Result<Option<OwnedFd>> {
    match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(client) => Ok(Some(client)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// How many of the bytes the kernel took. For a client that is gone: all of them.
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

/// The plain loop of the line protocol, as people write it in C: one client after the
/// other, every call blocking.
fn line(listener: &Socket, poem: &[u8]) -> io::Result<()> {
    loop {
        let client = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(client) => client,
            Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        if has_sent_line(&client) {
            let _gone = send(&client, poem, SendFlags::NOSIGNAL);
        }
    }
}

/// Reads a request line, and whether it came to its end.
fn has_sent_line(client: &OwnedFd) -> bool {
    let mut line = [0; 1024];
    let mut filled = 0;

    while filled < line.len() {
        match recv(client, &mut line[filled..], RecvFlags::empty()) {
            Ok((0, _)) | Err(_) => return false,
            Ok((count, _)) => filled += count,
        }
        if line[..filled].ends_with(b"\n") {
            return true;
        }
    }
    false
}

/// The plain send loop for large poems: a thread for each client sends whole slices and
/// blocks in the kernel.
fn large(listener: &Socket, poem: &'static [u8]) -> io::Result<()> {
    loop {
        let client = accept_with(listener, SocketFlags::CLOEXEC)?;
        std::thread::spawn(move || {
            let mut rest = poem;
            while !rest.is_empty() {
                let Ok(count) = send(&client, rest, SendFlags::NOSIGNAL) else {
                    return;
                };
                rest = &rest[count..];
            }
        });
    }
}
