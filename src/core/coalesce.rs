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
//! The right to fetch is a [`FlightGuard`]. It settles the key first and tells the
//! readers then, so a client that has read to the end and asks again finds the key
//! settled. Dropped, it does the same: the key is what it was, and the readers get a
//! failure.
//!
//! | the guard | the key | its readers |
//! |---|---|---|
//! | lands, [`Verdict::Keep`] | fresh; as it was after a purge, without room, or without ttl and grace | get the end |
//! | lands, [`Verdict::Reject`] | as it was; the text is a cached failure | get the end |
//! | lands, passing through | as it was | get the end |
//! | fails | as it was; maybe a cached failure | get the error |
//! | is dropped | as it was | get [`Error::Abandoned`] |
//!
//! A fetch that has not begun begins only while a reader waits for it; a refresh begins
//! without one. From [`FlightGuard::begin`] on it belongs to no client.

mod fresh_first;

use crate::cache::{
    Cache, CacheFailure, Fill, Freshness, KeepTimes, Lookup, Policy, Purge, Stored,
};
use crate::error::Error;
use crate::flight::{self, Flight, Interest, NoReaders, PendingReaders, Reader, Writer};
use crate::observe::FetchNote;
use crate::poem::Poem;
use crate::sync::atomic::{AtomicU64, Ordering};
use bytes::Bytes;
pub use fresh_first::{Cached, FreshFirst, LookUp};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// What becomes of a complete text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept, if there is room.
    Keep,
    /// The same, for a ttl of its own.
    KeepFor(Duration),
    /// It is complete, but an error message or the like: clients get it, and it is not
    /// kept.
    Reject,
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

/// The right to fetch a text. Dropped, it frees the key and then fails the readers.
pub struct FlightGuard<K: Eq + Hash + Clone> {
    /// Dropped first, so that the key is free before the readers learn of a failure.
    mode: Mode<K>,
    writer: Writer,
}

/// What the text is fetched for.
enum Mode<K: Eq + Hash + Clone> {
    /// To be kept.
    Keeping(Fill<K, Poem, Flight>),
    /// For its readers alone. What they have yet to read is counted or, where there was
    /// no room, not.
    Passing { accounted: bool },
}

/// The least window of a text for which there is no room, in bytes: it must hold
/// something to flow at all.
const WINDOW_MIN: u64 = 64 << 10;

impl<K: Eq + Hash + Clone> FlightGuard<K> {
    fn new(fill: Fill<K, Poem, Flight>, mut writer: Writer, needs_readers: bool) -> FlightGuard<K> {
        writer.wait_to_begin(needs_readers);
        FlightGuard {
            mode: Mode::Keeping(fill),
            writer,
        }
    }

    /// Begins the fetch. False, and the guard is to be dropped, if its last reader has
    /// left.
    pub fn begin(&mut self) -> bool {
        self.writer.begin()
    }

    /// The flight's readers and length; see [`Writer`].
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Sets what is told of a change of interest; see [`Writer::on_interest`].
    pub fn on_interest(&mut self, tell: impl Fn(Interest) + Send + Sync + 'static) {
        self.writer.on_interest(tell);
    }

    /// Keeps what comes for these times, and not for the policy's.
    pub fn set_times(&mut self, times: KeepTimes) {
        if let Mode::Keeping(fill) = &mut self.mode {
            fill.set_times(times);
        }
    }

    /// Notes what is known of the fetch; see [`Writer::note`].
    pub fn note(&mut self, note: FetchNote) {
        self.writer.note(note);
    }

    /// The stale text that this fetch refreshes.
    pub fn replaces(&self) -> Option<&Poem> {
        match &self.mode {
            Mode::Keeping(fill) => fill.replaces(),
            Mode::Passing { .. } => None,
        }
    }

    /// The text of this key that had expired when this fetch was started, where that is
    /// still held. Clients are not served it.
    pub fn outdated(&self) -> Option<&Poem> {
        match &self.mode {
            Mode::Keeping(fill) => fill.outdated(),
            Mode::Passing { .. } => None,
        }
    }

    /// Drops the text that had expired.
    pub fn drop_outdated(&mut self) {
        if let Mode::Keeping(fill) = &mut self.mode {
            fill.drop_outdated();
        }
    }

    /// Whether the text is still to be kept.
    pub fn is_keeping(&self) -> bool {
        matches!(self.mode, Mode::Keeping(_))
    }

    /// Appends bytes, and wakes the readers.
    pub fn append(&mut self, bytes: Bytes) {
        self.writer.append(bytes);
    }

    /// Appends the last bytes. [`FlightGuard::land`] wakes the readers.
    pub fn append_last(&mut self, bytes: Bytes) {
        self.writer.append_last(bytes);
    }

    /// Drops what was appended, for another attempt; see [`Writer::rewind`].
    pub fn rewind(&mut self) -> bool {
        self.writer.rewind()
    }

    /// Waits until readers have made room in the window; see [`Writer::writable`].
    ///
    /// # Errors
    /// [`NoReaders`] where none is left.
    pub async fn writable(&self) -> Result<(), NoReaders> {
        self.writer.writable().await
    }

    /// Lets the slowest reader set the pace; see [`Writer::wait_for_all`].
    pub fn wait_for_all(&mut self, all: bool) {
        self.writer.wait_for_all(all);
    }

    /// Whether the slowest reader keeps this pace; see [`Writer::keeps_pace`].
    pub fn keeps_pace(&mut self, bytes: u64) -> bool {
        self.writer.keeps_pace(bytes)
    }

    /// Leaves the slowest readers behind; see [`Writer::leave_laggards`].
    pub fn leave_laggards(&mut self) {
        self.writer.leave_laggards();
    }

    /// Counts `bytes` for a fetch that waits. False where waiting fetches would take
    /// more than half of the capacity.
    pub fn reserve_waiting(&mut self, bytes: u64) -> bool {
        match &mut self.mode {
            Mode::Keeping(fill) => fill.reserve_waiting(bytes),
            Mode::Passing { .. } => true,
        }
    }

    /// Counts `total` bytes of the text against the capacity; see [`Fill::reserve`].
    /// False where there is no room.
    pub fn reserve(&mut self, total: u64) -> bool {
        match &mut self.mode {
            Mode::Keeping(fill) => fill.reserve(total),
            Mode::Passing { .. } => true,
        }
    }

    /// Like [`FlightGuard::reserve`], for a text that can't pass through: evicts
    /// whatever it takes.
    pub fn reserve_whole(&mut self, total: u64) -> bool {
        match &mut self.mode {
            Mode::Keeping(fill) => fill.reserve_whole(total),
            Mode::Passing { .. } => true,
        }
    }

    /// Counts `more` bytes that are about to be appended. A text longer than `longest`,
    /// or without room, passes through from here on, and its key is free before its
    /// beginning leaves the window.
    pub fn reserve_or_pass(&mut self, more: u64, longest: u64, now: Instant) {
        if !self.is_keeping() {
            return;
        }

        let total = self.writer.len() + more;
        if total > longest {
            self.pass_too_long(now);
        } else if !self.reserve(total) {
            self.pass(now);
            self.mode = Mode::Passing { accounted: false };
        }
    }

    /// The text can't be kept: it passes through a window of what it holds by now.
    pub fn pass(&mut self, now: Instant) {
        let passing = Mode::Passing { accounted: true };
        if let Mode::Keeping(fill) = std::mem::replace(&mut self.mode, passing) {
            let reservation = fill.give_up(now);
            let window = reservation.bytes().max(WINDOW_MIN);
            self.writer.shrink_window(window);
            self.writer.attach(reservation);
            self.writer.mark_unfit();
        }
    }

    /// The text is too long to be kept: it passes through a full window, and for the
    /// `fail_ttl` each request fetches for itself.
    fn pass_too_long(&mut self, now: Instant) {
        let passing = Mode::Passing { accounted: true };
        if let Mode::Keeping(fill) = std::mem::replace(&mut self.mode, passing) {
            self.writer.attach(fill.hit_for_miss(now));
            self.writer.mark_unfit();
        }
    }

    /// The readers, if what they have yet to read is not counted: the caller is to
    /// bound how many such texts there are.
    pub fn unaccounted(&self) -> Option<PendingReaders> {
        let is_unaccounted = matches!(self.mode, Mode::Passing { accounted: false });
        is_unaccounted.then(|| self.writer.pending_readers())
    }

    /// The text is complete. Settles the key, tells the readers, and returns whether
    /// the text is kept, for as long as the policy says.
    pub fn land(self, verdict: Verdict, now: Instant) -> bool {
        self.settle(verdict, now).announce()
    }

    /// Like [`FlightGuard::land`]. Returns the text if it is kept: a copy that does not
    /// count against the capacity.
    pub fn land_text(self, verdict: Verdict, now: Instant) -> Option<Poem> {
        self.settle(verdict, now).announce_text()
    }

    /// Lands a text that a tier has kept until now, for as long as `freshness` says.
    /// Returns whether it is kept.
    pub fn land_copy(self, freshness: Freshness, now: Instant) -> bool {
        self.settle_as(Verdict::Keep, Some(freshness), now)
            .announce()
    }

    /// The fetch has failed. Settles the key and tells the readers.
    pub fn fail(self, error: Error, caching: CacheFailure, now: Instant) {
        self.settle_failed(error, caching, now).announce();
    }

    /// The fetch may not even wait for its turn. Settles the key, counts nothing any
    /// more, and tells the readers: a burst of refused requests must not evict what is
    /// kept until each client has its reset.
    pub fn refuse(self, error: Error, now: Instant) {
        let FlightGuard { mode, writer } = self;
        if let Mode::Keeping(fill) = mode {
            drop(fill.fail(CacheFailure::No, now));
        }

        let end = Err(error);
        Ended { writer, end }.announce();
    }

    /// The first half of [`FlightGuard::land`]: what becomes of the key.
    pub fn settle(self, verdict: Verdict, now: Instant) -> Ended {
        self.settle_as(verdict, None, now)
    }

    /// The text is kept as long as `freshness` says, and else as long as the policy
    /// says.
    fn settle_as(self, verdict: Verdict, freshness: Option<Freshness>, now: Instant) -> Ended {
        let FlightGuard { mode, mut writer } = self;
        let poem = writer.seal();

        let kept = match (mode, poem) {
            (Mode::Keeping(fill), Some(_)) if verdict == Verdict::Reject => {
                writer.attach(fill.reject(now));
                writer.mark_unfit();
                None
            }
            (Mode::Keeping(fill), Some(poem)) => {
                let freshness = freshness.unwrap_or_else(|| match verdict {
                    Verdict::KeepFor(ttl) => fill.freshness_for(ttl, now),
                    Verdict::Keep | Verdict::Reject => fill.freshness(now),
                });
                let is_kept = keep(fill, &poem, freshness, &mut writer, now);
                is_kept.then_some(poem)
            }
            (Mode::Keeping(_) | Mode::Passing { .. }, _) => None,
        };
        Ended {
            writer,
            end: Ok(kept),
        }
    }

    /// The first half of [`FlightGuard::fail`].
    pub fn settle_failed(self, error: Error, caching: CacheFailure, now: Instant) -> Ended {
        let FlightGuard { mode, mut writer } = self;
        if let Mode::Keeping(fill) = mode {
            writer.attach(fill.fail(caching, now));
        }
        Ended {
            writer,
            end: Err(error),
        }
    }
}

/// Keeps a complete text. Its readers share its reservation: it may be evicted before
/// they have read it.
fn keep<K: Eq + Hash + Clone>(
    fill: Fill<K, Poem, Flight>,
    poem: &Poem,
    freshness: Freshness,
    writer: &mut Writer,
    now: Instant,
) -> bool {
    let mut kept = None;
    let store = |reservation| {
        let stored = Poem::store(poem.clone(), reservation);
        kept.insert(stored).clone()
    };
    match fill.commit_with(store, poem.len(), freshness, now) {
        Ok(()) => {
            kept.into_iter().for_each(|kept| writer.share(kept));
            true
        }
        Err(unkept) => {
            writer.attach(unkept);
            false
        }
    }
}

/// A fetch whose key is settled and whose readers have yet to learn of the end.
/// Dropped, it tells them that the fetch was abandoned.
pub struct Ended {
    writer: Writer,
    /// The text if it is kept, or the failure.
    end: Result<Option<Poem>, Error>,
}

impl Ended {
    /// Tells the readers. Returns whether the text is kept.
    pub fn announce(self) -> bool {
        self.announce_text().is_some()
    }

    /// Tells the readers. Returns the text if it is kept.
    pub fn announce_text(self) -> Option<Poem> {
        match self.end {
            Ok(kept) => {
                self.writer.finish(kept.is_some());
                kept
            }
            Err(error) => {
                self.writer.fail(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
