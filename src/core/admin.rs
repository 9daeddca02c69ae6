//! What an operator sees of a running service: the status as JSON, and the page that
//! shows it. Nothing here does I/O; the time is an argument everywhere.

pub mod clock;
pub mod health;
pub mod history;
pub mod keys;
pub mod notices;
pub mod page;
#[cfg(test)]
mod sample;
pub mod status;
