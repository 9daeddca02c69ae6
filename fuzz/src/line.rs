//! A request line: at most 1024 bytes without its ending, which is LF or CRLF, and no
//! control byte but TAB. However the bytes are split, the decoder agrees with a slow
//! and obvious reader of the whole.

use super::netstring::Decoded;
use super::{head, splits};
use bytes::Bytes;
use poetry::protocol::{LINE_LIMIT, Malformed, Protocol, RequestDecoder, check_line};

/// How many bytes are put before the input, so that it can reach the limit.
const PADS: [usize; 6] = [0, 1021, 1022, 1023, 1024, 1025];

/// The first byte chooses what is put before the input, the second the splits.
pub fn check(data: &[u8]) {
    let ([pad, choice], rest) = head(data);
    let mut input = vec![b'x'; PADS[usize::from(pad) % PADS.len()]];
    input.extend_from_slice(rest);

    let expected = plain(&input);
    assert_eq!(decode(&[&input]), expected);
    for parts in splits(&input, choice) {
        assert_eq!(decode(&parts), expected, "split as {parts:?}");
    }

    let may_be_sent = is_text(&input);
    assert_eq!(check_line(&input).is_ok(), may_be_sent);
    let framed = Protocol::Line.frame(&input).rest().concat();
    let comes_back = decode(&[&framed]) == Ok(Some(Bytes::from(input)));
    assert_eq!(comes_back, may_be_sent, "what may be sent is what is read");
}

fn decode(parts: &[&[u8]]) -> Decoded {
    let mut decoder = RequestDecoder::new(Protocol::Line, 0);
    for part in parts {
        if let Some(request) = decoder.push(part)? {
            return Ok(Some(request));
        }
        if let RequestDecoder::Line(line) = &decoder {
            let is_bounded = line.len() <= LINE_LIMIT + 2;
            assert!(is_bounded, "more is buffered than a line and its CR NUL");
        }
    }
    Ok(None)
}

/// The slow reader. Bytes without an LF may still become a line if an LF right behind
/// them would make them one. Otherwise they are refused at the first byte too many.
fn plain(input: &[u8]) -> Decoded {
    let end = input.iter().position(|byte| *byte == b'\n');
    let before_end = &input[..end.unwrap_or(input.len())];
    let line = before_end.strip_suffix(b"\r").unwrap_or(before_end);
    if is_text(line) {
        return Ok(end.map(|_| Bytes::copy_from_slice(line)));
    }

    let lengths: Vec<usize> = (0..=before_end.len()).collect();
    let can_become = |length: &usize| {
        let part = &before_end[..*length];
        let text = part.strip_suffix(b"\r\0").unwrap_or(part);
        is_text(text.strip_suffix(b"\r").unwrap_or(text))
    };
    let sound = lengths.partition_point(can_become) - 1;
    if sound == before_end.len() && end.is_none() {
        return Ok(None); // CR NUL: only the end of the connection may come
    }

    let is_ended = before_end[..sound].ends_with(b"\r") || before_end[..sound].ends_with(b"\0");
    if is_ended || is_control(before_end[sound]) {
        Err(Malformed::Control)
    } else {
        Err(Malformed::TooLong(LINE_LIMIT as u64))
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Whether this may be a line's text.
fn is_text(line: &[u8]) -> bool {
    line.len() <= LINE_LIMIT && !line.iter().any(|byte| is_control(*byte))
}
