//! What a refused client of the line protocol is told, before its connection is reset.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// The longest text, in bytes: a screen's width in a dozen lines. It goes out in one
/// packet or two.
pub const REFUSAL_BYTES: usize = 1024;

/// A text with places for the time and the address: `try again in {seconds} s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalText(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Seconds,
    Addr,
}

/// Why a text can't be used. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted a text like 'Too many requests; try again in {{seconds}} s'")]
pub struct BadRefusalText(&'static str);

impl FromStr for RefusalText {
    type Err = BadRefusalText;

    /// `{seconds}` and `{addr}` are filled in; `\t`, `\r`, `\n` and `\\` are what they
    /// are in C.
    fn from_str(text: &str) -> Result<RefusalText, BadRefusalText> {
        if text.is_empty() {
            return Err(BadRefusalText("it is empty"));
        }
        if text.len() > REFUSAL_BYTES {
            return Err(BadRefusalText("it is longer than 1024 bytes"));
        }

        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            let (word, after) = after
                .split_once('}')
                .ok_or(BadRefusalText("a '{' without its '}'"))?;
            parts.push(Part::Text(unescaped(plain)?));
            parts.push(match word {
                "seconds" => Part::Seconds,
                "addr" => Part::Addr,
                _ => return Err(BadRefusalText("only {seconds} and {addr} are filled in")),
            });
            rest = after;
        }
        parts.push(Part::Text(unescaped(rest)?));
        Ok(RefusalText(parts))
    }
}

fn unescaped(text: &str) -> Result<String, BadRefusalText> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let char = match char {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('r') => '\r',
                Some('n') => '\n',
                Some('\\') => '\\',
                _ => return Err(BadRefusalText("a '\\' stands before t, r, n or \\")),
            },
            char => char,
        };
        plain.push(char);
    }
    Ok(plain)
}

impl RefusalText {
    /// The text for a client that may try again after `wait`, with the end of its line.
    /// Seconds are rounded up.
    pub fn filled(&self, from: IpAddr, wait: Duration) -> Vec<u8> {
        let nanos = u64::from(wait.subsec_nanos() > 0);
        let seconds = wait.as_secs().saturating_add(nanos).max(1);
        let mut text: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Seconds => seconds.to_string(),
                Part::Addr => from.to_canonical().to_string(),
            })
            .collect();

        if !text.ends_with('\n') {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        let text: RefusalText = text.parse().expect(text);
        let text = text.filled([192, 0, 2, 1].into(), Duration::from_millis(1200));
        String::from_utf8(text).expect("it is text")
    }

    #[test]
    fn the_time_and_the_address_are_filled_in() {
        assert_eq!(
            filled("% Too many requests from {addr}; try again in {seconds} seconds."),
            "% Too many requests from 192.0.2.1; try again in 2 seconds.\r\n"
        );
        let gopher = r"3Too many requests\t\terror\t1";
        assert_eq!(filled(gopher), "3Too many requests\t\terror\t1\r\n");
        assert_eq!(filled(r"a\\b\n"), "a\\b\n");
    }

    #[test]
    fn what_can_not_be_filled_in_is_refused() {
        let long = "x".repeat(REFUSAL_BYTES + 1);
        for (text, why) in [
            ("", "it is empty"),
            (long.as_str(), "it is longer"),
            ("{", "a '{' without"),
            ("{second}", "only {seconds}"),
            (r"a\x", "a '\\' stands"),
            (r"a\", "a '\\' stands"),
        ] {
            let error = text.parse::<RefusalText>().expect_err(text).to_string();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(error.ends_with("try again in {seconds} s'"), "{error}");
        }
    }
}
