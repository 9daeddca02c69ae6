//! Closes short answers once their clients have acknowledged them.
//!
//! A close before that leaves the answer to the kernel. A late byte of the client
//! could then cut it off, and a client that takes nothing would cost the kernel 33 kB
//! beyond any limit of ours. An acknowledgement takes a round trip, or until the
//! client closes. So the connections wait here, in one list, each with its slot but
//! without a task of its own or a registration with the reactor. One task looks at
//! each when that is due.

use super::ending::{AckWatch, PAUSE_MIN, end_of};
use super::{Answer, Handler, Server};
use crate::net::{Accepted, Received};
use crate::observe::Outcome;
use crate::rt;
use crate::stats::Stats;
use event_listener::Event;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Looks before other work on the thread gets a turn: some 200 us' worth.
const BURST: usize = 64;

/// A connection whose answer and end are sent but not acknowledged.
struct Unacknowledged {
    answer: Answer,
    watch: AckWatch,
    /// Counted until it leaves the list, in whatever way.
    listed: Listed,
}

/// Counts a connection of the list until it is dropped.
struct Listed(Arc<Stats>);

impl Listed {
    fn new(stats: Arc<Stats>) -> Listed {
        stats.unacknowledged.fetch_add(1, Ordering::AcqRel);
        Listed(stats)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.unacknowledged.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The connections that wait for their clients' acknowledgement.
#[derive(Default)]
pub(super) struct Closing {
    list: Mutex<List>,
    /// Wakes the task for a look that is due before the one it waits for.
    sooner: Event,
}

#[derive(Default)]
struct List {
    /// By the time of the next look, and a number that tells apart those of one time.
    due: BTreeMap<(Instant, u64), Unacknowledged>,
    number: u64,
    /// Whether a task looks at them.
    has_task: bool,
}

/// What the task does next.
enum Next {
    Look(BTreeMap<(Instant, u64), Unacknowledged>),
    Wait(Instant),
    End,
}

impl Closing {
    /// Puts a connection into the list. Returns whether a task must be started.
    fn put(&self, connection: Unacknowledged, at: Instant) -> bool {
        let mut list = self.lock();
        let is_first = list.due.first_key_value().is_none_or(|(key, _)| at < key.0);
        list.number += 1;
        let key = (at, list.number);
        list.due.insert(key, connection);
        let had_task = std::mem::replace(&mut list.has_task, true);
        drop(list);

        if is_first && had_task {
            self.sooner.notify(1);
        }
        !had_task
    }

    fn next(&self, now: Instant) -> Next {
        let mut list = self.lock();
        let later = list.due.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut list.due, later);
        if !due.is_empty() {
            return Next::Look(due);
        }

        match list.due.first_key_value() {
            Some((first, _)) => Next::Wait(first.0),
            None => {
                list.has_task = false;
                Next::End
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection with a task as one that only waits for its end, until it is
/// dropped: ending the process cuts none of these.
pub(super) struct ClosingGuard<'a> {
    stats: &'a Stats,
}

impl ClosingGuard<'_> {
    pub(super) fn new(stats: &Stats) -> ClosingGuard<'_> {
        stats.closing.fetch_add(1, Ordering::AcqRel);
        ClosingGuard { stats }
    }
}

impl Drop for ClosingGuard<'_> {
    fn drop(&mut self) {
        self.stats.closing.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<H: Handler> Server<H> {
    /// Looks at a connection until it is acknowledged, and closes it then. Resets it
    /// if the client takes nothing for the client timeout.
    pub(super) fn close_later(self: &Arc<Self>, answer: Answer, watch: AckWatch) {
        answer.pass.answered();
        let connection = Unacknowledged {
            answer,
            watch,
            listed: Listed::new(self.stats.clone()),
        };
        if self.look_later(connection, Instant::now()) {
            let server = self.clone();
            rt::spawn(async move { server.close_acknowledged().await });
        }
    }

    /// Returns whether a task must be started.
    fn look_later(&self, mut connection: Unacknowledged, now: Instant) -> bool {
        let pause = connection.watch.next_pause(self.limits.client_timeout);
        self.closing.put(connection, now + pause)
    }

    /// Looks at the connections of the list, each when it is due, until none is left.
    async fn close_acknowledged(self: Arc<Self>) {
        let mut sooner = self.closing.sooner.listen();
        loop {
            let now = Instant::now();
            match self.closing.next(now) {
                Next::Look(due) => {
                    for (looks, connection) in due.into_values().enumerate() {
                        self.look_again(connection, now);
                        if looks % BURST == BURST - 1 {
                            rt::yield_now().await;
                        }
                    }
                }
                Next::Wait(until) => {
                    let pause = until.duration_since(now).max(PAUSE_MIN);
                    if rt::within(pause, &mut sooner).await.is_some() {
                        sooner = self.closing.sooner.listen();
                    }
                }
                Next::End => return,
            }
        }
    }

    fn look_again(self: &Arc<Self>, mut connection: Unacknowledged, now: Instant) {
        let client = &connection.answer.client;
        let info = client.tcp_info();
        let asked = u64::from(connection.answer.asked.received);
        let limit = self.limits.client_timeout;

        let outcome = match info {
            Some(info) if info.received > asked && has_sent_bytes(client) => None,
            Some(info) if info.is_settled() => Some(end_of(&info, connection.answer.delivery.sent)),
            Some(info) if connection.watch.is_stuck(&info, limit, now) => {
                client.arm();
                Some(Outcome::Stuck)
            }
            Some(_) => {
                self.look_later(connection, now);
                return;
            }
            None => Some(Outcome::Left), // it was a TCP connection when it came here
        };

        let Unacknowledged { answer, listed, .. } = connection;
        drop(listed);
        match outcome {
            Some(outcome) => self.record(answer.record(outcome, &answer.client.peer(), now)),
            None => self.go_on(answer, 1), // bytes that are not read would reset the close
        }
    }
}

/// Whether the client has sent bytes. Discards some of them.
fn has_sent_bytes(client: &Accepted) -> bool {
    matches!(client.try_recv(&mut [0; 64]), Received::Bytes(_))
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
