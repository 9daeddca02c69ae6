//! A fetch as a job that waits for its turn.

use super::Fetch;
use crate::addr::ClientNet;
use crate::control::Phase;
use crate::dispatch::{Abort, Dispatch, Job, Place, Refused, StartLimit, StartRight};
use crate::error::{Error, Stage};
use crate::flight::Interest;
use crate::observe::{Event, FetchCause};
use crate::rt;
use crate::upstream::{Source, Turns};
use futures::future::AbortHandle;
use std::sync::Weak;
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
                let subject = fetch.ask.target.name.clone();
                let waiting = fetch.proxy.settings.upstream_queue;
                (fetch, Error::QueueFull { subject, waiting })
            }
            Refused::NoRoom(fetch) => {
                let subject = fetch.ask.target.name.clone();
                let capacity = fetch.proxy.settings.capacity;
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
            subject: self.ask.target.name.clone(),
            stage: Stage::Turn,
            limit: self.proxy.settings.timeouts.total,
        };
        self.fail(error, now);
    }

    /// The source that is asked next, once it may be; `None` if all are in `asked`.
    /// The first is that of the turn which the fetch has started with.
    pub(super) async fn next_source(&mut self, asked: &[Source]) -> Option<Source> {
        if let Some(source) = self.turn.take() {
            return Some(source);
        }
        let proxy = self.proxy.clone();
        let target = self.ask.target.clone();

        let (source, at) = target.upstream.next(asked, Instant::now())?;
        if let Some(at) = at {
            self.listed.is(Phase::InQueue);
            proxy.stats.rate_waits.fetch_add(1, Ordering::Relaxed);
            proxy
                .observer
                .event(Event::FetchDelayed { fetch: self.name() });
            target.upstream.await_turn(source, at).await;
        }
        Some(source)
    }

    /// It was not complete in time. That is a failure of the source that was asked
    /// last. It is still asked first: it may only be slow.
    pub(super) fn late(&self, limit: Duration) -> Error {
        let subject = self.ask.target.name.clone();
        let stage = Stage::Complete;
        let error = Error::Timeout {
            subject,
            stage,
            limit,
        };
        if let Some(source) = self.source {
            let upstream = &self.ask.target.upstream;
            upstream.note_failure(source, &error, Instant::now());
        }
        error
    }
}

impl Job for Fetch {
    fn is_refresh(&self) -> bool {
        self.ask.cause != FetchCause::Miss
    }

    fn client(&self) -> Option<ClientNet> {
        self.ask.client
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        let request = self.ask.request.len() as u64;
        let held = self.guard.writer().len(); // of a fetch that was followed and lost
        self.guard.reserve_waiting(request + WAITING_WEIGHT + held)
    }

    fn displace(self, now: Instant) {
        Fetch::refuse(Refused::QueueFull(self), now);
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

/// Lets a fetch start once a source may be asked. The right is the source.
pub(in crate::handler::proxy) struct SourceLimit(pub Turns);

impl StartLimit<Fetch> for SourceLimit {
    fn take(&self) -> Result<StartRight, Instant> {
        self.0.take(Instant::now()).map(StartRight::from)
    }

    fn give_back(&self, right: StartRight) {
        self.0.give_back(right.into());
    }

    fn resume_at(&self, dispatch: Weak<Dispatch<Fetch>>, at: Instant) {
        rt::spawn(async move {
            rt::sleep(at.saturating_duration_since(Instant::now())).await;
            if let Some(dispatch) = dispatch.upgrade() {
                dispatch.resume(at);
            }
        });
    }
}
