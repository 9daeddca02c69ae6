//! What a reader knows of its text.

use super::*;
use crate::flight::launch;
use crate::observe::FetchCause;

#[test]
fn a_reader_knows_its_flight() {
    let (one, other) = (launch(100), launch(100));
    let reader = one.flight().join().unwrap();
    assert_eq!(reader.flight_id(), Some(one.id()));
    assert_ne!(one.id(), other.id());
    assert!(one.flight().is(&one.flight()));
    assert!(!one.flight().is(&other.flight()));
    assert_eq!(Reader::of("once".into()).flight_id(), None);
}

#[test]
fn a_reader_knows_whether_more_may_come() {
    let writer = launch(100);
    let reader = writer.flight().join().unwrap();
    assert!(!reader.is_over());
    writer.finish(false);
    assert!(reader.is_over());
    assert!(Reader::of("once".into()).is_over());
    assert!(Reader::failed(Error::Abandoned).is_over());
}

#[test]
fn a_reader_knows_whether_its_text_was_kept() {
    for kept in [true, false] {
        let writer = launch(100);
        let reader = writer.flight().join().unwrap();
        assert!(!reader.was_kept());
        writer.finish(kept);
        assert_eq!(reader.was_kept(), kept);
    }
    assert!(Reader::of("once".into()).was_kept());
    assert!(!Reader::failed(Error::Abandoned).was_kept());
}

#[test]
fn a_reader_knows_the_length_of_a_complete_text_alone() {
    let writer = launch(100);
    assert_eq!(writer.flight().join().unwrap().whole_len(), None);
    assert_eq!(Reader::of("once".into()).whole_len(), Some(4));
}

#[test]
fn a_reader_shows_what_is_noted_of_its_fetch() {
    let mut writer = launch(100);
    let reader = writer.flight().join().unwrap();
    assert!(reader.note().is_none());
    writer.note(FetchNote {
        cause: FetchCause::Miss,
        upstream: None,
        time: None,
        store: None,
        is_takeover: false,
    });
    assert!(reader.note().is_some());
    assert!(Reader::of("once".into()).note().is_none());
}

#[test]
fn a_released_reader_is_no_reader_any_more() {
    let mut writer = launch(100);
    let flight = writer.flight();
    let mut reader = flight.join().unwrap();
    let _other = flight.join().unwrap();
    writer.append("once".into());
    assert_eq!(flight.readers(), 2);

    reader.release();
    assert_eq!(flight.readers(), 1);
    assert!(matches!(reader.read(), Read::End));
}

#[test]
fn a_flight_is_closed_once_the_last_reader_has_left_a_fetch_that_waits() {
    let mut writer = launch(100);
    let flight = writer.flight();
    writer.wait_to_begin(true);
    let reader = flight.join().unwrap();
    assert!(!flight.is_closed());
    drop(reader);
    assert!(flight.is_closed());
    assert!(flight.join().is_none());
}

#[test]
fn a_writer_knows_whether_it_has_written() {
    let mut writer = launch(100);
    assert!(writer.is_empty());
    writer.append("once".into());
    assert!(!writer.is_empty());
}

/// A text from elsewhere that says nothing of itself.
struct Silent;

impl Pull for Silent {
    fn peek(&self) -> (Read, bool) {
        (Read::Pending, false)
    }

    fn advance(&mut self, _: usize) {}

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[test]
fn nothing_is_known_of_a_text_that_says_nothing_of_itself() {
    let reader = Reader::pulling(Box::new(Silent));
    assert!(!reader.was_kept() && !reader.is_stale() && !reader.is_over());
    assert!(reader.note().is_none() && reader.feed_note().is_none());
    assert_eq!((reader.whole_len(), reader.flight_id()), (None, None));
}
