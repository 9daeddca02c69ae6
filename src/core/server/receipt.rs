//! What a client has taken of a short answer, right after it was sent.

use crate::net::{Accepted, Received, TcpInfo};

/// An answer and its end of at most this size, in bytes, are sent at once on the
/// loopback: Linux gives no socket a window of less than 1152 bytes. The kernel needs
/// not be asked then, which is 3 % of a hit's cost (measured).
const SMALLEST_WINDOW: u64 = 1024;

/// What a client has taken of an answer that is sent.
pub(super) enum Receipt {
    /// The answer and its end, and the client has sent nothing.
    All,
    /// Not all, as far as the kernel knows, and the client has sent nothing.
    Part(TcpInfo),
    /// The client has sent this many bytes.
    HasSentBytes { received: u32 },
}

/// What the client has taken of an answer of `sent` bytes.
///
/// Most acknowledgements come a little later than this look. The loopback loses nothing
/// that is sent, so there the end counts as taken once it is sent.
pub(super) fn taken(client: &Accepted, sent: u64) -> Receipt {
    let is_local = client.is_loopback();
    let fits = is_local && sent <= SMALLEST_WINDOW;
    let info = if fits { None } else { client.tcp_info() };

    let is_silent = info.is_some_and(|info| info.received == 0);
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

    match info {
        None => Receipt::All,
        Some(info) if info.acked >= sent => Receipt::All,
        Some(info) if !info.is_settled() && is_local && info.unsent == 0 => Receipt::All,
        Some(info) => Receipt::Part(info),
    }
}
