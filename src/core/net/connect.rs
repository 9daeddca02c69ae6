//! Connecting.

#[cfg(target_os = "linux")]
use super::UNSENT;
use super::resolve::resolve;
use super::stream::Stream;
use crate::addr::Addr;
use crate::error::{Error, Stage, reason};
use crate::rt::{sleep, within};
use async_io::Async;
use rustix::net::RecvFlags;
use socket2::{SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::time::Duration;

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
    Ok(Stream::new(socket))
}
