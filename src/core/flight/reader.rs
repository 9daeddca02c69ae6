//! The reading end of a flight, or of a poem that is complete.

use super::state::{End, Prospect};
use super::{Inner, launch};
use crate::error::Error;
use crate::observe::{FeedNote, FetchNote};
use crate::poem::Poem;
use crate::sync::drop_after;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a reader finds.
#[derive(Debug, Clone)]
pub enum Read<B = Bytes> {
    /// The next bytes, at least one.
    Chunk(B),
    /// Nothing yet: wait for [`Reader::ready`].
    Pending,
    /// The poem is complete and read.
    End,
    /// The poem will never be complete.
    Failed(Arc<Error>),
    /// The poem is longer than the window of this many bytes, and this reader was
    /// slower than the fastest by more than that.
    FellBehind {
        /// The window's size in bytes.
        window: u64,
    },
}

/// Bytes that a reader shows.
#[derive(Debug)]
pub enum Shown<'a> {
    /// A complete poem lends them: that counts nothing up or down.
    Lent(&'a [u8]),
    /// A flight shares them.
    Shared(Bytes),
}

impl Deref for Shown<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Shown::Lent(bytes) => bytes,
            Shown::Shared(bytes) => bytes,
        }
    }
}

impl<B> Read<B> {
    fn map<C>(self, change: impl FnOnce(B) -> C) -> Read<C> {
        match self {
            Read::Chunk(bytes) => Read::Chunk(change(bytes)),
            Read::Pending => Read::Pending,
            Read::End => Read::End,
            Read::Failed(error) => Read::Failed(error),
            Read::FellBehind { window } => Read::FellBehind { window },
        }
    }
}

/// A text that is read from somewhere else while it is sent: a file, or a feed.
pub trait Pull: Send + Sync {
    /// What [`Reader::peek_ahead`] shows. It must not wait.
    fn peek(&self) -> (Read, bool);
    /// Takes `count` of the bytes that `peek` showed.
    fn advance(&mut self, count: usize);
    /// The bytes that `peek` showed can't be taken for now.
    fn not_taken(&self) {}
    /// What a feed knows of this reader.
    fn feed_note(&self) -> Option<FeedNote> {
        None
    }
    /// Ready once `peek` shows something other than `Pending`.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// What [`Reader::note`] says.
    fn note(&self) -> Option<Arc<FetchNote>> {
        None
    }

    /// What [`Reader::was_kept`] says.
    fn was_kept(&self) -> bool {
        false
    }

    /// What [`Reader::is_stale`] says.
    fn is_stale(&self) -> bool {
        false
    }
}

/// Reads a poem from its first byte, as it comes or long after it came.
pub struct Reader {
    from: ReadFrom,
}

enum ReadFrom {
    Poem {
        poem: Poem,
        piece: usize,
        offset: usize,
    },
    Flight {
        shared: Arc<Inner>,
        cursor: usize,
    },
    /// A flight, without being one of its readers.
    Along {
        shared: Arc<Inner>,
        at: u64,
    },
    Elsewhere(Box<dyn Pull>),
    Released,
}

impl Reader {
    pub(super) fn in_flight(shared: Arc<Inner>, cursor: usize) -> Reader {
        Reader {
            from: ReadFrom::Flight { shared, cursor },
        }
    }

    pub(super) fn along(shared: Arc<Inner>) -> Reader {
        Reader {
            from: ReadFrom::Along { shared, at: 0 },
        }
    }

    /// A reader of a complete poem. It never waits.
    pub fn of(poem: Poem) -> Reader {
        Reader {
            from: ReadFrom::Poem {
                poem,
                piece: 0,
                offset: 0,
            },
        }
    }

    /// A reader of a text that is elsewhere.
    pub fn pulling(text: Box<dyn Pull>) -> Reader {
        Reader {
            from: ReadFrom::Elsewhere(text),
        }
    }

    /// A reader of a poem that failed before it began.
    pub fn failed(error: Error) -> Reader {
        let writer = launch(0);
        let reader = writer.flight().join();
        writer.fail(error);

        reader.expect("an empty flight holds its beginning")
    }

    /// Takes the reader out, and leaves one that reads nothing.
    pub(crate) fn take(&mut self) -> Reader {
        let from = ReadFrom::Released;
        std::mem::replace(self, Reader { from })
    }

    /// Drops the poem. For a reader that has read it all.
    pub fn release(&mut self) {
        *self = Reader {
            from: ReadFrom::Released,
        };
    }

    /// The poem's length in bytes, if it is complete and came from the cache.
    pub fn whole_len(&self) -> Option<u64> {
        match &self.from {
            ReadFrom::Poem { poem, .. } => Some(poem.len()),
            ReadFrom::Flight { .. }
            | ReadFrom::Along { .. }
            | ReadFrom::Elsewhere(_)
            | ReadFrom::Released => None,
        }
    }

    /// What comes next, without waiting and without taking it. The reader keeps no
    /// bytes of its own: one that takes nothing costs no memory and blocks no release.
    pub fn peek(&self) -> Read {
        match &self.from {
            ReadFrom::Poem {
                poem,
                piece,
                offset,
            } => match poem.pieces().get(*piece) {
                Some(bytes) => Read::Chunk(bytes.slice(*offset..)),
                None => Read::End,
            },
            _ => self.peek_elsewhere().0,
        }
    }

    /// What comes next, and whether it is known to be the last of a complete poem.
    #[inline]
    pub fn peek_ahead(&self) -> (Read<Shown<'_>>, bool) {
        if let ReadFrom::Poem {
            poem,
            piece,
            offset,
        } = &self.from
        {
            return match poem.piece(*piece) {
                Some(bytes) => {
                    let bytes = Shown::Lent(&bytes[*offset..]);
                    (Read::Chunk(bytes), poem.is_last(*piece))
                }
                None => (Read::End, true),
            };
        }

        let (next, is_last) = self.peek_elsewhere();
        (next.map(Shown::Shared), is_last)
    }

    /// The same for all but complete poems.
    fn peek_elsewhere(&self) -> (Read, bool) {
        match &self.from {
            ReadFrom::Flight { shared, cursor } => {
                let mut state = shared.lock();
                let at = state.cursors[*cursor].at;
                let next = state.read(at);
                state.seen |= matches!(next, Read::Chunk(_));
                (next, state.ends_at(at))
            }
            ReadFrom::Along { shared, at } => {
                let mut state = shared.lock();
                let next = state.read(*at);
                state.seen |= matches!(next, Read::Chunk(_));
                (next, state.ends_at(*at))
            }
            ReadFrom::Elsewhere(text) => text.peek(),
            ReadFrom::Poem { .. } | ReadFrom::Released => (Read::End, true),
        }
    }

    /// Takes `count` of the bytes that [`Reader::peek`] showed.
    pub fn advance(&mut self, count: usize) {
        match &mut self.from {
            ReadFrom::Poem {
                poem,
                piece,
                offset,
            } => {
                *offset += count;
                let length = poem.piece(*piece).map(<[u8]>::len);
                if length == Some(*offset) {
                    *piece += 1;
                    *offset = 0;
                }
            }
            ReadFrom::Flight { shared, cursor } => {
                shared.lock().cursors[*cursor].at += count as u64;
                shared.taken.notify(1);
            }
            ReadFrom::Along { at, .. } => *at += count as u64,
            ReadFrom::Elsewhere(text) => text.advance(count),
            ReadFrom::Released => {}
        }
    }

    /// Says that the bytes that [`Reader::peek`] showed can't be taken for now, so that
    /// nothing is held for that.
    pub fn not_taken(&self) {
        if let ReadFrom::Elsewhere(text) = &self.from {
            text.not_taken();
        }
    }

    /// What a feed knows of this reader; `None` for any other text.
    pub fn feed_note(&self) -> Option<FeedNote> {
        match &self.from {
            ReadFrom::Elsewhere(text) => text.feed_note(),
            _ => None,
        }
    }

    /// Takes the next bytes, without waiting.
    pub fn read(&mut self) -> Read {
        let next = self.peek();
        if let Read::Chunk(bytes) = &next {
            self.advance(bytes.len());
        }
        next
    }

    /// Whether the poem is complete and later requests find it in the cache.
    pub fn was_kept(&self) -> bool {
        match &self.from {
            ReadFrom::Poem { .. } => true,
            ReadFrom::Flight { shared, .. } | ReadFrom::Along { shared, .. } => {
                matches!(shared.lock().end, Some(End::Landed { kept: true }))
            }
            ReadFrom::Elsewhere(text) => text.was_kept(),
            ReadFrom::Released => false,
        }
    }

    /// What is known of the fetch that brings the poem; `None` for one that is complete
    /// already, or that no fetch brings.
    pub fn note(&self) -> Option<Arc<FetchNote>> {
        match &self.from {
            ReadFrom::Flight { shared, .. } | ReadFrom::Along { shared, .. } => {
                shared.lock().note.clone()
            }
            ReadFrom::Elsewhere(text) => text.note(),
            ReadFrom::Poem { .. } | ReadFrom::Released => None,
        }
    }

    /// Whether the reader waited for a new text, and got a stale one in its place.
    pub fn is_stale(&self) -> bool {
        matches!(&self.from, ReadFrom::Elsewhere(text) if text.is_stale())
    }

    /// Whether the poem has ended, complete or failed, so that no more bytes arrive.
    pub fn is_over(&self) -> bool {
        match &self.from {
            ReadFrom::Poem { .. } | ReadFrom::Released => true,
            ReadFrom::Flight { shared, .. } | ReadFrom::Along { shared, .. } => {
                shared.lock().end.is_some()
            }
            ReadFrom::Elsewhere(_) => false,
        }
    }

    /// The flight that is read, as [`Writer::id`](super::Writer::id) gives it; `None`
    /// for a complete poem.
    pub fn flight_id(&self) -> Option<usize> {
        match &self.from {
            ReadFrom::Flight { shared, .. } | ReadFrom::Along { shared, .. } => {
                Some(Arc::as_ptr(shared) as usize)
            }
            ReadFrom::Poem { .. } | ReadFrom::Elsewhere(_) | ReadFrom::Released => None,
        }
    }

    /// Waits until [`Reader::read`] returns something other than `Pending`.
    pub fn ready(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| self.poll_ready(context))
    }

    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let (shared, cursor) = match &self.from {
            ReadFrom::Flight { shared, cursor } => (shared, cursor),
            ReadFrom::Along { shared, at } => {
                let mut state = shared.lock();
                if !matches!(state.read(*at), Read::Pending) {
                    return Poll::Ready(());
                }
                state.along = Some(context.waker().clone());
                return Poll::Pending;
            }
            ReadFrom::Elsewhere(text) => return text.poll_ready(context),
            ReadFrom::Poem { .. } | ReadFrom::Released => return Poll::Ready(()),
        };

        let mut state = shared.lock();
        if !matches!(state.read(state.cursors[*cursor].at), Read::Pending) {
            return Poll::Ready(());
        }

        state.cursors[*cursor].wake_by(context);
        Poll::Pending
    }

    /// What a reader that could do with another text may hope for. It is shown no byte,
    /// so that the fetch may still begin again. While that is open, and with a context,
    /// it is woken by any change.
    pub fn prospect(&self, context: Option<&mut Context<'_>>) -> Prospect {
        let ReadFrom::Flight { shared, cursor } = &self.from else {
            return Prospect::Whole;
        };

        let mut state = shared.lock();
        let prospect = state.prospect();
        if let (Prospect::Open, Some(context)) = (prospect, context) {
            state.cursors[*cursor].wake_by(context);
        }
        prospect
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let ReadFrom::Flight { shared, cursor } = &self.from {
            let on_interest = drop_after(shared.lock(), |state| {
                let on_interest = state.leave(*cursor);
                (on_interest, state.release_unread())
            });

            shared.taken.notify(1);
            if let Some((tell, lost)) = on_interest {
                tell(lost);
            }
        }
        if let ReadFrom::Along { shared, .. } = &self.from {
            drop_after(shared.lock(), |state| ((), state.along.take()));
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.from {
            ReadFrom::Poem { poem, .. } => write!(f, "Reader({poem:?})"),
            ReadFrom::Flight { .. } => write!(f, "Reader(in flight)"),
            ReadFrom::Along { .. } => write!(f, "Reader(along)"),
            ReadFrom::Elsewhere(_) => write!(f, "Reader(elsewhere)"),
            ReadFrom::Released => write!(f, "Reader(released)"),
        }
    }
}

#[cfg(test)]
mod tests;
