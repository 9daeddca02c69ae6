//! Readers that are too slow for a feed, and bursts.

use crate::support::{Client, FakeUpstream, feed, wait_until};
use poetry::observe::{AccessRecord, Event, FeedNews, Observer};
use std::sync::{Arc, Mutex};

const LINES: usize = 100_000;

/// Numbered lines of 100 bytes.
fn numbered(count: usize) -> Vec<u8> {
    let line = |number| format!("{number:099}\n").into_bytes();
    (0..count).flat_map(line).collect()
}

/// The numbers of lines that were read; each must be whole.
fn numbers(bytes: &[u8]) -> Vec<usize> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| {
            assert_eq!(line.len(), 99, "a whole line");
            line.trim_start_matches('0').parse().unwrap_or(0)
        })
        .collect()
}

#[test]
fn a_slow_reader_loses_whole_lines_and_each_is_counted() {
    let upstream = FakeUpstream::new();
    let mut service = feed(&upstream).start();
    let source = upstream.accept();
    let mut slow = Client::narrow(service.addr);
    service.wait_for_readers(1);

    // The reader takes some, is stuck for the rest, and then reads on.
    let sending = source.send_in_background(numbered(LINES));
    let mut got = slow.read(100 * 100);
    service.wait_for_lines(LINES as u64);
    sending.join().unwrap();
    let lost = service.feed().lost;
    assert!(lost > 0, "the kernel does not hold 10 MB");
    assert_eq!(service.feed().slow, 1);

    service.stop();
    got.extend(slow.rest().unwrap());
    let numbers = numbers(&got);
    assert!(
        numbers.is_sorted_by(|one, next| one < next),
        "in their order"
    );
    assert_eq!(numbers.last(), Some(&(LINES - 1)), "up to the last");
    assert_eq!(LINES - numbers.len(), lost as usize);
}

#[test]
fn a_burst_over_the_backlog_costs_a_fast_reader_no_line() {
    let upstream = FakeUpstream::new();
    let mut service = feed(&upstream).backlog(1 << 20).start();
    let source = upstream.accept();
    let mut reader = service.connect();
    service.wait_for_readers(1);

    let count = 8000; // 800 kB at once, and as much again
    let all = numbered(2 * count);
    let source = source.send(&all[..count * 100]);
    let mut got = reader.read(count * 100);
    let _source = source.send(&all[count * 100..]);
    got.extend(reader.read(count * 100));
    assert_eq!(got, all);
    assert_eq!(service.feed().lost, 0);
    service.stop();
}

#[test]
fn a_stuck_reader_is_reset_after_the_client_timeout() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream)
        .client_timeout(std::time::Duration::from_millis(500))
        .start();
    let source = upstream.accept();
    let stuck = Client::narrow(service.addr);
    let mut quick = service.connect();
    service.wait_for_readers(2);

    let sending = source.send_in_background(numbered(LINES));
    let reading = std::thread::spawn(move || {
        let mut count = 0;
        while let Ok(1..) = std::io::Read::read(&mut quick.stream, &mut [0; 1 << 16]) {
            count += 1;
        }
        count
    });
    wait_until("one is reset", || service.feed().readers <= 1);
    sending.join().unwrap();
    drop(stuck);
    drop(service);
    assert!(reading.join().unwrap() > 0);
}

/// What is told of a feed.
#[derive(Default)]
struct Told(Mutex<Vec<FeedNews>>);

impl Observer for Told {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        if let Event::Feed { news, .. } = event {
            self.0.lock().unwrap().push(*news);
        }
    }
}

#[test]
fn losses_and_lines_that_are_too_long_are_told() {
    let upstream = FakeUpstream::new();
    let told = Arc::new(Told::default());
    let service = feed(&upstream).backlog(4096).observer(told.clone()).start();
    let source = upstream.accept();
    let _stuck = Client::narrow(service.addr);
    service.wait_for_readers(1);

    let long = vec![b'x'; 5000];
    let mut source = source.send(&long).send(b"\n").send(&long).send(b"\n");
    wait_until("losses are told", || {
        let lines = numbered(10_000);
        std::io::Write::write_all(&mut source.stream, &lines).unwrap();
        told.0.lock().unwrap().len() > 1
    });

    let told = told.0.lock().unwrap();
    assert_eq!(told[0], FeedNews::LineTooLong { longest: 4096 });
    let is_loss = |news: &FeedNews| {
        matches!(
            news,
            FeedNews::LinesLost {
                lines: 1..,
                readers: 1
            }
        )
    };
    assert!(is_loss(&told[1]), "{told:?}");
    assert_eq!(told.len(), 2, "the length is told once a connection");
    assert_eq!(service.feed().too_long, 2);
}
