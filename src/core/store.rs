//! Texts that outlive the process: a [`Tier`] in one file on the disk, `--store PATH`.
//!
//! | file | question |
//! |---|---|
//! | `store/orders.rs` | What is done next? |
//! | `store/thread.rs` | How is it done, and what happens when it fails? |
//! | `store/database.rs` | How is a text kept in the file? |
//! | `store/files.rs` | Is this file ours, and does another process use it? |
//! | `store/age.rs` | How old is a text? |
//! | `store/bounds.rs` | How much may it all take? |
//!
//! One thread of its own does all that touches the file. Fetches ask it and wait for
//! the answer, but not long; they hand their texts to a bounded queue, and never wait.
//!
//! | the store | a fetch |
//! |---|---|
//! | has answered nothing for 50 ms while a fetch waits | asks the upstream |
//! | was that slow three times in a row | does not ask it, until it has answered again |
//! | can't be written | goes on; its text is not kept over a restart |
//! | finds damage | goes on; the file is put aside, and a new one is made |

mod age;
mod bounds;
mod clock;
mod database;
mod files;
mod orders;
mod thread;

use crate::cache::Purge;
use crate::control::{StoreCounts, StoreState};
use crate::error::Error;
use crate::observe::{Event, Observer, StoreNews};
use crate::poem::Poem;
use crate::rt;
use crate::semaphore::Semaphore;
use crate::tier::{
    Claim, Erase, Lease, OriginalDigest, Question, StoredText, Tier, TierTally, Wish,
};
pub use age::ClockReading;
use age::Terms;
use bounds::Bounds;
pub use bounds::CAPACITY_MIN;
pub use clock::{ReadClocks, system_clock};
use database::{Database, Fault, NewRow, RowHead};
use files::Looks;
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt};
use orders::{Added, Orders, PurgeOrder, StoreQuestion, WantedText};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};
use thread::StoreThread;

/// How long a fetch waits while the store answers nothing, by default.
pub const ANSWER_WAIT: Duration = Duration::from_millis(50);

/// How much longer a fetch waits for its own answer while others get theirs.
const QUEUE_WAITS: u32 = 20;

/// How often in a row an answer may be late before no fetch asks any more.
const LATE_MOST: u64 = 3;

/// Texts that are read at once. They count against no capacity until they have landed.
const READS: usize = 2;

/// How long a purge waits until it is on the disk. Its texts are not served from its
/// begin on; this is about a crash.
const PURGE_WAIT: Duration = Duration::from_secs(10);

/// What a store is opened with.
#[derive(Clone)]
pub struct StoreSettings {
    /// The file.
    pub path: PathBuf,
    /// The most that the file and the log beside it may take, in bytes; at least
    /// [`CAPACITY_MIN`].
    pub capacity: u64,
    /// How long texts are fresh that have no ttl of their own.
    pub ttl: Duration,
    /// The longest ttl that a text may have of its own.
    pub longest_ttl: Duration,
    /// How long they may be served after that.
    pub grace: Duration,
    /// How long a fetch waits while the store answers nothing: [`ANSWER_WAIT`].
    pub answer_wait: Duration,
    /// Tells the time.
    pub clock: ReadClocks,
}

/// A store whose file is open, or can't be used. It is not running yet.
pub struct OpenStore {
    settings: StoreSettings,
    /// `None`: the store stays off.
    database: Option<Database>,
    /// What was found.
    news: StoreNews,
    lock: File,
}

impl OpenStore {
    /// Opens the file, or makes it. A file that is damaged is put aside. If the disk
    /// fails or is full, or a newer version wrote the file, the store stays off, and
    /// [`OpenStore::start`] reports it.
    ///
    /// # Errors
    /// [`Error::Local`] if the path can't be a store's: another process uses it, it is
    /// something else, or it can't be read or made.
    pub fn open(settings: StoreSettings) -> Result<OpenStore, Error> {
        let path = &settings.path;
        files::refuse_others(path)?;
        let lock = files::lock(path)?;
        let opened = match files::look(path)? {
            Looks::Newer(_) => Err(StoreNews::Newer),
            Looks::Damaged => settings.replace(),
            Looks::New | Looks::Ours => match settings.counted() {
                Err(Fault::Damaged) => settings.replace(),
                counted => counted.map_err(StoreNews::off),
            },
        };
        let (database, news) = match opened {
            Ok((database, news)) => (Some(database), news),
            Err(news) => (None, news),
        };
        Ok(OpenStore {
            database,
            news,
            lock,
            settings,
        })
    }

    /// Starts its thread. It reports what it found to `observer`.
    pub fn start(self, observer: Arc<dyn Observer>) -> Arc<Store> {
        let path: Arc<str> = self.settings.path.display().to_string().into();
        let shared = Arc::new(Shared {
            bounds: Bounds::of(self.settings.capacity),
            clock: self.settings.clock.clone(),
            path,
            observer,
            orders: Mutex::default(),
            changed: Condvar::new(),
            figures: Figures::default(),
            state: Mutex::new((StoreState::Ok, Instant::now())),
        });
        let store = Arc::new(Store {
            shared: shared.clone(),
            reads: Semaphore::new(READS),
            answer_wait: self.settings.answer_wait,
        });

        shared.tell(&self.news);
        if self.database.is_none() {
            shared.end();
            return store;
        }
        shared.figures.is_open.store(true, Ordering::Release);
        let thread = StoreThread::new(self.settings, self.database, self.lock, shared.clone());
        let builder = std::thread::Builder::new().name("store".into());
        if let Err(error) = builder.spawn(move || thread.run()) {
            let why = crate::error::reason(&error);
            shared.turn_off(&StoreNews::Off { why });
        }
        store
    }
}

impl StoreSettings {
    /// The terms of a text, by its own ttl if it has one.
    fn terms(&self, own: Option<Duration>) -> Terms {
        Terms {
            ttl: own.map_or(self.ttl, |own| own.min(self.longest_ttl)),
            grace: self.grace,
        }
    }

    fn database(&self) -> Result<Database, Fault> {
        let bounds = Bounds::of(self.capacity);
        Database::open(&self.path, bounds, &(self.clock)())
    }

    /// Opens the database and counts what is in it.
    fn counted(&self) -> Result<(Database, StoreNews), Fault> {
        let mut database = self.database()?;
        let now = (self.clock)();
        let marks = *database.marks();
        let is_past = |head: &RowHead| {
            let age = age::age(&head.ended, &now, marks.latest);
            head.id <= marks.stale || age.is_none_or(|age| age >= self.terms(head.ttl).ttl)
        };

        let (texts, past) = database.count(is_past)?;
        let bytes = database.used()?;
        Ok((database, StoreNews::Opened { texts, bytes, past }))
    }

    /// Puts the damaged file aside and makes a new one.
    fn replace(&self) -> Result<(Database, StoreNews), StoreNews> {
        let aside = files::put_aside(&self.path);
        let aside = aside.map_err(|error| StoreNews::Off {
            why: format!(
                "damaged, and not put aside: {}",
                crate::error::reason(&error)
            ),
        })?;

        let aside = aside.display().to_string();
        let database = self.database().map_err(StoreNews::off)?;
        Ok((database, StoreNews::Damaged { aside }))
    }
}

impl StoreNews {
    fn off(fault: Fault) -> StoreNews {
        StoreNews::Off {
            why: thread::words(fault),
        }
    }
}

/// Texts in a file. Dropped, it closes in its own time; see [`Tier::close`].
pub struct Store {
    shared: Arc<Shared>,
    reads: Semaphore,
    answer_wait: Duration,
}

/// What the thread and its users share.
struct Shared {
    bounds: Bounds,
    clock: ReadClocks,
    /// The path, for logs.
    path: Arc<str>,
    observer: Arc<dyn Observer>,
    /// Held for a few lines.
    orders: Mutex<Orders>,
    /// Something is to be done, or the thread has ended.
    changed: Condvar,
    figures: Figures,
    /// How it is, and since when. Held for a line.
    state: Mutex<(StoreState, Instant)>,
}

/// Running totals, and what is known of the file.
#[derive(Default)]
struct Figures {
    is_open: AtomicBool,
    tally: TierTally,
    texts: AtomicU64,
    bytes: AtomicU64,
    /// Answers until now.
    answers: AtomicU64,
    /// Late answers since the last one.
    late_in_a_row: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        let guard = self.orders.lock();
        guard.expect("no code panics while it holds the lock of the store's orders")
    }

    fn tell(&self, news: &StoreNews) {
        self.observer.event(Event::Store {
            path: &self.path,
            news,
        });
    }

    /// The thread has ended, or never began: all that waits for it is dropped.
    fn turn_off(&self, news: &StoreNews) {
        self.end();
        self.tell(news);
    }

    fn end(&self) {
        self.figures.is_open.store(false, Ordering::Release);
        self.becomes(StoreState::Off);
        let abandoned = self.lock().abandon();
        self.changed.notify_all();
        drop(abandoned);
    }

    fn becomes(&self, state: StoreState) {
        let mut now = self.state();
        if now.0 != state {
            *now = (state, Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, (StoreState, Instant)> {
        let guard = self.state.lock();
        guard.expect("no code panics while it holds the lock of the store's state")
    }

    fn is_open(&self) -> bool {
        self.figures.is_open.load(Ordering::Acquire)
    }
}

impl Store {
    /// Asks for a text. `None` if the store has none, or is too slow.
    async fn find(&self, wanted: WantedText) -> Option<StoredText> {
        let figures = &self.shared.figures;
        if figures.late_in_a_row.load(Ordering::Relaxed) >= LATE_MOST {
            return None;
        }

        let begun = Instant::now();
        let mut asking = self.ask(wanted, begun).boxed();
        let limit = self.answer_wait.saturating_mul(QUEUE_WAITS);
        let mut answers = figures.answers.load(Ordering::Relaxed);
        loop {
            if let Some(answer) = rt::within(self.answer_wait, &mut asking).await {
                return answer;
            }

            let now = figures.answers.load(Ordering::Relaxed);
            if now == answers || begun.elapsed() >= limit {
                add(&figures.tally.late, 1);
                add(&figures.late_in_a_row, 1);
                return None;
            }
            answers = now;
        }
    }

    async fn ask(&self, wanted: WantedText, now: Instant) -> Option<StoredText> {
        let permit = self.reads.acquire(now).await;
        let (answer, answered) = oneshot::channel();
        {
            let mut orders = self.shared.lock();
            let purges = orders.purges_begun;
            if orders.is_closed || purges != orders.purges_ended {
                return None; // in the middle of a purge nothing is certain
            }
            orders.ask(StoreQuestion {
                wanted,
                epoch: purges,
                permit,
                answer,
            });
        }
        self.shared.changed.notify_all();
        answered.await.ok()?
    }

    fn lease(&self, key: &[u8]) -> Claim {
        if !self.shared.is_open() {
            return Claim::Alone;
        }
        Claim::Lead(Box::new(WriteLease {
            shared: self.shared.clone(),
            key: key.to_vec(),
            original: None,
            fence: None,
        }))
    }
}

impl Tier for Store {
    fn claim<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Claim> {
        let key = question.key;
        // What is in memory is never older than what is in the file.
        if question.wish != Wish::Text || !self.shared.is_open() {
            return std::future::ready(self.lease(key)).boxed();
        }

        let asked = async {
            match self.find(WantedText::Key(key.to_vec())).await {
                Some(found) => Claim::Found(found),
                None => self.lease(key),
            }
        };
        asked.boxed()
    }

    fn made_from(&self, original: OriginalDigest) -> BoxFuture<'_, Option<StoredText>> {
        if !self.shared.is_open() {
            return std::future::ready(None).boxed();
        }
        self.find(WantedText::MadeFrom(original)).boxed()
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.shared.lock().purges_begun == epoch
    }

    fn purge_begins(&self) {
        self.shared.lock().purges_begun += 1;
    }

    fn purge(&self, texts: Erase, how: Purge) {
        let (done, waits) = mpsc::channel::<()>();
        {
            let mut orders = self.shared.lock();
            orders.purge(PurgeOrder { texts, how, done });
            if orders.is_closed {
                let _nothing_is_done = orders.abandon();
            }
        }

        self.shared.changed.notify_all();
        let _dropped_when_done = waits.recv_timeout(PURGE_WAIT);
    }

    fn counts(&self) -> StoreCounts {
        let figures = &self.shared.figures;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (state, since) = *self.shared.state();
        StoreCounts {
            name: self.shared.path.clone(),
            state,
            state_for: since.elapsed(),
            is_open: self.shared.is_open(),
            texts: count(&figures.texts),
            bytes: count(&figures.bytes),
            capacity: self.shared.bounds.capacity,
            ..figures.tally.counts()
        }
    }

    /// Blocks: nothing else is to be done at the end of a process.
    fn close(&self, limit: Duration) -> BoxFuture<'_, bool> {
        let closed = async move {
            let mut orders = self.shared.lock();
            orders.is_closing = true;
            self.shared.changed.notify_all();

            let waits = |orders: &mut Orders| !orders.is_closed;
            let waited = self.shared.changed.wait_timeout_while(orders, limit, waits);
            let (orders, _) = waited.expect("no code panics while it holds the lock");
            orders.is_closed
        };
        closed.boxed()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
    }
}

/// The right to write a text.
struct WriteLease {
    shared: Arc<Shared>,
    key: Vec<u8>,
    original: Option<OriginalDigest>,
    /// When the text landed, and how many purges had ended until then.
    fence: Option<(ClockReading, u64)>,
}

impl Lease for WriteLease {
    fn fence(&mut self) {
        let ended = self.shared.lock().purges_ended;
        self.fence = Some(((self.shared.clock)(), ended));
    }

    fn made_from(&mut self, original: OriginalDigest) {
        self.original = Some(original);
    }

    fn commit(self: Box<Self>, text: Poem, ttl: Option<Duration>) {
        let Some((ended, purges)) = self.fence else {
            return; // it is not known when it landed
        };
        let row = NewRow {
            key: self.key,
            original: self.original,
            text,
            ttl,
            ended,
        };

        let added = {
            let shared = &self.shared;
            let mut orders = shared.lock();
            orders.add(row, purges, &shared.bounds, Instant::now())
        };
        match added {
            Added::Waits => {}
            Added::ChangesTurn => self.shared.changed.notify_all(),
            Added::NoRoom => self.shared.dropped(1, &StoreNews::QueueFull),
        }
    }
}

impl Shared {
    /// Counts texts that are not written, and says why.
    fn dropped(&self, texts: u64, why: &StoreNews) {
        add(&self.figures.tally.dropped, texts);
        self.tell(why);
    }
}

#[cfg(test)]
mod tests;
