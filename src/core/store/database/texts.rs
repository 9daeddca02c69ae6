//! The texts in the file: one row each.

use super::{Database, Done, Fault, add_reading, half, reading};
use crate::poem::Poem;
use crate::store::age::ClockReading;
use crate::store::bounds::Bounds;
use crate::tier::OriginalDigest;
use rusqlite::{OptionalExtension, Row, params};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Rows that are evicted in one step where one text needs the room of many.
pub(super) const EVICTED_AT_ONCE: u64 = 16;

/// A text, without its bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct RowHead {
    pub id: i64,
    pub ended: ClockReading,
    /// How long it is fresh, where that is not the usual ttl.
    pub ttl: Option<Duration>,
    /// The digest of its original, where it was transformed.
    original: Option<OriginalDigest>,
    sum: [u8; 16],
}

/// A text to be written.
#[derive(Debug)]
pub(in crate::store) struct NewRow {
    pub key: Vec<u8>,
    /// The digest of its original, where it was transformed.
    pub original: Option<OriginalDigest>,
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

impl Database {
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
        let sql = "SELECT id, boot, boot_ms, wall_ms, sum, ttl_ms, original FROM poems \
                   WHERE id <= ?1 AND id > ?2 ORDER BY id DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([id, after], head).optional()?)
    }

    /// The text of a key, without its bytes.
    pub fn find(&self, key: &[u8]) -> Done<Option<RowHead>> {
        let sql = "SELECT id, boot, boot_ms, wall_ms, sum, ttl_ms, original FROM poems \
                   WHERE digest = ?1 AND key = ?2 AND id > ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = statement.query_row(params![digest(key), key, self.marks.gone], head);
        Ok(row.optional()?)
    }

    /// The newest text that was made from this original and not purged, with its key.
    pub fn find_made_from(&self, original: &OriginalDigest) -> Done<Option<(RowHead, Vec<u8>)>> {
        let sql = "SELECT id, boot, boot_ms, wall_ms, sum, ttl_ms, original, key FROM poems \
                   WHERE original = ?1 AND id > ?2 ORDER BY id DESC LIMIT 1";
        let purged = self.marks.gone.max(self.marks.stale).max(self.unusable);
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = statement.query_row(params![original, purged], |row| {
            Ok((head(row)?, row.get(7)?))
        });
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
        let text = text.filter(|text| head.sum_with(key, text) == head.sum);
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
        let head = RowHead {
            id,
            ended: row.ended,
            ttl: ttl_ms.map(|ms| Duration::from_millis(ms as u64)),
            original: row.original,
            sum: [0; 16],
        };
        let sum = head.sum_with(&row.key, &text);
        let sql = "INSERT INTO poems (id, digest, boot, boot_ms, wall_ms, sum, key, text, ttl_ms, \
                   original) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
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
            ttl_ms,
            row.original
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

    pub(super) fn evict(&mut self, many: u64) -> Done<u64> {
        let sql = "DELETE FROM poems WHERE id IN (SELECT id FROM poems ORDER BY id LIMIT ?1)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let evicted = statement.execute([many as i64])? as u64;
        self.rows = self.rows.saturating_sub(evicted);
        Ok(evicted)
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

    /// Deletes the texts whose keys are picked. It looks at all keys. The others stay,
    /// but what they were made from is transformed again: another may be of the same.
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
            database.unusable = database.last_id;
            Ok(())
        })
    }

    /// Deletes some rows that are purged. True if there may be more.
    pub fn sweep(&mut self) -> Done<bool> {
        let sql = "DELETE FROM poems WHERE id IN \
                   (SELECT id FROM poems WHERE id <= ?1 ORDER BY id LIMIT 256)";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.execute([self.marks.gone])? > 0)
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
        original: row.get(6)?,
    })
}

fn digest(key: &[u8]) -> [u8; 16] {
    half(Sha256::new_with_prefix(key))
}

impl RowHead {
    /// The sum of a row. It covers what tells its age, whether it is purged, and what
    /// it was made from, too.
    fn sum_with(&self, key: &[u8], text: &[u8]) -> [u8; 16] {
        let mut sum = Sha256::new();
        sum.update(self.id.to_be_bytes());
        add_reading(&mut sum, &self.ended);
        let ttl = self.ttl.map_or(u64::MAX, |ttl| ttl.as_millis() as u64);
        sum.update(ttl.to_be_bytes());
        let original = self.original.as_ref().map_or(&[][..], |original| original);
        for part in [original, key] {
            sum.update((part.len() as u64).to_be_bytes());
            sum.update(part);
        }
        sum.update(text);
        half(sum)
    }
}
