//! What the server's scripts answer. Anything else than such an answer is none.

use super::names::LeaseEpoch;
use super::record;
use redis::Value;

/// What LOOK found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looked {
    pub kind: LookKind,
    /// By the server's clock, in milliseconds.
    pub now: u64,
    pub generation: u64,
    pub purges_of_one: u64,
    pub purges_of_key: u64,
    /// The record, if there is one that may be served.
    pub record: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookKind {
    /// The record is fresh.
    Fresh,
    /// Another proxy holds the lease, for so many milliseconds at least.
    Held { token: String, left: u64 },
    /// The lease is ours.
    Ours { token: String },
    /// Nothing holds the lease.
    Free,
    /// The lease can't be written.
    Unwritable { why: String },
}

impl Looked {
    pub fn lease_epoch(&self) -> LeaseEpoch {
        LeaseEpoch {
            generation: self.generation,
            of_key: self.purges_of_key,
        }
    }
}

/// What COMMIT did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Committed {
    Kept,
    /// The text is whole and may be read to its end, but is not kept. Why, if it could
    /// not be.
    Unkept(Option<String>),
    /// Pieces were missing.
    Lost,
    /// The lease was another's.
    Deposed,
}

pub(super) fn looked(value: Value) -> Option<Looked> {
    let [kind, now, generation, seq, token, left, record, of_key] = list(value)?;
    let token = text(token)?;
    let left = left_ms(left)?;
    let kind = match text(kind)?.as_str() {
        "K" => LookKind::Fresh,
        "F" if record::is_token(&token) => LookKind::Held { token, left },
        "L" if record::is_token(&token) => LookKind::Ours { token },
        "N" => LookKind::Free,
        "A" => LookKind::Unwritable { why: token },
        _ => return None,
    };
    let record = match record {
        Value::Nil | Value::Boolean(false) => None,
        Value::BulkString(record) => Some(record),
        _ => return None,
    };
    if kind == LookKind::Fresh && record.is_none() {
        return None;
    }
    Some(Looked {
        kind,
        now: whole(now)?,
        generation: whole(generation)?,
        purges_of_one: whole(seq)?,
        purges_of_key: whole(of_key)?,
        record,
    })
}

/// A lease that has no end, or has just gone, is looked at again soon.
fn left_ms(value: Value) -> Option<u64> {
    match value {
        Value::Int(left) => Some(u64::try_from(left).unwrap_or(0)),
        _ => None,
    }
}

pub(super) fn committed(value: Value) -> Option<Committed> {
    let [how, why] = list(value)?;
    let why = text(why)?;
    match text(how)?.as_str() {
        "kept" => Some(Committed::Kept),
        "unkept" => Some(Committed::Unkept(Some(why).filter(|why| !why.is_empty()))),
        "lost" => Some(Committed::Lost),
        "deposed" => Some(Committed::Deposed),
        _ => None,
    }
}

pub(super) fn joined(value: Value) -> Option<(u64, u64)> {
    let [generation, seq] = list(value)?;
    Some((whole(generation)?, whole(seq)?))
}

/// A list of just so many.
pub(super) fn list<const N: usize>(value: Value) -> Option<[Value; N]> {
    match value {
        Value::Array(all) => all.try_into().ok(),
        _ => None,
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn whole(value: Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(number).ok(),
        _ => None,
    }
}
