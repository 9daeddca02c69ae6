//! Those who read a flight, or a poem that has long been kept.

use super::state::End;
use super::{Shared, launch};
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
    source: Source,
}

enum Source {
    Whole {
        poem: Poem,
        piece: usize,
        offset: usize,
    },
    Aloft {
        shared: Arc<Shared>,
        place: usize,
    },
    Released,
}

impl Reader {
    pub(super) fn aloft(shared: Arc<Shared>, place: usize) -> Reader {
        Reader {
            source: Source::Aloft { shared, place },
        }
    }

    /// A reader of a poem that is already here: it never waits.
    pub fn of(poem: Poem) -> Reader {
        Reader {
            source: Source::Whole {
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
                source: Source::Released,
            },
        ));
    }

    /// The length of the poem, if all of it is here already.
    pub fn whole_len(&self) -> Option<u64> {
        match &self.source {
            Source::Whole { poem, .. } => Some(poem.len()),
            Source::Aloft { .. } | Source::Released => None,
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
            Source::Whole {
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
            Source::Aloft { shared, place } => {
                let mut state = shared.lock();
                let at = state.places[*place].at;
                let next = state.read(at);
                state.seen |= matches!(next, Read::Chunk(_));
                (next, state.ends_at(at))
            }
            Source::Released => (Read::End, true),
        }
    }

    /// Takes this many of the bytes that [`Reader::peek`] showed.
    pub fn advance(&mut self, count: usize) {
        match &mut self.source {
            Source::Whole {
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
            Source::Aloft { shared, place } => {
                shared.lock().places[*place].at += count as u64;
                shared.taken.notify(1);
            }
            Source::Released => {}
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
            Source::Whole { .. } => true,
            Source::Aloft { shared, .. } => {
                matches!(shared.lock().end, Some(End::Landed { kept: true }))
            }
            Source::Released => false,
        }
    }

    /// Whether nothing is to come any more, however it ended.
    pub fn is_over(&self) -> bool {
        match &self.source {
            Source::Whole { .. } | Source::Released => true,
            Source::Aloft { shared, .. } => shared.lock().end.is_some(),
        }
    }

    /// Waits until [`Reader::read`] has something else to say than `Pending`.
    pub fn ready(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            let Source::Aloft { shared, place } = &self.source else {
                return Poll::Ready(());
            };
            let mut state = shared.lock();
            let place = *place;
            if !matches!(state.read(state.places[place].at), Read::Pending) {
                return Poll::Ready(());
            }
            let waker = &mut state.places[place].waker;
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
        if let Source::Aloft { shared, place } = &self.source {
            let mut state = shared.lock();
            state.places.remove(*place);
            let _unread = state.let_go(); // dropped after the lock is released
            drop(state);
            shared.taken.notify(1);
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::Whole { poem, .. } => write!(f, "Reader({poem:?})"),
            Source::Aloft { .. } => write!(f, "Reader(aloft)"),
            Source::Released => write!(f, "Reader(released)"),
        }
    }
}
