//! What a client gets whose text is past its ttl and within its grace.
//!
//! | `--serve-stale` | the refresh | the client gets |
//! |---|---|---|
//! | `always` | any | the stale text, at once |
//! | `on-error` | is under way, or begins now | what [`FreshFirst`] chooses |
//! | `on-error` | is under way for longer than `--stale-after` | the stale text, at once |
//! | `on-error` | has just failed, and the next one is paused | the stale text, at once |

use super::key::Key;
use super::{Ask, Proxy};
use crate::coalesce::{Cached, FlightGuard, FreshFirst};
use crate::flight::Reader;
use crate::observe::CacheStatus;
use crate::rt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a stale text is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServeStale {
    /// At once, while it is refreshed.
    #[default]
    Always,
    /// When its refresh has failed, or has not brought the whole new text within this
    /// time. A refresh that takes longer delays no further client.
    OnError(Duration),
}

impl Proxy {
    /// The answer to a request for a stale text, and the refresh if it is the request's
    /// to start.
    pub(super) fn answer_stale(
        self: &Arc<Self>,
        stale: Reader,
        guard: Option<FlightGuard<Key>>,
        key: Key,
        ask: Ask,
        now: Instant,
    ) -> (Reader, CacheStatus) {
        let ServeStale::OnError(wait) = self.settings.serve_stale else {
            if let Some(guard) = guard {
                self.spawn_fetch(ask, guard, now);
            }
            return (stale, CacheStatus::Stale);
        };

        // Joined before it starts: it may end on the spot, and goes before what no
        // client waits for.
        let (refresh, status) = match &guard {
            Some(guard) => (guard.writer().flight().join(), CacheStatus::Miss),
            None => match self.texts.join(&key) {
                Some((_, since)) if now.saturating_duration_since(since) >= wait => {
                    return (stale, CacheStatus::Stale);
                }
                joined => (joined.map(|(reader, _)| reader), CacheStatus::Coalesced),
            },
        };
        if let Some(guard) = guard {
            self.spawn_fetch(ask, guard, now);
        }
        let Some(refresh) = refresh else {
            return self.cached_or(stale, &key, now);
        };

        let proxy = self.clone();
        let look_up = move || proxy.texts.cached(&key, Instant::now());
        let deadline = Box::pin(rt::sleep(wait));
        let reader = FreshFirst::new(refresh, Box::new(look_up), deadline);
        (Reader::pulling(Box::new(reader)), status)
    }

    /// What is cached by now: a refresh may have ended since the text was found stale.
    fn cached_or(&self, stale: Reader, key: &Key, now: Instant) -> (Reader, CacheStatus) {
        match self.texts.cached(key, now) {
            Some(Cached {
                reader,
                is_stale: false,
            }) => (reader, CacheStatus::Coalesced),
            _ => (stale, CacheStatus::Stale),
        }
    }
}
