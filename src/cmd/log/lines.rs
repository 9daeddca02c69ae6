//! The thread that writes the log, so that a slow stderr slows no connection.
//!
//! A line that repeats within a second is counted instead, and the count follows.
//! Logging a hit costs an atomic addition; only the first hit in a second costs more.

use colored::Colorize;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Prints a line on stderr. If stderr is closed, the line is lost.
pub(super) fn print(line: &str) {
    let _closed = writeln!(anstream::stderr(), "{line}");
}

/// The lines that are counted when they repeat.
#[derive(Debug, Clone, Copy)]
pub(super) enum Repeated {
    Hit,
    Coalesced,
    Own,
    Stale,
    CachedFailure,
}

impl Repeated {
    /// The number of variants.
    const COUNT: usize = Repeated::CachedFailure as usize + 1;

    fn text(self) -> &'static str {
        match self {
            Repeated::Hit => "using the cached poem",
            Repeated::Coalesced => "joining the fetch under way",
            Repeated::Own => "sending a poem",
            Repeated::Stale => "using a stale poem",
            Repeated::CachedFailure => "using a cached failure",
        }
    }
}

/// How many lines may wait for a slow stderr. Further ones are dropped, because a log
/// must not stop the service.
const QUEUE: usize = 4096;

/// How long repeats are counted before the count is printed.
const COUNTING: Duration = Duration::from_secs(1);

/// The log, before it is written.
pub(super) struct Lines {
    queue: SyncSender<Message>,
    /// How often each [`Repeated`] has occurred since it was printed; 0 if it is not
    /// being counted.
    counts: [AtomicU64; Repeated::COUNT],
}

enum Message {
    Line(String),
    /// This line is now being counted.
    Counting(Repeated),
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the thread.
    pub fn start() -> Arc<Lines> {
        let (queue, messages) = sync_channel(QUEUE);
        let lines = Arc::new(Lines {
            queue,
            counts: Default::default(),
        });

        let writer = Writer {
            lines: lines.clone(),
            counting: Vec::new(),
        };
        thread::spawn(move || writer.run(&messages));
        lines
    }

    pub fn add(&self, line: String) {
        let _dropped = self.queue.try_send(Message::Line(line));
    }

    pub fn add_repeated(&self, line: Repeated) {
        let count = &self.counts[line as usize];
        if count.fetch_add(1, Ordering::Relaxed) == 0
            && self.queue.try_send(Message::Counting(line)).is_err()
        {
            count.store(0, Ordering::Relaxed); // dropped, so nothing would print the count
        }
    }

    /// Waits until everything added so far is written, at most [`COUNTING`].
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _late = written.recv_timeout(COUNTING);
        }
    }
}

/// What the thread owns.
struct Writer {
    lines: Arc<Lines>,
    /// The lines being counted and since when, oldest first.
    counting: Vec<(Repeated, Instant)>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match self.next(messages) {
                Some(Message::Line(line)) => print(&line),
                Some(Message::Counting(line)) => {
                    print(&line.text().dimmed().to_string());
                    self.counting.push((line, Instant::now()));
                }
                Some(Message::Flush(done)) => {
                    self.print_counts(Duration::ZERO);
                    let _left = done.send(());
                }
                None => {}
            }
            self.print_counts(COUNTING);
        }
    }

    /// The next message, or nothing once a count is to be printed.
    fn next(&self, messages: &Receiver<Message>) -> Option<Message> {
        let Some((_, since)) = self.counting.first() else {
            return messages.recv().ok();
        };
        let left = COUNTING.saturating_sub(since.elapsed());
        messages.recv_timeout(left).ok()
    }

    /// Prints the counts of lines that have been counted for at least `age`.
    fn print_counts(&mut self, age: Duration) {
        while let Some((line, since)) = self.counting.first().copied()
            && since.elapsed() >= age
        {
            self.counting.remove(0);

            let count = self.lines.counts[line as usize].swap(0, Ordering::Relaxed);
            let repeats = count.saturating_sub(1);
            if repeats > 0 {
                let text = format!("{} ({repeats} more within a second)", line.text());
                print(&text.dimmed().to_string());
            }
        }
    }
}
