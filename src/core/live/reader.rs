//! A reader of a feed: a cursor in its ring, and what it has lost.

use super::{Feed, count_lines, rest_of_line};
use crate::flight::{Pull, Read};
use crate::observe::FeedNote;
use bytes::{Buf, Bytes};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Where a reader is.
pub(super) struct FeedCursor {
    /// The offset of the next line. It is always the beginning of a line.
    pub(super) at: u64,
    /// The number of that line.
    line: u64,
    /// What is still to be sent of the line before, if that was sent in part: a copy,
    /// because the line may leave the ring.
    pub(super) rest: Bytes,
    /// What was shown and not taken yet, and the number of the line after it.
    shown: Bytes,
    line_after: u64,
    /// Lines taken, and lines lost.
    taken: u64,
    lost: u64,
    pub(super) waker: Option<Waker>,
    /// Whether it was woken and has not looked since.
    pub(super) is_woken: bool,
}

impl FeedCursor {
    pub(super) fn new(at: u64, line: u64) -> FeedCursor {
        FeedCursor {
            at,
            line,
            rest: Bytes::new(),
            shown: Bytes::new(),
            line_after: line,
            taken: 0,
            lost: 0,
            waker: None,
            is_woken: false,
        }
    }

    /// Loses the lines before this one.
    pub(super) fn skip_to(&mut self, at: u64, line: u64) {
        self.lost += line - self.line;
        self.at = at;
        self.line = line;
    }

    /// Lines lost until now, those that have left the ring included. `oldest` is the
    /// oldest line there.
    pub(super) fn lost(&self, oldest: (u64, u64)) -> u64 {
        self.lost + oldest.1.saturating_sub(self.line)
    }

    pub(super) fn show(&mut self, bytes: Bytes, line_after: u64) {
        self.shown = bytes;
        self.line_after = line_after;
    }

    /// Takes `count` bytes of what was shown.
    fn advance(&mut self, count: usize) {
        if !self.rest.is_empty() {
            self.rest.advance(count);
            return;
        }

        let shown = std::mem::take(&mut self.shown);
        let line = if count == shown.len() {
            self.at += count as u64;
            self.line_after
        } else {
            if !shown[..count].ends_with(b"\n") {
                self.rest = rest_of_line(&shown, count);
            }
            let end = count + self.rest.len();
            self.at += end as u64;
            self.line + count_lines(&shown[..end])
        };
        self.taken += line - self.line;
        self.line = line;
    }
}

/// A reader of a feed. It leaves when it is dropped.
pub struct FeedReader {
    feed: Arc<Feed>,
    cursor: usize,
}

impl FeedReader {
    pub(super) fn new(feed: Arc<Feed>, cursor: usize) -> FeedReader {
        FeedReader { feed, cursor }
    }
}

impl Pull for FeedReader {
    fn peek(&self) -> (Read, bool) {
        let next = self
            .feed
            .with_reader(self.cursor, |state| state.peek(self.cursor));
        (next, false)
    }

    fn advance(&mut self, count: usize) {
        if count > 0 {
            self.feed.lock().cursors[self.cursor].advance(count);
        }
    }

    /// Lets go of what was shown: one that takes nothing holds no bytes.
    fn not_taken(&self) {
        let shown = std::mem::take(&mut self.feed.lock().cursors[self.cursor].shown);
        drop(shown);
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.feed.with_reader(self.cursor, |state| {
            if !state.is_pending(self.cursor) {
                return Poll::Ready(());
            }
            state.cursors[self.cursor].waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    fn feed_note(&self) -> Option<FeedNote> {
        let state = self.feed.lock();
        let cursor = &state.cursors[self.cursor];
        Some(FeedNote {
            lines: cursor.taken,
            lost: cursor.lost(state.ring.oldest()),
        })
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        let cursor = self.cursor;
        self.feed.with_reader(cursor, |state| state.leave(cursor));
    }
}
