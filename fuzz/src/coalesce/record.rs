//! What is known of each fetch: its text, and what became of it.

use std::time::{Duration, Instant};

/// Where a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    Running,
    /// Its text is complete.
    Landed,
    /// It failed, or was dropped.
    Failed,
}

/// Until when a kept text may be served: fresh, and at all.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub fresh_until: Instant,
    pub stale_until: Instant,
}

pub struct Record {
    pub key: u8,
    /// What [`Writer::id`](poetry::flight::Writer::id) gives. Later flights may reuse
    /// it.
    flight: usize,
    number: usize,
    pub is_refresh: bool,
    /// Whether it may be one of several that fetch for themselves.
    pub is_alone: bool,
    /// Whether its text is still to be kept.
    pub is_keeping: bool,
    /// Whether a purge has taken its key away.
    pub is_detached: bool,
    pub state: State,
    /// What it has appended.
    pub text: String,
    attempts: usize,
    pub kept: Option<Times>,
    /// Until when clients may be told of its failure, or get its rejected text.
    pub negative_until: Option<Instant>,
}

impl Record {
    /// Appends a piece of `size` bytes or a little more. No two are alike.
    pub fn piece(&mut self, size: u8) -> String {
        let at = self.text.len();
        let mut piece = format!("{}.{}.{}.{at};", self.number, self.key, self.attempts);
        while piece.len() < usize::from(size) {
            piece.push('-');
        }

        self.text.push_str(&piece);
        piece
    }

    /// Forgets what was appended. The next attempt has another text.
    pub fn rewind(&mut self) {
        self.text.clear();
        self.attempts += 1;
    }

    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Waiting | State::Running)
    }

    /// Whether other requests join it.
    pub fn is_shareable(&self) -> bool {
        self.is_live() && self.is_keeping && !self.is_detached
    }

    /// Whether clients may be told of its failure, or get its rejected text.
    pub fn is_cached(&self, now: Instant) -> bool {
        self.negative_until.is_some_and(|until| now < until)
    }

    pub fn begin(&mut self) {
        assert_eq!(self.state, State::Waiting, "it starts once");
        self.state = State::Running;
    }

    /// It was dropped, if it has not ended in another way.
    pub fn drop(&mut self) {
        if self.is_live() {
            self.state = State::Failed;
        }
    }
}

/// All fetches by their number.
#[derive(Default)]
pub struct Fetches(pub Vec<Record>, Vec<(u8, Instant)>);

impl Fetches {
    pub fn add(&mut self, key: u8, flight: usize, is_refresh: bool, is_alone: bool) -> usize {
        let number = self.0.len();
        self.0.push(Record {
            key,
            flight,
            number,
            is_refresh,
            is_alone,
            is_keeping: true,
            is_detached: false,
            state: State::Waiting,
            text: String::new(),
            attempts: 0,
            kept: None,
            negative_until: None,
        });
        number
    }

    /// The newest fetch with this flight.
    pub fn by_flight(&self, id: usize) -> usize {
        let newest = self.0.iter().rposition(|record| record.flight == id);
        newest.expect("each flight is recorded")
    }

    /// A fetch of the key that can be joined for certain.
    pub fn shareable(&self, key: u8) -> Option<&Record> {
        let mut own = self.0.iter().filter(|record| record.key == key);
        own.find(|record| record.is_shareable() && !record.is_alone)
    }

    /// The fetch whose text is kept for the key.
    pub fn kept(&self, key: u8, now: Instant) -> Option<usize> {
        let is_kept = |times: Times| now < times.stale_until;
        let is_it = |record: &Record| record.key == key && record.kept.is_some_and(is_kept);
        self.0.iter().rposition(is_it)
    }

    /// This fetch's text was too long: until then, each request may fetch for itself.
    pub fn left_alone(&mut self, number: usize, until: Instant) {
        self.1.push((self.0[number].key, until));
    }

    pub fn may_be_alone(&self, key: u8, now: Instant) -> bool {
        self.1.iter().any(|(at, until)| *at == key && now < *until)
    }

    /// Notes that the text of this fetch is kept, and no earlier one of its key.
    pub fn keep(&mut self, number: usize, times: Times) {
        let key = self.0[number].key;
        let own = self.0.iter_mut().filter(|record| record.key == key);
        own.for_each(|record| record.kept = None);
        self.0[number].kept = Some(times);
        self.1.retain(|(at, _)| *at != key);
    }

    /// Notes a purge. Returns how many fetches it detaches: for certain, and maybe
    /// more.
    pub fn purge(&mut self, key: Option<u8>, now: Instant, grace: Duration) -> (u64, u64) {
        let picked = |at: u8| key.is_none_or(|key| key == at);
        let (mut sure, mut maybe) = (0, 0);

        for record in self.0.iter_mut().filter(|record| picked(record.key)) {
            if record.is_shareable() && record.state == State::Running {
                record.is_detached = true;
                *(if record.is_alone {
                    &mut maybe
                } else {
                    &mut sure
                }) += 1;
            }
            record.negative_until = None;
            if let Some(times) = &mut record.kept {
                times.fresh_until = times.fresh_until.min(now);
                times.stale_until = times.stale_until.min(now + grace);
            }
        }
        self.1.retain(|(at, _)| !picked(*at));
        (sure, maybe)
    }
}
