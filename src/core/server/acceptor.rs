//! Accepts the connections of one listener, one after the other.

use super::{Handler, Server};
use crate::net::Listener;
use crate::observe::Event;
use crate::rt;
use crate::semaphore::Permit;
use crate::slots::{Slot, Slots};
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Connections accepted before other work on the thread gets a turn: some milliseconds'
/// worth. A turn costs four system calls.
const BURST: usize = 256;

/// The first and the longest pause when accepting fails for lack of a resource.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Acceptor {
    accepted: usize,
    pause: Duration,
    /// The slot for the next connection. A connection that is answered at once leaves
    /// it.
    spare: Option<Slot>,
    /// The right to wait for the listener.
    turn: Option<Permit>,
    /// Whether a connection was accepted since the last wait.
    has_accepted: bool,
}

impl Acceptor {
    pub(super) fn new() -> Acceptor {
        Acceptor {
            accepted: 0,
            pause: PAUSE_MIN,
            spare: None,
            turn: None,
            has_accepted: false,
        }
    }

    /// Waits until the listener has a connection.
    pub(super) async fn wait(&mut self, listener: &Listener) {
        if self.turn.is_none() {
            self.turn = Some(listener.turn().await);
        }
        let _ready = listener.ready().await; // if this fails, accepting says why
        self.has_accepted = false;
    }

    /// Passes the turn to the next thread if there is something to do for it: this
    /// connection has made work that lasts, or is the second in a row.
    fn pass_turn(&mut self) {
        if self.spare.is_none() || self.has_accepted {
            self.turn = None;
        }
        self.has_accepted = true;
    }

    /// Accepts and handles the next connection, once there is a slot for it. False if
    /// none is waiting.
    pub(super) async fn accept_next<H: Handler>(
        &mut self,
        server: &Arc<Server<H>>,
        listener: &Listener,
    ) -> bool {
        self.accepted += 1;
        if self.accepted.is_multiple_of(BURST) {
            rt::yield_now().await;
        }

        let slot = self.slot(&server.slots).await;
        match listener.accept() {
            Ok(client) => {
                self.pause = PAUSE_MIN;
                self.spare = server.arrive(client, slot, Instant::now());
                self.pass_turn();
                return true;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) if is_about_one_connection(&e) => {}
            Err(e) => {
                server.stats.accept_pauses.fetch_add(1, Ordering::Relaxed);
                server.tell(Event::AcceptPaused {
                    error: &e,
                    pause: self.pause,
                });
                rt::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        }

        self.spare = Some(slot);
        true
    }

    /// The slot for the next connection: the spare one, unless others wait for it.
    async fn slot(&mut self, slots: &Slots) -> Slot {
        let spare = self.spare.take().filter(|_| !slots.are_wanted());
        match spare.or_else(|| slots.try_acquire()) {
            Some(slot) => slot,
            None => slots.acquire(Instant::now()).await,
        }
    }
}

/// Whether an error of `accept` concerns the connection, which is gone, and not this
/// process. EPERM is not among them: a sandbox or a security module that forbids
/// `accept` does so again at once, and without a pause that would be a busy loop.
fn is_about_one_connection(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    let about_one = [Errno::CONNABORTED, Errno::PROTO, Errno::INTR];
    errno.is_some_and(|errno| about_one.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semaphore::Semaphore;
    use futures::FutureExt;
    use std::pin::pin;

    #[test]
    fn the_turn_passes_on_where_there_is_work_for_another_thread() {
        let (turns, slots) = (Semaphore::new(1), Slots::new(1, 0));
        let passes_on = |has_spare: bool, has_accepted| {
            let mut acceptor = Acceptor::new();
            acceptor.turn = turns.acquire(Instant::now()).now_or_never();
            acceptor.spare = slots.try_acquire().filter(|_| has_spare);
            acceptor.has_accepted = has_accepted;

            acceptor.pass_turn();
            acceptor.turn.is_none()
        };

        assert!(!passes_on(true, false), "it was answered at once");
        assert!(passes_on(false, false), "it has a task");
        assert!(passes_on(true, true), "it is the second in a row");
    }

    #[test]
    fn a_slot_at_hand_goes_to_another_thread_that_waits_for_one() {
        let slots = Slots::new(1, 0);
        let mut acceptor = Acceptor::new();
        acceptor.spare = slots.try_acquire();
        let mut other = pin!(slots.acquire(Instant::now()));
        assert!(other.as_mut().now_or_never().is_none());

        assert!(acceptor.slot(&slots).now_or_never().is_none());
        assert!(other.now_or_never().is_some());
    }

    #[test]
    fn accepting_pauses_where_it_is_forbidden() {
        let is_retried_at_once = |errno: Errno| is_about_one_connection(&errno.into());
        assert!(is_retried_at_once(Errno::CONNABORTED));
        assert!(!is_retried_at_once(Errno::PERM));
        assert!(!is_retried_at_once(Errno::MFILE));
    }
}
