//! The built-in transformations: a poem in, a poem out. `cummingsify` is the seed's; the others are its company.

use crate::error::Error;
use bytes::Bytes;
use std::fmt;

/// A transformation this program does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
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

impl Transform {
    /// All of them, in the order they are listed.
    pub const ALL: [Transform; 5] =
        [Transform::Cummingsify, Transform::Shout, Transform::Rot13, Transform::Number, Transform::Reverse];

    /// The transformation of this name, if there is one.
    pub fn named(name: &str) -> Option<Transform> {
        Transform::ALL.into_iter().find(|transform| transform.name() == name)
    }

    /// Its name, as a request gives it.
    pub fn name(self) -> &'static str {
        match self {
            Transform::Cummingsify => "cummingsify",
            Transform::Shout => "shout",
            Transform::Rot13 => "rot13",
            Transform::Number => "number",
            Transform::Reverse => "reverse",
        }
    }

    /// What it does, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Transform::Cummingsify => "lower case throughout, as e. e. cummings liked it",
            Transform::Shout => "UPPER CASE THROUGHOUT",
            Transform::Rot13 => "letters turned by thirteen places; twice is undone",
            Transform::Number => "every line behind its number",
            Transform::Reverse => "the last line first",
        }
    }

    /// The transformed poem. All of these work on text.
    ///
    /// # Errors
    /// [`Error::Transform`] where the poem is not UTF-8.
    pub fn apply(self, poem: &[u8]) -> Result<Bytes, Error> {
        let text = std::str::from_utf8(poem).map_err(|e| Error::Transform {
            name: self.name().to_string(),
            why: format!("not UTF-8 text from byte {} on", e.valid_up_to()),
        })?;
        Ok(match self {
            Transform::Cummingsify => text.to_lowercase(),
            Transform::Shout => text.to_uppercase(),
            Transform::Rot13 => text.chars().map(rot13).collect(),
            Transform::Number => number(text),
            Transform::Reverse => reverse(text),
        }
        .into())
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn rot13(c: char) -> char {
    let turned = |first: u8| char::from(first + (c as u8 - first + 13) % 26);
    match c {
        'a'..='z' => turned(b'a'),
        'A'..='Z' => turned(b'A'),
        other => other,
    }
}

/// Numbers as wide as the last one needs, then two spaces.
fn number(text: &str) -> String {
    let width = text.lines().count().to_string().len();
    let numbered = text.split_inclusive('\n').enumerate();
    numbered.map(|(at, line)| format!("{:width$}  {line}", at + 1)).collect()
}

/// A final newline, or its absence, stays where it was: at the end.
fn reverse(text: &str) -> String {
    let (body, end) = match text.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (text, ""),
    };
    let lines: Vec<&str> = body.split('\n').rev().collect();
    lines.join("\n") + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, text: &str) -> String {
        let done = Transform::named(name).expect(name).apply(text.as_bytes()).expect(text);
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
        let why = Transform::Shout.apply(b"ab\xff").expect_err("not UTF-8").to_string();
        assert_eq!(why, "shout: not UTF-8 text from byte 2 on");
    }
}
