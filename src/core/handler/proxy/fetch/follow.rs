//! A fetch that follows another process's: the local flight is fed from what that
//! process publishes, and no server is asked.
//!
//! | the news | bytes passed on here | the fetch |
//! |---|---|---|
//! | bytes | any | passes them on |
//! | the end, kept | any | lands with the end's time; this proxy's own rules decide whether it keeps it |
//! | the end, not kept | any | lands, and keeps nothing |
//! | failed | any | fails, as one process alone would; `--fail-ttl` applies |
//! | unreached | any | asks again, once: this process may reach it. A second time it fails |
//! | gone | none | asks again |
//! | gone | some | asks again. What comes then must prove them first: see [`Proof`](crate::tier::Proof) |
//! | a text that may be cut: this process has a longer one, or wants another end | any | asks for the right to fetch, with proof if bytes were passed on |
//!
//! After [`LOST_MOST`] holders were lost it asks no more, and fetches itself.
//!
//! A follower needs no place before the upstream. Where a text is to be whole before it
//! is passed on, it is collected here first.

use super::{Fetch, Stop};
use crate::cache::Freshness;
use crate::coalesce::Verdict;
use crate::control::Phase;
use crate::error::Error;
use crate::flight::Interest;
use crate::observe::{Event, StoreUse};
use crate::poem::packed;
use crate::rt::{self, CoopBudget};
use crate::tier::{Follow, News, Tier};
use futures::future::{AbortHandle, Abortable};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Holders that may be lost before a fetch goes on alone. Each may have cost as long as
/// a lease runs, and a text that is too long for its holder loses every one.
pub(super) const LOST_MOST: u32 = 3;

/// How following ended.
pub(super) enum Followed {
    /// The text is complete, and was since then.
    Complete { since: Instant, is_kept: bool },
    /// The holder reached no upstream.
    Unreached,
    /// Nothing is known of the holder any more.
    Gone,
    /// It was purged before it could be followed.
    Purged,
    /// It may have been cut: it is a part of what this process has, or has not the end
    /// that it wants.
    Doubtful,
    /// The text has no room here, and passes through: that takes a place before the
    /// upstream, which bounds how many such texts there are.
    NoRoom,
    /// The readers had left before it began.
    Unwanted,
}

impl Fetch {
    /// Passes on what another process fetches, until that ends.
    pub(super) async fn follow(
        &mut self,
        mut follow: Box<dyn Follow>,
        tier: &dyn Tier,
    ) -> Result<Followed, Stop> {
        // A purge that begins from here on detaches the flight.
        if !self.guard.begin() {
            return Ok(Followed::Unwanted);
        }
        self.begun.get_or_insert_with(Instant::now);
        if !tier.is_current(follow.epoch()) {
            return Ok(Followed::Purged);
        }

        let proxy = self.proxy.clone();
        proxy.fleet.follows.fetch_add(1, Ordering::Relaxed);
        proxy
            .observer
            .event(Event::Following { fetch: self.name() });
        self.fleet.used = Some(StoreUse::Follow);
        self.note(None);
        self.listed.is(Phase::Waiting);

        let (handle, registration) = AbortHandle::new_pair();
        self.guard.on_interest(move |interest| {
            if interest == Interest::Useless {
                handle.abort();
            }
        });
        let limit = proxy.settings.timeouts.total;
        let work = Abortable::new(self.read_on(&mut *follow), registration);
        let result = rt::within(limit, work).await;
        match result {
            Some(Ok(result)) => result,
            Some(Err(_aborted)) => Err(Stop::NoReaders),
            None => Err(self.late(limit).into()),
        }
    }

    async fn read_on(&mut self, follow: &mut dyn Follow) -> Result<Followed, Stop> {
        let settings = &self.proxy.settings;
        let is_collected = settings.whole || settings.pipeline.is_some();
        let mut turns = CoopBudget::default();
        let mut poem = Vec::new();
        loop {
            let news = follow.next().await;
            turns.take().await;
            match news {
                News::Bytes(bytes) if is_collected => self.collect_more(&mut poem, &bytes)?,
                News::Bytes(bytes) => {
                    let more = self.prove(bytes)?;
                    if more.is_empty() {
                        continue; // readers have them
                    }
                    if !self.has_room(&more) {
                        return Ok(Followed::NoRoom);
                    }
                    self.pass_on(more, false).await?;
                }
                News::End { since, is_kept } => {
                    if is_collected {
                        self.guard.append(packed(poem));
                    }
                    return self.complete(since, is_kept).await;
                }
                News::Failed(why) => {
                    let subject = self.ask.target.name.clone();
                    let why = format!("another proxy's fetch failed: {why}");
                    return Err(Error::Other { subject, why }.into());
                }
                News::Unreached => return Ok(Followed::Unreached),
                News::Gone => return Ok(Followed::Gone),
            }
        }
    }

    /// Whether these bytes are counted, or pass through a window that is. If not, they
    /// have to come again: without room and without a place nothing is passed on.
    fn has_room(&mut self, bytes: &[u8]) -> bool {
        let longest = self.proxy.settings.longest();
        let more = bytes.len() as u64;
        self.guard.reserve_or_pass(more, longest, Instant::now());
        self.guard.unaccounted().is_none()
    }

    /// The text is complete. Whether it is kept is this proxy's own affair: another one
    /// may have other options.
    async fn complete(&mut self, since: Instant, is_kept: bool) -> Result<Followed, Stop> {
        self.is_proven()?;
        let text = self.guard.writer().so_far();
        if let Some(text) = text.filter(|_| self.guard.is_keeping()) {
            if !self.is_whole(&text) || self.is_cut_refresh(&text) {
                return Ok(Followed::Doubtful);
            }
            if self.proxy.settings.pipeline.is_none() {
                self.judge(text).await;
            }
        }
        Ok(Followed::Complete { since, is_kept })
    }

    /// How long a text may be served that was complete since then.
    pub(super) fn freshness(&self, since: Instant) -> Freshness {
        let mut times = self.ask.target.times;
        if let Verdict::KeepFor(ttl) = self.keep() {
            times.ttl = ttl;
        }
        times.freshness(since)
    }

    /// Lands what was followed, with the age that it has. A text that the store does
    /// not keep is not kept here either: it may have been purged on its way.
    pub(super) fn land_followed(mut self, since: Instant, is_kept: bool) {
        let proxy = self.proxy.clone();
        let now = Instant::now();
        self.note(self.time(now));
        if let Some(why) = self.rejected {
            let (fetch, why) = (self.name(), why.words());
            proxy.observer.event(Event::Rejected { fetch, why });
            self.guard.land(Verdict::Reject, now);
            return;
        }

        if !is_kept {
            self.guard.pass(now);
        }
        let freshness = self.freshness(since);
        self.guard.land_copy(freshness, now);
    }
}
