//! The order in which values are evicted: a list of entries, linked by their places, in
//! the order in which their values came, and a hand that moves along it.
//!
//! This is SIEVE (Zhang et al., NSDI 2024): a value that was asked for is spared where
//! it stands, and not moved behind the newest as by CLOCK. So the hand soon reaches the
//! new values that were asked for only once.

use super::dense::Dense;
use super::entry::Entry;
use crate::cache::stored::Stored;
use crate::sync::atomic::{AtomicU32, Ordering};

/// No entry's place: the end of the list.
const NONE: u32 = u32::MAX >> 1;

/// The bit above all places: a mark of the value.
const MARK: u32 = NONE + 1;

/// An entry's neighbours in the list, and two marks: whether its value was asked for
/// since its last turn, and whether it was purged.
pub(super) struct Links {
    older_and_purged: u32,
    /// The marks share these words: an entry is one cache line. This one is set under a
    /// shared lock, all else changes under an exclusive one.
    newer_and_asked: AtomicU32,
}

impl Links {
    pub(super) fn new() -> Links {
        Links {
            older_and_purged: NONE,
            newer_and_asked: NONE.into(),
        }
    }

    /// Notes that the value was asked for. Reads before it writes, so that many hits at
    /// once share the cache line. Returns whether that was noted already.
    #[inline]
    pub(super) fn touch(&self) -> bool {
        let is_marked = self.newer_and_asked.load(Ordering::Relaxed) & MARK != 0;
        if !is_marked {
            self.newer_and_asked.fetch_or(MARK, Ordering::Relaxed);
        }
        is_marked
    }

    /// Whether the value was asked for. From now on it was not.
    fn take_mark(&self) -> bool {
        let before = self.newer_and_asked.fetch_and(!MARK, Ordering::Relaxed);
        before & MARK != 0
    }

    /// Notes that the value was purged and is still kept.
    pub(super) fn note_purge(&mut self) {
        self.older_and_purged |= MARK;
    }

    pub(super) fn is_purged(&self) -> bool {
        self.older_and_purged & MARK != 0
    }

    fn older(&self) -> u32 {
        self.older_and_purged & !MARK
    }

    fn set_older(&mut self, older: u32) {
        self.older_and_purged = older | (self.older_and_purged & MARK);
    }

    fn newer(&self) -> u32 {
        self.newer_and_asked.load(Ordering::Relaxed) & !MARK
    }

    fn set_newer(&self, newer: u32) {
        let mark = self.newer_and_asked.load(Ordering::Relaxed) & MARK;
        self.newer_and_asked.store(newer | mark, Ordering::Relaxed);
    }
}

/// The ends of the list, and the hand.
pub(super) struct Sieve {
    oldest: u32,
    newest: u32,
    /// The next to be looked at; `NONE` once the hand has passed the newest.
    hand: u32,
    len: usize,
}

impl Sieve {
    pub(super) fn new() -> Sieve {
        Sieve {
            oldest: NONE,
            newest: NONE,
            hand: NONE,
            len: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives a new value its turn, behind all others.
    pub(super) fn push<K, V: Stored, F>(&mut self, entries: &mut Dense<Entry<K, V, F>>, at: u32) {
        entries.get_mut(at).links = Links {
            older_and_purged: self.newest,
            newer_and_asked: NONE.into(),
        };
        self.join(entries, self.newest, at);
        self.newest = at;
        self.len += 1;

        if self.hand == NONE {
            self.hand = at;
        }
    }

    /// Takes the value of this entry out of the list.
    pub(super) fn remove<K, V: Stored, F>(&mut self, entries: &mut Dense<Entry<K, V, F>>, at: u32) {
        let links = std::mem::replace(&mut entries.get_mut(at).links, Links::new());
        let (older, newer) = (links.older(), links.newer());
        self.join(entries, older, newer);
        if newer == NONE {
            self.newest = older;
        } else {
            entries.get_mut(newer).links.set_older(older);
        }
        self.len -= 1;

        if self.hand == at {
            self.hand = newer;
        }
    }

    /// Follows an entry with a value that has moved.
    pub(super) fn follow<K, V: Stored, F>(
        &mut self,
        entries: &mut Dense<Entry<K, V, F>>,
        from: u32,
        to: u32,
    ) {
        let links = &entries.get(to).links;
        let (older, newer) = (links.older(), links.newer());
        self.join(entries, older, to);
        if newer == NONE {
            self.newest = to;
        } else {
            entries.get_mut(newer).links.set_older(to);
        }

        if self.hand == from {
            self.hand = to;
        }
    }

    /// Makes `newer` the neighbour of `older`, or the oldest where that is none.
    fn join<K, V: Stored, F>(
        &mut self,
        entries: &mut Dense<Entry<K, V, F>>,
        older: u32,
        newer: u32,
    ) {
        if older == NONE {
            self.oldest = newer;
        } else {
            entries.get(older).links.set_newer(newer);
        }
    }

    /// Moves the hand to the next value that may go. `None` where there is none, or
    /// where all were asked for since the hand last passed: it has then spared them
    /// once, and the next call finds one. A pinned value is always spared.
    pub(super) fn next<K, V: Stored, F>(&mut self, entries: &Dense<Entry<K, V, F>>) -> Option<u32> {
        for _ in 0..self.len {
            if self.hand == NONE {
                self.hand = self.oldest;
            }
            let at = self.hand;
            let entry = entries.get(at);
            self.hand = entry.links.newer();

            if !entry.is_pinned() && !entry.links.take_mark() {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
