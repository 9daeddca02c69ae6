//! What a whole answer ends with, where its server always sends the same end.
//!
//! | the answer | without a marker | with a marker |
//! |---|---|---|
//! | ends cleanly, and in the marker | whole | whole |
//! | ends cleanly, and not in it | whole | a part |
//! | is reset after the marker | a part | whole |
//! | is reset before it | a part | a part |
//! | is silent for the idle timeout, after the marker | a part | whole |
//! | has no byte, and ends cleanly | none; whole where that is allowed | the same, but whole only if the marker matches it |
//!
//! A line in the middle of a text may look like its end. So a marker is looked for only
//! once the connection has ended, or is silent, and never ends it.

use regex::bytes::{Regex, RegexBuilder};
use std::str::FromStr;
use std::sync::Arc;

/// A marker is looked for in this many bytes at the end of an answer. They are held
/// beside the answer, whose beginning may be gone by then.
pub const MARKER_BYTES: usize = 4 << 10;

/// Bytes before these that a marker sees and can't match: one character, so that `^`
/// and `\b` know what is before them.
const CONTEXT_BYTES: usize = 4;

/// The longest pattern, in bytes, and the most memory of a compiled one. It runs on the
/// thread that serves clients, where 4 KiB take it some milliseconds at the worst.
const PATTERN_BYTES: usize = 1 << 10;
const COMPILED_BYTES: usize = 128 << 10;

/// The lone dot of gopher (RFC 1436, section 3.1). Some servers end it with LF alone.
const GOPHER: &str = r"(?m:^)\.\r?\n";

/// What a whole answer ends with.
#[derive(Debug, Clone)]
pub struct EndMarker {
    pattern: Arc<Regex>,
}

/// Why a text is no marker. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted a regular expression like '\\r\\n%END\\r\\n', or gopher")]
pub struct BadMarker(String);

impl FromStr for EndMarker {
    type Err = BadMarker;

    /// Takes a regular expression for bytes, or `gopher` for a lone dot.
    fn from_str(text: &str) -> Result<EndMarker, BadMarker> {
        let text = if text == "gopher" { GOPHER } else { text };
        if text.len() > PATTERN_BYTES {
            let why = format!("longer than {PATTERN_BYTES} bytes");
            return Err(BadMarker(why));
        }

        compile(text)?; // by itself: what closes no group of its own must not close ours
        let pattern = compile(&format!(r"(?:{text})\z"))?;
        if (0..=u8::MAX).all(|byte| pattern.is_match(&[byte])) {
            let why = "every answer ends in it, also one that is cut off";
            return Err(BadMarker(why.into()));
        }
        Ok(EndMarker {
            pattern: pattern.into(),
        })
    }
}

fn compile(pattern: &str) -> Result<Regex, BadMarker> {
    let built = RegexBuilder::new(pattern)
        .unicode(false) // an answer is bytes
        .size_limit(COMPILED_BYTES)
        .build();
    built.map_err(|error| {
        let error = error.to_string();
        // The lines above the last one repeat the pattern and mark the place.
        let why = error.lines().last().unwrap_or_default();
        BadMarker(why.strip_prefix("error: ").unwrap_or(why).into())
    })
}

impl EndMarker {
    /// Whether a text ends in the marker. Only its last [`MARKER_BYTES`] are matched.
    pub fn ends(&self, text: &[u8]) -> bool {
        let start = text.len().saturating_sub(MARKER_BYTES);
        self.pattern.is_match_at(text, start)
    }
}

/// Which ends make an answer whole, in the protocols without framing.
#[derive(Debug, Clone, Default)]
pub struct EndRule {
    /// What each whole answer ends with. `None`: only the end of the connection tells.
    pub marker: Option<EndMarker>,
    /// Whether an answer may have no byte.
    pub allow_empty: bool,
}

/// The rule of a server of which nothing is known.
pub static CLEAN_END: EndRule = EndRule {
    marker: None,
    allow_empty: false,
};

impl EndRule {
    /// Whether a clean end after this text makes it a whole answer.
    pub fn is_whole(&self, text: &[u8]) -> bool {
        if text.is_empty() && !self.allow_empty {
            return false;
        }
        self.marker.as_ref().is_none_or(|marker| marker.ends(text))
    }
}

/// The end of an answer so far, as far as a marker needs it.
#[derive(Debug, Default)]
pub(super) struct AnswerTail {
    bytes: Vec<u8>,
}

impl AnswerTail {
    const MOST: usize = CONTEXT_BYTES + MARKER_BYTES;

    pub(super) fn push(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(Self::MOST)..];
        let excess = (self.bytes.len() + more.len()).saturating_sub(Self::MOST);
        self.bytes.drain(..excess);
        self.bytes.extend_from_slice(more);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(text: &str) -> EndMarker {
        text.parse().expect(text)
    }

    #[test]
    fn gopher_ends_in_a_lone_dot() {
        let gopher = marker("gopher");
        for whole in [
            &b"0a\tb\tc\t70\r\n.\r\n"[..],
            b".\r\n",
            b".\n",
            b"\n.\n",
            b"\xff\n.\r\n",
        ] {
            assert!(gopher.ends(whole), "{whole:?}");
        }
        for part in [
            &b""[..],
            b".",
            b"a\r\n.",
            b"the end.\r\n",
            b"..\r\n",
            b".\r\nmore",
            b".\r\n\r\n",
            b".\r\r\n",
        ] {
            assert!(!gopher.ends(part), "{part:?}");
        }
    }

    #[test]
    fn a_marker_is_matched_at_the_end_and_in_bytes() {
        assert!(marker("END").ends(b"the END"));
        assert!(!marker("END").ends(b"the END\n"));
        assert!(marker("a|b").ends(b"xa"));
        assert!(!marker("a|b").ends(b"ax"), "each branch at the end");
        assert!(marker(r"\xff.").ends(b"\xff\xfe"));
        assert!(marker(r"(?m)^END$").ends(b"the\nEND"));
        assert!(marker(r"\A\z|END").ends(b""));
    }

    #[test]
    fn what_is_no_marker_says_why() {
        for (text, why) in [
            ("", "every answer ends in it"),
            ("x*", "every answer ends in it"),
            ("$", "every answer ends in it"),
            ("(?s).", "every answer ends in it"),
            ("a)|(b", "unopened group"),
            ("(", "unclosed group"),
            (&"x".repeat(PATTERN_BYTES + 1), "longer than 1024 bytes"),
            ("(?:x{1000}){1000}", "Compiled regex exceeds size limit"),
        ] {
            let error = text.parse::<EndMarker>().expect_err(text).to_string();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(error.ends_with(r"'\r\n%END\r\n', or gopher"), "{error}");
        }
    }

    #[test]
    fn a_marker_takes_at_most_the_last_bytes_and_sees_what_is_before() {
        let text = |length: usize| [vec![b'x'; length], b"y".to_vec()].concat();
        let long = marker(r"zx{400}x{400}x{400}x{400}x{400}x{400}x{400}x{400}x{400}x{400}y");
        let zs = |length: usize| [b"z".to_vec(), text(length)].concat();
        assert!(long.ends(&zs(4000)));

        let begin = marker(r"\Ax*y");
        assert!(begin.ends(&text(MARKER_BYTES - 1)));
        assert!(!begin.ends(&text(MARKER_BYTES)), "the beginning is too far");
        let line = marker(r"(?m:^)x*y");
        assert!(!line.ends(&text(MARKER_BYTES)));
        let word = marker(r"\bx*y");
        assert!(!word.ends(&text(MARKER_BYTES)));
    }

    #[test]
    fn a_tail_is_the_end_of_what_was_pushed() {
        let all: Vec<u8> = (0..3 * AnswerTail::MOST)
            .map(|at| (at % 251) as u8)
            .collect();
        for size in [1, 3, 1000, 4096, 4100, 4101, 9000, all.len()] {
            let mut tail = AnswerTail::default();
            for (at, part) in all.chunks(size).enumerate() {
                tail.push(part);
                let until = all.len().min((at + 1) * size);
                let from = until.saturating_sub(AnswerTail::MOST);
                assert_eq!(tail.bytes(), &all[from..until], "by {size}");
            }
        }
    }

    #[test]
    fn an_empty_answer_is_whole_only_where_that_is_allowed() {
        let rule = |marker: Option<&str>, allow_empty| EndRule {
            marker: marker.map(|text| text.parse().expect(text)),
            allow_empty,
        };
        assert!(!CLEAN_END.is_whole(b""));
        assert!(CLEAN_END.is_whole(b"x"));
        assert!(rule(None, true).is_whole(b""));
        assert!(!rule(Some("END"), true).is_whole(b""));
        assert!(rule(Some(r"\A\z|END"), true).is_whole(b""));
        assert!(!rule(Some(r"\A\z|END"), false).is_whole(b""));
        assert!(!rule(Some("END"), true).is_whole(b"part"));
    }
}
