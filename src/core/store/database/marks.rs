//! What is known of all texts at once: which are purged, and the latest time that was
//! noted. It is one row of the file, with a sum of its own.

use super::{Database, Done, Fault, add_reading, half, reading};
use crate::store::age::ClockReading;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

/// What is known of all texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Marks {
    /// Texts up to this id are purged.
    pub gone: i64,
    /// Texts up to this id were purged softly, at `stale_at`.
    pub stale: i64,
    pub stale_at: ClockReading,
    /// The latest wall clock time that was ever noted.
    pub latest: i64,
}

impl Marks {
    pub(super) fn none(now: &ClockReading) -> Marks {
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

impl Database {
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

    pub(super) fn write_marks(&self) -> Done<()> {
        write_marks(&self.connection, &self.marks)
    }
}

pub(super) fn write_marks(connection: &Connection, marks: &Marks) -> Done<()> {
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

pub(super) fn read_marks(connection: &Connection) -> Done<Marks> {
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
