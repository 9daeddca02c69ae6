//! How a connection with a task ends: by what its client has acknowledged.

#[cfg(all(test, target_os = "linux"))]
mod tests;

use super::Handler;
use super::closing::ClosingGuard;
use super::connection::{ClientInput, Connection};
use crate::net::{Received, TcpInfo};
use crate::observe::Outcome;
use crate::rt::{self, CoopBudget};
use std::io;
use std::time::{Duration, Instant};

/// How long a polite close reads from a client that has acknowledged its answer but has
/// sent bytes. A close beside bytes that are still to be read is a reset, and some
/// systems then discard what the client has yet to read.
const LINGER: Duration = Duration::from_secs(1);

/// The shortest and the longest time between two looks at a connection. The first is
/// due after a round trip, but not before 10 ms: most near clients have closed by then,
/// and one timer serves many connections. Each pause is twice the one before.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How many looks for progress there are within the client timeout. A client that stops
/// taking is reset after at most a quarter more than that.
const STUCK_CHECKS: u32 = 4;

/// How far a client has taken what it was sent.
#[derive(Clone, Copy)]
pub(super) struct AckWatch {
    acked: u64,
    /// When it last took something.
    since: Instant,
    pause: Duration,
}

impl AckWatch {
    pub(super) fn new(info: &TcpInfo, now: Instant) -> AckWatch {
        AckWatch {
            acked: info.acked,
            since: now,
            pause: info.rtt.clamp(PAUSE_MIN, PAUSE_MAX),
        }
    }

    /// Notes what the client has taken by now. Returns whether it has taken nothing for
    /// `limit`.
    pub(super) fn is_stuck(&mut self, info: &TcpInfo, limit: Duration, now: Instant) -> bool {
        if info.acked != self.acked {
            self.acked = info.acked;
            self.since = now;
        }
        now.duration_since(self.since) >= limit
    }

    /// The time until the next look.
    pub(super) fn next_pause(&mut self, limit: Duration) -> Duration {
        let pause = self.pause.min(limit);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }
}

/// How a settled connection ended, on which we had sent `sent` bytes.
pub(super) fn end_of(info: &TcpInfo, sent: u64) -> Outcome {
    if info.acked >= sent {
        Outcome::Whole
    } else {
        Outcome::Left // it was reset
    }
}

impl<H: Handler> Connection<H> {
    /// Waits until the kernel takes more bytes. `None` if the client takes nothing
    /// for the client timeout.
    ///
    /// The kernel takes more only once the client has taken some 16 KiB. A client
    /// that takes less within the timeout is not stuck, so what it has acknowledged
    /// counts.
    pub(super) async fn writable(&self) -> Option<io::Result<()>> {
        let limit = self.server.limits.client_timeout;
        let Some(info) = self.stream.tcp_info() else {
            return rt::within(limit, self.stream.writable()).await;
        };

        let mut watch = AckWatch::new(&info, Instant::now());
        loop {
            let look = rt::within(limit / STUCK_CHECKS, self.stream.writable());
            if let Some(done) = look.await {
                return Some(done);
            }

            let info = self.stream.tcp_info()?;
            if watch.is_stuck(&info, limit, Instant::now()) {
                return None;
            }
        }
    }

    /// Sends FIN, and closes once the client has acknowledged it. A close before that
    /// could cut the answer off: a late byte of the client makes the kernel reset the
    /// connection and discard what it still holds.
    pub(super) async fn close_politely(&self, sent: u64, mut input: ClientInput) -> Outcome {
        let _closing = ClosingGuard::new(&self.server.stats);
        self.pass.answered();
        self.stream.disarm();
        if self.stream.finish().is_err() {
            // The client has reset the connection, perhaps after it had everything.
            let info = self.stream.tcp_info();
            return info.map_or(Outcome::Whole, |info| end_of(&info, sent));
        }

        let outcome = self.acknowledged(sent, &mut input).await;
        if outcome == Outcome::Stuck {
            self.stream.arm();
        } else if input.received > 0 && !input.is_over {
            let _closed = rt::within(LINGER, self.discard(&mut input)).await;
        }
        outcome
    }

    /// Waits until the client has acknowledged everything, for as long as it takes
    /// some of it within the client timeout. Discards what it sends. A unix socket
    /// does not wait: what is sent is in the client's hands.
    async fn acknowledged(&self, sent: u64, input: &mut ClientInput) -> Outcome {
        let limit = self.server.limits.client_timeout;
        let mut turns = CoopBudget::default();
        let mut watch = None;

        loop {
            let received = input.try_recv(&self.stream);
            let Some(info) = self.stream.tcp_info() else {
                return Outcome::Whole;
            };
            let now = Instant::now();
            let watch = watch.get_or_insert_with(|| AckWatch::new(&info, now));
            if info.is_settled() {
                return end_of(&info, sent);
            }
            if watch.is_stuck(&info, limit, now) {
                return Outcome::Stuck;
            }

            if let Received::Bytes(_) = received {
                turns.take().await; // it may send without a pause
                continue;
            }
            let pause = watch.next_pause(limit);
            if input.is_over {
                rt::sleep(pause).await; // there is always the end to read
            } else {
                let _sent_more = rt::within(pause, self.stream.readable()).await;
            }
        }
    }

    /// Reads and discards until the client closes.
    async fn discard(&self, input: &mut ClientInput) {
        let mut turns = CoopBudget::default();
        loop {
            match input.try_recv(&self.stream) {
                Received::Bytes(_) => turns.take().await, // it may send without a pause
                Received::Nothing if self.stream.readable().await.is_ok() => {}
                _ => return,
            }
        }
    }
}
