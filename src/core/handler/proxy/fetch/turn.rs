//! A fetch as a job that waits for its turn.

use super::Fetch;
use crate::dispatch::{Abort, Job, Place, Refused};
use crate::error::{Error, Stage};
use crate::flight::Interest;
use crate::observe::FetchCause;
use crate::rt;
use futures::future::AbortHandle;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a waiting fetch costs beside its cache entry and its request, in bytes
/// (measured).
const WAITING_WEIGHT: u64 = 1024;

impl Fetch {
    /// Ends a fetch that may not wait for its turn.
    pub(in crate::handler::proxy) fn refuse(refused: Refused<Fetch>, now: Instant) {
        let (fetch, error) = match refused {
            Refused::QueueFull(fetch) => {
                let subject = fetch.proxy.name.clone();
                let waiting = fetch.proxy.settings.upstream_queue;
                (fetch, Error::QueueFull { subject, waiting })
            }
            Refused::NoRoom(fetch) => {
                let subject = fetch.proxy.name.clone();
                let capacity = fetch.proxy.settings.policy.capacity;
                (fetch, Error::NoRoom { subject, capacity })
            }
        };

        let stats = fetch.proxy.stats.clone();
        stats.refused_fetches.fetch_add(1, Ordering::Release);
        fetch.fail(error, now);
    }

    /// Ends a fetch that has waited too long for its turn.
    pub(in crate::handler::proxy) fn expire(self, now: Instant) {
        let error = Error::Timeout {
            subject: self.proxy.name.clone(),
            stage: Stage::Turn,
            limit: self.proxy.settings.timeouts.total,
        };
        self.fail(error, now);
    }

    /// It was not complete in time. That is a failure of the source that was asked
    /// last. It is still asked first: it may only be slow.
    pub(super) fn late(&self, limit: Duration) -> Error {
        let subject = self.proxy.name.clone();
        let stage = Stage::Complete;
        let error = Error::Timeout {
            subject,
            stage,
            limit,
        };
        if let Some(source) = self.source {
            let upstream = &self.proxy.settings.upstream;
            upstream.note_failure(source, &error, Instant::now());
        }
        error
    }
}

impl Job for Fetch {
    fn is_refresh(&self) -> bool {
        self.cause != FetchCause::Miss
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        let request = self.request.len() as u64;
        self.guard.reserve_waiting(request + WAITING_WEIGHT)
    }

    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
        self.guard.on_interest(tell);
    }

    fn begin(&mut self) -> bool {
        self.guard.begin()
    }

    fn start(self, place: Place<Fetch>) -> Abort {
        let (handle, registration) = AbortHandle::new_pair();
        rt::spawn_home(self.run(place, registration));
        Box::new(move || handle.abort())
    }
}
