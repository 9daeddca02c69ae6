//! Another proxy's fetch, followed: its pieces as they come, and its end.
//!
//! | the server has | then |
//! |---|---|
//! | pieces after those that we have, without a gap | they are passed on |
//! | the end, with the right length and SHA-256 | [`News::End`] |
//! | the end: it failed, it reached no upstream | [`News::Failed`], [`News::Unreached`] |
//! | nothing new, and the same holder | a doorbell is waited for, 500 ms at most, and the server asked again |
//! | another holder, or none, and a record of this lease with the text in it | the text, and [`News::End`] |
//! | another holder, or none, and no end; a lease that never ends | [`News::Gone`] |
//! | a gap, a wrong end, anything else | [`News::Gone`] |
//! | no answer in 500 ms, or no connection | [`News::Gone`] |
//!
//! The doorbell is hung up before the server is asked, so that none is missed.

use super::answers::{list, text};
use super::bells::Bell;
use super::claim::LookAnswer;
use super::leases::LEASE;
use super::link::ScriptCall;
use super::names::KeyNames;
use super::pieces::PIECE;
use super::record::{self, TextMark, TextPlace};
use super::scripts::SCRIPTS;
use super::{FleetCore, LinkPair, add};
use crate::rt;
use crate::tier::{Follow, News};
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use redis::{Cmd, Value};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pieces that are asked for at once: 8 of them are half of what a reply may have.
const PIECES_AT_ONCE: usize = 8;

/// The same for a text no longer than eight full pieces. If it came in drips it has
/// many short ones. With some 50 bytes around each, these fit one reply as well.
const PIECES_OF_SHORT: usize = 2048;

/// The longest wait for a doorbell. A server that hangs is noticed after it.
const RING_WAIT: Duration = Duration::from_millis(500);

/// PTTL of what never ends. No proxy takes such a lease, so none will end it.
const NO_END: i64 = -1;

/// Beyond the lease's time, so that it has run out when it is looked at.
const LEASE_SLACK: Duration = Duration::from_millis(5);

/// See the head of this file.
pub(super) struct Following {
    shared: Arc<FleetCore>,
    /// What the lease is called.
    lease: String,
    /// What its pieces are called.
    pieces: String,
    /// What the record of the key is called.
    record: String,
    key: Vec<u8>,
    token: String,
    epoch: u64,
    /// When the holder was found, by the server's clock, in milliseconds, ...
    found: u64,
    /// ... and the earliest time, by ours, that this can have been.
    sent: Instant,
    links: Arc<LinkPair>,
    bell: Option<Bell>,
    /// How long the lease still ran when it was looked at last.
    left: Duration,
    /// What has come and was not passed on.
    queue: VecDeque<Bytes>,
    last: Option<News>,
    cursor: PieceCursor,
}

/// How far a text has come.
struct PieceCursor {
    at: u64,
    digest: Sha256,
}

/// What an entry of the pieces is.
#[derive(Debug)]
enum PieceNews {
    Piece(Bytes),
    /// Kept or not, and when it ended, by the server's clock.
    Whole {
        is_kept: bool,
        ended: u64,
    },
    Failed(String),
    Unreached,
}

impl Following {
    pub fn new(
        shared: Arc<FleetCore>,
        key: &[u8],
        (token, left): (String, Duration),
        look: &LookAnswer,
    ) -> Following {
        let names = shared.names.key(key);
        Following {
            shared,
            lease: names.lease(look.said.lease_epoch()),
            pieces: names.pieces(&token),
            record: names.record(),
            key: key.to_vec(),
            token,
            epoch: look.epoch,
            found: look.said.now,
            sent: look.sent,
            links: look.links.clone(),
            bell: None,
            left,
            queue: VecDeque::new(),
            last: None,
            cursor: PieceCursor::new(),
        }
    }

    async fn news(&mut self) -> News {
        loop {
            if let Some(bytes) = self.queue.pop_front() {
                return News::Bytes(bytes);
            }
            if let Some(last) = self.last.take() {
                return last;
            }
            if self.look().await.is_none() {
                return News::Gone;
            }
        }
    }

    /// Looks for what is new, and waits if there is nothing. `None`: all is lost.
    async fn look(&mut self) -> Option<()> {
        if self.bell.is_none() {
            let bell = self
                .shared
                .bells
                .hang(self.lease.clone(), self.links.clone());
            let subscribed = bell.link().subscribe(bell.channel());
            let subscribed = rt::within(self.shared.carry_wait(), subscribed).await;
            subscribed?.ok()?;
            self.bell = Some(bell);
        }
        let rings = self.bell.as_ref()?.listen(); // before the look

        let questions = [
            asks("GET", &self.lease),
            asks("PTTL", &self.lease),
            pieces_after(&self.pieces, self.cursor.at, PIECES_AT_ONCE),
        ];
        let asked = self.links.carry.ask_all(&questions);
        let answers = rt::within(self.shared.carry_wait(), asked).await?.ok()?;
        let [holder, left, entries]: [Value; 3] = answers.try_into().ok()?;

        let entries = entries_of(entries)?;
        if !entries.is_empty() {
            return self.take(entries);
        }
        let is_held = text(holder).is_some_and(|holder| holder == self.token);
        if !is_held {
            return self.take_record().await;
        }
        match left {
            Value::Int(NO_END) => return self.take_record().await,
            Value::Int(left) => self.left = Duration::from_millis(left.try_into().unwrap_or(0)),
            _ => {}
        }
        if self.left > LEASE {
            self.shorten().await?; // the server's clock was set back
        }
        let wait = (self.left + LEASE_SLACK).min(RING_WAIT);
        let _rung_or_not = rt::within(wait, rings).await;
        Some(())
    }

    /// Has the lease run no longer than a lease may. If its holder is alive, it is
    /// renewed.
    async fn shorten(&mut self) -> Option<()> {
        let mut question = asks("PEXPIRE", &self.lease);
        question.arg(LEASE.as_millis().to_string());
        let asked = self.links.carry.ask(&question);
        let answer = rt::within(self.shared.carry_wait(), asked).await?;
        if answer.is_err() {
            // A replica can't. The caller would find the same lease and ask at once.
            rt::sleep(RING_WAIT).await;
            return None;
        }
        self.left = LEASE;
        Some(())
    }

    /// A short text has no pieces: it is in the record.
    async fn take_record(&mut self) -> Option<()> {
        if self.cursor.at > 0 {
            return None;
        }
        let question = asks("GET", &self.record);
        let asked = self.links.carry.ask(&question);
        let answer = rt::within(self.shared.carry_wait(), asked).await?.ok()?;
        let found = record::read(bytes_of(&answer)?, &self.key)?;
        if found.head.place != TextPlace::Inline(self.token.clone()) {
            return None;
        }
        let end = self.end(true, found.head.end)?;
        self.queue.push_back(Bytes::copy_from_slice(found.text));
        self.last = Some(end);
        Some(())
    }

    /// The end of a text that was complete at this time by the server's clock.
    fn end(&self, is_kept: bool, ended: u64) -> Option<News> {
        let apart = Duration::from_millis(ended.abs_diff(self.found));
        let since = if ended >= self.found {
            self.sent.checked_add(apart)?.min(Instant::now())
        } else {
            self.sent.checked_sub(apart)?
        };
        Some(News::End { since, is_kept })
    }

    fn take(&mut self, entries: Vec<Value>) -> Option<()> {
        for entry in entries {
            let news = match self.cursor.read(entry)? {
                PieceNews::Piece(bytes) => {
                    self.queue.push_back(bytes);
                    continue;
                }
                PieceNews::Whole { is_kept, ended } => self.end(is_kept, ended)?,
                PieceNews::Failed(why) => News::Failed(why),
                PieceNews::Unreached => News::Unreached,
            };
            self.last = Some(news);
            break;
        }
        Some(())
    }
}

impl Follow for Following {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn next(&mut self) -> BoxFuture<'_, News> {
        self.news().boxed()
    }
}

impl PieceCursor {
    fn new() -> PieceCursor {
        PieceCursor {
            at: 0,
            digest: Sha256::new(),
        }
    }

    /// Reads the next entry. `None`: it is not the next, or not right.
    fn read(&mut self, entry: Value) -> Option<PieceNews> {
        let [id, fields] = list(entry)?;
        let id = text(id)?;
        let (offset, kind) = id.split_once('-')?;
        let offset = record::number(offset)?;
        let Value::Array(fields) = fields else {
            return None;
        };

        match kind {
            "0" => {
                let [name, bytes] = fields.try_into().ok()?;
                let (b"b", Value::BulkString(bytes)) = (bytes_of(&name)?, bytes) else {
                    return None;
                };
                let fits = (1..=PIECE).contains(&bytes.len());
                let is_next = offset.checked_sub(bytes.len() as u64) == Some(self.at);
                if !fits || !is_next {
                    return None;
                }
                self.digest.update(&bytes);
                self.at = offset;
                Some(PieceNews::Piece(bytes.into()))
            }
            "1" if offset == self.at => self.read_end(&fields),
            _ => None,
        }
    }

    fn read_end(&self, fields: &[Value]) -> Option<PieceNews> {
        let field = |wanted: &[u8]| {
            let mut pairs = fields.chunks_exact(2);
            let pair = pairs.find(|pair| bytes_of(&pair[0]) == Some(wanted))?;
            std::str::from_utf8(bytes_of(&pair[1])?).ok()
        };
        match field(b"e")? {
            how @ ("kept" | "unkept") => {
                let digest: [u8; 32] = self.digest.clone().finalize().into();
                let is_right = record::digest(field(b"h")?)? == digest;
                let ended = record::number(field(b"at")?)?;
                (is_right && self.at > 0).then_some(PieceNews::Whole {
                    is_kept: how == "kept",
                    ended,
                })
            }
            "failed" => Some(PieceNews::Failed(
                field(b"w").unwrap_or_default().to_string(),
            )),
            "unreached" => Some(PieceNews::Unreached),
            _ => None,
        }
    }
}

/// The pieces of a text that is kept, together. `None` if they are gone or wrong: the
/// record that names them is deleted then, or every proxy would find it again. `None`
/// also if they come too slowly: every [`PIECES_AT_ONCE`] full ones have as much time
/// as one answer.
pub(super) async fn read_kept(
    shared: &FleetCore,
    links: &LinkPair,
    names: &KeyNames,
    token: &str,
    mark: TextMark,
) -> Option<Bytes> {
    let name = names.pieces(token);
    let mut cursor = PieceCursor::new();
    let mut text = BytesMut::new();
    let answers = mark.length / (PIECES_AT_ONCE * PIECE) as u64 + 1;
    let count = if answers == 1 {
        PIECES_OF_SHORT
    } else {
        PIECES_AT_ONCE
    };
    let limit = shared
        .carry_wait()
        .saturating_mul(answers.min(u32::MAX.into()) as u32);
    let begun = Instant::now();
    loop {
        let question = pieces_after(&name, cursor.at, count);
        let left = limit.checked_sub(begun.elapsed())?;
        let wait = left.min(shared.carry_wait());
        let answer = rt::within(wait, links.carry.ask(&question)).await;
        let entries = entries_of(answer?.ok()?).filter(|entries| !entries.is_empty());
        for entry in entries.unwrap_or_else(|| vec![Value::Nil]) {
            match cursor.read(entry) {
                Some(PieceNews::Piece(bytes)) if cursor.at <= mark.length => {
                    text.extend_from_slice(&bytes);
                }
                Some(PieceNews::Whole { is_kept: true, .. })
                    if TextMark::of_cursor(&cursor) == mark =>
                {
                    return Some(text.freeze());
                }
                _ => {
                    void(shared, links, names, token).await;
                    return None;
                }
            }
        }
    }
}

impl TextMark {
    fn of_cursor(cursor: &PieceCursor) -> TextMark {
        TextMark {
            length: cursor.at,
            digest: cursor.digest.clone().finalize().into(),
        }
    }
}

/// Deletes the record that points to pieces which are gone.
async fn void(shared: &FleetCore, links: &LinkPair, names: &KeyNames, token: &str) {
    add(&shared.figures.tally.errors);
    let told = ScriptCall {
        script: &SCRIPTS.void,
        names: vec![names.record()],
        arguments: vec![token.as_bytes().to_vec()],
    };
    let _next_time_else = rt::within(shared.carry_wait(), links.carry.run(&told)).await;
}

fn asks(verb: &str, name: &str) -> Cmd {
    let mut question = redis::cmd(verb);
    question.arg(name);
    question
}

fn pieces_after(name: &str, offset: u64, count: usize) -> Cmd {
    let mut question = redis::cmd("XRANGE");
    question.arg(name).arg(format!("({offset}-0")).arg("+");
    question.arg("COUNT").arg(count);
    question
}

fn entries_of(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}
