//! Listening sockets.

#[cfg(target_os = "linux")]
use super::UNSENT_BYTES;
use super::resolve::{leads_to, resolve};
use super::stream::Accepted;
use crate::addr::{Addr, ListenAddr};
use crate::error::{Error, reason};
use crate::rt;
use async_io::Async;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    socket: Async<Socket>,
    addr: Addr,
    /// The socket file to remove when this is dropped.
    file: Option<SocketFile>,
}

impl Listener {
    /// Listens on the address. If a name has several, listens on the first that can
    /// be bound. An IPv6 address takes no IPv4 clients, so that `0.0.0.0:P` and
    /// `[::]:P` can be listened on together.
    ///
    /// # Errors
    /// [`Error::Unresolved`] for a name, [`Error::Local`] if no address can be bound.
    pub async fn bind(at: &ListenAddr) -> Result<Listener, Error> {
        let addr = &at.addr;
        let _until_it_listens = match addr {
            Addr::Unix(path) => lock_folder(path).await,
            Addr::Tcp { .. } => None,
        };

        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for target in resolve(addr, RESOLVE_TIMEOUT).await? {
            match Listener::bind_one(at, &target) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = e,
            }
        }

        Err(Error::Local {
            subject: addr.to_string(),
            why: format!("could not listen: {}", reason(&last)),
        })
    }

    fn bind_one(at: &ListenAddr, target: &SockAddr) -> io::Result<Listener> {
        let socket = Socket::new(target.domain(), Type::STREAM, None)?;
        let file = match &at.addr {
            Addr::Unix(path) => Some(bind_unix(&socket, path, target, at.mode)?),
            Addr::Tcp { .. } => {
                socket.set_reuse_address(true)?;
                if target.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                set_options(&socket)?;
                socket.bind(target)?;
                None
            }
        };

        socket.listen(BACKLOG.into())?;
        let addr = to_addr(&socket.local_addr()?).unwrap_or_else(|| at.addr.clone());
        Ok(Listener {
            socket: Async::new(socket)?,
            addr,
            file: file.flatten(),
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
            socket: Async::new(socket)?,
            addr,
            file: None,
        })
    }

    /// The address it listens on, with the real port.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Whether a connection to `target` would arrive here. Detours through other
    /// machines can't be seen.
    pub async fn is_reached_by(&self, target: &Addr) -> bool {
        let takes_ipv4 = !self.socket.get_ref().only_v6().unwrap_or(true);
        leads_to(target, &self.addr, takes_ipv4).await
    }

    /// Waits until a connection can be accepted.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        self.socket.readable().await
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

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

/// Binds a unix socket to its path. With a mode, the file has no more rights at any
/// moment.
fn bind_unix(
    socket: &Socket,
    path: &Path,
    target: &SockAddr,
    mode: Option<u32>,
) -> io::Result<Option<SocketFile>> {
    remove_stale(path)?;
    let Some(mode) = mode else {
        socket.bind(target)?;
        return Ok(SocketFile::at(path));
    };

    // On Linux the file gets the socket's own mode, less the umask; the rest is added
    // here.
    let mode = Permissions::from_mode(mode);
    File::from(OwnedFd::from(socket.try_clone()?)).set_permissions(mode.clone())?;
    socket.bind(target)?;
    let file = SocketFile::at(path);
    std::fs::set_permissions(path, mode)?;
    Ok(file)
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

fn to_addr(addr: &SockAddr) -> Option<Addr> {
    let tcp = addr.as_socket().map(Addr::from);
    tcp.or_else(|| addr.as_pathname().map(|path| Addr::Unix(path.into())))
}

/// The path of a unix socket, and which file was there after the bind: another process
/// may bind the same path later.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file at this path, if it is a socket.
    fn at(path: &Path) -> Option<SocketFile> {
        let meta = std::fs::symlink_metadata(path).ok()?;
        meta.file_type().is_socket().then(|| SocketFile {
            path: path.into(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    /// Removes the path if it still leads to this file. The inode number is not reused
    /// as long as the socket is open.
    fn remove(&self) {
        let now = SocketFile::at(&self.path);
        if now.is_some_and(|now| (now.device, now.inode) == (self.device, self.inode)) {
            let _stale = std::fs::remove_file(&self.path); // the next bind removes a stale one
        }
    }
}

/// How long to wait while another start holds the lock of a folder, which takes it less
/// than a millisecond. Any process may hold that lock for ever, so the wait has an end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Locks the folder of a socket file, so that one start at a time looks for a stale
/// file, removes it, binds and listens. Of two at once, each would take the other's
/// file for a stale one, because it has no listener yet.
///
/// Returns the lock, or nothing if the folder can't be opened or stays locked. The bind
/// is tried all the same.
async fn lock_folder(path: &Path) -> Option<File> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = File::open(folder).ok()?;

    let locked = async {
        while let Err(TryLockError::WouldBlock) = folder.try_lock() {
            rt::sleep(LOCK_RETRY).await;
        }
    };
    rt::within(LOCK_TIMEOUT, locked).await?;
    Some(folder)
}

/// Removes a socket file without a listener. Any other file stays: the bind then fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path);
    if !meta.is_ok_and(|meta| meta.file_type().is_socket()) {
        return Ok(());
    }

    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?; // connecting would wait where the backlog is full
    match probe.connect(&SockAddr::unix(path)?) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Ok(()),
    }
}
