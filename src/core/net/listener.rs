//! Listening.

#[cfg(target_os = "linux")]
use super::UNSENT;
use super::resolve::resolve;
use super::stream::Accepted;
use crate::addr::Addr;
use crate::error::{Error, reason};
use async_io::Async;
use rustix::net::SocketFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many connections the kernel may hold for us. The 128 of std lets syncookies leave clients hanging for ever
/// after a pause of 0.3 s (measured: 2063 of 3000); with 4096, none of 10,000.
pub const BACKLOG: u16 = 4096;

/// The kernel's send buffer of a connection, before the kernel doubles it for its own overhead. Left alone it grows to
/// 3 to 4 MB for a client that never reads; at this size a stuck client costs 0.24 MB and no speed was lost (measured).
const SEND_BUFFER: usize = 128 << 10;

/// What an accepted connection inherits from its listener; setting it there costs nothing per connection.
fn set_up(listener: &Socket) -> io::Result<()> {
    listener.set_send_buffer_size(SEND_BUFFER)?;
    listener.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    listener.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// How long a look-up of a name to listen on may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that listens.
pub struct Listener {
    socket: Async<Socket>,
    addr: Addr,
    /// The socket file to remove in the end.
    file: Option<SocketFile>,
}

/// A socket's name among files, and which file it was at the bind: by the end another's may have its name.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Listens on the address; of a name with several addresses, on the first that can be had.
    ///
    /// # Errors
    /// [`Error::Unresolved`] for a name, [`Error::Local`] where the address can't be bound.
    pub async fn bind(addr: &Addr) -> Result<Listener, Error> {
        let local = |e: io::Error| Error::Local {
            subject: addr.to_string(),
            why: format!("could not listen: {}", reason(&e)),
        };
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for target in resolve(addr, RESOLVE_TIMEOUT).await? {
            match Listener::bind_one(addr, &target) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = e,
            }
        }
        Err(local(last))
    }

    fn bind_one(addr: &Addr, target: &SockAddr) -> io::Result<Listener> {
        let socket = Socket::new(target.domain(), Type::STREAM, None)?;
        match addr {
            Addr::Unix(path) => remove_stale(path)?,
            Addr::Tcp { .. } => {
                socket.set_reuse_address(true)?;
                set_up(&socket)?;
            }
        }
        socket.bind(target)?;
        let file = match addr {
            Addr::Unix(path) => SocketFile::at(path),
            Addr::Tcp { .. } => None,
        };
        socket.listen(BACKLOG.into())?;
        let addr = shown(&socket.local_addr()?).unwrap_or_else(|| addr.clone());
        Ok(Listener {
            socket: Async::new(socket)?,
            addr,
            file,
        })
    }

    /// Listens on a socket that somebody else has bound.
    ///
    /// # Errors
    /// Those of the system, where it is none that can listen.
    pub fn inherit(socket: OwnedFd) -> io::Result<Listener> {
        let socket = Socket::from(socket);
        let local = socket.local_addr()?;
        if local.as_socket().is_some() {
            set_up(&socket)?;
        }
        socket.listen(BACKLOG.into())?;
        let addr = shown(&local).ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(Listener {
            socket: Async::new(socket)?,
            addr,
            file: None,
        })
    }

    /// Where it listens, with the real port.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Waits until a connection can be accepted.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next connection that is waiting already.
    pub fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (fd, peer) = rustix::net::acceptfrom_with(self.socket.get_ref(), flags)?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok(Accepted::new(fd.into(), peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

impl SocketFile {
    /// The file of this name, if it is a socket's.
    fn at(path: &Path) -> Option<SocketFile> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let meta = std::fs::symlink_metadata(path)
            .ok()
            .filter(|meta| meta.file_type().is_socket())?;
        Some(SocketFile {
            path: path.into(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    /// Removes the name while the file still has it. (The number is the file's alone as long as its socket is open.)
    fn remove(&self) {
        let now = SocketFile::at(&self.path);
        if now.is_some_and(|now| (now.device, now.inode) == (self.device, self.inode)) {
            let _ = std::fs::remove_file(&self.path); // whoever finds it left over removes it then
        }
    }
}

/// A socket file that nobody listens on any more is removed; anything else stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {
            let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            probe.set_nonblocking(true)?; // where the queue is full, connecting would wait for a place in it
            match probe.connect(&SockAddr::unix(path)?).map_err(|e| e.kind()) {
                Err(ErrorKind::ConnectionRefused) => std::fs::remove_file(path),
                _ => Ok(()), // in use: the bind says so
            }
        }
        _ => Ok(()),
    }
}

fn shown(addr: &SockAddr) -> Option<Addr> {
    addr.as_socket()
        .map(Addr::from)
        .or_else(|| addr.as_pathname().map(|path| Addr::Unix(path.into())))
}
