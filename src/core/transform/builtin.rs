//! The built-in transformations: a poem in, a poem out. `cummingsify` is the seed's; the others are its company.

use crate::error::Error;
use crate::poem::packed;
use bytes::Bytes;
use std::fmt;
use std::io::Write;

/// A transformation this program does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Lower case throughout, as E. E. Cummings liked it; Unicode's default mapping.
    Cummingsify,
    /// Upper case throughout; Unicode's default mapping.
    Shout,
    /// The letters A to Z turned by thirteen places; done twice, it is undone.
    Rot13,
    /// Every line behind its number.
    Number,
    /// The last line first.
    Reverse,
}

impl Builtin {
    /// All of them, in the order they are listed.
    pub const ALL: [Builtin; 5] = [
        Builtin::Cummingsify,
        Builtin::Shout,
        Builtin::Rot13,
        Builtin::Number,
        Builtin::Reverse,
    ];

    /// The transformation of this name, if there is one.
    pub fn named(name: &str) -> Option<Builtin> {
        Builtin::ALL
            .into_iter()
            .find(|transform| transform.name() == name)
    }

    /// Its name, as a request gives it.
    pub fn name(self) -> &'static str {
        match self {
            Builtin::Cummingsify => "cummingsify",
            Builtin::Shout => "shout",
            Builtin::Rot13 => "rot13",
            Builtin::Number => "number",
            Builtin::Reverse => "reverse",
        }
    }

    /// What it does, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Builtin::Cummingsify => "lower case throughout, as e. e. cummings liked it",
            Builtin::Shout => "UPPER CASE THROUGHOUT",
            Builtin::Rot13 => "letters turned by thirteen places; twice is undone",
            Builtin::Number => "every line behind its number",
            Builtin::Reverse => "the last line first",
        }
    }

    /// The transformed poem, of at most `limit` bytes: no more than that, and what is about to be added, is ever made.
    /// All of these work on text.
    ///
    /// # Errors
    /// [`Error::Transform`] where the poem is not UTF-8, [`Error::TooLong`].
    pub fn apply(self, poem: &[u8], limit: u64) -> Result<Bytes, Error> {
        let text = std::str::from_utf8(poem).map_err(|e| Error::Transform {
            subject: self.name().to_string(),
            why: format!("not UTF-8 text from byte {} on", e.valid_up_to()),
        })?;
        let done = match self {
            Builtin::Cummingsify => {
                let has_sigma = text.contains('Σ');
                map(
                    pieces(text, |c| !has_sigma || c == ' ' || c == '\n'),
                    str::to_lowercase,
                    limit,
                )
            }
            Builtin::Shout => map(pieces(text, |_| true), str::to_uppercase, limit),
            Builtin::Rot13 => fits(text.len(), limit).map(|_| text.bytes().map(rot13).collect()),
            Builtin::Number => number(text, limit),
            Builtin::Reverse => fits(text.len(), limit).map(|_| reverse(text)),
        };
        let too_long = || Error::TooLong {
            subject: self.name().to_string(),
            limit,
        };
        done.map(packed).ok_or_else(too_long)
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn fits(bytes: usize, limit: u64) -> Option<usize> {
    (bytes as u64 <= limit).then_some(bytes)
}

/// How much of a text is mapped in one go: what is made beyond the limit is the image of a piece.
const PIECE: usize = 64 << 10;

/// The text in pieces, each as short as it may be behind [`PIECE`] bytes: it ends behind a character of which this is
/// true.
fn pieces(text: &str, may_end: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = (PIECE..rest.len())
            .find(|at| rest.is_char_boundary(*at))
            .unwrap_or(rest.len());
        let end = rest[from..].char_indices().find(|(_, c)| may_end(*c));
        let (piece, behind) =
            rest.split_at(end.map_or(rest.len(), |(at, c)| from + at + c.len_utf8()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The images of all pieces; nothing where they are longer than the limit. Only the lower case sigma depends on what is
/// around it (at the end of a word it has another form), so pieces in which there is one have to end between words.
fn map<'a>(
    pieces: impl Iterator<Item = &'a str>,
    image: impl Fn(&str) -> String,
    limit: u64,
) -> Option<Vec<u8>> {
    let mut done = Vec::new();
    for piece in pieces {
        let image = image(piece);
        fits(done.len() + image.len(), limit)?;
        done.extend_from_slice(image.as_bytes());
    }
    Some(done)
}

/// ASCII letters are single bytes in UTF-8, and no part of another character.
fn rot13(byte: u8) -> u8 {
    let turned = |first: u8| first + (byte - first + 13) % 26;
    match byte {
        b'a'..=b'z' => turned(b'a'),
        b'A'..=b'Z' => turned(b'A'),
        other => other,
    }
}

/// Numbers as wide as the last one needs, then two spaces. That can make eleven bytes of one, so how long it gets is
/// reckoned first.
fn number(text: &str, limit: u64) -> Option<Vec<u8>> {
    let lines = || text.split_inclusive('\n');
    let count = lines().count();
    let width = count.to_string().len();
    let more = (width + 2).checked_mul(count)?;
    let mut done = Vec::with_capacity(fits(text.len().checked_add(more)?, limit)?);
    for (at, line) in lines().enumerate() {
        write!(done, "{:width$}  {line}", at + 1).expect("memory takes what is written to it");
    }
    Some(done)
}

/// A final newline, or its absence, stays where it was: at the end.
fn reverse(text: &str) -> Vec<u8> {
    let mut done = Vec::with_capacity(text.len() + 1); // each line with a newline, the last one too
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.rsplit('\n') {
        done.extend_from_slice(line.as_bytes());
        done.push(b'\n');
    }
    done.truncate(text.len());
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(name: &str, text: &str) -> String {
        let done = Builtin::named(name)
            .expect(name)
            .apply(text.as_bytes(), u64::MAX)
            .expect(text);
        String::from_utf8(done.to_vec()).expect("text stays text")
    }

    #[test]
    fn each_transformation_does_what_it_says() {
        assert_eq!(apply("cummingsify", "HERE IS MY POEM"), "here is my poem");
        assert_eq!(apply("cummingsify", "ÀÉ ΣΊΣΥΦΟΣ"), "àé σίσυφος");
        assert_eq!(apply("shout", "straße"), "STRASSE");
        assert_eq!(apply("rot13", "Why? é"), "Jul? é");
        assert_eq!(apply("number", "a\nb\n"), "1  a\n2  b\n");
        assert_eq!(apply("reverse", "a\nb\nc\n"), "c\nb\na\n");
        assert_eq!(apply("reverse", "a\nb"), "b\na");
        assert_eq!(apply("reverse", ""), "");
    }

    #[test]
    fn numbers_are_as_wide_as_the_last_one() {
        let ten = "x\n".repeat(10);
        assert!(apply("number", &ten).starts_with(" 1  x\n 2  x\n"));
        assert!(apply("number", &ten).ends_with("\n10  x\n"));
    }

    #[test]
    fn what_is_not_text_is_refused_and_says_where() {
        let why = Builtin::Shout
            .apply(b"ab\xff", 1)
            .expect_err("not UTF-8")
            .to_string();
        assert_eq!(why, "shout: not UTF-8 text from byte 2 on");
    }

    /// The same, said as plainly as can be and with no eye on memory.
    fn plainly(transform: Builtin, text: &str) -> String {
        match transform {
            Builtin::Cummingsify => text.to_lowercase(),
            Builtin::Shout => text.to_uppercase(),
            Builtin::Rot13 => text
                .chars()
                .map(|c| match c {
                    'a'..='m' | 'A'..='M' => char::from(c as u8 + 13),
                    'n'..='z' | 'N'..='Z' => char::from(c as u8 - 13),
                    other => other,
                })
                .collect(),
            Builtin::Number => {
                let width = text.lines().count().to_string().len();
                let numbered = text.split_inclusive('\n').enumerate();
                numbered
                    .map(|(at, line)| format!("{:width$}  {line}", at + 1))
                    .collect()
            }
            Builtin::Reverse => {
                let body = text.strip_suffix('\n').unwrap_or(text);
                body.split('\n').rev().collect::<Vec<_>>().join("\n") + &text[body.len()..]
            }
        }
    }

    fn is_done_plainly(text: &str) {
        for transform in Builtin::ALL {
            let plain = plainly(transform, text);
            let apply = |limit: usize| transform.apply(text.as_bytes(), limit as u64);
            assert!(
                apply(plain.len()).as_ref() == Ok(&plain.clone().into()),
                "{transform}"
            );
            if let Some(less) = plain.len().checked_sub(1) {
                let too_long = Error::TooLong {
                    subject: transform.to_string(),
                    limit: less as u64,
                };
                assert!(apply(less) == Err(too_long), "{transform}");
            }
        }
    }

    #[test]
    fn texts_of_many_pieces_are_transformed_as_one() {
        // Each of these puts something else at the border of two pieces, sigmas at the ends of words among them.
        for part in ["x", "\n", "Σ", "ΑΣ ", "aΣ.", "ΐß", "Ⱥİ\n", "ΣΑ'Σ\n"] {
            for shift in ["", "a", "ab"] {
                is_done_plainly(&(shift.to_string() + &part.repeat(200_000 / part.len())));
            }
        }
    }

    #[test]
    fn a_text_without_spaces_is_made_no_longer_than_the_limit_and_a_piece() {
        let mut made = 0;
        let image = |piece: &str| {
            made += piece.len();
            piece.to_uppercase()
        };
        let text = "ΐ".repeat(1 << 20);
        let image = std::cell::RefCell::new(image);
        assert_eq!(
            map(
                pieces(&text, |_| true),
                |piece| image.borrow_mut()(piece),
                1 << 20
            ),
            None
        );
        assert!(
            made < (1 << 20) / 3 + 2 * PIECE,
            "{made} bytes were looked at"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_transformed_as_plainly_as_can_be(text in "[a-cA-CΣσß. \n\r]{0,40}|\\PC{0,40}") {
            is_done_plainly(&text);
        }
    }
}
