//! What clients' requests hold together, and the answers that are made of them and read by nobody else. Without a bound
//! ten thousand clients could each have one of the largest size here, which is all the memory there is.
//!
//! What is kept, or fetched for many, is counted by the [`cache`](crate::cache).

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An answer of at most so many bytes always has room: the kernel takes it at once, so that we hold nothing.
const AT_ONCE: u64 = 16 << 10;

/// The room that is shared. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<AtomicU64>,
    room: u64,
}

/// What one holds of it; given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    of: Budget,
    bytes: u64,
    spared: u64,
}

impl Budget {
    /// Room for so many bytes.
    pub fn new(room: u64) -> Budget {
        Budget {
            held: Arc::default(),
            room,
        }
    }

    /// The share of a request of at most `longest` bytes, of which one alone has room in any case.
    pub fn of_request(&self, longest: u64) -> Charge {
        self.charge(longest, 0)
    }

    /// The share of an answer that is at most `longest` bytes together with its request.
    pub fn of_answer(&self, longest: u64) -> Charge {
        self.charge(longest, AT_ONCE)
    }

    fn charge(&self, longest: u64, spared: u64) -> Charge {
        Charge {
            of: Budget {
                room: self.room.max(longest),
                ..self.clone()
            },
            bytes: 0,
            spared,
        }
    }

    /// What all hold together.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}

impl Charge {
    /// The share of one who shares with nobody.
    pub fn alone() -> Charge {
        Budget::new(u64::MAX).of_request(0)
    }

    /// Holds so many bytes, or what it holds already where that is more. What finds no room is to be dropped: it is
    /// counted until then.
    ///
    /// # Errors
    /// The room for all, where this is more.
    pub fn grow(&mut self, bytes: u64) -> Result<(), u64> {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let all = self.of.held.fetch_add(more, Ordering::AcqRel) + more;
        match all <= self.of.room || self.bytes <= self.spared {
            true => Ok(()),
            false => Err(self.of.room),
        }
    }

    /// These bytes, whose share is given back with the last copy of them. Nothing that holds nothing costs anything.
    pub fn with(self, bytes: Bytes) -> Bytes {
        match self.bytes {
            0 => bytes,
            _ => Bytes::from_owner(Counted {
                bytes,
                _charge: self,
            }),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Counted {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_no_room_gives_back_what_it_had_and_the_others_keep_theirs() {
        let budget = Budget::new(100_000);
        let (mut one, mut two) = (budget.of_request(1000), budget.of_answer(1000));
        assert_eq!(
            (one.grow(60_000), two.grow(40_000), two.grow(30_000)),
            (Ok(()), Ok(()), Ok(()))
        );
        assert_eq!(budget.held(), 100_000);
        assert_eq!(one.grow(60_001), Err(100_000));
        drop(one);
        assert_eq!(budget.held(), 40_000);
        assert_eq!(two.grow(100_000), Ok(()));
    }

    #[test]
    fn the_longest_has_room_where_nobody_holds_any_and_a_small_answer_always() {
        let budget = Budget::new(10);
        let mut long = budget.of_request(50_000);
        assert_eq!(
            (long.grow(50_000), long.grow(50_001)),
            (Ok(()), Err(50_000))
        );
        assert_eq!(budget.of_answer(0).grow(AT_ONCE), Ok(()));
        assert_eq!(budget.of_answer(0).grow(AT_ONCE + 1), Err(10));
        assert_eq!(budget.of_request(0).grow(1), Err(10));
        assert_eq!(Charge::alone().grow(u64::MAX), Ok(()));
    }

    #[test]
    fn counted_bytes_are_counted_until_the_last_copy_is_dropped() {
        let budget = Budget::new(10);
        let mut charge = budget.of_request(0);
        charge.grow(4).expect("there is room");
        let bytes = charge.with("poem".into());
        let slice = bytes.slice(1..);
        drop(bytes);
        assert_eq!((budget.held(), &slice[..]), (4, &b"oem"[..]));
        drop(slice);
        assert_eq!(budget.held(), 0);
    }
}
