//! One shard of the cache: its entries, the order in which kept values are let go, and the failures still remembered.
//!
//! Nothing here locks; [`super`] holds each shard behind a lock of its own.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What an entry costs beside its value and key: the table and the queue (estimated, in bytes).
pub(super) const ENTRY_WEIGHT: u64 = 256;

/// What all rooms of a cache come to, in bytes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) in_flight: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) negative: AtomicU64,
}

impl Usage {
    pub(super) fn held(&self) -> u64 {
        [Kind::Flight, Kind::Value, Kind::NegativeEntry]
            .map(|p| self.of(p).load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Flight => &self.in_flight,
            Kind::Value => &self.kept,
            Kind::NegativeEntry => &self.negative,
        }
    }
}

/// What a room is for: flights never make way, memories do so first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Flight,
    Value,
    NegativeEntry,
}

/// Bytes that count against the capacity for as long as this exists.
#[derive(Debug)]
pub struct Reservation {
    usage: Arc<Usage>,
    kind: Kind,
    bytes: u64,
    /// Whether the cache has let go of it: whoever still has it can't be made to let go as well, so from then on it
    /// counts as a flight does.
    is_retired: AtomicBool,
}

/// The cache's own hold on a room that others may hold as well.
pub(super) struct RetireOnDrop(pub(super) Arc<Reservation>);

impl Drop for RetireOnDrop {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Reservation {
    pub(super) fn new(usage: &Arc<Usage>, kind: Kind, bytes: u64) -> Reservation {
        let mut reservation = Reservation {
            usage: usage.clone(),
            kind,
            bytes: 0,
            is_retired: false.into(),
        };
        reservation.set(bytes);
        reservation
    }

    pub(super) fn set(&mut self, bytes: u64) {
        let retired = self.is_retired.load(Ordering::Relaxed);
        let counter = self
            .usage
            .of(if retired { Kind::Flight } else { self.kind });
        match bytes >= self.bytes {
            true => counter.fetch_add(bytes - self.bytes, Ordering::Relaxed),
            false => counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }

    pub(super) fn becomes(mut self, kind: Kind) -> Reservation {
        let bytes = self.bytes;
        self.set(0);
        self.kind = kind;
        self.set(bytes);
        self
    }

    fn retire(&self) {
        self.usage
            .of(Kind::Flight)
            .fetch_add(self.bytes, Ordering::Relaxed);
        self.usage
            .of(self.kind)
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.is_retired.store(true, Ordering::Relaxed); // the last who drops it sees this, as it sees the rest
    }

    /// How many.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

pub(super) struct Table<K, V, F> {
    entries: HashTable<Entry<K, V, F>>,
    /// Turns to be let go, in the order the values came, in two parts: those the hand has yet to look at on its way to
    /// the newest, and those it has passed and spared. A turn whose ticket is not its entry's is void.
    ahead: VecDeque<Turn>,
    spared: VecDeque<Turn>,
    /// What is remembered and until when, oldest first: forgotten in time even if nobody asks for it again.
    negatives: VecDeque<(Turn, Instant)>,
}

#[derive(Clone, Copy)]
struct Turn {
    hash: u64,
    ticket: u64,
}

pub(super) struct Entry<K, V, F> {
    key: K,
    hash: u64,
    pub(super) kept: Option<Kept<V>>,
    /// Apart, because few entries have one, and hits don't look at it.
    pub(super) flying: Option<Box<Flying<F>>>,
}

pub(super) struct Kept<V> {
    pub(super) value: V,
    pub(super) fresh_until: Instant,
    pub(super) stale_until: Instant,
    pub(super) ticket: u64,
    /// Given back with the value, or when the last who got it lets go, if the value holds on to it.
    pub(super) _reservation: RetireOnDrop,
    /// Since its last turn; set under a shared lock.
    pub(super) asked_for: AtomicBool,
}

pub(super) struct Flying<F> {
    pub(super) ticket: u64,
    pub(super) state: FetchState<F>,
}

pub(super) enum FetchState<F> {
    /// Newcomers join it.
    InFlight(F),
    /// It has failed, and newcomers are told so as long as that is remembered.
    Negative(F, NegativeEntry),
    /// Its value was too long to be shared: as long as that is remembered, everyone fetches alone.
    HitForMiss(NegativeEntry),
}

/// Why a key is not simply free again, and for how long.
pub(super) struct NegativeEntry {
    pub(super) until: Instant,
    /// What it costs to remember; given back with it, or by the last who reads its flight.
    pub(super) _reservation: RetireOnDrop,
}

impl<F> Flying<F> {
    fn negative(&self) -> Option<&NegativeEntry> {
        match &self.state {
            FetchState::InFlight(_) => None,
            FetchState::Negative(_, negative) | FetchState::HitForMiss(negative) => Some(negative),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.negative()
            .is_some_and(|negative| now >= negative.until)
    }

    /// The flight alone: what its memory cost is given back here and now.
    pub(super) fn into_flight(self) -> Option<F> {
        match self.state {
            FetchState::InFlight(flight) | FetchState::Negative(flight, _) => Some(flight),
            FetchState::HitForMiss(_) => None,
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.negative().is_none()
    }
}

impl<V> Kept<V> {
    /// Read before it is written, so that many hits at once share the cache line.
    pub(super) fn ask(&self) {
        if !self.asked_for.load(Ordering::Relaxed) {
            self.asked_for.store(true, Ordering::Relaxed);
        }
    }
}

impl<K, V, F> Entry<K, V, F> {
    /// Takes out what time has ended: a value past its grace, a memory past its time.
    pub(super) fn take_expired(
        &mut self,
        now: Instant,
    ) -> (Option<Kept<V>>, Option<Box<Flying<F>>>) {
        let kept = self.kept.take_if(|kept| now >= kept.stale_until);
        let flying = self.flying.take_if(|flying| flying.is_over(now));
        (kept, flying)
    }

    /// Whether the flight of this ticket is still the one in the table, aloft or not to be shared: a late fill must
    /// not touch another's.
    pub(super) fn is_filled_by(&self, ticket: u64) -> bool {
        self.flying
            .as_ref()
            .is_some_and(|flying| flying.ticket == ticket)
    }

    fn is_void(&self) -> bool {
        self.kept.is_none() && self.flying.is_none()
    }
}

/// What left the table and is dropped once no lock is held: a poem can be large.
pub(super) struct DropLater<V, F> {
    pub(super) values: Vec<V>,
    pub(super) flights: Vec<F>,
}

impl<V, F> DropLater<V, F> {
    pub(super) fn new() -> Self {
        DropLater {
            values: Vec::new(),
            flights: Vec::new(),
        }
    }
}

impl<K: Eq + Clone, V: Clone, F> Table<K, V, F> {
    pub(super) fn new() -> Self {
        let queue = VecDeque::new;
        Table {
            entries: HashTable::new(),
            ahead: queue(),
            spared: queue(),
            negatives: VecDeque::new(),
        }
    }

    /// The value of this key if it is fresh, and until when it will be.
    #[inline]
    pub(super) fn fresh(&self, hash: u64, key: &K, now: Instant) -> Option<(V, Instant)> {
        let kept = self
            .entries
            .find(hash, |entry| entry.key == *key)?
            .kept
            .as_ref()?;
        if now >= kept.fresh_until {
            return None;
        }
        kept.ask();
        Some((kept.value.clone(), kept.fresh_until))
    }

    pub(super) fn find(&mut self, hash: u64, key: &K) -> Option<&mut Entry<K, V, F>> {
        self.entries.find_mut(hash, |entry| entry.key == *key)
    }

    /// The entry of this key, made where there is none.
    pub(super) fn entry(&mut self, hash: u64, key: &K) -> &mut Entry<K, V, F> {
        let void = || Entry {
            key: key.clone(),
            hash,
            kept: None,
            flying: None,
        };
        self.entries
            .entry(hash, |entry| entry.key == *key, |entry| entry.hash)
            .or_insert_with(void)
            .into_mut()
    }

    /// Takes the entry out if nothing is in it.
    pub(super) fn clear_if_void(&mut self, hash: u64, key: &K) {
        if let Ok(entry) = self.entries.find_entry(hash, |entry| entry.key == *key)
            && entry.get().is_void()
        {
            entry.remove();
        }
    }

    /// Gives a value that was just kept its turn, behind all others.
    pub(super) fn queue(&mut self, hash: u64, ticket: u64) {
        self.ahead.push_back(Turn { hash, ticket });
        if self.ahead.len() + self.spared.len() > 2 * self.entries.len() + 16 {
            // Void turns pile up where one key is replaced again and again.
            let entries = &self.entries;
            let kept = |turn: &Turn, entry: &Entry<K, V, F>| {
                entry
                    .kept
                    .as_ref()
                    .is_some_and(|kept| kept.ticket == turn.ticket)
            };
            let is_valid =
                |turn: &Turn| entries.find(turn.hash, |entry| kept(turn, entry)).is_some();
            self.ahead.retain(is_valid);
            self.spared.retain(is_valid);
        }
    }

    pub(super) fn remember(&mut self, hash: u64, ticket: u64, until: Instant) {
        self.negatives.push_back((Turn { hash, ticket }, until));
    }

    /// Forgets what it is time to forget.
    pub(super) fn forget(&mut self, now: Instant, gone: &mut DropLater<V, F>) {
        while self
            .negatives
            .front()
            .is_some_and(|(_, until)| now >= *until)
        {
            self.forget_oldest(|flying| flying.is_over(now), gone);
        }
    }

    /// Lets go of the oldest memory. False where there is none.
    pub(super) fn evict_negative(&mut self, gone: &mut DropLater<V, F>) -> bool {
        while !self.negatives.is_empty() {
            if self.forget_oldest(|flying| !flying.is_in_flight(), gone) {
                return true;
            }
        }
        false
    }

    /// Lets go of the kept value whose turn it is. False where there is none, or where all of them were asked for since
    /// the hand last came by; then it has spared them for this time, and the next call finds one.
    ///
    /// This is SIEVE (Zhang et al., NSDI 2024): what was asked for is spared where it stands, and not put behind the
    /// newest as by CLOCK. So the hand soon comes to those that are new and that nobody has asked for again.
    pub(super) fn evict_value(&mut self, gone: &mut DropLater<V, F>) -> bool {
        for _ in 0..self.ahead.len() + self.spared.len() {
            if self.ahead.is_empty() {
                std::mem::swap(&mut self.ahead, &mut self.spared); // the hand begins anew with the oldest
            }
            let Some(turn) = self.ahead.pop_front() else {
                return false;
            };
            let own = |kept: &Kept<V>| kept.ticket == turn.ticket;
            let is_its = |entry: &Entry<K, V, F>| entry.kept.as_ref().is_some_and(own);
            let Ok(mut entry) = self.entries.find_entry(turn.hash, is_its) else {
                continue;
            };
            let kept = entry.get().kept.as_ref();
            if kept.is_some_and(|kept| kept.asked_for.swap(false, Ordering::Relaxed)) {
                self.spared.push_back(turn);
                continue;
            }
            gone.values
                .extend(entry.get_mut().kept.take().map(|kept| kept.value));
            if entry.get().is_void() {
                entry.remove();
            }
            return true;
        }
        false
    }

    fn forget_oldest(
        &mut self,
        may_go: impl Fn(&Flying<F>) -> bool,
        gone: &mut DropLater<V, F>,
    ) -> bool {
        let Some((turn, _)) = self.negatives.pop_front() else {
            return false;
        };
        let is_its = |entry: &Entry<K, V, F>| entry.is_filled_by(turn.ticket);
        let Ok(mut entry) = self.entries.find_entry(turn.hash, is_its) else {
            return false;
        };
        let Some(flying) = entry.get_mut().flying.take_if(|flying| may_go(flying)) else {
            return false;
        };
        gone.flights.extend(flying.into_flight());
        if entry.get().is_void() {
            entry.remove();
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.ahead.len() + self.spared.len()
    }
}
