//! Connections.

use async_io::Async;
use futures_lite::future;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::Socket;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::task::{Context, Poll};
use std::time::Duration;

/// What a look at a client's side of the connection finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Nothing new.
    Silence,
    /// This many bytes.
    Bytes(usize),
    /// It will send no more; it may still read.
    End,
    /// The connection is broken.
    Gone,
}

/// A connection just accepted, and not registered with anything.
pub struct Accepted {
    socket: Socket,
    peer: Option<SocketAddr>,
}

impl Accepted {
    pub(super) fn new(socket: Socket, peer: Option<SocketAddr>) -> Accepted {
        Accepted { socket, peer }
    }

    /// Who it is, for logs.
    pub fn peer(&self) -> Peer {
        match self.peer {
            Some(SocketAddr::V4(addr)) => Peer::V4(addr),
            Some(SocketAddr::V6(addr)) => Peer::V6(Box::new(addr)),
            None => Peer::Unix,
        }
    }

    /// Sends what the kernel takes at once.
    pub fn send(&self, bytes: &[u8], then: Then) -> io::Result<usize> {
        send(&self.socket, bytes, then)
    }

    /// Says that no more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Looks for what the client has sent.
    pub fn try_recv(&self, into: &mut [u8]) -> Received {
        try_recv(&self.socket, into)
    }

    /// From here on, until [`Stream::disarm`], whatever ends the connection, our own death included, ends it in a
    /// reset: what is not yet whole must not look whole. Unix sockets know no reset, and nothing happens.
    pub fn arm(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// Makes it able to wait, armed.
    pub fn register(self) -> io::Result<Stream> {
        self.arm(); // first, so that failing to register is a reset as well
        Ok(Stream {
            socket: Async::new_nonblocking(self.socket)?,
        })
    }
}

/// A client's address in a log line. (Half the size of a `SocketAddr` with its `Option`: every waiting client has one.)
#[derive(Debug, Clone)]
pub enum Peer {
    /// By IPv4.
    V4(SocketAddrV4),
    /// By IPv6.
    V6(Box<SocketAddrV6>),
    /// Over a unix socket, which has no address to tell.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::V4(addr) => addr.fmt(f),
            Peer::V6(addr) => addr.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// What follows the bytes that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// More bytes, some time, or not.
    Unknown,
    /// The end, at once: the kernel may hold the last packet back for it, so that the FIN needs none of its own
    /// (MSG_MORE). A packet is a fifth of a short poem's cost.
    Finish,
}

fn send(socket: &Socket, bytes: &[u8], then: Then) -> io::Result<usize> {
    let flags = match then {
        Then::Unknown => SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        Then::Finish => SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE,
    };
    Ok(rustix::net::send(socket, bytes, flags)?)
}

fn try_recv(socket: &Socket, into: &mut [u8]) -> Received {
    match receive(socket, into) {
        Ok(0) => Received::End,
        Ok(count) => Received::Bytes(count),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Received::Silence,
        Err(_) => Received::Gone,
    }
}

fn receive(socket: &Socket, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *into, RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A connection that can wait, in one task: of two that wait for the same thing, only the later would be woken. (A
/// place for one waker each way is part of the registration; a list of them costs every waiting client 112 bytes.)
pub struct Stream {
    socket: Async<Socket>,
}

impl Stream {
    pub(super) fn new(socket: Async<Socket>) -> Stream {
        Stream { socket }
    }

    /// From now on closing means a clean end: for what is whole.
    pub fn disarm(&self) {
        let _ = self.socket.get_ref().set_linger(None); // can't fail where arming did not
    }

    /// Sends what the kernel takes at once.
    pub fn send(&self, bytes: &[u8], then: Then) -> io::Result<usize> {
        send(self.socket.get_ref(), bytes, then)
    }

    /// The same for several parts, one behind the other.
    pub fn send_parts(&self, parts: [&[u8]; 3]) -> io::Result<usize> {
        let (parts, mut nothing_else) = (parts.map(IoSlice::new), SendAncillaryBuffer::default());
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::sendmsg(
            self.socket.get_ref(),
            &parts,
            &mut nothing_else,
            flags,
        )?)
    }

    /// Says that no more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.get_ref().shutdown(Shutdown::Write)
    }

    /// Looks for what the other side has sent.
    pub fn try_recv(&self, into: &mut [u8]) -> Received {
        try_recv(self.socket.get_ref(), into)
    }

    /// Whether the connection has broken, which is told once.
    pub fn is_broken(&self) -> bool {
        !matches!(self.socket.get_ref().take_error(), Ok(None))
    }

    /// The next bytes if they are there; 0 at a clean end. An error is told once: the next call would take what is
    /// behind it for a clean end.
    pub fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        receive(self.socket.get_ref(), into)
    }

    /// Waits until the kernel takes more.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        future::poll_fn(|cx| self.poll_writable(cx))
    }

    /// The same, for who waits for both ways at once.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    /// Waits until there is something to hear.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        future::poll_fn(|cx| self.poll_readable(cx))
    }

    /// The same, for who waits for both ways at once.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    /// Waits until the kernel has got rid of (nearly) all it took: with the smallest send buffer, a socket is
    /// writable only when its queue is empty but for a packet.
    pub async fn emptied(&self) {
        let _ = self.socket.get_ref().set_send_buffer_size(1);
        let _ = self.writable().await;
    }
}
