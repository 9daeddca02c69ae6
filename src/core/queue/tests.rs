//! Which item starts next, and that none is lost.

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
        queue.enter(Priority::Client, None, 0, now),
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
    waits(queue.enter(Priority::Refresh, None, 1, now));
    waits(queue.enter(Priority::Client, None, 2, now));
    waits(queue.enter(Priority::Client, None, 3, now));
    waits(queue.enter(Priority::Refresh, None, 4, now));

    assert_eq!(order(&mut queue), [2, 3, 1, 4]);
    assert_eq!(queue.running(), 0);
}

#[test]
fn refreshes_are_not_starved_by_clients() {
    let (mut queue, now) = busy(100);
    waits(queue.enter(Priority::Refresh, None, 100, now));
    for item in 1..50 {
        waits(queue.enter(Priority::Client, None, item, now));
    }

    let order = order(&mut queue);
    let at = order.iter().position(|item| *item == 100);
    assert_eq!(at, Some(REFRESH_TURN as usize - 1));
}

#[test]
fn a_full_queue_refuses_until_an_item_leaves() {
    let (mut queue, now) = busy(2);
    let first = waits(queue.enter(Priority::Client, None, 1, now));
    waits(queue.enter(Priority::Refresh, None, 2, now));
    assert_eq!(
        queue.enter(Priority::Client, None, 3, now),
        Entered::Refused(3)
    );

    assert_eq!(queue.leave(first), Some(1));
    assert_eq!(queue.leave(first), None);
    waits(queue.enter(Priority::Client, None, 4, now));
    assert_eq!(order(&mut queue), [4, 2]);
}

#[test]
fn a_refresh_that_clients_wait_for_goes_with_them() {
    let (mut queue, now) = busy(10);
    let refresh = waits(queue.enter(Priority::Refresh, None, 1, now));
    waits(queue.enter(Priority::Client, None, 2, now));
    queue.set_priority(refresh, Priority::Client);

    assert_eq!(order(&mut queue), [1, 2]);
}

#[test]
fn the_oldest_client_is_one_that_still_waits() {
    let (mut queue, now) = busy(10);
    let at = |secs| now + Duration::from_secs(secs);
    waits(queue.enter(Priority::Refresh, None, 1, at(1)));
    assert_eq!(queue.oldest_client(), None);

    let first = waits(queue.enter(Priority::Client, None, 2, at(2)));
    let second = waits(queue.enter(Priority::Client, None, 3, at(3)));
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
    waits(queue.enter(Priority::Refresh, None, 1, at(1)));
    waits(queue.enter(Priority::Client, None, 2, at(2)));
    waits(queue.enter(Priority::Client, None, 3, at(3)));
    assert_eq!(queue.oldest(), Some(at(1)));

    let taken: Vec<u32> = std::iter::from_fn(|| queue.take_older(at(3))).collect();
    assert_eq!(taken, [2, 1]);
    assert_eq!(queue.oldest(), Some(at(3)));
}

fn client(last: u8) -> Option<ClientNet> {
    Some(ClientNet::of([192, 0, 2, last].into()))
}

#[test]
fn clients_take_turns_and_their_own_fetches_keep_their_order() {
    let (mut queue, now) = busy(100);
    for item in 10..15 {
        waits(queue.enter(Priority::Client, client(1), item, now));
    }
    for item in 20..22 {
        waits(queue.enter(Priority::Client, client(2), item, now));
    }
    waits(queue.enter(Priority::Client, None, 30, now));

    assert_eq!(order(&mut queue), [10, 20, 30, 11, 21, 12, 13, 14]);
}

#[test]
fn a_client_that_comes_late_waits_for_one_turn_of_each_other() {
    let (mut queue, now) = busy(10_000);
    for item in 0..3000 {
        waits(queue.enter(Priority::Client, client(1 + (item % 3) as u8), item, now));
    }
    waits(queue.enter(Priority::Client, client(9), 9999, now));

    let order = order(&mut queue);
    let at = order.iter().position(|item| *item == 9999);
    assert!(at.is_some_and(|at| at <= 3), "{at:?}");
    assert_eq!(order.len(), 3001);
}

#[test]
fn one_client_can_not_fill_the_queue_for_the_others() {
    let (mut queue, now) = busy(4);
    for item in 10..14 {
        waits(queue.enter(Priority::Client, client(1), item, now));
    }
    let full = queue.enter(Priority::Client, client(1), 14, now);
    assert_eq!(full, Entered::Refused(14));

    for (item, last) in [(20, 13), (21, 12)] {
        let entered = queue.enter(Priority::Client, client(2), item, now);
        assert!(matches!(entered, Entered::Displaces(_, other) if other == last));
    }
    let full = queue.enter(Priority::Client, client(2), 22, now);
    assert_eq!(full, Entered::Refused(22), "each has two");
    let full = queue.enter(Priority::Refresh, client(3), 30, now);
    assert_eq!(full, Entered::Refused(30), "no client waits for it");
    assert_eq!(order(&mut queue), [10, 20, 11, 21]);
}

/// A queue without places, obvious and slow: whose turn it is is a list of clients.
#[derive(Default)]
struct Round {
    clients: Vec<(Lane, Vec<(Id, usize)>)>,
}

impl Round {
    fn add(&mut self, from: Option<ClientNet>, fetch: (Id, usize)) {
        let known = self.clients.iter_mut().find(|(client, _)| *client == from);
        match known {
            Some((_, fetches)) => {
                fetches.push(fetch);
                fetches.sort_by_key(|(id, _)| *id);
            }
            None => self.clients.push((from, vec![fetch])),
        }
    }

    fn remove(&mut self, id: Id) -> Option<(Option<ClientNet>, usize)> {
        let found = self.clients.iter_mut().find_map(|(client, fetches)| {
            let at = fetches.iter().position(|(other, _)| *other == id)?;
            Some((*client, fetches.remove(at).1))
        });
        self.clients.retain(|(_, fetches)| !fetches.is_empty());
        found
    }

    fn next(&mut self) -> Option<(Id, usize)> {
        if self.clients.is_empty() {
            return None;
        }
        let (client, mut fetches) = self.clients.remove(0);
        let first = fetches.remove(0);
        if !fetches.is_empty() {
            self.clients.push((client, fetches));
        }
        Some(first)
    }
}

proptest! {
    #[test]
    fn the_order_is_that_of_the_obvious_round(
        acts in prop::collection::vec((0u8..6, 0u8..5, any::<usize>()), 0..120),
    ) {
        let mut queue = Queue::new(0, usize::MAX);
        let now = Instant::now();
        let (mut round, mut refreshes) = (Round::default(), Vec::new());

        for (item, (act, from, pick)) in acts.into_iter().enumerate() {
            let from = client(from).filter(|_| from > 0);
            let waiting: Vec<Id> = round
                .clients
                .iter()
                .flat_map(|(_, fetches)| fetches.iter().map(|(id, _)| *id))
                .collect();
            match act {
                0..=2 => {
                    let id = waits(queue.enter(Priority::Client, from, item, now));
                    round.add(from, (id, item));
                }
                3 if !waiting.is_empty() => {
                    let id = waiting[pick % waiting.len()];
                    queue.set_priority(id, Priority::Client);
                    let (from, item) = round.remove(id).expect("it waits");
                    if pick % 2 == 0 {
                        prop_assert_eq!(queue.leave(id), Some(item));
                    } else {
                        queue.set_priority(id, Priority::Refresh);
                        refreshes.push((from, (id, item)));
                    }
                }
                4 if !refreshes.is_empty() => {
                    let (from, fetch) = refreshes.swap_remove(pick % refreshes.len());
                    queue.set_priority(fetch.0, Priority::Refresh);
                    queue.set_priority(fetch.0, Priority::Client);
                    round.add(from, fetch);
                }
                5 => {
                    let first = queue.lanes.pop();
                    let taken = first.and_then(|id| queue.clients.remove(&id));
                    let found = first.zip(taken.map(|waiting| waiting.item));
                    prop_assert_eq!(found, round.next());
                }
                _ => {}
            }
            prop_assert_eq!(queue.lanes.is_empty(), queue.clients.is_empty());
        }
    }
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
                    let from = client((pick % 3) as u8);
                    match queue.enter(priority, from, item, now) {
                        Entered::Started(id, _) => running.push(id),
                        Entered::Waits(id) => waiting.push((id, item)),
                        Entered::Displaces(id, other) => {
                            prop_assert_eq!(waiting.len(), bound);
                            waiting.retain(|(_, item)| *item != other);
                            prop_assert_eq!(waiting.len(), bound - 1);
                            waiting.push((id, item));
                        }
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
