//! Tells the service manager how the service is (sd_notify(3)).
//!
//! One thread does this. It blocks where the manager's socket is full, and holds up
//! nothing else. What it says without being told to (see `routine`) is made when it can
//! be sent, so it is never old and never waits in a queue.

use super::routine::Routine;
use poetry::error::{Error, reason};
use sd_notify::NotifyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

/// Messages that may wait for the manager before reloads are no longer told to it: more
/// than a manager that lives ever leaves, and each SIGHUP can bring two.
const WAITING_MAX: usize = 64;

/// The thread that tells the manager.
pub(super) struct Thread {
    pub teller: Teller,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl Thread {
    /// Starts the thread. It says nothing before its first message.
    ///
    /// # Errors
    /// [`Error::Local`] if the system has no thread left.
    pub fn start(routine: Routine) -> Result<Thread, Error> {
        let (queue, queued) = channel();
        let (end, ended) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let run = move || {
            tell(&queued, &counter, routine);
            drop(end);
        };

        match thread::Builder::new().name("notify".into()).spawn(run) {
            Ok(_detached) => Ok(Thread {
                teller: Teller { queue, waiting },
                ended,
            }),
            Err(error) => Err(Error::Local {
                subject: "notify thread".into(),
                why: reason(&error),
            }),
        }
    }

    /// Waits until all messages are sent, or the deadline passes.
    pub fn finish(self, deadline: Instant) {
        self.teller.post(Message::End);
        let left = deadline.saturating_duration_since(Instant::now());
        let _late = self.ended.recv_timeout(left);
    }
}

enum Message {
    /// These lines.
    Lines(String),
    /// A reload is over; this became of it.
    Reloaded(String),
    /// Nothing more.
    End,
}

/// Sends what is in the queue, in order, and the routine's messages between.
fn tell(queue: &Receiver<Message>, waiting: &AtomicUsize, mut routine: Routine) {
    let Ok(first) = queue.recv() else { return };
    let mut message = Some(first);
    routine.begin(Instant::now());

    loop {
        if message.is_some() {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        match message {
            Some(Message::Lines(lines)) => send(&lines),
            Some(Message::Reloaded(became)) => {
                let status = routine.say(became, Instant::now());
                send(&format!("{}\n{status}", NotifyState::Ready));
            }
            Some(Message::End) => return,
            None => {}
        }

        if let Some(lines) = routine.due_lines(Instant::now()) {
            send(&lines);
        }
        let wait = routine.due().saturating_duration_since(Instant::now());
        message = match queue.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

fn send(lines: &str) {
    let _gone = sd_notify::notify(&[NotifyState::Custom(lines)]);
}

/// Queues messages for the manager. Clones share the queue.
#[derive(Clone)]
pub(super) struct Teller {
    queue: Sender<Message>,
    /// Messages in the queue, and the one that is being sent.
    waiting: Arc<AtomicUsize>,
}

impl Teller {
    pub fn say(&self, state: &NotifyState<'_>) {
        self.post(Message::Lines(state.to_string()));
    }

    fn post(&self, message: Message) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ended = self.queue.send(message);
    }

    /// Says that a reload begins. `None` if the manager does not listen, and is to hear
    /// nothing of this one.
    fn reloading(&self) -> Option<Teller> {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return None;
        }
        // Without the time systemd would wait for one until its own deadline.
        let now = NotifyState::monotonic_usec_now().ok()?;
        let lines = format!("{}\n{now}", NotifyState::Reloading);

        self.post(Message::Lines(lines));
        Some(self.clone())
    }
}

/// Tells the manager of reloads, if there is one.
pub(in crate::cmd) struct Reloads(pub(super) Option<Teller>);

impl Reloads {
    /// Says that a reload begins. Call it after the request, and before the reload.
    pub fn begin(&self) -> Reloading {
        Reloading {
            teller: self.0.as_ref().and_then(Teller::reloading),
            became: "the reload was abandoned".into(),
        }
    }
}

/// A reload that the manager knows of. It is told of the end when this is dropped.
pub(in crate::cmd) struct Reloading {
    teller: Option<Teller>,
    became: String,
}

impl Reloading {
    /// Says that the reload is over, and what became of it, in one line.
    pub fn end(mut self, became: String) {
        self.became = became;
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        if let Some(teller) = &self.teller {
            let became = std::mem::take(&mut self.became);
            teller.post(Message::Reloaded(became));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_listen_hears_of_no_more_reloads() {
        let (queue, queued) = channel();
        let waiting = Arc::default();
        let reloads = Reloads(Some(Teller { queue, waiting }));
        for _ in 0..1000 {
            reloads.begin().end("read 1 poem again".into());
        }

        let messages: Vec<Message> = queued.try_iter().collect();
        assert_eq!(messages.len(), WAITING_MAX);
        for pair in messages.chunks(2) {
            assert!(matches!(&pair[0], Message::Lines(lines) if lines.starts_with("RELOADING=1")));
            assert!(matches!(&pair[1], Message::Reloaded(_)));
        }
    }

    #[test]
    fn a_reload_that_is_abandoned_is_over() {
        let (queue, queued) = channel();
        let waiting = Arc::default();
        let reloads = Reloads(Some(Teller { queue, waiting }));
        drop(reloads.begin());

        let became = "the reload was abandoned";
        assert!(matches!(queued.try_recv(), Ok(Message::Lines(_))));
        assert!(matches!(queued.try_recv(), Ok(Message::Reloaded(is)) if is == became));
    }
}
