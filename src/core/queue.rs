//! The queue before an upstream: how many fetches run, which waits, and which starts
//! next.
//!
//! Plain data. It knows no fetch, no clock and no lock: the caller passes the time and
//! acts on the answers.
//!
//! ```
//! use poetry::queue::{Priority, Entered, Queue};
//! use std::time::Instant;
//!
//! let mut queue = Queue::new(1, 10);
//! let now = Instant::now();
//! let entered = queue.enter(Priority::Client, None, "first", now);
//! let Entered::Started(first, _) = entered else {
//!     panic!()
//! };
//! let entered = queue.enter(Priority::Refresh, None, "second", now);
//! assert!(matches!(entered, Entered::Waits(_)));
//! let entered = queue.enter(Priority::Client, None, "third", now);
//! assert!(matches!(entered, Entered::Waits(_)));
//!
//! // A client's fetch goes before a refresh.
//! let (_, next) = queue.finish(first).expect("two are waiting");
//! assert_eq!(next, "third");
//! ```
//!
//! | event | a free place | no free place | the queue is full |
//! |---|---|---|---|
//! | `enter` | it starts | it waits | it, or another's last, is refused |
//! | `wait` | it waits | it waits | the same |
//! | `take_place` | the place is taken | nothing | nothing |
//! | `finish` | | the next one starts, else the place is free | |
//! | `leave` | | it is gone | |
//!
//! **Order.** Clients take turns: one that waits for a thousand fetches doesn't keep
//! another waiting for more than one of them. A fetch is its first client's, and a
//! client's own fetches start in the order they came. All of them start before
//! refreshes, for which no client waits. So that refreshes don't starve, each
//! [`REFRESH_TURN`]th start is a refresh's. Entering, leaving and changing the priority
//! cost O(log n).
//!
//! **A full queue** is shared alike. An item of a client that has two fewer in it than
//! another takes the place of that other's last.

mod lanes;

use crate::addr::ClientNet;
use lanes::{Lane, Lanes};
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// While both wait, one start in this many is a refresh's.
pub const REFRESH_TURN: u32 = 8;

/// What waits for a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A client.
    Client,
    /// No client: it refreshes a stale text.
    Refresh,
}

/// A fetch in the queue, by the order in which it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// What became of an item that entered.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered<T> {
    /// It has a place and starts now.
    Started(Id, T),
    /// It waits.
    Waits(Id),
    /// It waits. This other one does not any more: too many wait, and it was the last
    /// of the client with the most.
    Displaces(Id, T),
    /// Too many wait already.
    Refused(T),
}

/// Items that wait for one of a fixed number of places.
#[derive(Debug)]
pub struct Queue<T> {
    places: usize,
    running: HashSet<Id>,
    /// The most that may wait.
    bound: usize,
    next_id: u64,
    clients: BTreeMap<Id, Waiting<T>>,
    /// Those of `clients`, by the client whose turn it is.
    lanes: Lanes,
    refreshes: BTreeMap<Id, Waiting<T>>,
    /// Starts of clients' fetches since a refresh last started.
    client_starts: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    lane: Lane,
    since: Instant,
}

impl<T> Queue<T> {
    /// A queue for `places` places in which at most `bound` items wait.
    pub fn new(places: usize, bound: usize) -> Queue<T> {
        Queue {
            places,
            running: HashSet::new(),
            bound,
            next_id: 0,
            clients: BTreeMap::new(),
            lanes: Lanes::default(),
            refreshes: BTreeMap::new(),
            client_starts: 0,
        }
    }

    /// A place now, or a turn later, among those of the client `from`. Items without
    /// one take turns as if they were a client's.
    pub fn enter(
        &mut self,
        priority: Priority,
        from: Option<ClientNet>,
        item: T,
        now: Instant,
    ) -> Entered<T> {
        if self.has_free_place() {
            let id = self.new_id();
            self.running.insert(id);
            return Entered::Started(id, item);
        }
        self.wait(priority, from, item, now)
    }

    /// A place now, for an item that comes later: [`Queue::end`] frees it. `None` if no
    /// place is free.
    pub fn take_place(&mut self) -> Option<Id> {
        if !self.has_free_place() {
            return None;
        }
        let id = self.new_id();
        self.running.insert(id);
        Some(id)
    }

    /// A turn later, also if a place is free: [`Queue::start_next`] starts it.
    pub fn wait(
        &mut self,
        priority: Priority,
        from: Option<ClientNet>,
        item: T,
        now: Instant,
    ) -> Entered<T> {
        let id = self.new_id();
        let mut displaced = None;
        if self.len() >= self.bound {
            let last = self
                .lanes
                .unfair(from)
                .filter(|_| priority == Priority::Client);
            displaced = last.and_then(|last| self.leave(last));
            if displaced.is_none() {
                return Entered::Refused(item);
            }
        }

        let waiting = Waiting {
            item,
            lane: from,
            since: now,
        };
        self.insert(priority, id, waiting);
        match displaced {
            None => Entered::Waits(id),
            Some(other) => Entered::Displaces(id, other),
        }
    }

    fn new_id(&mut self) -> Id {
        let id = Id(self.next_id);
        self.next_id += 1;
        id
    }

    /// The number that the next item to enter gets.
    pub fn next_id(&self) -> Id {
        Id(self.next_id)
    }

    /// Whether an item that enters now starts at once.
    pub fn has_free_place(&self) -> bool {
        self.running.len() < self.places
    }

    /// An item that waits.
    pub fn get(&self, id: Id) -> Option<&T> {
        let waiting = self.clients.get(&id).or_else(|| self.refreshes.get(&id));
        waiting.map(|waiting| &waiting.item)
    }

    /// Changes what waits for an item. Nothing happens once it has started or left.
    pub fn set_priority(&mut self, id: Id, priority: Priority) {
        let is_clients = self.clients.contains_key(&id);
        if is_clients == (priority == Priority::Client) {
            return; // it keeps its place, and its client its turn
        }
        if let Some(waiting) = self.remove(id) {
            self.insert(priority, id, waiting);
        }
    }

    /// Takes an item out of the queue. `None` once it has started or left.
    pub fn leave(&mut self, id: Id) -> Option<T> {
        Some(self.remove(id)?.item)
    }

    fn insert(&mut self, priority: Priority, id: Id, waiting: Waiting<T>) {
        match priority {
            Priority::Client => {
                self.lanes.add(waiting.lane, id);
                self.clients.insert(id, waiting);
            }
            Priority::Refresh => {
                self.refreshes.insert(id, waiting);
            }
        }
    }

    fn remove(&mut self, id: Id) -> Option<Waiting<T>> {
        let Some(waiting) = self.clients.remove(&id) else {
            return self.refreshes.remove(&id);
        };
        self.lanes.remove(waiting.lane, id);
        Some(waiting)
    }

    /// Takes out an item that came before `since`, if one waits.
    pub fn take_older(&mut self, since: Instant) -> Option<T> {
        // Each of the two is in the order in which its items came.
        let oldest = [&self.clients, &self.refreshes].map(|them| them.first_key_value());
        let is_older = |(_, oldest): &(&Id, &Waiting<T>)| oldest.since < since;
        let (id, _) = oldest.into_iter().flatten().find(is_older)?;
        self.leave(*id)
    }

    /// When the oldest item that waits came.
    pub fn oldest(&self) -> Option<Instant> {
        let clients = self.clients.first_key_value();
        let refreshes = self.refreshes.first_key_value();
        let both = clients.into_iter().chain(refreshes);
        both.map(|(_, waiting)| waiting.since).min()
    }

    /// A running item has ended. The next one starts, if any waits.
    pub fn finish(&mut self, id: Id) -> Option<(Id, T)> {
        self.end(id);
        self.start_next()
    }

    /// A running item has ended, and its place is free.
    pub fn end(&mut self, id: Id) {
        self.running.remove(&id);
    }

    /// Starts the item that is next, if one waits and a place is free.
    pub fn start_next(&mut self) -> Option<(Id, T)> {
        if !self.has_free_place() {
            return None;
        }
        let (next, item) = self.next()?;

        self.running.insert(next);
        Some((next, item))
    }

    /// Whether an item has started and not finished.
    pub fn is_running(&self, id: Id) -> bool {
        self.running.contains(&id)
    }

    fn next(&mut self) -> Option<(Id, T)> {
        let is_refresh_turn = self.client_starts + 1 >= REFRESH_TURN;
        let takes_refresh = self.clients.is_empty() || is_refresh_turn;

        let refresh = if takes_refresh {
            self.refreshes.pop_first()
        } else {
            None
        };
        if let Some((id, waiting)) = refresh {
            self.client_starts = 0;
            return Some((id, waiting.item));
        }

        let id = self.lanes.pop()?;
        let waiting = self.clients.remove(&id)?;
        self.client_starts = self.client_starts.saturating_add(1);
        Some((id, waiting.item))
    }

    /// When the oldest client's fetch that waits came. Refreshes don't count: nothing
    /// waits for them.
    pub fn oldest_client(&self) -> Option<Instant> {
        let oldest = self.clients.first_key_value();
        oldest.map(|(_, waiting)| waiting.since)
    }

    /// The number of items that wait.
    pub fn len(&self) -> usize {
        self.clients.len() + self.refreshes.len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of places taken.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests;
