//! A poem: any bytes, at least one, and complete. Nothing is decoded, added or
//! stripped. It has no byte only where an empty answer is allowed to be one.
//!
//! All readers share one copy. A poem from the network is a list of pieces, because it
//! is sent on while it comes. The pieces are large, so that a socket takes a poem in
//! few writes: writes of at least 1 MiB are as fast as one write of the whole, writes
//! of 64 KiB half as fast (measured).
//!
//! A short poem is one allocation, with its count of readers and its reservation: that
//! of its `Bytes` alone would be as large as a short poem itself.

use crate::cache::{Reservation, Stored};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use triomphe::ThinArc;

/// The longest poem that is copied into an allocation of its own, in bytes. The copy
/// takes 0.1 us; what it saves is less than 4 % of a longer poem.
const SHORT: usize = 4096;

/// A complete poem. Clones share its bytes.
#[derive(Clone)]
pub struct Poem(Body);

#[derive(Clone)]
enum Body {
    Short(ThinArc<Option<Reservation>, u8>),
    Pieces(Arc<Pieces>),
}

struct Pieces {
    list: Box<[Bytes]>,
    len: u64,
    /// Dropped with the last clone of the poem.
    reservation: Option<Reservation>,
}

impl Poem {
    /// Makes a poem of these pieces, one after the other, and shares them.
    pub fn from_pieces(pieces: Vec<Bytes>) -> Poem {
        Poem::of(pieces.into(), None)
    }

    fn of(list: Box<[Bytes]>, reservation: Option<Reservation>) -> Poem {
        let len = list.iter().map(|piece| piece.len() as u64).sum();
        Poem(Body::Pieces(Arc::new(Pieces {
            list,
            len,
            reservation,
        })))
    }

    fn short(bytes: &[u8], reservation: Option<Reservation>) -> Poem {
        Poem(Body::Short(ThinArc::from_header_and_slice(
            reservation,
            bytes,
        )))
    }

    /// The pieces in order; most poems have one. `None` after the last one.
    #[inline]
    pub fn piece(&self, at: usize) -> Option<&[u8]> {
        match &self.0 {
            Body::Short(text) if at == 0 => Some(&text.slice).filter(|text| !text.is_empty()),
            Body::Short(_) => None,
            Body::Pieces(pieces) => pieces.list.get(at).map(|piece| &piece[..]),
        }
    }

    /// Whether this is the last piece.
    #[inline]
    pub(crate) fn is_last(&self, at: usize) -> bool {
        match &self.0 {
            Body::Short(_) => true,
            Body::Pieces(pieces) => at + 1 == pieces.list.len(),
        }
    }

    /// The pieces, to share them.
    pub fn pieces(&self) -> Vec<Bytes> {
        match &self.0 {
            Body::Short(text) if text.slice.is_empty() => Vec::new(),
            Body::Short(text) => vec![Bytes::from_owner(ShortText(text.clone()))],
            Body::Pieces(pieces) => pieces.list.to_vec(),
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Body::Short(text) => text.slice.len() as u64,
            Body::Pieces(pieces) => pieces.len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this poem looks like a cut-off copy of `longer`: a strict prefix of it.
    pub fn is_cut_from(&self, longer: &Poem) -> bool {
        self.len() < longer.len() && longer.bytes().starts_with(&self.bytes())
    }

    /// All bytes in one slice. Copies them if there are several pieces.
    pub fn bytes(&self) -> Bytes {
        match &self.pieces()[..] {
            [whole] => whole.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

/// A poem holds its reservation until its last clone is dropped.
impl Stored for Poem {
    type Value = Poem;

    fn store(poem: Poem, reservation: Reservation) -> Poem {
        let reservation = Some(reservation);
        if poem.len() <= SHORT as u64 {
            return Poem::short(&poem.bytes(), reservation);
        }
        Poem::of(poem.pieces().into(), reservation)
    }

    #[inline]
    fn value(&self) -> &Poem {
        self
    }

    fn reservation(&self) -> Option<&Reservation> {
        match &self.0 {
            Body::Short(text) => text.header.header.as_ref(),
            Body::Pieces(pieces) => pieces.reservation.as_ref(),
        }
    }
}

/// A short poem, as the owner of shared bytes.
struct ShortText(ThinArc<Option<Reservation>, u8>);

impl AsRef<[u8]> for ShortText {
    fn as_ref(&self) -> &[u8] {
        &self.0.slice
    }
}

impl<B: Into<Bytes>> From<B> for Poem {
    fn from(bytes: B) -> Poem {
        let bytes = bytes.into();
        if bytes.len() <= SHORT {
            return Poem::short(&bytes, None);
        }
        Poem::from_pieces(vec![bytes])
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
mod tests;
