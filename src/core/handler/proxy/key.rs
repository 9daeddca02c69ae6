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

/// Ends the part about what is sent in place of the request, in the same way.
const SENT: u8 = b'>';

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

/// The beginning of a key that tells which part it shares with others, where a proxy
/// has several: a number in base 128. Each of its bytes is over 127, and no other part
/// of a key begins like that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Tag(Vec<u8>);

const TAG_BIT: u8 = 0x80;

impl Tag {
    /// The tag of this number.
    pub(super) fn new(number: u32) -> Tag {
        let mut bytes = Vec::new();
        let mut rest = number;
        while bytes.is_empty() || rest > 0 {
            bytes.push(TAG_BIT | (rest % 128) as u8);
            rest /= 128;
        }
        Tag(bytes)
    }
}

impl Key {
    /// Its tag; empty where there is none.
    pub(super) fn tag(&self) -> Tag {
        let (tag, _) = self.parts();
        Tag(tag.to_vec())
    }

    /// The tag, and what stands for the request.
    fn parts(&self) -> (&[u8], &[u8]) {
        let bytes = self.bytes();
        let begin = bytes.iter().position(|byte| *byte < TAG_BIT);
        bytes.split_at(begin.unwrap_or(bytes.len()))
    }

    /// Whether it has no more of the request than its digest.
    pub(super) fn is_digest(&self) -> bool {
        self.digest().is_some()
    }

    /// The request; of a long one `#LENGTH:` and its SHA-256 in hexadecimal.
    pub(super) fn name(&self) -> Cow<'_, [u8]> {
        if let Some((length, digest)) = self.digest() {
            return Cow::Owned(digest_name(length, digest));
        }

        let (_, key) = self.parts();
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
        match (prefix, self.parts().1) {
            ([], _) => true,
            ([first, ..], [b'#', ..]) if *first != b'#' => false,
            _ => self.name().starts_with(prefix),
        }
    }

    /// The length and the digest of a long request.
    fn digest(&self) -> Option<(&[u8], &[u8])> {
        let rest = self.parts().1.strip_prefix(b"#")?;
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

/// The part that all keys of one target share: protocol, upstreams, transformations and
/// what is sent.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    prefix: Vec<u8>,
    /// What keys in memory have in place of it.
    tag: Tag,
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
            tag: Tag::default(),
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

    /// The same, where this is sent with the request in place of `{}`.
    pub(super) fn sending(mut self, template: &str) -> Scope {
        self.prefix.extend(netstring(template.as_bytes()));
        self.prefix.push(SENT);
        self
    }

    /// The same, for a proxy with several.
    pub(super) fn tagged(mut self, tag: Tag) -> Scope {
        self.tag = tag;
        self
    }

    /// What tells it from others in memory.
    pub(super) fn tag(&self) -> Tag {
        self.tag.clone()
    }

    /// The prefix of a whole key; `None` if it is none.
    pub(super) fn prefix_of(whole: &[u8]) -> Option<&[u8]> {
        let mut rest = whole.strip_prefix(&[VERSION])?;
        for _part in ["protocol", "upstreams", "pipeline"] {
            rest = after_netstring(rest)?;
        }
        for mark in [FOLDED, SENT] {
            let after = after_netstring(rest);
            let marked = after.and_then(|after| after.strip_prefix(&[mark]));
            rest = marked.unwrap_or(rest);
        }
        Some(&whole[..whole.len() - rest.len()])
    }

    /// The beginning of its whole keys.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The key of a request.
    pub(super) fn key(&self, request: &[u8]) -> Key {
        match self.protocol {
            Protocol::Poem => self.only.clone(),
            Protocol::Line => self.tagged_key(name(&self.fold.whole(request))),
            Protocol::Netstring => self.tagged_key(name(request)),
        }
    }

    fn tagged_key(&self, mut name: Vec<u8>) -> Key {
        if !self.tag.0.is_empty() {
            name.splice(0..0, self.tag.0.iter().copied());
        }
        Key::new(&name)
    }

    /// Whether the key is of a request whose name begins like this.
    pub(super) fn begins_with(&self, key: &Key, prefix: &[u8]) -> bool {
        key.begins_with(&self.fold.beginning(prefix))
    }

    /// The keys that a name stands for: that of the request and, where the name is that
    /// of a long one's digest, that of the long one as well. Both may exist.
    #[cfg(test)]
    fn named(&self, name: &[u8]) -> Vec<Key> {
        [self.literal(name), self.long(name)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The key of the request with this name.
    pub(super) fn literal(&self, name: &[u8]) -> Option<Key> {
        let is_request = self.protocol != Protocol::Poem || name.is_empty();
        is_request.then(|| self.key(name))
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
        is_exact.then(|| self.tagged_key(digest_key(length, &digest)))
    }

    /// The whole key, which tells a request from those of other proxies as well.
    pub(super) fn whole(&self, key: &Key) -> Vec<u8> {
        [&self.prefix[..], key.parts().1].concat()
    }

    /// The key of a whole key; `None` for another proxy's.
    pub(super) fn key_of(&self, whole: &[u8]) -> Option<Key> {
        let rest = whole.strip_prefix(&self.prefix[..])?;
        Some(self.tagged_key(rest.to_vec()))
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

/// What follows a netstring.
fn after_netstring(bytes: &[u8]) -> Option<&[u8]> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let rest = bytes[colon + 1..].get(length..)?;
    rest.strip_prefix(b",")
}

fn digest_key(length: usize, digest: &[u8]) -> Vec<u8> {
    let length = format!("#{length}:");
    [length.as_bytes(), digest].concat()
}

#[cfg(test)]
mod tests;
