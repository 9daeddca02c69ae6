//! The netstring of a request: however its bytes are split, the decoder agrees with a
//! slow and obvious reader of the whole.

use super::{head, splits};
use bytes::Bytes;
use poetry::protocol::{Malformed, Protocol, RequestDecoder, netstring};

/// A request, `None` if more bytes are needed, or why it cannot become a request.
pub type Decoded = Result<Option<Bytes>, Malformed>;

/// The limits to try. With the last one, a length that overflows must not be accepted.
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
        let is_canonical = input.starts_with(&netstring(request));
        assert!(is_canonical, "two forms of the same netstring");
    }
    let framed = Protocol::Netstring.frame(input).rest().concat();
    let payload = Bytes::copy_from_slice(input);
    assert_eq!(plain(&framed, u64::MAX), Ok(Some(payload)));
}

fn decode(parts: &[&[u8]], limit: u64) -> Decoded {
    let mut decoder = RequestDecoder::new(Protocol::Netstring, limit);
    let mut got = 0;

    for part in parts {
        got += part.len();
        if let Some(request) = decoder.push(part)? {
            return Ok(Some(request));
        }
        if let RequestDecoder::Netstring(_, payload) = &decoder {
            let is_bounded = payload.capacity() <= 2 * got + 64;
            assert!(is_bounded, "memory is allocated for an announced length");
        }
    }

    Ok(None)
}

/// The slow reader: takes the digits as text, then the payload by its position.
pub fn plain(input: &[u8], limit: u64) -> Decoded {
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
    // A length that does not fit a usize is longer than any input.
    let length = digits.parse().unwrap_or(usize::MAX);
    match rest.get(length) {
        None => Ok(None),
        Some(b',') => Ok(Some(Bytes::copy_from_slice(&rest[..length]))),
        Some(_) => Err(Malformed::Comma),
    }
}

/// Whether one number is more than the other, by their decimal digits alone.
fn is_more(this: &str, other: &str) -> bool {
    (this.len(), this) > (other.len(), other)
}
