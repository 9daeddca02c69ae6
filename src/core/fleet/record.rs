//! The record of a text: what the server holds of it in one value.
//!
//! ```text
//! POEM1 GENERATION END LENGTH TOKEN SHA256 TTL KEYLENGTH\n
//! KEY BYTES
//! ```
//!
//! | field | |
//! |---|---|
//! | generation | purges of all texts before its fetch |
//! | end | when its fetch ended, by the server's clock, in milliseconds |
//! | length | of the text, in bytes, at least 1 |
//! | token | of the lease that it was fetched with: the text is in its pieces, or follows the key if there is a `=` before the token |
//! | SHA256 | of the text, 64 hexadecimal digits |
//! | ttl | its own, in milliseconds; `-`: it has none |
//! | key length | in bytes |
//!
//! The names are made of a digest of the key; the key itself decides. Anything that is
//! not just so is no record.

use super::hex;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The longest first line, with its end. Scripts read this much of a record to judge
/// it. It is 6 for the version, four numbers of at most 20 digits, a token, a digest,
/// and blanks.
pub(super) const HEAD_MOST: usize = 256;

/// The longest text that follows its key in the record. In a script a value is copied
/// several times, so longer ones are in pieces: 50 KB took 253 us, a pointer 43 us.
pub(super) const INLINE_MOST: usize = 8 << 10;

/// The longest token.
pub(super) const TOKEN_MOST: usize = 64;

/// What is known of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub generation: u64,
    /// When its fetch ended, in milliseconds of the server's clock.
    pub end: u64,
    pub text: TextMark,
    pub place: TextPlace,
    pub ttl: Option<Duration>,
}

/// What tells a text from all others: its length, and its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextMark {
    pub length: u64,
    pub digest: [u8; 32],
}

impl TextMark {
    pub fn of(text: &[u8]) -> TextMark {
        TextMark {
            length: text.len() as u64,
            digest: Sha256::digest(text).into(),
        }
    }
}

/// Where the bytes of a text are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TextPlace {
    /// In the record. It was fetched with this lease.
    Inline(String),
    /// In the pieces of this lease.
    Pieces(String),
}

impl Head {
    /// The first line after generation and end, which a script puts before it.
    pub fn rest(&self, key: &[u8]) -> String {
        let (mark, token) = match &self.place {
            TextPlace::Inline(token) => ("=", token),
            TextPlace::Pieces(token) => ("", token),
        };
        let ttl = match self.ttl {
            Some(ttl) => ttl.as_millis().to_string(),
            None => "-".into(),
        };
        let TextMark { length, digest } = &self.text;
        let digest = hex(digest);
        format!("{length} {mark}{token} {digest} {ttl} {}\n", key.len())
    }
}

/// A record that is what it says: the right key, and the right text where it has one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TextRecord<'a> {
    pub head: Head,
    /// The text, if it is inline.
    pub text: &'a [u8],
}

/// Reads a record of this key. `None`: it is none, or not of this key, or damaged.
pub(super) fn read<'a>(record: &'a [u8], key: &[u8]) -> Option<TextRecord<'a>> {
    let first = &record[..record.len().min(HEAD_MOST)];
    let line = first.split(|byte| *byte == b'\n').next()?;
    let after = record.get(line.len() + 1..)?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let mut word = || words.next();

    if word()? != "POEM1" {
        return None;
    }
    let generation = number(word()?)?;
    let end = number(word()?)?;
    let length = number(word()?).filter(|length| *length > 0)?;
    let place = match word()? {
        token if is_token(token) => TextPlace::Pieces(token.into()),
        other => {
            let token = other.strip_prefix('=').filter(|token| is_token(token))?;
            TextPlace::Inline(token.into())
        }
    };
    let digest = digest(word()?)?;
    let ttl = match word()? {
        "-" => None,
        ttl => Some(Duration::from_millis(number(ttl)?)),
    };
    let key_length = number(word()?)?;
    let is_over = word().is_none();

    let is_right_key = key_length == key.len() as u64 && after.starts_with(key);
    let text = after.get(key.len()..)?;
    let mark = TextMark { length, digest };
    let is_right_text = match place {
        TextPlace::Inline(_) => TextMark::of(text) == mark,
        TextPlace::Pieces(_) => text.is_empty(),
    };
    (is_over && is_right_key && is_right_text).then_some(TextRecord {
        head: Head {
            generation,
            end,
            text: mark,
            place,
            ttl,
        },
        text,
    })
}

/// A number as it is written here: digits, without zeros before them.
pub(super) fn number(text: &str) -> Option<u64> {
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

/// Whether this can be a token: it is put into names.
pub(super) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b':' || byte == b'.';
    !text.is_empty() && text.len() <= TOKEN_MOST && text.bytes().all(fits)
}

/// A SHA-256 in lower-case hexadecimal digits.
pub(super) fn digest(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(digest)
}

/// Checks for the fuzzer: reading any bytes never panics, and what is read can be
/// written again to the same bytes.
#[doc(hidden)]
pub fn check_record(record: &[u8], key: &[u8]) {
    if let Some(found) = read(record, key) {
        assert_eq!(write(&found.head, key, found.text), record);
    }
}

/// The whole record, as the script that keeps a text writes it.
fn write(head: &Head, key: &[u8], text: &[u8]) -> Vec<u8> {
    let line = format!("POEM1 {} {} {}", head.generation, head.end, head.rest(key));
    [line.as_bytes(), key, text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inline(text: &[u8]) -> Head {
        Head {
            generation: 3,
            end: 1_790_000_000_000,
            text: TextMark::of(text),
            place: TextPlace::Inline("1:a.1".into()),
            ttl: Some(Duration::from_secs(60)),
        }
    }

    #[test]
    fn whatever_differs_from_what_was_written_is_no_record() {
        let record = write(&inline(b"a poem"), b"key", b"a poem");
        assert_eq!(read(&record, b"key").unwrap().text, b"a poem");
        for other in [&b"kez"[..], b"ke", b"keya", b""] {
            assert_eq!(read(&record, other), None);
        }
        for at in 0..record.len() {
            assert_eq!(read(&record[..at], b"key"), None, "cut at {at}");
            for bit in 0..8 {
                let mut flipped = record.clone();
                flipped[at] ^= 1 << bit;
                if let Some(found) = read(&flipped, b"key") {
                    // Generation, end and ttl have no checksum: they are other numbers.
                    assert_eq!(found.text, b"a poem");
                }
            }
        }
    }

    #[test]
    fn the_longest_first_line_fits() {
        let head = Head {
            generation: u64::MAX,
            end: u64::MAX,
            text: TextMark {
                length: u64::MAX,
                digest: [255; 32],
            },
            place: TextPlace::Inline("x".repeat(TOKEN_MOST)),
            ttl: Some(Duration::from_millis(u64::MAX)),
        };
        let record = write(&head, b"", b"");
        assert!(record.len() <= HEAD_MOST, "{}", record.len());
        assert!(record.ends_with(b" 0\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            generation: u64,
            end: u64,
            key: Vec<u8>,
            text in proptest::collection::vec(any::<u8>(), 1..64),
            ttl: Option<u64>,
            token in "[0-9]{1,4}:[0-9a-f]{16}[.][0-9]{1,9}",
            is_inline: bool,
        ) {
            let place = if is_inline { TextPlace::Inline(token) } else { TextPlace::Pieces(token) };
            let ttl = ttl.map(Duration::from_millis);
            let head = Head { generation, end, text: TextMark::of(&text), place, ttl };
            let text = if is_inline { &text[..] } else { b"" };
            let record = write(&head, &key, text);
            prop_assert_eq!(read(&record, &key), Some(TextRecord { head, text }));
        }

        #[test]
        fn nothing_panics_and_what_is_read_is_what_was_written(
            mut record in proptest::collection::vec(any::<u8>(), 0..300),
            key in proptest::collection::vec(any::<u8>(), 0..4),
            is_marked: bool,
        ) {
            if is_marked {
                record.splice(0..0, *b"POEM1 0 1 1 =a ");
            }
            check_record(&record, &key);
        }
    }
}
