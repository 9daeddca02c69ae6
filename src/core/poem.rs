//! A poem: any bytes, at least one, complete. Nothing is decoded, added or stripped.
//!
//! One copy of it is shared by everyone. A poem that came over the network is a list of pieces, because it was sent
//! on while it came; pieces are large, so that a socket can take a poem in few writes (measured: writes of at least
//! 1 MiB run at the speed of one write of the whole, writes of 64 KiB at half of it).

use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;

/// A complete poem. Cloning shares it.
#[derive(Clone)]
pub struct Poem(Arc<Body>);

struct Body {
    pieces: Vec<Bytes>,
    len: u64,
    /// Dropped when nobody has the poem any more.
    _kept_alive: Option<KeptAlive>,
}

/// Whatever is to last as long as a poem does.
pub type KeptAlive = Arc<dyn Any + Send + Sync>;

impl Poem {
    /// The poem that these pieces make, one after the other.
    pub fn from_pieces(pieces: Vec<Bytes>) -> Poem {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Poem(Arc::new(Body {
            pieces,
            len,
            _kept_alive: None,
        }))
    }

    /// The same poem; with the last copy of it, and no sooner, this is dropped.
    pub fn with(&self, kept_alive: KeptAlive) -> Poem {
        Poem(Arc::new(Body {
            pieces: self.0.pieces.clone(),
            len: self.0.len,
            _kept_alive: Some(kept_alive),
        }))
    }

    /// The pieces in order; most poems have one.
    pub fn pieces(&self) -> &[Bytes] {
        &self.0.pieces
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether there is no byte at all, as in no poem that was ever fetched.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Whether `longer` begins with all of this poem and goes on: what a cut off copy of it looks like.
    pub fn is_cut_from(&self, longer: &Poem) -> bool {
        self.len() < longer.len() && longer.bytes().starts_with(&self.bytes())
    }

    /// All of it in one slice; copies only where there are several pieces.
    pub fn bytes(&self) -> Bytes {
        match &self.0.pieces[..] {
            [whole] => whole.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

/// Bytes that were collected, without the room for more that a growing vector has: up to its length again, and kept as
/// long as they are.
pub fn packed(collected: Vec<u8>) -> Bytes {
    collected.into_boxed_slice().into()
}

impl<B: Into<Bytes>> From<B> for Poem {
    fn from(bytes: B) -> Poem {
        Poem::from_pieces(vec![bytes.into()])
    }
}

impl std::fmt::Debug for Poem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Poem({} bytes in {} pieces)",
            self.len(),
            self.0.pieces.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_bytes_have_no_room_for_more() {
        let mut collected = Vec::with_capacity(2048);
        collected.extend_from_slice(&[b'x'; 1034]);
        assert_eq!(Vec::from(packed(collected)).capacity(), 1034);
    }
}
