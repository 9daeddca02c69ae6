//! A feed: lines that never end, from one connection to any number of readers. A reader
//! begins with the next line from now, and not with the first.
//!
//! The feed holds the last lines once, in a ring; a reader is a cursor in it.
//!
//! | a reader | lines come | it takes bytes | lines it has not taken leave the ring | the feed ends |
//! |---|---|---|---|---|
//! | has taken all | it is woken | - | - | gets the end |
//! | is behind | nothing | moves on | [`Slow::Drop`]: goes on with the oldest line held, and counts what it has lost; [`Slow::Reset`]: has fallen behind | gets the rest, then the end |
//! | has a part of a line | nothing | gets the rest of that line | keeps a copy of that rest, and then as above | the same |
//!
//! So a reader gets whole lines, in their order, and misses lines only where it has
//! lost them and counts them. It loses none while it is at most the backlog behind.
//!
//! **Bursts.** A reader that is ready must not lose lines because it has had no turn.
//! Before more than the backlog is added since all readers last had one, the writer
//! waits for them, for at most [`TURN`]. A reader that waits for its network is not
//! waited for.

mod lines;
mod reader;
mod ring;
#[cfg(test)]
mod tests;

pub use lines::{CutLines, LineCutter};
pub use reader::FeedReader;

use crate::flight::Read;
use crate::sync::{Mutex, MutexGuard, Notify};
use bytes::Bytes;
use reader::FeedCursor;
use ring::Ring;
use slab::Slab;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// The least backlog, in bytes: a dozen lines of NMEA. With less, most feeds would lose
/// lines that are too long.
pub const BACKLOG_MIN: u64 = 1 << 10;

/// How long a burst waits at most for readers that are ready to have a turn: a hundred
/// times as long as a thread needs for a thousand of them.
pub const TURN: Duration = Duration::from_millis(500);

/// What a feed holds, and for which readers.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// How far a reader may be behind, in bytes, and the longest line.
    pub backlog: u64,
    /// How many of the last lines a new reader gets first, as far as the backlog holds
    /// them.
    pub replay: u64,
    /// What happens to a reader that is further behind.
    pub slow: Slow,
}

/// What happens to a reader that is more than the backlog behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// It loses whole lines, and goes on.
    Drop,
    /// It is reset.
    Reset,
}

/// What the readers of a feed have lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedLosses {
    /// Readers at this moment.
    pub readers: u64,
    /// Lines that readers have lost, added up.
    pub lines: u64,
    /// Of the readers at this moment, those that have lost lines.
    pub slow: u64,
}

/// A feed.
pub struct Feed {
    /// The lines and where the readers are. Held for a few lines; wakers are called
    /// after it is released.
    state: Mutex<FeedState>,
    /// Wakes a writer that waits for readers to have had a turn.
    had_turns: Notify,
}

struct FeedState {
    ring: Ring,
    slow: Slow,
    replay: u64,
    cursors: Slab<FeedCursor>,
    /// Lines lost by readers that have left.
    lost: u64,
    /// Readers that were woken and have not looked since.
    woken: usize,
    /// Where the feed ended when all readers had last had a turn.
    turns_at: u64,
    has_ended: bool,
}

impl Feed {
    /// A feed without a line.
    pub fn new(limits: FeedLimits) -> Arc<Feed> {
        Arc::new(Feed {
            state: Mutex::new(FeedState {
                ring: Ring::new(limits.backlog.max(BACKLOG_MIN)),
                slow: limits.slow,
                replay: limits.replay,
                cursors: Slab::new(),
                lost: 0,
                woken: 0,
                turns_at: 0,
                has_ended: false,
            }),
            had_turns: Notify::new(),
        })
    }

    /// A reader that gets the lines from now on, after those to be replayed.
    pub fn join(self: &Arc<Self>) -> FeedReader {
        let cursor = self.lock().join();
        FeedReader::new(self.clone(), cursor)
    }

    /// Adds whole lines, each with its end, and wakes the readers that wait.
    pub fn append(&self, lines: &[u8]) {
        let wakers = self.lock().append(lines);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends the feed. Readers get the lines there are, and then the end.
    pub fn end(&self) {
        let wakers = {
            let mut state = self.lock();
            state.has_ended = true;
            state.wake()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until `bytes` more can be added without a loss for a reader that is only
    /// waiting for its turn. Has no limit of its own: [`TURN`] is meant for it.
    pub async fn turns(&self, bytes: u64) {
        loop {
            if self.lock().fits(bytes) {
                return;
            }

            let had_turns = self.had_turns.listen(); // before the second look
            if self.lock().fits(bytes) {
                return;
            }
            had_turns.await;
        }
    }

    /// What readers have lost until now. Looks at each reader.
    pub fn losses(&self) -> FeedLosses {
        self.lock().losses()
    }

    /// Bytes of lines that are held.
    pub fn held(&self) -> u64 {
        self.lock().ring.held()
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state
            .lock()
            .expect("no code panics while it holds a feed's lock")
    }

    /// Does something with the state for a reader that has its turn, and tells the
    /// writer if that was the last turn it waits for.
    fn with_reader<T>(&self, cursor: usize, work: impl FnOnce(&mut FeedState) -> T) -> T {
        let mut state = self.lock();
        let (is_last, waker) = state.take_turn(cursor);
        let done = work(&mut state);
        drop(state);

        drop(waker); // without the lock: it may be the last owner of its task
        if is_last {
            self.had_turns.notify(1);
        }
        done
    }
}

impl FeedState {
    fn join(&mut self) -> usize {
        let (at, line) = self.ring.last_lines(self.replay);
        self.cursors.insert(FeedCursor::new(at, line))
    }

    fn append(&mut self, lines: &[u8]) -> Vec<Waker> {
        self.ring.append(lines);
        let wakers = self.wake();
        if self.woken == 0 {
            self.turns_at = self.ring.end();
        }
        wakers
    }

    /// Takes out the wakers of the readers that wait.
    fn wake(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for (_, cursor) in &mut self.cursors {
            if let Some(waker) = cursor.waker.take() {
                cursor.is_woken = true;
                wakers.push(waker);
            }
        }
        self.woken += wakers.len();
        wakers
    }

    /// A reader looks, and waits no more. Returns whether it was the last of those that
    /// were woken, and its old waker: one that stayed would count it as woken while it
    /// waits for its network.
    fn take_turn(&mut self, cursor: usize) -> (bool, Option<Waker>) {
        let cursor = &mut self.cursors[cursor];
        let waker = cursor.waker.take();
        if !std::mem::take(&mut cursor.is_woken) {
            return (false, waker);
        }

        self.woken -= 1;
        let is_last = self.woken == 0;
        if is_last {
            self.turns_at = self.ring.end();
        }
        (is_last, waker)
    }

    /// Whether `bytes` more push out nothing that a woken reader has had no turn to
    /// take.
    fn fits(&self, bytes: u64) -> bool {
        let since = self.ring.end() - self.turns_at;
        self.woken == 0 || since.saturating_add(bytes) <= self.ring.backlog()
    }

    /// What a reader finds.
    fn peek(&mut self, cursor: usize) -> Read {
        let FeedState {
            ring,
            slow,
            cursors,
            has_ended,
            ..
        } = self;
        let cursor = &mut cursors[cursor];
        if !cursor.rest.is_empty() {
            return Read::Chunk(cursor.rest.clone());
        }

        let (oldest, line) = ring.oldest();
        if cursor.at < oldest {
            if *slow == Slow::Reset {
                let window = ring.backlog();
                return Read::FellBehind { window };
            }
            cursor.skip_to(oldest, line);
        }
        match ring.read(cursor.at) {
            Some((bytes, line)) => {
                cursor.show(bytes.clone(), line);
                Read::Chunk(bytes)
            }
            None if *has_ended => Read::End,
            None => Read::Pending,
        }
    }

    fn leave(&mut self, cursor: usize) {
        let oldest = self.ring.oldest();
        self.lost += self.cursors.remove(cursor).lost(oldest);
    }

    fn losses(&self) -> FeedLosses {
        let oldest = self.ring.oldest();
        let mut losses = FeedLosses {
            readers: self.cursors.len() as u64,
            lines: self.lost,
            slow: 0,
        };
        for (_, cursor) in &self.cursors {
            let lost = cursor.lost(oldest);
            losses.lines += lost;
            losses.slow += u64::from(lost > 0);
        }
        losses
    }

    /// Whether a reader has nothing to do.
    fn is_pending(&self, cursor: usize) -> bool {
        let cursor = &self.cursors[cursor];
        let is_behind = cursor.at < self.ring.end() || !cursor.rest.is_empty();
        !is_behind && !self.has_ended
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        let (bytes, readers) = (state.ring.end(), state.cursors.len());
        write!(f, "Feed({bytes} bytes, {readers} readers)")
    }
}

/// The rest of a line that was sent in part, up to and with its end.
fn rest_of_line(bytes: &Bytes, from: usize) -> Bytes {
    let after = memchr::memchr(b'\n', &bytes[from..]);
    let end = after.map_or(bytes.len(), |at| from + at + 1);
    Bytes::copy_from_slice(&bytes[from..end])
}

/// The number of line ends.
fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
