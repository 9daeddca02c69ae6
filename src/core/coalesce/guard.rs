//! The right to fetch. It settles the key first and tells the readers then, so a client
//! that has read to the end and asks again finds the key settled. Dropped, it does the
//! same: the key is what it was, and the readers get a failure.
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

use crate::cache::{CacheFailure, Fill, Freshness, KeepTimes, Stored};
use crate::error::Error;
use crate::flight::{Flight, Interest, NoReaders, PendingReaders, Writer};
use crate::observe::FetchNote;
use crate::poem::Poem;
use bytes::Bytes;
use std::hash::Hash;
use std::time::{Duration, Instant};

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
    pub(super) fn new(
        fill: Fill<K, Poem, Flight>,
        mut writer: Writer,
        needs_readers: bool,
    ) -> FlightGuard<K> {
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
