//! What is known: each text and how it ended, when the proxies were told to forget, how requests went, and what should
//! not have happened.

use crate::plan::MEMORY;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// A text that the upstream sent, or is sending.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord {
    /// What was to become of it.
    pub fault: &'static str,
    pub began: Instant,
    /// When it ended cleanly as a whole; written before the end is sent, so nobody can see the end earlier.
    pub ended: Option<Instant>,
}

/// So many violations of a kind are told in full.
const TOLD: u64 = 3;

/// How requests and fetches went: by what the client did or the upstream, and then by the outcome.
pub type Counts = BTreeMap<(&'static str, &'static str), u64>;

pub struct Ledger {
    pub begun: Instant,
    /// Set when clients should come to an end.
    pub over: AtomicBool,
    last_serial: AtomicU64,
    texts: Mutex<HashMap<u64, AccessRecord>>,
    counts: Mutex<Counts>,
    violations: Mutex<BTreeMap<&'static str, u64>>,
}

/// A thread that panics with such a lock fails the soak on its own; the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            begun: Instant::now(),
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

    /// A new text's number, from 1 on.
    pub fn number(&self) -> u64 {
        self.last_serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The text of this number is begun. Forgets, now and then, those nobody can still be reading.
    pub fn begin(&self, serial: u64, fault: &'static str) {
        const TIDY: u64 = 4096;
        let began = Instant::now();
        let mut texts = lock(&self.texts);
        if serial.is_multiple_of(TIDY) {
            texts.retain(|_, record| began - record.ended.unwrap_or(record.began) < MEMORY);
        }
        texts.insert(
            serial,
            AccessRecord {
                fault,
                began,
                ended: None,
            },
        );
    }

    /// The next that is sent of this text is its clean end.
    pub fn end(&self, serial: u64) {
        if let Some(record) = lock(&self.texts).get_mut(&serial) {
            record.ended = Some(Instant::now());
        }
    }

    pub fn text(&self, serial: u64) -> Option<AccessRecord> {
        lock(&self.texts).get(&serial).copied()
    }

    pub fn count(&self, kind: &'static str, outcome: &'static str) {
        *lock(&self.counts).entry((kind, outcome)).or_default() += 1;
    }

    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Something that the proxy promises never to do.
    pub fn violation(&self, kind: &'static str, what: impl std::fmt::Display) {
        let mut violations = lock(&self.violations);
        let count = violations.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD {
            println!(
                "VIOLATION after {:.3} s: {kind}: {what}",
                self.begun.elapsed().as_secs_f64()
            );
        }
    }

    /// How many there were of each kind.
    pub fn violations(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.violations).clone()
    }
}

/// When a proxy was told to forget all it has.
#[derive(Default)]
pub struct Signals(Mutex<Vec<Instant>>);

impl Signals {
    /// To be called before the signal is sent.
    pub fn note(&self) {
        lock(&self.0).push(Instant::now());
    }

    /// Whether there was one since.
    pub fn any_since(&self, then: Instant) -> bool {
        lock(&self.0).last().is_some_and(|last| *last >= then)
    }

    /// The last one before that moment.
    pub fn last_before(&self, then: Instant) -> Option<Instant> {
        lock(&self.0).iter().rev().find(|at| **at < then).copied()
    }
}
