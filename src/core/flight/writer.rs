//! The writing end of a flight, and its view of the readers.

use super::state::{End, FlightState, Interest, Start, compact};
use super::{Flight, Inner};
use crate::error::Error;
use crate::observe::FetchNote;
use crate::poem::Poem;
use crate::sync::drop_after;
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;
use std::task::Waker;

/// The right to write a flight. Dropped before it has finished, the flight has failed.
pub struct Writer {
    pub(super) shared: Arc<Inner>,
}

/// The window is full and no reader is left to empty it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReaders;

impl Writer {
    pub(super) fn new(shared: Arc<Inner>) -> Writer {
        Writer { shared }
    }

    /// The handle by which readers join.
    pub fn flight(&self) -> Flight {
        Flight {
            shared: self.shared.clone(),
        }
    }

    /// Appends to the poem and wakes the readers that wait for more.
    pub fn append(&mut self, bytes: Bytes) {
        let waiting = self.push(bytes, FlightState::waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Appends the last bytes and wakes no reader: `finish` or `fail`, which must
    /// follow, does. So no reader is woken twice, and the end can be sent with the last
    /// bytes.
    pub fn append_last(&mut self, bytes: Bytes) {
        self.push(bytes, |_| ());
    }

    fn push<T>(&mut self, bytes: Bytes, then: impl FnOnce(&mut FlightState) -> T) -> T {
        drop_after(self.shared.lock(), |state| {
            if !bytes.is_empty() {
                state.push(bytes);
            }

            let trimmed = state.trim();
            (then(state), trimmed)
        })
    }

    /// Bytes appended so far.
    pub fn len(&self) -> u64 {
        self.shared.lock().len
    }

    /// Whether nothing has been appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fetch has not begun. With `needs_readers`, it does not begin once its last
    /// reader has left: from then on the flight can't be joined.
    pub fn wait_to_begin(&mut self, needs_readers: bool) {
        self.shared.lock().start = if needs_readers {
            Start::WaitsForReaders
        } else {
            Start::Waits
        };
    }

    /// Begins the fetch, which from now on belongs to no reader. False if it need not
    /// begin: its last reader has left.
    pub fn begin(&mut self) -> bool {
        let mut state = self.shared.lock();
        if state.start == Start::Closed {
            return false;
        }

        state.start = Start::Begun;
        true
    }

    /// Sets what is told when the first reader joins a flight that has not begun, and
    /// when the last one leaves a flight that has not begun or is orphaned. It is
    /// called without the flight's lock.
    pub fn on_interest(&mut self, tell: impl Fn(Interest) + Send + Sync + 'static) {
        self.shared.lock().on_interest = Some(Arc::new(tell));
    }

    /// The number of readers at this moment.
    pub fn readers(&self) -> usize {
        self.shared.lock().cursors.len()
    }

    /// What tells this flight from all others that exist.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// Waits until the fastest reader is less than the window behind. Returns at once
    /// while the poem fits the window.
    ///
    /// # Errors
    /// [`NoReaders`] when the window is full and no reader is left.
    pub async fn writable(&self) -> Result<(), NoReaders> {
        self.shared.until(FlightState::writable).await
    }

    /// Lets the slowest reader of a poem over the window set its pace, and not the
    /// fastest.
    pub fn wait_for_all(&mut self, all: bool) {
        self.shared.lock().waits_for_all = all;
    }

    /// Whether the slowest reader has taken at least `bytes` since the last call.
    pub fn keeps_pace(&mut self, bytes: u64) -> bool {
        self.shared.lock().keeps_pace(bytes)
    }

    /// Drops what only the slowest readers have yet to take: those that are more than
    /// half a window behind the fastest. They have fallen behind then.
    pub fn leave_laggards(&mut self) {
        drop_after(self.shared.lock(), |state| ((), state.leave_laggards()));
    }

    /// Waits until no reader is left: the end of work done for a single reader.
    pub async fn deserted(&self) {
        let is_deserted = |state: &FlightState| state.cursors.is_empty().then_some(());
        self.shared.until(is_deserted).await;
    }

    /// A view of the readers that outlives the flight's end.
    pub fn pending_readers(&self) -> PendingReaders {
        PendingReaders {
            shared: self.shared.clone(),
        }
    }

    /// What has been appended so far, as a poem; `None` once its beginning has left the
    /// window.
    pub fn so_far(&self) -> Option<Poem> {
        let state = self.shared.lock();
        if state.base() != 0 {
            return None;
        }

        Some(Poem::from_pieces(state.pieces()))
    }

    /// Drops what has been appended, for another attempt. Returns false, and drops
    /// nothing, once a reader has seen a byte.
    pub fn rewind(&mut self) -> bool {
        drop_after(self.shared.lock(), |state| {
            if state.seen {
                return (false, None);
            }

            state.len = 0;
            (true, Some(std::mem::take(&mut state.chunks)))
        })
    }

    /// From now on holds at most `window` bytes, but no fewer than it holds already.
    pub fn shrink_window(&mut self, window: u64) {
        let mut state = self.shared.lock();
        state.window = window.max(state.len - state.base());
    }

    /// Keeps `attachment` alive as long as the flight's bytes.
    pub fn attach(&mut self, attachment: impl Any + Send + Sync) {
        self.shared.lock().attached.push(Box::new(attachment));
    }

    /// The text will not do in place of another: it is rejected, or can't be kept.
    /// Wakes the readers that may have another.
    pub fn mark_unfit(&mut self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.unfit = true;
            state.waiting()
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Notes what is known of the fetch, for the logs of its readers.
    pub fn note(&mut self, note: FetchNote) {
        self.shared.lock().note = Some(Arc::new(note));
    }

    /// The complete poem, before any reader learns that it is complete. Its readers
    /// read on from this copy. `None` if its beginning has left the window.
    pub(crate) fn seal(&mut self) -> Option<Poem> {
        let pieces = {
            let state = self.shared.lock();
            if state.base() != 0 {
                return None;
            }
            state.pieces()
        };

        let poem = Poem::from_pieces(compact(pieces)); // copies: not under the lock
        drop_after(self.shared.lock(), |state| ((), state.replace(&poem)));
        Some(poem)
    }

    /// Lets the readers read on from the copy that the cache keeps, and share what
    /// that counts: it may be evicted before they have read it.
    pub(crate) fn share(&mut self, kept: Poem) {
        drop_after(self.shared.lock(), |state| {
            let chunks = state.replace(&kept);
            state.attached.push(Box::new(kept));
            ((), chunks)
        });
    }

    /// Ends the flight: the poem is complete. `kept` says whether later requests find
    /// it in a cache; [`Reader::was_kept`](super::Reader::was_kept) passes that on.
    pub fn finish(self, kept: bool) {
        self.end(End::Landed { kept });
    }

    /// Ends the flight: the poem will never be complete. All readers get `error`.
    pub fn fail(self, error: Error) {
        self.end(End::Failed(Arc::new(error)));
    }

    fn end(&self, end: End) {
        let waiting = drop_after(self.shared.lock(), |state| {
            if state.end.is_some() {
                return (Vec::new(), Default::default());
            }

            state.end = Some(end);
            let unread = state.release_unread();
            (state.waiting(), unread)
        });
        waiting.into_iter().for_each(Waker::wake);
        self.shared.ended.notify(usize::MAX);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} bytes)", self.len())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(End::Failed(Arc::new(Error::Abandoned)));
    }
}

/// The readers of a flight, seen from the side that pays for the bytes they have yet to
/// take.
pub struct PendingReaders {
    shared: Arc<Inner>,
}

impl PendingReaders {
    /// Waits until no reader has anything left to take.
    pub async fn finished(&self) {
        let is_finished = |state: &FlightState| (state.remaining().readers == 0).then_some(());
        self.shared.until(is_finished).await;
    }

    /// What is left to take.
    pub fn remaining(&self) -> Remaining {
        self.shared.lock().remaining()
    }

    /// Drops the flight's bytes and attachments. A reader that had more to take has
    /// fallen behind.
    pub fn release(self) {
        drop_after(self.shared.lock(), |state| {
            let chunks = std::mem::take(&mut state.chunks);
            ((), (chunks, std::mem::take(&mut state.attached)))
        });
    }
}

/// What the readers of a flight have yet to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Readers that have something left to take.
    pub readers: usize,
    /// Bytes that the fastest of them has left.
    pub bytes: u64,
}

impl Remaining {
    /// Whether a reader has progressed since `before`: to its end, or by `bytes` bytes.
    pub fn has_shrunk(self, before: Remaining, bytes: u64) -> bool {
        self.readers < before.readers || self.bytes.saturating_add(bytes) <= before.bytes
    }
}
