//! What a fetch gets of the fleet.
//!
//! | LOOK says | wish | the fetch gets |
//! |---|---|---|
//! | fresh | text, newer | the text |
//! | held by another | text | the stale text if there is one, else its fetch to follow |
//! | | newer, new | its fetch to follow |
//! | ours | text | the stale text with the lease, or the lease |
//! | | newer, new | the lease |
//! | free | text | the stale text if there is one, else [`Claim::Vacant`] |
//! | | newer, new | [`Claim::Vacant`] |
//! | can't be written | | the stale text if there is one, else [`Claim::Alone`] |
//! | nothing in 50 ms, or what makes no sense | | [`Claim::Alone`] |
//!
//! A record that is not what it says, or whose pieces are gone, is taken for none.

use super::answers::{LookKind, Looked, looked};
use super::follow::{Following, read_kept};
use super::leases::{FleetLease, LEASE};
use super::link::{LinkError, ScriptCall};
use super::record::{self, HEAD_MOST, INLINE_MOST, TextPlace, TextRecord};
use super::scripts::SCRIPTS;
use super::{FleetCore, LinkPair, PurgeNumbers, add};
use crate::observe::StoreNews;
use crate::rt;
use crate::tier::{Claim, Lease, Question, StoredText, Term, Wish};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use redis::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest record that is read: its first line, a key, and a text. Keys name
/// upstreams, transformations and a request, each of which is short or a digest.
const RECORD_MOST: usize = HEAD_MOST + (32 << 10) + INLINE_MOST;

/// How far the clocks of a server and of the one that takes its place may be apart: as
/// the store on a disk has it. What is from further ahead is not used.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// How long the answer to a late question is waited for, to give back the lease that it
/// may bring. After that the lease has run out.
const LATE_WAIT: Duration = LEASE;

/// An answer of LOOK, and when it was asked for.
pub(super) struct LookAnswer {
    pub said: Looked,
    pub links: Arc<LinkPair>,
    pub epoch: u64,
    /// Before it was sent.
    pub sent: Instant,
    /// After it was received.
    pub received: Instant,
}

impl FleetCore {
    pub(super) async fn claim(self: &Arc<Self>, question: &Question<'_>) -> Claim {
        // A record that can't be read is deleted or left aside; once is enough.
        let mut wish = question.wish;
        loop {
            let Some(look) = self.look(question, wish).await else {
                return Claim::Alone;
            };
            if let LookKind::Held { token, .. } = &look.said.kind
                && self.ends_here(token).await
            {
                continue;
            }
            // At once: dropped with this future, it is given back.
            let lease = match &look.said.kind {
                LookKind::Ours { token } => Some(FleetLease::given(
                    self.clone(),
                    question,
                    &look,
                    token.clone(),
                )),
                _ => None,
            };
            let is_fresh = look.said.kind == LookKind::Fresh;
            let copy = self.copy(question, &look).await;
            if is_fresh && copy.is_none() && wish != Wish::New {
                wish = Wish::New;
                continue;
            }
            return match copy {
                Some(copy) => self.found(copy, lease, is_fresh),
                None => self.without_copy(question, &look, lease),
            };
        }
    }

    /// Whether the lease is one of this proxy's own whose end is on its way. That is
    /// waited for: a fetch that has ended here is not to be followed here.
    async fn ends_here(&self, token: &str) -> bool {
        let Some(ended) = self.leases.ended(token) else {
            return false;
        };
        rt::within(self.settings.answer_wait, ended).await.is_some()
    }

    fn found(&self, copy: StoredText, lease: Option<Box<dyn Lease>>, is_fresh: bool) -> Claim {
        add(if is_fresh {
            &self.figures.tally.hits
        } else {
            &self.figures.tally.stale
        });
        Claim::Found(StoredText { lease, ..copy })
    }

    fn without_copy(
        self: &Arc<Self>,
        question: &Question<'_>,
        look: &LookAnswer,
        lease: Option<Box<dyn Lease>>,
    ) -> Claim {
        match (&look.said.kind, lease) {
            (LookKind::Ours { .. }, Some(lease)) => {
                add(&self.figures.tally.misses);
                Claim::Lead(lease)
            }
            (LookKind::Held { token, left }, _) => {
                add(&self.figures.tally.misses);
                let left = Duration::from_millis(*left);
                let holder = (token.clone(), left);
                let following = Following::new(self.clone(), question.key, holder, look);
                Claim::Follow(Box::new(following))
            }
            (LookKind::Free, _) if !question.may_lead => Claim::Vacant,
            _ => Claim::Alone,
        }
    }

    /// Asks what there is. `None` if the server can't be asked, or gives no answer in
    /// time.
    async fn look(self: &Arc<Self>, question: &Question<'_>, wish: Wish) -> Option<LookAnswer> {
        let (epoch, generation) = {
            let purges = super::lock(&self.purges);
            (purges.epoch()?, purges.generation())
        };
        let links = self.usable()?;
        let told = self.question(question, wish, generation);

        let sent = Instant::now();
        let asking = {
            let links = links.clone();
            async move { links.ask.run(&told).await }.boxed()
        };
        let asked = LookAsked {
            shared: self.clone(),
            asking: Some(asking),
            key: question.key.to_vec(),
        };
        let answer = asked.answer().await?;
        let received = Instant::now();

        let said = self.understood(answer)?;
        self.answered();
        self.compare(PurgeNumbers {
            generation: said.generation,
            of_one: said.purges_of_one,
        });
        if let LookKind::Unwritable { why } = &said.kind {
            self.unwritable(why.clone());
        }
        Some(LookAnswer {
            said,
            links,
            epoch,
            sent,
            received,
        })
    }

    /// What an answer says. One that is none counts against the server.
    fn understood(&self, answer: Result<Value, LinkError>) -> Option<Looked> {
        match answer {
            Ok(answer) => {
                let said = looked(answer);
                if said.is_none() {
                    add(&self.figures.tally.errors);
                    let why = "answers that make no sense".into();
                    self.failed(StoreNews::NotRedis { why });
                }
                said
            }
            Err(LinkError::Lost) => None, // the keeper tells it
            // It will answer soon: it runs another program's script, or reads its file.
            Err(LinkError::Refused { code, text }) if is_passing(&code) => {
                add(&self.figures.tally.errors);
                self.failed(StoreNews::Unreached { why: text });
                None
            }
            Err(LinkError::Refused { text, .. }) => {
                self.refused(text);
                None
            }
        }
    }

    fn question(
        &self,
        question: &Question<'_>,
        wish: Wish,
        generation: u64,
    ) -> ScriptCall<'static> {
        let names = self.names.key(question.key);
        let ms = |time: Duration| time.as_millis().to_string().into_bytes();
        let grace = match wish {
            Wish::Text => question.grace,
            Wish::Newer | Wish::New => Duration::ZERO,
        };
        let lease = if question.may_lead {
            LEASE
        } else {
            Duration::ZERO
        };
        let is_record_useless = u8::from(wish == Wish::New);
        ScriptCall {
            script: &SCRIPTS.look,
            names: vec![
                names.record(),
                names.leases(),
                self.names.generation(),
                self.names.purges_of_one(),
                self.names.tokens(),
                names.purges(),
            ],
            arguments: vec![
                ms(question.ttl),
                ms(grace),
                ms(lease),
                self.leases.nonce(&self.id).into_bytes(),
                RECORD_MOST.to_string().into_bytes(),
                generation.to_string().into_bytes(),
                is_record_useless.to_string().into_bytes(),
                ms(LEASE),
                ms(CLOCKS_APART),
            ],
        }
    }

    /// The text of an answer, checked. `None` if it has none that can be used.
    async fn copy(
        self: &Arc<Self>,
        question: &Question<'_>,
        look: &LookAnswer,
    ) -> Option<StoredText> {
        let record = look.said.record.as_ref()?;
        let Some(TextRecord { head, text }) = record::read(record, question.key) else {
            add(&self.figures.tally.errors);
            return None;
        };
        if head.text.length > self.settings.longest || head.generation != look.said.generation {
            return None;
        }

        let (text, permit) = match &head.place {
            TextPlace::Inline(_) => {
                let permit = self.small_reads.acquire(look.received);
                let permit = rt::within(self.settings.answer_wait, permit).await?;
                (Bytes::copy_from_slice(text), permit)
            }
            TextPlace::Pieces(token) => {
                let permit = self.large_reads.acquire(look.received);
                let permit = rt::within(self.carry_wait(), permit).await?;
                let names = self.names.key(question.key);
                let text = read_kept(self, &look.links, &names, token, head.text).await;
                (text?, permit)
            }
        };

        let age = Duration::from_millis(look.said.now.saturating_sub(head.end));
        Some(StoredText {
            text,
            term: Term::Since(look.sent.checked_sub(age)?),
            epoch: look.epoch,
            permit,
            lease: None,
        })
    }
}

/// Whether a server that refuses with this word will soon not.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(code, "BUSY" | "LOADING" | "MASTERDOWN" | "TRYAGAIN")
}

/// A LOOK under way. Dropped before it is answered, or answered too late, it gives back
/// the lease that it may bring.
struct LookAsked {
    shared: Arc<FleetCore>,
    asking: Option<BoxFuture<'static, Result<Value, LinkError>>>,
    key: Vec<u8>,
}

impl LookAsked {
    /// The answer; `None` if there is none in time.
    async fn answer(mut self) -> Option<Result<Value, LinkError>> {
        let wait = self.shared.settings.answer_wait;
        let asking = self.asking.as_mut()?;
        let mut answer = rt::within(wait, &mut *asking).await;
        if answer.is_none() {
            // It may have come, and this thread may have been busy.
            rt::yield_now().await;
            answer = asking.now_or_never();
        }

        if answer.is_some() {
            self.asking = None;
        } else {
            add(&self.shared.figures.tally.late);
            self.shared.failed(self.shared.silent());
        }
        answer
    }
}

impl Drop for LookAsked {
    fn drop(&mut self) {
        let Some(asking) = self.asking.take() else {
            return;
        };
        let shared = self.shared.clone();
        let names = shared.names.key(&self.key);
        rt::spawn(async move {
            let answer = rt::within(LATE_WAIT, asking).await;
            let said = answer.and_then(Result::ok).and_then(looked);
            if let Some(said) = said
                && let LookKind::Ours { token } = &said.kind
            {
                let lease = names.lease(said.lease_epoch());
                shared.give_back(&lease, &names.pieces(token), token).await;
            }
        });
    }
}
