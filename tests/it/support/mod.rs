//! What the tests share: a scripted upstream, plain clients on std's sockets, services
//! in this process, and the program itself.
//!
//! Every wait here has a deadline, so that a hang fails its test within [`LONG`]. Tests
//! reach the crate's API through this module: a rename in `src` changes only these
//! files.

mod admin;
mod admission;
mod client;
mod clock;
mod exchange;
mod folder;
mod live;
mod manager;
mod process;
mod proxy;
#[cfg(feature = "fleet")]
mod redis;
mod service;
mod trap;
mod upstream;

pub use admin::{Operators, TOKEN, http, read_all, request};
pub use client::{Client, RESET, reset};
#[cfg(feature = "fleet")]
pub use clock::faketime;
pub use exchange::{Asked, ask_and_interfere, ask_marked_and_interfere};
pub use folder::Folder;
pub use live::feed;
pub use manager::{Manager, inheriting};
pub use poetry::protocol::Protocol;
pub use process::{Process, ServerProcess, command, poetry, run, shell, text};
pub use proxy::{ProxyParts, proxy};
pub use redis::{Redis, join};
pub use rustix::process::Signal;
pub use service::{
    Builder, ServeParts, Service, answering, bind, run_with_a_broken_thread, serve, serve_backlog,
    transform_service,
};
pub use trap::{BUG, Trap};
pub use upstream::{BlackHole, Connection, FakeUpstream, unused_addr};

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Short enough to wait for, long enough for a loaded machine to act in time.
pub const SHORT: Duration = Duration::from_secs(1);

pub const HOUR: Duration = Duration::from_secs(3600);
pub const ZERO: Duration = Duration::ZERO;

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();

    while !condition() {
        assert!(started.elapsed() < LONG, "waited in vain: {what}");
        park_timeout(Duration::from_millis(1));
    }
}

/// Waits until `counter` is exactly `wanted`.
pub fn wait_for_count(what: &str, counter: &AtomicU64, wanted: u64) {
    wait_until(&format!("{what} = {wanted}"), || count(counter) == wanted);
}

pub fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}

/// The netstring of `text`.
pub fn netstring(text: &[u8]) -> Vec<u8> {
    [format!("{}:", text.len()).as_bytes(), text, b","].concat()
}

/// A poem of `length` bytes that shows when a part of it is lost, doubled or moved.
pub fn long_poem(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 9)) as u8).collect()
}

/// Raises this process's limit on descriptors as far as it may: some tests hold
/// thousands of clients, and they run side by side.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;

    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}
