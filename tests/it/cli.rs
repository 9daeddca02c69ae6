//! The program as people and scripts meet it.

mod completions;
mod environment;
mod flags;
mod help;
mod log_choice;
mod logs;
mod manager;
mod priorities;
mod sockets;
