//! What is asked for, as the key of a cache.
//!
//! A whole key is a version, then everything that makes two requests different, each as
//! a netstring. So no two requests share a key. All keys of one proxy begin alike: that
//! part is held once, as the [`Scope`], and only the rest is in each entry.

use crate::protocol::{Protocol, netstring};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The first byte of every whole key. It changes when the encoding does.
const VERSION: u8 = 1;

/// The longest request that stands in its key as it is, in bytes.
const LITERAL_MAX: usize = 256;

/// The part of a key that stands for the request. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The part that all keys of one proxy share: protocol, upstreams and transformations.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    prefix: Vec<u8>,
    protocol: Protocol,
    /// The key of the poem protocol, which has no request.
    only: Key,
}

impl Scope {
    /// `upstreams` in the order in which they are asked; `pipeline` is empty without a
    /// transformation.
    pub(super) fn new(protocol: Protocol, upstreams: &[Vec<u8>], pipeline: &[u8]) -> Scope {
        let upstreams: Vec<u8> = upstreams.iter().flat_map(|id| netstring(id)).collect();

        let mut prefix = vec![VERSION];
        for part in [protocol.name().as_bytes(), &upstreams, pipeline] {
            prefix.extend(netstring(part));
        }
        Scope {
            prefix,
            protocol,
            only: Key([].into()),
        }
    }

    /// The key of a request.
    pub(super) fn key(&self, request: &[u8]) -> Key {
        match self.protocol {
            Protocol::Poem => self.only.clone(),
            Protocol::Line | Protocol::Netstring => Key(name(request).into()),
        }
    }

    /// The whole key, which tells a request from those of other proxies as well.
    pub(super) fn whole(&self, key: &Key) -> Vec<u8> {
        [&self.prefix[..], &key.0].concat()
    }
}

/// What stands for a request: itself as a netstring or, where it is long, its length
/// and SHA-256 behind a byte that begins no netstring. No two texts with the same
/// SHA-256 are known. Requests may be as large as poems, and would be held a second
/// time by their keys.
fn name(request: &[u8]) -> Vec<u8> {
    if request.len() <= LITERAL_MAX {
        return netstring(request);
    }

    let length = format!("#{}:", request.len());
    [length.as_bytes(), &Sha256::digest(request)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn scopes() -> Vec<(String, Scope)> {
        let upstreams: [&[&str]; 5] = [&["1"], &["1", "2"], &["2", "1"], &["1,2"], &["1:1,"]];
        let pipelines: [&[u8]; 4] = [b"", b"shout", b"shout,", b"5:shout,"];

        let mut scopes = Vec::new();
        for protocol in [Protocol::Poem, Protocol::Line, Protocol::Netstring] {
            for upstreams in upstreams {
                for pipeline in pipelines {
                    let ids: Vec<_> = upstreams.iter().map(|id| id.as_bytes().to_vec()).collect();
                    let scope = Scope::new(protocol, &ids, pipeline);
                    scopes.push((format!("{protocol:?} {upstreams:?} {pipeline:?}"), scope));
                }
            }
        }
        scopes
    }

    #[test]
    fn no_two_requests_share_a_key() {
        let long = [
            vec![b'x'; 256],
            vec![b'x'; 257],
            vec![b'y'; 257],
            vec![b'x'; 258],
        ];
        let names = [
            name(&long[1]),
            netstring(&name(&long[1])),
            name(&long[1])[1..].to_vec(),
        ];
        let mut requests: Vec<&[u8]> = vec![
            b"", b"a", b"1:a,", b"0:,", b"a,", b"4:line,", b"\xff", b"1:a,0:,", b"#257:",
        ];
        requests.extend(long.iter().chain(&names).map(Vec::as_slice));

        let mut seen = HashMap::new();
        for (what, scope) in scopes() {
            let is_poem = scope.protocol == Protocol::Poem;
            let asked = if is_poem { &requests[..1] } else { &requests };
            for request in asked {
                let what = format!("{what} {request:?}");
                let whole = scope.whole(&scope.key(request));
                let other = seen.insert(whole, what.clone());
                assert_eq!(other, None, "the same key as {what}");
            }
        }
        assert!(seen.len() > 600);
    }

    #[test]
    fn the_key_of_a_long_request_is_short() {
        let scope = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"");
        let length = |request: &[u8]| scope.key(request).heap_bytes() as usize;
        let long = vec![b'x'; 16 << 20];

        let digest = "#16777216:".len() + 32;
        assert_eq!(length(&long), length(b"") - "0:,".len() + digest);
    }
}
