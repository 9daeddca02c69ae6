//! What a shard holds for one key.

use super::sieve::Links;
use crate::cache::Reservation;
use crate::cache::span::Span;
use crate::cache::stamp::Stamp;
use crate::cache::stored::{RetireOnDrop, Stored};
use std::sync::Arc;
use std::time::Instant;

/// A key, with a value, a fetch or both. With a poem it is one cache line, and lies in
/// one: a hit waits for memory once.
#[repr(align(64))]
pub(in crate::cache) struct Entry<K, V: Stored, F> {
    pub(in crate::cache) key: K,
    pub(super) links: Links,
    holds: Holding<V, F>,
}

/// Most entries have a value and no fetch, so that needs no further memory.
enum Holding<V: Stored, F> {
    Nothing,
    Kept(Kept<V>),
    Fetched(Box<Fetched<V, F>>),
}

struct Fetched<V: Stored, F> {
    kept: Option<Kept<V>>,
    fetch: FetchEntry<F>,
}

/// A cached value, and how long it is kept.
pub(in crate::cache) struct Kept<V: Stored> {
    stored: RetireOnDrop<V>,
    pub(super) life: Life,
}

/// How long a value is kept. With a poem, an entry has no byte to spare, so only one
/// end is a time.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache) struct Life {
    /// Until then it is served.
    pub(super) fresh_until: Stamp,
    /// For so long before that, a request for it may start a refresh.
    pub(super) ahead: Span,
    /// For so long after that, it is served while it is refreshed.
    pub(super) grace: Span,
}

/// What an entry knows of the last fetch of its key.
pub(in crate::cache) struct FetchEntry<F> {
    pub(in crate::cache) ticket: u64,
    pub(in crate::cache) state: FetchState<F>,
    /// Refreshes that have failed in a row.
    pub(in crate::cache) failures: u32,
    /// While a stale value is kept, its next refresh waits until then. Of a fetch in
    /// flight, when it was asked for.
    pub(in crate::cache) not_before: Instant,
}

pub(in crate::cache) enum FetchState<F> {
    /// Requests join it.
    InFlight(F),
    /// It failed. While the failure is cached, requests join the failed flight.
    Negative(F, NegativeEntry),
    /// Its value was too long to be shared. While that is cached, each request fetches
    /// for itself.
    HitForMiss(NegativeEntry),
    /// A refresh failed, and its failure is not cached. Only `not_before` matters.
    Paused,
}

/// How long a cached failure lasts, and what it costs.
pub(in crate::cache) struct NegativeEntry {
    pub(in crate::cache) until: Instant,
    /// Freed with the entry, or by the last reader of its flight.
    pub(in crate::cache) _reservation: RetireOnDrop<Arc<Reservation>>,
}

impl<F> FetchEntry<F> {
    /// Whether this is a cached failure, and no fetch.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self.state, FetchState::Negative(..))
    }

    /// Whether time has ended this. `has_value` says whether a stale value is kept,
    /// whose refresh may have to wait.
    pub(super) fn is_over(&self, now: Instant, has_value: bool) -> bool {
        let may_refresh = !has_value || now >= self.not_before;
        match &self.state {
            FetchState::InFlight(_) => false,
            FetchState::Negative(_, negative) | FetchState::HitForMiss(negative) => {
                now >= negative.until && may_refresh
            }
            FetchState::Paused => may_refresh,
        }
    }

    pub(in crate::cache) fn is_in_flight(&self) -> bool {
        matches!(self.state, FetchState::InFlight(_))
    }
}

impl<F> FetchState<F> {
    /// The flight alone. What the cached failure cost is freed here and now.
    pub(in crate::cache) fn into_flight(self) -> Option<F> {
        match self {
            FetchState::InFlight(flight) | FetchState::Negative(flight, _) => Some(flight),
            FetchState::HitForMiss(_) | FetchState::Paused => None,
        }
    }
}

impl<V: Stored> Kept<V> {
    pub(super) fn new(stored: V, life: Life) -> Kept<V> {
        Kept {
            stored: RetireOnDrop::new(stored),
            life,
        }
    }

    #[inline]
    pub(in crate::cache) fn value(&self) -> &V::Value {
        self.stored.stored().value()
    }

    /// The bytes that it counts.
    pub(in crate::cache) fn weight(&self) -> u64 {
        let reservation = self.stored.stored().reservation();
        reservation.map_or(0, Reservation::bytes)
    }
}

impl<K, V: Stored, F> Entry<K, V, F> {
    pub(super) fn new(key: K) -> Entry<K, V, F> {
        Entry {
            key,
            links: Links::new(),
            holds: Holding::Nothing,
        }
    }

    #[inline]
    pub(in crate::cache) fn kept(&self) -> Option<&Kept<V>> {
        match &self.holds {
            Holding::Kept(kept) => Some(kept),
            Holding::Fetched(fetched) => fetched.kept.as_ref(),
            Holding::Nothing => None,
        }
    }

    /// Whether a purge has ended the freshness of its value, so that this does not tell
    /// the value's age.
    pub(in crate::cache) fn is_purged(&self) -> bool {
        self.links.is_purged()
    }

    pub(super) fn kept_mut(&mut self) -> Option<&mut Kept<V>> {
        match &mut self.holds {
            Holding::Kept(kept) => Some(kept),
            Holding::Fetched(fetched) => fetched.kept.as_mut(),
            Holding::Nothing => None,
        }
    }

    pub(in crate::cache) fn fetch(&self) -> Option<&FetchEntry<F>> {
        match &self.holds {
            Holding::Fetched(fetched) => Some(&fetched.fetch),
            Holding::Kept(_) | Holding::Nothing => None,
        }
    }

    pub(in crate::cache) fn fetch_mut(&mut self) -> Option<&mut FetchEntry<F>> {
        match &mut self.holds {
            Holding::Fetched(fetched) => Some(&mut fetched.fetch),
            Holding::Kept(_) | Holding::Nothing => None,
        }
    }

    /// The fetch with this ticket, while it is the entry's own. A late fill must not
    /// touch another's.
    pub(in crate::cache) fn fetch_of(&mut self, ticket: u64) -> Option<&mut FetchEntry<F>> {
        self.fetch_mut().filter(|fetch| fetch.ticket == ticket)
    }

    /// Both parts, for a change of either.
    fn take(&mut self) -> (Option<Kept<V>>, Option<FetchEntry<F>>) {
        match std::mem::replace(&mut self.holds, Holding::Nothing) {
            Holding::Nothing => (None, None),
            Holding::Kept(kept) => (Some(kept), None),
            Holding::Fetched(fetched) => (fetched.kept, Some(fetched.fetch)),
        }
    }

    fn put(&mut self, kept: Option<Kept<V>>, fetch: Option<FetchEntry<F>>) {
        self.holds = match (kept, fetch) {
            (None, None) => Holding::Nothing,
            (Some(kept), None) => Holding::Kept(kept),
            (kept, Some(fetch)) => Holding::Fetched(Box::new(Fetched { kept, fetch })),
        };
    }

    /// Sets what is known of the last fetch, in place of what was known.
    pub(in crate::cache) fn set_fetch(&mut self, fetch: FetchEntry<F>) {
        let (kept, _) = self.take();
        self.put(kept, Some(fetch));
    }

    pub(in crate::cache) fn take_fetch(&mut self) -> Option<FetchEntry<F>> {
        self.fetch()?;
        let (kept, fetch) = self.take();
        self.put(kept, None);
        fetch
    }

    /// Takes out the fetch if `is_wanted` says so.
    pub(in crate::cache) fn take_fetch_if(
        &mut self,
        is_wanted: impl FnOnce(&FetchEntry<F>) -> bool,
    ) -> Option<FetchEntry<F>> {
        self.fetch().filter(|fetch| is_wanted(fetch))?;
        self.take_fetch()
    }

    /// Only the table may do that, which has a list of values.
    pub(super) fn set_kept(&mut self, kept: Kept<V>) {
        match &mut self.holds {
            Holding::Fetched(fetched) => fetched.kept = Some(kept),
            holds => *holds = Holding::Kept(kept),
        }
    }

    /// Only the table may do that, too.
    pub(super) fn take_kept(&mut self) -> Option<Kept<V>> {
        if let Holding::Fetched(fetched) = &mut self.holds {
            return fetched.kept.take();
        }
        self.take().0
    }

    /// Whether time has ended the fetch, beside a value that is kept or not.
    pub(super) fn take_fetch_over(&mut self, now: Instant) -> Option<FetchEntry<F>> {
        let has_value = self.kept().is_some();
        self.take_fetch_if(|fetch| fetch.is_over(now, has_value))
    }

    /// Whether a value of the fetch with this ticket may be kept: the entry is its own,
    /// and time has not ended it.
    pub(in crate::cache) fn takes_value_of(&self, ticket: u64, now: Instant) -> bool {
        let has_value = self.kept().is_some();
        let is_own = |fetch: &FetchEntry<F>| fetch.ticket == ticket;
        self.fetch()
            .is_some_and(|fetch| is_own(fetch) && !fetch.is_over(now, has_value))
    }

    /// Whether the value must stay: its refresh is under way, and needs it to compare
    /// with.
    pub(super) fn is_pinned(&self) -> bool {
        self.fetch().is_some_and(FetchEntry::is_in_flight)
    }

    /// Whether nothing is left. A pause without a value holds nothing back, and its
    /// entry would be counted nowhere.
    pub(super) fn is_void(&self) -> bool {
        match &self.holds {
            Holding::Nothing => true,
            Holding::Kept(_) => false,
            Holding::Fetched(fetched) => {
                fetched.kept.is_none() && matches!(fetched.fetch.state, FetchState::Paused)
            }
        }
    }
}

/// What an entry lost to time.
pub(in crate::cache) struct Taken<V: Stored, F> {
    pub(super) kept: Option<Kept<V>>,
    pub(super) fetch: Option<FetchEntry<F>>,
}

impl<V: Stored, F> Taken<V, F> {
    /// The value, past its grace.
    pub(in crate::cache) fn value(&self) -> Option<V::Value> {
        self.kept.as_ref().map(|kept| kept.value().clone())
    }

    /// Refreshes that had failed in a row, for the next one to go on counting. A value
    /// that is gone ends the row.
    pub(in crate::cache) fn failures(&self) -> u32 {
        if self.kept.is_some() {
            return 0;
        }
        self.fetch.as_ref().map_or(0, |fetch| fetch.failures)
    }
}
