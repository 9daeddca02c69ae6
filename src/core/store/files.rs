//! The files of a store: PATH, the database; PATH-wal and PATH-shm, which SQLite keeps
//! beside it; PATH.lock, which tells that a process uses it; PATH.damaged, what was put
//! aside.
//!
//! | PATH | what is done |
//! |---|---|
//! | does not exist, or is empty | it is made |
//! | is ours | it is opened |
//! | is ours, of a newer format | it is left as it is |
//! | is damaged | it is put aside, and a new one is made |
//! | is anything else | it is refused: it may be of use to others |

use super::database::{APPLICATION_ID, FORMAT};
use crate::error::{Error, reason};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the header of the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// There is no file yet, or an empty one.
    New,
    /// Ours.
    Ours,
    /// Ours, of this newer format.
    Newer(i32),
    /// Ours, but the header is damaged.
    Damaged,
}

/// The path of a file beside the store's.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How long another process may hold the lock before that is an error. A program that
/// the last owner was starting when it ended holds the lock as well, from its fork to
/// its exec.
const LOCK_WAIT: Duration = Duration::from_millis(200);

/// The time between two tries.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// Locks the store for this process, for as long as the result lives. SQLite would let
/// a second one in.
///
/// # Errors
/// [`Error::Local`] if another process has it, or the file can't be made.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let lock = beside(path, ".lock");
    let file = options().open(&lock);
    let file = file.map_err(|error| {
        if folder_of(path).is_some_and(|folder| !folder.exists()) {
            return local(path, "its folder does not exist".into());
        }
        local(&lock, reason(&error))
    })?;

    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(local(&lock, reason(&error))),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_LOOK);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(local(path, "in use by another process".into()));
            }
        }
    }
}

/// The folder that a path names; `None` for a bare file name.
fn folder_of(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
}

/// New files can be read by their owner alone: they hold what clients are sent.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

/// Refuses what is there and no store's, before a lock is left beside it. To open a
/// pipe would take for ever.
///
/// # Errors
/// [`Error::Local`] if it is a folder, a device, a pipe or another file, or can't be
/// looked at.
pub(super) fn refuse_others(path: &Path) -> Result<(), Error> {
    let kind = match std::fs::metadata(path) {
        Ok(there) => there.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(local(path, reason(&error))),
    };
    if kind.is_dir() {
        return Err(local(path, "a folder; --store wants a file".into()));
    }
    if !kind.is_file() {
        let why = "a device or a pipe; --store wants a file";
        return Err(local(path, why.into()));
    }
    look(path).map(drop)
}

/// Looks at the header, and makes the file if there is none.
///
/// # Errors
/// [`Error::Local`] if it can't be read or made, or is something else.
pub(super) fn look(path: &Path) -> Result<Looks, Error> {
    let refuse = |why: &str| Err(local(path, why.into()));
    let file = options().open(path);
    let mut file = file.map_err(|error| local(path, reason(&error)))?;

    let mut header = Vec::new();
    let read = file.by_ref().take(100).read_to_end(&mut header);
    read.map_err(|error| local(path, reason(&error)))?;
    if header.is_empty() {
        return Ok(Looks::New);
    }

    let number = |at: usize| {
        let bytes: Option<&[u8; 4]> = header.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| i32::from_be_bytes(*bytes))
    };
    let is_database = header.starts_with(b"SQLite format 3\0");
    let is_ours = number(68) == Some(APPLICATION_ID);
    match (is_database, is_ours, number(60)) {
        (true, true, Some(format)) if format > FORMAT => Ok(Looks::Newer(format)),
        (true, true, Some(FORMAT)) => Ok(Looks::Ours),
        // One of the two marks is left, or the file is cut off behind the first.
        (_, true, _) | (true, _, None) => Ok(Looks::Damaged),
        (true, false, Some(_)) => refuse("a database of another program"),
        (false, false, _) => refuse("not a store: --store never overwrites other files"),
    }
}

/// Puts a damaged store aside, where one before it is replaced. The database goes
/// first: SQLite deletes a log without its database, but would mix one with another.
pub(super) fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    std::fs::rename(path, &aside)?;

    let wal = std::fs::rename(beside(path, "-wal"), beside(&aside, "-wal"));
    if wal.is_err() {
        remove(&beside(path, "-wal"))?;
    }
    remove(&beside(path, "-shm"))?;
    Ok(aside)
}

/// Deletes a store, whatever is in it.
pub(super) fn delete(path: &Path) -> std::io::Result<()> {
    remove(path)?;
    remove(&beside(path, "-wal"))?;
    remove(&beside(path, "-shm"))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn local(path: &Path, why: String) -> Error {
    Error::Local {
        subject: path.display().to_string(),
        why,
    }
}
