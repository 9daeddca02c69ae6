//! A poem's file. Only regular files are read: a device or a FIFO may have no end.

use crate::error::reason;
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// An open file, of which as many bytes are read as it had when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    /// The offset of the next byte.
    at: u64,
    len: u64,
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
            file,
            at: 0,
            len: metadata.len(),
        })
    }

    /// Bytes that are left to read.
    pub(super) fn left(&self) -> u64 {
        self.len - self.at
    }

    /// Reads all of a file, whatever length it claims: those in /proc claim none.
    ///
    /// # Errors
    /// The system's reason, or that the file has more than `limit` bytes.
    pub(super) fn read_all(self, limit: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut file = self.file.take(limit + 1);
        file.read_to_end(&mut bytes).map_err(|e| reason(&e))?;

        if bytes.len() as u64 > limit {
            return Err("the file grew while it was read".into());
        }
        Ok(bytes)
    }

    /// Fills `buffer`, or the beginning of it with all that is left. Returns the number
    /// of bytes.
    ///
    /// # Errors
    /// The system's reason, or that the file has become shorter.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        let buffer = self.fitting(buffer);
        let read = self.file.read_exact_at(buffer, self.at);
        read.map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => "the file became shorter while it was sent".into(),
            _ => reason(&e),
        })?;

        self.at += buffer.len() as u64;
        Ok(buffer.len())
    }

    /// Reads at most what the kernel holds in memory, so it never waits for a disk.
    /// `None` if that is nothing, or if the filesystem can't tell.
    pub(super) fn read_cached(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let buffer = self.fitting(buffer);
        let read = pread_cached(&self.file, buffer, self.at);
        let count = read.ok().filter(|count| *count > 0)?;

        self.at += count as u64;
        Some(count)
    }

    /// The part of `buffer` that can be filled with what is left.
    fn fitting<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        &mut buffer[..count]
    }
}

#[cfg(target_os = "linux")]
fn pread_cached(file: &File, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut buffer = [io::IoSliceMut::new(buffer)];
    preadv2(file, &mut buffer, at, ReadWriteFlags::NOWAIT)
}

#[cfg(not(target_os = "linux"))]
fn pread_cached(_: &File, _: &mut [u8], _: u64) -> rustix::io::Result<usize> {
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
