//! A tier behind the memory cache. The fetch of a text asks it before the upstream; a
//! client never does.
//!
//! A tier belongs to this process, or many processes share it: a fleet. Of a fleet, one
//! process fetches a text, its *holder*, and the others *follow* that.
//!
//! | the tier says | the fetch |
//! |---|---|
//! | [`Claim::Found`] | lands the copy with its true age, and asks no upstream |
//! | the same, stale and with a lease | lands it, and refreshes it with that lease |
//! | [`Claim::Follow`] | passes on what the holder has so far, and the rest as it comes |
//! | [`Claim::Lead`] | asks the upstream, publishes what comes, and commits the whole |
//! | [`Claim::Vacant`] | waits for a place before the upstream, and asks again |
//! | [`Claim::Alone`] | asks the upstream; the tier can't be used now |
//!
//! **The lease and the place.** A lease that waits for a place before the upstream
//! would keep the other processes from fetching. So [`Question::may_lead`] is set only
//! by a fetch that has its place, where [`Tier::is_shared`].
//!
//! **The end of a lease**, and what its followers are told:
//!
//! | the fetch | the lease | the followers |
//! |---|---|---|
//! | is complete and kept | [`Lease::commit`] | [`News::End`], kept |
//! | is complete, but rejected, purged or without ttl | [`Lease::pass`] | [`News::End`], not kept |
//! | failed at the upstream | [`Lease::fail`], [`Failure::Failed`] | [`News::Failed`] |
//! | never reached an upstream | [`Lease::fail`], [`Failure::Unreached`] | [`News::Unreached`] |
//! | is too long to be kept, was given up, failed by itself | dropped | [`News::Gone`] |
//! | dies with its process, or is slower than the tier allows | runs out | [`News::Gone`] |
//!
//! **Order of an end:** the text is in memory, its readers know that it is complete,
//! and then the tier gets it. A tier that fails costs its answer, never a request.
//!
//! **Time.** Clocks of two processes are never compared. Where a tier tells since when
//! a text is complete, that is an instant of this process, and never later than the
//! true one: it is counted from before the question was sent. This proxy's own ttl and
//! grace count from there.
//!
//! **Purges.** A purge calls [`Tier::purge_begins`], purges the memory, and calls
//! [`Tier::purge`]. Three rules keep an old text from coming back:
//!
//! * A copy lands, and a fetch is followed, only if [`Tier::is_current`], asked after
//!   its flight has begun: no purge has begun since the tier looked. One that begins
//!   later finds a flight that has begun, and detaches it.
//! * A text is committed only if no purge has ended since [`Lease::fence`], which is
//!   called before the text lands. If a purge of the memory came before it landed, it
//!   was not kept, and is not committed. A fleet refuses it, too, if any process has
//!   purged since the lease was given. Its followers learn that it is not kept.
//! * What another process purges is purged here: [`Tier::on_purge`].

mod proof;
#[cfg(any(feature = "fleet", feature = "store"))]
mod tally;

use crate::cache::{Freshness, Purge};
use crate::control::StoreCounts;
use crate::flight::Reader;
use crate::poem::Poem;
use crate::semaphore::Permit;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
pub use proof::{Differs, Proof};
use std::sync::Arc;
use std::time::{Duration, Instant};
#[cfg(any(feature = "fleet", feature = "store"))]
pub(crate) use tally::TierTally;

/// The SHA-256 of an original and of what transforms it.
pub type OriginalDigest = [u8; 32];

/// A tier behind the memory cache.
pub trait Tier: Send + Sync {
    /// Whether other processes use it, too. Then a lease keeps them from fetching, and
    /// only a fetch with a place before the upstream asks for one.
    fn is_shared(&self) -> bool {
        false
    }

    /// Asks for a text, or for the right to lead. Ends in time, whatever the tier does.
    /// Dropped before, it leaves no lease behind.
    fn claim<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Claim>;

    /// A text that was made from the original with this digest, of whatever age and
    /// key. Ends in time, whatever the tier does. None where the tier does not note
    /// that.
    fn made_from(&self, original: OriginalDigest) -> BoxFuture<'_, Option<StoredText>> {
        let _not_noted = original;
        std::future::ready(None).boxed()
    }

    /// Whether no purge has begun since a copy of this epoch was looked for.
    fn is_current(&self, epoch: u64) -> bool;

    /// A purge of the memory is about to begin. [`Tier::purge`] must follow.
    fn purge_begins(&self);

    /// Purges texts, and waits, within limits, until they can't come back. A soft purge
    /// of all texts makes them stale at once; any other deletes.
    fn purge(&self, texts: Erase, how: Purge);

    /// Sets what is told of purges that other processes made. The tier has moved its
    /// epoch on before it tells. It may tell of more than was purged.
    fn on_purge(&self, _tell: OnPurge) {}

    /// The figures at this moment.
    fn counts(&self) -> StoreCounts;

    /// Gives back the leases that are out, keeps what is still to be kept, and closes.
    /// Waits at most `limit`. Returns whether that was enough.
    fn close(&self, limit: Duration) -> BoxFuture<'_, bool>;
}

/// What a fetch asks a tier.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The whole key of the text.
    pub key: &'a [u8],
    /// What is wanted of it.
    pub wish: Wish,
    /// Whether the fetch takes a lease. A tier that is not shared need not look.
    pub may_lead: bool,
    /// The longest ttl that this proxy gives a text of the key.
    pub ttl: Duration,
    /// How long it may be served after that.
    pub grace: Duration,
}

/// Which text a fetch wants of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Of any age within its ttl and grace.
    Text,
    /// Within its ttl: that in memory is no longer, or not for long.
    Newer,
    /// None that is complete already. A fetch that is under way will do.
    New,
}

/// The answer of a tier.
pub enum Claim {
    /// The tier has the text.
    Found(StoredText),
    /// Another process fetches it.
    Follow(Box<dyn Follow>),
    /// It has not: fetch it, and commit it.
    Lead(Box<dyn Lease>),
    /// It has not, and no process fetches it: ask again with a place. Only where
    /// [`Question::may_lead`] is false.
    Vacant,
    /// The tier can't be used.
    Alone,
}

/// A text as a tier has it. It was checked.
pub struct StoredText {
    /// The text.
    pub text: Bytes,
    /// How long it may be served. It may be stale already.
    pub term: Term,
    /// How many purges had begun when it was looked for.
    pub epoch: u64,
    /// Bounds the texts that are read and not yet counted against the capacity. Drop
    /// it once the text is counted.
    pub permit: Permit,
    /// The right to refresh it, if it is past its ttl and no process does.
    pub lease: Option<Box<dyn Lease>>,
}

/// How long a copy may be served.
#[derive(Debug, Clone, Copy)]
pub enum Term {
    /// The tier knows.
    Until(Freshness),
    /// It was complete then, or later. This proxy's ttl and grace count from there.
    Since(Instant),
}

/// The right to hand a text to a tier. Dropped, it is given back.
pub trait Lease: Send + Sync {
    /// Lets other processes read along: `reader` reads the flight from its first byte,
    /// and is no reader that a fetch waits for. Called at most once, and never for what
    /// may still be taken back: such a text is handed over at its end alone.
    fn publish(&mut self, _reader: Reader) {}

    /// Notes the time and the purges until now. To be called right before the text
    /// lands in memory.
    fn fence(&mut self);

    /// Notes the digest of the original that the text was made from by a
    /// transformation.
    fn made_from(&mut self, original: OriginalDigest) {
        let _not_noted = original;
    }

    /// Hands the text over. `ttl` is its own, where it has not the usual one. Never
    /// waits.
    fn commit(self: Box<Self>, text: Poem, ttl: Option<Duration>);

    /// The text is complete and not to be kept: its followers get it, and no later
    /// question. Never waits.
    fn pass(self: Box<Self>, _text: Poem) {}

    /// There will be no text. `why` is for the followers' logs. Never waits.
    fn fail(self: Box<Self>, _how: Failure, _why: &str) {}
}

/// How a fetch failed, for its followers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The upstream was reached, and failed.
    Failed,
    /// No upstream was reached. That may be so from this process alone.
    Unreached,
}

/// Another process's fetch, to be followed. Dropped, it is followed no longer.
pub trait Follow: Send {
    /// How many purges had begun when it was found.
    fn epoch(&self) -> u64;

    /// What comes next. Ends in time, whatever the tier does: with [`News::Gone`] if
    /// nothing is known of the holder any more. Not to be called after the last news.
    fn next(&mut self) -> BoxFuture<'_, News>;
}

/// What a follower learns. All but bytes are the last that it learns.
#[derive(Debug)]
pub enum News {
    /// The next bytes of the text, at least one.
    Bytes(Bytes),
    /// The text is complete: the tier has checked all bytes since the first.
    End {
        /// It was complete then, or later.
        since: Instant,
        /// Whether the tier keeps it.
        is_kept: bool,
    },
    /// The upstream failed; why, in the words of the holder.
    Failed(String),
    /// The holder reached no upstream.
    Unreached,
    /// The holder, the tier, or some of the bytes are gone: what comes next can't be
    /// known.
    Gone,
}

/// What [`Tier::purge`] deletes.
pub enum Erase {
    /// All texts.
    All,
    /// The text of this key.
    Key(Vec<u8>),
    /// The texts whose keys are picked.
    Picked(PickKeys),
}

/// Picks keys.
pub type PickKeys = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What is told of a purge that another process made. It never waits.
pub type OnPurge = Arc<dyn Fn(PurgedElsewhere<'_>, Purge) + Send + Sync>;

/// What another process has purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgedElsewhere<'a> {
    /// All texts.
    All,
    /// The text of this whole key.
    Key(&'a [u8]),
}

impl Erase {
    /// Whether this key's text is among them.
    pub fn takes(&self, key: &[u8]) -> bool {
        match self {
            Erase::All => true,
            Erase::Key(own) => own == key,
            Erase::Picked(pick) => pick(key),
        }
    }
}
