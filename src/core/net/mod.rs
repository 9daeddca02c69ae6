//! Sockets and pipes that don't block.
//!
//! An accepted connection starts as an `Accepted`: bytes can be sent and received, and
//! it can be closed, without the reactor. `Accepted::register` turns it into a
//! `Stream`, which can wait. A cached poem that the kernel takes at once needs no
//! `Stream`.

mod connect;
mod listener;
mod pipe;
mod race;
mod resolve;
mod stream;
mod tcp_info;
mod unix_file;

pub(crate) use connect::connect;
pub(crate) use listener::BACKLOG;
pub use listener::Listener;
pub(crate) use pipe::Pipe;
pub use stream::Peer;
pub(crate) use stream::{Accepted, Received, Stream, Then};
pub(crate) use tcp_info::TcpInfo;

/// Bytes the kernel accepts before the network has taken the earlier ones
/// (TCP_NOTSENT_LOWAT). It does not limit packets on their way.
///
/// Without it the send queue of a stuck client grows to the send buffer and beyond;
/// with it, to one segment, which the kernel fills up: 65,483 bytes (measured, over
/// thousands of stuck clients with windows of all sizes). Large poems are as fast as
/// before (measured).
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 16 << 10;
