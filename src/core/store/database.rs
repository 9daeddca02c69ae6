//! The store's file: a database of SQLite. Only this file names that library, which
//! changes its API often.
//!
//! ```sql
//! CREATE TABLE poems (
//!     id      INTEGER PRIMARY KEY, -- rises from text to text: the order of their ends
//!     digest  BLOB NOT NULL,       -- the first 16 bytes of the key's SHA-256
//!     boot    BLOB NOT NULL,       -- which start of the machine boot_ms counts from
//!     boot_ms INTEGER NOT NULL,    -- when its fetch ended, since that start
//!     wall_ms INTEGER NOT NULL,    -- and since 1970
//!     ttl_ms  INTEGER,             -- how long it is fresh, if not the usual time
//!     sum     BLOB NOT NULL,       -- 16 bytes of the SHA-256 of all the others
//!     key     BLOB NOT NULL,
//!     text    BLOB NOT NULL
//! );
//! ```
//!
//! What was measured (100,000 texts, 501 MB): a table whose id is the age takes 35 us
//! of processor time for a text, one without such an id 206 us and 1.65 times the
//! space. Pages of 8 KiB, and the text in the same table, are fastest. A memory map
//! gains nothing.
//!
//! SQLite finds damage to its own pages, and none to what is in them. So each row has a
//! sum of its own, which is checked whenever it is read.
//!
//! The table `state` has one row: which texts are purged (those up to an id), and the
//! latest time that was noted.

use super::age::ClockReading;
use super::bounds::{Bounds, PAGE_BYTES};
use crate::poem::Poem;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What marks the file as ours, in its header: the letters POEM.
pub(super) const APPLICATION_ID: i32 = 0x504f_454d;

/// The version of the tables. A file with a higher one is left as it is.
pub(super) const FORMAT: i32 = 1;

/// Memory for pages, in KiB.
const CACHE_KIB: i64 = 4096;

/// Pages that are given back to the file system in one step.
const VACUUM_PAGES: i64 = 1024;

/// Rows that are evicted in one step where one text needs the room of many.
const EVICTED_AT_ONCE: u64 = 16;

const TABLES: &str = "
CREATE TABLE poems (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    boot BLOB NOT NULL,
    boot_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    ttl_ms INTEGER,
    sum BLOB NOT NULL,
    key BLOB NOT NULL,
    text BLOB NOT NULL
);
CREATE INDEX poems_by_digest ON poems (digest);
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    gone INTEGER NOT NULL,
    stale INTEGER NOT NULL,
    stale_boot BLOB NOT NULL,
    stale_boot_ms INTEGER NOT NULL,
    stale_wall_ms INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    sum BLOB NOT NULL
);
";

/// Why the database can't do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file is damaged.
    Damaged,
    /// Another program is in the way.
    Busy,
    /// No space, or another error of the system.
    Failed(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        use rusqlite::Error as E;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Fault::Busy,
            Some(ErrorCode::DiskFull) => Fault::Failed("no space left".into()),
            Some(ErrorCode::SystemIoFailure) => Fault::Failed("the disk failed".into()),
            Some(_) => Fault::Failed(error.to_string()),
            // A table or a column is not what it should be.
            None if matches!(
                error,
                E::QueryReturnedNoRows | E::InvalidColumnType(..) | E::FromSqlConversionFailure(..)
            ) =>
            {
                Fault::Damaged
            }
            None => Fault::Failed(error.to_string()),
        }
    }
}

/// What is known of all texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Texts up to this id are purged.
    pub gone: i64,
    /// Texts up to this id were purged softly, at `stale_at`.
    pub stale: i64,
    pub stale_at: ClockReading,
    /// The latest wall clock time that was ever noted.
    pub latest: i64,
}

impl Marks {
    fn none(now: &ClockReading) -> Marks {
        Marks {
            gone: 0,
            stale: 0,
            stale_at: *now,
            latest: now.wall_ms,
        }
    }

    fn sum(&self) -> [u8; 16] {
        let mut sum = Sha256::new();
        for number in [self.gone, self.stale, self.latest] {
            sum.update(number.to_be_bytes());
        }
        add_reading(&mut sum, &self.stale_at);
        half(sum)
    }
}

/// A text, without its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowHead {
    pub id: i64,
    pub ended: ClockReading,
    /// How long it is fresh, where that is not the usual ttl.
    pub ttl: Option<Duration>,
    sum: [u8; 16],
}

/// A text to be written.
#[derive(Debug)]
pub(super) struct NewRow {
    pub key: Vec<u8>,
    pub text: Poem,
    pub ttl: Option<Duration>,
    pub ended: ClockReading,
}

impl NewRow {
    /// Bytes that it takes in the queue, and about as many in the file.
    pub fn bytes(&self) -> u64 {
        self.key.len() as u64 + self.text.len()
    }
}

pub(super) struct Database {
    connection: Connection,
    wal: PathBuf,
    bounds: Bounds,
    marks: Marks,
    last_id: i64,
    rows: u64,
}

type Done<T> = Result<T, Fault>;

impl Database {
    /// Opens the file, or makes it. It must be ours: see
    /// [`files`](super::files).
    pub fn open(path: &Path, bounds: Bounds, now: &ClockReading) -> Done<Database> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.set_prepared_statement_cache_capacity(32);

        let format: i32 = pragma(&connection, "user_version")?;
        if format == 0 {
            create(&connection, now)?;
        }
        prepare(&connection, &bounds)?;

        let marks = read_marks(&connection)?;
        let last_id = "SELECT coalesce(max(id), 0) FROM poems";
        let last_id: i64 = connection.query_row(last_id, [], |row| row.get(0))?;
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let mut database = Database {
            wal: wal.into(),
            bounds,
            last_id: last_id.max(marks.gone).max(marks.stale),
            marks,
            rows: 0,
            connection,
        };
        database.fit()?;
        Ok(database)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The number of texts, once they were counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the file that are in use.
    pub fn used(&self) -> Done<u64> {
        let pages: i64 = pragma(&self.connection, "page_count")?;
        let free: i64 = pragma(&self.connection, "freelist_count")?;
        Ok((pages - free).max(0) as u64 * PAGE_BYTES)
    }

    /// Counts the texts, and those whose end is `is_past`. Ids rise with the ends, so a
    /// few looks find where the past begins; the rest is counted in the index.
    pub fn count(&mut self, is_past: impl Fn(&RowHead) -> bool) -> Done<(u64, u64)> {
        let up_to = "SELECT count(*) FROM poems WHERE +id > ?1 AND +id <= ?2";
        let count = |from: i64, to: i64| -> Done<u64> {
            let count: i64 = self
                .connection
                .query_row(up_to, [from, to], |row| row.get(0))?;
            Ok(count as u64)
        };
        let gone = self.marks.gone;
        let all = count(gone, i64::MAX)?;

        let (mut past, mut fresh) = (gone, self.last_id);
        while past < fresh {
            let middle = past + (fresh - past) / 2 + 1;
            match self.last_before(middle, past)? {
                Some(head) if !is_past(&head) => fresh = head.id - 1,
                _ => past = middle,
            }
        }
        let past = count(gone, past)?;
        self.rows = all;
        Ok((all, past))
    }

    /// The last text up to an id and after another.
    fn last_before(&self, id: i64, after: i64) -> Done<Option<RowHead>> {
        let sql = "SELECT id, boot, boot_ms, wall_ms, sum, ttl_ms FROM poems \
                   WHERE id <= ?1 AND id > ?2 ORDER BY id DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([id, after], head).optional()?)
    }

    /// The text of a key, without its bytes.
    pub fn find(&self, key: &[u8]) -> Done<Option<RowHead>> {
        let sql = "SELECT id, boot, boot_ms, wall_ms, sum, ttl_ms FROM poems \
                   WHERE digest = ?1 AND key = ?2 AND id > ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = statement.query_row(params![digest(key), key, self.marks.gone], head);
        Ok(row.optional()?)
    }

    /// The bytes of a text. `None` if they are not what was written: the row is deleted
    /// then.
    pub fn read(&mut self, key: &[u8], head: &RowHead) -> Done<Option<Vec<u8>>> {
        let text: Option<Vec<u8>> = {
            let sql = "SELECT text FROM poems WHERE id = ?1";
            let mut statement = self.connection.prepare_cached(sql)?;
            statement
                .query_row([head.id], |row| row.get(0))
                .optional()?
        };
        let is_right =
            |text: &Vec<u8>| row_sum(head.id, &head.ended, head.ttl, key, text) == head.sum;

        let text = text.filter(is_right);
        if text.is_none() {
            let delete = "DELETE FROM poems WHERE id = ?1";
            let deleted = self.connection.execute(delete, [head.id])?;
            self.rows = self.rows.saturating_sub(deleted as u64);
        }
        Ok(text)
    }

    /// Writes texts in one transaction, and evicts the oldest for them. `between` is
    /// called before each.
    pub fn write(&mut self, batch: &[NewRow], mut between: impl FnMut(&mut Database)) -> Done<()> {
        let latest = batch.iter().map(|row| row.ended.wall_ms).max();
        let before = (self.rows, self.last_id, self.marks);
        self.marks.latest = self.marks.latest.max(latest.unwrap_or(i64::MIN));

        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut written = Ok(());
        for row in batch {
            between(self);
            written = self.insert(row);
            if written.is_err() {
                break;
            }
        }
        let result = written
            .and_then(|()| self.write_marks())
            .and_then(|()| Ok(self.connection.execute_batch("COMMIT")?));

        if result.is_err() {
            (self.rows, self.last_id, self.marks) = before;
            self.roll_back();
        }
        result
    }

    fn insert(&mut self, row: &NewRow) -> Done<()> {
        let digest = digest(&row.key);
        let replaced = {
            let sql = "DELETE FROM poems WHERE digest = ?1";
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute([&digest])?
        };
        self.rows = self.rows.saturating_sub(replaced as u64);
        self.make_room(row.bytes())?;

        let id = self.last_id + 1;
        let text = row.text.bytes();
        let ttl_ms = row
            .ttl
            .map(|ttl| ttl.as_millis().min(i64::MAX as u128) as i64);
        let ttl = ttl_ms.map(|ms| Duration::from_millis(ms as u64));
        let sum = row_sum(id, &row.ended, ttl, &row.key, &text);
        let sql = "INSERT INTO poems (id, digest, boot, boot_ms, wall_ms, sum, key, text, ttl_ms) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let ClockReading {
            boot,
            boot_ms,
            wall_ms,
        } = row.ended;
        self.connection.prepare_cached(sql)?.execute(params![
            id,
            digest,
            boot,
            boot_ms,
            wall_ms,
            sum,
            row.key,
            &text[..],
            ttl_ms
        ])?;
        self.last_id = id;
        self.rows += 1;
        Ok(())
    }

    /// Evicts the oldest texts until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) -> Done<()> {
        let needed = Bounds::pages_of(bytes);
        loop {
            let pages: i64 = self.small_pragma("page_count")?;
            let free: i64 = self.small_pragma("freelist_count")?;
            let left = self.bounds.pages.saturating_sub(pages.max(0) as u64) + free.max(0) as u64;
            if left >= needed {
                return Ok(());
            }

            let many = (needed - left).clamp(1, EVICTED_AT_ONCE);
            if self.evict(many)? == 0 {
                return Err(Fault::Failed("the capacity is too small".into()));
            }
        }
    }

    fn evict(&mut self, many: u64) -> Done<u64> {
        let sql = "DELETE FROM poems WHERE id IN (SELECT id FROM poems ORDER BY id LIMIT ?1)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let evicted = statement.execute([many as i64])? as u64;
        self.rows = self.rows.saturating_sub(evicted);
        Ok(evicted)
    }

    /// Marks all texts as purged. They are gone once this returns, also after a crash
    /// of the machine; their rows are deleted later.
    pub fn purge_all(&mut self) -> Done<()> {
        let gone = self.last_id;
        self.commit_marks(Marks { gone, ..self.marks })?;
        self.rows = 0;
        Ok(())
    }

    /// Marks all texts as stale since `now`.
    pub fn make_all_stale(&mut self, now: &ClockReading) -> Done<()> {
        self.commit_marks(Marks {
            stale: self.last_id,
            stale_at: *now,
            latest: self.marks.latest.max(now.wall_ms),
            ..self.marks
        })
    }

    fn commit_marks(&mut self, marks: Marks) -> Done<()> {
        let before = std::mem::replace(&mut self.marks, marks);
        let done = self.durably(|database| database.write_marks());
        if done.is_err() {
            self.marks = before;
        }
        done
    }

    /// Deletes the text of a key.
    pub fn delete(&mut self, key: &[u8]) -> Done<()> {
        self.durably(|database| {
            let sql = "DELETE FROM poems WHERE digest = ?1";
            let deleted = database.connection.execute(sql, [digest(key)])?;
            database.rows = database.rows.saturating_sub(deleted as u64);
            Ok(())
        })
    }

    /// Deletes the texts whose keys are picked. It looks at all keys.
    pub fn delete_picked(&mut self, pick: &dyn Fn(&[u8]) -> bool) -> Done<()> {
        self.durably(|database| {
            let picked = {
                let sql = "SELECT id, key FROM poems WHERE id > ?1";
                let mut statement = database.connection.prepare(sql)?;
                let mut rows = statement.query([database.marks.gone])?;
                let mut picked: Vec<i64> = Vec::new();
                while let Some(row) = rows.next()? {
                    let key = row.get_ref(1)?.as_blob().map_err(|_| Fault::Damaged)?;
                    if pick(key) {
                        picked.push(row.get(0)?);
                    }
                }
                picked
            };

            let sql = "DELETE FROM poems WHERE id = ?1";
            let mut statement = database.connection.prepare(sql)?;
            for id in &picked {
                statement.execute([id])?;
            }
            database.rows = database.rows.saturating_sub(picked.len() as u64);
            Ok(())
        })
    }

    /// Does work in a transaction that survives a crash of the machine, and leaves
    /// nothing of it in the log beside the file.
    fn durably(&mut self, work: impl FnOnce(&mut Database) -> Done<()>) -> Done<()> {
        let rows = self.rows;
        self.connection
            .execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
        let done = work(self).and_then(|()| Ok(self.connection.execute_batch("COMMIT")?));
        if done.is_err() {
            self.rows = rows;
            self.roll_back();
        }

        let restored = self.connection.execute_batch("PRAGMA synchronous = NORMAL");
        done?;
        restored?;
        self.checkpoint()?;
        Ok(())
    }

    /// Deletes some rows that are purged. True if there may be more.
    pub fn sweep(&mut self) -> Done<bool> {
        let sql = "DELETE FROM poems WHERE id IN \
                   (SELECT id FROM poems WHERE id <= ?1 ORDER BY id LIMIT 256)";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.execute([self.marks.gone])? > 0)
    }

    /// Moves the log beside the file into it, and empties it. False if a reader is in
    /// the way.
    pub fn checkpoint(&self) -> Done<bool> {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(busy == 0)
    }

    /// Bytes of the log beside the file.
    pub fn wal_bytes(&self) -> u64 {
        std::fs::metadata(&self.wal).map_or(0, |file| file.len())
    }

    /// Makes the file as small as the capacity. `max_page_count` is the exact bound; it
    /// is not kept in the file, and can't be less than the file has.
    fn fit(&mut self) -> Done<()> {
        let most = self.bounds.pages as i64;
        loop {
            let set = format!("max_page_count = {most}");
            let allowed: i64 = pragma(&self.connection, &set)?;
            if allowed <= most {
                return Ok(());
            }

            let free: i64 = pragma(&self.connection, "freelist_count")?;
            let is_enough = allowed - free <= most;
            if !is_enough && self.evict(EVICTED_AT_ONCE)? > 0 {
                continue;
            }
            if free == 0 {
                return Ok(()); // nothing is left that could be given back
            }
            self.give_back(VACUUM_PAGES.min(free))?;
            self.checkpoint()?;
        }
    }

    /// Gives free pages back to the file system. Each step of the statement gives one.
    fn give_back(&self, pages: i64) -> Done<()> {
        let sql = format!("PRAGMA incremental_vacuum({pages})");
        let mut statement = self.connection.prepare(&sql)?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        Ok(())
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            let _as_it_was = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn write_marks(&self) -> Done<()> {
        write_marks(&self.connection, &self.marks)
    }

    fn small_pragma(&self, name: &str) -> Done<i64> {
        let mut statement = self.connection.prepare_cached(&format!("PRAGMA {name}"))?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// Closes the file. What is in the log beside it is moved into it.
    pub fn close(self) -> Done<()> {
        let closed = self.connection.close();
        closed.map_err(|(_, error)| error.into())
    }
}

/// Makes the tables. The first transaction is in a journal, so that the marks of the
/// header are in the file itself.
fn create(connection: &Connection, now: &ClockReading) -> Done<()> {
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL; BEGIN IMMEDIATE; \
         {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
    ))?;
    write_marks(connection, &Marks::none(now))?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

fn prepare(connection: &Connection, bounds: &Bounds) -> Done<()> {
    let mode: String = pragma(connection, "journal_mode = WAL")?;
    if mode != "wal" {
        return Err(Fault::Failed(format!("its journal is {mode}")));
    }

    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -{CACHE_KIB}; PRAGMA cell_size_check = ON; \
         PRAGMA trusted_schema = OFF;"
    ))?;
    let auto = format!("wal_autocheckpoint = {}", bounds.checkpoint_pages());
    let _set: i64 = pragma(connection, &auto)?;
    Ok(())
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, text: &str) -> Done<T> {
    Ok(connection.query_row(&format!("PRAGMA {text}"), [], |row| row.get(0))?)
}

fn write_marks(connection: &Connection, marks: &Marks) -> Done<()> {
    let sql = "INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let at = &marks.stale_at;
    connection.prepare_cached(sql)?.execute(params![
        marks.gone,
        marks.stale,
        at.boot,
        at.boot_ms,
        at.wall_ms,
        marks.latest,
        marks.sum()
    ])?;
    Ok(())
}

fn read_marks(connection: &Connection) -> Done<Marks> {
    let sql = "SELECT gone, stale, stale_boot, stale_boot_ms, stale_wall_ms, latest, sum \
               FROM state";
    let (marks, sum) = connection.query_row(sql, [], |row| {
        let marks = Marks {
            gone: row.get(0)?,
            stale: row.get(1)?,
            stale_at: reading(row, 2)?,
            latest: row.get(5)?,
        };
        Ok((marks, row.get::<_, [u8; 16]>(6)?))
    })?;

    if marks.sum() == sum {
        Ok(marks)
    } else {
        Err(Fault::Damaged)
    }
}

fn head(row: &Row<'_>) -> rusqlite::Result<RowHead> {
    Ok(RowHead {
        id: row.get(0)?,
        ended: reading(row, 1)?,
        sum: row.get(4)?,
        ttl: row
            .get::<_, Option<i64>>(5)?
            .map(|ms| Duration::from_millis(ms.max(0) as u64)),
    })
}

/// A reading in three columns from this one on.
fn reading(row: &Row<'_>, at: usize) -> rusqlite::Result<ClockReading> {
    Ok(ClockReading {
        boot: row.get(at)?,
        boot_ms: row.get(at + 1)?,
        wall_ms: row.get(at + 2)?,
    })
}

fn digest(key: &[u8]) -> [u8; 16] {
    half(Sha256::new_with_prefix(key))
}

/// The sum of a row. It covers what tells its age and whether it is purged, too.
fn row_sum(
    id: i64,
    ended: &ClockReading,
    ttl: Option<Duration>,
    key: &[u8],
    text: &[u8],
) -> [u8; 16] {
    let mut sum = Sha256::new();
    sum.update(id.to_be_bytes());
    add_reading(&mut sum, ended);
    let ttl = ttl.map_or(u64::MAX, |ttl| ttl.as_millis() as u64);
    sum.update(ttl.to_be_bytes());
    sum.update((key.len() as u64).to_be_bytes());
    sum.update(key);
    sum.update(text);
    half(sum)
}

fn add_reading(sum: &mut Sha256, stamp: &ClockReading) {
    sum.update(stamp.boot);
    sum.update(stamp.boot_ms.to_be_bytes());
    sum.update(stamp.wall_ms.to_be_bytes());
}

/// The first half of a SHA-256: no two texts that share one are known either.
fn half(sum: Sha256) -> [u8; 16] {
    let all: [u8; 32] = sum.finalize().into();
    std::array::from_fn(|at| all[at])
}
