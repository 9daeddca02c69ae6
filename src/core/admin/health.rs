//! How the service is, in a word and in the sentences that an operator would write into
//! a ticket: what is wrong, since when, how many clients feel it, and what is still
//! served.
//!
//! | what is so | state |
//! |---|---|
//! | the service stops | draining |
//! | an upstream fails | degraded |
//! | refreshes fail, and stale texts are served | degraded |
//! | over 2 % of the last minute's requests failed, by no fault of the client | degraded |
//! | a fetch has waited for its turn for 10 s | degraded |
//! | as many clients are connected as may be | degraded |
//! | accepting paused, or a bug ended a task, in the last minute | degraded |
//! | anything else | ok |

use super::clock::Clock;
use super::history::{Difference, History, Trouble};
use crate::control::{FetchCounts, Snapshot, UpstreamCounts, UpstreamState};
use crate::escape;
use std::time::{Duration, Instant};

/// What [`HealthReport::of`] looks back at: long enough that one slow second says
/// nothing, short enough that an operator sees a repair work.
pub const LOOK_BACK: Duration = Duration::from_secs(60);

/// More failures than this, in percent of the requests, are trouble: with one in fifty
/// the users begin to notice.
const MAX_FAILURES: u64 = 2;

/// A fetch that waits longer than this for its turn keeps its clients from an answer
/// that most of them would have given up by then.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// How the service is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It does what it should.
    Ok,
    /// Something is wrong, and clients may feel it.
    Degraded,
    /// It stops.
    Draining,
}

impl Condition {
    /// The one word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Ok => "ok",
            Condition::Degraded => "degraded",
            Condition::Draining => "draining",
        }
    }
}

/// How the service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// In a word.
    pub condition: Condition,
    /// In sentences, the worst first; none if it is ok.
    pub reasons: Vec<String>,
}

impl HealthReport {
    /// Judges a service by its figures.
    pub fn of(
        snapshot: &Snapshot,
        history: &History,
        is_draining: bool,
        clock: &Clock,
    ) -> HealthReport {
        let look = Look {
            snapshot,
            history,
            clock,
            minute: history.last(LOOK_BACK),
        };
        let mut reasons: Vec<String> = look.upstreams().into_iter().collect();
        reasons.extend(look.failures());
        reasons.extend(look.stale());
        reasons.extend(look.queue());
        reasons.extend(look.clients());
        reasons.extend(look.pauses());
        reasons.extend(look.bugs());

        let mut condition = Condition::Ok;
        if !reasons.is_empty() {
            condition = Condition::Degraded;
        }
        if is_draining {
            condition = Condition::Draining;
            reasons.insert(0, look.draining());
        }
        HealthReport { condition, reasons }
    }
}

/// What a judgement looks at.
struct Look<'a> {
    snapshot: &'a Snapshot,
    history: &'a History,
    clock: &'a Clock,
    minute: Difference,
}

impl Look<'_> {
    fn draining(&self) -> String {
        let open = self.snapshot.connections.open;
        let may_finish = if open == 1 {
            "is open and may finish"
        } else {
            "are open and may finish"
        };
        format!(
            "The service stops: {} {may_finish}.",
            counted(open, "connection")
        )
    }

    /// What upstreams fail, since when and how, and what is done about it.
    fn upstreams(&self) -> Option<String> {
        let all = &self.snapshot.upstreams;
        let down: Vec<_> = all.iter().filter_map(down_for).collect();
        let (first, longest) = down.iter().max_by_key(|down| by_time(down))?;
        let since = self.since(self.clock.now().checked_sub(*longest));
        let why = first
            .last_error
            .as_ref()
            .map(|(text, _)| reason_of(text, &first.name));
        let why = why.map_or(String::new(), |why| format!(": {why}"));

        let mut text = match down.len() {
            1 => format!("{} has failed {since}{why}.", shown(&first.name)),
            2 if all.len() == 2 => {
                format!("Both upstreams fail, {} {since}{why}.", shown(&first.name))
            }
            _ if down.len() == all.len() => {
                format!(
                    "All {} upstreams fail, {} {since}{why}.",
                    all.len(),
                    shown(&first.name)
                )
            }
            count => format!(
                "{count} of {} upstreams fail, {} {since}{why}.",
                all.len(),
                shown(&first.name)
            ),
        };
        let is_up = |upstream: &&UpstreamCounts| down_for(upstream).is_none();
        match all.iter().find(is_up) {
            Some(other) => text += &format!(" {} is asked instead.", shown(&other.name)),
            None => text += &self.still_served(),
        }
        Some(text)
    }

    /// What clients get while no upstream answers. Of the texts cached some may be too
    /// old to be served, so that the last minute says more than their number.
    fn still_served(&self) -> String {
        if let Some(feed) = &self.snapshot.feed {
            let wait = if feed.readers == 1 { "waits" } else { "wait" };
            return format!(" {} {wait} for it.", counted(feed.readers, "reader"));
        }
        let cached = self.snapshot.cache.map_or(0, |cache| cache.kept.0);
        if cached == 0 {
            return " Nothing is cached, so nothing can be served.".to_string();
        }

        let are = if cached == 1 { "is" } else { "are" };
        let cached = format!(" {} {are} cached", counted(cached, "text"));
        let requests = self.minute.requests();
        if requests == 0 {
            return format!("{cached}, and served until their ttl and grace are over.");
        }
        format!(
            "{cached}; they answered {} of the last minute's requests.",
            percent(self.minute.cached(), requests)
        )
    }

    fn failures(&self) -> Option<String> {
        let (failed, requests) = (self.minute.count(Trouble::Failed), self.minute.requests());
        if failed * 100 <= requests * MAX_FAILURES {
            return None;
        }

        let since = self.row_since(Trouble::Failed);
        let most = self.minute.main_reason();
        let most = most.map_or(String::new(), |reason| {
            let most_of_them = if failed == 1 { "" } else { "most of them: " };
            format!(", {most_of_them}{}", reason.replace('_', " "))
        });
        Some(format!(
            "{} of {} in the last minute got no whole answer ({}){most}; {since}.",
            thousands(failed),
            counted(requests, "request"),
            percent(failed, requests),
        ))
    }

    /// Stale texts are served for want of new ones. Those served while a refresh is
    /// under way that will succeed are the cache at work.
    fn stale(&self) -> Option<String> {
        let stale = self.minute.count(Trouble::Stale);
        let failed = self.minute.count(Trouble::FailedRefresh);
        let longest = self
            .snapshot
            .upstreams
            .iter()
            .filter_map(down_for)
            .max_by_key(by_time);
        if stale == 0 || (failed == 0 && longest.is_none()) {
            return None;
        }

        let down = longest.and_then(|(_, time)| self.clock.now().checked_sub(time));
        let row = self.history.row_since(Trouble::FailedRefresh);
        let since = self.since(row.or(down));
        let were = if stale == 1 { "was" } else { "were" };
        Some(format!(
            "Refreshes fail, so {} of the last minute {were} stale ({}); {since}.",
            counted(stale, "answer"),
            percent(stale, self.minute.requests()),
        ))
    }

    fn queue(&self) -> Option<String> {
        let fetches: &FetchCounts = self.snapshot.fetches.as_ref()?;
        if fetches.waiting == 0 || fetches.oldest_wait < MAX_WAIT {
            return None;
        }

        let wait = if fetches.waiting == 1 {
            "waits"
        } else {
            "wait"
        };
        let what = if fetches.running < fetches.places {
            self.when_asked()
        } else {
            let connections = counted(fetches.places, "connection");
            format!("for one of {connections} to the upstream")
        };
        Some(format!(
            "{} {wait} {what}, the first for {}.",
            counted(fetches.waiting, "fetch"),
            humantime::format_duration(Duration::from_secs(fetches.oldest_wait.as_secs())),
        ))
    }

    /// What fetches wait for although there is a connection for them.
    fn when_asked(&self) -> String {
        let upstreams = self.snapshot.upstreams.iter();
        let mut paused = upstreams.filter_map(|it| Some((it.paused?, &it.name)));
        match paused.next() {
            None => "for --upstream-rate".to_string(),
            Some((left, name)) => {
                let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
                let name = shown(name);
                format!("because {name} rejected a request and is not asked for {left}")
            }
        }
    }

    fn clients(&self) -> Option<String> {
        let (open, limit) = (
            self.snapshot.connections.open,
            self.snapshot.connections.limit,
        );
        let are = if open == 1 { "is" } else { "are" };
        let is_full = limit > 0 && open >= limit;
        is_full.then(|| {
            format!(
                "{} {are} connected, which is the limit (--max-clients): others wait to \
                 be accepted.",
                counted(open, "client")
            )
        })
    }

    fn pauses(&self) -> Option<String> {
        let pauses = self.minute.count(Trouble::AcceptPause);
        (pauses > 0).then(|| {
            format!(
                "Clients waited to be accepted: {} in the last minute for lack of \
                 descriptors or memory.",
                counted(pauses, "pause")
            )
        })
    }

    fn bugs(&self) -> Option<String> {
        let panics = self.minute.count(Trouble::Panic);
        (panics > 0).then(|| {
            format!(
                "{} in the last minute ended by a bug, and its clients were reset: see \
                 the log.",
                counted(panics, "task")
            )
        })
    }

    fn row_since(&self, trouble: Trouble) -> String {
        self.since(self.history.row_since(trouble))
    }

    fn since(&self, at: Option<Instant>) -> String {
        match at {
            Some(at) => format!("since {}", self.clock.words(at)),
            None => "since the start".to_string(),
        }
    }
}

/// An upstream that fails, and for how long.
fn down_for(upstream: &UpstreamCounts) -> Option<(&UpstreamCounts, Duration)> {
    match upstream.state {
        UpstreamState::Down(time) => Some((upstream, time)),
        UpstreamState::Up | UpstreamState::Unknown => None,
    }
}

fn by_time(down: &(&UpstreamCounts, Duration)) -> Duration {
    down.1
}

/// An error's text without the server's name, which the sentence has already.
pub(super) fn reason_of(text: &str, name: &str) -> String {
    let rest = text
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(": "));
    shown(rest.unwrap_or(text))
}

fn shown(text: &str) -> String {
    escape::text(text)
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

pub(super) fn counted(count: u64, what: &str) -> String {
    let ending = if what.ends_with("ch") { "es" } else { "s" };
    let ending = if count == 1 { "" } else { ending };
    format!("{} {what}{ending}", thousands(count))
}

/// A number in groups of three digits.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests;
