//! Which originals have been transformed into which texts: an original that has not
//! changed is not transformed again.
//!
//! | an original that comes | its transformation |
//! |---|---|
//! | has not been noted | runs, and is noted when its result is to be cached |
//! | was noted, and its result is at hand | does not run |
//! | was noted, and its result is gone: evicted, or replaced by another | runs, and is noted again |
//! | is that of a text which was purged since it was noted | runs, and is noted again |
//! | can't be transformed, or has a result that is not cached | runs each time |
//!
//! It holds no text. What it notes is two digests and the key under which the result
//! was cached last. A text at hand that has that digest is the result, wherever it came
//! from, and whatever has happened to the key.
//!
//! **Purges.** A purge of a text purges what is noted for it: this is how results of a
//! changed transformation are had. A purge comes here before it comes to the cache, so
//! no fetch that begins after it meets an old note; and what began before it is not
//! noted after it ([`Memo::begin`], [`Memo::note`]).
//!
//! **Space.** It is bounded in bytes: two maps, of which the older one is dropped once
//! the younger one has half of them. A note that is used moves to the younger one.

use crate::protocol::netstring;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::Hash;

/// What one note takes, in bytes: its place in a map that may be half empty.
const NOTE_BYTES: u64 = 192;

/// Names purged one by one take at most this part of the bound: beyond that it is as if
/// all had been purged.
const PURGED_PART: u64 = 4;

/// An original text together with what transforms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Original([u8; 32]);

impl Original {
    /// `pipeline` is the id of the transformations.
    pub fn of(pipeline: &[u8], text: &[u8]) -> Original {
        let mut digest = Sha256::new();
        digest.update(netstring(pipeline));
        digest.update(text);
        Original(digest.finalize().into())
    }

    /// The SHA-256 of both.
    pub fn digest(self) -> [u8; 32] {
        self.0
    }
}

/// The digest of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResultSum([u8; 16]);

impl ResultSum {
    pub fn of(text: &[u8]) -> ResultSum {
        let all: [u8; 32] = Sha256::digest(text).into();
        ResultSum(std::array::from_fn(|at| all[at]))
    }
}

/// What is noted of an original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownResult<K> {
    /// Where the result was cached last.
    pub key: K,
    /// What tells the result.
    pub sum: ResultSum,
}

/// How many purges there had been when a transformation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Begun(u64);

/// What is known of an original when it comes.
pub(crate) struct MemoLook<K> {
    pub begun: Begun,
    /// Whether a result from before may be used for this key.
    pub may_use: bool,
    pub known: Option<KnownResult<K>>,
}

/// What left the memo. Drop it once no lock is held.
pub(crate) type DroppedNotes<K> = Vec<HashMap<Original, KnownResult<K>>>;

/// The notes.
pub(crate) struct Memo<K> {
    young: Notes<K>,
    old: Notes<K>,
    /// Names purged one by one that have not been transformed since, and when.
    purged: HashMap<K, Begun>,
    purged_bytes: u64,
    purges: Begun,
    /// When all were purged last.
    all_purged: Begun,
    weigh: fn(&K) -> u64,
    most: u64,
}

struct Notes<K> {
    by_original: HashMap<Original, KnownResult<K>>,
    bytes: u64,
}

impl<K> Default for Notes<K> {
    fn default() -> Self {
        Notes {
            by_original: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<K: Eq + Hash + Clone> Memo<K> {
    /// An empty one, which takes at most `most` bytes. `weigh` says how many a key
    /// holds on the heap.
    pub fn new(most: u64, weigh: fn(&K) -> u64) -> Memo<K> {
        Memo {
            young: Notes::default(),
            old: Notes::default(),
            purged: HashMap::new(),
            purged_bytes: 0,
            purges: Begun(0),
            all_purged: Begun(0),
            weigh,
            most,
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        self.young.bytes + self.old.bytes + self.purged_bytes
    }

    /// An original has come for this key.
    pub fn begin(&self, original: &Original, key: &K) -> MemoLook<K> {
        let may_use = !self.purged.contains_key(key);
        let noted = || {
            let young = self.young.by_original.get(original);
            young.or_else(|| self.old.by_original.get(original))
        };
        MemoLook {
            begun: self.purges,
            may_use,
            known: may_use.then(noted).flatten().cloned(),
        }
    }

    /// The result of an original is to be cached. That is noted, unless there was a
    /// purge of it after `begun`.
    #[must_use]
    pub fn note(
        &mut self,
        original: Original,
        known: KnownResult<K>,
        begun: Begun,
    ) -> DroppedNotes<K> {
        let purged = self.purged.get(&known.key);
        if begun < self.all_purged || purged.is_some_and(|purged| begun < *purged) {
            return Vec::new();
        }
        if self.purged.remove(&known.key).is_some() {
            self.purged_bytes -= self.weight(&known.key);
        }

        let weight = self.weight(&known.key);
        let mut out = Vec::new();
        if self.young.bytes + weight > self.room() {
            let young = std::mem::take(&mut self.young);
            out.push(std::mem::replace(&mut self.old, young).by_original);
        }
        if self.young.bytes + weight <= self.room() {
            self.remove(&original);
            self.young.by_original.insert(original, known);
            self.young.bytes += weight;
        }
        out
    }

    /// All texts are purged, or some that can't be told one by one.
    #[must_use]
    pub fn purge_all(&mut self) -> DroppedNotes<K> {
        self.purges.0 += 1;
        self.all_purged = self.purges;
        self.purged = HashMap::new();
        self.purged_bytes = 0;
        let notes = [&mut self.young, &mut self.old].map(std::mem::take);
        notes.map(|notes| notes.by_original).into()
    }

    /// The text of this key is purged.
    #[must_use]
    pub fn purge(&mut self, key: &K) -> DroppedNotes<K> {
        self.purges.0 += 1;
        let before = self.purged.insert(key.clone(), self.purges);
        if before.is_none() {
            self.purged_bytes += self.weight(key);
        }

        if self.purged_bytes > self.most / PURGED_PART {
            return self.purge_all();
        }
        Vec::new()
    }

    fn remove(&mut self, original: &Original) {
        for notes in [&mut self.young, &mut self.old] {
            if let Some(known) = notes.by_original.remove(original) {
                notes.bytes -= NOTE_BYTES + (self.weigh)(&known.key);
            }
        }
    }

    fn weight(&self, key: &K) -> u64 {
        NOTE_BYTES + (self.weigh)(key)
    }

    /// What the notes of one map may take.
    fn room(&self) -> u64 {
        (self.most - self.most / PURGED_PART) / 2
    }
}

#[cfg(test)]
mod tests;
