//! A fetch asks the tier behind the cache before it waits for its turn: a text that is
//! there needs no place before the upstream, and is there on a day when the upstream is
//! not.

use super::Fetch;
use crate::coalesce::Found;
use crate::dispatch::Job;
use crate::observe::{Event, FetchCause};
use crate::poem::Poem;
use crate::rt;
use crate::stats::PanicCount;
use crate::tier::{Claim, StoredText, Tier, Wish};
use std::sync::Arc;
use std::time::Instant;

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
        rt::spawn_home(self.ask_tier(tier));
    }

    async fn ask_tier(mut self, tier: Arc<dyn Tier>) {
        let proxy = self.proxy.clone();
        let _counts_a_panic = PanicCount(proxy.stats.clone());
        let key = self.whole_key();

        // A refresh is to bring another text than the one that is there.
        let wish = match self.ask.cause {
            FetchCause::Miss => Wish::Text,
            FetchCause::Prefetch if self.guard.replaces().is_none() => Wish::Text,
            FetchCause::Stale | FetchCause::Prefetch | FetchCause::Admin => Wish::Newer,
        };
        let mut claim = tier.claim(&key, wish).await;
        if let Claim::Found(found) = claim {
            if self.suits(&found).await {
                match self.land_copy(found, &*tier) {
                    Ok(()) => return,
                    Err(fetch) => self = *fetch,
                }
            }
            claim = tier.claim(&key, Wish::Newer).await;
        }

        if let Claim::Lead(lease) = claim {
            self.lease = Some(lease);
        }
        if self.has_readers() || self.is_refresh() {
            proxy.enter(self, Instant::now());
        }
    }

    /// Whether this proxy would keep the text. Another run of it may have had other
    /// options. A transformed text can't be judged: that is done with its original.
    async fn suits(&mut self, found: &StoredText) -> bool {
        let text = Poem::from(found.text.clone());
        let fits = text.len() <= self.proxy.settings.longest() && !text.is_empty();
        if self.proxy.settings.pipeline.is_none() {
            self.judge(text).await;
        }
        fits && self.rejected.take().is_none()
    }

    /// Lands the tier's copy with its age. Gives the fetch back if the copy was purged
    /// meanwhile, or has no room.
    fn land_copy(mut self, found: StoredText, tier: &dyn Tier) -> Result<(), Box<Fetch>> {
        // A purge that begins from here on finds that the flight has begun, and
        // detaches it.
        if !self.guard.begin() {
            return Ok(()); // its readers have left
        }
        let bytes = found.text.len() as u64;
        if !tier.is_current(found.epoch) || !self.guard.reserve(bytes) {
            return Err(Box::new(self));
        }

        let proxy = self.proxy.clone();
        let now = Instant::now();
        let is_stale = found.freshness.fresh_until <= now;
        proxy.observer.event(Event::FromStore {
            fetch: self.name(),
            bytes,
            is_stale,
        });
        self.note_copy(is_stale);
        self.guard.append_last(found.text);
        drop(found.permit); // it is counted by now

        let mut ask = self.ask;
        self.guard.land_copy(found.freshness, now);
        if is_stale {
            let key = ask.target.scope.key(&ask.request);
            if let Found::Stale(_, Some(guard)) = proxy.texts.find(&key, now) {
                ask.cause = FetchCause::Stale;
                proxy.spawn_fetch(ask, guard, now);
            }
        }
        Ok(())
    }

    fn whole_key(&self) -> Vec<u8> {
        let scope = &self.ask.target.scope;
        scope.whole(&scope.key(&self.ask.request))
    }
}
