//! A fetch with a lease: what it brings goes to the tier as well, and to the processes
//! that follow it.
//!
//! | the fetch | is published |
//! |---|---|
//! | is a miss that is passed on as it comes | as it comes; after a takeover once its bytes are proven |
//! | is a refresh, or waits for its whole text | at its end: until then it may be taken back |
//! | is too long, or finds no room | not any longer: its lease is given back before its beginning is gone |
//!
//! What publishes reads along with the flight. It is no reader: it sets no pace, and no
//! fetch goes on for it.

use super::Fetch;
use crate::error::Error;
use crate::observe::{Event, StoreUse};
use crate::poem::Poem;
use crate::tier::{Failure, Lease};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Fetch {
    /// This process fetches, and others may follow.
    pub(super) fn lead(&mut self, lease: Box<dyn Lease>) {
        self.fleet.lease = Some(lease);
        self.fetches_itself(StoreUse::Lead);
    }

    /// This process fetches because the tier can't be used.
    pub(super) fn fetch_alone(&mut self) {
        self.fetches_itself(StoreUse::Alone);
    }

    fn fetches_itself(&mut self, used: StoreUse) {
        let Some(tier) = &self.proxy.tier else {
            return;
        };
        if !tier.is_shared() {
            return; // there is nothing to tell
        }

        let counts = &self.proxy.fleet;
        let counter = if used == StoreUse::Lead {
            &counts.leads
        } else {
            &counts.alone
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.fleet.used = Some(used);
        if self.fleet.is_orphan {
            counts.takeovers.fetch_add(1, Ordering::Relaxed);
            self.fleet.is_takeover = true;
            self.proxy
                .observer
                .event(Event::TakenOver { fetch: self.name() });
        }
    }

    /// Lets others follow, from the first byte, if nothing of it can be taken back.
    /// That waits for the end of a proof: until then it is not known whether the bytes
    /// that were passed on are this fetch's.
    pub(super) fn publish(&mut self) {
        let settings = &self.proxy.settings;
        let is_final = self.guard.replaces().is_none()
            && !settings.whole
            && settings.pipeline.is_none()
            && self.fleet.proof.is_none();
        let fleet = &mut self.fleet;
        let Some(lease) = fleet.lease.as_mut().filter(|_| is_final) else {
            return;
        };
        if fleet.is_published {
            return;
        }

        if let Some(reader) = self.guard.writer().flight().read_along() {
            lease.publish(reader);
            fleet.is_published = true;
        }
    }

    /// The complete text, where others may wait for it although it is not kept.
    pub(super) fn whole_for_followers(&self) -> Option<Poem> {
        let tier = self.proxy.tier.as_ref()?;
        let is_whole = tier.is_shared() && self.guard.is_keeping();
        is_whole.then(|| self.guard.writer().so_far())?
    }

    /// The text passes through, and will not be kept: others have to fetch it
    /// themselves.
    pub(super) fn give_back_if_passing(&mut self) {
        if !self.guard.is_keeping() {
            self.fleet.lease = None;
        }
    }
}

/// Hands a complete text to the tier: one that was kept to be kept, and one that was
/// not, but is whole, to be passed on.
pub(super) fn hand_over(
    lease: Box<dyn Lease>,
    kept: Option<Poem>,
    whole: Option<Poem>,
    ttl: Option<Duration>,
) {
    match (kept, whole) {
        (Some(text), _) => lease.commit(text, ttl),
        (None, Some(text)) => lease.pass(text),
        (None, None) => {} // given back
    }
}

/// Ends a lease without a text. A failure that is this process's own is no news of the
/// upstream: the lease is given back, and others try.
pub(super) fn end_failed(lease: Box<dyn Lease>, error: &Error) {
    let is_own = matches!(
        error,
        Error::TooLong { .. } | Error::Transform { .. } | Error::Doubtful { .. }
    );
    if error.is_unreached() {
        lease.fail(Failure::Unreached, &error.to_string());
    } else if error.is_upstreams() && !is_own {
        lease.fail(Failure::Failed, &error.to_string());
    }
}
