//! A slow model of what readers get: all lines ever, and each reader's bytes.

use super::{feed, note, take};
use crate::flight::{Pull, Read};
use crate::live::{BACKLOG_MIN, Feed, FeedReader, LineCutter};
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Act {
    /// Lines of these lengths come.
    Lines(Vec<usize>),
    /// A reader takes at most so many bytes.
    Take(usize, usize),
    /// A reader is shown bytes and takes none.
    Refuse(usize),
    Join,
    Leave(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::collection::vec(0usize..400, 1..8).prop_map(Act::Lines),
        4 => (0usize..4, 1usize..1500).prop_map(|(reader, most)| Act::Take(reader, most)),
        1 => (0usize..4).prop_map(Act::Refuse),
        1 => Just(Act::Join),
        1 => (0usize..4).prop_map(Act::Leave),
    ]
}

/// A reader, and all that the slow model knows of it.
struct Modelled {
    reader: FeedReader,
    got: Vec<u8>,
    /// The first line it may get.
    first: usize,
    /// How far it was behind at most, in bytes.
    most_behind: usize,
}

/// All lines ever, and all readers.
#[derive(Default)]
struct Model {
    lines: Vec<Vec<u8>>,
    readers: Vec<Modelled>,
}

impl Model {
    /// A line that shows its number.
    fn line(&self, length: usize) -> Vec<u8> {
        let number = self.lines.len();
        format!("{number}:{}\n", "x".repeat(length)).into_bytes()
    }

    /// The offset after the last line that a reader has had, a lost one included.
    fn taken(&self, reader: &Modelled) -> usize {
        let note = note(&reader.reader);
        let next = reader.first + (note.lines + note.lost) as usize;
        self.lines[..next].iter().map(Vec::len).sum()
    }

    fn look(&mut self) {
        let all: usize = self.lines.iter().map(Vec::len).sum();
        for at in 0..self.readers.len() {
            let behind = all - self.taken(&self.readers[at]);
            let reader = &mut self.readers[at];
            reader.most_behind = reader.most_behind.max(behind);
        }
    }

    /// Whole lines in their order, and a gap only where it is counted.
    fn check(&self, reader: &Modelled) {
        let mut next = reader.first;
        let mut gaps = 0;
        let mut whole = 0;
        for line in reader.got.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = line.ends_with(b"\n");
            let is_this = |at: &usize| self.lines[*at].starts_with(line);
            let found = (next..self.lines.len()).find(is_this);
            let found = found.unwrap_or_else(|| panic!("{line:?} is not there"));
            assert!(!is_whole || self.lines[found] == line);
            if is_whole {
                gaps += found - next;
                next = found + 1;
                whole += 1;
            }
        }

        let note = note(&reader.reader);
        assert!(gaps as u64 <= note.lost);
        assert!(
            note.lines.saturating_sub(whole) <= 1,
            "one may be sent in part"
        );
        if reader.most_behind as u64 <= BACKLOG_MIN {
            assert_eq!(note.lost, 0, "it was never further behind than the backlog");
        }
    }
}

impl Model {
    fn play(&mut self, feed: &Arc<Feed>, act: Act) {
        match act {
            Act::Lines(lengths) => {
                let first = self.lines.len();
                for length in lengths {
                    self.lines.push(self.line(length));
                }
                self.look(); // they are behind before anything leaves the ring
                feed.append(&self.lines[first..].concat());
            }
            Act::Join if self.readers.len() < 4 => self.readers.push(Modelled {
                reader: feed.join(),
                got: Vec::new(),
                first: self.lines.len(),
                most_behind: 0,
            }),
            Act::Take(at, most) if at < self.readers.len() => {
                let Modelled { reader, got, .. } = &mut self.readers[at];
                if let Read::Chunk(bytes) = reader.peek().0 {
                    let count = bytes.len().min(most);
                    got.extend_from_slice(&bytes[..count]);
                    reader.advance(count);
                }
            }
            Act::Refuse(at) if at < self.readers.len() => {
                let reader = &self.readers[at].reader;
                reader.peek();
                reader.not_taken();
            }
            Act::Leave(at) if at < self.readers.len() => drop(self.readers.remove(at)),
            Act::Join | Act::Take(..) | Act::Refuse(_) | Act::Leave(_) => {}
        }
    }

    /// Each reads to the end: it has had or lost every line.
    fn finish(&mut self) {
        for at in 0..self.readers.len() {
            let Modelled { reader, got, .. } = &mut self.readers[at];
            got.extend_from_slice(take(reader).as_bytes());
            self.check(&self.readers[at]);

            let reader = &self.readers[at];
            let note = note(&reader.reader);
            let lines = (self.lines.len() - reader.first) as u64;
            assert_eq!(note.lines + note.lost, lines);
            let whole = reader.got.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(note.lines, whole as u64);
        }
    }
}

/// The longest line of a model with its number and its end, at least.
const LONGEST: u64 = 410;

fn play(acts: Vec<Act>) {
    let feed = feed();
    let mut model = Model::default();
    for act in acts {
        model.play(&feed, act);
        model.look();
        model.readers.iter().for_each(|reader| model.check(reader));
        let most = BACKLOG_MIN + LONGEST;
        assert!(feed.held() <= most, "a segment more than the backlog");
    }
    model.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_reader_gets_whole_lines_in_order_and_each_gap_is_counted(
        acts in prop::collection::vec(act(), 1..60)
    ) {
        play(acts);
    }

    #[test]
    fn bytes_split_anywhere_are_cut_as_in_one_piece(
        pieces in prop::collection::vec("[ab\n]{0,12}", 0..12)
    ) {
        let mut cutter = LineCutter::new(8);
        let cuts = pieces.iter().map(|piece| cutter.push(piece.as_bytes()));
        let lines: Vec<u8> = cuts.flat_map(|cut| cut.lines).collect();

        let all: String = pieces.concat();
        let whole = all.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let wanted: String = whole.filter(|line| line.len() <= 8).collect();
        prop_assert_eq!(lines, wanted.into_bytes());
    }
}
