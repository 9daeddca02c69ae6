//! What happens to a store of texts.

use std::fmt;

/// Something changed about a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreNews {
    /// It is open, and this is in it.
    Opened {
        /// Texts.
        texts: u64,
        /// Bytes in use.
        bytes: u64,
        /// Texts that are past their ttl.
        past: u64,
    },
    /// Its file was damaged: it was put aside, and a new one is used.
    Damaged {
        /// The path of the damaged file.
        aside: String,
    },
    /// One text was damaged, and was deleted.
    DamagedText,
    /// A newer version has written the file. It is left as it is, and not used.
    Newer,
    /// It can't be written. Texts are served, and not kept over a restart.
    Unwritable {
        /// Why.
        why: String,
    },
    /// Another program holds it, so that it can't be written.
    Held,
    /// It can be written again.
    Writable,
    /// Texts are not written because too much waits to be.
    QueueFull,
    /// A purge could not be written, so all texts were deleted.
    Discarded {
        /// Why it could not.
        why: String,
    },
    /// It can't be used any more, or at all.
    Off {
        /// Why.
        why: String,
    },
}

impl StoreNews {
    /// The one word for this in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            StoreNews::Opened { .. } => "store_open",
            StoreNews::Damaged { .. } => "store_damaged",
            StoreNews::DamagedText => "store_damaged_text",
            StoreNews::Newer => "store_newer",
            StoreNews::Unwritable { .. } => "store_unwritable",
            StoreNews::Held => "store_held",
            StoreNews::Writable => "store_writable",
            StoreNews::QueueFull => "store_queue_full",
            StoreNews::Discarded { .. } => "store_discarded",
            StoreNews::Off { .. } => "store_off",
        }
    }

    /// Why, where the system gave a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            StoreNews::Unwritable { why }
            | StoreNews::Discarded { why }
            | StoreNews::Off { why } => Some(why),
            _ => None,
        }
    }

    /// Whether something went wrong.
    pub fn is_trouble(&self) -> bool {
        !matches!(self, StoreNews::Opened { .. } | StoreNews::Writable)
    }
}

impl fmt::Display for StoreNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreNews::Opened { texts, bytes, past } => {
                write!(f, "{texts} poems, {bytes} bytes, {past} past their ttl")
            }
            StoreNews::Damaged { aside } => {
                write!(f, "damaged; put aside as {aside}, starting cold")
            }
            StoreNews::DamagedText => f.write_str("a damaged poem was deleted"),
            StoreNews::Newer => f.write_str(
                "written by a newer version: not used and left as it is; \
                 nothing is kept over a restart",
            ),
            StoreNews::Unwritable { why } => {
                write!(
                    f,
                    "not written: {why}; new poems are not kept over a restart"
                )
            }
            StoreNews::Held => f.write_str(
                "not written: another program holds it open; \
                 new poems are not kept over a restart",
            ),
            StoreNews::Writable => f.write_str("written again"),
            StoreNews::QueueFull => {
                f.write_str("too slow, or a poem too long: not kept over a restart")
            }
            StoreNews::Discarded { why } => {
                write!(
                    f,
                    "a purge could not be written: {why}; all its poems were deleted"
                )
            }
            StoreNews::Off { why } => write!(f, "not used: {why}; nothing is kept over a restart"),
        }
    }
}
