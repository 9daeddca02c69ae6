//! What logs are told of a fetch.

use super::Fetch;
use crate::handler::proxy::{Ask, ServeStale};
use crate::observe::{FetchName, FetchNote, StoreUse};
use std::time::{Duration, Instant};

impl Fetch {
    pub(super) fn name(&self) -> FetchName<'_> {
        FetchName {
            upstream: self.asked.as_deref().unwrap_or(&self.ask.target.name),
            request: &self.ask.request,
            cause: self.ask.cause,
            route: self.ask.target.route.as_deref(),
        }
    }

    /// What is fetched, and what for.
    pub(in crate::handler::proxy) fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The readers that get nothing if it fails now. Those of a stale text that waited
    /// for its refresh get that.
    pub(super) fn failing_readers(&self) -> usize {
        let serves_stale = self.proxy.settings.serve_stale != ServeStale::Always;
        if serves_stale && self.guard.replaces().is_some() {
            return 0;
        }
        self.guard.writer().readers()
    }

    /// How long it has taken until now, once it has begun.
    pub(super) fn time(&self, now: Instant) -> Option<Duration> {
        let begun = self.begun?;
        Some(now.saturating_duration_since(begun))
    }

    /// Tells the logs of the clients what is known of it.
    pub(super) fn note(&mut self, time: Option<Duration>) {
        self.guard.note(FetchNote {
            cause: self.ask.cause,
            upstream: self.asked.clone(),
            time,
            store: self.fleet.used,
            is_takeover: self.fleet.is_takeover,
        });
    }

    /// The same, where it ends with the store's copy.
    pub(super) fn note_copy(&mut self, is_stale: bool) {
        self.fleet.used = Some(if is_stale {
            StoreUse::Stale
        } else {
            StoreUse::Hit
        });
        self.note(None);
    }
}
