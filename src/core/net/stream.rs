//! Connections: just accepted, or registered with the reactor.

#[cfg(target_os = "linux")]
use super::UNSENT_BYTES;
use super::tcp_info::TcpInfo;
use crate::rt::Watched;
use futures_lite::future;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Socket, TcpKeepalive};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::task::{Context, Poll};
use std::time::Duration;

/// A connection without limits is looked after by the kernel: after half a minute of
/// silence it asks, six times, five seconds apart. A link that is down for less goes
/// on.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 6;

/// A connection just accepted. The reactor does not know it yet.
pub(crate) struct Accepted {
    socket: Socket,
    /// The client's address.
    peer: Option<SocketAddr>,
    /// The bytes of the PROXY header that has named it.
    header_bytes: u32,
    is_on_loopback: bool,
    is_armed: Cell<bool>,
}

impl Accepted {
    pub(super) fn new(socket: Socket, peer: Option<SocketAddr>) -> Accepted {
        Accepted {
            socket,
            peer,
            header_bytes: 0,
            is_on_loopback: peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()),
            is_armed: Cell::new(false),
        }
    }

    /// A PROXY header of `bytes` was read, and has named the client, unless that is the
    /// peer itself.
    pub(crate) fn take_header(&mut self, source: Option<SocketAddr>, bytes: u32) {
        self.peer = source.or(self.peer);
        self.header_bytes = bytes;
    }

    /// A connection that the reactor does not take, and that takes no byte.
    #[cfg(test)]
    pub(crate) fn broken() -> std::io::Result<Accepted> {
        let file = std::fs::File::open("Cargo.toml")?;
        let socket = std::os::fd::OwnedFd::from(file).into();
        Ok(Accepted::new(socket, None))
    }

    /// A connection by the loopback, and its client.
    #[cfg(test)]
    pub(crate) fn pair() -> std::io::Result<(Accepted, std::net::TcpStream)> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let client = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (socket, peer) = listener.accept()?;
        Ok((Accepted::new(socket.into(), Some(peer)), client))
    }

    /// This connection as one that does not come by the loopback.
    #[cfg(test)]
    pub(crate) fn at_a_distance(mut self) -> Accepted {
        self.is_on_loopback = false;
        self
    }

    /// The client's address, for logs. A socket for IPv6 and IPv4 shows a client by
    /// IPv4 as `::ffff:1.2.3.4`; here it is IPv4.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.map_or(Peer::Unix, Peer::from)
    }

    /// The client's address without the port; `None` over a unix socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip().to_canonical())
    }

    /// Whether the connection comes from this machine, by the loopback.
    pub(crate) fn is_loopback(&self) -> bool {
        self.is_on_loopback
    }

    /// Sends as many bytes as the kernel takes at once, and returns their number.
    pub(crate) fn send(&self, bytes: &[u8], then: Then) -> io::Result<usize> {
        send(&self.socket, bytes, then)
    }

    /// Sends the end (FIN).
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Looks for what the client has sent.
    pub(crate) fn try_recv(&self, into: &mut [u8]) -> Received {
        try_recv(&self.socket, into)
    }

    /// What the kernel knows of the connection. `None` for a unix socket. What it has
    /// received doesn't include the PROXY header.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        let mut info = TcpInfo::of(&self.socket)?;
        info.received = info.received.saturating_sub(u64::from(self.header_bytes));
        Some(info)
    }

    /// From now until [`Stream::disarm`], any close is a reset, also when our process
    /// dies: a part of a poem must not look whole. Unix sockets have no reset, and this
    /// does nothing.
    pub(crate) fn arm(&self) {
        if !self.is_armed.replace(true) {
            let _ = self.socket.set_linger(Some(Duration::ZERO));
        }
    }

    /// Registers the connection with the reactor, armed.
    pub(crate) fn register(self) -> io::Result<Stream> {
        self.arm(); // first, so that a failure to register is a reset too
        Ok(Stream {
            socket: Watched::new(self.socket)?,
        })
    }
}

/// A client's address, for logs. Half the size of an `Option<SocketAddr>`: every
/// waiting client has one.
#[derive(Debug, Clone)]
pub enum Peer {
    /// By IPv4.
    V4(SocketAddrV4),
    /// By IPv6.
    V6(Box<SocketAddrV6>),
    /// Over a unix socket, which has no address to show.
    Unix,
}

impl Peer {
    /// The address without the port; `None` over a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::V4(addr) => Some((*addr.ip()).into()),
            Peer::V6(addr) => Some((*addr.ip()).into()),
            Peer::Unix => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Peer {
        match addr {
            SocketAddr::V4(addr) => Peer::V4(addr),
            SocketAddr::V6(addr) => match addr.ip().to_ipv4_mapped() {
                Some(ip) => Peer::V4(SocketAddrV4::new(ip, addr.port())),
                None => Peer::V6(Box::new(addr)),
            },
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::V4(addr) => addr.fmt(f),
            Peer::V6(addr) => addr.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// What a look at the other side's half of a connection finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing new.
    Nothing,
    /// This many bytes.
    Bytes(usize),
    /// The end: the other side will send no more, but may still read.
    Eof,
    /// The connection is broken.
    Broken,
}

/// What follows the bytes being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Perhaps more bytes.
    Unknown,
    /// The end, at once. The kernel may hold the last packet back for it (MSG_MORE), so
    /// that the FIN needs no packet of its own. A packet is a fifth of a short poem's
    /// cost.
    Finish,
}

fn send(socket: &Socket, bytes: &[u8], then: Then) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let flags = match then {
        Then::Unknown => flags,
        Then::Finish => flags | SendFlags::MORE,
    };
    Ok(rustix::net::send(socket, bytes, flags)?)
}

fn try_recv(socket: &Socket, into: &mut [u8]) -> Received {
    match receive(socket, into, RecvFlags::empty()) {
        Ok(0) => Received::Eof,
        Ok(count) => Received::Bytes(count),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Received::Nothing,
        Err(_) => Received::Broken,
    }
}

fn receive(socket: &Socket, into: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *into, flags | RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A connection that can wait, for one task: the reactor holds one waker each way, and
/// of two tasks that wait for the same thing only the later is woken. A list of wakers
/// would cost every waiting client 112 bytes.
pub(crate) struct Stream {
    socket: Watched<Socket>,
}

impl Stream {
    pub(super) fn new(socket: Watched<Socket>) -> Stream {
        Stream { socket }
    }

    /// From now on closing is a reset.
    pub(crate) fn arm(&self) {
        let _ = self.socket.get_ref().set_linger(Some(Duration::ZERO));
    }

    /// From now on closing is a clean end. Call it for a whole poem only.
    pub(crate) fn disarm(&self) {
        let _ = self.socket.get_ref().set_linger(None); // can't fail where arming did not
    }

    /// Has the kernel notice within about a minute that the other side is gone without
    /// a word, also while nothing is sent. Unix sockets need none of that.
    pub(crate) fn keep_alive(&self) {
        let probes = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        let _not_tcp = self.socket.get_ref().set_tcp_keepalive(&probes);
    }

    /// Limits the bytes that the kernel takes before the network has taken the earlier
    /// ones, where it can.
    pub(crate) fn limit_unsent(&self) {
        #[cfg(target_os = "linux")]
        let _not_tcp = self.socket.get_ref().set_tcp_notsent_lowat(UNSENT_BYTES);
    }

    /// From now on the kernel sends short packets, too, before the earlier ones are
    /// acknowledged (TCP_NODELAY): for one that sends question after question.
    #[cfg(feature = "fleet")]
    pub(crate) fn send_small_at_once(&self) {
        let _not_tcp = self.socket.get_ref().set_tcp_nodelay(true);
    }

    /// Sends as many bytes as the kernel takes at once, and returns their number.
    pub(crate) fn send(&self, bytes: &[u8], then: Then) -> io::Result<usize> {
        send(self.socket.get_ref(), bytes, then)
    }

    /// Like [`Stream::send`], for several parts in order.
    pub(crate) fn send_parts(&self, parts: [&[u8]; 3]) -> io::Result<usize> {
        let socket = self.socket.get_ref();
        let parts = parts.map(IoSlice::new);
        let mut no_control_data = SendAncillaryBuffer::default();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;

        let sent = rustix::net::sendmsg(socket, &parts, &mut no_control_data, flags)?;
        Ok(sent)
    }

    /// Sends the end (FIN).
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.socket.get_ref().shutdown(Shutdown::Write)
    }

    /// Looks for what the other side has sent.
    pub(crate) fn try_recv(&self, into: &mut [u8]) -> Received {
        try_recv(self.socket.get_ref(), into)
    }

    /// What the kernel knows of the connection. `None` for a unix socket.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        TcpInfo::of(self.socket.get_ref())
    }

    /// Whether the connection has broken. The kernel reports that once.
    pub(crate) fn is_broken(&self) -> bool {
        !matches!(self.socket.get_ref().take_error(), Ok(None))
    }

    /// Reads the bytes that are there; 0 at a clean end. The kernel reports an error
    /// once: the next call would show a clean end instead.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if there is nothing to read, or the system's.
    pub(crate) fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        receive(self.socket.get_ref(), into, RecvFlags::empty())
    }

    /// Like [`Stream::read_now`], but leaves the bytes where they are.
    ///
    /// # Errors
    /// Those of [`Stream::read_now`].
    #[cfg(feature = "admin")]
    pub(crate) fn peek_now(&self, into: &mut [u8]) -> io::Result<usize> {
        receive(self.socket.get_ref(), into, RecvFlags::PEEK)
    }

    /// Waits until the kernel takes more bytes.
    pub(crate) fn writable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        future::poll_fn(|cx| self.poll_writable(cx))
    }

    /// Polls [`Stream::writable`].
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    /// Waits until there is something to read.
    pub(crate) fn readable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        future::poll_fn(|cx| self.poll_readable(cx))
    }

    /// Polls [`Stream::readable`].
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    /// Waits until the kernel has sent (nearly) all bytes it took: with the smallest
    /// send buffer, a socket is writable only if at most one packet is in its queue.
    pub(crate) async fn emptied(&self) {
        let _ = self.socket.get_ref().set_send_buffer_size(1);
        let _ = self.writable().await;
    }
}
