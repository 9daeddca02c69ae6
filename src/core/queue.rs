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
//! let Entered::Started(first, _) = queue.enter(Priority::Client, "first", now) else {
//!     panic!()
//! };
//! assert!(matches!(queue.enter(Priority::Refresh, "second", now), Entered::Waits(_)));
//! assert!(matches!(queue.enter(Priority::Client, "third", now), Entered::Waits(_)));
//!
//! // A client's fetch goes before a refresh.
//! let (_, next) = queue.finish(first).expect("two are waiting");
//! assert_eq!(next, "third");
//! ```
//!
//! | event | a free place | no free place | the queue is full |
//! |---|---|---|---|
//! | `enter` | it starts | it waits | it is refused |
//! | `wait` | it waits | it waits | it is refused |
//! | `take_place` | the place is taken | nothing | nothing |
//! | `finish` | | the next one starts, else the place is free | |
//! | `leave` | | it is gone | |
//!
//! **Order.** Clients' fetches start in the order they came, before refreshes, for
//! which no client waits. So that refreshes don't starve, each [`REFRESH_TURN`]th start
//! is a refresh's. Entering, leaving and changing the priority cost O(log n).

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
    refreshes: BTreeMap<Id, Waiting<T>>,
    /// Starts of clients' fetches since a refresh last started.
    client_starts: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
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
            refreshes: BTreeMap::new(),
            client_starts: 0,
        }
    }

    /// A place now, or a turn later.
    pub fn enter(&mut self, priority: Priority, item: T, now: Instant) -> Entered<T> {
        if self.has_free_place() {
            let id = self.new_id();
            self.running.insert(id);
            return Entered::Started(id, item);
        }
        self.wait(priority, item, now)
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
    pub fn wait(&mut self, priority: Priority, item: T, now: Instant) -> Entered<T> {
        let id = self.new_id();
        if self.len() >= self.bound {
            return Entered::Refused(item);
        }

        let waiting = Waiting { item, since: now };
        self.of(priority).insert(id, waiting);
        Entered::Waits(id)
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
        let waiting = self.clients.remove(&id);
        let waiting = waiting.or_else(|| self.refreshes.remove(&id));

        if let Some(waiting) = waiting {
            self.of(priority).insert(id, waiting);
        }
    }

    /// Takes an item out of the queue. `None` once it has started or left.
    pub fn leave(&mut self, id: Id) -> Option<T> {
        let waiting = self.clients.remove(&id);
        let waiting = waiting.or_else(|| self.refreshes.remove(&id))?;
        Some(waiting.item)
    }

    /// Takes out an item that came before `since`, if one waits.
    pub fn take_older(&mut self, since: Instant) -> Option<T> {
        for waiting in [&mut self.clients, &mut self.refreshes] {
            // Items wait in the order in which they came.
            let oldest = waiting.first_key_value();
            if oldest.is_some_and(|(_, oldest)| oldest.since < since) {
                return waiting.pop_first().map(|(_, waiting)| waiting.item);
            }
        }
        None
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

        let (id, waiting) = self.clients.pop_first()?;
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

    fn of(&mut self, priority: Priority) -> &mut BTreeMap<Id, Waiting<T>> {
        match priority {
            Priority::Client => &mut self.clients,
            Priority::Refresh => &mut self.refreshes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn waits<T: std::fmt::Debug>(entered: Entered<T>) -> Id {
        match entered {
            Entered::Waits(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// A queue with one place, which is taken.
    fn busy(bound: usize) -> (Queue<u32>, Instant) {
        let mut queue = Queue::new(1, bound);
        let now = Instant::now();
        assert_eq!(
            queue.enter(Priority::Client, 0, now),
            Entered::Started(Id(0), 0)
        );
        (queue, now)
    }

    /// The items in the order in which they start.
    fn order(queue: &mut Queue<u32>) -> Vec<u32> {
        let mut running = Id(0);
        let next = || {
            let (id, item) = queue.finish(running)?;
            running = id;
            Some(item)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn clients_start_in_order_and_before_refreshes() {
        let (mut queue, now) = busy(10);
        waits(queue.enter(Priority::Refresh, 1, now));
        waits(queue.enter(Priority::Client, 2, now));
        waits(queue.enter(Priority::Client, 3, now));
        waits(queue.enter(Priority::Refresh, 4, now));

        assert_eq!(order(&mut queue), [2, 3, 1, 4]);
        assert_eq!(queue.running(), 0);
    }

    #[test]
    fn refreshes_are_not_starved_by_clients() {
        let (mut queue, now) = busy(100);
        waits(queue.enter(Priority::Refresh, 100, now));
        for item in 1..50 {
            waits(queue.enter(Priority::Client, item, now));
        }

        let order = order(&mut queue);
        let at = order.iter().position(|item| *item == 100);
        assert_eq!(at, Some(REFRESH_TURN as usize - 1));
    }

    #[test]
    fn a_full_queue_refuses_until_an_item_leaves() {
        let (mut queue, now) = busy(2);
        let first = waits(queue.enter(Priority::Client, 1, now));
        waits(queue.enter(Priority::Refresh, 2, now));
        assert_eq!(queue.enter(Priority::Client, 3, now), Entered::Refused(3));

        assert_eq!(queue.leave(first), Some(1));
        assert_eq!(queue.leave(first), None);
        waits(queue.enter(Priority::Client, 4, now));
        assert_eq!(order(&mut queue), [4, 2]);
    }

    #[test]
    fn a_refresh_that_clients_wait_for_goes_with_them() {
        let (mut queue, now) = busy(10);
        let refresh = waits(queue.enter(Priority::Refresh, 1, now));
        waits(queue.enter(Priority::Client, 2, now));
        queue.set_priority(refresh, Priority::Client);

        assert_eq!(order(&mut queue), [1, 2]);
    }

    #[test]
    fn the_oldest_client_is_one_that_still_waits() {
        let (mut queue, now) = busy(10);
        let at = |secs| now + Duration::from_secs(secs);
        waits(queue.enter(Priority::Refresh, 1, at(1)));
        assert_eq!(queue.oldest_client(), None);

        let first = waits(queue.enter(Priority::Client, 2, at(2)));
        let second = waits(queue.enter(Priority::Client, 3, at(3)));
        assert_eq!(queue.oldest_client(), Some(at(2)));
        queue.leave(first);
        assert_eq!(queue.oldest_client(), Some(at(3)));
        queue.set_priority(second, Priority::Refresh);
        assert_eq!(queue.oldest_client(), None);
    }

    #[test]
    fn items_that_have_waited_too_long_can_be_taken_out() {
        let (mut queue, now) = busy(10);
        let at = |secs| now + Duration::from_secs(secs);
        waits(queue.enter(Priority::Refresh, 1, at(1)));
        waits(queue.enter(Priority::Client, 2, at(2)));
        waits(queue.enter(Priority::Client, 3, at(3)));
        assert_eq!(queue.oldest(), Some(at(1)));

        let taken: Vec<u32> = std::iter::from_fn(|| queue.take_older(at(3))).collect();
        assert_eq!(taken, [2, 1]);
        assert_eq!(queue.oldest(), Some(at(3)));
    }

    proptest! {
        #[test]
        fn every_item_starts_once_or_leaves_and_no_place_is_lost(
            places in 1usize..4, bound in 0usize..6,
            acts in prop::collection::vec((0u8..5, any::<usize>()), 0..80),
        ) {
            let mut queue = Queue::new(places, bound);
            let now = Instant::now();
            let (mut waiting, mut running) = (Vec::new(), Vec::new());

            for (item, (act, pick)) in acts.into_iter().enumerate() {
                match act {
                    0 | 1 => {
                        let priority = if act == 0 { Priority::Client } else { Priority::Refresh };
                        match queue.enter(priority, item, now) {
                            Entered::Started(id, _) => running.push(id),
                            Entered::Waits(id) => waiting.push((id, item)),
                            Entered::Refused(back) => {
                                prop_assert_eq!((back, waiting.len()), (item, bound));
                            }
                        }
                    }
                    2 if !waiting.is_empty() => {
                        let (id, item) = waiting.remove(pick % waiting.len());
                        prop_assert_eq!(queue.leave(id), Some(item));
                    }
                    3 if !waiting.is_empty() => {
                        let is_client = pick % 2 == 0;
                        let priority =
                            if is_client { Priority::Client } else { Priority::Refresh };
                        queue.set_priority(waiting[pick % waiting.len()].0, priority);
                    }
                    4 if !running.is_empty() => {
                        let ended = running.remove(pick % running.len());
                        let next = queue.finish(ended);
                        prop_assert_eq!(next.is_none(), waiting.is_empty());
                        if let Some(next) = next {
                            let at = waiting.iter().position(|waits| *waits == next);
                            waiting.remove(at.expect("it was waiting"));
                            running.push(next.0);
                        }
                    }
                    _ => {}
                }
                let counts = (queue.len(), queue.running());
                prop_assert_eq!(counts, (waiting.len(), running.len()));
                prop_assert!(running.len() <= places);
                prop_assert!(waiting.is_empty() || running.len() == places);
            }
        }
    }
}
