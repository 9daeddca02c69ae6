//! Announces that a service is ready, and that it stops: on stdout, and to a service
//! manager, which also hears of reloads, how the service is, and that it lives.
//!
//! A pipe and a service manager's socket may be full, and then writing blocks. So each
//! is written by a thread of its own, which holds up neither clients nor signals. A
//! message that waits is written once there is room.

mod manager;
mod routine;
mod status;

pub(super) use manager::Reloads;
use manager::Thread;
use poetry::error::{Error, reason};
use poetry::heartbeat::Heartbeat;
pub(super) use routine::Look;
use routine::{Routine, Watchdog};
use sd_notify::NotifyState;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the end of the process waits for messages that are not written yet.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The two threads.
pub(super) struct Announcer {
    stdout: Outbox,
    /// `None` without a service manager.
    manager: Option<Thread>,
}

impl Announcer {
    /// Starts the threads. `look` makes the figures for a service manager, and
    /// `heartbeat` is called if it has a watchdog.
    ///
    /// # Errors
    /// [`Error::Local`] if the system has no thread left.
    pub fn start(
        look: Look,
        heartbeat: impl FnOnce() -> Arc<Heartbeat>,
    ) -> Result<Announcer, Error> {
        let has_manager = std::env::var_os("NOTIFY_SOCKET").is_some();
        let start_manager = || {
            let now = Instant::now();
            let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
            let watchdog = timeout.map(|timeout| Watchdog::new(timeout, heartbeat(), now));
            Thread::start(Routine::new(look, watchdog, now))
        };
        Ok(Announcer {
            stdout: Outbox::start("stdout")?,
            manager: has_manager.then(start_manager).transpose()?,
        })
    }

    /// Prints the ready lines, and tells the service manager.
    pub fn ready(&self, lines: String) {
        self.stdout.post(move || {
            let mut stdout = stdout();
            let written = stdout.write_all(lines.as_bytes());
            let _closed = written.and_then(|()| stdout.flush());
        });
        self.notify(&NotifyState::Ready);
    }

    /// Tells the service manager.
    pub fn stopping(&self) {
        self.notify(&NotifyState::Stopping);
    }

    /// What tells the service manager of reloads.
    pub fn reloads(&self) -> Reloads {
        Reloads(self.manager.as_ref().map(|thread| thread.teller.clone()))
    }

    fn notify(&self, state: &NotifyState<'_>) {
        if let Some(manager) = &self.manager {
            manager.teller.say(state);
        }
    }

    /// Waits until all messages are written, at most a second.
    pub fn finish(self) {
        let deadline = Instant::now() + LAST_WAIT;
        self.stdout.finish(deadline);
        if let Some(manager) = self.manager {
            manager.finish(deadline);
        }
    }
}

/// A thread that does the work posted to it, in order.
struct Outbox {
    queue: Sender<Box<dyn FnOnce() + Send>>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl Outbox {
    fn start(name: &str) -> Result<Outbox, Error> {
        let (queue, queued) = channel::<Box<dyn FnOnce() + Send>>();
        let (end, ended) = channel();
        let run = move || {
            queued.into_iter().for_each(|work| work());
            drop(end);
        };

        match thread::Builder::new().name(name.into()).spawn(run) {
            Ok(_detached) => Ok(Outbox { queue, ended }),
            Err(error) => Err(Error::Local {
                subject: format!("{name} thread"),
                why: reason(&error),
            }),
        }
    }

    fn post(&self, work: impl FnOnce() + Send + 'static) {
        let _ended = self.queue.send(Box::new(work));
    }

    /// Waits until all work is done, or the deadline passes.
    fn finish(self, deadline: Instant) {
        drop(self.queue);
        let left = deadline.saturating_duration_since(Instant::now());
        let _late = self.ended.recv_timeout(left);
    }
}
