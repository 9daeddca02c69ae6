//! One fetch, from its place in the queue to its end.
//!
//! It belongs to no client. It streams where it can: without a transformation, and
//! unless the whole text is wanted first.

mod again;
mod follow;
mod note;
mod pace;
mod proof;
mod publish;
mod refresh;
mod reject;
mod store;
mod transform;
mod turn;

use super::flights::FlightListing;
use super::key::Key;
use super::memo::Noted;
use super::patience::{PACE_BYTES, Patience};
use super::target::Target;
use super::{Ask, Proxy};
use crate::cache::CacheFailure;
use crate::client::Query;
use crate::coalesce::{FlightGuard, Verdict};
use crate::control::Phase;
use crate::dispatch::Place;
use crate::error::Error;
use crate::flight::{NoReaders, PendingReaders};
use crate::observe::{Event, FetchName};
use crate::poem::packed;
use crate::rt::{self, CoopBudget};
use crate::stats::{FetchEnd, FetchResult};
use crate::upstream::{Reply, Source};
use again::AskedSources;
use bytes::Bytes;
use futures::future::{AbortRegistration, Abortable, FutureExt};
use reject::RejectReason;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::FleetPart;
pub(super) use turn::SourceLimit;

pub(super) struct Fetch {
    proxy: Arc<Proxy>,
    guard: FlightGuard<Key>,
    ask: Ask,
    /// The source that is asked first, where fetches wait for one.
    turn: Option<Source>,
    /// The source that was asked last.
    source: Option<Source>,
    /// The server that was asked last.
    asked: Option<Arc<str>>,
    /// When it began.
    begun: Option<Instant>,
    listed: FlightListing,
    /// The text before its transformation, where it is compared or sent on.
    original: Bytes,
    /// Why the text is not to be kept although it is whole.
    rejected: Option<RejectReason>,
    /// The ttl of the text, if it has one of its own.
    ttl: Option<Duration>,
    /// How long readers that are too slow have held it up.
    held_up: Duration,
    /// Its part in a tier that other processes use, too.
    fleet: FleetPart,
    /// What the text was made from, where it was transformed.
    noted: Option<Noted>,
}

/// In which form a text is wanted.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Passed on as it comes.
    AsItComes,
    /// Once it is complete.
    Whole,
}

/// Why a fetch ends without a whole text.
enum Stop {
    /// It failed.
    Failed(Error),
    /// Its text can't be kept, and no reader is left.
    NoReaders,
    /// It followed a fetch that was lost, and what came after that is another text.
    Lost(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl From<NoReaders> for Stop {
    fn from(_: NoReaders) -> Stop {
        Stop::NoReaders
    }
}

impl Fetch {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        ask: Ask,
        mut guard: FlightGuard<Key>,
        listed: FlightListing,
    ) -> Fetch {
        guard.set_times(ask.target.times);
        Fetch {
            proxy,
            guard,
            ask,
            turn: None,
            source: None,
            asked: None,
            begun: None,
            listed,
            original: Bytes::new(),
            rejected: None,
            ttl: None,
            held_up: Duration::ZERO,
            fleet: FleetPart::default(),
            noted: None,
        }
    }

    /// Fetches, from the connect to the end. The place is held until then, and until
    /// the text is read if there was no room for it.
    async fn run(mut self, mut place: Place<Fetch>, abort: AbortRegistration) {
        if self.fleet.asks_again {
            match self.ask_in_place(place).boxed().await {
                Some(asked) => (self, place) = asked,
                None => return,
            }
        }

        self.turn = place.right().map(Source::from);
        let (proxy, target) = (self.proxy.clone(), self.ask.target.clone());
        self.begun = Some(Instant::now());
        let listed = self.listed.clone();
        let mut end = FetchEnd::new(proxy.stats.clone(), self.ask.cause);
        proxy.observer.event(Event::Fetching { fetch: self.name() });

        let limit = proxy.settings.timeouts.total;
        let work = Abortable::new(self.work(), abort);
        let work = work.map(|ended| ended.unwrap_or(Err(Stop::NoReaders)));
        let result = rt::within(limit, work).await;
        let result = result.unwrap_or_else(|| Err(self.late(limit).into()));

        let readers = self.guard.unaccounted();
        match result {
            Ok(()) => end.settle(self.land()),
            Err(Stop::Failed(error) | Stop::Lost(error)) => {
                self.fail(error, Instant::now());
                end.settle(FetchResult::Failed);
            }
            Err(Stop::NoReaders) => {
                self.give_up();
                end.settle(FetchResult::Failed);
            }
        }
        if let Some(readers) = readers {
            proxy.await_slow_readers(&target, readers).await;
        }
        drop(end); // first: with those that run, they add up to those begun
        drop(listed);
        drop(place);
    }

    fn land(mut self) -> FetchResult {
        let proxy = self.proxy.clone();
        let now = Instant::now();
        let time = self.time(now);
        self.note(time);
        let bytes = self.guard.writer().len();
        let verdict = if self.rejected.is_some() {
            Verdict::Reject
        } else {
            self.keep()
        };

        if verdict != Verdict::Reject {
            self.note_original();
        }
        let mut lease = self.fleet.lease.take();
        let whole = self.whole_for_followers();
        if let Some(lease) = &mut lease {
            lease.fence();
        }
        let text = self.guard.land_text(verdict, now);
        let kept = text.is_some();
        if let Some(mut lease) = lease {
            if let Some(noted) = self.noted {
                lease.made_from(noted.original.digest());
            }
            let ttl = match verdict {
                Verdict::KeepFor(ttl) => ttl,
                Verdict::Keep | Verdict::Reject => self.ask.target.times.ttl,
            };
            let usual = proxy.settings.target.times.ttl;
            let own = Some(ttl).filter(|ttl| *ttl != usual);
            publish::hand_over(lease, text, whole, own);
        }

        let fetch = FetchName {
            upstream: self.asked.as_deref().unwrap_or(&self.ask.target.name),
            request: &self.ask.request,
            cause: self.ask.cause,
            route: self.ask.target.route.as_deref(),
        };
        if kept {
            proxy.stats.kept.fetch_add(1, Ordering::Release);
        }
        if let Some(why) = self.rejected {
            let why = why.words();
            proxy.observer.event(Event::Rejected { fetch, why });
            proxy.stats.failed_fetches.fetch_add(1, Ordering::Release);
        }
        proxy.observer.event(Event::Fetched {
            fetch,
            bytes,
            time: time.unwrap_or_default(),
            kept,
        });

        match self.rejected {
            Some(_) => FetchResult::Rejected,
            None if kept => FetchResult::Kept,
            None => FetchResult::Passed,
        }
    }

    fn fail(mut self, error: Error, now: Instant) {
        let proxy = self.proxy.clone();
        let time = self.time(now);
        self.note(time);
        proxy.observer.event(Event::FetchFailed {
            fetch: self.name(),
            error: &error,
            time: time.unwrap_or_default(),
            waiting: self.failing_readers(),
        });

        let caching = if error.is_upstreams() {
            CacheFailure::Yes
        } else {
            CacheFailure::No
        };
        let lease = self.fleet.lease.take().map(|lease| (lease, error.clone()));
        if self.begun.is_some() {
            self.guard.fail(error, caching, now);
        } else {
            self.guard.refuse(error, now);
        }
        if let Some((lease, error)) = lease {
            publish::end_failed(lease, &error);
        }
        proxy.stats.failed_fetches.fetch_add(1, Ordering::Release);
    }

    fn give_up(self) {
        let proxy = self.proxy.clone();
        proxy.observer.event(Event::GivenUp {
            fetch: self.name(),
            bytes: self.guard.writer().len(),
            time: self.time(Instant::now()).unwrap_or_default(),
        });

        drop(self);
        proxy.stats.failed_fetches.fetch_add(1, Ordering::Release);
    }

    async fn work(&mut self) -> Result<(), Stop> {
        self.publish();
        self.attempt().await?;
        self.is_proven()?;
        self.verify_refresh().await
    }

    async fn attempt(&mut self) -> Result<(), Stop> {
        let proxy = self.proxy.clone();
        if let Some(pipeline) = &proxy.settings.pipeline {
            let poem = self.fetch(Wanted::Whole).await?;
            return self.transform(poem, pipeline).await;
        }
        if !proxy.settings.whole {
            self.fetch(Wanted::AsItComes).await?;
            return Ok(());
        }

        let poem = self.fetch(Wanted::Whole).await?;
        self.guard.append(poem);
        Ok(())
    }

    /// Asks one source after the other, until one brings a whole text, or until a part
    /// has been passed on. Returns the text if it was not passed on.
    async fn fetch(&mut self, wanted: Wanted) -> Result<Bytes, Stop> {
        let proxy = self.proxy.clone();
        let target = self.ask.target.clone();
        let upstream = &target.upstream;
        let observer = &*proxy.observer;
        let mut asked = AskedSources::new(target.connect_retry);
        let first = self.next_source(asked.sources()).await;
        let mut source = first.expect("an upstream has a source");
        loop {
            asked.ask(source);
            self.source = Some(source);
            self.asked = Some(upstream.name(source));
            self.note(None);

            let result = match wanted {
                Wanted::Whole => self.collect(source).await,
                Wanted::AsItComes => self.stream(source).await.map(|()| Bytes::new()),
            };
            let Err(Stop::Failed(error)) = result else {
                let now = Instant::now();
                let is_rejected = self.rejected == Some(RejectReason::Pattern);
                upstream.note(source, Ok(()), now, observer);
                upstream.judge(source, is_rejected, now, observer);
                return result;
            };

            let Some(next) = self.after_failure(source, &error, &mut asked).await else {
                return Err(error.into());
            };
            source = next;
        }
    }

    /// Passes the text on as it comes.
    async fn stream(&mut self, source: Source) -> Result<(), Stop> {
        let proxy = self.proxy.clone();
        let target = self.ask.target.clone();
        let request = target.sent(&self.ask.request)?;
        self.listed.asks(target.upstream.name(source));
        let mut reply = proxy.ask(&target, source, &request).await?;
        self.listed.is(Phase::Waiting);
        let mut turns = CoopBudget::default();

        while let Some(bytes) = reply.next().await? {
            turns.take().await;
            let is_last = reply.is_over();
            self.pass_on(bytes, is_last).await?;
        }

        if self.guard.is_keeping()
            && let Some(poem) = self.guard.writer().so_far()
        {
            self.judge(poem).await;
        }
        Ok(())
    }

    /// The whole reply, once it is complete.
    async fn collect(&mut self, source: Source) -> Result<Bytes, Stop> {
        let proxy = self.proxy.clone();
        let target = self.ask.target.clone();
        let request = target.sent(&self.ask.request)?;
        self.listed.asks(target.upstream.name(source));
        let mut reply = proxy.ask(&target, source, &request).await?;
        self.listed.is(Phase::Waiting);
        let mut turns = CoopBudget::default();
        let mut poem = Vec::new();

        while let Some(bytes) = reply.next().await? {
            turns.take().await;
            self.collect_more(&mut poem, &bytes)?;
        }

        let poem = packed(poem);
        self.judge(poem.clone().into()).await;
        Ok(poem)
    }

    /// Adds to a text that can't be passed on before it is whole.
    fn collect_more(&mut self, poem: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Stop> {
        let limit = self.proxy.settings.longest();
        let length = (poem.len() + bytes.len()) as u64;
        if length > limit {
            let subject = self.ask.target.name.clone();
            return Err(Error::TooLong { subject, limit }.into());
        }

        self.reserve(length)?;
        self.listed.is(Phase::Streaming);
        self.listed.came(length);
        poem.extend_from_slice(bytes);
        Ok(())
    }

    /// Counts bytes that can't be passed on before the text is whole.
    fn reserve(&mut self, total: u64) -> Result<(), Error> {
        if self.guard.reserve_whole(total) {
            return Ok(());
        }
        self.guard.drop_outdated();
        if self.guard.reserve_whole(total) {
            return Ok(());
        }

        Err(Error::NoRoom {
            subject: self.ask.target.name.clone(),
            capacity: self.proxy.settings.capacity,
        })
    }
}

impl Proxy {
    async fn ask<'a>(
        &self,
        target: &'a Target,
        source: Source,
        request: &'a [u8],
    ) -> Result<Reply<'a>, Error> {
        let query = Query {
            protocol: self.settings.protocol,
            request,
            limit: self.settings.max_poem,
            timeouts: self.settings.timeouts,
            half_close: self.settings.half_close,
            ends: &target.ends,
        };
        target.upstream.ask(source, &query).await
    }

    /// Waits until a text without room is read, so that no more than `upstream_conns`
    /// of them are there at a time. Readers that make no progress lose it as
    /// [`Patience`] says.
    async fn await_slow_readers(&self, target: &Target, readers: PendingReaders) {
        let patience = Patience(self.settings.patience);
        let mut before = readers.remaining();
        loop {
            let look = patience.next_look(target.waited());
            if rt::within(look, readers.finished()).await.is_some() {
                return;
            }

            let remaining = readers.remaining();
            let is_stuck = !remaining.has_shrunk(before, PACE_BYTES);
            if is_stuck && patience.is_exhausted(target.waited()) {
                return readers.release();
            }
            before = remaining;
        }
    }
}
