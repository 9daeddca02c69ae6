//! How a service is, in one line for the service manager: `systemctl status` shows it.

use poetry::control::{Snapshot, UpstreamCounts, UpstreamState};
use std::collections::VecDeque;

/// Looks that make up the last minute; there is one every ten seconds.
const LOOKS: usize = 6;

/// Requests answered until some look.
#[derive(Debug, Clone, Copy, Default)]
struct Answered {
    from_cache: u64,
    all: u64,
}

/// What the last looks found, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    looks: VecDeque<Answered>,
}

impl Recent {
    /// Describes the service as `figures` show it. Call it at each look, once.
    pub fn describe(&mut self, figures: &Snapshot) -> String {
        let clients = match figures.connections.open {
            1 => "1 client".to_string(),
            open => format!("{open} clients"),
        };
        let cached = figures
            .cache
            .and_then(|_| self.percentage(figures))
            .map(|percent| format!("{percent} % from the cache"));

        let parts = [Some(clients), cached, upstreams(&figures.upstreams)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join(", ")
    }

    /// How many in a hundred requests of the last minute the cache answered, rounded
    /// down: only if it answered all of them, it is 100. `None` without a request.
    fn percentage(&mut self, figures: &Snapshot) -> Option<u64> {
        let now = answered(figures);
        let before = self.looks.front().copied().unwrap_or_default();
        self.looks.push_back(now);
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }

        let all = now.all.saturating_sub(before.all);
        let from_cache = now.from_cache.saturating_sub(before.from_cache);
        (from_cache * 100).checked_div(all)
    }
}

fn answered(figures: &Snapshot) -> Answered {
    let counts = &figures.connections;
    let from_cache = counts.hit + counts.stale;
    Answered {
        from_cache,
        all: from_cache + counts.coalesced + counts.miss + counts.failure,
    }
}

/// Whether the upstreams answer; `None` if none has been asked.
fn upstreams(upstreams: &[UpstreamCounts]) -> Option<String> {
    let is_down = |upstream: &&UpstreamCounts| matches!(upstream.state, UpstreamState::Down(_));
    let is_up = |upstream: &&UpstreamCounts| upstream.state == UpstreamState::Up;
    let all = upstreams.len();
    let down = upstreams.iter().filter(is_down).count();
    let up = upstreams.iter().filter(is_up).count();

    let text = match (all, down) {
        (_, 0) if up == 0 => return None,
        (1, 0) => "upstream answers".into(),
        (1, _) => "upstream is down".into(),
        (_, 0) => "upstreams answer".into(),
        (_, 1) => format!("1 of {all} upstreams is down"),
        _ if down == all => "all upstreams are down".into(),
        _ => format!("{down} of {all} upstreams are down"),
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use poetry::control::{CacheCounts, ConnectionCounts, Histogram};
    use poetry::stats::Stats;
    use std::time::{Duration, Instant};

    fn proxy(connections: ConnectionCounts, states: &[UpstreamState]) -> Snapshot {
        let upstream = |state: &UpstreamState| UpstreamCounts {
            name: "a:1".into(),
            state: *state,
            paused: None,
            connections: 0,
            asked: 0,
            failures: Default::default(),
            durations: Histogram::default(),
            received: 0,
            last_success: None,
            last_error: None,
        };
        Snapshot {
            connections,
            upstreams: states.iter().map(upstream).collect(),
            cache: Some(CacheCounts::default()),
            ..Snapshot::of(&Stats::default(), Instant::now())
        }
    }

    fn describe(connections: ConnectionCounts, states: &[UpstreamState]) -> String {
        Recent::default().describe(&proxy(connections, states))
    }

    #[test]
    fn a_status_names_the_clients_the_cache_and_the_upstream() {
        let connections = ConnectionCounts {
            open: 12,
            hit: 90,
            stale: 4,
            coalesced: 3,
            miss: 2,
            failure: 1,
            unasked: 500,
            ..ConnectionCounts::default()
        };
        assert_eq!(
            describe(connections, &[UpstreamState::Up]),
            "12 clients, 94 % from the cache, upstream answers"
        );
    }

    #[test]
    fn a_status_says_nothing_of_what_has_not_been_asked() {
        let none = ConnectionCounts::default();
        assert_eq!(describe(none, &[UpstreamState::Unknown]), "0 clients");

        let serve = Snapshot::of(&Stats::default(), Instant::now());
        assert_eq!(Recent::default().describe(&serve), "0 clients");
    }

    #[test]
    fn a_status_says_how_many_upstreams_are_down() {
        let down = UpstreamState::Down(Duration::from_secs(3));
        let (up, unknown) = (UpstreamState::Up, UpstreamState::Unknown);
        for (states, said) in [
            (&[down][..], "upstream is down"),
            (&[up, unknown], "upstreams answer"),
            (&[down, unknown], "1 of 2 upstreams is down"),
            (&[down, down, up], "2 of 3 upstreams are down"),
            (&[down, down], "all upstreams are down"),
        ] {
            let none = ConnectionCounts::default();
            assert_eq!(describe(none, states), format!("0 clients, {said}"));
        }
    }

    #[test]
    fn the_part_of_the_cache_is_that_of_the_last_minute() {
        let mut recent = Recent::default();
        let mut connections = ConnectionCounts {
            miss: 1000,
            ..ConnectionCounts::default()
        };
        let mut look = |connections: ConnectionCounts| recent.describe(&proxy(connections, &[]));
        assert_eq!(look(connections), "0 clients, 0 % from the cache");

        connections.hit = 1999;
        connections.miss = 1001;
        for _ in 0..LOOKS {
            assert!(look(connections).contains("% from the cache"));
        }
        assert_eq!(look(connections), "0 clients", "a quiet minute");
        connections.hit += 999;
        connections.miss += 1;
        assert_eq!(look(connections), "0 clients, 99 % from the cache");
    }
}
