//! What the processes of a fleet share, as plain data: of each key the kept text, the
//! lease, and what the holders of leases have published. Time is an argument.
//!
//! | a question finds | its answer |
//! |---|---|
//! | a text within its ttl, and that will do | the text |
//! | a text within its grace, and that will do | the text, with the lease if that is free and wished |
//! | a lease that is held | whom to follow |
//! | none of these | the lease if it is wished, else that it is free |
//!
//! A lease has a token that is never used again. What its holder publishes is found by
//! the token, so a late holder writes where no process reads, and only a commit has to
//! compare.
//!
//! A purge begins a new epoch of a key, or of all. A lease of an earlier one is none to
//! new questions, but its followers may finish: their text is whole, and is not kept.

use poetry::tier::Wish;
use std::collections::HashMap;
use std::time::{Duration, Instant};

pub type Token = u64;

#[derive(Clone, Debug)]
pub struct Ledger {
    /// What a test has broken.
    pub flaw: Option<Flaw>,
    /// How long a lease runs.
    lease_time: Duration,
    /// Counts purges of all texts.
    generation: u64,
    last_token: Token,
    keys: HashMap<Vec<u8>, Slot>,
}

/// What a test can break.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flaw {
    /// A commit does not compare the token.
    Unfenced,
    /// A purge deletes what is kept, and begins no epoch.
    NoEpoch,
    /// All holders of a key publish in one place.
    OneLog,
    /// What is passed on again is not compared.
    NoProof,
}

/// What is known of a key.
#[derive(Clone, Debug, Default)]
struct Slot {
    record: Option<Record>,
    /// How often it was purged alone.
    purges: u64,
    /// At most one of each epoch.
    leases: Vec<Held>,
    logs: HashMap<Token, Log>,
}

/// A kept text.
#[derive(Clone, Debug)]
pub struct Record {
    pub text: Vec<u8>,
    pub end: Instant,
    /// Whose it is.
    pub token: Token,
    epoch: Epoch,
    until: Instant,
}

/// The purges of all, and of the key.
type Epoch = (u64, u64);

#[derive(Clone, Debug)]
struct Held {
    token: Token,
    until: Instant,
    epoch: Epoch,
}

/// What one holder has published.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub bytes: Vec<u8>,
    pub end: Option<LogEnd>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LogEnd {
    Whole { since: Instant, is_kept: bool },
    Failed(String),
    Unreached,
    Gone,
}

#[derive(Debug)]
pub enum Look {
    Found(Record, Option<Token>),
    Follow(Token),
    Lead(Token),
    Vacant,
}

/// A question.
#[derive(Clone, Copy)]
pub struct Asked {
    pub wish: Wish,
    pub may_lead: bool,
    pub ttl: Duration,
    pub grace: Duration,
}

impl Ledger {
    pub fn new(lease_time: Duration) -> Ledger {
        Ledger {
            lease_time,
            flaw: None,
            generation: 0,
            last_token: 0,
            keys: HashMap::new(),
        }
    }

    pub fn look(&mut self, key: &[u8], asked: Asked, now: Instant) -> Look {
        let epoch = self.epoch(key);
        let held = self.holder(key, now);
        let record = self.slot(key).record.clone();
        let record = record.filter(|of| of.epoch == epoch && now < of.until);
        let age = record
            .as_ref()
            .map(|of| now.saturating_duration_since(of.end));
        let is_within = |limit| age.is_some_and(|age| age < limit);
        if asked.wish != Wish::New && is_within(asked.ttl) {
            return Look::Found(record.expect("it has an age"), None);
        }

        let serves = asked.wish == Wish::Text && is_within(asked.ttl + asked.grace);
        let record = record.filter(|_| serves);
        match (record, held) {
            (Some(record), Some(_)) => Look::Found(record, None),
            (None, Some(token)) => Look::Follow(token),
            (Some(record), None) => {
                let lease = asked.may_lead.then(|| self.lease(key, now));
                Look::Found(record, lease)
            }
            (None, None) if asked.may_lead => Look::Lead(self.lease(key, now)),
            (None, None) => Look::Vacant,
        }
    }

    fn lease(&mut self, key: &[u8], now: Instant) -> Token {
        self.last_token += 1;
        let epoch = self.epoch(key);
        let held = Held {
            token: self.last_token,
            until: now + self.lease_time,
            epoch,
        };
        let log = self.log(self.last_token);
        let slot = self.slot(key);
        slot.leases.retain(|other| other.epoch != epoch);
        slot.leases.push(held);
        slot.logs.entry(log).or_default();
        self.last_token
    }

    /// Where a holder publishes.
    fn log(&self, token: Token) -> Token {
        if self.flaw == Some(Flaw::OneLog) {
            return 0;
        }
        token
    }

    fn slot(&mut self, key: &[u8]) -> &mut Slot {
        self.keys.entry(key.to_vec()).or_default()
    }

    fn epoch(&self, key: &[u8]) -> Epoch {
        let purges = self.keys.get(key).map_or(0, |slot| slot.purges);
        (self.generation, purges)
    }

    fn held(&self, key: &[u8], token: Token, now: Instant) -> Option<&Held> {
        let mut leases = self.keys.get(key)?.leases.iter();
        leases.find(|held| held.token == token && held.until > now)
    }

    /// Whether the lease is this holder's at this moment.
    pub fn holds(&self, key: &[u8], token: Token, now: Instant) -> bool {
        self.held(key, token, now).is_some()
    }

    /// Publishes bytes at this offset. What is there already, or leaves a gap, is
    /// refused.
    pub fn push(&mut self, key: &[u8], token: Token, at: usize, bytes: &[u8]) {
        let log = self.log(token);
        let log = self.slot(key).logs.get_mut(&log);
        let log = log.filter(|log| log.end.is_none() && log.bytes.len() == at);
        if let Some(log) = log {
            log.bytes.extend_from_slice(bytes);
        }
    }

    /// The whole text, to be kept as long as `keep` says. Returns whether it is, or
    /// `None` if the lease is another's.
    pub fn commit(
        &mut self,
        key: &[u8],
        token: Token,
        text: &[u8],
        since: Instant,
        keep: Option<Duration>,
        now: Instant,
    ) -> Option<bool> {
        let epoch = self.epoch(key);
        let own = self.held(key, token, now).map(|held| held.epoch);
        let own = own.or((self.flaw == Some(Flaw::Unfenced)).then_some(epoch))?;
        let is_kept = keep.is_some() && own == epoch;
        let log = self.log(token);
        let slot = self.slot(key);
        slot.leases.retain(|held| held.token != token);
        if let Some(log) = slot.logs.get_mut(&log) {
            log.bytes = text.to_vec();
            log.end = Some(LogEnd::Whole { since, is_kept });
        }
        if let Some(keep) = keep.filter(|_| is_kept) {
            slot.record = Some(Record {
                text: text.to_vec(),
                end: since,
                token,
                epoch: own,
                until: since + keep,
            });
        }
        Some(is_kept)
    }

    /// Ends a fetch without a text, and gives the lease back.
    pub fn end(&mut self, key: &[u8], token: Token, end: LogEnd, now: Instant) {
        if self.holds(key, token, now) {
            self.expire_token(key, token);
        }
        let log = self.log(token);
        let log = self.slot(key).logs.get_mut(&log);
        if let Some(log) = log.filter(|log| log.end.is_none()) {
            log.end = Some(end);
        }
    }

    /// What there is from this offset on; `None` if the holder or the pieces are gone.
    pub fn read(
        &self,
        key: &[u8],
        token: Token,
        at: usize,
        now: Instant,
    ) -> Option<(Vec<u8>, Option<LogEnd>)> {
        let log = self.keys.get(key)?.logs.get(&self.log(token))?;
        let bytes = log.bytes.get(at..)?.to_vec();
        if log.end.is_none() && bytes.is_empty() && !self.holds(key, token, now) {
            return None;
        }
        Some((bytes, log.end.clone()))
    }

    pub fn purge_all(&mut self) {
        if self.flaw == Some(Flaw::NoEpoch) {
            return self.keys.values_mut().for_each(|slot| slot.record = None);
        }
        self.generation += 1;
    }

    pub fn purge_key(&mut self, key: &[u8]) {
        let begins = self.flaw != Some(Flaw::NoEpoch);
        let slot = self.slot(key);
        slot.record = None;
        slot.purges += u64::from(begins);
    }

    /// A lease runs out: its holder is dead, or too slow.
    pub fn expire_token(&mut self, key: &[u8], token: Token) {
        self.slot(key).leases.retain(|held| held.token != token);
    }

    /// All leases of the key run out.
    pub fn expire_leases(&mut self, key: &[u8]) {
        self.slot(key).leases.clear();
    }

    /// The store had no memory for what was published.
    pub fn evict_logs(&mut self, key: &[u8]) {
        self.slot(key).logs.clear();
    }

    pub fn evict_record(&mut self, key: &[u8]) {
        self.slot(key).record = None;
    }

    /// Leases that are out.
    pub fn leases(&self) -> usize {
        self.keys.values().map(|slot| slot.leases.len()).sum()
    }

    /// The holder at this moment.
    pub fn holder(&self, key: &[u8], now: Instant) -> Option<Token> {
        let epoch = self.epoch(key);
        let mut leases = self.keys.get(key)?.leases.iter();
        let held = leases.find(|held| held.until > now && held.epoch == epoch)?;
        Some(held.token)
    }

    /// The texts that are kept.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.keys.values().filter_map(|slot| {
            let epoch = (self.generation, slot.purges);
            slot.record.as_ref().filter(|record| record.epoch == epoch)
        })
    }

    /// What is kept is as old as this.
    pub fn set_age(&mut self, age: Duration, now: Instant) {
        for slot in self.keys.values_mut() {
            if let Some(record) = &mut slot.record {
                record.end = now - age;
            }
        }
    }
}
