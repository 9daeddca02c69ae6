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
