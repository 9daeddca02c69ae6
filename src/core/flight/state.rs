//! What a flight's lock protects: the chunks it holds, where its readers are, how it
//! ended.

use super::writer::{NoReaders, Remaining};
use super::{PIECE, Read};
use crate::error::Error;
use crate::observe::FetchNote;
use crate::poem::Poem;
use crate::sync::atomic::{AtomicU64, Ordering};
use bytes::Bytes;
use slab::Slab;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Everything about a flight except how a waiting writer is woken.
pub(super) struct FlightState {
    pub(super) chunks: VecDeque<Chunk>,
    /// Bytes appended so far, dropped ones included.
    pub(super) len: u64,
    pub(super) window: u64,
    /// Whether the slowest reader sets the pace of a poem over the window, and not the
    /// fastest.
    pub(super) waits_for_all: bool,
    pub(super) cursors: Slab<Cursor>,
    /// Whether a reader has been shown a byte. From then on nothing can be taken back.
    pub(super) seen: bool,
    pub(super) end: Option<End>,
    /// Whether its text will not do in place of another.
    pub(super) unfit: bool,
    /// Whether the fetch has begun, and whether readers matter to that.
    pub(super) start: Start,
    /// No later request gets this poem: without readers it is of no use.
    pub(super) orphaned: bool,
    /// Called, without the lock, when the first reader joins or the last one leaves
    /// while that matters.
    pub(super) on_interest: Option<OnInterest>,
    /// Dropped with the chunks.
    pub(super) attached: Vec<Attachment>,
    /// Counts the readers of many flights.
    all_readers: Option<Arc<AtomicU64>>,
    /// What is known of the fetch, for logs.
    pub(super) note: Option<Arc<FetchNote>>,
    /// Wakes what reads along. It is no reader, and has no cursor.
    pub(super) along: Option<Waker>,
}

/// Whether a flight's fetch has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It has: it belongs to no reader, and goes on to its end.
    Begun,
    /// It has not, and begins with or without readers.
    Waits,
    /// It has not, and does not begin once its last reader has left.
    WaitsForReaders,
    /// Its last reader has left, and it will not begin, or its text is of no use.
    Closed,
}

/// What readers want of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// The first reader has joined a flight whose fetch has not begun.
    Gained,
    /// The last reader has left a flight whose fetch has not begun.
    Lost,
    /// The fetch has begun, no later request gets its text, and the last reader has
    /// left. None can join it any more.
    Useless,
}

/// What a reader that could do with another text may hope for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// The text is still arriving.
    Open,
    /// It is complete.
    Whole,
    /// It has failed, was rejected, or can't be kept.
    Unfit,
}

/// What is told of a change of interest.
pub(super) type OnInterest = Arc<dyn Fn(Interest) + Send + Sync>;

/// Where a reader is, and how to wake it. (The wakers are here, not in an event's list,
/// because the cursors are here already: that saves each waiting client an allocation.)
pub(super) struct Cursor {
    pub(super) at: u64,
    /// Where it was when laggards were last looked for.
    looked_at: u64,
    pub(super) waker: Option<Waker>,
}

/// A value that lives as long as the flight's bytes.
pub(super) type Attachment = Box<dyn Any + Send + Sync>;

pub(super) struct Chunk {
    start: u64,
    pub(super) bytes: Bytes,
}

#[derive(Clone)]
pub(super) enum End {
    /// Complete. `kept` says whether the cache kept it.
    Landed {
        kept: bool,
    },
    Failed(Arc<Error>),
}

impl Cursor {
    /// Wakes this task at the next change.
    pub(super) fn wake_by(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl FlightState {
    pub(super) fn new(window: u64, all_readers: Option<Arc<AtomicU64>>) -> FlightState {
        FlightState {
            chunks: VecDeque::new(),
            len: 0,
            window,
            waits_for_all: false,
            cursors: Slab::new(),
            seen: false,
            end: None,
            unfit: false,
            start: Start::Begun,
            orphaned: false,
            on_interest: None,
            attached: Vec::new(),
            all_readers,
            note: None,
            along: None,
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        let chunk = Chunk {
            start: self.len,
            bytes,
        };
        self.len = chunk.end();
        self.chunks.push_back(chunk);

        while self.merge_last_two() {}
    }

    fn merge_last_two(&mut self) -> bool {
        let Some(before) = self.chunks.len().checked_sub(2) else {
            return false;
        };

        // A window moves by whole chunks, so chunks stay well below its size.
        let most = PIECE.min(usize::try_from(self.window / 8).unwrap_or(PIECE));
        let a = &self.chunks[before].bytes;
        let b = &self.chunks[before + 1].bytes;
        if a.len() >= 2 * b.len() || a.len() + b.len() > most {
            return false;
        }

        let merged = joined([a, b].into_iter());
        self.chunks.pop_back();
        self.chunks[before].bytes = merged;
        true
    }

    /// Takes out the oldest chunks beyond the window, but none that the fastest reader
    /// has yet to read: the chunk just appended may have crossed the window, and a
    /// reader that keeps up must not lose bytes to it.
    pub(super) fn trim(&mut self) -> Vec<Chunk> {
        let beyond = self.len.saturating_sub(self.window);
        if beyond <= self.base() {
            return Vec::new(); // before the readers are looked at: there may be many
        }

        let from = self.pace().map_or(beyond, |pace| beyond.min(pace));
        self.drop_before(from)
    }

    /// Takes out the chunks before this offset.
    fn drop_before(&mut self, from: u64) -> Vec<Chunk> {
        let old = |chunk: &&Chunk| chunk.end() <= from;
        let count = self.chunks.iter().take_while(old).count();
        self.chunks.drain(..count).collect()
    }

    /// A cursor for a new reader, and what to tell of it.
    pub(super) fn join(&mut self, at: u64) -> (usize, Option<OnInterest>) {
        if let Some(readers) = &self.all_readers {
            readers.fetch_add(1, Ordering::Relaxed);
        }
        let is_first = self.cursors.is_empty();
        let cursor = self.cursors.insert(Cursor {
            at,
            looked_at: at,
            waker: None,
        });

        let matters = is_first && self.start != Start::Begun;
        (cursor, self.on_interest.clone().filter(|_| matters))
    }

    /// Removes a reader. Closes the flight if its fetch begins only for readers.
    pub(super) fn leave(&mut self, cursor: usize) -> Option<(OnInterest, Interest)> {
        self.cursors.remove(cursor);
        if let Some(readers) = &self.all_readers {
            readers.fetch_sub(1, Ordering::Relaxed);
        }
        self.interest_lost()
    }

    /// What to tell now that no reader may be left.
    pub(super) fn interest_lost(&mut self) -> Option<(OnInterest, Interest)> {
        if !self.cursors.is_empty() {
            return None;
        }

        let lost = match self.start {
            Start::Begun if self.orphaned => Interest::Useless,
            Start::Begun => return None,
            Start::Waits | Start::WaitsForReaders | Start::Closed => Interest::Lost,
        };
        if self.start != Start::Waits {
            self.start = Start::Closed;
        }
        self.on_interest.clone().map(|tell| (tell, lost))
    }

    /// What a reader that could do with another text may hope for.
    pub(super) fn prospect(&self) -> Prospect {
        match &self.end {
            _ if self.unfit => Prospect::Unfit,
            None => Prospect::Open,
            Some(End::Landed { .. }) => Prospect::Whole,
            Some(End::Failed(_)) => Prospect::Unfit,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.end, Some(End::Failed(_)))
    }

    /// Takes out the bytes of a failed flight that no reader reads any more. A cached
    /// failure may stay for long and must not hold on to them.
    pub(super) fn release_unread(&mut self) -> (VecDeque<Chunk>, Vec<Attachment>) {
        if !self.has_failed() || !self.cursors.is_empty() {
            return Default::default();
        }

        let chunks = std::mem::take(&mut self.chunks);
        (chunks, std::mem::take(&mut self.attached))
    }

    /// The offset of the first byte that is still held.
    pub(super) fn base(&self) -> u64 {
        self.chunks.front().map_or(self.len, |chunk| chunk.start)
    }

    /// What a reader at offset `at` finds.
    pub(super) fn read(&self, at: u64) -> Read {
        if at < self.base() {
            return Read::FellBehind {
                window: self.window,
            };
        }
        if at < self.len {
            let after = self.chunks.partition_point(|chunk| chunk.start <= at);
            let chunk = &self.chunks[after - 1];
            return Read::Chunk(chunk.bytes.slice((at - chunk.start) as usize..));
        }

        match &self.end {
            None => Read::Pending,
            Some(End::Landed { .. }) => Read::End,
            Some(End::Failed(error)) => Read::Failed(error.clone()),
        }
    }

    /// Takes out the wakers of the readers that wait. Call them once the lock is
    /// released.
    pub(super) fn waiting(&mut self) -> Vec<Waker> {
        let wakers = self.cursors.iter_mut();
        wakers
            .filter_map(|(_, cursor)| cursor.waker.take())
            .chain(self.along.take())
            .collect()
    }

    /// The offset of the reader that sets the pace. One that has fallen behind is none.
    fn pace(&self) -> Option<u64> {
        let base = self.base();
        let offsets = self.cursors.iter().map(|(_, cursor)| cursor.at);
        let mut offsets = offsets.filter(|at| *at >= base);

        if self.waits_for_all {
            offsets.min()
        } else {
            offsets.next().map(|first| offsets.fold(first, u64::max))
        }
    }

    /// Whether the reader that sets the pace has taken `bytes` since the last look.
    /// Looks at all readers for the next time.
    pub(super) fn keeps_pace(&mut self, bytes: u64) -> bool {
        let base = self.base();
        let mut slowest: Option<(u64, u64)> = None;
        for (_, cursor) in &mut self.cursors {
            let taken = cursor.at - cursor.looked_at;
            cursor.looked_at = cursor.at;
            let is_slower = slowest.is_none_or(|(at, _)| cursor.at < at);
            if cursor.at >= base && is_slower {
                slowest = Some((cursor.at, taken));
            }
        }
        slowest.is_none_or(|(_, taken)| taken >= bytes)
    }

    /// Takes out the chunks that only laggards need: readers that are a window behind
    /// the fastest. They have fallen behind then.
    pub(super) fn leave_laggards(&mut self) -> Vec<Chunk> {
        let fastest = self.cursors.iter().map(|(_, cursor)| cursor.at).max();
        let limit = fastest.unwrap_or(self.len).saturating_sub(self.window / 2);

        // The slowest of those that are less than half a window behind.
        let near = self.cursors.iter().map(|(_, cursor)| cursor.at);
        let near = near.filter(|at| *at >= limit).min();
        self.drop_before(near.unwrap_or(self.len))
    }

    /// What the readers have yet to take of the bytes that are held.
    pub(super) fn remaining(&self) -> Remaining {
        let mut remaining = Remaining {
            readers: 0,
            bytes: u64::MAX,
        };

        for (_, cursor) in &self.cursors {
            let bytes = self.len - cursor.at;
            if bytes > 0 && !self.chunks.is_empty() {
                remaining.readers += 1;
                remaining.bytes = remaining.bytes.min(bytes);
            }
        }

        if remaining.readers == 0 {
            remaining.bytes = 0;
        }
        remaining
    }

    /// Whether the poem is complete and ends with what [`FlightState::read`] shows at
    /// `at`.
    pub(super) fn ends_at(&self, at: u64) -> bool {
        let is_last_chunk = self.chunks.back().is_none_or(|last| last.start <= at);
        matches!(self.end, Some(End::Landed { .. })) && is_last_chunk
    }

    /// Whether another chunk may be appended, counted from the fastest reader. `None`
    /// while that reader has to catch up first.
    pub(super) fn writable(&self) -> Option<Result<(), NoReaders>> {
        if self.len < self.window {
            return Some(Ok(()));
        }

        match self.pace() {
            None => Some(Err(NoReaders)),
            Some(pace) if self.len - pace < self.window => Some(Ok(())),
            Some(_) => None,
        }
    }

    /// The bytes that are held, as shared pieces.
    pub(super) fn pieces(&self) -> Vec<Bytes> {
        self.chunks
            .iter()
            .map(|chunk| chunk.bytes.clone())
            .collect()
    }

    /// Lets readers read on from the poem's own pieces, so that there is one copy of
    /// it. Returns the chunks that the pieces replace.
    pub(super) fn replace(&mut self, poem: &Poem) -> VecDeque<Chunk> {
        let mut start = 0;
        let chunks = poem.pieces().into_iter().map(|bytes| {
            let chunk = Chunk { start, bytes };
            start = chunk.end();
            chunk
        });
        std::mem::replace(&mut self.chunks, chunks.collect())
    }
}

fn joined<'a>(pieces: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut all = Vec::with_capacity(pieces.clone().map(Bytes::len).sum());
    pieces.for_each(|piece| all.extend_from_slice(piece));
    all.into()
}

/// The chunks of a finished poem, with the small ones at its end merged into one.
pub(super) fn compact(mut pieces: Vec<Bytes>) -> Vec<Bytes> {
    let mut small = 0;
    let large = pieces.iter().rposition(|piece| {
        small += piece.len();
        small > PIECE
    });

    let tail = pieces.split_off(large.map_or(0, |at| at + 1));
    match &tail[..] {
        [] => {}
        [one] => pieces.push(one.clone()),
        several => pieces.push(joined(several.iter())),
    }
    pieces
}

#[cfg(test)]
mod tests;
