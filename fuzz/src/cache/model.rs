//! What the cache should say, slowly and obviously: no lock, no hash, no queue; time in whole seconds. Whatever is first
//! or next is searched for among all there is.
//!
//! It holds for a cache of one shard, which is what a capacity under 128 KiB makes.

use std::collections::BTreeMap;

/// The policy, in seconds and bytes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub ttl: u64,
    pub grace: u64,
    pub fail_ttl: u64,
    pub capacity: u64,
}

/// The right to fill, and the bytes of its room.
#[derive(Debug)]
pub struct Right {
    pub key: u8,
    ticket: u32,
    bytes: u64,
}

/// What a look-up should say.
#[derive(Debug)]
pub enum Answer {
    Hit(u32, u64),
    Stale(u32, Option<Right>),
    Coalesced(u32),
    Miss(Right),
}

#[derive(Default)]
struct Entry {
    kept: Option<Kept>,
    flying: Option<Flying>,
}

struct Kept {
    value: u32,
    fresh_until: u64,
    stale_until: u64,
    weight: u64,
    came: u64,
    asked_for: bool,
}

struct Flying {
    ticket: u32,
    /// What newcomers join; none where everyone fetches alone.
    flight: Option<u32>,
    memory: Option<Memory>,
}

struct Memory {
    until: u64,
    bytes: u64,
    came: u64,
}

/// All that the cache holds.
pub struct Model {
    rules: Rules,
    entries: BTreeMap<u8, Entry>,
    /// Bytes of flights: those aloft, and those that have landed and are not kept but still read.
    pub in_flight: u64,
    /// Numbers what comes, in its order.
    clock: u64,
    /// When the value came that was looked at last for being let go.
    hand: u64,
}

/// What a key holds.
pub fn weigh(key: &u8) -> u64 {
    u64::from(*key) * 50
}

/// What an entry costs beside its value: 256 bytes and its key.
pub fn entry_weight(key: u8) -> u64 {
    256 + weigh(&key)
}

impl Model {
    pub fn new(rules: Rules) -> Model {
        Model { rules, entries: BTreeMap::new(), in_flight: 0, clock: 0, hand: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn held(&self) -> u64 {
        let kept = self.entries.values().flat_map(|entry| &entry.kept).map(|kept| kept.weight);
        let memories = self.entries.values().filter_map(Entry::memory).map(|memory| memory.bytes);
        self.in_flight + kept.sum::<u64>() + memories.sum::<u64>()
    }

    pub fn purge(&mut self) {
        self.entries.clear();
    }

    /// `flight` is the number of the flight that the asker would start.
    pub fn ask(&mut self, key: u8, now: u64, flight: u32) -> Answer {
        let entry = self.entries.entry(key).or_default();
        let fresh = entry.kept.as_mut().filter(|kept| now < kept.fresh_until);
        if let Some(kept) = fresh {
            kept.asked_for = true;
            return Answer::Hit(kept.value, kept.fresh_until);
        }
        entry.kept.take_if(|kept| now >= kept.stale_until);
        entry.flying.take_if(|flying| flying.is_over(now));
        let stale = entry.kept.as_mut().map(|kept| {
            kept.asked_for = true;
            kept.value
        });
        let starts = entry.flying.is_none();
        let flying =
            entry.flying.get_or_insert(Flying { ticket: flight, flight: Some(flight), memory: None });
        let (ticket, joined) = (flying.ticket, flying.flight);
        match (stale, joined) {
            (Some(value), _) => Answer::Stale(value, starts.then(|| self.right(key, ticket))),
            (None, Some(joined)) if !starts => Answer::Coalesced(joined),
            (None, _) => Answer::Miss(self.right(key, ticket)),
        }
    }

    fn right(&mut self, key: u8, ticket: u32) -> Right {
        self.in_flight += entry_weight(key);
        Right { key, ticket, bytes: entry_weight(key) }
    }

    /// The value that a commit would replace.
    pub fn replaces(&self, right: &Right) -> Option<u32> {
        let entry = self.entries.get(&right.key).filter(|_| self.is_own(right))?;
        entry.kept.as_ref().map(|kept| kept.value)
    }

    fn is_own(&self, right: &Right) -> bool {
        let flying = self.entries.get(&right.key).and_then(|entry| entry.flying.as_ref());
        flying.is_some_and(|flying| flying.ticket == right.ticket)
    }

    fn is_aloft(&self, right: &Right) -> bool {
        self.is_own(right) && self.entries.get(&right.key).is_some_and(|entry| entry.memory().is_none())
    }

    pub fn reserve(&mut self, right: &mut Right, total: u64) -> bool {
        let bytes = entry_weight(right.key) + total;
        let in_flight = self.in_flight - right.bytes + bytes;
        if in_flight > self.rules.capacity {
            return false;
        }
        (self.in_flight, right.bytes) = (in_flight, bytes);
        self.let_go();
        true
    }

    /// The room, where it is not kept.
    pub fn commit(&mut self, right: Right, value: u32, bytes: u64, now: u64) -> Result<(), u64> {
        if !self.is_own(&right) {
            return Err(right.bytes);
        }
        self.entries.remove(&right.key); // the old value too, also where the new one is too large to be kept
        let weight = bytes + entry_weight(right.key);
        if self.rules.ttl + self.rules.grace == 0 || weight > self.rules.capacity {
            return Err(right.bytes);
        }
        self.in_flight -= right.bytes;
        self.clock += 1;
        let fresh_until = now + self.rules.ttl;
        let stale_until = fresh_until + self.rules.grace;
        let kept = Kept { value, fresh_until, stale_until, weight, came: self.clock, asked_for: false };
        self.entries.insert(right.key, Entry { kept: Some(kept), flying: None });
        self.let_go();
        Ok(())
    }

    /// The room, which the flight's readers still need.
    pub fn fail(&mut self, right: Right, now: u64, is_joined: bool) -> u64 {
        self.mark(&right, now, entry_weight(right.key), is_joined);
        right.bytes
    }

    /// The room, where it is not what is remembered.
    pub fn reject(&mut self, right: Right, now: u64) -> Option<u64> {
        self.in_flight -= right.bytes;
        if self.mark(&right, now, right.bytes, true) {
            return None;
        }
        self.in_flight += right.bytes;
        Some(right.bytes)
    }

    /// Whether it is remembered.
    fn mark(&mut self, right: &Right, now: u64, bytes: u64, is_joined: bool) -> bool {
        if self.rules.fail_ttl == 0 {
            self.leave(right);
            return false;
        }
        for entry in self.entries.values_mut() {
            entry.flying.take_if(|flying| flying.is_over(now));
        }
        self.clear();
        if !self.is_aloft(right) {
            return false;
        }
        self.clock += 1;
        let memory = Memory { until: now + self.rules.fail_ttl, bytes, came: self.clock };
        let flight = is_joined.then_some(right.ticket);
        let flying = Some(Flying { ticket: right.ticket, flight, memory: Some(memory) });
        self.entries.entry(right.key).or_default().flying = flying;
        self.let_go();
        true
    }

    pub fn drop_fill(&mut self, right: Right) {
        self.leave(&right);
        self.in_flight -= right.bytes;
    }

    pub fn give_up(&mut self, right: Right) -> u64 {
        self.leave(&right);
        right.bytes
    }

    /// The key as it was before the flight, if the flight is still aloft.
    fn leave(&mut self, right: &Right) {
        if self.is_aloft(right) {
            self.entries.entry(right.key).or_default().flying = None;
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.entries.retain(|_, entry| entry.kept.is_some() || entry.flying.is_some());
    }

    /// Memories, the oldest first, and then values by SIEVE: from the hand on to the newest and from the oldest again,
    /// each that was asked for since it was looked at last is spared.
    fn let_go(&mut self) {
        while self.held() > self.rules.capacity {
            let memories = self.entries.values_mut().filter(|entry| entry.memory().is_some());
            let Some(oldest) = memories.min_by_key(|entry| entry.memory().map(|memory| memory.came)) else {
                break;
            };
            oldest.flying = None;
            self.clear();
        }
        while self.held() > self.rules.capacity {
            let hand = self.hand;
            let kept = self.entries.values_mut().filter(|entry| entry.kept.is_some());
            let Some(next) = kept.min_by_key(|entry| (entry.came() <= hand, entry.came())) else { break };
            self.hand = next.came();
            let spared = next.kept.as_mut().filter(|kept| kept.asked_for);
            match spared {
                Some(kept) => kept.asked_for = false,
                None => next.kept = None,
            }
            self.clear();
        }
    }
}

impl Entry {
    fn memory(&self) -> Option<&Memory> {
        self.flying.as_ref().and_then(|flying| flying.memory.as_ref())
    }

    fn came(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.came)
    }
}

impl Flying {
    fn is_over(&self, now: u64) -> bool {
        self.memory.as_ref().is_some_and(|memory| now >= memory.until)
    }
}
