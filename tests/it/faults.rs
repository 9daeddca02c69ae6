//! The catalogue of faults: what goes wrong, and what it must not cost others. One test
//! for each scenario, named by a sentence. Those that belong to one feature are with it
//! (`coalesce`, `stale`, `limits`, `patience`, `fetch`, `exec`).
//!
//! Where the man page says what happens when, it names the scenarios that show it;
//! `tidy` checks that they exist.

mod blocked;
mod clients;
mod descriptors;
mod endings;
mod failover;
mod lifecycle;
mod memory;
mod panics;
mod parsers;
mod poems;
mod refusals;
mod requests;
mod resources;
mod signals;
mod storms;
mod upstream;

use crate::support::{Client, FakeUpstream, RESET, Service};

/// `count` clients that wait for one fetch.
fn waiting_clients(proxy: &Service, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| proxy.connect()).collect();
    proxy.wait_for_open(count as u64);
    clients
}

fn all_are_reset(clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.rest(), RESET);
    }
}

/// Holds that the next request starts a fetch of its own, and gets the whole poem.
fn assert_key_is_free(proxy: &Service, upstream: &FakeUpstream) {
    let before = upstream.connections();

    let mut client = proxy.connect();
    upstream.serve_once(b"the whole poem");

    assert_eq!(client.rest().unwrap(), b"the whole poem");
    assert_eq!(upstream.connections(), before + 1);
}
