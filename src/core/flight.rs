//! A flight: a poem that is still arriving, with one [`Writer`] and any number of
//! [`Reader`]s.
//!
//! A flight is an append-only sequence of shared chunks. Every reader gets what has
//! arrived so far at once, and the rest as it comes. A reader of a finished flight, or
//! of a [`Poem`](crate::poem::Poem) from the cache, runs the same code and never waits.
//!
//! ```
//! use poetry::flight::{self, Read};
//!
//! let (mut writer, mut early) = flight::pipe(1 << 20);
//! writer.append("once ".into());
//! assert!(matches!(early.read(), Read::Chunk(bytes) if bytes == "once "));
//! assert!(matches!(early.read(), Read::Pending));
//!
//! // A reader that comes later starts at the first byte.
//! let mut late = writer.flight().join().expect("the beginning is still held");
//! writer.append("upon a time".into());
//! writer.finish(false);
//! assert!(matches!(late.read(), Read::Chunk(bytes) if bytes == "once upon a time"));
//! assert!(matches!(late.read(), Read::End));
//! ```
//!
//! | state | `append` | `finish` | `fail`, or the writer is dropped | a reader gets |
//! |---|---|---|---|---|
//! | in flight | in flight, readers woken | landed | failed | the chunks after its offset, then `Pending` |
//! | landed | - | - | - | the chunks after its offset, then `End` |
//! | failed | - | - | - | the chunks after its offset, then `Failed` |
//!
//! "-" does not compile: `finish` and `fail` consume the writer. Dropping the writer is
//! a failure, never an end.
//!
//! **The window.** A flight holds at most `window` bytes, plus the chunk that crosses
//! it. A poem that fits keeps its beginning, so any reader may join. A longer poem
//! flows at the pace of one reader ([`Writer::writable`]): its slowest while that is
//! fair to the others, which the holder of the writer decides, and else its fastest.
//! The oldest chunks are dropped, a reader that still needed them has fallen behind,
//! and no reader can join any more.
//!
//! **Few, large chunks.** Readers keep a byte offset, not a chunk, so the writer may
//! merge neighbours: a chunk takes in the next one while that has more than half its
//! size, up to [`PIECE`] or an eighth of the window. A poem that arrives byte by byte
//! costs its own size and a logarithmic number of chunks, and each byte is copied a
//! logarithmic number of times.

mod ending;
mod reader;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, MutexGuard, Notify};
pub use ending::Ending;
pub use reader::{Pull, Read, Reader, Shown};
use state::FlightState;
use state::Start;
pub use state::{Interest, Prospect};
use std::sync::Arc;
pub use writer::{NoReaders, PendingReaders, Remaining, Writer};

/// Chunks are merged up to this size, in bytes: the smallest write that is as fast as
/// one write of the whole poem (measured).
pub const PIECE: usize = 1 << 20;

/// A new flight that holds at most `window` bytes, and its first reader.
pub fn pipe(window: u64) -> (Writer, Reader) {
    let writer = launch(window);
    let reader = writer.flight().join();

    (writer, reader.expect("a new flight holds its beginning"))
}

/// A new flight that holds at most `window` bytes, without a reader.
pub fn launch(window: u64) -> Writer {
    launch_counted(window, None)
}

/// Like [`launch`]. `readers` goes up and down with the flight's readers.
pub fn launch_counted(window: u64, readers: Option<Arc<AtomicU64>>) -> Writer {
    let shared = Arc::new(Inner {
        state: Mutex::new(FlightState::new(window, readers)),
        taken: Notify::new(),
        ended: Notify::new(),
    });

    Writer::new(shared)
}

struct Inner {
    /// The poem and where its readers are. Held for a few lines; wakers are called and
    /// bytes dropped after it is released.
    state: Mutex<FlightState>,
    /// Wakes a writer that waits for readers.
    taken: Notify,
    /// Wakes what waits for the end alone.
    ended: Notify,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state
            .lock()
            .expect("no code panics while it holds a flight's lock")
    }

    /// Waits until `look` has an answer. Looks again whenever a reader has taken bytes
    /// or has left.
    async fn until<T>(&self, look: impl Fn(&FlightState) -> Option<T>) -> T {
        loop {
            if let Some(answer) = look(&self.lock()) {
                return answer;
            }

            let taken = self.taken.listen(); // before the second look, or a wake is lost
            if let Some(answer) = look(&self.lock()) {
                return answer;
            }
            taken.await;
        }
    }
}

/// The handle by which readers join a flight. Cloning shares it.
#[derive(Clone)]
pub struct Flight {
    shared: Arc<Inner>,
}

impl Flight {
    /// A reader at the first byte. `None` once the beginning has left the window, or
    /// once the last reader has left a fetch that then is of no use.
    ///
    /// A failed flight drops its bytes with its last reader. A reader that joins after
    /// that gets only the failure.
    pub fn join(&self) -> Option<Reader> {
        let (cursor, on_interest) = {
            let mut state = self.shared.lock();
            let start = if state.has_failed() { state.base() } else { 0 };
            if state.base() != start || state.start == Start::Closed {
                return None;
            }
            state.join(start)
        };

        if let Some(tell) = on_interest {
            tell(Interest::Gained);
        }
        Some(Reader::in_flight(self.shared.clone(), cursor))
    }

    /// Reads along from the first byte, to pass the poem on to another process. That is
    /// no reader: nothing waits for it, and no fetch goes on for it. What it has seen
    /// can't be taken back either. `None` once the beginning has left the window.
    ///
    /// One at a time: another one would no longer be woken.
    pub fn read_along(&self) -> Option<Reader> {
        let holds_beginning = self.shared.lock().base() == 0;
        holds_beginning.then(|| Reader::along(self.shared.clone()))
    }

    /// Whether the fetch has begun. One that has not, and can be joined, will bring a
    /// text that is as new as one asked for now.
    pub fn has_begun(&self) -> bool {
        self.shared.lock().start == Start::Begun
    }

    /// No later request will get this poem. If no reader is left, or once the last one
    /// leaves, what was set with [`Writer::on_interest`] is told that the interest is
    /// lost.
    pub fn orphan(&self) {
        let on_interest = {
            let mut state = self.shared.lock();
            state.orphaned = true;
            state.interest_lost()
        };
        if let Some((tell, lost)) = on_interest {
            tell(lost);
        }
    }

    /// Whether no reader can join any more because the last one has left a fetch that
    /// then is of no use.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().start == Start::Closed
    }

    /// The number of readers at this moment.
    pub fn readers(&self) -> usize {
        self.shared.lock().cursors.len()
    }

    /// The end of the fetch, to be waited for without reading.
    pub fn ending(&self) -> Ending {
        Ending::new(self.shared.clone())
    }

    /// Whether both handles are of one flight.
    pub fn is(&self, other: &Flight) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        let readers = state.cursors.len();
        write!(f, "Flight({} bytes, {readers} readers)", state.len)
    }
}
