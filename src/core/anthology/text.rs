//! The bytes of a poem: in memory, or in a file that is read while it is sent.

use super::file::OpenFile;
use super::pull::{AtOnce, FileReader, LastPieces};
use crate::flight::Reader;
use crate::poem::{Poem, packed};
use std::path::Path;
use std::sync::Arc;

/// The longest file that is held in memory, in bytes.
const IN_MEMORY: u64 = 1 << 20;

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
        if file.len > IN_MEMORY {
            return Ok(Text::InFile(path.into()));
        }

        let bytes = file.read_all(IN_MEMORY)?;
        if bytes.is_empty() {
            return Err("the file is empty; a poem has at least one byte".into());
        }
        Ok(packed(bytes).into())
    }

    /// A reader of this text. All that read files share `pieces`.
    pub(crate) fn reader(self, pieces: &LastPieces, at_once: AtOnce) -> Reader {
        match self {
            Text::Held(poem) => Reader::of(poem),
            Text::InFile(path) => {
                let file = FileReader::new(path, pieces.clone(), at_once);
                Reader::pulling(Box::new(file))
            }
        }
    }

    /// Whether it can be read at this moment.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Text::Held(_) => true,
            Text::InFile(path) => OpenFile::open(path).is_ok(),
        }
    }
}
