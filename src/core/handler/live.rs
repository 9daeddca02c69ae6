//! `proxy --live`: a feed of lines that never ends, from one connection to any number
//! of readers. [`live`](crate::live) has the feed; here is its connection.
//!
//! | the connection | readers | what follows |
//! |---|---|---|
//! | is made at the start, and kept without readers | wait | lines |
//! | brings lines | get them | |
//! | ends, fails, or cannot be made | stay, and wait | a pause, then the next connection |
//! | is up when the service stops | get what is whole, then a clean end | closed |
//!
//! There is never a second connection while one is open: a server for one client
//! answers the second with a text that would look like a line.
//!
//! Without readers it is kept: a reader that comes gets the next line at once, the
//! lines to be replayed are there, the log tells of a source that is down before
//! anything is missed, and no other client takes the place at a server for one.

mod losses;
mod pauses;

use crate::client::{Query, Timeouts};
use crate::control::{Control, FeedCounts, Snapshot};
use crate::error::{Error, Stage};
use crate::flight::Reader;
use crate::live::{BACKLOG_MIN, Feed, FeedLimits, LineCutter, TURN};
use crate::observe::{CacheStatus, Event, FeedNews, Observer, Reloaded};
use crate::protocol::{CLEAN_END, Protocol};
use crate::rt;
use crate::server::{Handler, Request, Response, Wire};
use crate::stats::Stats;
use crate::upstream::{Source, Upstream};
use futures::future::{AbortHandle, Abortable, FutureExt};
use losses::LossWatch;
use pauses::Pauses;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// What a feed is made of.
pub struct LiveSettings {
    /// Where its lines come from: one source at a time.
    pub upstream: Upstream,
    /// The limits of a connection: `idle` on its silence, `total` on its time.
    pub timeouts: Timeouts,
    /// What is held, and for which readers.
    pub feed: FeedLimits,
}

/// A feed and its readers.
pub struct Live {
    settings: LiveSettings,
    feed: Arc<Feed>,
    counters: FeedCounters,
    /// Since when the source is connected. Held to read or write it.
    connected: Mutex<Option<Instant>>,
    /// Ends the task that reads the source.
    stop: AbortHandle,
    observer: Arc<dyn Observer>,
    stats: Arc<Stats>,
}

/// What has come since the start.
#[derive(Default)]
struct FeedCounters {
    connections: AtomicU64,
    lines: AtomicU64,
    bytes: AtomicU64,
    too_long: AtomicU64,
    cut: AtomicU64,
}

/// One connection to a source.
struct Link {
    source: Source,
    cutter: LineCutter,
    /// Bytes that came.
    got: u64,
    has_brought_lines: bool,
    has_told_of_length: bool,
}

impl Live {
    /// Starts a feed, on the thread that is in [`rt::run`].
    pub fn start(
        settings: LiveSettings,
        observer: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<Live> {
        let (stop, stopped) = AbortHandle::new_pair();
        let live = Arc::new(Live {
            feed: Feed::new(settings.feed),
            settings,
            counters: FeedCounters::default(),
            connected: Mutex::default(),
            stop,
            observer,
            stats,
        });

        let following = Abortable::new(live.clone().follow(), stopped);
        rt::spawn_home(async {
            let _stopped = following.await;
        });
        live
    }

    /// What it speaks. There is no request.
    pub fn wire(&self) -> Wire {
        Wire {
            protocol: Protocol::Poem,
            longest_request: 0,
        }
    }

    /// The feed.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Reads the source for ever, one connection after the other. A bug ends one
    /// connection: readers would wait in vain for a task that is gone.
    async fn follow(self: Arc<Self>) {
        let mut pauses = Pauses::default();
        let mut losses = LossWatch::default();
        loop {
            let begun = Instant::now();
            let connection = AssertUnwindSafe(self.connect(&mut losses));
            if connection.catch_unwind().await.is_err() {
                self.stats.panics.fetch_add(1, Ordering::Relaxed);
            }

            *self.connected() = None;
            let pause = pauses.after(begun.elapsed(), fastrand::f64());
            rt::sleep(pause).await;
        }
    }

    /// Makes a connection and reads it to its end.
    async fn connect(&self, losses: &mut LossWatch) {
        let upstream = &self.settings.upstream;
        let next = upstream.next(&[], Instant::now());
        let (source, _) = next.expect("an upstream has a source");
        let error = self.read(source, losses).await;

        *self.connected() = None;
        upstream.note(source, Err(&error), Instant::now(), &*self.observer);
    }

    /// Reads one connection, and returns why it ended.
    async fn read(&self, source: Source, losses: &mut LossWatch) -> Error {
        let mut link = Link {
            source,
            cutter: LineCutter::new(self.longest()),
            got: 0,
            has_brought_lines: false,
            has_told_of_length: false,
        };

        let limit = self.settings.timeouts.total;
        let receiving = self.receive(&mut link, losses);
        let error = rt::within(limit, receiving).await;
        if link.cutter.cut_off() > 0 {
            self.counters.cut.fetch_add(1, Ordering::Relaxed);
        }
        error.unwrap_or_else(|| Error::Timeout {
            subject: self.settings.upstream.name(source).to_string(),
            stage: Stage::Complete,
            limit,
        })
    }

    async fn receive(&self, link: &mut Link, losses: &mut LossWatch) -> Error {
        let query = Query {
            protocol: Protocol::Poem,
            request: b"",
            limit: u64::MAX,
            timeouts: self.settings.timeouts,
            half_close: false,
            ends: &CLEAN_END,
        };
        let upstream = &self.settings.upstream;
        let mut reply = match upstream.ask(link.source, &query).await {
            Ok(reply) => reply,
            Err(error) => return error,
        };
        reply.keep_alive();
        *self.connected() = Some(Instant::now());
        self.counters.connections.fetch_add(1, Ordering::Relaxed);

        loop {
            match reply.next().await {
                Ok(Some(bytes)) => self.take(link, &bytes, losses).await,
                Ok(None) => return self.ended(link),
                Err(error) => return error,
            }
            // The readers that were woken send before the next bytes are read.
            rt::yield_now().await;
        }
    }

    /// Passes on the lines that are whole.
    async fn take(&self, link: &mut Link, bytes: &[u8], losses: &mut LossWatch) {
        link.got += bytes.len() as u64;
        let cut = link.cutter.push(bytes);
        let now = Instant::now();
        if cut.too_long > 0 {
            self.too_long(link, cut.too_long);
        }
        if cut.count == 0 {
            return;
        }

        let counters = &self.counters;
        counters.lines.fetch_add(cut.count, Ordering::Relaxed);
        let bytes = cut.lines.len() as u64;
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.brings(link, now);

        let _waited_long_enough = rt::within(TURN, self.feed.turns(bytes)).await;
        self.feed.append(&cut.lines);
        if let Some(news) = losses.look(now, || self.feed.losses()) {
            self.tell(link.source, &news);
        }
    }

    /// Notes that the source is up.
    fn brings(&self, link: &mut Link, now: Instant) {
        let upstream = &self.settings.upstream;
        upstream.brings(link.source, now);
        if !std::mem::replace(&mut link.has_brought_lines, true) {
            upstream.note(link.source, Ok(()), now, &*self.observer);
        }
    }

    fn too_long(&self, link: &mut Link, count: u64) {
        self.counters.too_long.fetch_add(count, Ordering::Relaxed);
        if !std::mem::replace(&mut link.has_told_of_length, true) {
            let longest = self.longest();
            self.tell(link.source, &FeedNews::LineTooLong { longest });
        }
    }

    /// Why a connection that ended cleanly ended.
    fn ended(&self, link: &Link) -> Error {
        Error::Reset {
            subject: self.settings.upstream.name(link.source).to_string(),
            got: link.got,
            why: "the feed ended".into(),
        }
    }

    fn tell(&self, source: Source, news: &FeedNews) {
        let upstream = &self.settings.upstream.name(source);
        self.observer.event(Event::Feed { upstream, news });
    }

    /// The longest line, in bytes: one that fills the backlog.
    fn longest(&self) -> u64 {
        self.settings.feed.backlog.max(BACKLOG_MIN)
    }

    fn connected(&self) -> MutexGuard<'_, Option<Instant>> {
        let guard = self.connected.lock();
        guard.expect("no code panics while it holds this lock")
    }
}

impl Handler for Live {
    fn respond(self: Arc<Self>, _: Request, _: Instant) -> Response {
        Response {
            reader: Reader::pulling(Box::new(self.feed.join())),
            status: CacheStatus::Live,
            route: None,
        }
    }

    fn reload(&self, _: Instant) -> Result<Reloaded, Error> {
        Ok(Reloaded::Nothing)
    }

    /// Ends the feed at the end of the last whole line.
    fn drain(&self) {
        self.stop.abort();
        self.feed.end();
    }
}

impl Control for Live {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let losses = self.feed.losses();
        let connected = *self.connected();
        let feed = FeedCounts {
            connected: connected.map(|since| now.saturating_duration_since(since)),
            connections: count(&self.counters.connections),
            readers: losses.readers,
            slow: losses.slow,
            lines: count(&self.counters.lines),
            bytes: count(&self.counters.bytes),
            lost: losses.lines,
            too_long: count(&self.counters.too_long),
            cut: count(&self.counters.cut),
            held: self.feed.held(),
            backlog: self.longest(),
        };

        let sources = self.settings.upstream.sources().iter();
        Snapshot {
            upstreams: sources.map(|source| source.counts(now)).collect(),
            feed: Some(feed),
            ..Snapshot::of(stats, now)
        }
    }
}
