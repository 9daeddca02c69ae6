//! Sockets and pipes.
//!
//! Sockets are kept plain until they have to wait: an accepted [`Accepted`] can be sent to, looked at and closed
//! without ever being registered with the reactor; [`Accepted::register`] makes it a [`Stream`] that can wait.

mod connect;
mod listener;
mod pipe;
mod resolve;
mod stream;

pub(crate) use connect::connect;
pub use listener::{BACKLOG, Listener};
pub use pipe::Pipe;
pub use resolve::leads_to;
pub use stream::{Accepted, Peer, Received, Stream, Then};

/// How much of an answer the kernel takes before the network has taken what came before (TCP_NOTSENT_LOWAT). Without it
/// a stuck client's send queue grows to [`SEND_BUFFER`] and beyond; with it, to one segment, which the kernel fills up:
/// 65,483 bytes (measured, over thousands of stuck clients with windows of all sizes). The speed of large poems is the
/// same (measured); packets on their way do not count.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 << 10;
