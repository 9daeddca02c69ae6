//! Feeds polled by hand.

mod model;

use super::*;
use crate::flight::Pull;
use crate::observe::FeedNote;
use futures::FutureExt;
use futures::task::{ArcWake, waker};
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
