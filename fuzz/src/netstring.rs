//! The netstring of a request: however its bytes are split, the decoder says what a slow and obvious reader of the
//! whole says.

use super::{head, splits};
use bytes::Bytes;
use poetry::protocol::{Malformed, Protocol, RequestDecoder, netstring};

/// What a decoder says in the end: a request, nothing yet, or that it can't become one.
pub type Response = Result<Option<Bytes>, Malformed>;

/// The limits that are tried. The last one is where a length that is no number of ours must not be taken for one.
pub const LIMITS: [u64; 6] = [0, 9, 10, 100, 1 << 16, u64::MAX];

/// The first byte chooses the limit, the second the splits.
pub fn check(data: &[u8]) {
    let ([limit, choice], input) = head(data);
    let limit = LIMITS[usize::from(limit) % LIMITS.len()];
    let expected = plain(input, limit);
    assert_eq!(decode(&[input], limit), expected);
    for parts in splits(input, choice) {
        assert_eq!(decode(&parts, limit), expected, "split as {parts:?}");
    }
    if let Ok(Some(request)) = &expected {
        assert!(
            input.starts_with(&netstring(request)),
            "two forms of the same netstring"
        );
    }
    let framed = Protocol::Netstring.frame(input).rest().concat();
    assert_eq!(
        plain(&framed, u64::MAX),
        Ok(Some(Bytes::copy_from_slice(input)))
    );
}

fn decode(parts: &[&[u8]], limit: u64) -> Response {
    let mut decoder = RequestDecoder::new(Protocol::Netstring, limit);
    let mut got = 0;
    for part in parts {
        got += part.len();
        if let Some(request) = decoder.push(part)? {
            return Ok(Some(request));
        }
        if let RequestDecoder::Netstring(_, payload) = &decoder {
            assert!(
                payload.capacity() <= 2 * got + 64,
                "room for what has only been announced"
            );
        }
    }
    Ok(None)
}

/// The same, slowly: the digits as text, and then the payload by its place.
pub fn plain(input: &[u8], limit: u64) -> Response {
    let digits: String = input
        .iter()
        .map(|byte| char::from(*byte))
        .take_while(char::is_ascii_digit)
        .collect();
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(Malformed::Length);
    }
    if is_more(&digits, &limit.to_string()) {
        return Err(Malformed::TooLong(limit));
    }
    match input.get(digits.len()) {
        None => return Ok(None),
        Some(b':') if !digits.is_empty() => {}
        Some(_) => return Err(Malformed::Length),
    }
    let rest = &input[digits.len() + 1..];
    // A number that is too large for us is longer than any input.
    let length = digits.parse().unwrap_or(usize::MAX);
    match rest.get(length) {
        None => Ok(None),
        Some(b',') => Ok(Some(Bytes::copy_from_slice(&rest[..length]))),
        Some(_) => Err(Malformed::Comma),
    }
}

/// Whether one number is more than another, by their decimal digits alone.
fn is_more(this: &str, other: &str) -> bool {
    (this.len(), this) > (other.len(), other)
}
