//! Are these the same bytes again?
//!
//! A follower that loses the fetch it follows has passed on a part of a text. It may
//! add to that only if another source begins with the very same bytes: what it passed
//! on and what it adds are one text then.
//!
//! | the bytes from the other source | the proof |
//! |---|---|
//! | are the old ones so far | goes on; none of them is passed on again |
//! | are all of the old ones, and more | is done; what is beyond them is passed on |
//! | differ in one byte, or end before the old ones do | has failed: the clients are reset |

use crate::poem::Poem;
use bytes::{Buf, Bytes};

/// The bytes that were passed on, and how many of them have come again.
#[derive(Debug, Clone)]
pub struct Proof {
    old: Poem,
    /// The piece that is compared next, and where in it.
    piece: usize,
    offset: usize,
}

/// A byte differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differs;

impl Proof {
    /// Of the bytes that were passed on.
    pub fn new(old: Poem) -> Proof {
        Proof {
            old,
            piece: 0,
            offset: 0,
        }
    }

    /// Compares the next bytes. Returns what is beyond the old ones: nothing while the
    /// proof is not done.
    ///
    /// # Errors
    /// [`Differs`], and the proof is of no use any more.
    pub fn compare(&mut self, mut bytes: Bytes) -> Result<Bytes, Differs> {
        while let Some(piece) = self.old.piece(self.piece) {
            let old = &piece[self.offset..];
            let count = old.len().min(bytes.len());
            if old[..count] != bytes[..count] {
                return Err(Differs);
            }

            bytes.advance(count);
            self.offset += count;
            if self.offset < piece.len() {
                return Ok(bytes); // which is empty
            }
            (self.piece, self.offset) = (self.piece + 1, 0);
        }
        Ok(bytes)
    }

    /// Whether all old bytes have come again.
    pub fn is_done(&self) -> bool {
        self.old.piece(self.piece).is_none()
    }

    /// Compares from the first byte again, with yet another source.
    pub fn begin_again(&mut self) {
        (self.piece, self.offset) = (0, 0);
    }

    /// Whether there are no old bytes.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty()
    }

    /// The number of the old bytes.
    pub fn len(&self) -> u64 {
        self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A text in pieces that end at these places.
    fn split(text: &[u8], ends: &[usize]) -> Vec<Bytes> {
        let mut ends: Vec<usize> = ends.iter().map(|end| end % (text.len() + 1)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let pieces = ends.windows(2);
        let pieces = pieces.map(|pair| Bytes::copy_from_slice(&text[pair[0]..pair[1]]));
        pieces.filter(|piece| !piece.is_empty()).collect()
    }

    fn proof(old: &[u8], ends: &[usize]) -> Proof {
        Proof::new(Poem::from_pieces(split(old, ends)))
    }

    /// What is passed on.
    fn compare(proof: &mut Proof, pieces: Vec<Bytes>) -> Result<Vec<u8>, Differs> {
        let mut beyond = Vec::new();
        for piece in pieces {
            beyond.extend_from_slice(&proof.compare(piece)?);
        }
        Ok(beyond)
    }

    proptest! {
        #[test]
        fn the_same_bytes_pass_however_they_are_split(
            text in proptest::collection::vec(0..3u8, 1..60),
            old in any::<prop::sample::Index>(),
            ends in proptest::collection::vec(0..60usize, 0..6),
            others in proptest::collection::vec(0..60usize, 0..6),
            again in any::<bool>(),
        ) {
            let old = &text[..old.index(text.len())];
            let mut proof = proof(old, &ends);
            if again {
                let _ = compare(&mut proof, split(&text[..text.len() / 2], &ends));
                proof.begin_again();
            }
            let beyond = compare(&mut proof, split(&text, &others));
            prop_assert!(proof.is_done());
            prop_assert_eq!(beyond, Ok(text[old.len()..].to_vec()));
        }

        #[test]
        fn one_byte_that_differs_fails(
            text in proptest::collection::vec(0..3u8, 1..60),
            old in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            ends in proptest::collection::vec(0..60usize, 0..6),
        ) {
            let old = &text[..=old.index(text.len())];
            let mut other = text.clone();
            other[at.index(old.len())] += 1;
            let result = compare(&mut proof(old, &ends), split(&other, &ends));
            prop_assert_eq!(result, Err(Differs));
        }

        #[test]
        fn a_text_that_ends_before_the_old_part_does_is_not_proven(
            text in proptest::collection::vec(0..3u8, 1..60),
            end in any::<prop::sample::Index>(),
            ends in proptest::collection::vec(0..60usize, 0..6),
        ) {
            let mut proof = proof(&text, &ends);
            let shorter = split(&text[..end.index(text.len())], &ends);
            prop_assert_eq!(compare(&mut proof, shorter), Ok(Vec::new()));
            prop_assert!(!proof.is_done());
        }
    }
}
