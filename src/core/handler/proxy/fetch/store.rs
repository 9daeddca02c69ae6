//! A fetch asks the tier behind the cache before it asks a server: a text that is there
//! needs no place before the upstream, and is there on a day when the upstream is not.
//!
//! A tier of this process alone is asked before the fetch waits for its place. A tier
//! that other processes use, too, gives a lease, which must not wait for a place: then
//! other processes with a free place would wait as well.
//!
//! | the place, of a shared tier | the fetch |
//! |---|---|
//! | is free | takes it, and asks with the wish to lead; gives it back unless it leads |
//! | is not free, the tier has the text or another process fetches it | needs none |
//! | is not free, and no process fetches it | waits for its place, and asks again with it |

use super::follow::{Followed, LOST_MOST};
use super::{Fetch, Stop};
use crate::cache::Freshness;
use crate::coalesce::Found;
use crate::dispatch::{Job, Place};
use crate::error::Error;
use crate::handler::proxy::{Ask, Proxy};
use crate::observe::{Event, FetchCause, StoreUse};
use crate::poem::Poem;
use crate::rt;
use crate::stats::PanicCount;
use crate::tier::{Claim, Lease, Proof, Question, StoredText, Term, Tier, Wish};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much longer a copy must be fresh than the text in memory to replace one that is
/// fresh still: ages of one text differ by as long as the tier takes to answer.
const NEWER_BY: Duration = Duration::from_secs(1);

/// Times that a fetch asks: for the text, for another one if that does not suit, and
/// after each fetch that it follows in vain. No tier makes it ask for ever.
const ASKED_MOST: u32 = LOST_MOST + 3;

/// A fetch's part in a tier that other processes use, too.
#[derive(Default)]
pub(super) struct FleetPart {
    /// The right to hand the text to the tier.
    pub(super) lease: Option<Box<dyn Lease>>,
    /// Whether others read along.
    pub(super) is_published: bool,
    /// What readers have of a fetch that was lost, until it has come again.
    pub(super) proof: Option<Proof>,
    /// How many fetches it followed in vain.
    pub(super) lost: u32,
    /// Whether the process that fetched one of them is gone.
    pub(super) is_orphan: bool,
    /// Whether it followed one that reached no upstream.
    was_unreached: bool,
    /// Whether no text will do that the tier has already.
    wants_new: bool,
    /// Whether the tier is asked again once there is a place.
    pub(super) asks_again: bool,
    /// What is told of it.
    pub(super) used: Option<StoreUse>,
    pub(super) is_takeover: bool,
}

/// A fetch that has to ask a server, and its place if it has one.
pub(super) type ToFetch = (Fetch, Option<Place<Fetch>>);

/// The right to fetch a text, with the place that it takes.
type LeaseInPlace = (Box<dyn Lease>, Place<Fetch>);

/// What follows from an answer of the tier.
enum NextStep {
    /// The fetch has ended, well or not.
    Ended,
    /// The tier is asked again.
    Ask(Box<Fetch>, Option<Place<Fetch>>),
    /// A server is asked.
    Fetch(Box<Fetch>, Option<Place<Fetch>>),
}

impl Fetch {
    /// Starts a fetch: at the tier if there is one, and else before the upstream.
    pub(in crate::handler::proxy) fn launch(mut self, now: Instant) {
        let proxy = self.proxy.clone();
        let Some(tier) = proxy.tier.clone() else {
            return proxy.enter(self, now);
        };
        if !self.reserve_waiting() {
            return proxy.enter(self, now); // which says what becomes of it
        }

        rt::spawn_home(async move {
            let _counts_a_panic = PanicCount(proxy.stats.clone());
            if let Some((fetch, place)) = self.come_by(tier, None).await {
                proxy.go_on(fetch, place);
            }
        });
    }

    /// Asks the tier until the text has come from there, or this process has to fetch
    /// it.
    pub(super) async fn come_by(
        mut self,
        tier: Arc<dyn Tier>,
        mut place: Option<Place<Fetch>>,
    ) -> Option<ToFetch> {
        let target = self.ask.target.clone();
        let key = target.scope.whole(&target.scope.key(&self.ask.request));
        for _ in 0..ASKED_MOST {
            if place.is_none() && tier.is_shared() {
                place = target.places.dispatch.take_place();
            }
            let question = Question {
                key: &key,
                wish: self.wish(),
                may_lead: place.is_some() || !tier.is_shared(),
                ttl: target.longest_ttl(),
                grace: target.times.grace,
            };
            let next = match tier.claim(question).await {
                Claim::Found(found) => self.take_copy(found, place, &*tier).await,
                Claim::Follow(follow) => {
                    place.into_iter().for_each(Place::give_back);
                    let followed = self.follow(follow, &*tier).await;
                    self.after_following(followed)
                }
                claim => return self.fetch_after(claim, place),
            };

            match next {
                NextStep::Ended => return None,
                NextStep::Fetch(fetch, place) => return Some((*fetch, place)),
                NextStep::Ask(fetch, kept) => (self, place) = (*fetch, kept),
            }
        }
        self.fetch_after(Claim::Alone, place)
    }

    /// The same, for a fetch that has waited for its place. Returns both if it has to
    /// ask a server at that place; at another one it has started.
    pub(super) async fn ask_in_place(
        mut self,
        place: Place<Fetch>,
    ) -> Option<(Fetch, Place<Fetch>)> {
        self.fleet.asks_again = false;
        let proxy = self.proxy.clone();
        let Some(tier) = proxy.tier.clone() else {
            return Some((self, place));
        };

        let own = place.id();
        match self.come_by(tier, Some(place)).await? {
            (fetch, Some(same)) if same.id() == own => Some((fetch, same)),
            (fetch, other) => {
                proxy.go_on(fetch, other);
                None
            }
        }
    }

    /// A refresh is to bring another text than the one that is there, and an operator
    /// wants one that is fetched now.
    fn wish(&self) -> Wish {
        match self.ask.cause {
            _ if self.fleet.wants_new => Wish::New,
            FetchCause::Miss => Wish::Text,
            FetchCause::Prefetch if self.guard.replaces().is_none() => Wish::Text,
            FetchCause::Stale | FetchCause::Prefetch => Wish::Newer,
            FetchCause::Admin => Wish::New,
        }
    }

    /// The tier has no text and knows of no fetch.
    fn fetch_after(mut self, claim: Claim, place: Option<Place<Fetch>>) -> Option<ToFetch> {
        match claim {
            Claim::Lead(lease) => self.lead(lease),
            Claim::Vacant => self.fleet.asks_again = true,
            _ => self.fetch_alone(),
        }
        self.is_wanted().then_some((self, place))
    }

    /// Whether a server is to be asked. A fetch that has begun belongs to no reader.
    fn is_wanted(&self) -> bool {
        let has_begun = self.guard.writer().flight().has_begun();
        has_begun || self.has_readers() || self.is_refresh()
    }

    /// What comes after a fetch that was followed.
    fn after_following(mut self, followed: Result<Followed, Stop>) -> NextStep {
        match followed {
            Ok(Followed::Complete { since, is_kept }) => {
                self.land_followed(since, is_kept);
                return NextStep::Ended;
            }
            Ok(Followed::Unwanted) => return NextStep::Ended,
            Ok(Followed::Unreached) if self.fleet.was_unreached => {
                let error = self.unreached();
                self.fail(error, Instant::now());
                return NextStep::Ended;
            }
            Ok(Followed::Unreached) => self.fleet.was_unreached = true,
            Ok(Followed::Gone) => {
                self.fleet.is_orphan = true;
                self.fleet.lost += 1;
            }
            Ok(Followed::Purged) => self.fleet.lost += 1,
            Ok(Followed::Doubtful) => {
                self.fleet.lost += 1;
                self.fleet.wants_new = true;
            }
            Ok(Followed::NoRoom) => self.fleet.lost = LOST_MOST,
            Err(stop) => {
                self.stop(stop);
                return NextStep::Ended;
            }
        }

        if let Err(stop) = self.begin_again() {
            self.stop(stop);
            return NextStep::Ended;
        }
        if self.fleet.lost >= LOST_MOST {
            self.fetch_alone();
            return NextStep::Fetch(Box::new(self), None);
        }
        NextStep::Ask(Box::new(self), None)
    }

    /// Uses a copy that the tier has found, if it suits.
    async fn take_copy(
        mut self,
        mut found: StoredText,
        mut place: Option<Place<Fetch>>,
        tier: &dyn Tier,
    ) -> NextStep {
        let mut lease = found.lease.take();
        if lease.is_none() {
            place.take().into_iter().for_each(Place::give_back);
        }

        if let Some(freshness) = self.judge_copy(&found).await {
            let refresh = lease.zip(place);
            let back = match self.land_copy(found, freshness, refresh, tier) {
                Ok(()) => return NextStep::Ended,
                Err(back) => *back,
            };
            self = back.0;
            (lease, place) = back.1.unzip();
        }
        if let Some(lease) = lease {
            self.lead(lease);
            return NextStep::Fetch(Box::new(self), place);
        }
        self.fleet.wants_new = true;
        NextStep::Ask(Box::new(self), place)
    }

    /// Whether this proxy would keep the text, and how long. Another one, or another
    /// run of it, may have other options. A transformed text can't be judged: that is
    /// done with its original.
    async fn judge_copy(&mut self, found: &StoredText) -> Option<Freshness> {
        let text = Poem::from(found.text.clone());
        let fits = text.len() <= self.proxy.settings.longest();
        if !fits || !self.is_whole(&text) || self.is_cut_refresh(&text) {
            return None;
        }
        if self.proxy.settings.pipeline.is_none() {
            self.judge(text).await;
        }
        if self.rejected.take().is_some() {
            return None;
        }

        let freshness = match found.term {
            Term::Until(freshness) => self.within_grace(freshness),
            Term::Since(since) => self.freshness(since),
        };
        self.improves(freshness, Instant::now())
            .then_some(freshness)
    }

    /// The same, for no longer than the grace of the route. A tier knows the longest of
    /// all.
    fn within_grace(&self, copy: Freshness) -> Freshness {
        let Freshness {
            fresh_until,
            stale_until,
        } = copy;
        let grace = self.ask.target.times.grace;
        Freshness {
            fresh_until,
            stale_until: stale_until.min(fresh_until + grace),
        }
    }

    /// Whether a copy is better than what is in memory, and young enough at all.
    fn improves(&self, copy: Freshness, now: Instant) -> bool {
        if self.ask.cause == FetchCause::Miss {
            return copy.stale_until > now;
        }

        let key = self.ask.target.scope.key(&self.ask.request);
        let known = self.proxy.texts.cache().known_of(&key, now);
        let old = known.and_then(|known| known.value);
        let old = old.map(|value| value.freshness.fresh_until);
        let wanted = old.filter(|until| *until > now);
        copy.fresh_until > wanted.map_or(now, |until| until + NEWER_BY)
    }

    /// Lands the tier's copy with its age. Gives the fetch back if the copy was purged
    /// meanwhile, has no room, or is not what readers have a part of. With `refresh`,
    /// it is this process that refreshes it if it is stale.
    fn land_copy(
        mut self,
        found: StoredText,
        freshness: Freshness,
        refresh: Option<LeaseInPlace>,
        tier: &dyn Tier,
    ) -> Result<(), Box<(Fetch, Option<LeaseInPlace>)>> {
        // A purge that begins from here on finds that the flight has begun, and
        // detaches it.
        if !self.guard.begin() {
            return Ok(()); // its readers have left
        }
        let bytes = found.text.len() as u64;
        if !tier.is_current(found.epoch) || !self.guard.reserve(bytes) {
            return Err(Box::new((self, refresh)));
        }

        let proxy = self.proxy.clone();
        let now = Instant::now();
        let proven = self.prove(found.text);
        let proven = proven.and_then(|rest| self.is_proven().map(|()| rest));
        let rest = match proven {
            Ok(rest) => rest,
            Err(stop) => {
                self.stop(stop);
                return Ok(());
            }
        };
        let is_stale = freshness.fresh_until <= now;
        proxy.observer.event(Event::FromStore {
            fetch: self.name(),
            bytes,
            is_stale,
        });
        self.note_copy(is_stale);
        self.guard.append_last(rest);
        drop(found.permit); // it is counted by now

        let ask = self.ask;
        self.guard.land_copy(freshness, now);
        if is_stale {
            proxy.refresh_copy(ask, refresh, now);
        }
        Ok(())
    }

    /// Ends a fetch that has asked no server.
    fn stop(self, stop: Stop) {
        match stop {
            Stop::Failed(error) | Stop::Lost(error) => self.fail(error, Instant::now()),
            Stop::NoReaders => self.give_up(),
        }
    }

    fn unreached(&self) -> Error {
        Error::Unreachable {
            subject: self.ask.target.name.clone(),
            why: "another proxy could not connect either".into(),
        }
    }
}

impl Proxy {
    /// Goes on with a fetch that has asked the tier: at its place, or in the queue.
    pub(super) fn go_on(self: &Arc<Self>, fetch: Fetch, place: Option<Place<Fetch>>) {
        match place {
            Some(place) => {
                let places = fetch.ask.target.places.clone();
                places.dispatch.start_at(fetch, place);
            }
            None => self.enter(fetch, Instant::now()),
        }
    }

    /// Refreshes a copy that was stale when it came, unless that is done already.
    fn refresh_copy(self: &Arc<Self>, mut ask: Ask, refresh: Option<LeaseInPlace>, now: Instant) {
        let key = ask.target.scope.key(&ask.request);
        ask.cause = FetchCause::Stale;
        let Found::Stale(_, Some(guard)) = self.texts.find(&key, now) else {
            return;
        };

        match refresh {
            None => self.spawn_fetch(ask, guard, now),
            Some((lease, place)) => {
                let places = ask.target.places.clone();
                let mut fetch = self.list_fetch(ask, guard, now);
                fetch.lead(lease);
                places.dispatch.start_at(fetch, place);
            }
        }
    }
}
