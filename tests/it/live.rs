//! `proxy --live`: lines that never end, from one connection to many readers.

mod flags;
mod process;
mod slow;

use crate::support::{
    BUG, Client, FakeUpstream, Folder, LONG, RESET, SHORT, count, feed, wait_until,
};
use poetry::observe::{AccessRecord, Event, Observer};
use std::io::{BufRead, BufReader, Write};
#[cfg(target_os = "linux")]
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Client {
    /// Reads one line, with its end.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(self.read(1));
        }
        String::from_utf8(line).unwrap()
    }
}

#[test]
fn a_reader_begins_with_the_next_line_from_now() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    let source = upstream.accept().send(b"old\nbegun ");
    service.wait_for_lines(1);

    let mut reader = service.connect();
    service.wait_for_readers(1);
    let source = source.send(b"before\n").send(b"new\r\n");
    assert_eq!(
        reader.line(),
        "begun before\n",
        "its end came after the reader"
    );
    assert_eq!(reader.line(), "new\r\n");
    source.send(b"\n\0\xff\n");
    assert_eq!(reader.read(4), b"\n\0\xff\n", "lines are any bytes");
}

#[test]
fn any_number_of_readers_share_one_connection() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).threads(2).start();
    let mut source = upstream.accept();
    let mut readers: Vec<Client> = (0..50).map(|_| service.connect()).collect();
    service.wait_for_readers(50);

    for number in 0..20 {
        source = source.send(format!("line {number}\n").as_bytes());
    }
    for reader in &mut readers {
        for number in 0..20 {
            assert_eq!(reader.line(), format!("line {number}\n"));
        }
    }
    assert_eq!(upstream.connections(), 1);
    drop(readers);
    // What is sent to one that is gone is answered with a reset.
    wait_until("all have left", || {
        source.stream.write_all(b"on\n").unwrap();
        service.feed().readers == 0
    });
    assert!(
        service.feed().connected.is_some(),
        "it is kept without readers"
    );
}

#[test]
fn the_connection_is_made_at_the_start() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    let _source = upstream.accept();
    service.wait_until_connected();
    assert_eq!(service.feed().readers, 0);
}

#[test]
fn the_last_lines_are_replayed_to_newcomers() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).replay(2).start();
    let source = upstream.accept().send(b"1\n2\n3\n");
    service.wait_for_lines(3);

    let mut reader = service.connect();
    assert_eq!(reader.read(4), b"2\n3\n");
    source.send(b"4\n");
    assert_eq!(reader.read(2), b"4\n");
}

#[test]
fn a_line_cut_by_a_lost_connection_is_not_sent_and_joined_to_none() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    let source = upstream.accept();
    let mut reader = service.connect();
    service.wait_for_readers(1);

    source.send(b"whole\nhalf of a li").close();
    let source = upstream.accept().send(b"ne?\nnext\n");
    assert_eq!(reader.line(), "whole\n");
    assert_eq!(reader.line(), "ne?\n", "the next connection begins a line");
    assert_eq!(reader.line(), "next\n");
    assert_eq!(service.feed().cut, 1);

    source.send(b"again half").reset();
    let _source = upstream.accept().send(b"last\n");
    assert_eq!(reader.line(), "last\n");
    assert_eq!(service.feed().cut, 2);
    assert_eq!(service.feed().connections, 3);
    assert_eq!(service.feed().lost, 0);
}

#[test]
fn readers_stay_while_the_source_is_away() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    let source = upstream.accept().send(b"one\n");
    service.wait_for_lines(1);
    let mut early = service.connect();
    service.wait_for_readers(1);

    source.close();
    wait_until("it is lost", || service.feed().connected.is_none());
    let mut late = service.connect();
    service.wait_for_readers(2);
    let _source = upstream.accept().send(b"two\n");
    assert_eq!(early.line(), "two\n");
    assert_eq!(late.line(), "two\n");
}

#[test]
fn a_source_that_closes_at_once_is_left_alone_for_longer_each_time() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    for _ in 0..2 {
        upstream.accept().send(b"port is in use\n").close();
    }
    let after_two = Instant::now();
    let _source = upstream.accept();
    assert!(
        after_two.elapsed() >= Duration::from_millis(1000),
        "twice a second, less a part"
    );
    wait_until("a third connection", || service.feed().connections == 3);
}

#[test]
fn a_source_without_a_byte_is_a_failure() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    upstream.accept().close();
    wait_until("it has failed", || {
        let now = Instant::now();
        let upstreams = service.control().snapshot(&service.stats, now).upstreams;
        let error = upstreams[0].last_error.as_ref();
        error.is_some_and(|(error, _)| error.ends_with("an empty reply"))
    });
}

#[test]
fn silence_ends_a_connection_only_where_a_limit_is_given() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).idle_timeout(SHORT).start();
    let first = upstream.accept().send(b"one\n");
    let _second = upstream.accept();
    first.wait_for_hangup();
    assert_eq!(service.feed().lines, 1);
}

/// Panics where a source is lost.
struct BugAtTheEnd;

impl Observer for BugAtTheEnd {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        assert!(!matches!(event, Event::UpstreamDown { .. }), "{BUG}");
    }
}

#[test]
fn a_bug_costs_one_connection() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).observer(Arc::new(BugAtTheEnd)).start();
    let mut reader = service.connect();
    service.wait_for_readers(1);
    upstream.accept().send(b"one\n").close();
    let _source = upstream.accept().send(b"two\n");
    assert_eq!(reader.read(8), b"one\ntwo\n");
    assert_eq!(count(&service.stats.panics), 1);
}

#[test]
fn a_command_that_prints_for_ever_is_a_feed() {
    let folder = Folder::new();
    let upstream = FakeUpstream::new();
    let script = folder.arg("runs");
    let command = format!(
        "sh -c 'echo run >>{script}; i=0; while [ $i -lt 3 ]; do \
         echo line $i; i=$((i+1)); done; read x; sleep 1'"
    );
    let service = feed(&upstream).command(&command).replay(3).start();
    service.wait_for_lines(6);
    assert_eq!(service.connect().read(21), b"line 0\nline 1\nline 2\n");
    assert_eq!(folder.read("runs"), "run\nrun\n", "it was started again");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_stop_ends_readers_cleanly_at_the_end_of_a_line() {
    let upstream = FakeUpstream::new();
    let mut service = feed(&upstream).start();
    let source = upstream.accept();
    let mut reader = service.connect();
    service.wait_for_readers(1);
    let source = source.send(b"whole\nha");
    service.wait_for_lines(1);

    service.stop();
    assert_eq!(reader.rest(), Ok(b"whole\n".to_vec()));
    drop(reader);
    source.wait_for_hangup();
    assert!(service.has_ended_within(LONG));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    let mut source = upstream.accept();
    drop(service.connect());
    wait_until("it has left", || {
        source.stream.write_all(b"on\n").unwrap();
        let now = Instant::now();
        let counts = service.control().snapshot(&service.stats, now).connections;
        assert_eq!(counts.failure, 0);
        counts.coalesced == 1
    });
}

/// Whether the kernel asks now and then if the other side of this connection is there
/// (proc(5), /proc/net/tcp: a timer of the kind 2).
#[cfg(target_os = "linux")]
fn is_kept_alive(local: SocketAddr, remote: SocketAddr) -> bool {
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    connections.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].ends_with(&port(local))
            && words[2].ends_with(&port(remote))
            && words[5].starts_with("02:")
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_is_gone_without_a_word_is_noticed_in_a_quiet_feed() {
    for header in ["", "PROXY UNKNOWN\r\n"] {
        let upstream = FakeUpstream::new();
        let trusted: &[&str] = if header.is_empty() {
            &[]
        } else {
            &["127.0.0.1"]
        };
        let service = feed(&upstream).proxy_protocol(trusted).start();
        let _source = upstream.accept();

        let mut reader = service.connect();
        service.wait_for_open(1); // so a header comes after the first look for it
        reader.send(header.as_bytes());
        service.wait_for_readers(1);

        let reader = reader.stream.local_addr().unwrap();
        wait_until("its end would be noticed", || {
            is_kept_alive(service.addr, reader)
        });
    }
}

#[test]
fn a_feed_without_a_line_end_is_left_out_and_holds_little() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).backlog(4096).start();
    let source = upstream.accept();
    let mut reader = service.connect();
    service.wait_for_readers(1);

    let source = source.send(&[b'x'; 1 << 20]);
    wait_until("it is too long", || service.feed().too_long == 1);
    source.send(b"\nshort\n");
    assert_eq!(reader.line(), "short\n");
    let counts = service.feed();
    assert_eq!((counts.lines, counts.held, counts.lost), (1, 6, 0));
}

#[test]
fn what_a_reader_sends_is_ignored() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).start();
    let source = upstream.accept();
    let mut reader = service.connect();
    reader.send(b"GET / HTTP/1.0\r\n\r\n");
    reader.half_close();
    service.wait_for_readers(1);
    let source = source.send(b"one\n");
    assert_eq!(reader.line(), "one\n");
    source.send(b"two\n");
    assert_eq!(reader.line(), "two\n");
}

#[test]
fn two_hundred_readers_miss_no_line_but_those_that_are_stuck() {
    feed_to_many(200, 5, Duration::from_secs(3));
}

/// 1,000 lines a second to 1,000 readers for a minute.
#[test]
#[ignore = "takes a minute and both cores"]
fn a_thousand_readers_miss_no_line_but_those_that_are_stuck() {
    feed_to_many(1000, 10, Duration::from_secs(60));
}

/// Sends 1,000 lines a second, while `stuck` of the readers take nothing.
fn feed_to_many(readers: usize, stuck: usize, time: Duration) {
    crate::support::raise_descriptor_limit();
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).threads(2).backlog(1 << 20).start();
    let mut source = upstream.accept();
    let stuck: Vec<Client> = (0..stuck).map(|_| Client::narrow(service.addr)).collect();
    let others = readers - stuck.len();

    let total = time.as_millis() as usize;
    let read = move |client: Client| {
        let mut lines = BufReader::new(client.stream).lines();
        for number in 0..total {
            let line = lines.next().expect("the feed goes on").unwrap();
            let shown = line.split(' ').nth(1);
            assert_eq!(shown, Some(&*number.to_string()), "no line is missing");
        }
    };
    // A thread reads several clients, one after the other would lose: each has its own.
    let threads: Vec<_> = (0..others)
        .map(|_| {
            let client = service.connect();
            let thread = std::thread::Builder::new().stack_size(128 << 10);
            thread.spawn(move || read(client)).unwrap()
        })
        .collect();
    service.wait_for_readers(readers as u64);

    let started = Instant::now();
    for number in 0..total {
        let line = format!("!AIVDM {number} {:060}\n", number);
        source = source.send(line.as_bytes());
        let due = started + Duration::from_millis(number as u64);
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());

    let counts = service.feed();
    assert_eq!(counts.lines, total as u64);
    assert!(counts.slow <= stuck.len() as u64);
    assert!(counts.held <= counts.backlog + counts.backlog / 8);
    assert_eq!(upstream.connections(), 1);
    drop(stuck);
}

#[test]
fn a_reader_may_be_reset_instead_of_losing_lines() {
    let upstream = FakeUpstream::new();
    let service = feed(&upstream).backlog(4096).reset_slow().start();
    let source = upstream.accept();
    let mut stuck = Client::narrow(service.addr);
    service.wait_for_readers(1);

    let line = [[b'x'; 99].as_slice(), b"\n"].concat();
    source.send(&line.repeat(50_000));
    service.wait_for_lines(50_000);
    assert_eq!(stuck.rest(), RESET);
    assert_eq!(service.feed().slow, 0);
}
