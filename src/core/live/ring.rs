//! The last lines of a feed, held once for all readers. Plain data.
//!
//! Lines stand in segments, small ones merged, so that a line that comes alone costs
//! its own size, and a reader sends many lines in one write. The oldest segment leaves
//! once the others hold the whole backlog: what is held is at most the backlog and a
//! segment.

use super::count_lines;
use bytes::Bytes;
use std::collections::VecDeque;

/// A segment holds at most this part of the backlog, or one line.
const SEGMENTS: u64 = 8;

/// The largest segment, in bytes: writes of 64 KiB and more are fast enough for lines.
const SEGMENT_MAX: u64 = 256 << 10;

/// The last lines of a feed.
#[derive(Debug)]
pub struct Ring {
    segments: VecDeque<Segment>,
    /// The bytes and lines that were ever added.
    end: u64,
    lines: u64,
    /// Bytes held.
    held: u64,
    backlog: u64,
}

/// Some whole lines.
#[derive(Debug)]
struct Segment {
    /// What was added before it.
    start: u64,
    first_line: u64,
    bytes: Bytes,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Ring {
    /// Without a line. It holds at least the last `backlog` bytes, in whole lines.
    pub fn new(backlog: u64) -> Ring {
        Ring {
            segments: VecDeque::new(),
            end: 0,
            lines: 0,
            held: 0,
            backlog,
        }
    }

    /// The bytes that are held at least.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// The bytes that were ever added.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes held at this moment.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Adds whole lines, each with its end.
    pub fn append(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(self.piece_len(lines));
            self.push(Bytes::copy_from_slice(piece));
            lines = rest;
        }
        self.trim();
    }

    fn segment_max(&self) -> usize {
        let most = (self.backlog / SEGMENTS).clamp(1, SEGMENT_MAX);
        most as usize
    }

    /// The length of the next segment: whole lines.
    fn piece_len(&self, lines: &[u8]) -> usize {
        let most = self.segment_max();
        if lines.len() <= most {
            return lines.len();
        }
        let last = memchr::memrchr(b'\n', &lines[..most]);
        let end = last.or_else(|| memchr::memchr(b'\n', lines));
        end.map_or(lines.len(), |end| end + 1)
    }

    fn push(&mut self, bytes: Bytes) {
        let segment = Segment {
            start: self.end,
            first_line: self.lines,
            bytes,
        };
        self.lines += count_lines(&segment.bytes);
        self.held += segment.bytes.len() as u64;
        self.end = segment.end();
        self.segments.push_back(segment);

        while self.merge_last_two() {}
    }

    /// Merges a segment with one after it that has more than half its size, so that a
    /// byte is copied a logarithmic number of times.
    fn merge_last_two(&mut self) -> bool {
        let Some(before) = self.segments.len().checked_sub(2) else {
            return false;
        };
        let a = &self.segments[before].bytes;
        let b = &self.segments[before + 1].bytes;
        if a.len() >= 2 * b.len() || a.len() + b.len() > self.segment_max() {
            return false;
        }

        let merged = [&a[..], &b[..]].concat().into();
        self.segments.pop_back();
        self.segments[before].bytes = merged;
        true
    }

    fn trim(&mut self) {
        while let Some(oldest) = self.segments.front() {
            let without = self.held - oldest.bytes.len() as u64;
            if without < self.backlog {
                return;
            }
            self.held = without;
            self.segments.pop_front();
        }
    }

    /// Where the oldest line begins that is held: its offset and number. The end, if no
    /// line is.
    pub fn oldest(&self) -> (u64, u64) {
        let oldest = self.segments.front();
        oldest.map_or((self.end, self.lines), |oldest| {
            (oldest.start, oldest.first_line)
        })
    }

    /// What is held from the offset `at` on, up to the end of its segment, and the
    /// number of the line after that. `None` at the end. Nothing before the oldest line
    /// may be asked for.
    pub fn read(&self, at: u64) -> Option<(Bytes, u64)> {
        let after = self.segments.partition_point(|it| it.start <= at);
        let segment = &self.segments[after.checked_sub(1)?];
        if at >= segment.end() {
            return None;
        }

        let next = self.segments.get(after);
        let line = next.map_or(self.lines, |next| next.first_line);
        let bytes = segment.bytes.slice((at - segment.start) as usize..);
        Some((bytes, line))
    }

    /// Where the last `count` lines begin, or the oldest that is held: the offset, and
    /// the number of that line.
    pub fn last_lines(&self, count: u64) -> (u64, u64) {
        let wanted = self.lines.saturating_sub(count);
        let (oldest, line) = self.oldest();
        if wanted <= line {
            return (oldest, line);
        }

        let after = self.segments.partition_point(|it| it.first_line <= wanted);
        let Some(segment) = after.checked_sub(1).and_then(|at| self.segments.get(at)) else {
            return (self.end, self.lines);
        };
        let skipped = wanted - segment.first_line;
        let mut ends = memchr::memchr_iter(b'\n', &segment.bytes);
        let start = match skipped.checked_sub(1) {
            None => 0,
            Some(last) => match ends.nth(last as usize) {
                Some(end) => end as u64 + 1,
                None => segment.bytes.len() as u64,
            },
        };
        (segment.start + start, wanted)
    }
}
