//! A poem: any bytes, at least one, and complete. Nothing is decoded, added or
//! stripped.
//!
//! All readers share one copy. A poem from the network is a list of pieces, because it
//! is sent on while it comes. The pieces are large, so that a socket takes a poem in
//! few writes: writes of at least 1 MiB are as fast as one write of the whole, writes
//! of 64 KiB half as fast (measured).

use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A complete poem. Clones share its bytes.
#[derive(Clone)]
pub struct Poem(Arc<Body>);

struct Body {
    pieces: Pieces,
    len: u64,
    /// Dropped with the last clone of the poem.
    _kept_alive: Option<KeptAlive>,
}

/// The bytes. Most poems are one piece, which then needs no list.
#[derive(Clone)]
enum Pieces {
    One(Bytes),
    Many(Box<[Bytes]>),
}

impl Pieces {
    fn as_slice(&self) -> &[Bytes] {
        match self {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }
}

/// Anything that is to live as long as a poem.
pub type KeptAlive = Arc<dyn Any + Send + Sync>;

impl Poem {
    /// Makes a poem of these pieces, one after the other.
    pub fn from_pieces(pieces: Vec<Bytes>) -> Poem {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces = match <[Bytes; 1]>::try_from(pieces) {
            Ok([piece]) => Pieces::One(piece),
            Err(pieces) => Pieces::Many(pieces.into()),
        };
        Poem(Arc::new(Body {
            pieces,
            len,
            _kept_alive: None,
        }))
    }

    /// This poem, with a value that is dropped when the last clone of the result is.
    pub fn with(&self, kept_alive: KeptAlive) -> Poem {
        Poem(Arc::new(Body {
            pieces: self.0.pieces.clone(),
            len: self.0.len,
            _kept_alive: Some(kept_alive),
        }))
    }

    /// The pieces in order; most poems have one.
    pub fn pieces(&self) -> &[Bytes] {
        self.0.pieces.as_slice()
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether there are no bytes. A poem that was fetched has at least one.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Whether this poem looks like a cut-off copy of `longer`: a strict prefix of it.
    pub fn is_cut_from(&self, longer: &Poem) -> bool {
        self.len() < longer.len() && longer.bytes().starts_with(&self.bytes())
    }

    /// All bytes in one slice. Copies them if there are several pieces.
    pub fn bytes(&self) -> Bytes {
        match self.pieces() {
            [whole] => whole.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

impl<B: Into<Bytes>> From<B> for Poem {
    fn from(bytes: B) -> Poem {
        Poem::from_pieces(vec![bytes.into()])
    }
}

impl fmt::Debug for Poem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self.pieces().len();
        write!(f, "Poem({} bytes in {pieces} pieces)", self.len())
    }
}

/// Collected bytes without the spare capacity of a growing vector. That can be as much
/// as its length again, and would last as long as the bytes.
pub(crate) fn packed(collected: Vec<u8>) -> Bytes {
    collected.into_boxed_slice().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_bytes_have_no_spare_capacity() {
        let mut collected = Vec::with_capacity(2048);
        collected.extend_from_slice(&[b'x'; 1034]);
        assert_eq!(Vec::from(packed(collected)).capacity(), 1034);
    }
}
