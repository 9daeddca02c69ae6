//! A memory budget for clients' requests, and for the answers made of one request
//! alone.
//!
//! Without it, ten thousand clients could each send a request of the largest size,
//! which is all the memory there is. Texts that are kept, or fetched for many, are
//! counted by the [`cache`](crate::cache).

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An answer of at most this many bytes is always allowed: the kernel takes it at once,
/// so it costs no memory here.
const SMALL_ANSWER: u64 = 16 << 10;

/// A number of bytes to share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<AtomicU64>,
    limit: u64,
}

/// A part of a budget, returned when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
    /// Up to here it is always allowed.
    free: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Budget {
        Budget {
            held: Arc::default(),
            limit,
        }
    }

    /// An empty charge for a request of at most `longest` bytes. One request of that
    /// size is allowed even where the limit is less.
    pub fn for_request(&self, longest: u64) -> Charge {
        self.charge(longest, 0)
    }

    /// An empty charge for an answer. Together with its request it is at most `longest`
    /// bytes, and one of that size is allowed even where the limit is less.
    pub fn for_answer(&self, longest: u64) -> Charge {
        self.charge(longest, SMALL_ANSWER)
    }

    fn charge(&self, longest: u64, free: u64) -> Charge {
        Charge {
            budget: Budget {
                held: self.held.clone(),
                limit: self.limit.max(longest),
            },
            bytes: 0,
            free,
        }
    }

    /// Bytes charged at this moment.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}

impl Charge {
    /// A charge to an unlimited budget of its own.
    pub fn unlimited() -> Charge {
        Budget::new(u64::MAX).for_request(0)
    }

    /// Charges `bytes` in all, or what is charged already where that is more. On an
    /// error, drop what the bytes are for: they are charged until then.
    ///
    /// # Errors
    /// The budget's limit, where this exceeds it.
    pub fn grow(&mut self, bytes: u64) -> Result<(), u64> {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;

        let held = self.budget.held.fetch_add(more, Ordering::AcqRel) + more;
        if held <= self.budget.limit || self.bytes <= self.free {
            Ok(())
        } else {
            Err(self.budget.limit)
        }
    }

    /// Ties the charge to `bytes`: it is returned with their last copy. An empty charge
    /// adds no wrapper.
    pub fn with(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 {
            return bytes;
        }

        Bytes::from_owner(Charged {
            bytes,
            _charge: self,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_charge_is_returned_and_others_keep_theirs() {
        let budget = Budget::new(100_000);
        let mut one = budget.for_request(1000);
        let mut two = budget.for_answer(1000);
        assert_eq!(one.grow(60_000), Ok(()));
        assert_eq!(two.grow(40_000), Ok(()));
        assert_eq!(two.grow(30_000), Ok(()));
        assert_eq!(budget.held(), 100_000);

        assert_eq!(one.grow(60_001), Err(100_000));
        drop(one);
        assert_eq!(budget.held(), 40_000);
        assert_eq!(two.grow(100_000), Ok(()));
    }

    #[test]
    fn one_longest_request_and_small_answers_are_always_allowed() {
        let budget = Budget::new(10);
        let mut long = budget.for_request(50_000);
        assert_eq!(long.grow(50_000), Ok(()));
        assert_eq!(long.grow(50_001), Err(50_000));

        assert_eq!(budget.for_answer(0).grow(SMALL_ANSWER), Ok(()));
        assert_eq!(budget.for_answer(0).grow(SMALL_ANSWER + 1), Err(10));
        assert_eq!(budget.for_request(0).grow(1), Err(10));
        assert_eq!(Charge::unlimited().grow(u64::MAX), Ok(()));
    }

    #[test]
    fn a_charge_lasts_as_long_as_the_last_copy_of_its_bytes() {
        let budget = Budget::new(10);
        let mut charge = budget.for_request(0);
        charge.grow(4).expect("there is room");
        let bytes = charge.with("poem".into());
        let slice = bytes.slice(1..);

        drop(bytes);
        assert_eq!((budget.held(), &slice[..]), (4, &b"oem"[..]));
        drop(slice);
        assert_eq!(budget.held(), 0);
    }
}
