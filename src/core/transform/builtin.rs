//! The built-in transformations of text.

use crate::error::Error;
use crate::poem::packed;
use bytes::Bytes;
use std::fmt;
use std::io::Write;

/// A transformation built into this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Lower case throughout, as E. E. Cummings liked it; Unicode's default mapping.
    Cummingsify,
    /// Upper case throughout; Unicode's default mapping.
    Shout,
    /// Shifts the letters A to Z by 13 places. Twice gives the original.
    Rot13,
    /// Puts its number before each line.
    Number,
    /// Puts the lines in reverse order.
    Reverse,
}

impl Builtin {
    /// All of them, in the order they are listed.
    pub(crate) const ALL: [Builtin; 5] = [
        Builtin::Cummingsify,
        Builtin::Shout,
        Builtin::Rot13,
        Builtin::Number,
        Builtin::Reverse,
    ];

    /// The transformation of this name, if there is one.
    pub(crate) fn named(name: &str) -> Option<Builtin> {
        Builtin::ALL
            .into_iter()
            .find(|builtin| builtin.name() == name)
    }

    /// The name in requests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Builtin::Cummingsify => "cummingsify",
            Builtin::Shout => "shout",
            Builtin::Rot13 => "rot13",
            Builtin::Number => "number",
            Builtin::Reverse => "reverse",
        }
    }

    /// What it does, in a few words.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Builtin::Cummingsify => "lower case throughout, as e. e. cummings liked it",
            Builtin::Shout => "UPPER CASE THROUGHOUT",
            Builtin::Rot13 => "letters shifted by 13 places; twice gives the original",
            Builtin::Number => "a number before each line",
            Builtin::Reverse => "the lines in reverse order",
        }
    }

    /// Transforms a poem, which must be text. Stops once the result exceeds `limit`
    /// bytes: the most that is ever made is the limit and the result of one piece.
    ///
    /// # Errors
    /// [`Error::Transform`] if the poem is not UTF-8, [`Error::TooLong`].
    pub(crate) fn apply(self, poem: &[u8], limit: u64) -> Result<Bytes, Error> {
        let text = std::str::from_utf8(poem).map_err(|e| Error::Transform {
            subject: self.name().to_string(),
            why: format!("not UTF-8 text from byte {} on", e.valid_up_to()),
        })?;

        let result = match self {
            Builtin::Cummingsify => lower(text, limit),
            Builtin::Shout => map(pieces(text, |_| true), str::to_uppercase, limit),
            Builtin::Rot13 => fits(text.len(), limit).map(|_| text.bytes().map(rot13).collect()),
            Builtin::Number => number(text, limit),
            Builtin::Reverse => fits(text.len(), limit).map(|_| reverse(text)),
        };
        result.map(packed).ok_or_else(|| Error::TooLong {
            subject: self.name().to_string(),
            limit,
        })
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The length, if it is within the limit.
fn fits(bytes: usize, limit: u64) -> Option<usize> {
    (bytes as u64 <= limit).then_some(bytes)
}

/// Only the lower case of sigma depends on the characters around it: it has another
/// form at the end of a word. So if there is a sigma, pieces end between words.
fn lower(text: &str, limit: u64) -> Option<Vec<u8>> {
    let has_sigma = text.contains('Σ');
    let may_end = |c| !has_sigma || c == ' ' || c == '\n';
    map(pieces(text, may_end), str::to_lowercase, limit)
}

/// Bytes of text mapped in one go. A result over the limit is noticed after one piece
/// more.
const PIECE_BYTES: usize = 64 << 10;

/// Splits a text into pieces. Each ends at the first character after [`PIECE_BYTES`]
/// bytes for which `may_end` is true.
fn pieces(text: &str, may_end: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = (PIECE_BYTES..rest.len())
            .find(|at| rest.is_char_boundary(*at))
            .unwrap_or(rest.len());
        let last = rest[from..].char_indices().find(|(_, c)| may_end(*c));
        let end = last.map_or(rest.len(), |(at, c)| from + at + c.len_utf8());

        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Maps all pieces; `None` if the result exceeds the limit.
fn map<'a>(
    pieces: impl Iterator<Item = &'a str>,
    image: impl Fn(&str) -> String,
    limit: u64,
) -> Option<Vec<u8>> {
    let mut result = Vec::new();
    for piece in pieces {
        let image = image(piece);
        fits(result.len() + image.len(), limit)?;
        result.extend_from_slice(image.as_bytes());
    }
    Some(result)
}

/// Works on bytes: in UTF-8, an ASCII letter is a single byte and never a part of
/// another character.
fn rot13(byte: u8) -> u8 {
    let turned = |first: u8| first + (byte - first + 13) % 26;
    match byte {
        b'a'..=b'z' => turned(b'a'),
        b'A'..=b'Z' => turned(b'A'),
        other => other,
    }
}

/// Puts a number and two spaces before each line. All numbers are as wide as the last.
/// That can make eleven bytes of one, so the length is computed first.
fn number(text: &str, limit: u64) -> Option<Vec<u8>> {
    let lines = || text.split_inclusive('\n');
    let count = lines().count();
    let width = count.to_string().len();
    let more = (width + 2).checked_mul(count)?;
    let length = fits(text.len().checked_add(more)?, limit)?;

    let mut result = Vec::with_capacity(length);
    for (at, line) in lines().enumerate() {
        write!(result, "{:width$}  {line}", at + 1).expect("writing to memory can't fail");
    }
    Some(result)
}

/// Reverses the lines. A line and its end, LF or CRLF, stay together, as in tac(1). If
/// the last line has no end, the ends stay between the lines, so that no two are
/// joined.
fn reverse(text: &str) -> Vec<u8> {
    let is_ended = text.ends_with('\n');
    let mut result = Vec::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').rev().map(split_end).peekable();

    while let Some((line, own)) = lines.next() {
        let between = lines.peek().map_or("", |(_, end)| end);
        let end = if is_ended { own } else { between };

        result.extend_from_slice(line.as_bytes());
        result.extend_from_slice(end.as_bytes());
    }
    result
}

/// A line without its end, and the end: LF, CRLF or nothing.
fn split_end(line: &str) -> (&str, &str) {
    let text = line.strip_suffix('\n').unwrap_or(line);
    let text = match text.strip_suffix('\r') {
        Some(shorter) if text.len() < line.len() => shorter,
        _ => text,
    };
    line.split_at(text.len())
}

#[cfg(test)]
mod tests;
