//! The proxy's notes on what was transformed into what, counted within its capacity.

use super::Proxy;
use super::key::Key;
use crate::cache::{Cache, Reservation};
use crate::coalesce::Coalescer;
use crate::flight::Flight;
use crate::poem::Poem;
use crate::transform::memo::{Begun, KnownResult, Memo, MemoLook, Original};
use std::sync::{Mutex, MutexGuard};

/// The part of the capacity that the notes may take. A note is a quarter of what a text
/// of 500 bytes takes with its entry.
const MEMO_PART: u64 = 8;

/// The notes of a proxy that transforms.
pub(super) struct ProxyMemo {
    /// Held for a few lines. What leaves it is dropped outside.
    notes: Mutex<Counted>,
}

struct Counted {
    memo: Memo<Key>,
    reservation: Reservation,
}

impl ProxyMemo {
    pub fn new(texts: &Coalescer<Key>) -> ProxyMemo {
        let cache = texts.cache();
        let most = cache.policy().capacity / MEMO_PART;
        ProxyMemo {
            notes: Mutex::new(Counted {
                memo: Memo::new(most, Key::heap_bytes),
                reservation: cache.reserve_beside(),
            }),
        }
    }

    /// An original has come for this key.
    pub fn begin(&self, original: &Original, key: &Key) -> MemoLook<Key> {
        self.lock().memo.begin(original, key)
    }

    /// The result of an original is to be cached.
    pub fn note(&self, noted: Noted, key: Key, cache: &Cache<Key, Poem, Flight>) {
        let Noted {
            original,
            sum,
            begun,
        } = noted;
        let known = KnownResult { key, sum };
        let out = self.change(|memo| memo.note(original, known, begun));
        drop(out);
        cache.shrink();
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        let guard = self.notes.lock();
        guard.expect("no code panics while it holds the lock of the memo")
    }

    /// Changes the notes, and counts what they take then.
    fn change<T>(&self, change: impl FnOnce(&mut Memo<Key>) -> T) -> T {
        let mut counted = self.lock();
        let out = change(&mut counted.memo);
        let bytes = counted.memo.bytes();
        counted.reservation.set(bytes);
        out
    }
}

/// What is to be noted once a text is cached.
#[derive(Clone, Copy)]
pub(super) struct Noted {
    pub original: Original,
    pub sum: crate::transform::memo::ResultSum,
    pub begun: Begun,
}

impl Proxy {
    /// All texts are about to be purged, or some that can't be told one by one: they
    /// are to be transformed again.
    pub(super) fn purge_memo(&self) {
        if let Some(memo) = &self.memo {
            drop(memo.change(Memo::purge_all));
        }
    }

    /// The text of this key is about to be purged.
    pub(super) fn purge_memo_of(&self, key: &Key) {
        if let Some(memo) = &self.memo {
            drop(memo.change(|memo| memo.purge(key)));
        }
    }
}
