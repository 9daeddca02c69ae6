//! What is told of a feed.

use super::each;
use super::family::{Families, Family, NO_LABELS};
use crate::control::FeedCounts;
use std::fmt::Result;
use std::time::Duration;

pub(super) fn fed(families: &mut Families<'_>, feed: &FeedCounts) -> Result {
    let connected = feed.connected.map_or(0.0, as_seconds);
    families.gauge(
        &Family::seconds(
            "poetry_feed_connected",
            "How long the source is connected; 0 while it is not",
        ),
        [(NO_LABELS, connected)],
    )?;
    families.counter(
        &Family::new("poetry_feed_connections", "Connections to the source"),
        [(NO_LABELS, feed.connections)],
    )?;
    families.gauge(
        &Family::new("poetry_feed_readers", "Clients that read the feed"),
        [(NO_LABELS, feed.readers)],
    )?;
    families.gauge(
        &Family::new(
            "poetry_feed_slow_readers",
            "Of these, the ones that have lost lines",
        ),
        [(NO_LABELS, feed.slow)],
    )?;

    families.counter(
        &Family::new("poetry_feed_lines", "Whole lines that came"),
        [(NO_LABELS, feed.lines)],
    )?;
    families.counter(
        &Family::bytes("poetry_feed_received", "The bytes of these lines"),
        [(NO_LABELS, feed.bytes)],
    )?;
    families.counter(
        &Family::new(
            "poetry_feed_lost_lines",
            "Lines that readers were too slow for, added up",
        ),
        [(NO_LABELS, feed.lost)],
    )?;
    families.counter(
        &Family::new(
            "poetry_feed_left_out_lines",
            "Lines that no reader got, by the reason",
        ),
        each("reason", ["too_long", "cut"], [feed.too_long, feed.cut]),
    )?;

    families.gauge(
        &Family::bytes("poetry_feed_held", "Memory held for readers"),
        [(NO_LABELS, feed.held)],
    )?;
    families.gauge(
        &Family::bytes("poetry_feed_backlog", "How far a reader may be behind"),
        [(NO_LABELS, feed.backlog)],
    )
}

/// At least a millisecond, so that 0 says that it is not connected.
fn as_seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(0.001)
}
