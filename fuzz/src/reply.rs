//! The verdict on a reply: however its bytes are split, the decoder says of them what can be read off the whole.

use super::netstring::{LIMITS, plain};
use super::{head, splits};
use poetry::error::Error;
use poetry::protocol::{Malformed, Protocol, ReplyDecoder};

/// The first byte chooses the protocol and the limit, the second the splits.
pub fn check(data: &[u8]) {
    let ([kind, choice], reply) = head(data);
    let limit = LIMITS[usize::from(kind >> 2) % LIMITS.len()];
    let protocol = [
        Protocol::Poem,
        Protocol::Line,
        Protocol::Netstring,
        Protocol::Netstring,
    ][usize::from(kind & 3)];
    let expected = match protocol {
        Protocol::Netstring => framed(reply, limit),
        _ if reply.is_empty() => Err("upstream: an empty reply".to_string()),
        _ => Ok(()),
    };
    assert_eq!(judge(protocol, &[reply], limit), expected);
    for parts in splits(reply, choice) {
        assert_eq!(
            judge(protocol, &parts, limit),
            expected,
            "split as {parts:?}"
        );
    }
}

/// Hands it all parts, whether it has enough or not, and then the end.
fn judge(protocol: Protocol, parts: &[&[u8]], limit: u64) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    let mut decoder = ReplyDecoder::new(protocol, "upstream".to_string(), limit);
    let mut got = 0;
    for part in parts {
        got += part.len();
        let is_whole = decoder.push(part).map_err(said)?;
        assert!(
            !is_whole || decoder.eof().is_ok(),
            "whole, and yet the end comes too early"
        );
        assert!(
            protocol == Protocol::Netstring || !is_whole,
            "only its end completes a plain reply"
        );
    }
    let told = decoder
        .io_error(&std::io::Error::other("rehearsed"))
        .to_string();
    assert!(
        told.contains(&format!("cut off after {got} bytes")),
        "{told}"
    );
    decoder.eof().map_err(said)
}

/// The verdict on a netstring, by the slow reader of requests.
fn framed(reply: &[u8], limit: u64) -> Result<(), String> {
    let malformed = |why: Malformed| format!("upstream: a malformed reply: {why}");
    match plain(reply, limit) {
        Ok(None) if reply.is_empty() => Err(Error::Declined {
            subject: "upstream".to_string(),
        }
        .to_string()),
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
