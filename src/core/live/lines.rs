//! Cuts what a connection brings into whole lines. Plain data.
//!
//! | there is | bytes without a line end | bytes up to a line end | the connection ends |
//! |---|---|---|---|
//! | nothing | a line begins | whole lines | nothing |
//! | the beginning of a line | it grows; once it is too long, it is skipped | the line is whole | the beginning is dropped |
//! | a line that is skipped | nothing | its end; after that, nothing | nothing |
//!
//! A line ends with a line feed; a carriage return before that belongs to the line.

use super::count_lines;

/// Cuts bytes into lines.
#[derive(Debug)]
pub struct LineCutter {
    /// The longest line, in bytes, its end included.
    longest: usize,
    begun: Vec<u8>,
    is_skipping: bool,
}

/// What some bytes have brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CutLines {
    /// Whole lines, each with its end.
    pub lines: Vec<u8>,
    /// Their number.
    pub count: u64,
    /// Lines left out because they are too long. Each is counted as soon as that shows.
    pub too_long: u64,
}

impl LineCutter {
    /// Leaves out lines of more than `longest` bytes.
    pub fn new(longest: u64) -> LineCutter {
        LineCutter {
            longest: usize::try_from(longest).unwrap_or(usize::MAX),
            begun: Vec::new(),
            is_skipping: false,
        }
    }

    /// Takes bytes, and returns the lines that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> CutLines {
        let mut cut = CutLines::default();
        let Some(last) = memchr::memrchr(b'\n', bytes) else {
            self.begin(bytes, &mut cut);
            return cut;
        };

        let (whole, begun) = bytes.split_at(last + 1);
        let first = memchr::memchr(b'\n', whole).map_or(0, |end| end + 1);
        let (first, others) = whole.split_at(first);
        self.finish(first, &mut cut);
        self.add_lines(others, &mut cut);
        cut.count = count_lines(&cut.lines);
        self.begin(begun, &mut cut);
        cut
    }

    /// The connection has ended. Returns the bytes of a line that was cut off.
    pub fn cut_off(&mut self) -> usize {
        self.is_skipping = false;
        std::mem::take(&mut self.begun).len()
    }

    /// Takes the end of the line that has begun.
    fn finish(&mut self, end: &[u8], cut: &mut CutLines) {
        if std::mem::take(&mut self.is_skipping) {
            return; // it is counted already
        }
        let begun = std::mem::take(&mut self.begun);
        if begun.len() + end.len() > self.longest {
            cut.too_long += 1;
            return;
        }
        cut.lines = begun;
        cut.lines.extend_from_slice(end);
    }

    fn add_lines(&self, lines: &[u8], cut: &mut CutLines) {
        if lines.len() <= self.longest {
            return cut.lines.extend_from_slice(lines);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if line.len() > self.longest {
                cut.too_long += 1;
            } else {
                cut.lines.extend_from_slice(line);
            }
        }
    }

    /// Takes the beginning of a line, or more of it.
    fn begin(&mut self, bytes: &[u8], cut: &mut CutLines) {
        if self.is_skipping || bytes.is_empty() {
            return;
        }
        // One byte more is needed for its end.
        if self.begun.len() + bytes.len() >= self.longest {
            cut.too_long += 1;
            self.begun = Vec::new();
            self.is_skipping = true;
            return;
        }
        self.begun.extend_from_slice(bytes);
    }
}
