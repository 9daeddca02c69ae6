//! What every tier counts, wherever it keeps its texts.

use crate::control::StoreCounts;
use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals; [`StoreCounts`] says what each is.
#[derive(Default)]
pub(crate) struct TierTally {
    pub(crate) hits: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl TierTally {
    /// The totals. How the tier is and what it holds is for the caller to add.
    pub(crate) fn counts(&self) -> StoreCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreCounts {
            hits: count(&self.hits),
            stale: count(&self.stale),
            misses: count(&self.misses),
            late: count(&self.late),
            written: count(&self.written),
            dropped: count(&self.dropped),
            errors: count(&self.errors),
            ..StoreCounts::default()
        }
    }
}
