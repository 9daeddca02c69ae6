//! The fetches that run or wait, for operators.
//!
//! Each has a small cell here from when it is asked for until its place before the
//! upstream is free again. So there are never more than there are places and turns.

use crate::control::{FlightView, Phase};
use crate::flight::Flight;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// The fetches, by the order in which they were asked for.
#[derive(Default)]
pub(super) struct FlightList {
    last: AtomicU64,
    /// Held to add, remove or copy.
    cells: Mutex<BTreeMap<u64, Arc<FlightCell>>>,
}

/// A fetch on the list. The last clone takes it off.
#[derive(Clone)]
pub(super) struct FlightListing(Arc<OnList>);

struct OnList {
    list: Arc<FlightList>,
    number: u64,
    cell: Arc<FlightCell>,
}

/// What a fetch tells of itself.
struct FlightCell {
    request: Bytes,
    since: Instant,
    is_refresh: bool,
    /// Knows its readers.
    flight: Flight,
    bytes: AtomicU64,
    /// Held to write or copy it.
    progress: Mutex<(Phase, Option<Arc<str>>)>,
}

impl FlightList {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<FlightCell>>> {
        let guard = self.cells.lock();
        guard.expect("no code panics while it holds the list's lock")
    }

    /// Adds a fetch that is asked for `now`.
    pub(super) fn add(
        self: &Arc<Self>,
        request: Bytes,
        flight: Flight,
        is_refresh: bool,
        now: Instant,
    ) -> FlightListing {
        let cell = Arc::new(FlightCell {
            request,
            since: now,
            is_refresh,
            flight,
            bytes: AtomicU64::new(0),
            progress: Mutex::new((Phase::InQueue, None)),
        });
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, cell.clone());
        FlightListing(Arc::new(OnList {
            list: self.clone(),
            number,
            cell,
        }))
    }

    /// The oldest fetches, at most `most` of them.
    pub(super) fn views(&self, most: usize, now: Instant) -> Vec<FlightView> {
        let cells: Vec<_> = self.lock().values().take(most).cloned().collect();
        cells.iter().map(|cell| cell.view(now)).collect()
    }
}

impl FlightCell {
    fn progress(&self) -> MutexGuard<'_, (Phase, Option<Arc<str>>)> {
        let guard = self.progress.lock();
        guard.expect("no code panics while it holds a cell's lock")
    }

    fn view(&self, now: Instant) -> FlightView {
        let (phase, source) = self.progress().clone();
        FlightView {
            name: self.request.to_vec(),
            phase,
            upstream: source.map(|name| name.to_string()),
            age: now.saturating_duration_since(self.since),
            bytes: self.bytes.load(Ordering::Relaxed),
            readers: self.flight.readers() as u64,
            is_refresh: self.is_refresh,
        }
    }
}

impl FlightListing {
    /// It asks this source.
    pub(super) fn asks(&self, source: Arc<str>) {
        *self.0.cell.progress() = (Phase::Connecting, Some(source));
        self.came(0);
    }

    /// It has got this far.
    pub(super) fn is(&self, phase: Phase) {
        self.0.cell.progress().0 = phase;
    }

    /// So many bytes of its text have come.
    pub(super) fn came(&self, bytes: u64) {
        self.0.cell.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for OnList {
    fn drop(&mut self) {
        let cell = self.list.lock().remove(&self.number);
        drop(cell); // after the lock is released: it may be the last to hold the flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight;
    use std::time::Duration;

    fn names(list: &FlightList, most: usize, now: Instant) -> Vec<Vec<u8>> {
        let views = list.views(most, now);
        views.into_iter().map(|view| view.name).collect()
    }

    #[test]
    fn the_oldest_fetches_come_first_and_leave_nothing() {
        let list = Arc::new(FlightList::default());
        let now = Instant::now();
        let add = |name: &'static str| {
            let writer = flight::launch(1 << 10);
            list.add(name.into(), writer.flight(), false, now)
        };
        let (first, second, third) = (add("a"), add("b"), add("c"));
        assert_eq!(names(&list, 2, now), [b"a", b"b"]);

        let clone = first.clone();
        drop((first, second));
        assert_eq!(names(&list, 9, now), [b"a", b"c"]);
        drop((clone, third));
        assert!(names(&list, 9, now).is_empty());
    }

    #[test]
    fn a_view_says_how_far_a_fetch_has_got() {
        let list = Arc::new(FlightList::default());
        let now = Instant::now();
        let writer = flight::launch(1 << 10);
        let listed = list.add("a".into(), writer.flight(), true, now);
        let _reader = writer.flight().join().expect("it has its beginning");
        let view = || list.views(1, now + Duration::from_secs(1)).remove(0);

        assert_eq!((view().phase, view().upstream), (Phase::InQueue, None));
        listed.asks("builtin".into());
        listed.came(7);
        let wanted = FlightView {
            name: b"a".to_vec(),
            phase: Phase::Connecting,
            upstream: Some("builtin".into()),
            age: Duration::from_secs(1),
            bytes: 7,
            readers: 1,
            is_refresh: true,
        };
        assert_eq!(view(), wanted);

        listed.is(Phase::Streaming);
        assert_eq!(view().phase, Phase::Streaming);
        listed.asks("builtin".into());
        assert_eq!(view().bytes, 0, "another attempt begins with nothing");
    }
}
