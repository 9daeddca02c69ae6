//! Purges in a fleet: which are owed to the server, which were heard of, and whether
//! one was missed. Pure.
//!
//! The server counts purges of all texts (*generation*: the records of an older one are
//! dead) and purges of one. Each purge is told on a channel with its number. A
//! number that is not the next shows that one was missed: then all of the memory is
//! purged, which is safe.
//!
//! | event | epoch | known numbers | memory |
//! |---|---|---|---|
//! | a purge begins here | moves | | is purged by the proxy |
//! | it is to be told | | | it is owed until the server has it; no fetch asks meanwhile |
//! | a message of our own | | its number | |
//! | a message of another: all | moves | its number | all |
//! | a message of another: one, the next number | moves | its number | that one |
//! | a message of one, another number | moves | its number | all |
//! | an answer has a higher number | moves | that | all |
//! | a new connection finds other numbers | moves | those | all |
//!
//! Messages and answers come over one connection, in the server's order: an answer
//! never has a higher number than the messages before it, unless one was missed.

use crate::cache::Purge;
use std::collections::VecDeque;

/// Purges of one text that may be owed. More become one of all.
const OWED_MOST: usize = 1000;

/// The highest number of a purge: the server's scripts count exactly up to there.
const NUMBER_MOST: u64 = 1 << 53;

/// Purges that a fleet knows of.
#[derive(Debug, Default)]
pub(super) struct Purges {
    /// Purges that have begun, here and elsewhere.
    begun: u64,
    owed: VecDeque<FleetPurge>,
    /// Whether the log says that some are owed.
    is_debt_told: bool,
    /// `None` before the first connection.
    known: Option<PurgeNumbers>,
}

/// How many purges there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PurgeNumbers {
    /// Of all texts.
    pub generation: u64,
    /// Of one text.
    pub of_one: u64,
}

/// A purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FleetPurge {
    /// The key of the text; `None`: all of them.
    pub key: Option<Vec<u8>>,
    pub how: Purge,
}

impl FleetPurge {
    fn all(how: Purge) -> FleetPurge {
        FleetPurge { key: None, how }
    }
}

/// A message of the purge channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PurgeMessage<'a> {
    /// The proxy that purged.
    pub from: &'a str,
    pub number: u64,
    pub key: Option<&'a [u8]>,
    pub how: Purge,
}

impl<'a> PurgeMessage<'a> {
    /// Reads `PROXY NUMBER all HOW` or `PROXY NUMBER one HOW KEY`.
    pub fn read(message: &'a [u8]) -> Option<PurgeMessage<'a>> {
        let mut parts = message.splitn(5, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(parts.next()?).ok();
        let (from, number, what, how) = (word()?, word()?, word()?, word()?);
        let key = parts.next();
        let key = match what {
            "all" if key.is_none() => None,
            "one" => Some(key?),
            _ => return None,
        };
        Some(PurgeMessage {
            from,
            number: super::record::number(number).filter(|number| *number <= NUMBER_MOST)?,
            key,
            how: match how {
                "soft" => Purge::Soft,
                "hard" => Purge::Hard,
                _ => return None,
            },
        })
    }
}

impl Purges {
    /// The number of purges until now; `None` while one is owed to the server, for then
    /// nothing is certain.
    pub fn epoch(&self) -> Option<u64> {
        self.owed.is_empty().then_some(self.begun)
    }

    pub fn is_current(&self, epoch: u64) -> bool {
        self.begun == epoch
    }

    /// The highest generation that is known.
    pub fn generation(&self) -> u64 {
        self.known.unwrap_or_default().generation
    }

    pub fn begin(&mut self) {
        self.begun += 1;
    }

    pub fn owe(&mut self, purge: FleetPurge) {
        if purge.key.is_none() || self.owed.len() >= OWED_MOST {
            let was_hard = self.owed.iter().any(|owed| owed.how == Purge::Hard);
            let how = if was_hard { Purge::Hard } else { purge.how };
            self.owed.clear();
            return self.owed.push_back(FleetPurge::all(how));
        }
        self.owed.push_back(purge);
    }

    /// Whether purges are owed and the log does not say so yet. The next answer is no.
    pub fn debt_is_news(&mut self) -> bool {
        !self.owed.is_empty() && !std::mem::replace(&mut self.is_debt_told, true)
    }

    /// The purge that is to be told next.
    pub fn owed(&self) -> Option<&FleetPurge> {
        self.owed.front()
    }

    /// The number of purges that are still to be told.
    pub fn owed_count(&self) -> usize {
        self.owed.len()
    }

    /// The server has that purge.
    pub fn paid(&mut self, purge: &FleetPurge, number: u64) {
        if self.owed.front() == Some(purge) {
            self.owed.pop_front();
        }
        self.is_debt_told &= !self.owed.is_empty();
        if let Some(known) = &mut self.known
            && purge.key.is_none()
        {
            known.generation = known.generation.max(number);
        }
    }

    /// A message came. What is to be purged from memory because of it.
    pub fn heard(&mut self, message: &PurgeMessage<'_>, is_own: bool) -> Option<FleetPurge> {
        let known = self.known.get_or_insert_default();
        let is_missed = match message.key {
            None => {
                known.generation = known.generation.max(message.number);
                false
            }
            Some(_) => {
                let next = known.of_one + 1;
                known.of_one = message.number;
                message.number != next
            }
        };

        let purged = match message.key {
            _ if is_missed => FleetPurge::all(Purge::Hard),
            _ if is_own => return None,
            key => FleetPurge {
                key: key.map(<[u8]>::to_vec),
                how: message.how,
            },
        };
        self.begun += 1;
        Some(purged)
    }

    /// An answer has these numbers. What is to be purged because a message was missed.
    pub fn answered(&mut self, numbers: PurgeNumbers) -> Option<FleetPurge> {
        let known = self.known.get_or_insert(numbers);
        let is_missed = numbers.generation > known.generation || numbers.of_one > known.of_one;
        if !is_missed {
            return None;
        }
        known.generation = known.generation.max(numbers.generation);
        known.of_one = known.of_one.max(numbers.of_one);
        self.begun += 1;
        Some(FleetPurge::all(Purge::Hard))
    }

    /// A new connection finds these numbers. What is to be purged, because of messages
    /// that were missed before. `may_hold`: there may be texts in memory from before
    /// the first connection.
    pub fn joined(&mut self, numbers: PurgeNumbers, may_hold: bool) -> Option<FleetPurge> {
        let is_missed = match self.known.replace(numbers) {
            Some(before) => before != numbers,
            None => may_hold,
        };
        if !is_missed {
            return None;
        }
        self.begun += 1;
        Some(FleetPurge::all(Purge::Hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &[u8]) -> PurgeMessage<'_> {
        PurgeMessage::read(text).unwrap()
    }

    fn numbers(generation: u64, of_one: u64) -> PurgeNumbers {
        PurgeNumbers { generation, of_one }
    }

    const ALL: Option<FleetPurge> = Some(FleetPurge {
        key: None,
        how: Purge::Hard,
    });

    #[test]
    fn a_message_is_read_and_anything_else_is_not() {
        let one = message(b"ab.1 7 one hard a key with blanks ");
        assert_eq!(one.key, Some(&b"a key with blanks "[..]));
        assert_eq!((one.from, one.number, one.how), ("ab.1", 7, Purge::Hard));
        assert_eq!(message(b"ab 8 all soft").key, None);
        for bad in [
            &b""[..],
            b"ab 8 all",
            b"ab 8 all soft x",
            b"ab 8 one soft",
            b"ab 08 all soft",
            b"ab -1 all soft",
            b"ab 9007199254740993 all soft",
            b"ab 18446744073709551615 one hard k",
            b"ab 8 some soft",
            b"ab 8 all mild",
            b"\xff 8 all soft",
        ] {
            assert_eq!(PurgeMessage::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_purge_elsewhere_moves_the_epoch_and_names_its_text() {
        let mut purges = Purges::default();
        assert_eq!(purges.joined(numbers(3, 5), false), None);
        let epoch = purges.epoch().unwrap();

        let one = purges.heard(&message(b"x 6 one hard k"), false).unwrap();
        assert_eq!(one.key.as_deref(), Some(&b"k"[..]));
        assert!(!purges.is_current(epoch));
        let all = purges.heard(&message(b"x 4 all soft"), false).unwrap();
        assert_eq!((all.key, all.how), (None, Purge::Soft));
        assert_eq!(purges.answered(numbers(4, 6)), None);
        assert_eq!(purges.generation(), 4);
    }

    #[test]
    fn a_number_that_is_not_the_next_purges_all() {
        let mut purges = Purges::default();
        purges.joined(numbers(3, 5), false);
        assert_eq!(purges.heard(&message(b"x 7 one hard k"), false), ALL);
        assert_eq!(purges.heard(&message(b"me 9 one hard k"), true), ALL);
        assert_eq!(purges.heard(&message(b"me 10 one hard k"), true), None);
        assert_eq!(purges.answered(numbers(4, 10)), ALL);
        assert_eq!(purges.answered(numbers(4, 11)), ALL);
        assert_eq!(purges.answered(numbers(3, 0)), None, "it is an old answer");
        assert_eq!(
            purges.joined(numbers(4, 0), false),
            ALL,
            "the server lost them"
        );
        assert_eq!(purges.joined(numbers(4, 0), true), None);
    }

    #[test]
    fn the_first_connection_purges_only_what_may_have_been_missed() {
        assert_eq!(Purges::default().joined(numbers(9, 9), false), None);
        assert_eq!(Purges::default().joined(numbers(9, 9), true), ALL);
    }

    #[test]
    fn nothing_is_certain_while_a_purge_is_owed() {
        let one = |key: &[u8]| FleetPurge {
            key: Some(key.to_vec()),
            how: Purge::Soft,
        };
        let mut purges = Purges::default();
        purges.owe(one(b"a"));
        purges.owe(one(b"b"));
        assert_eq!(purges.epoch(), None);
        assert!(purges.debt_is_news() && !purges.debt_is_news());
        assert_eq!(purges.owed_count(), 2);
        purges.paid(&one(b"a"), 1);
        assert_eq!(purges.owed_count(), 1);
        assert_eq!(purges.owed(), Some(&one(b"b")));
        purges.owe(FleetPurge::all(Purge::Soft));
        assert_eq!(purges.owed().unwrap().key, None);
        purges.paid(&one(b"b"), 2);
        purges.paid(&FleetPurge::all(Purge::Soft), 1);
        assert!(purges.epoch().is_some());
        assert!(!purges.debt_is_news(), "none is");
        purges.owe(one(b"a"));
        assert!(purges.debt_is_news());

        for _ in 0..=OWED_MOST {
            purges.owe(one(b"a"));
        }
        assert_eq!(
            purges.owed().unwrap().key,
            None,
            "too many become one of all"
        );
    }
}
