//! The program as people and scripts meet it.

mod completions;
mod environment;
mod flags;
mod help;
mod logs;
mod manager;
mod sockets;
