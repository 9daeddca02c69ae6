//! Listening sockets, for one thread or for several.
//!
//! | the socket | with several threads |
//! |---|---|
//! | TCP, bound here, on Linux | each thread has its own on the same address (SO_REUSEPORT): the kernel spreads the connections |
//! | unix, inherited, or where the kernel refuses that | the threads share it, and one at a time waits for it: its *turn* |
//!
//! **The address is still exclusive.** The first socket is bound and listens without
//! SO_REUSEPORT, so that it fails if any other process listens there. Only then it is
//! opened for the others. From then on the kernel lets in a socket of the same user
//! that asks for SO_REUSEPORT before its bind, which the first one here never does.
//!
//! **The turn.** If all threads waited for a shared socket, one connection would wake
//! them all. The thread with the turn keeps it while clients come one by one and are
//! answered at once. It passes it on once a connection makes work for it that lasts, or
//! a second one waits: then the next thread has something to do.

#[cfg(target_os = "linux")]
use super::UNSENT_BYTES;
use super::resolve::{leads_to, resolve};
use super::stream::Accepted;
use super::unix_file::{Access, SocketFile, bind_unix, lock_folder};
use crate::addr::{Addr, ListenAddr};
use crate::error::{Error, reason};
use crate::rt::Watched;
use crate::semaphore::{Permit, Semaphore};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;
use socket2::{SockAddr, Socket, Type};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that the kernel completes before they are accepted. With the 128 of std,
/// syncookies leave clients hanging for ever after a pause of 0.3 s (measured: 2063 of
/// 3000); with 4096, none of 10,000.
pub(crate) const BACKLOG: u16 = 4096;

/// The send buffer of a connection in bytes; the kernel doubles it for its own
/// overhead. By default it grows to 3 to 4 MB for a client that never reads. With this
/// size a stuck client costs 0.24 MB, and nothing is slower (measured).
const SEND_BUFFER_BYTES: usize = 128 << 10;

/// How long the look-up of a name to listen on may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that listens.
pub struct Listener {
    /// Dropped before the socket: see [`SocketFile`].
    _file: Option<SocketFile>,
    socket: Watched<Socket>,
    addr: Addr,
    /// Whether other threads can have sockets of their own on its address.
    is_spreadable: bool,
    /// Held by the thread that waits for a connection.
    turn: Semaphore,
}

impl Listener {
    /// Listens on the address. If a name has several, listens on the first that can
    /// be bound. An IPv6 address takes no IPv4 clients, so that `0.0.0.0:P` and
    /// `[::]:P` can be listened on together.
    ///
    /// # Errors
    /// [`Error::Unresolved`] for a name; [`Error::Local`] if no address can be bound,
    /// or for rights that a unix socket's file can't have.
    pub async fn bind(at: &ListenAddr) -> Result<Listener, Error> {
        let addr = &at.addr;
        let access = Access::look_up(at).await?;
        let _until_it_listens = match addr {
            Addr::Unix(path) => lock_folder(path).await,
            Addr::Tcp { .. } => None,
        };

        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for target in resolve(addr, RESOLVE_TIMEOUT).await.map_err(unresolved)? {
            match Listener::bind_one(addr, &target, &access) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = e,
            }
        }

        Err(Error::Local {
            subject: addr.to_string(),
            why: format!("could not listen: {}", reason(&last)),
        })
    }

    fn bind_one(addr: &Addr, target: &SockAddr, access: &Access) -> io::Result<Listener> {
        let (socket, file) = match addr {
            Addr::Unix(path) => {
                let socket = Socket::new(target.domain(), Type::STREAM, None)?;
                // From here on the file goes if listening fails.
                let file = bind_unix(&socket, path, target, access)?;
                (socket, file)
            }
            Addr::Tcp { .. } => {
                let socket = tcp_socket(target)?;
                socket.bind(target)?;
                (socket, None)
            }
        };

        socket.listen(BACKLOG.into())?;
        let addr = to_addr(&socket.local_addr()?).unwrap_or_else(|| addr.clone());
        let is_tcp = matches!(addr, Addr::Tcp { .. });
        Ok(Listener {
            _file: file,
            socket: watched(socket)?,
            addr,
            is_spreadable: is_tcp && cfg!(target_os = "linux"),
            turn: Semaphore::new(1),
        })
    }

    /// Listens on a socket that is bound already.
    ///
    /// # Errors
    /// The system's, for example if this is not a socket that can listen.
    pub fn inherit(socket: OwnedFd) -> io::Result<Listener> {
        let socket = Socket::from(socket);
        let local = socket.local_addr()?;
        if local.as_socket().is_some() {
            set_options(&socket)?;
        }

        socket.listen(BACKLOG.into())?;
        let addr = to_addr(&local).ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(Listener {
            _file: None,
            socket: watched(socket)?,
            addr,
            is_spreadable: false,
            turn: Semaphore::new(1),
        })
    }

    /// The listener that one more thread uses: its own socket on this address, or this
    /// one. If the system gives it none, this one serves as well.
    pub(crate) fn for_another_thread(self: &Arc<Self>) -> Arc<Listener> {
        if !self.is_spreadable {
            return self.clone();
        }
        self.sibling().map_or_else(|_| self.clone(), Arc::new)
    }

    /// One more socket on this address. The kernel spreads connections over both.
    fn sibling(&self) -> io::Result<Listener> {
        let first = self.socket.get_ref();
        let target = first.local_addr()?;
        first.set_reuse_port(true)?;

        let socket = tcp_socket(&target)?;
        socket.set_reuse_port(true)?;
        socket.bind(&target)?;
        socket.listen(BACKLOG.into())?;
        Ok(Listener {
            _file: None,
            socket: watched(socket)?,
            addr: self.addr.clone(),
            is_spreadable: true,
            turn: Semaphore::new(1),
        })
    }

    /// The address it listens on, with the real port.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Changes how many connections the kernel completes before they are accepted.
    ///
    /// # Errors
    /// The system's.
    #[cfg(feature = "admin")]
    pub(crate) fn set_backlog(&self, most: u16) -> io::Result<()> {
        self.socket.get_ref().listen(most.into())
    }

    /// Whether a connection to `target` would arrive here. Detours through other
    /// machines can't be seen.
    pub async fn is_reached_by(&self, target: &Addr) -> bool {
        let takes_ipv4 = !self.socket.get_ref().only_v6().unwrap_or(true);
        leads_to(target, &self.addr, takes_ipv4).await
    }

    /// The right to wait for a connection, in the order of asking. One thread has it.
    pub(crate) async fn turn(&self) -> Permit {
        self.turn.acquire(Instant::now()).await
    }

    /// Waits until a connection can be accepted.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_readable(cx)).await
    }

    /// Whether a connection waits in the backlog; true also if the system can't tell.
    pub(crate) fn has_waiting(&self) -> bool {
        let mut socket = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = poll(&mut socket, Some(&at_once));
        ready != Ok(0)
    }

    /// Accepts the next connection in the backlog.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if the backlog is empty, or the system's.
    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, peer) = rustix::net::acceptfrom_with(self.socket.get_ref(), flags)?;

        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok(Accepted::new(socket.into(), peer))
    }
}

/// A socket that is waited for, and does not block meanwhile.
fn watched(socket: Socket) -> io::Result<Watched<Socket>> {
    socket.set_nonblocking(true)?;
    Watched::new(socket)
}

/// A TCP socket to listen with, not bound yet.
fn tcp_socket(target: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(target.domain(), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if target.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&socket)?;
    Ok(socket)
}

/// Sets the options that accepted connections inherit: here they cost nothing per
/// connection.
fn set_options(listener: &Socket) -> io::Result<()> {
    listener.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    listener.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    listener.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(())
}

/// A silent resolver is like one that knows no address: no option sets this deadline.
fn unresolved(error: Error) -> Error {
    match error {
        Error::Timeout { subject, stage, .. } => Error::Unresolved {
            subject,
            why: stage.to_string(),
        },
        error => error,
    }
}

fn to_addr(addr: &SockAddr) -> Option<Addr> {
    let tcp = addr.as_socket().map(Addr::from);
    tcp.or_else(|| addr.as_pathname().map(|path| Addr::Unix(path.into())))
}
