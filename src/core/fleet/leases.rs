//! The leases that this proxy holds.
//!
//! | a lease | |
//! |---|---|
//! | is out | it is renewed every 500 ms, and runs out after 2 s |
//! | is not ours any more, says the server | deposed: its text is not shared, and its own clients get it |
//! | could not be renewed for 2 s | the same |
//! | ends | its task commits the text, or tells how it failed, or gives it back |
//! | is dropped | it is given back |
//!
//! Shorter would mean needless fetches at each hiccup of the server, longer that the
//! clients of a dead holder wait longer.

use super::claim::LookAnswer;
use super::link::ScriptCall;
use super::names::{KeyNames, LeaseEpoch};
use super::pieces::{LeaseEnd, publish};
use super::scripts::SCRIPTS;
use super::{FleetCore, add, lock};
use crate::flight::Reader;
use crate::poem::Poem;
use crate::rt;
use crate::sync::Notify;
use crate::tier::{Failure, Lease, Question};
use futures::channel::oneshot;
use futures::future::join_all;
use redis::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a lease runs.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// How often it is renewed: three chances, and one to spare.
pub(super) const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The longest reason for a failure that followers are told, in bytes.
const WHY_MOST: usize = 256;

/// The leases that are out or ending.
#[derive(Default)]
pub(super) struct Leases {
    serial: AtomicU64,
    /// By their tokens. Held for a few lines.
    held: Mutex<HashMap<String, Arc<Held>>>,
    /// One is over, or has ended.
    ended: EndEvent,
}

struct EndEvent(Notify);

impl Default for EndEvent {
    fn default() -> EndEvent {
        EndEvent(Notify::new())
    }
}

/// A lease.
pub(super) struct Held {
    pub names: KeyNames,
    pub key: Vec<u8>,
    pub token: String,
    pub epoch: LeaseEpoch,
    /// When it was given, by the server's clock, in milliseconds, ...
    pub given: u64,
    /// ... and the latest time, by ours, that this can have been.
    pub received: Instant,
    pub ttl: Duration,
    pub grace: Duration,
    /// It runs until two seconds after this.
    confirmed: Mutex<Instant>,
    is_over: AtomicBool,
    /// Its end is decided, and on its way to the server.
    is_ending: AtomicBool,
}

impl Held {
    /// What it is called in the server.
    pub fn name(&self) -> String {
        self.names.lease(self.epoch)
    }

    /// What its pieces are called.
    pub fn pieces(&self) -> String {
        self.names.pieces(&self.token)
    }

    /// Whether it is ours no more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl Leases {
    /// The half of a token that is this proxy's.
    pub fn nonce(&self, id: &str) -> String {
        format!("{id}.{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    fn all(&self) -> Vec<Arc<Held>> {
        lock(&self.held).values().cloned().collect()
    }

    pub fn are_out(&self) -> bool {
        !lock(&self.held).is_empty()
    }

    fn add(&self, held: Arc<Held>) {
        lock(&self.held).insert(held.token.clone(), held);
    }

    fn remove(&self, token: &str) {
        let gone = lock(&self.held).remove(token);
        drop(gone);
        self.ended.0.notify(usize::MAX);
    }

    /// Waits until all have ended.
    pub async fn none_left(&self) {
        loop {
            let ended = self.ended.0.listen(); // before the look
            if !self.are_out() {
                return;
            }
            ended.await;
        }
    }

    /// Waits until this lease is gone, if it is one of ours and ends.
    pub fn ended(&self, token: &str) -> Option<impl Future<Output = ()>> {
        let held = lock(&self.held).get(token).cloned()?;
        let is_ending = held.is_ending.load(Ordering::Acquire) || held.is_over();
        is_ending.then_some(self.gone(held))
    }

    async fn gone(&self, held: Arc<Held>) {
        loop {
            let ended = self.ended.0.listen(); // before the look
            if !lock(&self.held).contains_key(&held.token) {
                return;
            }
            ended.await;
        }
    }

    /// Waits until this lease is over.
    pub async fn over(&self, held: &Held) {
        loop {
            let ended = self.ended.0.listen(); // before the look
            if held.is_over() {
                return;
            }
            ended.await;
        }
    }
}

impl FleetCore {
    /// Extends all leases.
    pub(super) async fn renew(&self, links: &super::LinkPair) {
        let all = self.leases.all();
        let all: Vec<_> = all.into_iter().filter(|held| !held.is_over()).collect();
        let now = Instant::now();
        let renewals = all.iter().map(|held| async {
            let told = ScriptCall {
                script: &SCRIPTS.renew,
                names: vec![held.name(), held.pieces()],
                arguments: vec![
                    held.token.clone().into_bytes(),
                    LEASE.as_millis().to_string().into_bytes(),
                ],
            };
            rt::within(RENEW_EVERY, links.ask.run(&told)).await
        });

        for (held, answer) in all.iter().zip(join_all(renewals).await) {
            match answer {
                Some(Ok(Value::Int(1))) => *lock(&held.confirmed) = now,
                Some(Ok(_)) => self.depose(held),
                _ if lock(&held.confirmed).elapsed() >= LEASE => self.depose(held),
                _ => {}
            }
        }
    }

    /// Gives back all whose fetch goes on.
    pub(super) fn give_back_all(self: &Arc<Self>) {
        for held in self.leases.all() {
            if held.is_ending.load(Ordering::Acquire) || held.is_over.swap(true, Ordering::AcqRel) {
                continue;
            }
            // Not by the task that publishes it: there may be none yet.
            let finished = Finished {
                shared: self.clone(),
                token: held.token.clone(),
            };
            let shared = self.clone();
            rt::spawn(async move {
                let (name, pieces) = (held.name(), held.pieces());
                shared.give_back(&name, &pieces, &held.token).await;
                drop(finished);
            });
        }
        self.leases.ended.0.notify(usize::MAX);
    }

    fn depose(&self, held: &Held) {
        // One whose commit is on its way may just have ended.
        if !held.is_ending.load(Ordering::Acquire) {
            self.count_deposed(held);
            self.leases.ended.0.notify(usize::MAX);
        }
    }

    /// Counts a lease that is not ours any more, once.
    pub(super) fn count_deposed(&self, held: &Held) {
        if !held.is_over.swap(true, Ordering::AcqRel) {
            add(&self.figures.deposed);
        }
    }

    /// Gives a lease back: what follows it learns that it is gone.
    pub(super) async fn give_back(&self, lease: &str, pieces: &str, token: &str) {
        let gone = vec![token.into(), b"0".to_vec(), b"gone".to_vec(), Vec::new()];
        self.end(lease, pieces, gone).await;
    }

    /// Ends a lease without a text. `arguments` are those of the script.
    pub(super) async fn end(&self, lease: &str, pieces: &str, arguments: Vec<Vec<u8>>) {
        let links = lock(&self.links).clone();
        let Some(links) = links else {
            return; // it runs out
        };
        let told = ScriptCall {
            script: &SCRIPTS.end,
            names: vec![lease.into(), pieces.into()],
            arguments,
        };
        let _runs_out_else = rt::within(self.carry_wait(), links.carry.run(&told)).await;
    }
}

/// The right to hand a text to the fleet.
pub(super) struct FleetLease {
    shared: Arc<FleetCore>,
    held: Arc<Held>,
    /// When the text landed.
    fence: Option<Instant>,
    /// Tells its task of its end. `None` before there is one, and after the end.
    task: Option<oneshot::Sender<LeaseEnd>>,
    has_ended: bool,
}

impl FleetLease {
    /// Of the token that an answer gave.
    pub fn given(
        shared: Arc<FleetCore>,
        question: &Question<'_>,
        look: &LookAnswer,
        token: String,
    ) -> Box<dyn Lease> {
        let held = Arc::new(Held {
            names: shared.names.key(question.key),
            key: question.key.to_vec(),
            token,
            epoch: look.said.lease_epoch(),
            given: look.said.now,
            received: look.received,
            ttl: question.ttl,
            grace: question.grace,
            confirmed: Mutex::new(look.sent),
            is_over: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        });
        shared.leases.add(held.clone());
        shared.wanted.notify(usize::MAX); // to renew it
        Box::new(FleetLease {
            shared,
            held,
            fence: None,
            task: None,
            has_ended: false,
        })
    }

    /// Starts the task that publishes what `reader` brings, and then the end.
    fn start(&mut self, reader: Option<Reader>) {
        let (tell, told) = oneshot::channel();
        self.task = Some(tell);
        let forgets = Finished {
            shared: self.shared.clone(),
            token: self.held.token.clone(),
        };
        let (shared, held) = (self.shared.clone(), self.held.clone());
        rt::spawn(async move {
            publish(shared, held, reader, told).await;
            drop(forgets);
        });
    }

    fn ends(&mut self, end: LeaseEnd) {
        self.has_ended = true;
        self.held.is_ending.store(true, Ordering::Release);
        if self.task.is_none() {
            self.start(None);
        }
        let task = self.task.take();
        let _may_have_stopped = task.map(|task| task.send(end));
    }
}

impl Lease for FleetLease {
    fn publish(&mut self, reader: Reader) {
        if self.task.is_none() {
            self.start(Some(reader));
        }
    }

    fn fence(&mut self) {
        self.fence = Some(Instant::now());
    }

    fn commit(mut self: Box<Self>, text: Poem, ttl: Option<Duration>) {
        let Some(at) = self.fence else {
            return; // it is not known when it landed
        };
        self.ends(LeaseEnd::Keep { text, ttl, at });
    }

    fn pass(mut self: Box<Self>, text: Poem) {
        self.ends(LeaseEnd::Pass { text });
    }

    fn fail(mut self: Box<Self>, how: Failure, why: &str) {
        let how = match how {
            Failure::Failed => "failed",
            Failure::Unreached => "unreached",
        };
        let mut length = why.len().min(WHY_MOST);
        while !why.is_char_boundary(length) {
            length -= 1;
        }
        let why = why[..length].to_string();
        self.ends(LeaseEnd::Fail { how, why });
    }
}

impl Drop for FleetLease {
    fn drop(&mut self) {
        if !self.has_ended {
            self.ends(LeaseEnd::GiveBack);
        }
    }
}

/// Forgets a lease when its task has ended, also by a panic.
struct Finished {
    shared: Arc<FleetCore>,
    token: String,
}

impl Drop for Finished {
    fn drop(&mut self) {
        self.shared.leases.remove(&self.token);
    }
}
