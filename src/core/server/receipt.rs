//! What a client has taken of a short answer, right after it was sent.

use crate::net::{Accepted, Received, TcpInfo};

/// An answer and its end of at most this size, in bytes, are sent at once on the
/// loopback: Linux gives no socket a window of less than 1152 bytes. The kernel needs
/// not be asked then, which is 3 % of a hit's cost (measured).
const SMALLEST_WINDOW: u64 = 1024;

/// The longest segment of a network, in bytes: jumbo frames have 9000. The loopback's
/// have up to 65,483.
const NETWORK_SEGMENT: u64 = 9000;

/// What a client has taken of an answer that is sent.
pub(super) enum Receipt {
    /// The answer and its end, and the client has sent nothing more.
    All,
    /// Not all, as far as the kernel knows.
    Part(TcpInfo),
    /// The client has sent this many bytes.
    HasSentBytes { received: u32 },
}

/// What the client has taken of an answer of `sent` bytes. It has sent a request of
/// `received` bytes.
///
/// Most acknowledgements come later than this look. The loopback loses nothing that is
/// sent, so there a client counts as having taken what is sent. One with small segments
/// imitates a network, and may lose some as well.
pub(super) fn taken(client: &Accepted, received: u32, sent: u64) -> Receipt {
    let is_local = client.is_loopback();
    let fits = is_local && sent <= SMALLEST_WINDOW;
    let info = if fits { None } else { client.tcp_info() };

    let is_silent = info.is_some_and(|info| info.received == u64::from(received));
    let received = if is_silent {
        Received::Nothing
    } else {
        client.try_recv(&mut [0; 64])
    };
    let info = match received {
        Received::Bytes(count) => {
            let received = count as u32; // at most 64
            return Receipt::HasSentBytes { received };
        }
        Received::Broken => client.tcp_info(), // what was acknowledged before the reset?
        Received::Nothing | Received::Eof => info,
    };

    let is_lossless = |info: TcpInfo| is_local && info.segment > NETWORK_SEGMENT;
    match info {
        None => Receipt::All,
        Some(info) if info.is_settled() && info.acked >= sent => Receipt::All,
        Some(info) if info.is_settled() => Receipt::Part(info), // it was reset
        Some(info) if is_lossless(info) && info.unsent == 0 => Receipt::All,
        Some(info) => Receipt::Part(info),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::tests::{reset, wait_until};
    use super::*;
    use crate::net::Then;
    use std::io::Write;
    use std::net::TcpStream;

    /// More than what counts as taken without a look.
    const LONGER: u64 = SMALLEST_WINDOW + 1;

    /// A connection on which a poem of four bytes is sent, and its client.
    fn answered() -> (Accepted, TcpStream) {
        let (client, other_side) = Accepted::pair().expect("the loopback is there");
        let sent = client.send(b"poem", Then::Unknown);
        assert_eq!(sent.ok(), Some(4));
        wait_until(|| client.tcp_info().is_some_and(|info| info.acked == 4));
        (client, other_side)
    }

    fn is_all(receipt: Receipt) -> bool {
        matches!(receipt, Receipt::All)
    }

    fn is_settled(client: &Accepted) -> bool {
        client.tcp_info().is_some_and(|info| info.is_settled())
    }

    #[test]
    fn on_the_loopback_what_has_left_the_kernel_is_taken() {
        let (client, _other_side) = answered();
        assert!(is_all(taken(&client, 0, 4)));
        assert!(is_all(taken(&client, 0, LONGER)));

        // Until the client's window is full.
        while client.send(&[0; 1 << 16], Then::Unknown).is_ok() {}
        assert!(!is_all(taken(&client, 0, LONGER)));
    }

    #[test]
    fn elsewhere_only_what_is_acknowledged_with_the_end_is_taken() {
        let (client, other_side) = answered();
        let client = client.at_a_distance();
        assert!(!is_all(taken(&client, 0, 4)), "it may be lost");

        client.finish().expect("it is open");
        drop(other_side);
        wait_until(|| is_settled(&client));
        assert!(
            is_all(taken(&client, 1, 4)),
            "the client's end counts as one"
        );
    }

    #[test]
    fn a_reset_before_all_is_acknowledged_leaves_a_part() {
        for is_far in [false, true] {
            let (mut client, other_side) = answered();
            if is_far {
                client = client.at_a_distance();
            }
            reset(other_side);
            wait_until(|| is_settled(&client));
            assert!(!is_all(taken(&client, 0, LONGER)));
        }
    }

    #[test]
    fn bytes_beyond_the_request_are_told() {
        for sent in [4, LONGER] {
            let (client, mut other_side) = answered();
            other_side.write_all(b"late").expect("it is open");
            wait_until(|| client.tcp_info().is_some_and(|info| info.received == 4));
            let receipt = taken(&client, 0, sent);
            assert!(matches!(receipt, Receipt::HasSentBytes { received: 4 }));
            assert!(is_all(taken(&client, 4, sent)), "now they are a request");
        }
    }
}
