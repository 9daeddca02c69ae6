//! What happens to a feed beside its connection.

use std::fmt;

/// Something that the log tells of a feed. All of it is trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedNews {
    /// Readers were too slow, and lost lines.
    LinesLost {
        /// Lines lost since the last time this was told, those of all readers added up.
        lines: u64,
        /// Readers at this moment that have lost lines, now or before.
        readers: u64,
    },
    /// A line is too long for the backlog, and is left out. Told once a connection.
    LineTooLong {
        /// The longest line, in bytes.
        longest: u64,
    },
}

impl FeedNews {
    /// The one word for this in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            FeedNews::LinesLost { .. } => "lines_lost",
            FeedNews::LineTooLong { .. } => "line_too_long",
        }
    }
}

impl fmt::Display for FeedNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedNews::LinesLost { lines, readers } => {
                let line = if *lines == 1 { "line" } else { "lines" };
                match readers {
                    0 => write!(f, "{lines} {line} lost by readers that have left"),
                    1 => write!(f, "{lines} {line} lost by a slow reader"),
                    readers => write!(f, "{lines} {line} lost by {readers} slow readers"),
                }
            }
            FeedNews::LineTooLong { longest } => {
                write!(
                    f,
                    "no line end within {longest} bytes: the line is left out"
                )
            }
        }
    }
}
