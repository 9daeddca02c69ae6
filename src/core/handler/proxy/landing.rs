//! The end of a fetch: the cache's entry is settled before any reader learns of it.

use super::Key;
use crate::cache::Fill;
use crate::error::Error;
use crate::flight::{Flight, PendingReaders, Writer};
use crate::poem::Poem;
use crate::semaphore::Permit;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// A fetch's two duties, in the order in which they end: dropped as it stands, it frees the key first and fails the
/// readers then.
pub(super) struct FlightGuard {
    /// The right to keep the poem, and the room for it; `None` once the poem passes through.
    pub(super) fill: Option<Fill<Key, Poem, Flight>>,
    pub(super) writer: Writer,
    /// The place among `upstream_conns`, once it was this fetch's turn. What it does elsewhere, another attempt or a
    /// transformation, is done in the same place.
    pub(super) permit: Option<Permit>,
    /// Whether the poem passes through without room: what it holds bursts the capacity.
    is_uncounted: bool,
    /// With a transformation, the poem before it.
    pub(super) original: Bytes,
    /// Why the poem is not to be kept although it is whole.
    pub(super) objection: Option<&'static str>,
}

/// What a fetch may hold for which there is no room: it must hold something to go on at all.
const NARROWEST: u64 = 64 << 10;

impl FlightGuard {
    pub(super) fn new(fill: Fill<Key, Poem, Flight>, writer: Writer) -> FlightGuard {
        let (permit, is_uncounted, original, objection) = (None, false, Bytes::new(), None);
        FlightGuard {
            fill: Some(fill),
            writer,
            permit,
            is_uncounted,
            original,
            objection,
        }
    }

    /// The poem can't be kept: from here on it goes through a window of what it holds by now.
    pub(super) fn pass_through(&mut self) {
        let Some(fill) = self.fill.take() else { return };
        let room = fill.give_up();
        self.writer.shrink_window(room.bytes().max(NARROWEST));
        self.writer.attach(room);
    }

    /// The same for lack of room.
    pub(super) fn pass_unaccounted(&mut self) {
        self.pass_through();
        self.is_uncounted = true;
    }

    /// Where the poem has no room: its readers, and the place that is to be kept until they have read it.
    pub(super) fn uncounted(&mut self) -> Option<(PendingReaders, Option<Permit>)> {
        self.is_uncounted
            .then(|| (self.writer.pending_readers(), self.permit.take()))
    }

    /// The poem is longer than any that is kept: it passes through, and the key is remembered for it.
    pub(super) fn too_long(&mut self, now: Instant) {
        if let Some(fill) = self.fill.take() {
            self.writer.attach(fill.hit_for_miss(now));
        }
    }

    /// The poem is whole. Says whether it was kept.
    pub(super) fn land(self, now: Instant) -> bool {
        let FlightGuard {
            fill,
            writer,
            objection,
            ..
        } = self;
        // Whoever reads the flight holds the room as well: what is kept may be let go of before it is read.
        writer.finish(|poem| match (fill, objection) {
            (None, _) => Err(None),
            (Some(fill), Some(_)) => Err(Some(fill.reject(now))),
            (Some(fill), None) => {
                let (bytes, mut room) = (poem.len(), None);
                match fill.commit_with(
                    |counted| poem.with(room.insert(counted).clone()),
                    bytes,
                    now,
                ) {
                    Ok(()) => Ok(room),
                    Err(unkept) => Err(Some(Arc::new(unkept))),
                }
            }
        })
    }

    /// It never will be.
    pub(super) fn fail(self, error: Error, now: Instant) {
        let FlightGuard {
            fill, mut writer, ..
        } = self;
        if let Some(fill) = fill {
            writer.attach(fill.fail(now));
        }
        writer.fail(error);
    }
}
