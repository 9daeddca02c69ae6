//! The figures of a service for people, as SIGUSR1 prints them.

use super::super::lines::thousands;
use super::{connections, lines, short};
use poetry::control::{
    CacheCounts, ConnectionCounts, FeedCounts, FetchCounts, FleetCounts, REASONS, REFUSALS,
    Snapshot, StoreCounts, UpstreamCounts, UpstreamState, WarmCounts,
};
use poetry::escape;
use std::time::Duration;

/// The figures of the service, a line for each part. `lost` lines of the log were lost.
pub(in crate::cmd::log) fn summary(snapshot: &Snapshot, lost: u64) -> Vec<String> {
    let uptime = Duration::from_secs(snapshot.uptime.as_secs());
    let mut lines = vec![format!(
        "up {}, {} open",
        short(uptime),
        connections(snapshot.connections.open)
    )];

    lines.push(connection_counts(&snapshot.connections));
    lines.extend(failure_counts(&snapshot.failures));
    lines.extend(refused_counts(&snapshot.refused));
    lines.extend(snapshot.fetches.as_ref().map(fetch_counts));
    lines.extend(snapshot.cache.as_ref().map(cache_counts));
    lines.extend(snapshot.store.as_ref().map(store_counts));
    lines.extend(snapshot.warm.as_ref().map(warm_counts));
    let fleet = snapshot.store.as_ref().and_then(|store| store.fleet);
    lines.extend(fleet.as_ref().map(fleet_counts));
    lines.extend(snapshot.feed.as_ref().map(feed_counts));
    lines.extend(snapshot.upstreams.iter().map(upstream_counts));
    if lost > 0 {
        lines.push(format!("log: {} lost since the start", super::lines(lost)));
    }
    lines
}

/// The reasons that there were, in the words of the JSON log without its underscores.
fn failure_counts(counts: &[u64; REASONS.len()]) -> Option<String> {
    let reasons = list_of_any(&REASONS, counts)?;
    Some(format!("failures: {reasons}"))
}

/// The reasons for which connections were refused, if any was.
fn refused_counts(counts: &[u64; REFUSALS.len()]) -> Option<String> {
    let reasons = list_of_any(&REFUSALS, counts)?;
    Some(format!("refused connections: {reasons}"))
}

/// The numbers that are not 0, with their words.
fn list_of_any(words: &[&str], counts: &[u64]) -> Option<String> {
    let words = words.iter().map(|word| word.replace('_', " "));
    let words: Vec<String> = words.collect();
    let some = counts.iter().zip(&words).filter(|(count, _)| **count > 0);
    let some: Vec<(u64, &str)> = some.map(|(count, word)| (*count, word.as_str())).collect();
    (!some.is_empty()).then(|| list(&some))
}

fn upstream_counts(counts: &UpstreamCounts) -> String {
    let seconds = |time: Duration| short(Duration::from_secs(time.as_secs()));
    let state = match counts.state {
        UpstreamState::Unknown => "no answer yet".into(),
        UpstreamState::Up => "up".into(),
        UpstreamState::Down(time) => format!("down for {}", seconds(time)),
    };
    let paused = counts.paused.map(seconds);
    let paused = paused.map(|time| format!(", not asked for {time}"));
    let state = state + &paused.unwrap_or_default();
    let failed = counts.failures.iter().sum();
    let figures = [
        (counts.connections, "open"),
        (counts.asked, "asked"),
        (failed, "failed"),
    ];

    let line = format!("upstream {}: {state}, {}", counts.name, list(&figures));
    match &counts.last_error {
        None => line,
        Some((error, ago)) => {
            let error = escape::text(error);
            format!("{line}; {} ago: {error}", seconds(*ago))
        }
    }
}

fn connection_counts(counts: &ConnectionCounts) -> String {
    let ended = thousands(counts.ended());
    let classes = [
        (counts.hit, "hit"),
        (counts.stale, "stale"),
        (counts.coalesced, "coalesced"),
        (counts.miss, "miss"),
        (counts.own, "own"),
        (counts.failure, "failed"),
        (counts.unasked, "without a request"),
    ];
    format!("connections: {ended} ended, of these {}", list(&classes))
}

fn fetch_counts(counts: &FetchCounts) -> String {
    let classes = [
        (counts.running, "running"),
        (counts.waiting, "waiting"),
        (counts.begun, "begun"),
        (counts.kept, "kept"),
        (counts.failed, "failed"),
        (counts.refused, "refused"),
        (counts.rate_waits, "delayed"),
    ];
    format!("fetches: {}", list(&classes))
}

fn cache_counts(counts: &CacheCounts) -> String {
    let keys = thousands(counts.keys);
    let noun = if counts.keys == 1 { "key" } else { "keys" };
    let (bytes, capacity) = (thousands(counts.bytes), thousands(counts.capacity));
    format!("cache: {keys} {noun}, {bytes} of {capacity} bytes")
}

fn warm_counts(counts: &WarmCounts) -> String {
    let figures = [
        (counts.fresh, "fresh"),
        (counts.failed, "failed"),
        (counts.waiting, "waiting"),
    ];
    format!("kept warm: {}", list(&figures))
}

fn store_counts(counts: &StoreCounts) -> String {
    let state = if counts.is_open { "open" } else { "off" };
    let (bytes, capacity) = (thousands(counts.bytes), thousands(counts.capacity));
    let figures = [
        (counts.hits, "hit"),
        (counts.stale, "stale"),
        (counts.misses, "missed"),
        (counts.late, "late"),
        (counts.written, "written"),
        (counts.dropped, "dropped"),
        (counts.errors, "errors"),
    ];
    if counts.fleet.is_some() {
        return format!("store: {state}, {}", list(&figures));
    }

    let texts = thousands(counts.texts);
    let figures = list(&figures);
    format!("store: {state}, {texts} poems, {bytes} of {capacity} bytes, {figures}")
}

fn fleet_counts(counts: &FleetCounts) -> String {
    let figures = [
        (counts.follows, "followed"),
        (counts.leads, "led"),
        (counts.alone, "alone"),
        (counts.takeovers, "taken over"),
        (counts.proofs_failed, "unproven"),
        (counts.deposed, "deposed"),
        (counts.published, "published"),
        (counts.purges_owed, "purges owed"),
    ];
    format!("fleet: {}", list(&figures))
}

fn feed_counts(counts: &FeedCounts) -> String {
    let whole = |time: Duration| short(Duration::from_secs(time.as_secs()));
    let state = match counts.connected {
        Some(time) => format!("connected for {}", whole(time)),
        None => "not connected".into(),
    };
    let figures = [
        (counts.readers, "reading"),
        (counts.slow, "slow"),
        (counts.lost, "lost"),
        (counts.too_long, "too long"),
        (counts.cut, "cut"),
    ];
    let (lines, bytes) = (lines(counts.lines), thousands(counts.bytes));
    format!("feed: {state}, {lines}, {bytes} bytes, {}", list(&figures))
}

fn list(counts: &[(u64, &str)]) -> String {
    let parts = counts.iter();
    let parts = parts.map(|(count, what)| format!("{} {what}", thousands(*count)));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use poetry::control::Histogram;

    #[test]
    fn only_the_reasons_that_there_were_are_printed() {
        let mut counts = [0; REASONS.len()];
        assert_eq!(failure_counts(&counts), None);

        (counts[0], counts[3]) = (3, 1700);
        let line = failure_counts(&counts).expect("there were some");
        assert_eq!(line, "failures: 3 client left, 1,700 refused");
    }

    #[test]
    fn an_upstream_that_is_down_is_printed_with_its_last_error() {
        let counts = UpstreamCounts {
            name: "a:43".into(),
            state: UpstreamState::Down(Duration::from_millis(8900)),
            paused: Some(Duration::from_secs(60)),
            connections: 1,
            asked: 157,
            failures: [1, 2, 0, 0, 0, 4],
            durations: Histogram::default(),
            received: 0,
            last_success: None,
            last_error: Some(("a:43: an\nerror".into(), Duration::from_secs(2))),
        };
        let line =
            "upstream a:43: down for 8s, not asked for 1m, 1 open, 157 asked, 7 failed; 2s ago: ";
        let printed = upstream_counts(&counts);
        assert!(printed.starts_with(line), "{printed}");
        assert!(!printed.contains('\n'), "{printed}");
    }
}
