//! Is a whole text an upstream's error message, and how long is it fresh?

use super::Fetch;
use crate::coalesce::Verdict;
use crate::handler::proxy::Rejects;
use crate::poem::Poem;
use crate::protocol::Protocol;
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

impl Fetch {
    /// Finds out whether the reply is to be kept, and for how long. It is looked at as
    /// the upstream sent it.
    pub(super) async fn judge(&mut self, reply: Poem) {
        let target = &self.ask.target;
        let Rejects { pattern, min_bytes } = &target.rejects;
        let has_patterns = pattern.is_some() || target.ttls.has_patterns();
        (self.rejected, self.ttl) = (None, None);
        if !has_patterns && *min_bytes == 0 {
            return;
        }

        let copies = reply.pieces().len() > 1;
        let permit = if copies {
            Some(SCAN_PERMITS.acquire(Instant::now()).await)
        } else {
            None
        };
        let poem = self.proxy.settings.protocol.payload(reply.bytes());
        if (poem.len() as u64) < *min_bytes {
            self.rejected = Some(RejectReason::TooShort);
            return;
        }
        if !has_patterns {
            return;
        }

        let (pattern, ttls) = (pattern.clone(), target.ttls.clone());
        let look = rt::busy(poem.len(), move || {
            let _until_done = permit;
            let is_rejected = pattern.is_some_and(|pattern| pattern.is_match(&poem));
            (is_rejected, ttls.of(&poem))
        });
        let (is_rejected, ttl) = look.await;
        self.rejected = is_rejected.then_some(RejectReason::Pattern);
        self.ttl = ttl;
    }

    /// Whether a text that another process has fetched is a whole answer by this
    /// proxy's rules. A framed or transformed one does not tell.
    pub(super) fn is_whole(&self, text: &Poem) -> bool {
        let settings = &self.proxy.settings;
        let ends = &self.ask.target.ends;
        let is_plain = settings.protocol != Protocol::Netstring && settings.pipeline.is_none();
        if ends.marker.is_none() || !is_plain {
            return !text.is_empty() || ends.allow_empty;
        }
        ends.is_whole(&text.bytes())
    }

    /// How the whole text is kept.
    pub(super) fn keep(&self) -> Verdict {
        let target = &self.ask.target;
        if target.ttls.is_empty() {
            return Verdict::Keep;
        }
        let ttl = self.ttl.unwrap_or(target.times.ttl);
        Verdict::KeepFor(target.ttls.jittered(ttl, fastrand::f64()))
    }
}
