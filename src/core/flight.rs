//! A flight: a poem that is still arriving, with one [`Writer`] and any number of [`Reader`]s.
//!
//! A flight is an append-only run of shared chunks. Whoever reads along gets what has come so far at once and the
//! rest as it comes; a reader of a finished flight, or of a [`Poem`] that has long been kept, runs the same code and
//! merely never waits. This is Twisted's Deferred with a type: see the crate's page on it.
//!
//! | state | `append` | `finish` | writer fails or is dropped | a reader gets |
//! |---|---|---|---|---|
//! | aloft | aloft, readers woken | landed | failed | the chunks behind its offset, then `Pending` |
//! | landed | - | - | - | the chunks behind its offset, then `End` |
//! | failed | - | - | - | the chunks behind its offset, then `Failed` |
//!
//! "-" cannot be written: `finish` and `fail` consume the writer. Dropping it is a failure, never an end.
//!
//! **The window.** A flight holds at most `window` bytes (and the chunk that crosses it). Up to there it keeps its
//! beginning, so anyone may join. A longer poem goes at the pace of its fastest reader ([`Writer::room`]): the oldest
//! chunks are let go, a reader that still needed them has fallen behind and fails, and so does whoever comes late.
//!
//! **Few, large chunks.** Readers remember a byte offset, not a chunk, so the writer may merge neighbours: a chunk
//! takes in the next as long as that one has more than half of its size, up to [`PIECE`] or an eighth of the window. A
//! poem that comes byte by byte so costs its own size and a logarithm of chunks, and each byte is copied a logarithm of
//! times.

mod reader;
mod state;

use crate::error::Error;
use crate::poem::Poem;
use crate::sync::{Mutex, MutexGuard, Notify};
use bytes::Bytes;
pub use reader::{Read, Reader};
use state::{Cursor, End, FlightState, compact};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

/// Chunks are merged up to this size: the smallest write that runs as fast as one write of everything (measured).
pub const PIECE: usize = 1 << 20;

/// A new flight that holds at most `window` bytes: the right to write it, and the handle to join it by.
pub fn launch(window: u64) -> (Writer, Flight) {
    let state = Mutex::new(FlightState::new(window));
    let shared = Arc::new(Inner {
        state,
        taken: Notify::new(),
    });
    (
        Writer {
            shared: shared.clone(),
        },
        Flight { shared },
    )
}

struct Inner {
    /// Everything about the poem and where its readers are. Held for lines; wakes happen after it is released.
    state: Mutex<FlightState>,
    /// A writer without room waits here.
    taken: Notify,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state
            .lock()
            .expect("no code panics while it holds a flight's lock")
    }

    /// Looks again whenever a reader has taken something or has left, until there is an answer.
    async fn until<T>(&self, look: impl Fn(&FlightState) -> Option<T>) -> T {
        loop {
            if let Some(answer) = look(&self.lock()) {
                return answer;
            }
            let taken = self.taken.listen(); // before the second look, or a wake between the two is lost
            if let Some(answer) = look(&self.lock()) {
                return answer;
            }
            taken.await;
        }
    }
}

/// The handle by which a flight is joined. Cloning shares it.
#[derive(Clone)]
pub struct Flight {
    shared: Arc<Inner>,
}

impl Flight {
    /// A reader at the beginning, unless the beginning has left the window. Of a failed flight that nobody read any
    /// more, only the failure is left to read.
    pub fn join(&self) -> Option<Reader> {
        let mut state = self.shared.lock();
        let start = if state.has_failed() { state.base() } else { 0 };
        (state.base() == start).then(|| {
            let cursor = state.cursors.insert(Cursor {
                at: start,
                waker: None,
            });
            Reader::aloft(self.shared.clone(), cursor)
        })
    }
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        write!(
            f,
            "Flight({} bytes, {} readers)",
            state.len,
            state.cursors.len()
        )
    }
}

/// The right to write a flight, held by the one task that fetches. Dropped, the flight has failed.
pub struct Writer {
    shared: Arc<Inner>,
}

impl Writer {
    /// Adds to the poem and wakes everyone who waits for more.
    pub fn append(&mut self, bytes: Bytes) {
        let waiting = self.add(bytes, FlightState::waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Adds the end of the poem, and leaves the waking to [`Writer::finish`] or [`Writer::fail`], which is to follow as
    /// soon as it is judged: so nobody is woken twice, and the end can be sent with the last bytes.
    pub fn append_end(&mut self, bytes: Bytes) {
        self.add(bytes, |_| ());
    }

    fn add<T>(&mut self, bytes: Bytes, then: impl FnOnce(&mut FlightState) -> T) -> T {
        let _trimmed; // dropped after the lock is released
        let mut state = self.shared.lock();
        if !bytes.is_empty() {
            state.push(bytes);
        }
        _trimmed = state.trim();
        then(&mut state)
    }

    /// All bytes appended so far.
    pub fn len(&self) -> u64 {
        self.shared.lock().len
    }

    /// Whether nothing has been appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many read along right now.
    pub fn readers(&self) -> usize {
        self.shared.lock().cursors.len()
    }

    /// Waits until the fastest reader is less than the window behind. At once while the poem fits the window.
    ///
    /// # Errors
    /// [`Error::Deserted`] when the window is full and nobody is left to empty it.
    pub async fn writable(&self) -> Result<(), Error> {
        self.shared.until(FlightState::writable).await
    }

    /// Waits until nobody reads along any more: the end of work that is for one reader alone.
    pub async fn deserted(&self) {
        self.shared
            .until(|state| state.cursors.is_empty().then_some(()))
            .await;
    }

    /// The readers, to be watched beyond the flight's end.
    pub fn pending_readers(&self) -> PendingReaders {
        PendingReaders {
            shared: self.shared.clone(),
        }
    }

    /// What has been appended so far, as a poem; `None` once its beginning has left the window.
    pub fn so_far(&self) -> Option<Poem> {
        let state = self.shared.lock();
        let pieces = || {
            state
                .chunks
                .iter()
                .map(|chunk| chunk.bytes.clone())
                .collect()
        };
        (state.base() == 0).then(|| Poem::from_pieces(pieces()))
    }

    /// Forgets what has been appended, for another attempt, if no reader has seen any of it.
    pub fn rewind(&mut self) -> bool {
        let mut state = self.shared.lock();
        let unseen = !state.seen;
        let forgotten = if unseen {
            std::mem::take(&mut state.chunks)
        } else {
            VecDeque::new()
        };
        if unseen {
            state.len = 0;
        }
        drop(state);
        drop(forgotten);
        unseen
    }

    /// Holds at most this many bytes from now on, but no fewer than it holds already.
    pub fn shrink_window(&mut self, window: u64) {
        let mut state = self.shared.lock();
        state.window = window.max(state.len - state.base());
    }

    /// Something that is dropped no sooner than the bytes are.
    pub fn attach(&mut self, attached: impl Any + Send + Sync) {
        self.shared.lock().attached.push(Box::new(attached));
    }

    /// The poem is complete. `keep` gets it before any reader is told, so that whoever has read to the end and asks
    /// again finds it kept, and may return something to be dropped with the bytes, whether it kept it or not. A poem
    /// longer than the window is not whole any more and is not offered. Says whether it was kept.
    pub fn finish<K, C>(mut self, keep: impl FnOnce(Poem) -> Result<K, C>) -> bool
    where
        K: Any + Send + Sync,
        C: Any + Send + Sync,
    {
        let (pieces, whole) = {
            let state = self.shared.lock();
            let pieces: Vec<Bytes> = state
                .chunks
                .iter()
                .map(|chunk| chunk.bytes.clone())
                .collect();
            (pieces, state.base() == 0)
        };
        let kept = whole && {
            let poem = Poem::from_pieces(compact(pieces));
            self.shared.lock().replace(&poem);
            let kept = keep(poem).map(|attached| self.attach(attached));
            kept.map_err(|attached| self.attach(attached)).is_ok()
        };
        self.end(End::Landed { kept });
        kept
    }

    /// The poem is complete, and for its readers alone.
    pub fn finish_unkept(self) {
        self.finish(|_| Err::<(), ()>(()));
    }

    /// The poem will never be complete; every reader is told why.
    pub fn fail(self, error: Error) {
        self.end(End::Failed(Arc::new(error)));
    }

    fn end(&self, end: End) {
        let mut state = self.shared.lock();
        if state.end.is_none() {
            state.end = Some(end);
            let _unread = state.release_unread(); // dropped after the lock is released
            let waiting = state.waiting();
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
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

/// The readers of a flight, from the side of whoever pays for the bytes they have yet to take.
pub struct PendingReaders {
    shared: Arc<Inner>,
}

impl PendingReaders {
    /// Waits until no reader has anything left to take of what there is.
    pub async fn finished(&self) {
        self.shared
            .until(|state| (state.remaining().readers == 0).then_some(()))
            .await;
    }

    /// What there is left to take.
    pub fn remaining(&self) -> Remaining {
        self.shared.lock().remaining()
    }

    /// Lets go of what there is, and of what was to last as long: whoever has not taken all of it has fallen behind.
    pub fn release(self) {
        let mut state = self.shared.lock();
        let _gone = (
            std::mem::take(&mut state.chunks),
            std::mem::take(&mut state.attached),
        );
        drop(state); // before what is gone
    }
}

/// What a flight's readers have yet to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// How many have yet to take something.
    pub readers: usize,
    /// How much, at least, each of them has; in bytes.
    pub bytes: u64,
}

impl Remaining {
    /// Whether somebody has got somewhere since: to the end, or this many bytes further.
    pub fn has_shrunk(self, since: Remaining, bytes: u64) -> bool {
        self.readers < since.readers || self.bytes.saturating_add(bytes) <= since.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt;
    use proptest::prelude::*;

    fn text(reader: &mut Reader) -> (String, Read) {
        let mut all = String::new();
        loop {
            match reader.read() {
                Read::Chunk(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
                last => return (all, last),
            }
        }
    }

    /// Polls once, without a runtime.
    fn is_ready(reader: &Reader) -> bool {
        reader.ready().now_or_never().is_some()
    }

    #[test]
    fn a_late_reader_sees_the_whole_poem() {
        let (mut writer, flight) = launch(100);
        let mut first = flight.join().unwrap();
        writer.append("once ".into());
        assert_eq!(text(&mut first).0, "once ");
        let mut second = flight.join().unwrap();
        writer.append("upon".into());
        let mut kept = None;
        writer.finish(|poem| kept.replace(poem).map_or(Ok(()), Err));
        let mut third = flight.join().unwrap();
        assert!(matches!(text(&mut first), (rest, Read::End) if rest == "upon"));
        assert!(matches!(text(&mut second), (all, Read::End) if all == "once upon"));
        assert!(matches!(text(&mut third), (all, Read::End) if all == "once upon"));
        assert_eq!(kept.unwrap().bytes(), "once upon");
    }

    #[test]
    fn a_reader_waits_until_there_is_more_and_no_longer() {
        let (mut writer, flight) = launch(100);
        let mut reader = flight.join().unwrap();
        let mut ready = Box::pin(async { reader.ready().await });
        assert!(ready.as_mut().now_or_never().is_none());
        writer.append("x".into());
        assert!(ready.as_mut().now_or_never().is_some());
        drop(ready);
        assert!(is_ready(&reader));
        assert!(matches!(reader.read(), Read::Chunk(_)));
        assert!(!is_ready(&reader));
        writer.finish_unkept();
        assert!(is_ready(&reader));
    }

    #[test]
    fn a_dropped_writer_is_a_failure_and_never_an_end() {
        let (mut writer, flight) = launch(100);
        let mut early = flight.join().unwrap();
        writer.append("half".into());
        drop(writer);
        for mut reader in [flight.join().unwrap(), flight.join().unwrap()] {
            assert!(
                matches!(text(&mut reader), (part, Read::Failed(e)) if part == "half" && *e == Error::Abandoned)
            );
        }
        assert!(matches!(text(&mut early), (_, Read::Failed(_))));
    }

    #[test]
    fn a_failed_flight_that_nobody_reads_holds_nothing_but_its_failure() {
        let (mut writer, flight) = launch(100);
        let reader = flight.join().unwrap();
        writer.append("half".into());
        writer.fail(Error::Abandoned);
        drop(reader);
        assert!(flight.shared.lock().chunks.is_empty());
        assert!(matches!(flight.join().unwrap().read(), Read::Failed(_)));
    }

    #[test]
    fn the_poem_is_kept_before_anyone_is_told_of_its_end() {
        let (mut writer, flight) = launch(100);
        let mut reader = flight.join().unwrap();
        writer.append("x".into());
        assert!(matches!(reader.read(), Read::Chunk(_)));
        writer.finish(|_| {
            assert!(matches!(reader.read(), Read::Pending));
            Err::<(), ()>(())
        });
        assert!(matches!(reader.read(), Read::End));
    }

    #[test]
    fn a_poem_over_the_window_goes_at_the_pace_of_its_fastest_reader() {
        let (mut writer, flight) = launch(4);
        let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
        writer.append("abcd".into());
        assert!(writer.writable().now_or_never().is_none());
        assert!(matches!(fast.read(), Read::Chunk(_)));
        assert_eq!(writer.writable().now_or_never(), Some(Ok(())));
        writer.append("efgh".into());
        assert!(
            flight.join().is_none(),
            "the beginning has remaining the window"
        );
        assert!(matches!(slow.read(), Read::Failed(e) if *e == Error::FellBehind { window: 4 }));
        assert_eq!(text(&mut fast).0, "efgh");
        writer
            .finish(|_| -> Result<(), ()> { panic!("a poem without its beginning is never kept") });
        assert!(matches!(fast.read(), Read::End));
    }

    #[test]
    fn a_reader_alone_never_falls_behind_whatever_it_takes_at_a_time() {
        let (mut writer, flight) = launch(100);
        let mut reader = flight.join().unwrap();
        let mut read = 0;
        for turn in 0..1000 {
            while writer.writable().now_or_never().is_some() {
                writer.append(vec![0; 1 + turn % 90].into());
            }
            match reader.peek() {
                Read::Chunk(bytes) => {
                    reader.advance(1 + turn % bytes.len());
                    read += 1 + turn % bytes.len();
                }
                other => panic!("{other:?} after {read} of {} bytes", writer.len()),
            }
            assert!(
                writer
                    .shared
                    .lock()
                    .chunks
                    .iter()
                    .map(|chunk| chunk.bytes.len())
                    .sum::<usize>()
                    < 300
            );
        }
    }

    #[test]
    fn when_the_fastest_reader_leaves_the_next_one_sets_the_pace() {
        let (mut writer, flight) = launch(4);
        let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
        writer.append("abcd".into());
        assert!(matches!(fast.read(), Read::Chunk(_)));
        drop(fast);
        assert!(writer.writable().now_or_never().is_none());
        assert!(matches!(slow.read(), Read::Chunk(_)));
        assert_eq!(writer.writable().now_or_never(), Some(Ok(())));
        writer.append("efgh".into());
        drop(slow);
        assert_eq!(writer.writable().now_or_never(), Some(Err(Error::Deserted)));
    }

    #[test]
    fn after_its_end_a_poem_can_be_let_go_and_costs_only_those_who_have_not_read_it() {
        let (mut writer, flight) = launch(100);
        let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
        let readers = writer.pending_readers();
        let writable = Arc::new(());
        writer.append("poem".into());
        writer.attach(writable.clone());
        writer.finish_unkept();
        assert_eq!(text(&mut fast).0, "poem");
        assert!(readers.finished().now_or_never().is_none());
        slow.advance(3);
        readers.release();
        assert_eq!(
            Arc::strong_count(&writable),
            1,
            "what held the bytes counts no more"
        );
        assert!(matches!(fast.read(), Read::End));
        assert!(matches!(slow.read(), Read::Failed(e) if matches!(*e, Error::FellBehind { .. })));
        assert!(flight.join().is_none(), "who comes late must ask again");
    }

    #[test]
    fn the_watch_ends_when_the_last_reader_has_all_or_has_left() {
        let (mut writer, flight) = launch(100);
        let (mut reader, leaver) = (flight.join().unwrap(), flight.join().unwrap());
        let readers = writer.pending_readers();
        writer.append("poem".into());
        writer.finish_unkept();
        let mut finished = std::pin::pin!(readers.finished());
        assert!(finished.as_mut().now_or_never().is_none());
        assert_eq!(text(&mut reader).0, "poem");
        assert!(finished.as_mut().now_or_never().is_none());
        drop(leaver);
        assert!(finished.as_mut().now_or_never().is_some());
    }

    #[test]
    fn readers_keep_the_pace_while_the_first_of_them_gets_on_or_to_its_end() {
        let (mut writer, flight) = launch(100);
        let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
        let readers = writer.pending_readers();
        writer.append(vec![b'x'; 100].into());
        let all = readers.remaining();
        assert_eq!(
            all,
            Remaining {
                readers: 2,
                bytes: 100
            }
        );
        slow.advance(9);
        assert!(!readers.remaining().has_shrunk(all, 10));
        fast.advance(10);
        assert!(readers.remaining().has_shrunk(all, 10));
        slow.advance(2);
        let second = readers.remaining();
        assert_eq!(
            second,
            Remaining {
                readers: 2,
                bytes: 89
            }
        );
        fast.advance(90);
        assert_eq!(
            readers.remaining(),
            Remaining {
                readers: 1,
                bytes: 89
            }
        );
        assert!(readers.remaining().has_shrunk(second, 10));
        drop(slow);
        assert_eq!(
            readers.remaining(),
            Remaining {
                readers: 0,
                bytes: 0
            }
        );
    }

    #[test]
    fn a_flight_may_start_again_only_while_nobody_has_seen_any_of_it() {
        let (mut writer, flight) = launch(100);
        let mut reader = flight.join().unwrap();
        writer.append("wrong".into());
        assert!(writer.rewind());
        writer.append("right".into());
        assert!(matches!(reader.peek(), Read::Chunk(_)));
        assert!(
            !writer.rewind(),
            "what was shown may be half-way to a client"
        );
        assert_eq!(text(&mut reader).0, "right");
        assert!(!writer.rewind());
    }

    #[test]
    fn a_poem_that_comes_byte_by_byte_makes_few_chunks_and_one_piece() {
        let (mut writer, _flight) = launch(1 << 20);
        for _ in 0..100_000 {
            writer.append(Bytes::from_static(b"x"));
        }
        assert!(writer.shared.lock().chunks.len() < 20);
        writer.finish(|poem| {
            assert_eq!((poem.len(), poem.pieces().len()), (100_000, 1));
            Err::<(), ()>(())
        });
    }

    proptest! {
        #[test]
        fn any_split_of_a_poem_reads_the_same(sizes in prop::collection::vec(1usize..3000, 0..60), join in 0usize..60) {
            let (mut writer, flight) = launch(u64::MAX);
            let mut readers = vec![flight.join().unwrap()];
            let mut all = Vec::new();
            for (at, size) in sizes.iter().enumerate() {
                if at == join {
                    readers.push(flight.join().unwrap());
                }
                let chunk: Vec<u8> = (0..*size).map(|i| (i * 7 + at) as u8).collect();
                all.extend_from_slice(&chunk);
                writer.append(chunk.into());
                if at % 3 == 0 {
                    readers[0].read();
                }
            }
            readers.push(flight.join().unwrap());
            let mut kept = None;
            writer.finish(|poem| kept.replace(poem).map_or(Ok(()), Err));
            prop_assert_eq!(kept.unwrap().bytes(), all.clone());
            for reader in &mut readers[1..] {
                let mut got = Vec::new();
                while let Read::Chunk(bytes) = reader.read() {
                    got.extend_from_slice(&bytes);
                }
                prop_assert_eq!(&got, &all);
            }
        }
    }
}
