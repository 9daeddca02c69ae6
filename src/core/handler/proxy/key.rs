//! What is asked for, as the key of a cache.
//!
//! A whole key is a version, then everything that makes two requests different, each as
//! a netstring. So no two requests share a key. All keys of one proxy begin alike: that
//! part is held once, as the [`Scope`], and only the rest is in each entry.

use super::fold::KeyFold;
use crate::protocol::{Protocol, netstring};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The first byte of every whole key. It changes when the encoding does.
const VERSION: u8 = 1;

/// Ends the part about folded keys. No netstring begins with it, and no other key has
/// it there.
const FOLDED: u8 = b'~';

/// The longest request that stands in its key as it is, in bytes.
const LITERAL_MAX: usize = 256;

/// The part of a key that stands for the request. Most fit an entry of the cache
/// itself; cloning shares a longer one.
#[derive(Clone)]
pub struct Key(Name);

#[derive(Clone)]
enum Name {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Arc<[u8]>),
}

/// The longest key that needs no allocation, in bytes: a short one is as large as a
/// long one's handle with its tag, and an entry of the cache is one cache line.
const SHORT: usize = 22;

impl Key {
    /// A key of these bytes.
    pub fn new(name: &[u8]) -> Key {
        let mut bytes = [0; SHORT];
        let Some(beginning) = bytes.get_mut(..name.len()) else {
            return Key(Name::Long(name.into()));
        };

        beginning.copy_from_slice(name);
        Key(Name::Short {
            len: name.len() as u8,
            bytes,
        })
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Name::Short { len, bytes } => &bytes[..usize::from(*len)],
            Name::Long(bytes) => bytes,
        }
    }

    /// Bytes on the heap: those of a long key, and its counts.
    pub fn heap_bytes(&self) -> u64 {
        match &self.0 {
            Name::Short { .. } => 0,
            Name::Long(bytes) => (bytes.len() + 2 * size_of::<usize>()) as u64,
        }
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Key) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.bytes().escape_ascii())
    }
}

impl Key {
    /// The request; of a long one `#LENGTH:` and its SHA-256 in hexadecimal.
    pub(super) fn name(&self) -> Cow<'_, [u8]> {
        if let Some((length, digest)) = self.digest() {
            return Cow::Owned(digest_name(length, digest));
        }

        let key = self.bytes();
        let begin = key.iter().position(|byte| *byte == b':');
        let end = key.len().saturating_sub(1);
        let request = begin.and_then(|colon| key.get(colon + 1..end));
        Cow::Borrowed(request.unwrap_or_default())
    }

    /// Whether the name begins like this.
    ///
    /// Many keys are asked this under a lock, so the name of a digest is made only
    /// where it may begin so.
    pub(super) fn begins_with(&self, prefix: &[u8]) -> bool {
        match (prefix, self.bytes()) {
            ([], _) => true,
            ([first, ..], [b'#', ..]) if *first != b'#' => false,
            _ => self.name().starts_with(prefix),
        }
    }

    /// The length and the digest of a long request.
    fn digest(&self) -> Option<(&[u8], &[u8])> {
        let rest = self.bytes().strip_prefix(b"#")?;
        rest.split_at_checked(rest.len().checked_sub(DIGEST_BYTES)?)
            .map(|(length, digest)| (length.strip_suffix(b":").unwrap_or(length), digest))
    }
}

/// The length of a SHA-256, in bytes.
const DIGEST_BYTES: usize = 32;

fn digest_name(length: &[u8], digest: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let hex = |byte: &u8| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];

    let mut name = Vec::with_capacity(length.len() + 2 + 2 * digest.len());
    name.push(b'#');
    name.extend(length);
    name.push(b':');
    name.extend(digest.iter().flat_map(hex));
    name
}

/// The part that all keys of one proxy share: protocol, upstreams and transformations.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    prefix: Vec<u8>,
    protocol: Protocol,
    fold: KeyFold,
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
            fold: KeyFold::default(),
            only: Key::new(b""),
        }
    }

    /// The same for the line protocol, with keys that are folded. They are told from
    /// all others: a key of another proxy may stand for one spelling only.
    pub(super) fn folded(mut self, fold: KeyFold) -> Scope {
        if fold != KeyFold::default() && self.protocol == Protocol::Line {
            self.prefix.extend(netstring(&fold.id()));
            self.prefix.push(FOLDED);
            self.fold = fold;
        }
        self
    }

    /// The key of a request.
    pub(super) fn key(&self, request: &[u8]) -> Key {
        match self.protocol {
            Protocol::Poem => self.only.clone(),
            Protocol::Line => Key::new(&name(&self.fold.whole(request))),
            Protocol::Netstring => Key::new(&name(request)),
        }
    }

    /// Whether the key is of a request whose name begins like this.
    pub(super) fn begins_with(&self, key: &Key, prefix: &[u8]) -> bool {
        key.begins_with(&self.fold.beginning(prefix))
    }

    /// The keys that a name stands for: that of the request and, where the name is that
    /// of a long one's digest, that of the long one as well. Both may exist.
    pub(super) fn named(&self, name: &[u8]) -> Vec<Key> {
        if self.protocol == Protocol::Poem && !name.is_empty() {
            return Vec::new();
        }
        let literal = self.key(name);
        [Some(literal), self.long(name)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The key of a long request by the name of its digest, as [`Key::name`] makes it.
    pub(super) fn long(&self, name: &[u8]) -> Option<Key> {
        let text = std::str::from_utf8(name).ok()?;
        let (length, hex) = text.strip_prefix('#')?.split_once(':')?;
        let length: usize = length.parse().ok()?;
        let is_long = length > LITERAL_MAX && self.protocol != Protocol::Poem;
        if !is_long || hex.len() != 2 * DIGEST_BYTES {
            return None;
        }

        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        let digest: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
        let digest = digest?;
        let is_exact = digest_name(length.to_string().as_bytes(), &digest) == name;
        is_exact.then(|| Key::new(&digest_key(length, &digest)))
    }

    /// The whole key, which tells a request from those of other proxies as well.
    pub(super) fn whole(&self, key: &Key) -> Vec<u8> {
        [&self.prefix[..], key.bytes()].concat()
    }

    /// The key of a whole key; `None` for another proxy's.
    pub(super) fn key_of(&self, whole: &[u8]) -> Option<Key> {
        let rest = whole.strip_prefix(&self.prefix[..])?;
        Some(Key::new(rest))
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

    digest_key(request.len(), &Sha256::digest(request))
}

fn digest_key(length: usize, digest: &[u8]) -> Vec<u8> {
    let length = format!("#{length}:");
    [length.as_bytes(), digest].concat()
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
    fn a_key_tells_its_name_and_the_name_its_key() {
        let scope = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"");
        let requests: [&[u8]; 7] = [
            b"",
            b"a",
            b"1:a,",
            b"#257:",
            b"\xff,",
            &[b'x'; 256],
            &[b':'; 256],
        ];
        for request in requests {
            let key = scope.key(request);
            assert_eq!(key.name(), request);
            assert_eq!(scope.named(request), [key]);
        }

        let long = scope.key(&[b'x'; 300]);
        let name = long.name().into_owned();
        assert!(name.starts_with(b"#300:") && name.len() == 5 + 64);
        assert_eq!(scope.long(&name), Some(long.clone()));
        assert_eq!(scope.named(&name), [scope.key(&name), long.clone()]);
        assert!(long.begins_with(&name[..20]) && !long.begins_with(b"#301"));
        assert!(long.begins_with(b"") && !long.begins_with(b"x"));
        let short = scope.key(b"#3");
        assert!(short.begins_with(b"#") && !short.begins_with(b"#30"));

        let poem = Scope::new(Protocol::Poem, &[b"1".to_vec()], b"");
        assert_eq!(poem.key(b"").name(), &b""[..]);
        assert_eq!(poem.named(b""), [poem.key(b"")]);
        assert_eq!(poem.named(b"a"), []);
    }

    #[test]
    fn what_only_looks_like_a_digest_names_no_long_request() {
        let scope = Scope::new(Protocol::Line, &[b"1".to_vec()], b"");
        let hex = "0f".repeat(32);
        assert!(scope.long(format!("#257:{hex}").as_bytes()).is_some());

        for name in [
            format!("#256:{hex}"),
            format!("#0257:{hex}"),
            format!("#+257:{hex}"),
            format!("257:{hex}"),
            format!("#257:{}", hex.to_uppercase()),
            format!("#257:{hex}0f"),
            format!("#257:{}", "é".repeat(32)),
            format!("#257:{}", &hex[1..]),
            format!("#99999999999999999999999:{hex}"),
        ] {
            assert_eq!(scope.long(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_usual_key_needs_no_allocation_and_any_key_is_its_bytes() {
        for length in 0..64 {
            let name = vec![b'x'; length];
            let key = Key::new(&name);
            assert_eq!(key.bytes(), name);
            assert_eq!(key.heap_bytes() == 0, length <= SHORT);
        }
        assert_eq!(size_of::<Key>(), 24);
    }

    #[test]
    fn a_folded_key_is_that_of_all_its_spellings_and_of_no_other_proxy() {
        let fold = |case, space| KeyFold { case, space };
        let line = || Scope::new(Protocol::Line, &[b"1".to_vec()], b"");
        let scopes = [
            line(),
            line().folded(fold(true, false)),
            line().folded(fold(false, true)),
            line().folded(fold(true, true)),
        ];

        let (upper, spaced) = (&b"A.EXAMPLE"[..], &b"  a.example "[..]);
        for (scope, is_one) in
            scopes
                .iter()
                .zip([[false; 2], [true, false], [false, true], [true; 2]])
        {
            let key = scope.key(b"a.example");
            let same = [upper, spaced].map(|request| scope.key(request) == key);
            assert_eq!(same, is_one);
            assert_eq!(scope.begins_with(&key, b" A.EX"), is_one[0] && is_one[1]);
        }

        let whole: Vec<_> = scopes
            .iter()
            .map(|scope| scope.whole(&scope.key(b"~4:case,")))
            .collect();
        for (at, key) in whole.iter().enumerate() {
            assert!(!whole[at + 1..].contains(key));
        }

        let other = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"").folded(fold(true, true));
        assert_ne!(other.key(b"A"), other.key(b"a"), "poems are not requests");
    }

    #[test]
    fn the_key_of_a_long_request_is_short() {
        let scope = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"");
        let length = |request: &[u8]| scope.key(request).bytes().len();
        let long = vec![b'x'; 16 << 20];

        let digest = "#16777216:".len() + 32;
        assert_eq!(length(&long), length(b"") - "0:,".len() + digest);
    }
}
