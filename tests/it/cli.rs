//! The program as people and scripts meet it.

mod environment;
mod flags;
mod logs;
mod sockets;
