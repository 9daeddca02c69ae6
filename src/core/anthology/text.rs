//! The bytes of a poem: in memory, or in a file that is read while it is sent.

use super::file::OpenFile;
use crate::budget::{Budget, Charge};
use crate::error::Error;
use crate::poem::{Poem, packed};
use crate::rt;
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// The longest file that is held in memory, in bytes.
pub(super) const IN_MEMORY: u64 = 1 << 20;

/// Bytes read from a file at once, for one client. Measured against a poem in memory:
/// 0.84 of its rate with 256 KiB, 0.92 with 512 KiB, 0.99 with 1 MiB.
pub(crate) const FULL_READ: usize = 1 << 20;

/// Bytes read at once for a client that is to get only a few, and while [`READ_AHEAD`]
/// is used up. The kernel takes this many from us at once.
const SMALL_READ: usize = 16 << 10;

/// What all clients of large files together may have left to take of what was read for
/// them, in bytes. Beyond this, files are read in small pieces.
const READ_AHEAD: u64 = 64 << 20;

/// The bytes of a poem.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    /// In memory.
    Held(Poem),
    /// In this file. Each reader opens it, and reads it as it is then.
    InFile(Arc<Path>),
}

impl<T: Into<Poem>> From<T> for Text {
    fn from(poem: T) -> Text {
        Text::Held(poem.into())
    }
}

impl Text {
    /// The text of this file.
    ///
    /// # Errors
    /// Why it can't be served: it can't be read, is no regular file, or is empty.
    pub(super) fn load(path: &Path) -> Result<Text, String> {
        let file = OpenFile::open(path)?;
        if file.left() > IN_MEMORY {
            return Ok(Text::InFile(path.into()));
        }

        let bytes = file.read_all(IN_MEMORY)?;
        if bytes.is_empty() {
            return Err("the file is empty; a poem has at least one byte".into());
        }
        Ok(packed(bytes).into())
    }

    /// Whether it can be read at this moment.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Text::Held(_) => true,
            Text::InFile(path) => OpenFile::open(path).is_ok(),
        }
    }
}

/// The memory for reading ahead. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ReadAhead(Budget);

impl Default for ReadAhead {
    fn default() -> ReadAhead {
        ReadAhead(Budget::new(READ_AHEAD))
    }
}

/// Reads a text from its first byte to its end.
#[derive(Debug)]
pub(crate) struct TextReader {
    /// Read, and not yet taken.
    ready: Bytes,
    rest: Rest,
}

/// What a reader has yet to read.
#[derive(Debug)]
enum Rest {
    Nothing,
    /// All of this file, which is not open yet.
    All(Arc<Path>, ReadAhead),
    /// What is left of an open file.
    Part(OpenFile, Arc<Path>, Buffers),
}

impl From<Poem> for TextReader {
    fn from(poem: Poem) -> TextReader {
        TextReader {
            ready: poem.bytes(),
            rest: Rest::Nothing,
        }
    }
}

impl TextReader {
    /// A reader of this text.
    pub(crate) fn new(text: Text, ahead: &ReadAhead) -> TextReader {
        match text {
            Text::Held(poem) => poem.into(),
            Text::InFile(path) => TextReader {
                ready: Bytes::new(),
                rest: Rest::All(path, ahead.clone()),
            },
        }
    }

    /// The next bytes, at most `most`; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Local`] if the file can't be read to the end it had when it was opened.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Option<Bytes>, Error> {
        if self.ready.is_empty() {
            self.read(most).await?;
        }

        let count = self.ready.len().min(most);
        Ok((count > 0).then(|| self.ready.split_to(count)))
    }

    /// Whether nothing is left.
    pub(crate) fn is_over(&self) -> bool {
        self.ready.is_empty() && matches!(self.rest, Rest::Nothing)
    }

    /// Reads the next piece of the file, which is opened first if it is not open.
    async fn read(&mut self, most: usize) -> Result<(), Error> {
        let (file, path, buffers) = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => return Ok(()),
            Rest::All(path, ahead) => {
                let file = open(path.clone()).await?;
                (file, path, Buffers::new(ahead))
            }
            Rest::Part(file, path, buffers) => (file, path, buffers),
        };

        let buffer = buffers.take(most, file.left());
        let (file, piece) = read(file, buffer, &path).await?;
        self.ready = Bytes::from_owner(piece);
        if file.left() > 0 {
            self.rest = Rest::Part(file, path, buffers);
        }
        Ok(())
    }
}

/// Opens a file that is not empty.
async fn open(path: Arc<Path>) -> Result<OpenFile, Error> {
    let at = path.clone();
    let opened = rt::unblock(move || OpenFile::open(&at)).await;

    let not_empty = opened.and_then(|file| {
        if file.left() > 0 {
            Ok(file)
        } else {
            Err("the file is empty".into())
        }
    });
    not_empty.map_err(|why| super::local(&path, why))
}

/// Reads the next piece: at once if the kernel holds it in memory, which costs as much
/// as sending it does, or else on a thread that may wait for the disk.
async fn read(
    mut file: OpenFile,
    mut piece: Buffer,
    path: &Path,
) -> Result<(OpenFile, Buffer), Error> {
    if let Some(count) = file.read_cached(&mut piece.bytes) {
        piece.filled = count;
        return Ok((file, piece));
    }

    let work = move || {
        piece.filled = file.read(&mut piece.bytes)?;
        Ok((file, piece))
    };
    rt::unblock(work)
        .await
        .map_err(|why| super::local(path, why))
}

/// The buffers of one reader. A buffer is used again once its bytes have been taken,
/// while its memory is still in the processor's cache.
#[derive(Debug, Clone)]
struct Buffers {
    ahead: ReadAhead,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer in use, returned when it is dropped.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    buffers: Buffers,
    _charge: Charge,
}

impl Buffers {
    fn new(ahead: ReadAhead) -> Buffers {
        Buffers {
            ahead,
            free: Arc::default(),
        }
    }

    /// A buffer for a reader that takes `most` bytes at a time, and has `left` to read.
    fn take(&self, most: usize, left: u64) -> Buffer {
        let mut charge = self.ahead.0.for_request(0);
        let is_full = most > SMALL_READ && charge.grow(FULL_READ as u64).is_ok();
        let (length, charge) = if is_full {
            (FULL_READ, charge)
        } else {
            (SMALL_READ, self.ahead.0.for_request(0))
        };

        let free = self.free().pop().filter(|bytes| bytes.len() == length);
        let length = usize::try_from(left).map_or(length, |left| left.min(length));
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; length]),
            filled: 0,
            buffers: self.clone(),
            _charge: charge,
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.buffers.free().push(bytes);
    }
}
