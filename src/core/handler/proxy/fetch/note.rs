//! What logs are told of a fetch.

use super::{Fetch, Proxy};
use crate::observe::{FetchName, FetchNote};
use std::time::{Duration, Instant};

impl Fetch {
    pub(super) fn name<'a>(&'a self, proxy: &'a Proxy) -> FetchName<'a> {
        FetchName {
            upstream: self.asked.as_deref().unwrap_or(&proxy.name),
            request: &self.request,
            cause: self.cause,
        }
    }

    /// How long it has taken until now, once it has begun.
    pub(super) fn time(&self, now: Instant) -> Option<Duration> {
        let begun = self.begun?;
        Some(now.saturating_duration_since(begun))
    }

    /// Tells the logs of the clients what is known of it.
    pub(super) fn note(&mut self, time: Option<Duration>) {
        self.guard.note(FetchNote {
            cause: self.cause,
            upstream: self.asked.clone(),
            time,
        });
    }
}
