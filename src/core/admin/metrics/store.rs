//! What is told of a store behind the cache.

use super::each;
use super::family::{Families, Family, NO_LABELS};
use crate::control::{FleetCounts, StoreCounts};
use std::fmt::Result;

pub(super) fn stored(families: &mut Families<'_>, store: &StoreCounts) -> Result {
    families.gauge(
        &Family::new("poetry_store_open", "Whether the store can be used"),
        [(NO_LABELS, u64::from(store.is_open))],
    )?;
    families.counter(
        &Family::new(
            "poetry_store_reads",
            "Questions to the store, by its answer",
        ),
        each(
            "result",
            ["hit", "stale", "miss", "late"],
            [store.hits, store.stale, store.misses, store.late],
        ),
    )?;
    families.counter(
        &Family::new(
            "poetry_store_writes",
            "Texts for the store, by what became of them",
        ),
        each(
            "result",
            ["written", "dropped"],
            [store.written, store.dropped],
        ),
    )?;
    families.counter(
        &Family::new(
            "poetry_store_errors",
            "Errors of the store's disk, and damage",
        ),
        [(NO_LABELS, store.errors)],
    )?;

    families.gauge(
        &Family::new("poetry_store_entries", "Texts in the store"),
        [(NO_LABELS, store.texts)],
    )?;
    families.gauge(
        &Family::bytes("poetry_store_held", "Disk space in use"),
        [(NO_LABELS, store.bytes)],
    )?;
    families.gauge(
        &Family::bytes("poetry_store_capacity", "The most that may be in use"),
        [(NO_LABELS, store.capacity)],
    )?;

    match &store.fleet {
        Some(counts) => fleet(families, counts),
        None => Ok(()),
    }
}

fn fleet(families: &mut Families<'_>, counts: &FleetCounts) -> Result {
    families.counter(
        &Family::new(
            "poetry_fleet_fetches",
            "Fetches in a fleet, by what they did",
        ),
        each("event", FleetCounts::WORDS, counts.all()),
    )?;
    families.gauge(
        &Family::new(
            "poetry_fleet_purges_owed",
            "Purges that the fleet has not been told of yet",
        ),
        [(NO_LABELS, counts.purges_owed)],
    )
}
