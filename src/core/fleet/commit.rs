//! The end of a lease: its text is committed, or passed on without being kept, or there
//! is none.
//!
//! | the text | is committed |
//! |---|---|
//! | up to 8 KiB, and nothing of it was published | inside its record, in one command |
//! | else | as a record that names its pieces |
//!
//! COMMIT goes out right behind the last pieces. It counts them, so a text of which one
//! was lost is not kept.

use super::answers::{Committed, committed};
use super::link::{LinkError, ScriptCall};
use super::pieces::{LeaseEnd, Publisher, Stuck};
use super::record::{Head, INLINE_MOST, TextMark, TextPlace};
use super::scripts::SCRIPTS;
use super::{add, lock};
use crate::poem::Poem;
use crate::rt;
use futures::StreamExt;
use redis::Value;
use std::time::{Duration, Instant};

/// How much longer pieces are kept than the record that names them.
const BEYOND_MS: &str = "60000";

impl Publisher {
    /// Tells the end.
    pub(super) async fn finish(mut self, end: LeaseEnd) {
        let is_committed = match end {
            LeaseEnd::Keep { text, ttl, at } => self.commit(&text, Some((ttl, at))).await.is_ok(),
            LeaseEnd::Pass { text } => self.commit(&text, None).await.is_ok(),
            LeaseEnd::Fail { how, why } => {
                let held = &self.held;
                let arguments = vec![
                    held.token.clone().into(),
                    self.sent.to_string().into(),
                    how.into(),
                    why.into(),
                ];
                self.shared
                    .end(&held.name(), &held.pieces(), arguments)
                    .await;
                true
            }
            LeaseEnd::GiveBack => false,
        };
        if !is_committed {
            let held = &self.held;
            self.shared
                .give_back(&held.name(), &held.pieces(), &held.token)
                .await;
        }
    }

    /// Hands over the text; without a ttl and a time, it is not kept.
    async fn commit(
        &mut self,
        text: &Poem,
        kept: Option<(Option<Duration>, Instant)>,
    ) -> Result<(), Stuck> {
        let is_inline = self.sent == 0 && text.len() <= INLINE_MOST as u64;
        let inline = if is_inline {
            text.bytes()
        } else {
            self.send_rest(text).await?;
            Default::default()
        };
        let mark = if is_inline {
            TextMark::of(&inline)
        } else {
            self.mark()
        };

        let links = lock(&self.shared.links).clone().ok_or(Stuck)?;
        let told = self.told(mark, &inline, kept);
        let answer = rt::within(self.shared.carry_wait(), links.carry.run(&told)).await;
        while let Some(arrived) = self.under_way.next().await {
            arrived?;
        }
        self.committed(answer, kept.is_some())
    }

    fn committed(
        &self,
        answer: Option<Result<Value, LinkError>>,
        is_to_be_kept: bool,
    ) -> Result<(), Stuck> {
        let figures = &self.shared.figures;
        match answer.map(|answer| answer.map(committed)) {
            Some(Ok(Some(Committed::Kept))) => add(&figures.tally.written),
            Some(Ok(Some(Committed::Unkept(why)))) => {
                if is_to_be_kept {
                    add(&figures.tally.dropped);
                }
                why.into_iter().for_each(|why| self.shared.unwritable(why));
            }
            Some(Ok(Some(Committed::Deposed))) => self.shared.count_deposed(&self.held),
            Some(Ok(Some(Committed::Lost))) => add(&figures.tally.dropped),
            Some(Err(LinkError::Refused { text, .. })) => {
                add(&figures.tally.dropped);
                self.shared.unwritable(text);
                return Err(Stuck);
            }
            _ => {
                add(&figures.tally.dropped);
                return Err(Stuck);
            }
        }
        Ok(())
    }

    fn told(
        &self,
        text: TextMark,
        inline: &[u8],
        kept: Option<(Option<Duration>, Instant)>,
    ) -> ScriptCall<'static> {
        let held = &self.held;
        let (ttl, at) = kept.unwrap_or((None, Instant::now()));
        let keep_for = match kept {
            None => Duration::ZERO,
            Some((ttl, _)) => ttl.unwrap_or(held.ttl).saturating_add(held.grace),
        };
        let place = match self.pieces {
            0 => TextPlace::Inline(held.token.clone()),
            _ => TextPlace::Pieces(held.token.clone()),
        };
        let head = Head {
            generation: held.epoch.generation,
            end: 0, // the script fills it in
            text,
            place,
            ttl,
        };

        // Both are bounds from below: a text may seem older than it is, never younger.
        let since = at.elapsed().as_millis() + 1;
        let latest = held.given + at.saturating_duration_since(held.received).as_millis() as u64;
        let number = |number: u64| number.to_string().into_bytes();
        ScriptCall {
            script: &SCRIPTS.commit,
            names: vec![
                held.names.record(),
                held.name(),
                self.shared.names.generation(),
                held.pieces(),
                held.names.purges(),
            ],
            arguments: vec![
                held.token.clone().into_bytes(),
                number(held.epoch.generation),
                number(kept_ms(keep_for)),
                since.to_string().into_bytes(),
                number(latest),
                number(self.pieces),
                number(text.length),
                super::hex(&text.digest).into_bytes(),
                head.rest(&held.key).into_bytes(),
                held.key.clone(),
                inline.to_vec(),
                BEYOND_MS.into(),
                number(held.epoch.of_key),
            ],
        }
    }
}

/// In milliseconds, as the server takes them: a year is enough.
fn kept_ms(time: Duration) -> u64 {
    const YEAR_MS: u128 = 366 * 24 * 60 * 60 * 1000;
    time.as_millis().min(YEAR_MS) as u64
}
