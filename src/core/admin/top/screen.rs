//! What is drawn: each frame is text, made of what was seen at two moments.

use super::sketch::Sketch;
use crate::admin::health::counted;
use crate::control::{FlightView, Histogram, Snapshot, UpstreamCounts, UpstreamState};
use crate::escape;
use crate::observe::Class;
use std::time::Duration;

/// Fetches that are shown: with the rest, a frame fits a terminal of 40 lines.
const FLIGHTS: usize = 10;

/// Keys that are shown.
const KEYS: usize = 20;

/// The part of a name that is shown, in bytes.
const NAME_BYTES: usize = 60;

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The figures.
    pub figures: &'a Snapshot,
    /// The fetches, the oldest first.
    pub flights: &'a [FlightView],
}

/// A frame as a terminal takes it, in place of the last one. Each line is cleared to
/// its end: a screen that is cleared as a whole flickers.
pub fn redraw(frame: &str) -> String {
    const TOP_LEFT: &str = "\x1b[H";
    const CLEAR_LINE: &str = "\x1b[K\n";
    const CLEAR_BELOW: &str = "\x1b[J";

    let lines = frame.replace('\n', CLEAR_LINE);
    format!("{TOP_LEFT}{lines}{CLEAR_BELOW}")
}

/// What has happened since `earlier`, as rates, and what is there now.
pub fn figures(earlier: &Snapshot, now: Moment<'_>) -> String {
    let rates = Rates::new(earlier, now.figures);
    let mut lines = vec![head(now.figures), String::new()];

    lines.extend(requests(&rates));
    lines.extend(waits(&rates));
    lines.extend(fetches(&rates));
    lines.extend(upstreams(&rates));
    lines.extend(oldest_fetches(now.flights));
    ended(&lines)
}

/// The keys that are asked for most, counted for so long.
pub fn keys(counted: &Sketch, time: Duration) -> String {
    let total = counted.total();
    let seconds = short(Duration::from_secs(time.as_secs()));
    let mut lines = vec![
        format!("{total} requests in {seconds}, by what was asked for"),
        String::new(),
        "   part   at most    at least  asked for".to_string(),
    ];

    for hot in counted.top(KEYS) {
        let part = percent(hot.count, total);
        let (most, least) = (hot.count, hot.count - hot.error);
        let name = name(&hot.key);
        lines.push(format!("{part:>7}  {most:>8}  {least:>10}  {name}"));
    }
    ended(&lines)
}

/// Two moments, and the time between them.
struct Rates<'a> {
    earlier: &'a Snapshot,
    now: &'a Snapshot,
    seconds: f64,
}

impl<'a> Rates<'a> {
    fn new(earlier: &'a Snapshot, now: &'a Snapshot) -> Rates<'a> {
        let time = now.uptime.saturating_sub(earlier.uptime);
        Rates {
            earlier,
            now,
            seconds: time.as_secs_f64().max(0.001), // of two equal moments, no rate
        }
    }

    /// By how much a figure has grown.
    fn growth(&self, figure: impl Fn(&Snapshot) -> u64) -> u64 {
        figure(self.now).saturating_sub(figure(self.earlier))
    }

    /// A growth as a rate.
    fn a_second(&self, growth: u64) -> String {
        let rate = growth as f64 / self.seconds;
        if growth > 0 && rate < 10.0 {
            format!("{rate:.1}/s")
        } else {
            format!("{rate:.0}/s")
        }
    }
}

fn head(figures: &Snapshot) -> String {
    let uptime = short(Duration::from_secs(figures.uptime.as_secs()));
    let connections = &figures.connections;
    let limit = match connections.limit {
        0 => String::new(),
        limit => format!(" of {limit}"),
    };
    format!("up {uptime}, {}{limit} clients connected", connections.open)
}

/// The classes, and how many of the requests that could be answered from the cache
/// were.
fn requests(rates: &Rates<'_>) -> Vec<String> {
    let of = |class: Class| rates.growth(|at| at.connections.by_class()[class as usize]);
    let total: u64 = Class::ALL.into_iter().map(of).sum();
    let cached = of(Class::Hit) + of(Class::Stale);
    let cacheable = total - of(Class::Own) - of(Class::Unasked);

    let mut first = format!("requests {:>12}", rates.a_second(total));
    if cacheable > 0 && rates.now.cache.is_some() {
        first += &format!("  {} from the cache", percent(cached, cacheable));
    }
    let sent = rates.growth(|at| at.sent.iter().sum());
    if sent > 0 {
        first += &format!("  {}/s sent", bytes(sent as f64 / rates.seconds));
    }

    let mut lines = vec![first];
    for class in Class::ALL {
        let word = class.word();
        lines.push(format!("  {word:<10} {:>8}", rates.a_second(of(class))));
    }
    lines
}

fn waits(rates: &Rates<'_>) -> Option<String> {
    let waits = grown(&rates.earlier.wait, &rates.now.wait);
    let part = |part| quantile(&waits, part).map(seconds);
    let (half, most, all) = (part(0.5)?, part(0.95)?, part(0.99)?);
    Some(format!(
        "waits     half up to {half}, 95 % up to {most}, 99 % up to {all}"
    ))
}

fn fetches(rates: &Rates<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(fetches) = &rates.now.fetches {
        let of = |figure: fn(&crate::control::FetchCounts) -> u64| {
            rates.a_second(rates.growth(|at| at.fetches.as_ref().map_or(0, figure)))
        };
        let (begun, failed) = (of(|counts| counts.begun), of(|counts| counts.failed));
        let (running, waiting) = (fetches.running, fetches.waiting);
        lines.push(format!(
            "fetches   {begun} begun, {failed} failed, {running} running, {waiting} in queue"
        ));
    }
    if let Some(cache) = &rates.now.cache {
        let (held, capacity) = (bytes(cache.bytes as f64), bytes(cache.capacity as f64));
        lines.push(format!(
            "cache     {}, {held} of {capacity}",
            counted(cache.keys, "key")
        ));
    }
    lines
}

fn upstreams(rates: &Rates<'_>) -> Vec<String> {
    let now = &rates.now.upstreams;
    if now.is_empty() {
        return Vec::new();
    }

    let mut lines = vec![
        String::new(),
        format!(
            "{:<32} {:<12} {:>5} {:>10} {:>10}",
            "upstream", "is", "open", "asked", "failed"
        ),
    ];
    for (at, upstream) in now.iter().enumerate() {
        let earlier = rates.earlier.upstreams.get(at);
        let growth = |figure: fn(&UpstreamCounts) -> u64| {
            let before = earlier.map_or(0, figure);
            rates.a_second(figure(upstream).saturating_sub(before))
        };
        let asked = growth(|upstream| upstream.asked);
        let failed = growth(|upstream| upstream.failures.iter().sum());
        let state = match upstream.state {
            UpstreamState::Unknown => "no answer".to_string(),
            UpstreamState::Up => "answers".to_string(),
            UpstreamState::Down(time) => {
                format!("fails {}", short(Duration::from_secs(time.as_secs())))
            }
        };
        let (name, open) = (shown(upstream.name.as_bytes()), upstream.connections);
        lines.push(format!(
            "{name:<32} {state:<12} {open:>5} {asked:>10} {failed:>10}"
        ));
    }
    lines
}

fn oldest_fetches(flights: &[FlightView]) -> Vec<String> {
    if flights.is_empty() {
        return Vec::new();
    }

    let mut lines = vec![
        String::new(),
        format!(
            "{:>8} {:>10} {:>7}  {:<25} oldest fetches",
            "age", "bytes", "readers", "phase"
        ),
    ];
    for flight in flights.iter().take(FLIGHTS) {
        let age = seconds(flight.age.as_secs_f64());
        let (bytes, readers) = (bytes(flight.bytes as f64), flight.readers);
        let (phase, name) = (flight.phase.word(), name(&flight.name));
        let refresh = if flight.is_refresh { ", a refresh" } else { "" };
        lines.push(format!(
            "{age:>8} {bytes:>10} {readers:>7}  {phase:<25} {name}{refresh}"
        ));
    }
    lines
}

/// What was asked for. The poem protocol has no requests.
fn name(request: &[u8]) -> String {
    if request.is_empty() {
        return "a poem".into();
    }
    format!("'{}'", shown(request))
}

/// A name as it can be shown on a terminal.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES)]);
    let dots = if name.len() > NAME_BYTES { "..." } else { "" };
    escape::text(&text) + dots
}

/// What has been counted since an earlier look.
fn grown(earlier: &Histogram, now: &Histogram) -> Histogram {
    let counts = now.counts.iter().enumerate();
    let before = |at: usize| earlier.counts.get(at).copied().unwrap_or(0);
    Histogram {
        bounds: now.bounds,
        counts: counts
            .map(|(at, count)| count.saturating_sub(before(at)))
            .collect(),
        sum: now.sum - earlier.sum,
    }
}

/// What this part of all that was counted is at most: the bound of its bucket, and of
/// the last bucket the highest bound. `None` where nothing was counted.
fn quantile(histogram: &Histogram, part: f64) -> Option<f64> {
    let total: u64 = histogram.counts.iter().sum();
    if total == 0 {
        return None;
    }

    let wanted = (total as f64 * part).ceil() as u64;
    let mut below = 0;
    let bucket = histogram.counts.iter().position(|count| {
        below += count;
        below >= wanted
    })?;
    let bound = histogram.bounds.get(bucket).or(histogram.bounds.last());
    bound.copied()
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}

/// A number of seconds, with a unit that suits it.
fn seconds(time: f64) -> String {
    if time < 1.0 {
        format!("{:.0}ms", time * 1000.0)
    } else if time < 100.0 {
        format!("{time:.1}s")
    } else {
        short(Duration::from_secs(time as u64))
    }
}

fn short(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// A number of bytes, with a unit that suits it.
fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }

    let digits = usize::from(unit > 0 && size < 10.0);
    format!("{size:.digits$} {}", units[unit])
}

fn ended(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests;
