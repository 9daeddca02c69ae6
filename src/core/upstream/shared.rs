//! A source and what is known of it, for all the upstreams that have it.

use super::Origin;
use super::record::Record;
use super::turns::{AskLimits, SourceTurns};
use crate::control::UpstreamCounts;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// A source and what is known of it, for all the upstreams that have it.
#[derive(Debug)]
pub struct SharedSource {
    pub(super) origin: Arc<Origin>,
    id: Vec<u8>,
    /// Its name, shared with whatever names it.
    pub(super) name: Arc<str>,
    pub(super) limits: AskLimits,
    /// Held for one decision.
    pub(super) turns: Arc<Mutex<SourceTurns>>,
    /// Held for a few lines.
    record: Arc<Mutex<Record>>,
}

impl SharedSource {
    /// A source that has not been asked yet, and is asked no more often than this.
    pub fn new(origin: Arc<Origin>, limits: AskLimits) -> Arc<SharedSource> {
        Arc::new(SharedSource {
            name: origin.to_string().into(),
            id: origin.id(),
            origin,
            limits,
            turns: Arc::new(Mutex::new(SourceTurns::new(limits))),
            record: Arc::new(Mutex::new(Record::new())),
        })
    }

    /// The same source, asked no more often than this. What is known of it stays.
    pub fn limited(self: &Arc<Self>, limits: AskLimits) -> Arc<SharedSource> {
        if self.limits == limits {
            return self.clone();
        }
        let turns = self.turns().limited(limits, Instant::now());
        Arc::new(SharedSource {
            origin: self.origin.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            limits,
            turns: Arc::new(Mutex::new(turns)),
            record: self.record.clone(),
        })
    }

    /// Its name, for logs.
    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub(crate) fn origin(&self) -> Arc<Origin> {
        self.origin.clone()
    }

    /// What tells it from all others.
    pub(crate) fn id(&self) -> Vec<u8> {
        self.id.clone()
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, SourceTurns> {
        let guard = self.turns.lock();
        guard.expect("no code panics while it holds the lock of a source's turns")
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        let guard = self.record.lock();
        guard.expect("no code panics while it holds the lock of a record")
    }

    /// Counts that it is asked, and a connection to it until this is dropped.
    pub(super) fn asking(self: &Arc<Self>, now: Instant) -> Asking {
        self.record().asked();
        Asking {
            source: self.clone(),
            since: now,
        }
    }

    /// What is known of it.
    pub(crate) fn counts(&self, now: Instant) -> UpstreamCounts {
        let turns = self.turns();
        let down_since = turns.health.down_since();
        let pause = turns.pause_left(now);
        drop(turns);

        let name = self.name.to_string();
        let mut counts = self.record().counts(name, down_since, now);
        counts.paused = (!pause.is_zero()).then_some(pause);
        counts
    }
}

/// A connection to a source, as its record sees it.
pub(super) struct Asking {
    source: Arc<SharedSource>,
    since: Instant,
}

impl Asking {
    pub(super) fn received(&self, bytes: usize) {
        self.source.record().received(bytes as u64);
    }

    pub(super) fn succeeded(&self, now: Instant) {
        self.source.record().succeeded(self.since, now);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.source.record().left();
    }
}
