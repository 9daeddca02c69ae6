//! A file that is read while it is sent.
//!
//! A client holds a descriptor and an offset, and no bytes: a thousand clients that
//! take nothing cost no more memory than one. Bytes are read once the kernel can take
//! some from us. What it then leaves of a piece stays among the [`LastPieces`] for a
//! while. If the client goes on too late for that, the rest is read once more.
//!
//! Where the kernel has the bytes in memory, they are read on the spot, which takes as
//! long as sending them. Only a read that would wait for the disk goes to a thread.

use super::file::OpenFile;
use crate::error::Error;
use crate::flight::{Pull, Read};
use crate::rt;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};

/// How many bytes of a file are read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtOnce {
    /// 512 KiB, for a client that gets them as fast as it takes them. Medians measured
    /// against a poem in memory: 0.7 to 0.8 of its rate with 128 KiB, 0.86 to 1.02 with
    /// 256 KiB, mostly 0.9 to 1.04 with this. Sixteen clients, which keep the processor
    /// busy, get 0.82: the bytes are copied once more.
    Many,
    /// 16 KiB, where what was read is held until the client takes it.
    Few,
}

impl AtOnce {
    fn len(self) -> usize {
        match self {
            AtOnce::Many => 512 << 10,
            AtOnce::Few => 16 << 10,
        }
    }
}

/// Pieces held for all clients together. With 8, eight clients get no more (measured).
const PIECES: usize = 2;

const UNPOISONED: &str = "no code panics while it holds this lock";

/// A part of a file.
#[derive(Debug)]
struct Piece {
    /// The offset of its first byte.
    start: u64,
    bytes: Vec<u8>,
    /// How many of the bytes are the file's.
    filled: usize,
}

/// A piece that is being sent.
struct PieceBytes(Arc<Piece>);

impl AsRef<[u8]> for PieceBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes[..self.0.filled]
    }
}

impl Piece {
    /// Whether it has enough bytes from offset `at` on. The kernel often leaves a few
    /// hundred. Sent alone, they cost a packet and a tenth of the rate (measured), so
    /// they are read once more, together with those after them.
    fn serves(&self, at: u64) -> bool {
        let end = self.start + self.filled as u64;
        let is_enough = end.saturating_sub(at) > self.filled as u64 / 32;
        at == self.start || (at > self.start && is_enough)
    }

    /// The bytes from offset `at` on, of which it has some.
    fn from(self: Arc<Piece>, at: u64) -> Bytes {
        let skipped = (at - self.start) as usize;
        Bytes::from_owner(PieceBytes(self)).slice(skipped..)
    }
}

/// Keeps the pieces read last alive, of all files. Clones share them. Nothing is looked
/// up here: a reader finds its own piece by a `Weak`.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastPieces {
    held: Arc<Mutex<VecDeque<Arc<Piece>>>>,
}

impl LastPieces {
    /// Holds a piece instead of the oldest one.
    fn hold(&self, piece: Arc<Piece>) {
        let mut held = self.lock();
        held.push_back(piece);
        let oldest = if held.len() > PIECES {
            held.pop_front()
        } else {
            None
        };

        drop(held);
        drop(oldest);
    }

    /// A buffer of `len` bytes: that of `done`, which is still in the processor's
    /// cache, if it is not in use any more.
    fn buffer(&self, done: &Weak<Piece>, len: usize) -> Vec<u8> {
        let done = {
            let mut held = self.lock();
            let at = held
                .iter()
                .position(|piece| Arc::as_ptr(piece) == done.as_ptr());
            at.and_then(|at| held.remove(at))
        };

        let done = done.and_then(Arc::into_inner);
        let bytes = done.map(|piece| piece.bytes);
        bytes
            .filter(|bytes| bytes.len() == len)
            .unwrap_or_else(|| vec![0; len])
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Piece>>> {
        self.held.lock().expect(UNPOISONED)
    }
}

/// Reads a file for one client.
pub(super) struct FileReader {
    path: Arc<Path>,
    /// The offset of the next byte.
    at: u64,
    at_once: AtOnce,
    pieces: LastPieces,
    state: Mutex<FileState>,
}

/// What a look at the next bytes may change.
#[derive(Default)]
struct FileState {
    file: Option<OpenFile>,
    /// The piece read last, unless it has been dropped.
    piece: Weak<Piece>,
    /// The same piece until it is looked at, so that it can't be dropped before.
    fresh: Option<Arc<Piece>>,
    /// Work on a thread that may wait for the disk.
    loading: Option<Loading>,
    failed: Option<Arc<Error>>,
}

impl FileState {
    fn is_at_end(&self, at: u64) -> bool {
        self.file.as_ref().is_some_and(|file| file.len == at)
    }
}

/// What a thread brings: the open file, or its next piece.
enum Loaded {
    Opened(OpenFile),
    Read(Arc<Piece>),
}

type Loading = Pin<Box<dyn Future<Output = Result<Loaded, String>> + Send>>;

impl FileReader {
    pub(super) fn new(path: Arc<Path>, pieces: LastPieces, at_once: AtOnce) -> FileReader {
        FileReader {
            path,
            at: 0,
            at_once,
            pieces,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FileState> {
        self.state.lock().expect(UNPOISONED)
    }

    /// The piece with the next byte, if it is in memory: ours, or the kernel's.
    fn in_memory(&self, state: &mut FileState) -> Option<Arc<Piece>> {
        let held = state.fresh.take().or_else(|| state.piece.upgrade());
        if let Some(piece) = held.filter(|piece| piece.serves(self.at)) {
            return Some(piece);
        }

        let file = state.file.as_ref()?;
        let mut bytes = self.pieces.buffer(&state.piece, self.at_once.len());
        let filled = file.read_cached(self.at, &mut bytes)?;
        let piece = Piece {
            start: self.at,
            bytes,
            filled,
        };
        Some(self.hold(state, Arc::new(piece)))
    }

    fn hold(&self, state: &mut FileState, piece: Arc<Piece>) -> Arc<Piece> {
        state.piece = Arc::downgrade(&piece);
        self.pieces.hold(piece.clone());
        piece
    }

    /// Opens the file, or reads its next piece from the disk.
    fn load(&self, file: Option<OpenFile>) -> Loading {
        let (path, at) = (self.path.clone(), self.at);
        let len = self.at_once.len();
        Box::pin(rt::unblock(move || match file {
            Some(file) => read(&file, at, len).map(Loaded::Read),
            None => open(&path).map(Loaded::Opened),
        }))
    }
}

fn open(path: &Path) -> Result<OpenFile, String> {
    let file = OpenFile::open(path)?;
    if file.len == 0 {
        return Err("the file is empty".into());
    }
    Ok(file)
}

fn read(file: &OpenFile, start: u64, len: usize) -> Result<Arc<Piece>, String> {
    let mut bytes = vec![0; len];
    let filled = file.read(start, &mut bytes)?;
    Ok(Arc::new(Piece {
        start,
        bytes,
        filled,
    }))
}

impl Pull for FileReader {
    fn peek(&self) -> (Read, bool) {
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return (Read::Failed(error.clone()), false);
        }
        let Some(len) = state.file.as_ref().map(|file| file.len) else {
            return (Read::Pending, false);
        };
        if self.at == len {
            return (Read::End, true);
        }

        let Some(piece) = self.in_memory(&mut state) else {
            return (Read::Pending, false);
        };
        let bytes = piece.from(self.at);
        let is_last = self.at + bytes.len() as u64 == len;
        (Read::Chunk(bytes), is_last)
    }

    fn advance(&mut self, count: usize) {
        self.at += count as u64;
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() || state.is_at_end(self.at) {
                return Poll::Ready(());
            }
            if state.loading.is_none()
                && let Some(piece) = self.in_memory(&mut state)
            {
                state.fresh = Some(piece);
                return Poll::Ready(());
            }

            let file = state.file.clone();
            let loading = state.loading.get_or_insert_with(|| self.load(file));
            let loaded = ready!(loading.as_mut().poll(cx));
            state.loading = None;
            match loaded {
                Ok(Loaded::Opened(file)) => state.file = Some(file),
                Ok(Loaded::Read(piece)) => state.fresh = Some(self.hold(&mut state, piece)),
                Err(why) => state.failed = Some(Arc::new(super::local(&self.path, why))),
            }
        }
    }
}
