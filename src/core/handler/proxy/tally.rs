//! What a proxy had to do with the other processes of a fleet, counted.

use crate::control::{FleetCounts, StoreCounts};
use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals. The tier counts the rest of [`FleetCounts`].
#[derive(Default)]
pub(super) struct FleetTally {
    pub(super) follows: AtomicU64,
    pub(super) leads: AtomicU64,
    pub(super) alone: AtomicU64,
    pub(super) takeovers: AtomicU64,
    pub(super) proofs_failed: AtomicU64,
}

impl FleetTally {
    /// The figures of a tier, with what is counted here.
    pub(super) fn added_to(&self, counts: StoreCounts) -> StoreCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let fleet = counts.fleet.map(|of_tier| FleetCounts {
            follows: count(&self.follows),
            leads: count(&self.leads),
            alone: count(&self.alone),
            takeovers: count(&self.takeovers),
            proofs_failed: count(&self.proofs_failed),
            ..of_tier
        });
        StoreCounts { fleet, ..counts }
    }
}
