//! The record of a soak: each text and how it ended, when the proxies were told to
//! forget, how requests went, and what should not have happened.

use crate::plan::MEMORY;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// A text that the upstream has sent or is sending.
#[derive(Debug, Clone, Copy)]
pub struct TextRecord {
    /// What the upstream planned to do with it.
    pub fault: &'static str,
    pub began: Instant,
    /// When it ended cleanly and whole. Written before the end is sent, so that no
    /// client can see the end earlier.
    pub ended: Option<Instant>,
}

/// How many violations of a kind are printed in full.
const PRINTED: u64 = 3;

/// How many requests or fetches went how: by what the client or the upstream did, then
/// by the outcome.
pub type Counts = BTreeMap<(&'static str, &'static str), u64>;

pub struct Ledger {
    pub start: Instant,
    /// Set when clients should stop.
    pub over: AtomicBool,
    last_serial: AtomicU64,
    texts: Mutex<HashMap<u64, TextRecord>>,
    counts: Mutex<Counts>,
    violations: Mutex<BTreeMap<&'static str, u64>>,
}

/// Locks the mutex, even if a thread has panicked with it. That thread fails the soak;
/// the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            start: Instant::now(),
            over: AtomicBool::new(false),
            last_serial: AtomicU64::new(0),
            texts: Mutex::default(),
            counts: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The number of a new text, from 1 up.
    pub fn next_serial(&self) -> u64 {
        self.last_serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Records that a text begins. Every so often, drops the records that no client can
    /// need any more.
    ///
    /// A text may be sent again. Then the latest beginning counts, and the latest end.
    pub fn begin(&self, serial: u64, fault: &'static str) {
        const TIDY: u64 = 4096;
        let began = Instant::now();
        let mut texts = lock(&self.texts);

        if serial.is_multiple_of(TIDY) {
            texts.retain(|_, record| began - record.ended.unwrap_or(record.began) < MEMORY);
        }
        let ended = texts.get(&serial).and_then(|record| record.ended);
        let record = TextRecord {
            fault,
            began,
            ended,
        };
        texts.insert(serial, record);
    }

    /// Records that the clean end of a text is about to be sent.
    pub fn end(&self, serial: u64) {
        if let Some(record) = lock(&self.texts).get_mut(&serial) {
            record.ended = Some(Instant::now());
        }
    }

    pub fn text(&self, serial: u64) -> Option<TextRecord> {
        lock(&self.texts).get(&serial).copied()
    }

    pub fn count(&self, kind: &'static str, outcome: &'static str) {
        *lock(&self.counts).entry((kind, outcome)).or_default() += 1;
    }

    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Records something that the proxy promises never to do.
    pub fn violation(&self, kind: &'static str, what: impl std::fmt::Display) {
        let mut violations = lock(&self.violations);
        let count = violations.entry(kind).or_default();
        *count += 1;

        if *count <= PRINTED {
            let seconds = self.start.elapsed().as_secs_f64();
            println!("VIOLATION after {seconds:.3} s: {kind}: {what}");
        }
    }

    /// How many violations of each kind there were.
    pub fn violations(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.violations).clone()
    }
}

/// When a proxy was told to purge all it has.
#[derive(Default)]
pub struct Purges(Mutex<Vec<NotedPurge>>);

#[derive(Clone, Copy)]
struct NotedPurge {
    /// No later than the order.
    ordered: Instant,
    /// From here on nothing from before the order may be served. `None` after a SIGHUP:
    /// that only makes texts stale.
    gone: Option<Instant>,
}

impl Purges {
    /// Records an order; to be called before it is given. From here on a key may be
    /// fetched although a fetch from before it is under way.
    pub fn note_order(&self) {
        self.note(Instant::now(), None);
    }

    /// Records that all from before `ordered` is gone now.
    pub fn note_gone(&self, ordered: Instant) {
        self.note(ordered, Some(Instant::now()));
    }

    fn note(&self, ordered: Instant, gone: Option<Instant>) {
        lock(&self.0).push(NotedPurge { ordered, gone });
    }

    /// Drops the record: the proxy was killed, and may have owed a purge to its fleet.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }

    /// Whether there was an order at `then` or since.
    pub fn any_since(&self, then: Instant) -> bool {
        lock(&self.0).iter().any(|purge| purge.ordered >= then)
    }

    /// Whether a text that began then had to be gone when it was asked for.
    pub fn forbid(&self, began: Instant, asked: Instant) -> bool {
        let is_broken = |purge: &NotedPurge| {
            began < purge.ordered && purge.gone.is_some_and(|gone| gone < asked)
        };
        lock(&self.0).iter().any(is_broken)
    }
}
