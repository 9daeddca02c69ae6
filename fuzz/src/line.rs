//! A request line: at most 1024 bytes without its ending, which is LF or CRLF, and in it no control byte but TAB.
//! However it is split, the decoder says what a slow and obvious reader of the whole says.

use super::netstring::Response;
use super::{head, splits};
use bytes::Bytes;
use poetry::protocol::{LINE_LIMIT, Malformed, Protocol, RequestDecoder, check_line};

/// How many bytes are put before the input, so that the limit is within reach.
const PADS: [usize; 6] = [0, 1021, 1022, 1023, 1024, 1025];

/// The first byte chooses what stands before the input, the second the splits.
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
    let comes_back =
        decode(&[&Protocol::Line.frame(&input).rest().concat()]) == Ok(Some(Bytes::from(input)));
    assert_eq!(comes_back, may_be_sent, "what may be sent is what is read");
}

fn decode(parts: &[&[u8]]) -> Response {
    let mut decoder = RequestDecoder::new(Protocol::Line, 0);
    for part in parts {
        if let Some(request) = decoder.push(part)? {
            return Ok(Some(request));
        }
        if let RequestDecoder::Line(line) = &decoder {
            assert!(
                line.len() <= LINE_LIMIT + 1,
                "more is kept than a line and its CR"
            );
        }
    }
    Ok(None)
}

/// The same, slowly. Bytes that have no LF yet can become a line if an LF behind them would make them one; and what
/// can't is refused at its first byte that is too much.
fn plain(input: &[u8]) -> Response {
    let end = input.iter().position(|byte| *byte == b'\n');
    let upto = &input[..end.unwrap_or(input.len())];
    let line = upto.strip_suffix(b"\r").unwrap_or(upto);
    if is_text(line) {
        return Ok(end.map(|_| Bytes::copy_from_slice(line)));
    }
    let lengths: Vec<usize> = (0..=upto.len()).collect();
    let can_become = |length: &usize| {
        let begun = &upto[..*length];
        is_text(begun.strip_suffix(b"\r").unwrap_or(begun))
    };
    let sound = lengths.partition_point(can_become) - 1;
    let (before, culprit) = (&upto[..sound], upto[sound]);
    match before.ends_with(b"\r") || is_control(culprit) {
        true => Err(Malformed::Control),
        false => Err(Malformed::TooLong(LINE_LIMIT as u64)),
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Whether it is the text of a line.
fn is_text(line: &[u8]) -> bool {
    line.len() <= LINE_LIMIT && !line.iter().any(|byte| is_control(*byte))
}
