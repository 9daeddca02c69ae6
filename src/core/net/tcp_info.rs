//! What the kernel knows of a TCP connection (TCP_INFO, tcp(7)).

use std::os::fd::AsFd;
use std::time::Duration;

/// A look at one connection. It costs 0.6 us, a `recv` that finds nothing 0.35 us
/// (measured).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    state: u8,
    /// The longest segment to the other side, in bytes.
    pub(crate) segment: u64,
    /// Bytes the kernel holds and has not sent yet.
    pub(crate) unsent: u64,
    /// The smoothed round-trip time.
    pub(crate) rtt: Duration,
    /// Bytes that the other side has acknowledged. The end (FIN) counts as one.
    pub(crate) acked: u64,
    /// Bytes that the other side has sent. Its end counts as one.
    pub(crate) received: u64,
}

impl TcpInfo {
    /// Whether the other side has acknowledged our end, and so everything before it, or
    /// the connection is over. Has a meaning only after the end was sent.
    pub(crate) fn is_settled(&self) -> bool {
        const FIN_WAIT_2: u8 = 5;
        const TIME_WAIT: u8 = 6;
        const CLOSE: u8 = 7;
        matches!(self.state, FIN_WAIT_2 | TIME_WAIT | CLOSE)
    }

    /// Asks the kernel. `None` for a socket of another kind.
    #[cfg(target_os = "linux")]
    pub(super) fn of(socket: &impl AsFd) -> Option<TcpInfo> {
        use nix::sys::socket::GetSockOpt;

        let info = linux::TcpInfoOption.get(socket).ok()?;
        Some(TcpInfo {
            state: info[0],
            segment: linux::number::<4>(&info, 16),
            unsent: linux::number::<4>(&info, 144),
            rtt: Duration::from_micros(linux::number::<4>(&info, 68)),
            acked: linux::number::<8>(&info, 120),
            received: linux::number::<8>(&info, 128),
        })
    }

    /// Other systems are not asked.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_: &impl AsFd) -> Option<TcpInfo> {
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use nix::{getsockopt_impl, sockopt_impl};

    /// The first bytes of `struct tcp_info`. All kernels since Linux 4.6 have these,
    /// and write as many bytes as they are asked for.
    type Bytes = [u8; 148];

    sockopt_impl!(
        /// TCP_INFO.
        TcpInfoOption, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, Bytes
    );

    /// The number of `N` bytes at this offset.
    pub(super) fn number<const N: usize>(info: &Bytes, at: usize) -> u64 {
        let bytes = info[at..at + N].iter();
        let shift = |number: u64, byte: &u8| number << 8 | u64::from(*byte);

        if cfg!(target_endian = "little") {
            bytes.rev().fold(0, shift)
        } else {
            bytes.fold(0, shift)
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn the_kernel_tells_what_the_other_side_has_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();

        server.write_all(b"poem").unwrap();
        client.write_all(b"unasked").unwrap();
        server.read_exact(&mut [0; 7]).unwrap();
        let info = TcpInfo::of(&server).unwrap();
        assert!(!info.is_settled());
        assert_eq!((info.acked, info.received), (4, 7));

        server.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client); // its own end acknowledges ours at once
        let info = TcpInfo::of(&server).unwrap();
        assert!(info.is_settled());
        assert_eq!((info.acked, info.received), (5, 8));
    }

    #[test]
    fn a_unix_socket_has_no_such_information() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(TcpInfo::of(&one), None);
    }
}
