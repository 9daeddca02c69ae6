//! A tier behind the memory cache. The fetch of a text asks it before the upstream; a
//! client never does.
//!
//! | the tier says | the fetch |
//! |---|---|
//! | [`Claim::Found`] | lands the copy with its true age, and asks no upstream |
//! | [`Claim::Lead`] | asks the upstream, and commits what it brings |
//! | [`Claim::Alone`] | asks the upstream; the tier can't be used now |
//!
//! **Order of an end:** the text is in memory, its readers know that it is complete,
//! and then the tier gets it. A tier that fails costs its answer, never a request.
//!
//! **Purges.** A purge calls [`Tier::purge_begins`], purges the memory, and calls
//! [`Tier::purge`]. Two rules keep an old text from coming back:
//!
//! * A copy lands only if [`Tier::is_current`], asked after its flight has begun: no
//!   purge has begun since the tier looked. One that begins later finds a flight that
//!   has begun, and detaches it.
//! * A text is committed only if no purge has ended since [`Lease::fence`], which is
//!   called before the text lands. If a purge of the memory came before it landed, it
//!   was not kept, and is not committed.

use crate::cache::{Freshness, Purge};
use crate::control::StoreCounts;
use crate::poem::Poem;
use crate::semaphore::Permit;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use std::time::Duration;

/// The SHA-256 of an original and of what transforms it.
pub type OriginalDigest = [u8; 32];

/// A tier behind the memory cache.
pub trait Tier: Send + Sync {
    /// Asks for the text of `key`, or for the right to lead. Ends in time, whatever the
    /// tier does.
    fn claim<'a>(&'a self, key: &'a [u8], wish: Wish) -> BoxFuture<'a, Claim>;

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

    /// The figures at this moment.
    fn counts(&self) -> StoreCounts;

    /// Keeps what is still to be kept, and closes. Waits at most `limit`. Returns
    /// whether that was enough.
    fn close(&self, limit: Duration) -> bool;
}

/// What a fetch wants of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The text, of any age within its ttl and grace.
    Text,
    /// A text that is newer than the one in memory.
    Newer,
}

/// The answer of a tier. A fleet adds a third: follow another process's fetch.
pub enum Claim {
    /// The tier has the text.
    Found(StoredText),
    /// It has not: fetch it, and commit it.
    Lead(Box<dyn Lease>),
    /// The tier can't be used.
    Alone,
}

/// A text as a tier has it. It was checked.
pub struct StoredText {
    /// The text.
    pub text: Bytes,
    /// How long it may be served. It may be stale already.
    pub freshness: Freshness,
    /// How many purges had begun when it was looked for.
    pub epoch: u64,
    /// Bounds the texts that are read and not yet counted against the capacity. Drop
    /// it once the text is counted.
    pub permit: Permit,
}

/// The right to hand a text to a tier. Dropped, it is given back.
pub trait Lease: Send + Sync {
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
