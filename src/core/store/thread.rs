//! The store's thread: it does what [`Orders`](super::orders::Orders) say, and nothing
//! else touches the file.
//!
//! | what fails | then |
//! |---|---|
//! | the file is damaged | it is put aside, and a new one is made |
//! | a text is damaged | it is deleted |
//! | writing, for lack of space or by an error of the disk | what was to be written is dropped, and so is all else for 30 s |
//! | writing, because another program writes | it is tried again with the next batch |
//! | emptying the log, because another program reads | what is to be written is dropped until that ends |
//! | a purge | the whole store is deleted: nothing may come back |
//! | deleting it | the store is turned off |

use super::database::{Database, Fault, NewRow, RowHead};
use super::orders::{Order, PurgeOrder, StoreQuestion, WantedText};
use super::{Shared, StoreSettings, add, age, files};
use crate::cache::{Freshness, Purge};
use crate::control::StoreState;
use crate::observe::StoreNews;
use crate::tier::{Erase, OriginalDigest, StoredText, Term};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long nothing is written after that has failed.
const PAUSE: Duration = Duration::from_secs(30);

pub(super) struct StoreThread {
    settings: StoreSettings,
    shared: Arc<Shared>,
    /// `None`: the store is off.
    database: Option<Database>,
    /// Nothing is written until then.
    not_before: Option<Instant>,
    /// Whether writing is in trouble, as far as was told.
    trouble: Option<StoreNews>,
    /// Whether there are rows that are purged and not deleted yet.
    sweeps: bool,
    /// Held for as long as this process uses the file.
    _lock: File,
}

/// A fault in words.
pub(super) fn words(fault: Fault) -> String {
    match fault {
        Fault::Damaged => "damaged".into(),
        Fault::Busy => "another program is using it".into(),
        Fault::Failed(why) => why,
    }
}

impl StoreThread {
    pub fn new(
        settings: StoreSettings,
        database: Option<Database>,
        lock: File,
        shared: Arc<Shared>,
    ) -> StoreThread {
        StoreThread {
            settings,
            shared,
            database,
            not_before: None,
            trouble: None,
            sweeps: true,
            _lock: lock,
        }
    }

    /// Runs until the store is closed.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let work = AssertUnwindSafe(|| {
            self.note_size();
            while self.step() {}
            self.close();
        });
        let ended = catch_unwind(work);

        drop(self); // with the lock on the file: another process may open it now
        match ended {
            Ok(()) => shared.end(),
            Err(_) => shared.turn_off(&StoreNews::Off {
                why: "an internal error".into(),
            }),
        }
    }

    /// Does one thing, or waits for it. False once all is done.
    fn step(&mut self) -> bool {
        let order = self.next_order();
        match order {
            Order::Purge(order) => self.purge(order),
            Order::Answer(question) => self.answer(question),
            Order::Write(batch) => self.write(batch),
            Order::Wait(_) => self.sweep(),
            Order::Close => return false,
        }
        true
    }

    /// The next order. Waits for it, unless purged rows are to be deleted meanwhile.
    fn next_order(&self) -> Order {
        let shared = &self.shared;
        let mut orders = shared.lock();
        loop {
            let now = Instant::now();
            let order = orders.next(&shared.bounds, now);
            let Order::Wait(until) = order else {
                return order;
            };
            if self.sweeps {
                return order;
            }

            const LONGEST: Duration = Duration::from_secs(3600); // any time will do
            let time = until.map_or(LONGEST, |until| until.saturating_duration_since(now));
            let waited = shared.changed.wait_timeout(orders, time);
            (orders, _) = waited.expect("no code panics while it holds the lock");
        }
    }

    fn answer(&mut self, question: StoreQuestion) {
        let Some(database) = &mut self.database else {
            return;
        };
        let answered = answer(database, &self.settings, &self.shared, question);
        if let Err(fault) = answered {
            self.handle(fault);
        }
    }

    fn write(&mut self, batch: Vec<NewRow>) {
        let count = batch.len() as u64;
        let is_paused = self.not_before.is_some_and(|until| Instant::now() < until);
        let Some(database) = self.database.as_mut().filter(|_| !is_paused) else {
            add(&self.shared.figures.tally.dropped, count);
            return;
        };

        let bounds = self.shared.bounds;
        if bounds.is_wal_full(database.wal_bytes()) {
            match database.checkpoint() {
                Ok(true) => {}
                Ok(false) if database.wal_bytes() + bounds.batch <= bounds.wal => {}
                Ok(false) | Err(Fault::Busy) => {
                    return self.cannot_write(count, StoreNews::Held, None);
                }
                Err(fault) => return self.failed(count, fault),
            }
        }

        let mut fault_between = None;
        let between = |database: &mut Database| {
            while let Some(question) = self.shared.lock().question() {
                let answered = answer(database, &self.settings, &self.shared, question);
                fault_between = answered.err().or(fault_between.take());
            }
        };
        let written = database.write(&batch, between);
        if let Some(fault) = fault_between {
            self.handle(fault);
        }
        match written {
            Ok(()) => self.written(count),
            Err(Fault::Busy) => self.put_back(batch),
            Err(fault) => self.failed(count, fault),
        }
    }

    fn written(&mut self, count: u64) {
        add(&self.shared.figures.tally.written, count);
        self.not_before = None;
        self.shared.becomes(StoreState::Ok);
        if self.trouble.take().is_some() {
            self.shared.tell(&StoreNews::Writable);
        }
        self.note_size();
    }

    /// Another program writes: the batch is tried again, but not if all ends.
    fn put_back(&mut self, batch: Vec<NewRow>) {
        let count = batch.len() as u64;
        let mut orders = self.shared.lock();
        if orders.is_closing {
            drop(orders);
            return self.cannot_write(count, StoreNews::Held, None);
        }
        orders.put_back(batch, Instant::now());
    }

    fn failed(&mut self, count: u64, fault: Fault) {
        match fault {
            Fault::Damaged => {
                add(&self.shared.figures.tally.dropped, count);
                self.handle(fault);
            }
            fault => {
                add(&self.shared.figures.tally.errors, 1);
                let news = StoreNews::Unwritable { why: words(fault) };
                self.cannot_write(count, news, Some(PAUSE));
            }
        }
    }

    /// Texts are lost to the store. Each kind of trouble is told once.
    fn cannot_write(&mut self, count: u64, news: StoreNews, pause: Option<Duration>) {
        add(&self.shared.figures.tally.dropped, count);
        self.shared.becomes(StoreState::Unwritable);
        self.not_before = pause.map(|pause| Instant::now() + pause);
        if self.trouble.as_ref() != Some(&news) {
            self.shared.tell(&news);
            self.trouble = Some(news);
        }
    }

    fn purge(&mut self, order: PurgeOrder) {
        let now = (self.settings.clock)();
        let Some(database) = &mut self.database else {
            return;
        };
        let done = match (&order.texts, order.how) {
            (Erase::All, Purge::Soft) => database.make_all_stale(&now),
            (Erase::All, Purge::Hard) => database.purge_all(),
            (Erase::Key(key), _) => database.delete(key),
            (Erase::Picked(pick), _) => database.delete_picked(pick),
        };

        self.sweeps = true;
        if let Err(fault) = done {
            self.discard(fault);
        }
        self.note_size();
        drop(order.done);
    }

    /// A purge could not be written: deletes the store, so that nothing comes back.
    fn discard(&mut self, fault: Fault) {
        add(&self.shared.figures.tally.errors, 1);
        self.database = None;
        let why = words(fault);
        let again = files::delete(&self.settings.path);
        let again = again.map_err(|error| crate::error::reason(&error));
        match again.and_then(|()| self.settings.database().map_err(words)) {
            Ok(database) => {
                self.database = Some(database);
                self.shared.tell(&StoreNews::Discarded { why });
            }
            Err(why) => self.turn_off(why),
        }
    }

    /// Deletes some of the rows that are purged.
    fn sweep(&mut self) {
        let swept = self.database.as_mut().map(Database::sweep);
        match swept {
            Some(Ok(more)) => self.sweeps = more,
            None | Some(Err(Fault::Busy)) => self.sweeps = false, // eviction will do
            Some(Err(fault)) => {
                self.sweeps = false;
                self.handle(fault);
            }
        }
    }

    /// A fault outside of writing. Damage costs the file.
    fn handle(&mut self, fault: Fault) {
        add(&self.shared.figures.tally.errors, 1);
        if fault != Fault::Damaged {
            return; // a read that failed counts as a miss
        }

        self.database = None;
        match self.settings.replace() {
            Ok((database, news)) => {
                self.database = Some(database);
                self.shared.tell(&news);
                self.note_size();
            }
            Err(news) => self.turn_off(match news {
                StoreNews::Off { why } => why,
                _ => words(Fault::Damaged),
            }),
        }
    }

    fn turn_off(&mut self, why: String) {
        self.database = None;
        self.shared.turn_off(&StoreNews::Off { why });
    }

    fn note_size(&self) {
        let figures = &self.shared.figures;
        let Some(database) = &self.database else {
            return;
        };
        let used = database.used().unwrap_or_default() + database.wal_bytes();
        figures.texts.store(database.rows(), Ordering::Relaxed);
        figures.bytes.store(used, Ordering::Relaxed);
    }

    fn close(&mut self) {
        let Some(database) = self.database.take() else {
            return;
        };
        if let Err(fault) = database.close() {
            add(&self.shared.figures.tally.errors, 1);
            let why = words(fault);
            self.shared.tell(&StoreNews::Unwritable { why });
        }
    }
}

/// Answers a question. Its sender is dropped, and so answers "none", where that fails.
fn answer(
    database: &mut Database,
    settings: &StoreSettings,
    shared: &Shared,
    question: StoreQuestion,
) -> Result<(), Fault> {
    let figures = &shared.figures;
    figures.late_in_a_row.store(0, Ordering::Relaxed);
    add(&figures.answers, 1);

    let StoreQuestion {
        wanted,
        epoch,
        permit,
        answer,
    } = question;
    if answer.is_canceled() {
        return Ok(()); // it was too late
    }
    let found = match wanted {
        WantedText::Key(key) => find(database, settings, shared, &key)?,
        WantedText::MadeFrom(original) => find_made_from(database, shared, &original)?,
    };
    let text = found.map(|(text, freshness)| StoredText {
        text: text.into_boxed_slice().into(),
        term: Term::Until(freshness),
        epoch,
        permit,
        lease: None,
    });
    let _left = answer.send(text);
    Ok(())
}

type FoundText = Option<(Vec<u8>, Freshness)>;

/// The text of a key that may be served.
fn find(
    database: &mut Database,
    settings: &StoreSettings,
    shared: &Shared,
    key: &[u8],
) -> Result<FoundText, Fault> {
    let figures = &shared.figures;
    let found = database.find(key)?;
    let usable = found.and_then(|head| Some((head, freshness(database, settings, &head)?)));
    let Some((head, (freshness, is_fresh))) = usable else {
        add(&figures.tally.misses, 1);
        return Ok(None);
    };

    let Some(text) = database.read(key, &head)? else {
        add(&figures.tally.errors, 1);
        add(&figures.tally.misses, 1);
        shared.tell(&StoreNews::DamagedText);
        return Ok(None);
    };
    let counter = if is_fresh {
        &figures.tally.hits
    } else {
        &figures.tally.stale
    };
    add(counter, 1);
    Ok(Some((text, freshness)))
}

/// A text that was made from this original. It may be older than any that is served.
fn find_made_from(
    database: &mut Database,
    shared: &Shared,
    original: &OriginalDigest,
) -> Result<FoundText, Fault> {
    let Some((head, key)) = database.find_made_from(original)? else {
        return Ok(None);
    };
    let Some(text) = database.read(&key, &head)? else {
        add(&shared.figures.tally.errors, 1);
        shared.tell(&StoreNews::DamagedText);
        return Ok(None);
    };

    let now = Instant::now();
    let over = Freshness {
        fresh_until: now,
        stale_until: now,
    };
    Ok(Some((text, over)))
}

/// How long a text may be served, and whether it is fresh. `None` if it may not.
fn freshness(
    database: &Database,
    settings: &StoreSettings,
    head: &RowHead,
) -> Option<(Freshness, bool)> {
    // In this order: a text is not younger than it is.
    let now = Instant::now();
    let clock = (settings.clock)();

    let marks = database.marks();
    let age = age::age(&head.ended, &clock, marks.latest)?;
    let mut purged = None;
    if head.id <= marks.stale {
        purged = Some(age::age(&marks.stale_at, &clock, marks.latest)?);
    }
    let freshness = settings.terms(head.ttl).freshness(age, purged, now)?;
    Some((freshness, freshness.fresh_until > now))
}
