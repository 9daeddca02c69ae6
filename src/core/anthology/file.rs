//! A poem's file. Only regular files are read: a device or a FIFO may have no end.

use crate::error::reason;
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

/// An open file, of which as many bytes are read as it had when it was opened. Clones
/// share the descriptor.
#[derive(Debug, Clone)]
pub(super) struct OpenFile {
    file: Arc<File>,
    /// Its length when it was opened, in bytes.
    pub(super) len: u64,
}

impl OpenFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// The system's reason, or what this is instead.
    pub(super) fn open(path: &Path) -> Result<OpenFile, String> {
        // Checked before it is opened, because opening some devices has effects, and
        // once more after that, because it may have been replaced. NONBLOCK, because
        // opening a FIFO waits for its writer.
        let metadata = std::fs::metadata(path).map_err(|e| reason(&e))?;
        check(&metadata)?;

        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(opened.map_err(|e| reason(&e.into()))?);

        let metadata = file.metadata().map_err(|e| reason(&e))?;
        check(&metadata)?;
        Ok(OpenFile {
            file: Arc::new(file),
            len: metadata.len(),
        })
    }

    /// Reads all of a file, whatever length it claims: those in /proc claim none.
    ///
    /// # Errors
    /// The system's reason, or that the file has more than `limit` bytes.
    pub(super) fn read_all(&self, limit: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = (&*self.file).take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|e| reason(&e))?;

        if bytes.len() as u64 > limit {
            return Err("the file grew while it was read".into());
        }
        Ok(bytes)
    }

    /// Reads from offset `at`, until `buffer` is full or the file is at its end.
    /// Returns the number of bytes.
    ///
    /// # Errors
    /// The system's reason, or that the file has become shorter.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, String> {
        let buffer = self.part_to_fill(at, buffer);
        let read = self.file.read_exact_at(buffer, at);
        read.map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => "the file became shorter while it was sent".into(),
            _ => reason(&e),
        })?;
        Ok(buffer.len())
    }

    /// Reads from offset `at` what the kernel holds in memory, at most `buffer`'s
    /// length, so it never waits for a disk. `None` if that is nothing, or if the
    /// filesystem can't tell.
    pub(super) fn read_cached(&self, at: u64, buffer: &mut [u8]) -> Option<usize> {
        let buffer = self.part_to_fill(at, buffer);
        let read = read_cached(&self.file, buffer, at);
        read.ok().filter(|count| *count > 0)
    }

    fn part_to_fill<'a>(&self, at: u64, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let left = usize::try_from(self.len - at).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        &mut buffer[..count]
    }
}

#[cfg(target_os = "linux")]
fn read_cached(file: &File, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut buffer = [std::io::IoSliceMut::new(buffer)];
    preadv2(file, &mut buffer, at, ReadWriteFlags::NOWAIT)
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [u8], _: u64) -> rustix::io::Result<usize> {
    Err(rustix::io::Errno::NOSYS)
}

/// Refuses all but regular files.
fn check(metadata: &Metadata) -> Result<(), String> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(format!("{what} can't be served, only a regular file"))
}
