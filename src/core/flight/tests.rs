//! Flights tried by polling by hand, without a runtime.

use super::*;
use crate::error::Error;
use bytes::Bytes;
use futures::future::FutureExt;
use proptest::prelude::*;

fn text(reader: &mut Reader) -> (String, Read) {
    let mut all = String::new();
    loop {
        match reader.read() {
            Read::Chunk(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
            last => return (all, last),
        }
    }
}

fn start(window: u64) -> (Writer, Flight) {
    let writer = launch(window);
    let flight = writer.flight();
    (writer, flight)
}

/// Polls once, without a runtime.
fn is_ready(reader: &Reader) -> bool {
    reader.ready().now_or_never().is_some()
}

#[test]
fn a_late_reader_sees_the_whole_poem() {
    let (mut writer, flight) = start(100);
    let mut first = flight.join().unwrap();
    writer.append("once ".into());
    assert_eq!(text(&mut first).0, "once ");
    let mut second = flight.join().unwrap();
    writer.append("upon".into());
    let kept = writer.seal();
    writer.finish(true);
    let mut third = flight.join().unwrap();
    assert!(matches!(text(&mut first), (rest, Read::End) if rest == "upon"));
    assert!(matches!(text(&mut second), (all, Read::End) if all == "once upon"));
    assert!(matches!(text(&mut third), (all, Read::End) if all == "once upon"));
    assert_eq!(kept.unwrap().bytes(), "once upon");
}

#[test]
fn a_reader_waits_until_there_is_more() {
    let (mut writer, flight) = start(100);
    let mut reader = flight.join().unwrap();
    let mut ready = Box::pin(async { reader.ready().await });
    assert!(ready.as_mut().now_or_never().is_none());
    writer.append("x".into());
    assert!(ready.as_mut().now_or_never().is_some());
    drop(ready);
    assert!(is_ready(&reader));
    assert!(matches!(reader.read(), Read::Chunk(_)));
    assert!(!is_ready(&reader));
    writer.finish(false);
    assert!(is_ready(&reader));
}

#[test]
fn a_dropped_writer_is_a_failure_never_an_end() {
    let (mut writer, flight) = start(100);
    let mut early = flight.join().unwrap();
    writer.append("half".into());
    drop(writer);
    for mut reader in [flight.join().unwrap(), flight.join().unwrap()] {
        let (part, end) = text(&mut reader);
        assert_eq!(part, "half");
        assert!(matches!(end, Read::Failed(error) if *error == Error::Abandoned));
    }
    assert!(matches!(text(&mut early), (_, Read::Failed(_))));
}

#[test]
fn a_failed_flight_without_readers_drops_its_bytes() {
    let (mut writer, flight) = start(100);
    let reader = flight.join().unwrap();
    writer.append("half".into());
    writer.fail(Error::Abandoned);
    drop(reader);
    assert!(flight.shared.lock().chunks.is_empty());
    assert!(matches!(flight.join().unwrap().read(), Read::Failed(_)));
}

#[test]
fn a_poem_is_sealed_before_readers_see_its_end() {
    let (mut writer, flight) = start(100);
    let mut reader = flight.join().unwrap();
    writer.append("x".into());
    assert!(matches!(reader.read(), Read::Chunk(_)));

    assert!(writer.seal().is_some());
    assert!(matches!(reader.read(), Read::Pending));

    writer.finish(true);
    assert!(matches!(reader.read(), Read::End));
}

#[test]
fn a_long_poem_flows_at_its_fastest_readers_pace() {
    let (mut writer, flight) = start(4);
    let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
    writer.append("abcd".into());
    assert!(writer.writable().now_or_never().is_none());
    assert!(matches!(fast.read(), Read::Chunk(_)));
    assert_eq!(writer.writable().now_or_never(), Some(Ok(())));
    writer.append("efgh".into());
    assert!(flight.join().is_none(), "the beginning has left the window");
    assert!(matches!(slow.read(), Read::FellBehind { window: 4 }));
    assert_eq!(text(&mut fast).0, "efgh");
    assert!(writer.seal().is_none(), "its beginning is gone");
    writer.finish(false);
    assert!(matches!(fast.read(), Read::End));
}

#[test]
fn a_lone_reader_never_falls_behind() {
    let (mut writer, flight) = start(100);
    let mut reader = flight.join().unwrap();
    let mut read = 0;
    for turn in 0..1000 {
        while writer.writable().now_or_never().is_some() {
            writer.append(vec![0; 1 + turn % 90].into());
        }
        match reader.peek() {
            Read::Chunk(bytes) => {
                reader.advance(1 + turn % bytes.len());
                read += 1 + turn % bytes.len();
            }
            other => panic!("{other:?} after {read} of {} bytes", writer.len()),
        }
        assert!(
            writer
                .shared
                .lock()
                .chunks
                .iter()
                .map(|chunk| chunk.bytes.len())
                .sum::<usize>()
                < 300
        );
    }
}

#[test]
fn when_the_fastest_leaves_the_next_sets_the_pace() {
    let (mut writer, flight) = start(4);
    let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
    writer.append("abcd".into());
    assert!(matches!(fast.read(), Read::Chunk(_)));
    drop(fast);
    assert!(writer.writable().now_or_never().is_none());
    assert!(matches!(slow.read(), Read::Chunk(_)));
    assert_eq!(writer.writable().now_or_never(), Some(Ok(())));
    writer.append("efgh".into());
    drop(slow);
    assert_eq!(writer.writable().now_or_never(), Some(Err(NoReaders)));
}

#[test]
fn a_finished_poem_can_be_released_before_it_is_read() {
    let (mut writer, flight) = start(100);
    let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
    let readers = writer.pending_readers();
    let writable = Arc::new(());
    writer.append("poem".into());
    writer.attach(writable.clone());
    writer.finish(false);
    assert_eq!(text(&mut fast).0, "poem");
    assert!(readers.finished().now_or_never().is_none());
    slow.advance(3);
    readers.release();
    assert_eq!(
        Arc::strong_count(&writable),
        1,
        "what held the bytes counts no more"
    );
    assert!(matches!(fast.read(), Read::End));
    assert!(matches!(slow.read(), Read::FellBehind { .. }));
    assert!(flight.join().is_none(), "a late reader must ask again");
}

#[test]
fn finished_waits_for_each_reader_to_end_or_leave() {
    let (mut writer, flight) = start(100);
    let (mut reader, leaver) = (flight.join().unwrap(), flight.join().unwrap());
    let readers = writer.pending_readers();
    writer.append("poem".into());
    writer.finish(false);
    let mut finished = std::pin::pin!(readers.finished());
    assert!(finished.as_mut().now_or_never().is_none());
    assert_eq!(text(&mut reader).0, "poem");
    assert!(finished.as_mut().now_or_never().is_none());
    drop(leaver);
    assert!(finished.as_mut().now_or_never().is_some());
}

#[test]
fn remaining_shrinks_with_the_fastest_reader() {
    let (mut writer, flight) = start(100);
    let (mut fast, mut slow) = (flight.join().unwrap(), flight.join().unwrap());
    let readers = writer.pending_readers();
    writer.append(vec![b'x'; 100].into());
    let all = readers.remaining();
    assert_eq!(
        all,
        Remaining {
            readers: 2,
            bytes: 100
        }
    );
    slow.advance(9);
    assert!(!readers.remaining().has_shrunk(all, 10));
    fast.advance(10);
    assert!(readers.remaining().has_shrunk(all, 10));
    slow.advance(2);
    let second = readers.remaining();
    assert_eq!(
        second,
        Remaining {
            readers: 2,
            bytes: 89
        }
    );
    fast.advance(90);
    assert_eq!(
        readers.remaining(),
        Remaining {
            readers: 1,
            bytes: 89
        }
    );
    assert!(readers.remaining().has_shrunk(second, 10));
    drop(slow);
    assert_eq!(
        readers.remaining(),
        Remaining {
            readers: 0,
            bytes: 0
        }
    );
}

#[test]
fn a_flight_rewinds_only_while_no_byte_was_seen() {
    let (mut writer, flight) = start(100);
    let mut reader = flight.join().unwrap();
    writer.append("wrong".into());
    assert!(writer.rewind());
    writer.append("right".into());
    assert!(matches!(reader.peek(), Read::Chunk(_)));
    assert!(
        !writer.rewind(),
        "what was shown may be half-way to a client"
    );
    assert_eq!(text(&mut reader).0, "right");
    assert!(!writer.rewind());
}

#[test]
fn a_poem_in_single_bytes_makes_few_chunks_and_one_piece() {
    let (mut writer, _flight) = start(1 << 20);
    for _ in 0..100_000 {
        writer.append(Bytes::from_static(b"x"));
    }
    assert!(writer.shared.lock().chunks.len() < 20);

    let poem = writer.seal().expect("it fits the window");
    assert_eq!((poem.len(), poem.pieces().len()), (100_000, 1));
}

#[test]
fn the_slowest_reader_may_set_the_pace() {
    let (mut writer, flight) = start(4);
    let mut fast = flight.join().unwrap();
    let mut slow = flight.join().unwrap();
    writer.wait_for_all(true);
    writer.append("abcd".into());
    assert!(matches!(fast.read(), Read::Chunk(_)));
    assert!(writer.writable().now_or_never().is_none());

    slow.advance(1);
    assert_eq!(writer.writable().now_or_never(), Some(Ok(())));
    writer.append("efgh".into());
    assert_eq!(text(&mut fast).0, "efgh");
    assert_eq!(text(&mut slow).0, "bcdefgh");
}

#[test]
fn a_laggard_is_left_behind_and_the_others_go_on() {
    let (mut writer, flight) = start(4);
    let mut fast = flight.join().unwrap();
    let mut near = flight.join().unwrap();
    let mut stuck = flight.join().unwrap();
    writer.wait_for_all(true);
    writer.append("ab".into());
    writer.append("cd".into());
    fast.advance(4);
    near.advance(3);
    assert!(!writer.keeps_pace(1), "the slowest has taken nothing");

    writer.leave_laggards();
    assert!(matches!(stuck.read(), Read::FellBehind { .. }));
    assert_eq!(writer.writable().now_or_never(), Some(Ok(())));
    writer.append("ef".into());
    assert_eq!(text(&mut fast).0, "ef");
    assert_eq!(text(&mut near).0, "def");
}

proptest! {
    #[test]
    fn any_split_of_a_poem_reads_the_same(
        sizes in prop::collection::vec(1usize..3000, 0..60), join in 0usize..60
    ) {
        let (mut writer, flight) = start(u64::MAX);
        let mut readers = vec![flight.join().unwrap()];
        let mut all = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            if at == join {
                readers.push(flight.join().unwrap());
            }
            let chunk: Vec<u8> = (0..*size).map(|i| (i * 7 + at) as u8).collect();
            all.extend_from_slice(&chunk);
            writer.append(chunk.into());
            if at % 3 == 0 {
                readers[0].read();
            }
        }
        readers.push(flight.join().unwrap());
        let kept = writer.seal();
        writer.finish(true);
        prop_assert_eq!(kept.unwrap().bytes(), all.clone());
        for reader in &mut readers[1..] {
            let mut got = Vec::new();
            while let Read::Chunk(bytes) = reader.read() {
                got.extend_from_slice(&bytes);
            }
            prop_assert_eq!(&got, &all);
        }
    }
}

#[test]
fn what_reads_along_gets_all_bytes_and_is_no_reader() {
    let (mut writer, flight) = start(4);
    writer.append("on".into());
    let mut along = flight.read_along().unwrap();
    assert_eq!(flight.readers(), 0);
    assert!(matches!(along.read(), Read::Chunk(bytes) if bytes == "on"));
    let mut ready = Box::pin(async { along.ready().await });
    assert!(ready.as_mut().now_or_never().is_none());
    writer.append("ce".into());
    assert!(ready.as_mut().now_or_never().is_some());
    drop(ready);

    // It sets no pace: over the window, the reader decides, and it falls behind.
    let mut reader = flight.join().unwrap();
    assert_eq!(text(&mut reader).0, "once");
    writer.append(" upon".into());
    assert!(writer.writable().now_or_never().is_none());
    assert_eq!(text(&mut reader).0, " upon");
    assert!(matches!(writer.writable().now_or_never(), Some(Ok(()))));
    writer.append(" a time".into());
    assert!(matches!(along.read(), Read::FellBehind { window: 4 }));
    drop(reader);
    let left = writer.writable().now_or_never();
    assert!(matches!(left, Some(Err(NoReaders))), "none is left");
    assert!(flight.read_along().is_none(), "its beginning is gone");
}

#[test]
fn what_has_read_along_forbids_to_take_bytes_back() {
    let (mut writer, flight) = start(100);
    writer.append("once".into());
    let mut along = flight.read_along().unwrap();
    assert!(writer.rewind(), "nothing was seen yet");
    writer.append("twice".into());
    assert!(matches!(along.read(), Read::Chunk(bytes) if bytes == "twice"));
    assert!(!writer.rewind());
    writer.fail(Error::Abandoned);
    assert!(matches!(along.read(), Read::Failed(_)));
}

#[test]
fn a_fetch_that_none_but_what_reads_along_wants_need_not_begin() {
    let (mut writer, flight) = start(100);
    writer.wait_to_begin(true);
    let reader = flight.join().unwrap();
    let _along = flight.read_along().unwrap();
    drop(reader);
    assert!(!writer.begin());
}
