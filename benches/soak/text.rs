//! Texts that say themselves what they are: a first line with the key, a serial number and the length, then bytes that
//! follow from the number. No two are alike, none is a part of another, and a mix of two is neither.

use std::fmt::Write;

/// No text is shorter: its first line needs room.
pub const SHORTEST: usize = 64;

/// No first line is longer.
const LONGEST_LINE: usize = 64;

/// The text of this number, of exactly `len` bytes.
pub fn compose(key: &str, serial: u64, len: usize) -> Vec<u8> {
    let mut line = String::with_capacity(len.max(LONGEST_LINE));
    let _infallible = writeln!(line, "soak {key} {serial} {len}");
    let mut text = line.into_bytes();
    let begin = text.len();
    text.resize(len.max(begin), 0);
    fastrand::Rng::with_seed(serial).fill(&mut text[begin..]);
    text
}

/// What bytes that were received are.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Too few to tell, or none.
    Little,
    /// The beginning of this text.
    Part(u64),
    /// All of it.
    Whole(u64),
}

/// Looks at what somebody got who asked for `key`.
///
/// # Errors
/// In words, what is wrong with it: it is no text's beginning, or another key's.
pub fn examine(key: &str, bytes: &[u8]) -> Result<Found, String> {
    let Some(end) = bytes
        .iter()
        .take(LONGEST_LINE)
        .position(|byte| *byte == b'\n')
    else {
        return match bytes.len() < LONGEST_LINE {
            true => Ok(Found::Little),
            false => Err("it does not begin like a text".into()),
        };
    };
    let line = String::from_utf8_lossy(&bytes[..end]);
    let words: Vec<&str> = line.split(' ').collect();
    let ["soak", whose, serial, len] = words[..] else {
        return Err(format!("it begins with {line:?}"));
    };
    let (Ok(serial), Ok(len)) = (serial.parse(), len.parse::<usize>()) else {
        return Err(format!("it begins with {line:?}"));
    };
    if whose != key && whose != NOBODY {
        return Err(format!("it is {whose}'s number {serial}"));
    }
    if bytes.len() > len {
        return Err(format!(
            "{} bytes of number {serial}, which has {len}",
            bytes.len()
        ));
    }
    match compose(whose, serial, len)
        .iter()
        .zip(bytes)
        .position(|(wanted, got)| wanted != got)
    {
        Some(at) => Err(format!(
            "number {serial} is another from byte {at} of {len} on"
        )),
        None if bytes.len() < len => Ok(Found::Part(serial)),
        None if whose == NOBODY => Err(format!("number {serial} was nobody's and never ended")),
        None => Ok(Found::Whole(serial)),
    }
}

/// The key in a text that an upstream sends before it knows what is wanted. It never ends well, so no whole one exists.
pub const NOBODY: &str = "nobody";
