//! A client: what it reads, and whether it is woken.

use super::record::{Fetches, State};
use poetry::flight::{Read, Reader};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

pub struct Client {
    key: u8,
    /// The fetch whose flight it reads; `None` for a kept text.
    pub fetch: Option<usize>,
    pub reader: Reader,
    seen: String,
    bell: Arc<Bell>,
    /// It was told to wait.
    waits: bool,
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The number of the fetch that brought a text that is read from its beginning.
pub fn fetch_of(reader: &Reader) -> Option<usize> {
    match reader.peek() {
        Read::Chunk(bytes) => number(&String::from_utf8_lossy(&bytes)),
        other => panic!("a kept text begins with {other:?}"),
    }
}

/// Each piece begins with the number of its fetch.
fn number(text: &str) -> Option<usize> {
    text.split('.').next()?.parse().ok()
}

impl Client {
    pub fn new(key: u8, fetch: Option<usize>, reader: Reader) -> Client {
        Client {
            key,
            fetch,
            reader,
            seen: String::new(),
            bell: Arc::default(),
            waits: false,
        }
    }

    /// Reads once, and checks what it gets. Returns whether that was the last.
    pub fn read(&mut self, fetches: &Fetches) -> bool {
        match self.reader.read() {
            Read::Chunk(bytes) => {
                assert!(!bytes.is_empty());
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
                self.check_seen(fetches);
                false
            }
            Read::Pending => {
                let state = self.fetch.map(|fetch| fetches.0[fetch].state);
                assert!(matches!(state, Some(State::Waiting | State::Running)));
                false
            }
            Read::End => {
                let record = &fetches.0[self.check_seen(fetches)];
                assert_eq!(record.state, State::Landed, "told the end");
                assert_eq!(record.text, self.seen, "told the end too soon");
                true
            }
            Read::Failed(_) => {
                let fetch = self.fetch.expect("a kept text has no failure");
                assert_eq!(fetches.0[fetch].state, State::Failed);
                true
            }
            Read::FellBehind { .. } => {
                let fetch = self.fetch.expect("a kept text is all there");
                assert!(!fetches.0[fetch].is_keeping, "its beginning was dropped");
                true
            }
        }
    }

    /// What it has seen is the beginning of one fetch of its key. Returns that fetch.
    fn check_seen(&self, fetches: &Fetches) -> usize {
        let fetch = self.fetch.or_else(|| number(&self.seen));
        let fetch = fetch.expect("a text has at least one byte");
        let record = &fetches.0[fetch];

        assert_eq!(record.key, self.key, "another key's text");
        assert!(record.text.starts_with(&self.seen), "{:?}", self.seen);
        fetch
    }

    /// Checks that it was told, and woken, if there is news. Then it waits for more.
    pub fn check(&mut self, fetches: &Fetches) {
        let is_over = self.fetch.is_none_or(|fetch| !fetches.0[fetch].is_live());
        assert_eq!(self.reader.is_over(), is_over, "told too soon or too late");

        let waker = Waker::from(self.bell.clone());
        let ready = pin!(self.reader.ready());
        let is_ready = ready.poll(&mut Context::from_waker(&waker)).is_ready();
        let is_woken = self.bell.0.swap(false, Ordering::Relaxed);
        assert!(is_woken || !self.waits || !is_ready, "not woken");
        self.waits = !is_ready;
    }
}
