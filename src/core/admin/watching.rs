//! Answers without an end: requests as they end, and screens that are drawn again each
//! second.

use super::action::Action;
use super::endpoint::Endpoint;
use super::tail::TailLines;
use super::top::{Moment, figures, keys, redraw};
use crate::observe::Selection;
use crate::rt;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, unfold};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Answers without an end at the same time: each has a connection of the 16.
const ENDLESS_MAX: usize = 4;

/// Time between two frames of a screen.
const FRAME: Duration = Duration::from_secs(1);

/// After this time without a request there is an empty line: only writing shows that a
/// client has gone.
const IDLE: Duration = Duration::from_secs(5);

/// Bytes of lines that are sent at once, and then other connections have their turn.
const PIECE: usize = 16 << 10;

/// Fetches on a screen; it shows fewer.
const FLIGHTS: usize = 50;

/// Lines until either side closes.
pub(super) type Endless = BoxStream<'static, Bytes>;

/// One of the answers without an end. Its place is free again once it is dropped.
struct EndlessPlace(Arc<AtomicUsize>);

impl EndlessPlace {
    fn take(taken: &Arc<AtomicUsize>) -> Option<EndlessPlace> {
        let place = EndlessPlace(taken.clone());
        let before = taken.fetch_add(1, Ordering::AcqRel);
        (before < ENDLESS_MAX).then_some(place)
    }
}

impl Drop for EndlessPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The answer to `action`, if there is a place for it.
///
/// # Errors
/// Why there is none.
pub(super) fn watch(
    endpoint: &Arc<Endpoint>,
    action: &Action,
    taken: &Arc<AtomicUsize>,
) -> Result<Endless, &'static str> {
    const FULL: &str = "too many are watching already";
    let place = EndlessPlace::take(taken).ok_or(FULL)?;

    match action {
        Action::Log { class, sample } => {
            let selection = Selection {
                classes: class.map(|class| [class].into_iter().collect()),
                slow: None,
                sample: NonZeroU64::new((*sample).into()),
            };
            requests(endpoint, selection, place).ok_or(FULL)
        }
        Action::TopKeys => Ok(hot_keys(endpoint, place)),
        _ => Ok(screens(endpoint, place)),
    }
}

/// Requests as they end.
fn requests(
    endpoint: &Arc<Endpoint>,
    selection: Selection,
    place: EndlessPlace,
) -> Option<Endless> {
    let lines = endpoint.lookout().tail.read(selection)?;
    let lines = unfold((lines, place), |(mut lines, place)| async move {
        let piece = next_piece(&mut lines).await;
        Some((Bytes::from(piece), (lines, place)))
    });
    Some(lines.boxed())
}

/// The lines that have come, once there is one. Requests may end faster than their
/// lines are sent, and then nothing here ever waits: the other connections of this
/// thread get their turn before each piece.
async fn next_piece(lines: &mut TailLines) -> String {
    rt::yield_now().await;
    let first = rt::within(IDLE, lines.next_line()).await;

    let mut piece = first.unwrap_or_default() + "\n";
    while piece.len() < PIECE
        && let Some(line) = lines.next_now()
    {
        piece.push_str(&line);
        piece.push('\n');
    }
    piece
}

/// The figures. The first frame comes after a second: rates need two moments.
fn screens(endpoint: &Arc<Endpoint>, place: EndlessPlace) -> Endless {
    let endpoint = endpoint.clone();
    let first = endpoint.snapshot(Instant::now());
    let frames = unfold((first, place), move |(earlier, place)| {
        let endpoint = endpoint.clone();
        async move {
            rt::sleep(FRAME).await;
            let now = Instant::now();
            let snapshot = endpoint.snapshot(now);
            let moment = Moment {
                figures: &snapshot,
                flights: &endpoint.flights(FLIGHTS, now),
            };
            let frame = redraw(&figures(&earlier, moment));
            Some((Bytes::from(frame), (snapshot, place)))
        }
    });
    frames.boxed()
}

/// The keys that are asked for most, counted from now on.
fn hot_keys(endpoint: &Arc<Endpoint>, place: EndlessPlace) -> Endless {
    let watch = endpoint.lookout().hot_keys.watch(Instant::now());
    let frames = unfold((watch, place), |(watch, place)| async move {
        rt::sleep(FRAME).await;
        let (counted, time) = watch.look(Instant::now());
        let frame = redraw(&keys(&counted, time));
        Some((Bytes::from(frame), (watch, place)))
    });
    frames.boxed()
}

#[cfg(test)]
mod tests {
    use super::super::tail::Tail;
    use super::*;
    use crate::observe::{AccessRecord, CacheStatus, Observer, Outcome};
    use futures::FutureExt;

    fn end_request(tail: &Tail) {
        tail.request(&AccessRecord {
            peer: &"127.0.0.1:1",
            request: b"name",
            status: CacheStatus::Miss,
            route: None,
            fetch: None,
            outcome: Outcome::Whole,
            bytes: 1,
            wait: Duration::ZERO,
            total: Duration::ZERO,
            stored: false,
            feed: None,
        });
    }

    #[test]
    fn lines_that_never_run_out_leave_others_their_turn() {
        let tail = Arc::new(Tail::default());
        let mut lines = tail.read(Selection::default()).expect("there is room");

        for _ in 0..3 {
            (0..1000).for_each(|_| end_request(&tail));
            let piece = next_piece(&mut lines);
            futures::pin_mut!(piece);
            assert!(piece.as_mut().now_or_never().is_none(), "others come first");

            let piece = rt::block_on(piece);
            assert!(piece.len() >= PIECE && piece.len() < 2 * PIECE);
            assert!(piece.ends_with("}\n"), "lines are whole");
        }
    }
}
