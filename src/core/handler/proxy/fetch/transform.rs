//! How a fetch transforms what it has brought, or finds that it need not.
//!
//! The result of an original that is known is taken from where it still is: in the text
//! that this fetch replaces, in that of another key, or in the store.

use super::{Fetch, Stop};
use crate::control::Phase;
use crate::error::Error;
use crate::handler::proxy::Key;
use crate::handler::proxy::memo::Noted;
use crate::observe::{Event, FetchCause};
use crate::poem::Poem;
use crate::rt;
use crate::transform::Pipeline;
use crate::transform::memo::{KnownResult, Original, ResultSum};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Fetch {
    /// Transforms the whole text, unless that was done before. Nothing can be passed on
    /// until then.
    pub(super) async fn transform(&mut self, poem: Bytes, pipeline: &Pipeline) -> Result<(), Stop> {
        // The original is not counted, so it is held only where it may be of use: for a
        // refresh. A second attempt's always is, for it is compared with the first's.
        if !self.original.is_empty() || self.guard.replaces().is_some() {
            self.original = poem.clone();
        }

        let done = self.transformed(poem, pipeline).await?;
        if done.is_empty() && !self.ask.target.ends.allow_empty {
            // A client would take it for a failure.
            let subject = self.ask.target.name.clone();
            return Err(Error::Empty { subject }.into());
        }
        self.reserve(done.len() as u64)?;
        self.guard.append(done);
        Ok(())
    }

    async fn transformed(&mut self, poem: Bytes, pipeline: &Pipeline) -> Result<Bytes, Stop> {
        let proxy = self.proxy.clone();
        let Some(memo) = &proxy.memo else {
            return self.run_transforms(poem, pipeline).await;
        };

        self.noted = None;
        let (id, text) = (pipeline.id(), poem.clone());
        let original = rt::busy(poem.len(), move || Original::of(&id, &text)).await;
        let look = memo.begin(&original, &self.key());
        // What an operator asks for is done from the beginning.
        let may_use = look.may_use && self.ask.cause != FetchCause::Admin;

        let mut done = None;
        if may_use {
            done = self.known_result(&original, look.known).await;
        }
        if done.is_some() {
            proxy.stats.known_transforms.fetch_add(1, Ordering::Release);
        }
        let done = match done {
            Some(known) => known,
            None => self.run_transforms(poem, pipeline).await?,
        };

        if self.guard.is_keeping() {
            let text = done.clone();
            let sum = rt::busy(done.len(), move || ResultSum::of(&text)).await;
            self.noted = Some(Noted {
                original,
                sum,
                begun: look.begun,
            });
        }
        Ok(done)
    }

    /// Notes what the text was made from. That is done before the text lands, so that a
    /// fetch that follows finds the note; if it is not cached then, the note leads
    /// nowhere.
    pub(super) fn note_original(&self) {
        if let (Some(noted), Some(memo)) = (self.noted, &self.proxy.memo) {
            let key = self.key();
            memo.note(noted, key, self.proxy.texts.cache());
        }
    }

    fn key(&self) -> Key {
        self.ask.target.scope.key(&self.ask.request)
    }

    /// The result of an original, where it is at hand.
    async fn known_result(
        &self,
        original: &Original,
        known: Option<KnownResult<Key>>,
    ) -> Option<Bytes> {
        if let Some(known) = known {
            let own = self.guard.replaces().or(self.guard.outdated());
            if let Some(text) = self.checked(own.cloned(), known.sum).await {
                return Some(text);
            }
            let other = self.proxy.texts.cache().peek(&known.key);
            if let Some(text) = self.checked(other, known.sum).await {
                return Some(text);
            }
        }

        let tier = self.proxy.tier.as_ref()?;
        let found = tier.made_from(original.digest()).await?;
        let fits = found.text.len() as u64 <= self.proxy.settings.max_poem;
        (fits && tier.is_current(found.epoch)).then_some(found.text)
    }

    /// The text, if it is the result.
    async fn checked(&self, text: Option<Poem>, sum: ResultSum) -> Option<Bytes> {
        let text = text?;
        let length = text.len();
        if length > self.proxy.settings.max_poem {
            return None;
        }
        let look = rt::busy(length as usize, move || {
            let bytes = text.bytes();
            (ResultSum::of(&bytes) == sum).then_some(bytes)
        });
        look.await
    }

    /// Runs the transformations. Where they fail, the original may do.
    async fn run_transforms(&mut self, poem: Bytes, pipeline: &Pipeline) -> Result<Bytes, Stop> {
        let proxy = self.proxy.clone();
        let settings = &proxy.settings;
        self.listed.is(Phase::Transforming);
        let spare = settings.original_on_failure.then(|| poem.clone());

        let done = pipeline.apply(poem, settings.max_poem, settings.timeouts);
        let done = done.await;
        proxy.stats.transform_ended(done.as_ref().err());
        match (done, spare) {
            (Ok(done), _) => Ok(done),
            (Err(error), None) => Err(error.into()),
            (Err(error), Some(original)) => {
                proxy.observer.event(Event::SentOriginal {
                    fetch: self.name(),
                    error: &error,
                });
                self.guard.pass(Instant::now()); // the next request may have more luck
                Ok(original)
            }
        }
    }
}
