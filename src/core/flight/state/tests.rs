//! Where readers are, and which chunks are held for them.

use super::*;
use crate::flight::{Flight, Writer, launch};
use futures::future::FutureExt;
use std::sync::Mutex;

/// A flight that merges no chunks of more than 20 bytes.
fn start() -> (Writer, Flight) {
    let writer = launch(160);
    let flight = writer.flight();
    (writer, flight)
}

fn bytes(length: usize) -> Bytes {
    vec![b'x'; length].into()
}

fn held(writer: &Writer) -> Vec<usize> {
    let state = writer.shared.lock();
    state.chunks.iter().map(|chunk| chunk.bytes.len()).collect()
}

fn compacted(lengths: &[usize]) -> Vec<usize> {
    let pieces = compact(lengths.iter().copied().map(bytes).collect());
    pieces.iter().map(Bytes::len).collect()
}

#[test]
fn the_small_pieces_at_the_end_of_a_text_become_one() {
    assert_eq!(compacted(&[]), [0; 0]);
    assert_eq!(compacted(&[5]), [5]);
    assert_eq!(compacted(&[PIECE, 3, 4]), [PIECE, 7]);
    assert_eq!(compacted(&[PIECE - 7, 3, 4]), [PIECE]);
    assert_eq!(compacted(&[PIECE - 6, 3, 4]), [PIECE - 6, 7]);
    assert_eq!(compacted(&[3, PIECE, PIECE, 4]), [3, PIECE, PIECE, 4]);
}

#[test]
fn a_chunk_is_merged_with_one_before_it_that_is_less_than_twice_as_long() {
    for (first, second, merged) in [
        (10, 6, vec![16]),
        (10, 5, vec![10, 5]),
        (5, 2, vec![5, 2]),
        (10, 10, vec![20]),
        (10, 11, vec![10, 11]),
    ] {
        let (mut writer, _flight) = start();
        writer.append(bytes(first));
        writer.append(bytes(second));
        assert_eq!(held(&writer), merged);
    }
}

#[test]
fn readers_read_on_from_the_one_copy_of_a_finished_text() {
    let (mut writer, flight) = start();
    let mut reader = flight.join().unwrap();
    writer.append(bytes(30));
    writer.append(bytes(30));
    reader.advance(10);

    let poem = writer.seal().unwrap();
    assert_eq!(held(&writer), [60]);
    let Read::Chunk(rest) = reader.peek() else {
        panic!("50 bytes are left");
    };
    assert_eq!(rest.len(), 50);
    assert_eq!(rest.as_ptr(), poem.piece(0).unwrap()[10..].as_ptr());

    let kept = Poem::from_pieces(vec![bytes(60)]);
    writer.share(kept.clone());
    let Read::Chunk(rest) = reader.peek() else {
        panic!("50 bytes are left");
    };
    assert_eq!(rest.as_ptr(), kept.piece(0).unwrap()[10..].as_ptr());
}

#[test]
fn only_the_last_chunk_of_a_complete_text_is_known_to_be_the_last() {
    let (mut writer, flight) = start();
    let mut reader = flight.join().unwrap();
    writer.append(bytes(30));
    writer.append(bytes(30));
    let is_last = |reader: &crate::flight::Reader| reader.peek_ahead().1;
    assert!(!is_last(&reader));
    reader.advance(30);
    assert!(!is_last(&reader), "more may come");

    writer.finish(false);
    assert!(is_last(&reader));
    let late = flight.join().unwrap();
    assert!(!is_last(&late), "another chunk follows");
    reader.advance(30);
    assert!(is_last(&reader));
}

#[test]
fn the_end_of_a_failed_text_is_not_known_to_be_the_last() {
    let (mut writer, flight) = start();
    let reader = flight.join().unwrap();
    writer.append(bytes(30));
    writer.fail(Error::Abandoned);
    assert!(!reader.peek_ahead().1);
}

#[test]
fn the_slowest_reader_keeps_pace_by_what_it_takes_between_two_looks() {
    let (mut writer, flight) = start();
    assert!(writer.keeps_pace(1), "none is slow");
    let mut fast = flight.join().unwrap();
    let mut slow = flight.join().unwrap();
    writer.append(bytes(30));
    fast.advance(30);
    slow.advance(5);
    assert!(writer.keeps_pace(5));
    assert!(!writer.keeps_pace(1), "it has taken nothing since");

    slow.advance(5);
    assert!(!writer.keeps_pace(6));
    slow.advance(6);
    assert!(writer.keeps_pace(6));
}

#[test]
fn a_reader_that_has_fallen_behind_is_not_the_slowest() {
    let (mut writer, flight) = start();
    let mut reader = flight.join().unwrap();
    let behind = flight.join().unwrap();
    for _ in 0..4 {
        writer.append(bytes(50));
        reader.advance(50);
    }
    writer.leave_laggards();
    assert!(matches!(behind.peek(), Read::FellBehind { .. }));

    writer.keeps_pace(1);
    writer.append(bytes(50));
    reader.advance(50);
    assert!(writer.keeps_pace(50));
}

#[test]
fn the_first_reader_of_a_fetch_that_waits_is_told_and_no_other() {
    let (mut writer, flight) = start();
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    writer.on_interest(move |interest| list.lock().unwrap().push(interest));
    writer.wait_to_begin(true);

    let first = flight.join().unwrap();
    let second = flight.join().unwrap();
    assert_eq!(*told.lock().unwrap(), [Interest::Gained]);
    assert!(writer.begin());
    drop((first, second));
    let _third = flight.join().unwrap();
    assert_eq!(*told.lock().unwrap(), [Interest::Gained]);
}

#[test]
fn a_window_shrinks_to_what_is_held() {
    let mut writer = launch(100);
    let mut reader = writer.flight().join().unwrap();
    writer.append(bytes(10));
    assert!(writer.writable().now_or_never().is_some());

    writer.shrink_window(4);
    assert!(writer.writable().now_or_never().is_none());
    reader.advance(1);
    assert!(writer.writable().now_or_never().is_some());
}

#[test]
fn bytes_that_have_left_the_window_do_not_count_when_it_shrinks() {
    let mut writer = launch(20);
    let mut reader = writer.flight().join().unwrap();
    writer.append(bytes(10));
    reader.advance(10);
    writer.append(bytes(25));
    assert_eq!(held(&writer), [25], "the first chunk has left");

    writer.shrink_window(4);
    assert!(writer.writable().now_or_never().is_none());
    reader.advance(1);
    assert!(writer.writable().now_or_never().is_some());
}
