//! The store's file: a database of SQLite. Only this file and its folder name that
//! library, which changes its API often.
//!
//! | file | question |
//! |---|---|
//! | `database/texts.rs` | How is a text found, written and evicted? |
//! | `database/marks.rs` | Which texts are purged? |
//!
//! ```sql
//! CREATE TABLE poems (
//!     id      INTEGER PRIMARY KEY, -- rises from text to text: the order of their ends
//!     digest  BLOB NOT NULL,       -- the first 16 bytes of the key's SHA-256
//!     boot    BLOB NOT NULL,       -- which start of the machine boot_ms counts from
//!     boot_ms INTEGER NOT NULL,    -- when its fetch ended, since that start
//!     wall_ms INTEGER NOT NULL,    -- and since 1970
//!     ttl_ms  INTEGER,             -- how long it is fresh, if not the usual time
//!     original BLOB,               -- the SHA-256 of what it was transformed from
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

mod marks;
mod texts;

use super::age::ClockReading;
use super::bounds::{Bounds, PAGE_BYTES};
use marks::{Marks, read_marks, write_marks};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use texts::EVICTED_AT_ONCE;
pub(super) use texts::{NewRow, RowHead};

/// What marks the file as ours, in its header: the letters POEM.
pub(super) const APPLICATION_ID: i32 = 0x504f_454d;

/// The version of the tables. A file with a higher one is left as it is.
pub(super) const FORMAT: i32 = 2;

/// Memory for pages, in KiB.
const CACHE_KIB: i64 = 4096;

/// Pages that are given back to the file system in one step.
const VACUUM_PAGES: i64 = 1024;

const TABLES: &str = "
CREATE TABLE poems (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    boot BLOB NOT NULL,
    boot_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    ttl_ms INTEGER,
    original BLOB,
    sum BLOB NOT NULL,
    key BLOB NOT NULL,
    text BLOB NOT NULL
);
CREATE INDEX poems_by_digest ON poems (digest);
CREATE INDEX poems_by_original ON poems (original) WHERE original IS NOT NULL;
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

pub(super) struct Database {
    connection: Connection,
    wal: PathBuf,
    bounds: Bounds,
    marks: Marks,
    /// What texts up to this id were made from is to be transformed again.
    unusable: i64,
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
            unusable: 0,
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

/// A reading in three columns from this one on.
fn reading(row: &Row<'_>, at: usize) -> rusqlite::Result<ClockReading> {
    Ok(ClockReading {
        boot: row.get(at)?,
        boot_ms: row.get(at + 1)?,
        wall_ms: row.get(at + 2)?,
    })
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
