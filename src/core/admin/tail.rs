//! Requests as they end, for those that look on: the lines of the JSON log, chosen by
//! each for itself.
//!
//! A line waits for its reader in a bounded buffer. One that finds it full is dropped
//! and counted, and the count is a line of its own once there is room again. So a
//! reader that stops holds up nothing. Without a reader a request costs one relaxed
//! load.

use crate::observe::{AccessRecord, Event, Observer, Selection, Selector, json};
use futures::Stream;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// The most readers at once. Each costs the path of a request a line of JSON.
pub const READERS: usize = 4;

/// Lines that wait for one reader: a hundredth of a second's worth of a busy proxy, and
/// minutes of a quiet one.
const LINES: usize = 1024;

/// The bytes of these lines. A line may have some KiB, as its request has.
const BYTES: usize = 1 << 20;

/// Shows requests to readers. Share it, and let it observe.
#[derive(Default)]
pub struct Tail {
    /// How many readers there are. Read for each request.
    count: AtomicUsize,
    /// Held to add or remove one, and to copy the list.
    readers: Mutex<Vec<Arc<TailBuffer>>>,
}

/// What waits for one reader.
struct TailBuffer {
    selector: Selector,
    /// Held to add or take a line.
    waiting: Mutex<WaitingLines>,
}

#[derive(Default)]
struct WaitingLines {
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines dropped since the reader was told of any.
    dropped: u64,
    waker: Option<Waker>,
}

impl Tail {
    /// A reader of the requests that are selected and end from now on. `None` where
    /// there are [`READERS`] already.
    pub fn read(self: &Arc<Self>, selection: Selection) -> Option<TailLines> {
        let mut readers = self.readers();
        if readers.len() == READERS {
            return None;
        }

        let buffer = Arc::new(TailBuffer {
            selector: Selector::new(selection),
            waiting: Mutex::default(),
        });
        readers.push(buffer.clone());
        self.count.store(readers.len(), Ordering::Relaxed);

        let tail = self.clone();
        Some(TailLines { tail, buffer })
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Arc<TailBuffer>>> {
        let guard = self.readers.lock();
        guard.expect("no code panics while it holds the lock of the readers")
    }

    fn show(&self, record: &AccessRecord<'_>) {
        let readers = self.readers().clone();
        let mut rendered: Option<(u64, String)> = None;

        for reader in readers {
            let Some(sample) = reader.selector.pick(record) else {
                continue;
            };
            let known = rendered.filter(|(of, _)| *of == sample);
            let (_, line) = known.unwrap_or_else(|| (sample, json::request(record, sample)));
            reader.push(line.clone());
            rendered = Some((sample, line));
        }
    }
}

impl Observer for Tail {
    fn request(&self, record: &AccessRecord<'_>) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.show(record);
        }
    }

    fn event(&self, _: Event<'_>) {}
}

impl TailBuffer {
    fn waiting(&self) -> MutexGuard<'_, WaitingLines> {
        let guard = self.waiting.lock();
        guard.expect("no code panics while it holds the lock of a reader's lines")
    }

    fn push(&self, line: String) {
        let waker = {
            let mut waiting = self.waiting();
            waiting.push(line);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl WaitingLines {
    /// Adds a line, or drops it.
    fn push(&mut self, line: String) {
        self.tell_dropped();

        let has_room = self.lines.len() < LINES && self.bytes + line.len() <= BYTES;
        if has_room && self.dropped == 0 {
            self.add(line);
        } else {
            self.dropped += 1;
        }
    }

    /// Once half of the lines are read, says how many were dropped. Not sooner, or
    /// every other line of a slow reader would be about that.
    fn tell_dropped(&mut self) {
        let is_roomy = self.lines.len() <= LINES / 2 && self.bytes <= BYTES / 2;
        if self.dropped > 0 && is_roomy {
            self.add(json::lost(self.dropped));
            self.dropped = 0;
        }
    }

    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn take(&mut self) -> Option<String> {
        if self.lines.is_empty() {
            self.tell_dropped();
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }
}

/// The lines of one reader, without their ends. Dropped, it reads no more.
pub struct TailLines {
    tail: Arc<Tail>,
    buffer: Arc<TailBuffer>,
}

impl TailLines {
    /// The next line. It never ends.
    pub async fn next_line(&mut self) -> String {
        poll_fn(|cx| self.poll_line(cx)).await
    }

    /// The next line, if there is one.
    pub(super) fn next_now(&mut self) -> Option<String> {
        self.buffer.waiting().take()
    }

    /// The next line, if there is one; wakes the task of `cx` once there is.
    pub fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let mut waiting = self.buffer.waiting();
        if let Some(line) = waiting.take() {
            return Poll::Ready(line);
        }

        match &mut waiting.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Stream for TailLines {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.poll_line(cx).map(Some)
    }
}

impl Drop for TailLines {
    fn drop(&mut self) {
        let mut readers = self.tail.readers();
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.buffer));
        self.tail.count.store(readers.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{CacheStatus, Class, Outcome};
    use futures::FutureExt;
    use serde_json::Value;
    use std::num::NonZeroU64;
    use std::time::Duration;

    fn record(status: CacheStatus, request: &[u8]) -> AccessRecord<'_> {
        AccessRecord {
            peer: &"127.0.0.1:1",
            request,
            status,
            route: None,
            fetch: None,
            outcome: Outcome::Whole,
            bytes: 1,
            wait: Duration::ZERO,
            total: Duration::ZERO,
            stored: false,
            feed: None,
        }
    }

    /// What can be read without waiting.
    fn read_all(lines: &mut TailLines) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().now_or_never() {
            all.push(serde_json::from_str(&line).expect("it is JSON"));
        }
        all
    }

    #[test]
    fn each_reader_sees_what_it_chose_from_its_beginning_on() {
        let tail = Arc::new(Tail::default());
        tail.request(&record(CacheStatus::Miss, b"before"));

        let mut all = tail.read(Selection::default()).expect("there is room");
        let hits = Selection {
            classes: Some([Class::Hit].into_iter().collect()),
            sample: NonZeroU64::new(2),
            ..Selection::default()
        };
        let mut hits = tail.read(hits).expect("there is room");
        tail.request(&record(CacheStatus::Miss, b"one"));
        for _ in 0..4 {
            tail.request(&record(CacheStatus::Negative, b"two"));
        }

        let keys = |lines: &[Value]| -> Vec<String> {
            let keys = lines.iter().map(|line| line["key"].to_string());
            keys.collect()
        };
        assert_eq!(keys(&read_all(&mut all)).len(), 5);
        let hits = read_all(&mut hits);
        assert_eq!(keys(&hits), [r#""two""#, r#""two""#]);
        assert!(hits.iter().all(|line| line["sample"] == 2));
    }

    #[test]
    fn what_a_slow_reader_misses_is_counted_and_told() {
        let tail = Arc::new(Tail::default());
        let mut lines = tail.read(Selection::default()).expect("there is room");
        for _ in 0..LINES + 7 {
            tail.request(&record(CacheStatus::Miss, b"name"));
        }

        let read = read_all(&mut lines);
        assert_eq!(read.len(), LINES + 1);
        assert_eq!(read[LINES]["event"], "lost");
        assert_eq!(read[LINES]["lines"], 7);

        tail.request(&record(CacheStatus::Miss, b"after"));
        assert_eq!(read_all(&mut lines)[0]["key"], "after");
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let tail = Arc::new(Tail::default());
        let lines = tail.read(Selection::default()).expect("there is room");
        let request = [0; 1024]; // six bytes each, once they are escaped
        for _ in 0..LINES {
            tail.request(&record(CacheStatus::Miss, &request));
        }

        let waiting = lines.buffer.waiting();
        assert!(waiting.bytes <= BYTES);
        assert_eq!(waiting.lines.len() as u64 + waiting.dropped, LINES as u64);
        assert!(waiting.dropped > 0);
    }

    #[test]
    fn there_are_few_readers_and_the_last_one_ends_the_work() {
        let tail = Arc::new(Tail::default());
        let mut readers: Vec<TailLines> = (0..READERS)
            .map(|_| tail.read(Selection::default()).expect("there is room"))
            .collect();
        assert!(tail.read(Selection::default()).is_none());

        readers.pop();
        assert!(tail.read(Selection::default()).is_some());
        drop(readers);
        assert_eq!(tail.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_a_request() {
        let tail = Arc::new(Tail::default());
        let mut lines = tail.read(Selection::default()).expect("there is room");
        let next = lines.next_line();
        futures::pin_mut!(next);
        assert!(next.as_mut().now_or_never().is_none());

        let shared = tail.clone();
        let ending = std::thread::spawn(move || {
            shared.request(&record(CacheStatus::Miss, b"name"));
        });
        let line = async_io::block_on(next);
        assert!(line.contains(r#""key":"name""#), "{line}");
        ending.join().expect("it does not panic");
    }
}
