//! The connections of each client that is connected.

use crate::addr::ClientNet;
use ahash::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections of one client that don't count although they are open: their answers are
/// sent, and only the client's acknowledgement is missing. It is looked for every 10 ms
/// or so, and a client that asks again at once, before that, is not to be refused.
pub const UNCOUNTED: u32 = 64;

/// How many connections each client has. It holds only clients that are connected, so
/// it is as large as `--max-clients` lets it be.
#[derive(Debug)]
pub(super) struct Connected {
    limit: NonZeroU32,
    /// Held to change one number.
    clients: Mutex<Clients>,
}

type Clients = HashMap<ClientNet, Counts, RandomState>;

/// The connections of one client.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    open: u32,
    /// Those that only wait for their client's acknowledgement.
    closing: u32,
}

impl Counts {
    fn counted(self) -> u32 {
        self.open + self.closing.saturating_sub(UNCOUNTED)
    }
}

impl Connected {
    pub(super) fn new(limit: NonZeroU32) -> Connected {
        Connected {
            limit,
            clients: Mutex::default(),
        }
    }

    /// Counts one more connection, unless its client has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, client: ClientNet) -> Option<Pass> {
        let mut clients = self.lock();
        let counts = clients.entry(client).or_default();
        if counts.counted() >= self.limit.get() {
            return None; // it has some, so its entry stays
        }

        counts.open += 1;
        drop(clients);
        Some(Pass(Some(Box::new(CountedConnection {
            connected: self.clone(),
            client,
            is_closing: AtomicBool::new(false),
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that may be there. Dropped, it is counted no more. One pointer, because
/// every waiting client has one.
#[derive(Debug)]
pub struct Pass(Option<Box<CountedConnection>>);

#[derive(Debug)]
struct CountedConnection {
    connected: Arc<Connected>,
    client: ClientNet,
    is_closing: AtomicBool,
}

impl Pass {
    /// For a connection that no limit counts.
    pub fn uncounted() -> Pass {
        Pass(None)
    }

    /// The answer is sent, and only its acknowledgement is missing.
    pub fn answered(&self) {
        if let Some(counted) = &self.0 {
            counted.answered();
        }
    }
}

impl CountedConnection {
    fn answered(&self) {
        if self.is_closing.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(counts) = self.connected.lock().get_mut(&self.client) {
            counts.open -= 1;
            counts.closing += 1;
        }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut clients = self.connected.lock();
        let Entry::Occupied(mut entry) = clients.entry(self.client) else {
            return;
        };

        let counts = entry.get_mut();
        if *self.is_closing.get_mut() {
            counts.closing -= 1;
        } else {
            counts.open -= 1;
        }
        if (counts.open, counts.closing) == (0, 0) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> ClientNet {
        ClientNet::of([192, 0, 2, last].into())
    }

    fn connected(limit: u32) -> Arc<Connected> {
        let limit = NonZeroU32::new(limit).expect("not zero");
        Arc::new(Connected::new(limit))
    }

    #[test]
    fn a_client_has_as_many_connections_as_it_may_and_leaves_nothing() {
        let connected = connected(2);
        let first = connected.enter(client(1)).expect("it has none");
        let second = connected.enter(client(1)).expect("it has one");
        assert!(connected.enter(client(1)).is_none());
        let other = connected.enter(client(2)).expect("it has none");

        drop(first);
        let third = connected.enter(client(1)).expect("it has one");
        assert!(connected.enter(client(1)).is_none());
        drop((second, third, other));
        assert!(connected.lock().is_empty());
    }

    #[test]
    fn some_connections_whose_answer_is_sent_count_no_more() {
        let connected = connected(1);
        let mut closing = Vec::new();
        for _ in 0..UNCOUNTED {
            let pass = connected.enter(client(1)).expect("the others are closing");
            pass.answered();
            pass.answered();
            closing.push(pass);
        }

        let last = connected.enter(client(1)).expect("the others are closing");
        last.answered();
        assert!(connected.enter(client(1)).is_none(), "one is too many");
        closing.pop();
        assert!(connected.enter(client(1)).is_some());
        drop((closing, last));
        assert!(connected.lock().is_empty());
    }
}
