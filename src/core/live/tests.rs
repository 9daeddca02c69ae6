//! Feeds polled by hand, and a slow model of what a reader gets.

use super::*;
use crate::flight::Pull;
use crate::observe::FeedNote;
use futures::FutureExt;
use futures::task::{ArcWake, waker};
use proptest::prelude::*;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

const LIMITS: FeedLimits = FeedLimits {
    backlog: BACKLOG_MIN,
    replay: 0,
    slow: Slow::Drop,
};

fn feed() -> Arc<Feed> {
    Feed::new(LIMITS)
}

/// What a reader is shown.
fn shown(reader: &FeedReader) -> String {
    match reader.peek().0 {
        Read::Chunk(bytes) => String::from_utf8(bytes.to_vec()).expect("it is text"),
        Read::Pending => "pending".into(),
        Read::End => "end".into(),
        other => panic!("{other:?}"),
    }
}

/// Takes all that there is.
fn take(reader: &mut FeedReader) -> String {
    let mut all = String::new();
    while let Read::Chunk(bytes) = reader.peek().0 {
        all += std::str::from_utf8(&bytes).expect("it is text");
        reader.advance(bytes.len());
    }
    all
}

fn note(reader: &FeedReader) -> FeedNote {
    reader.feed_note().expect("it reads a feed")
}

fn is_ready(reader: &FeedReader) -> bool {
    let ready = poll_fn(|cx| reader.poll_ready(cx));
    ready.now_or_never().is_some()
}

/// `count` lines of 100 bytes, numbered from `first`.
fn lines(first: usize, count: usize) -> String {
    let line = |number| format!("{number:099}\n");
    (first..first + count).map(line).collect()
}

#[test]
fn a_reader_begins_with_the_next_line() {
    let feed = feed();
    feed.append(b"before\n");
    let mut reader = feed.join();
    assert_eq!(shown(&reader), "pending");
    assert!(!is_ready(&reader));

    feed.append(b"one\ntwo\n");
    assert!(is_ready(&reader));
    assert_eq!(take(&mut reader), "one\ntwo\n");
    assert_eq!(shown(&reader), "pending");
    assert_eq!(note(&reader), FeedNote { lines: 2, lost: 0 });
}

#[test]
fn a_reader_that_waits_is_woken_once_for_many_lines() {
    struct Wakes(AtomicUsize);
    impl ArcWake for Wakes {
        fn wake_by_ref(wakes: &Arc<Wakes>) {
            wakes.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let feed = feed();
    let reader = feed.join();
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = waker(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(reader.poll_ready(&mut cx).is_pending());

    feed.append(b"one\n");
    feed.append(b"two\n");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert!(reader.poll_ready(&mut cx).is_ready());
}

#[test]
fn the_last_lines_are_replayed_to_a_newcomer() {
    let replaying = |replay| Feed::new(FeedLimits { replay, ..LIMITS });
    let feed = replaying(2);
    assert_eq!(shown(&feed.join()), "pending", "there is none yet");
    feed.append(b"1\n");
    assert_eq!(take(&mut feed.join()), "1\n");
    feed.append(b"2\n3\n");
    feed.append(b"4\n");
    assert_eq!(take(&mut feed.join()), "3\n4\n");
    assert_eq!(note(&feed.join()).lost, 0);

    let feed = replaying(1000);
    feed.append(lines(0, 100).as_bytes());
    let replayed = take(&mut feed.join());
    assert!(replayed.len() as u64 >= BACKLOG_MIN);
    assert_eq!(replayed.len() as u64, feed.held(), "all that is held");
    assert!(lines(0, 100).ends_with(&replayed));
}

#[test]
fn a_reader_within_a_line_gets_the_rest_of_it_before_it_loses_any() {
    let feed = feed();
    let mut reader = feed.join();
    feed.append(b"hello\nlost\n");
    shown(&reader);
    reader.advance(2);
    feed.append(lines(0, 40).as_bytes());

    assert_eq!(shown(&reader), "llo\n");
    reader.advance(1);
    assert_eq!(shown(&reader), "lo\n");
    reader.advance(3);
    let rest = take(&mut reader);
    assert!(lines(0, 40).ends_with(&rest), "{rest}");
    let lost = (lines(0, 40).len() - rest.len()) / 100 + 1;
    assert_eq!(note(&reader).lost, lost as u64);
    assert_eq!(feed.losses().slow, 1);

    drop(reader);
    let losses = FeedLosses {
        readers: 0,
        lines: lost as u64,
        slow: 0,
    };
    assert_eq!(feed.losses(), losses, "they stay counted");
}

#[test]
fn a_reader_at_the_end_of_a_line_loses_whole_lines_only() {
    let feed = feed();
    let mut reader = feed.join();
    feed.append(b"one\ntwo\n");
    shown(&reader);
    reader.advance(4);
    feed.append(lines(0, 40).as_bytes());
    let rest = take(&mut reader);
    assert!(lines(0, 40).ends_with(&rest), "{rest}");
    assert!(note(&reader).lost > 0);
}

#[test]
fn what_a_stuck_reader_loses_is_known_before_it_reads_on() {
    let feed = feed();
    let reader = feed.join();
    feed.append(lines(0, 100).as_bytes());
    let lost = 100 - feed.held() / 100;
    assert_eq!(note(&reader).lost, lost);
    assert_eq!(feed.losses().lines, lost);
}

#[test]
fn a_slow_reader_may_be_reset_instead() {
    let slow = Slow::Reset;
    let feed = Feed::new(FeedLimits { slow, ..LIMITS });
    let reader = feed.join();
    feed.append(lines(0, 10).as_bytes());
    assert!(matches!(reader.peek().0, Read::Chunk(_)));

    feed.append(lines(10, 100).as_bytes());
    assert!(is_ready(&reader));
    let next = reader.peek().0;
    assert!(
        matches!(
            next,
            Read::FellBehind {
                window: BACKLOG_MIN
            }
        ),
        "{next:?}"
    );
}

#[test]
fn at_the_end_readers_get_what_there_is() {
    let feed = feed();
    let mut reader = feed.join();
    let idle = feed.join();
    feed.append(b"last\n");
    feed.end();
    assert_eq!(take(&mut reader), "last\n");
    assert_eq!(shown(&reader), "end");
    drop(idle);
    assert_eq!(shown(&feed.join()), "end");
}

#[test]
fn bytes_that_are_shown_and_not_taken_are_not_held() {
    let feed = feed();
    let reader = feed.join();
    feed.append(b"line\n");
    let Read::Chunk(bytes) = reader.peek().0 else {
        panic!("there is a line")
    };
    reader.not_taken();
    feed.append(lines(0, 100).as_bytes());
    assert!(bytes.is_unique(), "the ring and the reader let go of it");
}

#[test]
fn a_burst_waits_for_readers_that_are_ready() {
    let feed = feed();
    let mut reader = feed.join();
    let fits = |bytes| feed.turns(bytes).now_or_never().is_some();
    assert!(!is_ready(&reader));
    assert!(fits(1 << 20), "no reader was woken");

    feed.append(lines(0, 10).as_bytes());
    assert!(fits(24), "the backlog holds it");
    assert!(!fits(25));
    take(&mut reader);
    assert!(fits(1 << 20));

    // One that waits for its network has had its turn.
    assert!(!is_ready(&reader));
    feed.append(lines(0, 10).as_bytes());
    shown(&reader);
    reader.not_taken();
    assert!(fits(1 << 20));
    feed.append(lines(0, 10).as_bytes());
    assert!(fits(1 << 20), "it was not woken again");

    take(&mut reader);
    assert!(!is_ready(&reader));
    feed.append(lines(0, 10).as_bytes());
    assert!(!fits(1 << 20));
    drop(reader);
    assert!(fits(1 << 20), "it has left");
}

fn cut(cutter: &mut LineCutter, bytes: &str) -> (String, u64) {
    let cut = cutter.push(bytes.as_bytes());
    let lines = String::from_utf8(cut.lines).expect("it is text");
    assert_eq!(lines.matches('\n').count() as u64, cut.count);
    (lines, cut.too_long)
}

#[test]
fn bytes_are_cut_into_lines() {
    let mut cutter = LineCutter::new(6);
    let whole = |lines: &str| (lines.to_string(), 0);
    assert_eq!(cut(&mut cutter, ""), whole(""));
    assert_eq!(cut(&mut cutter, "a"), whole(""));
    assert_eq!(cut(&mut cutter, "b\r"), whole(""));
    assert_eq!(cut(&mut cutter, "\nc\n\nd"), whole("ab\r\nc\n\n"));
    assert_eq!(cutter.cut_off(), 1);
    assert_eq!(cut(&mut cutter, "e\n"), whole("e\n"), "nothing is joined");
    assert_eq!(cutter.cut_off(), 0);
}

#[test]
fn a_line_that_is_too_long_is_left_out_whole() {
    let mut cutter = LineCutter::new(4);
    assert_eq!(cut(&mut cutter, "123\n"), ("123\n".into(), 0));
    assert_eq!(cut(&mut cutter, "1234\nab\n"), ("ab\n".into(), 1));
    assert_eq!(cut(&mut cutter, "ab\n1234\nab\n"), ("ab\nab\n".into(), 1));
    assert_eq!(cut(&mut cutter, "12"), (String::new(), 0));
    assert_eq!(cut(&mut cutter, "34"), (String::new(), 1));
    assert_eq!(cut(&mut cutter, "5678"), (String::new(), 0), "counted once");
    assert_eq!(cut(&mut cutter, "9\nab\n"), ("ab\n".into(), 0));
    assert_eq!(cut(&mut cutter, "12"), (String::new(), 0));
    assert_eq!(cut(&mut cutter, "34\nab\n"), ("ab\n".into(), 1));
    assert_eq!(cut(&mut cutter, "ab\n12345"), ("ab\n".into(), 1));
    cutter.cut_off();
    assert_eq!(cut(&mut cutter, "ab\n"), ("ab\n".into(), 0));
}

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

fn play(acts: Vec<Act>) {
    let feed = feed();
    let mut model = Model::default();
    for act in acts {
        match act {
            Act::Lines(lengths) => {
                let mut lines = Vec::new();
                for length in lengths {
                    let line = model.line(length);
                    lines.extend_from_slice(&line);
                    model.lines.push(line);
                }
                let behind_before: Vec<usize> =
                    model.readers.iter().map(|it| model.taken(it)).collect();
                let all: usize = model.lines.iter().map(Vec::len).sum();
                for (reader, taken) in model.readers.iter_mut().zip(behind_before) {
                    reader.most_behind = reader.most_behind.max(all - taken);
                }
                feed.append(&lines);
            }
            Act::Join if model.readers.len() < 4 => model.readers.push(Modelled {
                reader: feed.join(),
                got: Vec::new(),
                first: model.lines.len(),
                most_behind: 0,
            }),
            Act::Take(at, most) if at < model.readers.len() => {
                let Modelled { reader, got, .. } = &mut model.readers[at];
                if let Read::Chunk(bytes) = reader.peek().0 {
                    let count = bytes.len().min(most);
                    got.extend_from_slice(&bytes[..count]);
                    reader.advance(count);
                }
            }
            Act::Refuse(at) if at < model.readers.len() => {
                let reader = &model.readers[at].reader;
                reader.peek();
                reader.not_taken();
            }
            Act::Leave(at) if at < model.readers.len() => drop(model.readers.remove(at)),
            Act::Join | Act::Take(..) | Act::Refuse(_) | Act::Leave(_) => {}
        }

        model.look();
        model.readers.iter().for_each(|reader| model.check(reader));
        assert!(
            feed.held() <= BACKLOG_MIN + 410,
            "a segment more than the backlog"
        );
    }

    // Each reads to the end: it has had or lost every line.
    for at in 0..model.readers.len() {
        let Modelled { reader, got, .. } = &mut model.readers[at];
        got.extend_from_slice(take(reader).as_bytes());
        model.check(&model.readers[at]);
        let reader = &model.readers[at];
        let note = note(&reader.reader);
        let lines = (model.lines.len() - reader.first) as u64;
        assert_eq!(note.lines + note.lost, lines);
        let whole = reader.got.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(note.lines, whole as u64);
    }
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
