//! The thread that writes the log, so that a slow stderr slows no connection.
//!
//! Lines of one kind are folded. The first is printed at once, and those that follow
//! within a second are counted:
//!
//! | lines in the second | printed at its end |
//! |---|---|
//! | 1 | nothing |
//! | 2 | the second line |
//! | more | the second line, and how many more there were |
//!
//! Logging a hit costs an atomic addition; only the first two in a second cost more.

use super::journal::Line;
use colored::Colorize;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Writes a line on stderr, in one piece so that no other output gets in between, and
/// without colours where they are not wanted.
///
/// # Errors
/// The system's. A part of the line may be written.
pub(super) fn print(line: &Line) -> io::Result<()> {
    print_after("", line)
}

/// Writes a line like [`print`], after the end of another one.
fn print_after(end: &str, line: &Line) -> io::Result<()> {
    static HAS_COLORS: LazyLock<bool> = LazyLock::new(|| {
        let choice = anstream::AutoStream::choice(&io::stderr());
        choice != anstream::ColorChoice::Never
    });

    let mut text = end.to_string() + line.prefix();
    if *HAS_COLORS {
        text.push_str(&line.text);
    } else {
        text.extend(anstream::adapter::strip_str(&line.text));
    }
    text.push('\n');
    io::stderr().write_all(text.as_bytes())
}

/// How many lines may wait for a slow stderr. Further ones are lost, because a log must
/// not stop the service.
const QUEUE: usize = 4096;

/// How long the end of the process waits for the log.
const FLUSH: Duration = Duration::from_secs(1);

/// How long repeats are counted before the count is printed.
const COUNTING: Duration = Duration::from_secs(1);

/// The answers that are logged without a lock: they may come 100,000 times a second.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Hit,
    Coalesced,
    Own,
    Stale,
    CachedFailure,
    Live,
}

impl Answer {
    /// The number of variants.
    const COUNT: usize = Answer::Live as usize + 1;
}

/// The log, before it is written.
pub(super) struct Lines {
    queue: SyncSender<Message>,
    /// Lines that found no place in the queue or could not be written, and that are not
    /// reported yet.
    lost: AtomicU64,
    /// Lines that were lost since the start.
    lost_in_all: Arc<AtomicU64>,
    /// The line that reports how many were lost.
    lost_line: fn(u64) -> Line,
    answers: [Arc<Repeats>; Answer::COUNT],
    /// The kinds of events counted at the moment. Held for a look.
    events: Mutex<HashMap<String, Arc<Repeats>>>,
}

/// One kind of lines.
#[derive(Default)]
struct Repeats {
    /// Lines since the count was printed; 0 if the kind is not being counted.
    count: AtomicU64,
    /// The second of these lines. Held to write or take it.
    example: Mutex<Option<Line>>,
}

impl Repeats {
    fn example(&self) -> MutexGuard<'_, Option<Line>> {
        let guard = self.example.lock();
        guard.expect("no code panics while it holds an example's lock")
    }
}

enum Message {
    Line(Line),
    /// The first line of its kind; from now on they are counted.
    First(Arc<Repeats>, Line),
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the thread. `lost_line` makes the line that reports lost lines.
    ///
    /// # Errors
    /// The system's, if it has no thread left.
    pub fn start(lost_line: fn(u64) -> Line) -> io::Result<Arc<Lines>> {
        let (queue, messages) = sync_channel(QUEUE);
        let lines = Arc::new(Lines {
            queue,
            lost: AtomicU64::new(0),
            lost_in_all: Arc::default(),
            lost_line,
            answers: Default::default(),
            events: Mutex::default(),
        });

        let writer = Writer {
            lines: lines.clone(),
            counting: Vec::new(),
            is_torn: false,
            written: 0,
        };
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || writer.run(&messages))?;
        Ok(lines)
    }

    /// Adds a line of its own.
    pub fn add(&self, line: Line) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.lose(1);
        }
    }

    /// How many lines were lost since the start.
    pub fn lost(&self) -> Arc<AtomicU64> {
        self.lost_in_all.clone()
    }

    fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        self.lost_in_all.fetch_add(lines, Ordering::Relaxed);
    }

    /// Adds an answer's line. `line` is called for two lines in a second at most.
    pub fn answer(&self, answer: Answer, line: impl FnOnce() -> Line) {
        self.count(&self.answers[answer as usize], line);
    }

    /// Adds an event's line of this kind. `line` is called for two lines in a second at
    /// most.
    pub fn event(&self, kind: String, line: impl FnOnce() -> Line) {
        let repeats = self.events().entry(kind).or_default().clone();
        self.count(&repeats, line);
    }

    fn events(&self) -> MutexGuard<'_, HashMap<String, Arc<Repeats>>> {
        let guard = self.events.lock();
        guard.expect("no code panics while it holds the events' lock")
    }

    fn count(&self, repeats: &Arc<Repeats>, line: impl FnOnce() -> Line) {
        match repeats.count.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let first = Message::First(repeats.clone(), line());
                if self.queue.try_send(first).is_err() {
                    let lost = repeats.count.swap(0, Ordering::Relaxed); // nothing prints it
                    self.lose(lost);
                }
            }
            1 => *repeats.example() = Some(line()),
            _ => {}
        }
    }

    /// Waits until everything added so far is written, at most [`FLUSH`].
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        let (done, written) = sync_channel(1);

        // There is no `send` with a deadline. The queue is full only behind a slow
        // stderr.
        let mut flush = Message::Flush(done);
        while let Err(TrySendError::Full(unsent)) = self.queue.try_send(flush) {
            if Instant::now() >= deadline {
                return;
            }
            flush = unsent;
            thread::sleep(FLUSH / 100);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let _late = written.recv_timeout(left);
    }
}

/// What the thread owns.
struct Writer {
    lines: Arc<Lines>,
    /// The kinds being counted, oldest first.
    counting: Vec<Counting>,
    /// Whether the last line was written in part.
    is_torn: bool,
    /// Messages since the last look for lost lines.
    written: usize,
}

struct Counting {
    repeats: Arc<Repeats>,
    first: Line,
    since: Instant,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match self.next(messages) {
                Some(Message::Line(line)) => self.print(&line),
                Some(Message::First(repeats, first)) => {
                    self.print(&first);
                    self.counting.push(Counting {
                        repeats,
                        first,
                        since: Instant::now(),
                    });
                }
                Some(Message::Flush(done)) => {
                    self.print_counts(Duration::ZERO);
                    self.report_lost();
                    let _left = done.send(());
                }
                None => {}
            }
            self.print_counts(COUNTING);
        }
    }

    /// The next message, or nothing once a count is to be printed. Reports lost lines
    /// when the queue is empty, and after each queueful while it never is.
    fn next(&mut self, messages: &Receiver<Message>) -> Option<Message> {
        let waiting = messages.try_recv().ok();
        self.written += 1;
        if waiting.is_none() || self.written == QUEUE {
            self.written = 0;
            self.report_lost();
        }
        if waiting.is_some() {
            return waiting;
        }

        let Some(counting) = self.counting.first() else {
            return messages.recv().ok();
        };
        let left = COUNTING.saturating_sub(counting.since.elapsed());
        messages.recv_timeout(left).ok()
    }

    /// Writes a line, or counts it as lost.
    fn print(&mut self, line: &Line) {
        if self.try_print(line).is_err() {
            self.lines.lose(1);
        }
    }

    /// Writes a line. After one that was cut off (the disk was full, say) it starts a
    /// new one, so that only the torn line is no JSON.
    fn try_print(&mut self, line: &Line) -> io::Result<()> {
        let end = if self.is_torn { "\n" } else { "" };
        let written = print_after(end, line);
        self.is_torn = written.is_err();
        written
    }

    fn report_lost(&mut self) {
        let lost = self.lines.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && self.try_print(&(self.lines.lost_line)(lost)).is_err() {
            self.lines.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Prints the counts of kinds that have been counted for at least `age`.
    fn print_counts(&mut self, age: Duration) {
        let is_due = |counting: &Counting| counting.since.elapsed() >= age;
        let due = self.counting.iter().take_while(|kind| is_due(kind)).count();
        if due == 0 {
            return;
        }

        let done: Vec<Counting> = self.counting.drain(..due).collect();
        for counting in done {
            let count = counting.repeats.count.swap(0, Ordering::Relaxed);
            let example = counting.repeats.example().take();
            if let Some(line) = folded(count, example.unwrap_or(counting.first)) {
                self.print(&line);
            }
        }

        let is_counted = |repeats: &Repeats| repeats.count.load(Ordering::Relaxed) > 0;
        self.lines.events().retain(|_, repeats| is_counted(repeats));
    }
}

/// What follows the first of `count` lines. `example` is another of them.
fn folded(count: u64, mut example: Line) -> Option<Line> {
    match count.saturating_sub(2) {
        0 if count < 2 => None,
        0 => Some(example),
        more => {
            let more = format!("({} more within a second)", thousands(more));
            example.text += &format!(" {}", more.dimmed());
            Some(example)
        }
    }
}

/// A number in groups of three digits.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three_digits() {
        let shown = [0, 12, 999, 1000, 1_204, 123_456, 1_000_000].map(thousands);
        let wanted = ["0", "12", "999", "1,000", "1,204", "123,456", "1,000,000"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn every_line_of_a_kind_is_printed_or_counted() {
        colored::control::set_override(false);
        let after = |count| {
            let example = Line::trouble("again".into());
            folded(count, example).map(|line| line.text)
        };
        assert_eq!(after(0), None);
        assert_eq!(after(1), None);
        assert_eq!(after(2).as_deref(), Some("again"));
        let many = after(1206);
        assert_eq!(many.as_deref(), Some("again (1,204 more within a second)"));
    }
}
