//! Those who read a flight, or a poem that has long been kept.

use super::state::End;
use super::{Inner, launch};
use crate::error::Error;
use crate::poem::Poem;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

/// What a reader finds.
#[derive(Debug, Clone)]
pub enum Read {
    /// The next bytes, at least one.
    Chunk(Bytes),
    /// Nothing yet: wait for [`Reader::ready`].
    Pending,
    /// The poem is complete and read.
    End,
    /// The poem will never be complete.
    Failed(Arc<Error>),
}

/// One who reads a poem from its beginning, as it comes or long after it came.
pub struct Reader {
    source: ReadFrom,
}

enum ReadFrom {
    Whole {
        poem: Poem,
        piece: usize,
        offset: usize,
    },
    Aloft {
        shared: Arc<Inner>,
        cursor: usize,
    },
    Released,
}

impl Reader {
    pub(super) fn aloft(shared: Arc<Inner>, cursor: usize) -> Reader {
        Reader {
            source: ReadFrom::Aloft { shared, cursor },
        }
    }

    /// A reader of a poem that is already here: it never waits.
    pub fn of(poem: Poem) -> Reader {
        Reader {
            source: ReadFrom::Whole {
                poem,
                piece: 0,
                offset: 0,
            },
        }
    }

    /// A reader of a poem that failed before anyone asked.
    pub fn failed(error: Error) -> Reader {
        let (writer, flight) = launch(0);
        writer.fail(error);
        flight
            .join()
            .expect("a flight without a byte still has its beginning")
    }

    /// Lets go of the poem, of which there is nothing left to read.
    pub fn release(&mut self) {
        drop(std::mem::replace(
            self,
            Reader {
                source: ReadFrom::Released,
            },
        ));
    }

    /// The length of the poem, if all of it is here already.
    pub fn whole_len(&self) -> Option<u64> {
        match &self.source {
            ReadFrom::Whole { poem, .. } => Some(poem.len()),
            ReadFrom::Aloft { .. } | ReadFrom::Released => None,
        }
    }

    /// What comes next, without waiting and without taking it: a reader holds on to no byte, so that one who takes
    /// nothing costs no memory and is not in the way of what is let go.
    pub fn peek(&self) -> Read {
        self.peek_ahead().0
    }

    /// The same, and whether it is known to be the last of a whole poem.
    pub fn peek_ahead(&self) -> (Read, bool) {
        match &self.source {
            ReadFrom::Whole {
                poem,
                piece,
                offset,
            } => match poem.pieces().get(*piece) {
                Some(bytes) => (
                    Read::Chunk(bytes.slice(*offset..)),
                    piece + 1 == poem.pieces().len(),
                ),
                None => (Read::End, true),
            },
            ReadFrom::Aloft { shared, cursor } => {
                let mut state = shared.lock();
                let at = state.cursors[*cursor].at;
                let next = state.read(at);
                state.seen |= matches!(next, Read::Chunk(_));
                (next, state.ends_at(at))
            }
            ReadFrom::Released => (Read::End, true),
        }
    }

    /// Takes this many of the bytes that [`Reader::peek`] showed.
    pub fn advance(&mut self, count: usize) {
        match &mut self.source {
            ReadFrom::Whole {
                poem,
                piece,
                offset,
            } => {
                *offset += count;
                if poem
                    .pieces()
                    .get(*piece)
                    .is_some_and(|bytes| bytes.len() == *offset)
                {
                    (*piece, *offset) = (*piece + 1, 0);
                }
            }
            ReadFrom::Aloft { shared, cursor } => {
                shared.lock().cursors[*cursor].at += count as u64;
                shared.taken.notify(1);
            }
            ReadFrom::Released => {}
        }
    }

    /// The next bytes, taken, without waiting.
    pub fn read(&mut self) -> Read {
        let next = self.peek();
        if let Read::Chunk(bytes) = &next {
            self.advance(bytes.len());
        }
        next
    }

    /// Whether the poem ended whole and was kept for those who ask later.
    pub fn was_kept(&self) -> bool {
        match &self.source {
            ReadFrom::Whole { .. } => true,
            ReadFrom::Aloft { shared, .. } => {
                matches!(shared.lock().end, Some(End::Landed { kept: true }))
            }
            ReadFrom::Released => false,
        }
    }

    /// Whether nothing is to come any more, however it ended.
    pub fn is_over(&self) -> bool {
        match &self.source {
            ReadFrom::Whole { .. } | ReadFrom::Released => true,
            ReadFrom::Aloft { shared, .. } => shared.lock().end.is_some(),
        }
    }

    /// Waits until [`Reader::read`] has something else to say than `Pending`.
    pub fn ready(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            let ReadFrom::Aloft { shared, cursor } = &self.source else {
                return Poll::Ready(());
            };
            let mut state = shared.lock();
            let cursor = *cursor;
            if !matches!(state.read(state.cursors[cursor].at), Read::Pending) {
                return Poll::Ready(());
            }
            let waker = &mut state.cursors[cursor].waker;
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let ReadFrom::Aloft { shared, cursor } = &self.source {
            let mut state = shared.lock();
            state.cursors.remove(*cursor);
            let _unread = state.release_unread(); // dropped after the lock is released
            drop(state);
            shared.taken.notify(1);
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            ReadFrom::Whole { poem, .. } => write!(f, "Reader({poem:?})"),
            ReadFrom::Aloft { .. } => write!(f, "Reader(aloft)"),
            ReadFrom::Released => write!(f, "Reader(released)"),
        }
    }
}
