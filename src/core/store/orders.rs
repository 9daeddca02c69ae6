//! What the store's thread is asked to do. Plain data, no clock.
//!
//! Its order: purges, questions, texts to write. So a question that is asked after a
//! purge finds nothing of what was purged, and writing delays no question by more than
//! one text. Texts wait for a batch: until there are enough bytes, or the first of them
//! has waited for 200 ms.

use super::bounds::Bounds;
use super::database::NewRow;
use crate::cache::Purge;
use crate::semaphore::Permit;
use crate::tier::{Erase, OriginalDigest, StoredText};
use futures::channel::oneshot;
use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a text waits for others to be written with it. A kill loses that much.
pub(super) const BATCH_WAIT: Duration = Duration::from_millis(200);

/// A fetch asks for a text.
pub(super) struct StoreQuestion {
    pub wanted: WantedText,
    pub epoch: u64,
    pub permit: Permit,
    pub answer: oneshot::Sender<Option<StoredText>>,
}

/// Which text.
pub(super) enum WantedText {
    /// That of a key, while it may be served.
    Key(Vec<u8>),
    /// One made from this original, of any key and age.
    MadeFrom(OriginalDigest),
}

/// Texts are to be purged.
pub(super) struct PurgeOrder {
    pub texts: Erase,
    pub how: Purge,
    /// Dropped once it is done.
    pub done: mpsc::Sender<()>,
}

/// What to do next.
pub(super) enum Order {
    Purge(PurgeOrder),
    Answer(StoreQuestion),
    Write(Vec<NewRow>),
    /// Nothing, until then at most.
    Wait(Option<Instant>),
    /// Everything is done, and no more will come.
    Close,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Orders {
    pub purges_begun: u64,
    pub purges_ended: u64,
    purges: VecDeque<PurgeOrder>,
    questions: VecDeque<StoreQuestion>,
    rows: VecDeque<NewRow>,
    row_bytes: u64,
    /// When the first of the rows came.
    rows_since: Option<Instant>,
    pub is_closing: bool,
    pub is_closed: bool,
}

/// What became of a text that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It waits with others, and the thread knows until when: to wake it for each text
    /// would cost more than a third of its time.
    Waits,
    /// It is the first of a batch, or fills one: the thread is to be woken.
    ChangesTurn,
    /// There is no room for it, or the store is being closed.
    NoRoom,
}

impl Orders {
    pub fn ask(&mut self, question: StoreQuestion) {
        self.questions.push_back(question);
    }

    /// Adds a text, unless a purge has ended since `ended`.
    pub fn add(&mut self, row: NewRow, ended: u64, bounds: &Bounds, now: Instant) -> Added {
        if ended != self.purges_ended {
            return Added::Waits; // it is purged, as if it had been written
        }
        let before = self.row_bytes;
        let bytes = before + row.bytes();
        if row.bytes() > bounds.longest || bytes > bounds.queue || self.is_closing {
            return Added::NoRoom;
        }

        let is_first = self.rows.is_empty();
        self.row_bytes = bytes;
        self.rows_since.get_or_insert(now);
        self.rows.push_back(row);
        if is_first || (before < bounds.batch && bytes >= bounds.batch) {
            Added::ChangesTurn
        } else {
            Added::Waits
        }
    }

    /// Ends a purge: nothing of it may be written from now on.
    pub fn purge(&mut self, order: PurgeOrder) {
        self.purges_ended += 1;
        self.rows.retain(|row| !order.texts.takes(&row.key));
        if matches!(order.texts, Erase::Picked(_)) {
            // Another text may be of the same original as one of those.
            self.rows.iter_mut().for_each(|row| row.original = None);
        }
        self.row_bytes = self.rows.iter().map(NewRow::bytes).sum();
        if self.rows.is_empty() {
            self.rows_since = None;
        }
        self.purges.push_back(order);
    }

    /// The next question, while texts are written.
    pub fn question(&mut self) -> Option<StoreQuestion> {
        // A purge that waits comes first.
        self.purges.is_empty().then(|| self.questions.pop_front())?
    }

    /// What to do now.
    pub fn next(&mut self, bounds: &Bounds, now: Instant) -> Order {
        if let Some(order) = self.purges.pop_front() {
            return Order::Purge(order);
        }
        if let Some(question) = self.questions.pop_front() {
            return Order::Answer(question);
        }

        let due = self.rows_since.map(|since| since + BATCH_WAIT);
        let is_due = due.is_some_and(|due| due <= now);
        if is_due || self.row_bytes >= bounds.batch || (self.is_closing && due.is_some()) {
            return Order::Write(self.batch(bounds, now));
        }
        if self.is_closing {
            return Order::Close;
        }
        Order::Wait(due)
    }

    /// The oldest texts: as many as make a batch, and at least one.
    fn batch(&mut self, bounds: &Bounds, now: Instant) -> Vec<NewRow> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(row) = self.rows.pop_front() {
            if !batch.is_empty() && bytes + row.bytes() > bounds.batch {
                self.rows.push_front(row);
                break;
            }
            bytes += row.bytes();
            batch.push(row);
        }

        self.row_bytes = self.row_bytes.saturating_sub(bytes);
        self.rows_since = (!self.rows.is_empty()).then_some(now);
        batch
    }

    /// Puts a batch back that could not be written now. It is tried again after
    /// [`BATCH_WAIT`]. What was purged meanwhile is dropped: those purges still wait.
    pub fn put_back(&mut self, mut batch: Vec<NewRow>, now: Instant) {
        for order in &self.purges {
            batch.retain(|row| !order.texts.takes(&row.key));
        }
        for row in batch.into_iter().rev() {
            self.row_bytes += row.bytes();
            self.rows.push_front(row);
        }
        self.rows_since = Some(now);
    }

    /// Drops everything: nothing will be done any more.
    pub fn abandon(&mut self) -> Orders {
        let orders = Orders {
            purges_begun: self.purges_begun,
            purges_ended: self.purges_ended,
            is_closing: true,
            is_closed: true,
            ..Orders::default()
        };
        std::mem::replace(self, orders)
    }
}

#[cfg(test)]
mod tests {
    use super::super::age::ClockReading;
    use super::*;

    const BOUNDS: fn() -> Bounds = || Bounds::of(64 << 20);

    fn row(key: &str, bytes: usize) -> NewRow {
        NewRow {
            key: key.into(),
            original: None,
            text: vec![b'x'; bytes].into(),
            ttl: None,
            ended: ClockReading {
                boot: [0; 16],
                boot_ms: 0,
                wall_ms: 0,
            },
        }
    }

    fn keys(order: Order) -> Vec<String> {
        let Order::Write(batch) = order else {
            panic!("nothing is written")
        };
        let key = |row: NewRow| String::from_utf8(row.key).expect("a text");
        batch.into_iter().map(key).collect()
    }

    fn purge(orders: &mut Orders, texts: Erase) {
        let (done, _) = mpsc::channel();
        let how = Purge::Hard;
        orders.purge(PurgeOrder { texts, how, done });
    }

    #[test]
    fn texts_are_written_after_a_wait_or_once_there_are_enough() {
        let (mut orders, bounds, now) = (Orders::default(), BOUNDS(), Instant::now());
        assert!(matches!(orders.next(&bounds, now), Order::Wait(None)));

        assert_ne!(orders.add(row("a", 100), 0, &bounds, now), Added::NoRoom);
        let due = now + BATCH_WAIT;
        assert!(matches!(orders.next(&bounds, now), Order::Wait(Some(at)) if at == due));
        assert_eq!(keys(orders.next(&bounds, due)), ["a"]);

        let half = bounds.batch as usize / 2;
        for key in ["b", "c", "d"] {
            assert_ne!(orders.add(row(key, half), 0, &bounds, now), Added::NoRoom);
        }
        assert_eq!(keys(orders.next(&bounds, now)), ["b"]);
        orders.is_closing = true;
        assert_eq!(keys(orders.next(&bounds, now)), ["c"]);
        assert_eq!(keys(orders.next(&bounds, now)), ["d"]);
        assert!(matches!(orders.next(&bounds, now), Order::Close));
    }

    #[test]
    fn the_thread_is_woken_for_the_first_text_and_for_the_one_that_fills_a_batch() {
        let (mut orders, bounds, now) = (Orders::default(), BOUNDS(), Instant::now());
        let quarter = bounds.batch as usize / 4;
        let mut add = |key| orders.add(row(key, quarter), 0, &bounds, now);
        let told = ["a", "b", "c", "d", "e"].map(&mut add);
        let first_and_fourth = [
            Added::ChangesTurn,
            Added::Waits,
            Added::Waits,
            Added::ChangesTurn,
            Added::Waits,
        ];
        assert_eq!(told, first_and_fourth);

        assert!(matches!(orders.next(&bounds, now), Order::Write(_)));
        purge(&mut orders, Erase::All);
        let again = orders.add(row("f", 1), 1, &bounds, now);
        assert_eq!(again, Added::ChangesTurn);
    }

    #[test]
    fn no_more_than_the_bound_waits_to_be_written() {
        let (mut orders, bounds, now) = (Orders::default(), BOUNDS(), Instant::now());
        assert_eq!(
            orders.add(row("a", bounds.longest as usize), 0, &bounds, now),
            Added::NoRoom
        );

        let most = bounds.longest as usize - 1;
        let mut add = || orders.add(row("a", most), 0, &bounds, now);
        let added = (0..100).filter(|_| add() != Added::NoRoom);
        assert_eq!(added.count() as u64, bounds.queue / bounds.longest);
    }

    #[test]
    fn what_is_purged_is_not_written() {
        let (mut orders, bounds, now) = (Orders::default(), BOUNDS(), Instant::now());
        for key in ["a", "b", "ab"] {
            assert_ne!(orders.add(row(key, 1), 0, &bounds, now), Added::NoRoom);
        }
        purge(&mut orders, Erase::Key(b"b".to_vec()));
        assert_eq!(
            orders.add(row("late", 1), 0, &bounds, now),
            Added::Waits,
            "purged"
        );
        assert_ne!(orders.add(row("new", 1), 1, &bounds, now), Added::NoRoom);
        purge(
            &mut orders,
            Erase::Picked(Box::new(|key| key.starts_with(b"ab"))),
        );

        assert!(matches!(orders.next(&bounds, now), Order::Purge(_)));
        assert!(matches!(orders.next(&bounds, now), Order::Purge(_)));
        assert_eq!(keys(orders.next(&bounds, now + BATCH_WAIT)), ["a", "new"]);

        assert_ne!(orders.add(row("c", 1), 2, &bounds, now), Added::NoRoom);
        purge(&mut orders, Erase::All);
        assert!(matches!(orders.next(&bounds, now), Order::Purge(_)));
        assert!(matches!(orders.next(&bounds, now), Order::Wait(None)));
    }

    #[test]
    fn a_batch_that_is_put_back_is_tried_again_without_what_is_purged() {
        let (mut orders, bounds, now) = (Orders::default(), BOUNDS(), Instant::now());
        for key in ["a", "b"] {
            assert_ne!(orders.add(row(key, 1), 0, &bounds, now), Added::NoRoom);
        }
        let later = now + BATCH_WAIT;
        let Order::Write(batch) = orders.next(&bounds, later) else {
            panic!("nothing is written")
        };
        assert_ne!(orders.add(row("c", 1), 0, &bounds, later), Added::NoRoom);
        purge(&mut orders, Erase::Key(b"b".to_vec()));
        orders.put_back(batch, later);
        assert!(matches!(orders.next(&bounds, later), Order::Purge(_)));
        assert!(matches!(orders.next(&bounds, later), Order::Wait(Some(_))));
        assert_eq!(keys(orders.next(&bounds, later + BATCH_WAIT)), ["a", "c"]);
    }
}
