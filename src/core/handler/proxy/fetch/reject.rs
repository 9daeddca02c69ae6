//! Is a whole text an upstream's error message?

use crate::handler::proxy::{Proxy, Rejects};
use crate::poem::Poem;
use crate::rt;
use crate::semaphore::Semaphore;
use std::sync::LazyLock;
use std::time::Instant;

/// Texts in several pieces that are matched with `--reject` at once. Each is copied
/// into one piece for that, so they must be few.
const SCANS: usize = 2;

static SCAN_PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(SCANS));

/// Why a whole text is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectReason {
    Pattern,
    TooShort,
}

impl RejectReason {
    pub(super) fn words(self) -> &'static str {
        match self {
            RejectReason::Pattern => "matches --reject",
            RejectReason::TooShort => "shorter than --min-bytes",
        }
    }
}

impl Proxy {
    /// Why this reply is not to be kept, if it is not.
    pub(super) async fn reject_reason(&self, reply: Poem) -> Option<RejectReason> {
        let Rejects { pattern, min_bytes } = &self.settings.rejects;
        if pattern.is_none() && *min_bytes == 0 {
            return None;
        }

        let copies = reply.pieces().len() > 1;
        let permit = if copies {
            Some(SCAN_PERMITS.acquire(Instant::now()).await)
        } else {
            None
        };
        let poem = self.settings.protocol.payload(reply.bytes());
        if (poem.len() as u64) < *min_bytes {
            return Some(RejectReason::TooShort);
        }

        let pattern = pattern.clone()?;
        let matches = rt::busy(poem.len(), move || {
            let _until_done = permit;
            pattern.is_match(&poem)
        });
        matches.await.then_some(RejectReason::Pattern)
    }
}
