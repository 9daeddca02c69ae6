//! The last five minutes: a ring of samples, made of the differences between snapshots.
//! A page opened during an outage shows how it began, and when, if that is longer ago.

use super::clock::Clock;
use crate::control::{ConnectionCounts, Histogram, REASONS, Snapshot};
use crate::observe::{Class, FetchCause};
use crate::stats::FetchResult;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time between two samples: five minutes of them are a picture with 150 points,
/// as many as a screen shows apart.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// How many samples are kept: five minutes of them. Each takes less than 500 bytes.
pub const MAX_SAMPLES: usize = 150;

/// After so long without trouble, the next one is another: as far as a health report
/// looks back.
const ROW_PAUSE: Duration = Duration::from_secs(60);

/// The totals at one moment.
#[derive(Debug, Clone, Default)]
struct Totals {
    classes: [u64; Class::ALL.len()],
    failures: [u64; REASONS.len()],
    sent: u64,
    fetches: u64,
    failed_refreshes: u64,
    evicted: u64,
    accept_pauses: u64,
    panics: u64,
    wait: Vec<u64>,
}

/// What has changed between two moments.
#[derive(Debug, Clone, Default)]
pub struct Difference {
    totals: Totals,
}

struct Sample {
    at: Instant,
    totals: Totals,
    open: u64,
}

/// Something that a [`Difference`] has a number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Answers past the ttl.
    Stale,
    /// Answers that were not whole, by no fault of the client.
    Failed,
    /// Refreshes that failed, or brought a text that was rejected.
    FailedRefresh,
    /// Pauses of accepting.
    AcceptPause,
    /// Bugs that ended a task.
    Panic,
}

impl Trouble {
    const ALL: [Trouble; 5] = [
        Trouble::Stale,
        Trouble::Failed,
        Trouble::FailedRefresh,
        Trouble::AcceptPause,
        Trouble::Panic,
    ];
}

/// Troubles of one kind, one after the other.
#[derive(Debug, Clone, Copy)]
struct Row {
    since: Instant,
    /// The sample after the last one.
    last: Instant,
}

impl Row {
    /// Whether a trouble at this moment belongs to it.
    fn goes_on(self, at: Instant) -> bool {
        at.saturating_duration_since(self.last) <= ROW_PAUSE
    }
}

/// The samples of the last five minutes, and since when there is trouble: that may be
/// longer ago.
pub struct History {
    samples: VecDeque<Sample>,
    /// The last row of each trouble, by its number.
    rows: [Option<Row>; Trouble::ALL.len()],
    bounds: &'static [f64],
}

impl History {
    /// Nothing yet: the service started at `started`.
    pub fn new(started: Instant) -> History {
        let start = Sample {
            at: started,
            totals: Totals::default(),
            open: 0,
        };
        History {
            samples: VecDeque::from([start]),
            rows: Default::default(),
            bounds: &[],
        }
    }

    /// Takes a sample. To be called every [`SAMPLE_INTERVAL`].
    pub fn take(&mut self, snapshot: &Snapshot, now: Instant) {
        self.bounds = snapshot.wait.bounds;
        let totals = Totals::of(snapshot);
        self.note_troubles(&totals, now);
        self.samples.push_back(Sample {
            at: now,
            totals,
            open: snapshot.connections.open,
        });

        // One more than there are differences.
        while self.samples.len() > MAX_SAMPLES + 1 {
            self.samples.pop_front();
        }
    }

    /// Continues the rows of troubles, or begins others.
    fn note_troubles(&mut self, totals: &Totals, now: Instant) {
        let Some(before) = self.samples.back() else {
            return;
        };
        let change = Difference::between(&before.totals, totals);
        for trouble in Trouble::ALL {
            if change.count(trouble) == 0 {
                continue;
            }
            let row = &mut self.rows[trouble as usize];
            let row_before = row.filter(|row| row.goes_on(before.at));
            let since = row_before.map_or(before.at, |row| row.since);
            *row = Some(Row { since, last: now });
        }
    }

    /// What has changed within the last `span`, or since the first sample.
    pub fn last(&self, span: Duration) -> Difference {
        let (Some(first), Some(last)) = (self.sample_before(span), self.samples.back()) else {
            return Difference::default();
        };
        Difference::between(&first.totals, &last.totals)
    }

    /// How long clients waited for the first byte in the last five minutes. Its sum is
    /// not known.
    pub fn wait(&self) -> Histogram {
        let change = self.last(SAMPLE_INTERVAL * MAX_SAMPLES as u32);
        Histogram {
            bounds: self.bounds,
            counts: change.totals.wait,
            sum: 0.0,
        }
    }

    /// When the present row of these began, however long ago. `None` if there is none,
    /// or its last one is over a minute ago.
    pub fn row_since(&self, trouble: Trouble) -> Option<Instant> {
        let now = self.samples.back()?.at;
        let row = self.rows[trouble as usize]?;
        row.goes_on(now).then_some(row.since)
    }

    /// The samples of the last `span`, a list for each figure; rates are per second.
    pub fn to_json(&self, span: Duration, clock: &Clock) -> Value {
        let most = span.as_secs() / SAMPLE_INTERVAL.as_secs();
        let most = usize::try_from(most).unwrap_or(MAX_SAMPLES);
        let pairs: Vec<_> = self.pairs().collect();
        let pairs = &pairs[pairs.len().saturating_sub(most)..];

        let mut object = Map::new();
        let mut add = |name: &str, value: &dyn Fn(&Sample, &Sample) -> Value| {
            let values = pairs.iter().map(|(before, after)| value(before, after));
            object.insert(name.to_string(), values.collect());
        };
        add("t", &|_, after| json!(clock.date(after.at)));
        for (at, class) in Class::ALL.into_iter().enumerate() {
            add(class.word(), &|before, after| {
                per_second(before, after, |totals| totals.classes[at])
            });
        }
        add("sent", &|before, after| {
            per_second(before, after, |totals| totals.sent)
        });
        add("fetches", &|before, after| {
            per_second(before, after, |totals| totals.fetches)
        });
        add("open", &|_, after| json!(after.open));
        add("wait95", &|before, after| {
            let change = Difference::between(&before.totals, &after.totals);
            json!(quantile(self.bounds, &change.totals.wait, 0.95))
        });
        Value::Object(object)
    }

    fn pairs(&self) -> impl DoubleEndedIterator<Item = (&Sample, &Sample)> {
        self.samples.iter().zip(self.samples.iter().skip(1))
    }

    /// The newest sample that is at least `span` older than the last one, or the first.
    fn sample_before(&self, span: Duration) -> Option<&Sample> {
        let last = self.samples.back()?.at;
        let is_before = |sample: &&Sample| last.saturating_duration_since(sample.at) >= span;
        let found = self.samples.iter().rev().find(is_before);
        found.or(self.samples.front())
    }
}

impl Difference {
    fn between(first: &Totals, last: &Totals) -> Difference {
        let wait = last.wait.iter().enumerate().map(|(at, count)| {
            let before = first.wait.get(at).copied().unwrap_or(0);
            count.saturating_sub(before)
        });
        let totals = Totals {
            classes: differences(first.classes, last.classes),
            failures: differences(first.failures, last.failures),
            sent: last.sent.saturating_sub(first.sent),
            fetches: last.fetches.saturating_sub(first.fetches),
            failed_refreshes: last.failed_refreshes.saturating_sub(first.failed_refreshes),
            evicted: last.evicted.saturating_sub(first.evicted),
            accept_pauses: last.accept_pauses.saturating_sub(first.accept_pauses),
            panics: last.panics.saturating_sub(first.panics),
            wait: wait.collect(),
        };
        Difference { totals }
    }

    /// How many there were of these.
    pub fn count(&self, trouble: Trouble) -> u64 {
        let totals = &self.totals;
        match trouble {
            Trouble::Stale => totals.classes[Class::Stale as usize],
            Trouble::Failed => totals.failed(),
            Trouble::FailedRefresh => totals.failed_refreshes,
            Trouble::AcceptPause => totals.accept_pauses,
            Trouble::Panic => totals.panics,
        }
    }

    /// Requests that have ended, those that never came not among them.
    pub fn requests(&self) -> u64 {
        let all: u64 = self.totals.classes.iter().sum();
        all - self.totals.classes[Class::Unasked as usize]
    }

    /// Requests answered from the cache, fresh or stale.
    pub fn cached(&self) -> u64 {
        let classes = &self.totals.classes;
        classes[Class::Hit as usize] + classes[Class::Stale as usize]
    }

    /// Texts and cached failures that were evicted.
    pub fn evicted(&self) -> u64 {
        self.totals.evicted
    }

    /// The reason of most failures that were not the client's fault.
    pub fn main_reason(&self) -> Option<&'static str> {
        let counts = REASONS.into_iter().zip(self.totals.failures);
        let ours = counts.filter(|(reason, count)| *count > 0 && !is_the_clients(reason));
        ours.max_by_key(|(_, count)| *count)
            .map(|(reason, _)| reason)
    }
}

impl Totals {
    fn of(snapshot: &Snapshot) -> Totals {
        let fetches = snapshot.fetches.as_ref();
        let cache = snapshot.cache.unwrap_or_default();
        let of_refreshes = |result: FetchResult| {
            fetches.map_or(0, |fetches| {
                fetches.ended[FetchCause::Stale as usize][result as usize]
            })
        };

        Totals {
            classes: snapshot.connections.by_class(),
            failures: snapshot.failures,
            sent: snapshot.sent.iter().sum(),
            fetches: fetches.map_or(0, |fetches| fetches.begun),
            failed_refreshes: of_refreshes(FetchResult::Rejected)
                + of_refreshes(FetchResult::Failed),
            evicted: cache.evicted_kept + cache.evicted_failures,
            accept_pauses: snapshot.accept_pauses,
            panics: snapshot.panics,
            wait: snapshot.wait.counts.clone(),
        }
    }

    fn failed(&self) -> u64 {
        let counts = REASONS.into_iter().zip(self.failures);
        let clients = counts.filter(|(reason, _)| is_the_clients(reason));
        let clients: u64 = clients.map(|(_, count)| count).sum();
        self.classes[Class::Failure as usize].saturating_sub(clients)
    }
}

/// Whether a failure is the client's own: it left, stood still, or asked for nothing
/// that can be answered.
fn is_the_clients(reason: &str) -> bool {
    matches!(
        reason,
        "client_left" | "client_timeout" | "bad_request" | "limited"
    )
}

fn differences<const N: usize>(first: [u64; N], last: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| last[at].saturating_sub(first[at]))
}

fn per_second(before: &Sample, after: &Sample, total: impl Fn(&Totals) -> u64) -> Value {
    let count = total(&after.totals).saturating_sub(total(&before.totals));
    let time = after.at.saturating_duration_since(before.at).as_secs_f64();
    let rate = count as f64 / time.max(1e-3);
    json!((rate * 1e3).round() / 1e3)
}

/// The value below which this part of all values lies, as well as buckets can say;
/// `None` without any.
pub fn quantile(bounds: &[f64], counts: &[u64], part: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let wanted = part * total as f64;
    let largest = bounds.last().copied()?;

    let mut seen = 0.0;
    for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = count as f64;
        if seen + count >= wanted {
            let low = if at == 0 {
                0.0
            } else {
                bounds[(at - 1).min(bounds.len() - 1)]
            };
            let high = bounds.get(at).copied().unwrap_or(largest);
            return Some(low + (high - low) * ((wanted - seen) / count).max(0.0));
        }
        seen += count;
    }
    None
}

/// The numbers of [`ConnectionCounts`] that the page calls requests.
pub(super) fn requests(connections: &ConnectionCounts) -> Value {
    let mut object = Map::new();
    for (class, count) in Class::ALL.into_iter().zip(connections.by_class()) {
        object.insert(class.word().to_string(), json!(count));
    }
    object.insert("total".to_string(), json!(connections.ended()));
    Value::Object(object)
}

#[cfg(test)]
mod tests;
