//! Connecting to servers.

use super::race;
use super::resolve::resolve;
use super::stream::Stream;
use crate::addr::Addr;
use crate::error::{Error, Stage, reason};
use crate::rt::{Watched, sleep, within};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{SockAddr, Socket, Type};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Connects to the address. If a name has several, the first that answers wins (RFC
/// 8305). The limit is for the look-up, and again for connecting.
///
/// # Errors
/// [`Error::Unresolved`], [`Error::Unreachable`], [`Error::Timeout`]; [`Error::Reset`]
/// if the connection was made and broke at once.
pub(crate) async fn connect(addr: &Addr, limit: Duration) -> Result<Stream, Error> {
    let found = resolve(addr, limit).await?;
    let has_several = found.len() > 1;
    let targets = race::order(addr, found);

    let attempts = targets.into_iter().map(attempt);
    let (stream, target) = match within(limit, race::first_ok(attempts)).await {
        Some(Ok(winner)) => winner,
        Some(Err(error)) => return Err(failed(addr, error)),
        None => {
            return Err(Error::Timeout {
                subject: addr.to_string(),
                stage: Stage::Connect,
                limit,
            });
        }
    };

    if has_several {
        race::note(addr, target);
    }
    Ok(stream)
}

/// Why no address could be connected to: the last error, or none if there is no
/// address.
fn failed(addr: &Addr, error: Option<io::Error>) -> Error {
    let subject = addr.to_string();
    let Some(error) = error else {
        let why = "no address to try".into();
        return Error::Unreachable { subject, why };
    };

    let why = reason(&error);
    if error.kind() == ErrorKind::ConnectionReset {
        Error::Reset {
            subject,
            got: 0,
            why,
        }
    } else {
        Error::Unreachable { subject, why }
    }
}

/// Connects to a target, and returns it, too.
async fn attempt(target: SockAddr) -> io::Result<(Stream, SockAddr)> {
    let stream = connect_one(&target).await?;
    Ok((stream, target))
}

async fn connect_one(target: &SockAddr) -> io::Result<Stream> {
    let socket = Socket::new(target.domain(), Type::STREAM.nonblocking(), None)?;
    start_connecting(&socket, target).await?;
    let socket = Watched::new(socket)?;
    poll_fn(|cx| socket.poll_writable(cx)).await?;

    check_connected(socket.get_ref())?;
    if is_bound_to(socket.get_ref(), target) {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(Stream::new(socket))
}

async fn start_connecting(socket: &Socket, target: &SockAddr) -> io::Result<()> {
    const FULL_BACKLOG_PAUSE: Duration = Duration::from_millis(10);
    let in_progress = Some(Errno::INPROGRESS.raw_os_error());

    loop {
        match socket.connect(target) {
            Err(e) if e.raw_os_error() == in_progress => return Ok(()),
            // A unix socket's backlog is full. The caller's limit ends the waiting.
            Err(e) if e.kind() == ErrorKind::WouldBlock => sleep(FULL_BACKLOG_PAUSE).await,
            other => return other,
        }
    }
}

/// Looks for an error of the new connection by a peek, which shows bytes before errors.
/// The usual way, `SO_ERROR`, would take away a reset that came right after the poem,
/// and the poem would seem to end cleanly.
fn check_connected(socket: &Socket) -> io::Result<()> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    match rustix::net::recv(socket, &mut [0u8; 1][..], flags) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether a socket that is connected to `target` is connected to itself: that happens
/// at a closed port of this machine's ephemeral range.
fn is_bound_to(socket: &Socket, target: &SockAddr) -> bool {
    let Some(target) = target.as_socket() else {
        return false;
    };
    let own = socket.local_addr().ok();
    own.and_then(|own| own.as_socket()) == Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Domain;
    use std::net::SocketAddr;

    fn bound() -> Socket {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&any_port.into()).expect("a free port");
        socket
    }

    fn addr_of(socket: &Socket) -> SockAddr {
        socket.local_addr().expect("it is bound")
    }

    fn connect_to(socket: &Socket, target: &Socket) {
        let connected = socket.connect(&addr_of(target));
        connected.expect("it is on this machine");
    }

    #[test]
    fn a_connection_to_itself_is_told_from_others() {
        let own = bound();
        connect_to(&own, &own);
        assert!(is_bound_to(&own, &addr_of(&own)));

        let (other, listener) = (bound(), bound());
        listener.listen(1).expect("it is bound");
        connect_to(&other, &listener);
        assert!(!is_bound_to(&other, &addr_of(&listener)));
    }
}
