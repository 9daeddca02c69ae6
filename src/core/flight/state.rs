//! What a flight's lock protects: the chunks that are held, where the readers are, and how it ended.

use super::{PIECE, Read, Remaining};
use crate::error::Error;
use crate::poem::Poem;
use bytes::Bytes;
use slab::Slab;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

/// Everything about a flight but its waking.
pub(super) struct FlightState {
    pub(super) chunks: VecDeque<Chunk>,
    /// All bytes ever appended.
    pub(super) len: u64,
    pub(super) window: u64,
    pub(super) cursors: Slab<Cursor>,
    /// Whether any reader has been shown a byte: from then on nothing can be taken back.
    pub(super) seen: bool,
    pub(super) end: Option<End>,
    /// Dropped when the chunks are.
    pub(super) attached: Vec<Attachment>,
}

/// Where a reader is, and whom to wake when there is more for it. (The wakers are here and not in a list of an event's
/// own because the readers are: that saves each waiting client an allocation.)
pub(super) struct Cursor {
    pub(super) at: u64,
    pub(super) waker: Option<Waker>,
}

/// Whatever a writer wants to be dropped no sooner than the bytes it wrote.
pub(super) type Attachment = Box<dyn Any + Send + Sync>;

pub(super) struct Chunk {
    start: u64,
    pub(super) bytes: Bytes,
}

#[derive(Clone)]
pub(super) enum End {
    /// Complete; and whether it was kept.
    Landed {
        kept: bool,
    },
    Failed(Arc<Error>),
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl FlightState {
    pub(super) fn new(window: u64) -> FlightState {
        let (chunks, cursors) = (VecDeque::new(), Slab::new());
        FlightState {
            chunks,
            len: 0,
            window,
            cursors,
            seen: false,
            end: None,
            attached: Vec::new(),
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
        let most = PIECE.min(usize::try_from(self.window / 8).unwrap_or(PIECE)); // the window moves by chunks
        let (a, b) = (&self.chunks[before].bytes, &self.chunks[before + 1].bytes);
        if a.len() >= 2 * b.len() || a.len() + b.len() > most {
            return false;
        }
        let merged = joined([a, b].into_iter());
        self.chunks.pop_back();
        self.chunks[before].bytes = merged;
        true
    }

    /// Lets go of the oldest chunks beyond the window, but of none that the fastest reader has yet to read: the chunk
    /// just appended may have crossed the window, and that must cost nobody the poem who keeps the pace.
    pub(super) fn trim(&mut self) -> Vec<Chunk> {
        let beyond = self.len.saturating_sub(self.window);
        if beyond <= self.base() {
            return Vec::new(); // before the readers are looked at: there may be many
        }
        let from = self.fastest().map_or(beyond, |fastest| beyond.min(fastest));
        let gone = self
            .chunks
            .iter()
            .take_while(|chunk| chunk.end() <= from)
            .count();
        self.chunks.drain(..gone).collect()
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.end, Some(End::Failed(_)))
    }

    /// What came of a failed poem is of use to those who read it along, and to nobody after them: a failure that is
    /// remembered for long must not hold on to it.
    pub(super) fn release_unread(&mut self) -> (VecDeque<Chunk>, Vec<Attachment>) {
        match self.has_failed() && self.cursors.is_empty() {
            true => (
                std::mem::take(&mut self.chunks),
                std::mem::take(&mut self.attached),
            ),
            false => (VecDeque::new(), Vec::new()),
        }
    }

    /// The offset of the first byte that is still held.
    pub(super) fn base(&self) -> u64 {
        self.chunks.front().map_or(self.len, |chunk| chunk.start)
    }

    /// What is there at this offset.
    pub(super) fn read(&self, at: u64) -> Read {
        if at < self.base() {
            return Read::Failed(Arc::new(Error::FellBehind {
                window: self.window,
            }));
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

    /// Those who wait for more: to be woken once the lock is released.
    pub(super) fn waiting(&mut self) -> Vec<Waker> {
        self.cursors
            .iter_mut()
            .filter_map(|(_, cursor)| cursor.waker.take())
            .collect()
    }

    fn fastest(&self) -> Option<u64> {
        self.cursors.iter().map(|(_, cursor)| cursor.at).max()
    }

    /// What readers have yet to take of what is here.
    pub(super) fn remaining(&self) -> Remaining {
        let remaining = || {
            self.cursors
                .iter()
                .map(|(_, cursor)| self.len - cursor.at)
                .filter(|remaining| *remaining > 0)
        };
        match self.chunks.is_empty() {
            true => Remaining {
                readers: 0,
                bytes: 0,
            },
            false => Remaining {
                readers: remaining().count(),
                bytes: remaining().min().unwrap_or(0),
            },
        }
    }

    /// Whether the poem is whole and ends with what [`FlightState::read`] shows at this offset.
    pub(super) fn ends_at(&self, at: u64) -> bool {
        matches!(self.end, Some(End::Landed { .. }))
            && self.chunks.back().is_none_or(|last| last.start <= at)
    }

    /// Whether another chunk may come: the window has room, counted from the fastest reader.
    pub(super) fn writable(&self) -> Option<Result<(), Error>> {
        if self.len < self.window {
            return Some(Ok(()));
        }
        match self.fastest() {
            None => Some(Err(Error::Deserted)),
            Some(fastest) if self.len - fastest < self.window => Some(Ok(())),
            Some(_) => None,
        }
    }

    /// Reads on from the poem's own pieces, so that there is one copy of it.
    pub(super) fn replace(&mut self, poem: &Poem) {
        let mut start = 0;
        self.chunks.clear();
        for bytes in poem.pieces() {
            self.chunks.push_back(Chunk {
                start,
                bytes: bytes.clone(),
            });
            start += bytes.len() as u64;
        }
    }
}

fn joined<'a>(pieces: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut all = Vec::with_capacity(pieces.clone().map(Bytes::len).sum());
    pieces.for_each(|piece| all.extend_from_slice(piece));
    all.into()
}

/// The chunks of a finished poem, the small ones at its end made one.
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
