//! An upstream's reply: however its bytes are split, the decoder's verdict is the one
//! that follows from the whole. With a marker it is the same for every end of the
//! connection.

use super::netstring::{LIMITS, plain};
use super::{head, splits};
use poetry::error::Error;
use poetry::protocol::{EndRule, Malformed, Protocol, ReplyDecoder};
use std::time::Duration;

/// The protocols by two bits of the input.
const PROTOCOLS: [Protocol; 4] = [
    Protocol::Poem,
    Protocol::Line,
    Protocol::Netstring,
    Protocol::Netstring,
];

/// The first byte chooses the protocol and the limit, the second the splits.
pub fn check(data: &[u8]) {
    let ([kind, choice], reply) = head(data);
    let limit = LIMITS[usize::from(kind >> 2) % LIMITS.len()];
    let protocol = PROTOCOLS[usize::from(kind & 3)];

    let expected = match protocol {
        Protocol::Netstring => expected_netstring(reply, limit),
        _ if reply.is_empty() => Err("upstream: an empty reply".to_string()),
        _ => Ok(()),
    };
    assert_eq!(decode(protocol, &[reply], limit), expected);
    for parts in splits(reply, choice) {
        let verdict = decode(protocol, &parts, limit);
        assert_eq!(verdict, expected, "split as {parts:?}");
    }

    if protocol != Protocol::Netstring {
        let ends = [&b"\n.\n"[..], b"\n.\r\n"];
        let is_whole =
            [&b".\n"[..], b".\r\n"].contains(&reply) || ends.iter().any(|end| reply.ends_with(end));
        for parts in splits(reply, choice).into_iter().chain([vec![reply]]) {
            assert_marked(protocol, &parts, is_whole);
        }
    }
}

/// Holds that these parts are a whole reply, or none, where whole ones end in a lone
/// dot.
fn assert_marked(protocol: Protocol, parts: &[&[u8]], is_whole: bool) {
    let rule = EndRule {
        marker: Some("gopher".parse().expect("a marker")),
        allow_empty: true,
    };
    let decoder = ReplyDecoder::new(protocol, "upstream".to_string(), u64::MAX);
    let mut decoder = decoder.ending_by(&rule);
    for part in parts {
        assert_eq!(decoder.push(part), Ok(false));
    }

    let broken = decoder.broken(&std::io::Error::other("rehearsed"));
    let silent = decoder.silent(true, Duration::ZERO);
    for verdict in [decoder.eof(), broken, silent] {
        assert_eq!(verdict.is_ok(), is_whole, "split as {parts:?}: {verdict:?}");
    }
}

/// Hands the decoder all parts, even if it is complete before the last, and then the
/// end.
fn decode(protocol: Protocol, parts: &[&[u8]], limit: u64) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let mut decoder = ReplyDecoder::new(protocol, "upstream".to_string(), limit);
    let mut got = 0;
    for part in parts {
        got += part.len();
        let is_whole = decoder.push(part).map_err(text)?;
        let may_end = !is_whole || decoder.eof().is_ok();
        assert!(may_end, "whole, and yet the end comes too early");
        let may_be_whole = protocol == Protocol::Netstring || !is_whole;
        assert!(may_be_whole, "only its end completes a plain reply");
    }

    let failure = decoder.broken(&std::io::Error::other("rehearsed"));
    let failure = failure.expect_err("there is no marker").to_string();
    let cut = format!("cut off after {got} bytes");
    assert!(failure.contains(&cut), "{failure}");
    decoder.eof().map_err(text)
}

/// The verdict on a netstring that follows from the slow reader of requests.
fn expected_netstring(reply: &[u8], limit: u64) -> Result<(), String> {
    let malformed = |why: Malformed| format!("upstream: a malformed reply: {why}");

    match plain(reply, limit) {
        Ok(None) if reply.is_empty() => {
            let subject = "upstream".to_string();
            Err(Error::Declined { subject }.to_string())
        }
        Ok(None) => Err(format!(
            "upstream: cut off after {} bytes: {}",
            reply.len(),
            Malformed::Unfinished
        )),
        Ok(Some(payload)) if Protocol::Netstring.frame(&payload).rest().concat() == reply => Ok(()),
        Ok(Some(_)) => Err(malformed(Malformed::Trailing)),
        Err(Malformed::TooLong(limit)) => Err(format!("upstream: longer than {limit} bytes")),
        Err(why) => Err(malformed(why)),
    }
}
