//! One netstring, followed through any split of its bytes.

use super::Malformed;

/// Follows one netstring through any split of its bytes, without keeping them.
#[derive(Debug, Clone)]
pub struct Scanner {
    state: Scan,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// In the length: its value so far, and the number of digits.
    Length(u64, u32),
    /// In the payload: the number of bytes still to come.
    Payload(u64),
    /// Before the comma.
    Comma,
    /// After the comma.
    Done,
}

impl Scanner {
    /// A scanner for a netstring with at most `limit` bytes of payload.
    pub(super) fn new(limit: u64) -> Scanner {
        Scanner {
            state: Scan::Length(0, 0),
            limit,
        }
    }

    /// Scans the next bytes and calls `payload` with each run of payload among them.
    /// Returns the number of bytes that belong to the netstring.
    ///
    /// # Errors
    /// [`Malformed`] at the first byte that no netstring can have there.
    pub(super) fn scan(
        &mut self,
        input: &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != Scan::Done {
            if let Scan::Payload(left) = self.state {
                let left_here = usize::try_from(left).unwrap_or(usize::MAX);
                let run = left_here.min(input.len() - at);
                payload(&input[at..at + run]);

                at += run;
                self.state = match left - run as u64 {
                    0 => Scan::Comma,
                    left => Scan::Payload(left),
                };
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// The state after one byte outside the payload.
    fn step(&self, byte: u8) -> Result<Scan, Malformed> {
        match (self.state, byte) {
            (Scan::Length(value, digits), b'0'..=b'9') if digits == 0 || value > 0 => {
                let value = self.grow(value, byte - b'0')?;
                Ok(Scan::Length(value, digits + 1))
            }
            (Scan::Length(0, 1..), b':') => Ok(Scan::Comma),
            (Scan::Length(value, 1..), b':') => Ok(Scan::Payload(value)),
            (Scan::Length(..), _) => Err(Malformed::Length),
            (Scan::Comma, b',') => Ok(Scan::Done),
            (Scan::Comma, _) => Err(Malformed::Comma),
            (Scan::Payload(_) | Scan::Done, _) => unreachable!("scan handles payloads and ends"),
        }
    }

    /// The length with one more digit. A number past u64 exceeds any limit, even
    /// u64::MAX, which stands for no limit.
    fn grow(&self, length: u64, digit: u8) -> Result<u64, Malformed> {
        length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(digit.into()))
            .filter(|length| *length <= self.limit)
            .ok_or(Malformed::TooLong(self.limit))
    }

    /// Whether the comma has come.
    pub(super) fn is_done(&self) -> bool {
        self.state == Scan::Done
    }
}
