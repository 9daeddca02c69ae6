//! The network, the clock and the runtime. Only this file names `async_std`: to stand on another runtime is to
//! rewrite this one.
//!
//! Sockets are kept plain until they have to wait: an accepted [`Accepted`] can be sent to, looked at and closed
//! without ever being registered with the reactor; [`Accepted::register`] makes it a [`Stream`] that can wait.

mod name;

use crate::addr::Addr;
use crate::error::{Error, Stage, reason};
use crate::semaphore::Semaphore;
use async_io::{Async, Timer};
use futures::future::FutureExt;
use futures_lite::future;
pub use name::leads_to;
use name::resolve;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};
use socket2::{Domain, SockAddr, Socket, Type};
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How many connections the kernel may hold for us. The 128 of std lets syncookies leave clients hanging for ever
/// after a pause of 0.3 s (measured: 2063 of 3000); with 4096, none of 10,000.
pub const BACKLOG: u16 = 4096;

/// The kernel's send buffer of a connection, before the kernel doubles it for its own overhead. Left alone it grows to
/// 3 to 4 MB for a client that never reads; at this size a stuck client costs 0.24 MB and no speed was lost (measured).
const SEND_BUFFER: usize = 128 << 10;

/// How much of an answer the kernel takes before the network has taken what came before (TCP_NOTSENT_LOWAT). Without it
/// a stuck client's send queue grows to [`SEND_BUFFER`] and beyond; with it, to one segment, which the kernel fills up:
/// 65,483 bytes (measured, over thousands of stuck clients with windows of all sizes). The speed of large poems is the
/// same (measured); packets on their way do not count.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 << 10;

/// What an accepted connection inherits from its listener; setting it there costs nothing per connection.
fn set_up(listener: &Socket) -> io::Result<()> {
    listener.set_send_buffer_size(SEND_BUFFER)?;
    listener.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    listener.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// Runs a future to its end on this thread. The runtime's own threads start with the first task, so that what needs
/// none does without.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    async_io::block_on(work)
}

/// Starts a task that belongs to nobody. A panic in it ends it and nothing else: what it owned is dropped, and
/// dropping is how everything here fails.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    configure();
    async_std::task::spawn(AssertUnwindSafe(work).catch_unwind().map(|_| ()));
}

/// Threads that run tasks beside the main one. The work here is the kernel's, so one is
/// enough, and starting threads is a part of `fetch`'s time.
const TASK_THREADS: usize = 1;

/// Configures the runtime before its first task: async-std starts the same executor, and
/// the first configuration given to that one counts. A second call changes nothing.
fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = async_global_executor::GlobalExecutorConfig::default()
            .with_env_var("ASYNC_STD_THREAD_COUNT")
            .with_min_threads(TASK_THREADS)
            .with_max_threads(TASK_THREADS)
            .with_thread_name_fn(|| "tasks".to_string());
        async_global_executor::init_with_config(config);
    });
}

/// Blocking calls that may run at once, each on a thread of its own. The runtime's own
/// limit is 500; calls that hang must not become 500 threads.
const BLOCKING: usize = 16;

static BLOCKING_PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(BLOCKING));

/// Runs work that would hold up a task for long on a thread of its own kind. At most
/// [`BLOCKING`] such calls run at once; the others wait in order.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    configure();
    let permit = BLOCKING_PERMITS.acquire(Instant::now()).await;
    let work = move || {
        let done = work();
        drop(permit); // also where the caller has stopped waiting
        done
    };
    async_std::task::spawn_blocking(work).await
}

/// Whether work on so many bytes would hold up others.
pub fn is_long_work(bytes: usize) -> bool {
    const LONG_WORK: usize = 64 << 10;
    bytes > LONG_WORK
}

/// Work on so many bytes: here, or on a thread of its own where it would hold up others.
pub async fn busy<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    match is_long_work(bytes) {
        true => unblock(work).await,
        false => work(),
    }
}

/// Waits.
pub async fn sleep(time: Duration) {
    async_std::task::sleep(time).await;
}

/// Lets other tasks of this thread have their turn.
pub async fn yield_now() {
    async_std::task::yield_now().await;
}

/// Counts the reads of a loop that may never have to wait, because the other side is faster than we are, and lets other
/// tasks have their turn now and then.
#[derive(Debug, Default)]
pub struct CoopBudget {
    taken: u32,
}

impl CoopBudget {
    /// So many reads of 64 KiB are a turn. Where tasks are always ready, the executor asks for what has newly come only
    /// every 200 turns: with 4, others wait 10 to 25 ms beside a fetch that never waits, with 16, up to 0.5 s, and the
    /// large poem comes no sooner (measured).
    const MOST: u32 = 4;

    /// One read more.
    pub async fn take(&mut self) {
        self.taken += 1;
        if self.taken == CoopBudget::MOST {
            self.taken = 0;
            yield_now().await;
        }
    }
}

// The next two are not `async fn`s, because those hold each argument twice: once as it came and once where it is
// awaited. Ten thousand clients wait in them.

/// The future's output, or nothing once the time is up.
pub fn within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    future::or(work.map(Some), Timer::after(limit).map(|_| None))
}

/// Whichever comes first; the other is dropped.
pub fn race<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> impl Future<Output = Result<A, B>> {
    future::or(first.map(Ok), second.map(Err))
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
        Ok(Accepted {
            socket: Socket::from(fd),
            peer: peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
        })
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

/// Our end of a pipe to or from a program.
pub struct Pipe {
    end: Async<OwnedFd>,
}

impl Pipe {
    /// Makes it able to wait.
    pub fn new(end: impl Into<OwnedFd>) -> io::Result<Pipe> {
        Ok(Pipe {
            end: Async::new(end.into())?,
        })
    }

    /// The next bytes; 0 at the end. Asks the reactor each time, also when there is something, so that a flood leaves
    /// the thread to others now and then.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.end.readable().await?;
            match rustix::io::read(self.end.get_ref(), &mut *into) {
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What is in the pipe at this moment, but at most this many bytes of it. Doesn't wait.
    pub fn rest(&self, most: u64) -> io::Result<Vec<u8>> {
        let count = rustix::io::ioctl_fionread(self.end.get_ref())?.min(most);
        let (mut rest, mut filled) = (vec![0; count as usize], 0);
        while filled < rest.len() {
            match rustix::io::read(self.end.get_ref(), &mut rest[filled..]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        rest.truncate(filled);
        Ok(rest)
    }

    /// Writes all of it, waiting as long as it takes.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.end.writable().await?;
            match rustix::io::write(self.end.get_ref(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Connects to the address; of a name with several addresses, to the first that answers. The limit is for the name
/// and for each address.
///
/// # Errors
/// [`Error::Unresolved`], [`Error::Unreachable`], [`Error::Timeout`], or [`Error::Reset`] where the connection was
/// made and broke at once.
pub async fn connect(addr: &Addr, limit: Duration) -> Result<Stream, Error> {
    let mut last = Error::Unreachable {
        subject: addr.to_string(),
        why: "no address to try".into(),
    };
    for target in resolve(addr, limit).await? {
        last = match within(limit, connect_one(&target)).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(e)) if e.kind() == ErrorKind::ConnectionReset => Error::Reset {
                subject: addr.to_string(),
                got: 0,
                why: reason(&e),
            },
            Some(Err(e)) => Error::Unreachable {
                subject: addr.to_string(),
                why: reason(&e),
            },
            None => Error::Timeout {
                subject: addr.to_string(),
                stage: Stage::Connect,
                limit,
            },
        };
    }
    Err(last)
}

/// Asking for `SO_ERROR`, as is usual after a non-blocking connect, would swallow a reset that came right behind the
/// poem, and the poem would then seem to end cleanly. So the only question put to the new connection is a peek: it
/// shows bytes before errors, and an error only where there are no bytes.
async fn connect_one(target: &SockAddr) -> io::Result<Stream> {
    const FULL_BACKLOG_PAUSE: Duration = Duration::from_millis(10);
    let socket = Socket::new(target.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // What the kernel has taken of a large request and nobody else is not progress: whoever waits for the other side
    // would begin to count its silence megabytes too early.
    #[cfg(target_os = "linux")]
    let _is_no_tcp = socket.set_tcp_notsent_lowat(UNSENT);
    loop {
        match socket.connect(target) {
            Ok(()) => break,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                break;
            }
            // A unix socket's full backlog; the caller's limit ends the waiting.
            Err(e) if e.kind() == ErrorKind::WouldBlock => sleep(FULL_BACKLOG_PAUSE).await,
            Err(e) => return Err(e),
        }
    }
    let socket = Async::new_nonblocking(socket)?;
    socket.writable().await?;
    match rustix::net::recv(
        socket.get_ref(),
        &mut [0u8; 1][..],
        RecvFlags::DONTWAIT | RecvFlags::PEEK,
    ) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(e) => return Err(e.into()),
    }
    // A dead port in the ephemeral range can be its own peer on loopback; a broken connection has no peer any more.
    if let (Ok(own), Ok(peer)) = (socket.get_ref().local_addr(), socket.get_ref().peer_addr())
        && own.as_socket().is_some()
        && own.as_socket() == peer.as_socket()
    {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(Stream { socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_never_waits_gives_others_their_turn_now_and_then() {
        let mut turns = CoopBudget::default();
        let waits: Vec<bool> = (0..12)
            .map(|_| turns.take().now_or_never().is_none())
            .collect();
        assert_eq!(waits, [[false, false, false, true]; 3].concat());
    }
}
