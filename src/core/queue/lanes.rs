//! Whose turn it is among the clients whose fetches wait: one after the other, each
//! with one fetch.
//!
//! A client gets its place in the round when its first fetch comes, at the end; after
//! each turn it goes to the end again. Its own fetches go in the order in which they
//! came. Adding, taking and removing cost O(log n).

use super::Id;
use crate::addr::ClientNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A client; `None` for all that have no address: those of unix sockets, and operators.
pub(super) type Lane = Option<ClientNet>;

/// The clients whose fetches wait.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<Lane, LaneFetches>,
    /// The round: whose turn is next, and so on.
    round: BTreeMap<u64, Lane>,
    next_turn: u64,
    /// The clients by how many fetches they have here.
    by_length: BTreeSet<(usize, Lane)>,
}

/// The fetches of one client, at least one, and its place in the round.
#[derive(Debug)]
struct LaneFetches {
    turn: u64,
    ids: BTreeSet<Id>,
}

impl Lanes {
    pub(super) fn add(&mut self, lane: Lane, id: Id) {
        let Some(waiting) = self.lanes.get_mut(&lane) else {
            let turn = self.join_round(lane);
            let ids = BTreeSet::from([id]);
            self.lanes.insert(lane, LaneFetches { turn, ids });
            self.by_length.insert((1, lane));
            return;
        };

        let length = waiting.ids.len();
        waiting.ids.insert(id);
        self.has_changed(lane, length, length + 1);
    }

    pub(super) fn remove(&mut self, lane: Lane, id: Id) {
        let Some(waiting) = self.lanes.get_mut(&lane) else {
            return;
        };
        let length = waiting.ids.len();
        if !waiting.ids.remove(&id) {
            return;
        }

        if length == 1 {
            self.round.remove(&waiting.turn);
            self.lanes.remove(&lane);
        }
        self.has_changed(lane, length, length - 1);
    }

    /// Takes the fetch whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Id> {
        let (_, lane) = self.round.pop_first()?;
        let turn = self.join_round(lane);
        let waiting = self.lanes.get_mut(&lane)?;
        waiting.turn = turn;

        let id = waiting.ids.first().copied()?;
        self.remove(lane, id);
        Some(id)
    }

    /// The last fetch of the client with the most, if that has so many that one less
    /// would still be no fewer than `lane` has with one more.
    pub(super) fn unfair(&self, lane: Lane) -> Option<Id> {
        let (most, other) = self.by_length.last()?;
        let own = self.lanes.get(&lane).map_or(0, |waiting| waiting.ids.len());
        if *most < own + 2 {
            return None;
        }
        self.lanes.get(other)?.ids.last().copied()
    }

    /// Whether nothing waits, and nothing is left over.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = self.lanes.is_empty();
        assert_eq!(self.round.is_empty(), is_empty);
        assert_eq!(self.by_length.is_empty(), is_empty);
        is_empty
    }

    fn join_round(&mut self, lane: Lane) -> u64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.round.insert(turn, lane);
        turn
    }

    fn has_changed(&mut self, lane: Lane, from: usize, to: usize) {
        self.by_length.remove(&(from, lane));
        if to > 0 {
            self.by_length.insert((to, lane));
        }
    }
}
