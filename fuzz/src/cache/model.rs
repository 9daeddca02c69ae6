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
    pub bytes: u64,
}

/// What a look-up should say.
#[derive(Debug)]
pub enum Response {
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
    room: Room,
    asked_for: bool,
}

/// What something is counted by: a number of its own, which says when it came, its bytes, and whether somebody holds it
/// beside the cache.
struct Room {
    came: u64,
    bytes: u64,
    is_read: bool,
}

struct Flying {
    ticket: u32,
    /// What newcomers join; none where everyone fetches alone.
    flight: Option<u32>,
    memory: Option<Memory>,
}

struct Memory {
    until: u64,
    room: Room,
}

/// All that the cache holds.
pub struct Model {
    rules: Rules,
    entries: BTreeMap<u8, Entry>,
    /// Bytes of flights: those aloft, and whatever is not kept, or kept no longer, but still read.
    pub in_flight: u64,
    /// What the cache has let go of and somebody still reads, and its bytes.
    read_on: BTreeMap<u64, u64>,
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
        Model {
            rules,
            entries: BTreeMap::new(),
            in_flight: 0,
            read_on: BTreeMap::new(),
            clock: 0,
            hand: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn held(&self) -> u64 {
        let kept = self
            .entries
            .values()
            .flat_map(|entry| &entry.kept)
            .map(|kept| kept.room.bytes);
        let memories = self
            .entries
            .values()
            .filter_map(Entry::memory)
            .map(|memory| memory.room.bytes);
        self.in_flight + kept.sum::<u64>() + memories.sum::<u64>()
    }

    pub fn purge(&mut self) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            self.gone(entry.kept, entry.flying);
        }
    }

    /// The cache has let go of these. Who still reads them makes flights of them.
    fn gone(&mut self, kept: Option<Kept>, flying: Option<Flying>) {
        let memory = flying
            .and_then(|flying| flying.memory)
            .map(|memory| memory.room);
        for room in kept
            .map(|kept| kept.room)
            .into_iter()
            .chain(memory)
            .filter(|room| room.is_read)
        {
            self.in_flight += room.bytes;
            self.read_on.insert(room.came, room.bytes);
        }
    }

    fn room(&mut self, came: u64) -> Option<&mut Room> {
        let rooms = self.entries.values_mut().flat_map(|entry| {
            let memory = entry
                .flying
                .as_mut()
                .and_then(|flying| flying.memory.as_mut());
            entry
                .kept
                .as_mut()
                .map(|kept| &mut kept.room)
                .into_iter()
                .chain(memory.map(|memory| &mut memory.room))
        });
        rooms.into_iter().find(|room| room.came == came)
    }

    /// Nobody holds any longer what came then.
    pub fn unread(&mut self, came: u64) {
        match self.room(came) {
            Some(room) => room.is_read = false,
            None => {
                self.in_flight -= self
                    .read_on
                    .remove(&came)
                    .expect("what is read was once kept")
            }
        }
    }

    /// `flight` is the number of the flight that the asker would start.
    pub fn ask(&mut self, key: u8, now: u64, flight: u32) -> Response {
        let entry = self.entries.entry(key).or_default();
        let fresh = entry.kept.as_mut().filter(|kept| now < kept.fresh_until);
        if let Some(kept) = fresh {
            kept.asked_for = true;
            return Response::Hit(kept.value, kept.fresh_until);
        }
        let ended = entry.kept.take_if(|kept| now >= kept.stale_until);
        let forgotten = entry.flying.take_if(|flying| flying.is_over(now));
        self.gone(ended, forgotten);
        let entry = self.entries.entry(key).or_default();
        let stale = entry.kept.as_mut().map(|kept| {
            kept.asked_for = true;
            kept.value
        });
        let starts = entry.flying.is_none();
        let flying = entry.flying.get_or_insert(Flying {
            ticket: flight,
            flight: Some(flight),
            memory: None,
        });
        let (ticket, joined) = (flying.ticket, flying.flight);
        match (stale, joined) {
            (Some(value), _) => Response::Stale(value, starts.then(|| self.right(key, ticket))),
            (None, Some(joined)) if !starts => Response::Coalesced(joined),
            (None, _) => Response::Miss(self.right(key, ticket)),
        }
    }

    fn right(&mut self, key: u8, ticket: u32) -> Right {
        self.in_flight += entry_weight(key);
        Right {
            key,
            ticket,
            bytes: entry_weight(key),
        }
    }

    /// The value that a commit would replace.
    pub fn replaces(&self, right: &Right) -> Option<u32> {
        let entry = self
            .entries
            .get(&right.key)
            .filter(|_| self.is_own(right))?;
        entry.kept.as_ref().map(|kept| kept.value)
    }

    fn is_own(&self, right: &Right) -> bool {
        let flying = self
            .entries
            .get(&right.key)
            .and_then(|entry| entry.flying.as_ref());
        flying.is_some_and(|flying| flying.ticket == right.ticket)
    }

    fn is_aloft(&self, right: &Right) -> bool {
        self.is_own(right)
            && self
                .entries
                .get(&right.key)
                .is_some_and(|entry| entry.memory().is_none())
    }

    pub fn reserve(&mut self, right: &mut Right, total: u64) -> bool {
        let bytes = entry_weight(right.key) + total;
        let in_flight = self.in_flight - right.bytes + bytes;
        if in_flight > self.rules.capacity {
            return false;
        }
        let before = std::mem::replace(&mut right.bytes, bytes);
        self.in_flight = in_flight;
        self.let_go();
        let fits = self.held() <= self.rules.capacity; // what was let go of may still be read
        if !fits {
            self.in_flight = self.in_flight + before - bytes;
            right.bytes = before;
        }
        fits
    }

    /// When it came, or the bytes of its room where it is not kept.
    pub fn commit(
        &mut self,
        right: Right,
        (value, is_read): (u32, bool),
        bytes: u64,
        now: u64,
    ) -> Result<u64, u64> {
        if !self.is_own(&right) {
            return Err(right.bytes);
        }
        let entry = self.entries.entry(right.key).or_default();
        let flying = entry.flying.take();
        let weight = bytes + entry_weight(right.key);
        if self.rules.ttl + self.rules.grace == 0 || weight > self.rules.capacity {
            self.gone(None, flying);
            self.clear();
            return Err(right.bytes); // and the old value stays
        }
        let old = entry.kept.take();
        self.gone(old, flying);
        self.in_flight -= right.bytes;
        self.clock += 1;
        let fresh_until = now + self.rules.ttl;
        let stale_until = fresh_until + self.rules.grace;
        let room = Room {
            came: self.clock,
            bytes: weight,
            is_read,
        };
        let kept = Kept {
            value,
            fresh_until,
            stale_until,
            room,
            asked_for: false,
        };
        self.entries.insert(
            right.key,
            Entry {
                kept: Some(kept),
                flying: None,
            },
        );
        let came = self.clock;
        self.let_go();
        Ok(came)
    }

    /// The room, which the flight's readers still need.
    pub fn fail(&mut self, right: Right, now: u64, is_joined: bool) -> u64 {
        self.mark(&right, now, is_joined, (entry_weight(right.key), false)); // the flight has a room of its own
        right.bytes
    }

    /// When it came, where it is remembered.
    pub fn reject(&mut self, right: Right, now: u64) -> Option<u64> {
        self.in_flight -= right.bytes;
        let came = self.mark(&right, now, true, (right.bytes, true));
        if came.is_none() {
            self.in_flight += right.bytes;
        }
        came
    }

    /// When it came, where it is remembered. By so many bytes, which somebody else may hold as well.
    fn mark(
        &mut self,
        right: &Right,
        now: u64,
        is_joined: bool,
        (bytes, is_read): (u64, bool),
    ) -> Option<u64> {
        if self.rules.fail_ttl == 0 {
            self.leave(right);
            return None;
        }
        let over = |entry: &mut Entry| entry.flying.take_if(|flying| flying.is_over(now));
        let forgotten: Vec<Flying> = self.entries.values_mut().filter_map(over).collect();
        forgotten
            .into_iter()
            .for_each(|flying| self.gone(None, Some(flying)));
        self.clear();
        if !self.is_aloft(right) {
            return None;
        }
        self.clock += 1;
        let came = self.clock;
        let memory = Memory {
            until: now + self.rules.fail_ttl,
            room: Room {
                came,
                bytes,
                is_read,
            },
        };
        let flight = is_joined.then_some(right.ticket);
        let flying = Some(Flying {
            ticket: right.ticket,
            flight,
            memory: Some(memory),
        });
        self.entries.entry(right.key).or_default().flying = flying;
        self.let_go();
        Some(came)
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
        self.entries
            .retain(|_, entry| entry.kept.is_some() || entry.flying.is_some());
    }

    /// Memories, the oldest first, and then values by SIEVE: from the hand on to the newest and from the oldest again,
    /// each that was asked for since it was looked at last is spared.
    fn let_go(&mut self) {
        while self.held() > self.rules.capacity {
            let memories = self
                .entries
                .values_mut()
                .filter(|entry| entry.memory().is_some());
            let Some(oldest) =
                memories.min_by_key(|entry| entry.memory().map(|memory| memory.room.came))
            else {
                break;
            };
            let forgotten = oldest.flying.take();
            self.gone(None, forgotten);
            self.clear();
        }
        while self.held() > self.rules.capacity {
            let hand = self.hand;
            let kept = self
                .entries
                .values_mut()
                .filter(|entry| entry.kept.is_some());
            let Some(next) = kept.min_by_key(|entry| (entry.came() <= hand, entry.came())) else {
                break;
            };
            self.hand = next.came();
            let spared = next.kept.as_mut().filter(|kept| kept.asked_for);
            let evicted = match spared {
                Some(kept) => {
                    kept.asked_for = false;
                    None
                }
                None => next.kept.take(),
            };
            self.gone(evicted, None);
            self.clear();
        }
    }
}

impl Entry {
    fn memory(&self) -> Option<&Memory> {
        self.flying
            .as_ref()
            .and_then(|flying| flying.memory.as_ref())
    }

    fn came(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.room.came)
    }
}

impl Flying {
    fn is_over(&self, now: u64) -> bool {
        self.memory
            .as_ref()
            .is_some_and(|memory| now >= memory.until)
    }
}
