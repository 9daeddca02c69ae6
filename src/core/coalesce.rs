//! What happens when several clients ask for one text at once: the cache and the
//! flights, put together. No I/O, no runtime; time is an argument.
//!
//! ```
//! use poetry::cache::Policy;
//! use poetry::coalesce::{Coalescer, Found, Verdict};
//! use poetry::flight::Read;
//! use std::time::{Duration, Instant};
//!
//! let hour = Duration::from_secs(3600);
//! let policy = Policy {
//!     ttl: hour,
//!     grace: hour,
//!     fail_ttl: Duration::ZERO,
//!     capacity: 1 << 20,
//! };
//! let texts = Coalescer::<&str>::new(policy, 1 << 16);
//! let now = Instant::now();
//!
//! // The first client has to fetch. It reads the flight, like all others.
//! let Found::Missed(mut first, mut guard) = texts.find(&"name", now) else {
//!     panic!()
//! };
//! let Found::Joined(mut second) = texts.find(&"name", now) else {
//!     panic!()
//! };
//! guard.begin();
//! guard.append("a text".into());
//! assert!(guard.land(Verdict::Keep, now));
//! for reader in [&mut first, &mut second] {
//!     assert!(matches!(reader.read(), Read::Chunk(bytes) if bytes == "a text"));
//!     assert!(matches!(reader.read(), Read::End));
//! }
//!
//! // Later clients get the kept text.
//! assert!(matches!(texts.find(&"name", now), Found::Hit(..)));
//! ```
//!
//! | the cache answers | the client reads | and has to fetch |
//! |---|---|---|
//! | hit | the kept text | no |
//! | ahead | the kept text | yes: its ttl ends soon |
//! | stale | the kept text | if no refresh is under way or paused |
//! | coalesced, negative | the flight, from its first byte | no |
//! | miss | the flight, from its first byte | yes |
//!
//! The right to fetch is a [`FlightGuard`].

mod fresh_first;
mod guard;

use crate::cache::{Cache, Freshness, Lookup, Policy, Purge};
use crate::flight::{self, Flight, Reader, Writer};
use crate::poem::Poem;
use crate::sync::atomic::{AtomicU64, Ordering};
pub use fresh_first::{Cached, FreshFirst, LookUp};
pub use guard::{Ended, FlightGuard, Verdict};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

/// The texts of many keys: kept, on their way, or to be fetched.
pub struct Coalescer<K> {
    cache: Arc<Cache<K, Poem, Flight>>,
    /// The longest text that is kept, in bytes. A longer one flows through a window of
    /// this size.
    window: u64,
    /// The readers of all flights.
    readers: Arc<AtomicU64>,
    /// Whether a fetch holds the text that had expired.
    holds_outdated: bool,
}

/// What a client gets.
pub enum Found<K: Eq + Hash + Clone> {
    /// A fresh text, and for how long.
    Hit(Reader, Freshness),
    /// A fresh text whose ttl ends soon, for how long it is fresh, and the duty to
    /// refresh it.
    Ahead(Reader, Freshness, FlightGuard<K>),
    /// A stale text, and the duty to refresh it if no fetch has it.
    Stale(Reader, Option<FlightGuard<K>>),
    /// A text that another client's fetch is bringing.
    Joined(Reader),
    /// A cached failure.
    Negative(Reader),
    /// A text that this client has to fetch.
    Missed(Reader, FlightGuard<K>),
}

/// A purge that has taken place.
#[derive(Debug, Default)]
pub struct Purged {
    /// Texts and cached failures.
    pub texts: u64,
    /// Fetches under way whose texts will not be kept.
    pub fetches: u64,
}

/// Fetches hold texts that had expired while they hold at most this part of the
/// capacity in all: such a text is of use to few, and must not keep others out.
const OUTDATED_PART: u64 = 4;

impl<K: Eq + Hash + Clone> Coalescer<K> {
    /// Without any text. `window` is the longest text that is kept, in bytes.
    pub fn new(policy: Policy, window: u64) -> Coalescer<K> {
        Coalescer::weighing(policy, window, |_| 0)
    }

    /// Like [`Coalescer::new`]. `weigh` says how many bytes a key holds on the heap.
    pub fn weighing(policy: Policy, window: u64, weigh: fn(&K) -> u64) -> Coalescer<K> {
        Coalescer {
            cache: Cache::weighing(policy, weigh),
            window,
            readers: Arc::new(AtomicU64::new(0)),
            holds_outdated: false,
        }
    }

    /// The same, without any text yet, that has texts refreshed in the last part of
    /// their ttl; see [`Cache::refreshing_ahead`].
    pub fn refreshing_ahead(self, part: f64) -> Coalescer<K> {
        Coalescer {
            cache: self.cache.refreshing_ahead(part),
            ..self
        }
    }

    /// Lets a fetch hold the text of its key that had expired, while fetches hold
    /// little else; see [`FlightGuard::outdated`].
    pub fn holding_outdated(mut self) -> Coalescer<K> {
        self.holds_outdated = true;
        self
    }

    /// The cache below.
    pub fn cache(&self) -> &Cache<K, Poem, Flight> {
        &self.cache
    }

    /// Clients that wait for a fetch, or read what one has brought.
    pub fn readers(&self) -> u64 {
        self.readers.load(Ordering::Relaxed)
    }

    /// Decides what a client that asks for `key` gets.
    pub fn find(&self, key: &K, now: Instant) -> Found<K> {
        loop {
            let (flight, found): (Flight, fn(Reader) -> Found<K>) = match self.look_up(key, now) {
                Lookup::Hit(poem, freshness) => return Found::Hit(Reader::of(poem), freshness),
                Lookup::Ahead(poem, freshness, lead) => {
                    let guard = FlightGuard::new(lead.fill, lead.writer, false);
                    return Found::Ahead(Reader::of(poem), freshness, guard);
                }
                Lookup::Stale(poem, lead) => {
                    let guard = lead.map(|lead| FlightGuard::new(lead.fill, lead.writer, false));
                    return Found::Stale(Reader::of(poem), guard);
                }
                Lookup::Miss(mut lead) => {
                    if !self.has_room_for_outdated() {
                        lead.fill.drop_outdated();
                    }
                    let reader = lead.flight.join().expect("a new flight has its beginning");
                    return Found::Missed(reader, FlightGuard::new(lead.fill, lead.writer, true));
                }
                // What it was when it was found: it may end before it is joined.
                Lookup::Coalesced(flight) => (flight, Found::Joined),
                Lookup::Negative(flight) => (flight, Found::Negative),
            };

            if let Some(reader) = flight.join() {
                return found(reader);
            }

            // Its beginning has left the window, or its last reader left before it
            // began. Either way the key is to be free.
            self.cache.detach(key, |other| other.is(&flight));
        }
    }

    fn has_room_for_outdated(&self) -> bool {
        let most = self.cache.policy().capacity / OUTDATED_PART;
        self.holds_outdated && self.cache.in_flight() <= most
    }

    fn look_up(&self, key: &K, now: Instant) -> Lookup<K, Poem, Flight, Writer> {
        self.cache.lookup(key, now, || self.launch())
    }

    fn launch(&self) -> (Writer, Flight) {
        let mut writer = flight::launch_counted(self.window, Some(self.readers.clone()));
        // Before others see it: a purge on another thread spares what has not begun.
        writer.wait_to_begin(false);
        let flight = writer.flight();
        (writer, flight)
    }

    /// A reader of the fetch of `key` that is under way, from its first byte, and since
    /// when it is.
    pub fn join(&self, key: &K) -> Option<(Reader, Instant)> {
        let (flight, since) = self.cache.flight(key)?;
        Some((flight.join()?, since))
    }

    /// The text that is cached, fresh or stale. This does not count as asking for it.
    pub fn cached(&self, key: &K, now: Instant) -> Option<Cached> {
        let (poem, freshness) = self.cache.value(key, now)?;
        Some(Cached {
            reader: Reader::of(poem),
            is_stale: freshness.fresh_until <= now,
        })
    }

    /// Decides as [`Coalescer::find`] does for a stale text, whatever is cached: what
    /// that is stays until the new text is complete. The fetch begins without a client.
    ///
    /// # Errors
    /// The flight of the fetch that is under way already.
    pub fn refresh(&self, key: &K, now: Instant) -> Result<FlightGuard<K>, Flight> {
        loop {
            let flight = match self.cache.renew(key, now, || self.launch()) {
                Ok(lead) => return Ok(FlightGuard::new(lead.fill, lead.writer, false)),
                Err(flight) => flight,
            };
            if !flight.is_closed() {
                return Err(flight);
            }
            self.cache.detach(key, |other| other.is(&flight));
        }
    }

    /// Purges all texts. Fetches that have begun go on for their readers, but what they
    /// bring is not kept; those that have not begun will bring new texts anyway, and
    /// stay.
    pub fn purge_all(&self, how: Purge, now: Instant) -> Purged {
        let spares = |flight: &Flight| !flight.has_begun();
        let (texts, flights) = self.cache.purge(how, now, spares);
        orphan(texts, &flights)
    }

    /// Purges one text, like [`Coalescer::purge_all`].
    pub fn purge(&self, key: &K, how: Purge, now: Instant) -> Purged {
        let spares = |flight: &Flight| !flight.has_begun();
        let (found, flights) = self.cache.remove(key, how, now, spares);
        orphan(found.into(), &flights)
    }

    /// Purges the texts whose keys `wanted` picks, like [`Coalescer::purge_all`].
    pub fn purge_where(&self, how: Purge, now: Instant, wanted: impl Fn(&K) -> bool) -> Purged {
        let spares = |flight: &Flight| !flight.has_begun();
        let (texts, flights) = self.cache.purge_where(how, now, spares, wanted);
        orphan(texts, &flights)
    }
}

fn orphan(texts: u64, flights: &[Flight]) -> Purged {
    flights.iter().for_each(Flight::orphan);
    Purged {
        texts,
        fetches: flights.len() as u64,
    }
}

#[cfg(test)]
mod tests;
