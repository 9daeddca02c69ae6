//! What a request asks: its sources, how they may be asked, and how long what they
//! bring is kept. All that may differ from one request to the next is here.
//!
//! A fetch holds its target from its begin to its end, whatever is decided for later
//! requests meanwhile.

use super::fetch::{Fetch, SourceLimit};
use super::key::Scope;
use super::{ProxySettings, Rejects, TtlRules};
use crate::cache::KeepTimes;
use crate::dispatch::{Dispatch, StartLimit};
use crate::error::Error;
use crate::protocol::EndRule;
use crate::routing::SendTemplate;
use crate::rt;
use crate::stats::{PanicCount, Stats};
use crate::upstream::{Turns, Upstream};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a request asks.
#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// Where its text comes from.
    pub upstream: Upstream,
    /// What is sent in place of the request.
    pub send: Option<SendTemplate>,
    /// The route, for logs; `None` if no route takes the request.
    pub route: Option<Arc<str>>,
    /// How long that is kept.
    pub times: KeepTimes,
    /// Which texts have a ttl of their own.
    pub ttls: TtlRules,
    /// Texts that are passed on and not kept.
    pub rejects: Rejects,
    /// Fetches that may run at once, at least one.
    pub conns: usize,
    /// Which ends make a text whole, in the protocols without framing.
    pub ends: EndRule,
    /// For how long sources that refuse are asked again, from the first refusal on.
    pub connect_retry: Duration,
}

/// A target, its place in the keys, and its queue.
pub(super) struct Target {
    pub upstream: Upstream,
    /// The sources, for logs.
    pub name: String,
    pub send: Option<SendTemplate>,
    pub route: Option<Arc<str>>,
    pub times: KeepTimes,
    pub ttls: TtlRules,
    pub rejects: Rejects,
    pub ends: EndRule,
    pub connect_retry: Duration,
    pub scope: Scope,
    pub places: Arc<Places>,
}

impl Target {
    /// A target with these keys and places.
    pub(super) fn new(own: TargetSettings, scope: Scope, places: Arc<Places>) -> Arc<Target> {
        Arc::new(Target {
            name: own.upstream.to_string(),
            upstream: own.upstream,
            send: own.send,
            route: own.route,
            times: own.times,
            ttls: own.ttls,
            rejects: own.rejects,
            scope,
            places,
            ends: own.ends,
            connect_retry: own.connect_retry,
        })
    }

    /// What is sent for a request.
    ///
    /// # Errors
    /// Those of [`SendTemplate::fill`].
    pub(super) fn sent(&self, request: &Bytes) -> Result<Bytes, Error> {
        match &self.send {
            Some(template) => template.fill(request, &self.name),
            None => Ok(request.clone()),
        }
    }

    /// The longest ttl that a text can have.
    pub(super) fn longest_ttl(&self) -> Duration {
        let own = self.ttls.longest().unwrap_or_default();
        own.max(self.times.ttl)
    }

    /// How long the oldest client has waited for a place before its sources.
    pub(super) fn waited(&self) -> Option<Duration> {
        let oldest = self.places.dispatch.oldest_client();
        oldest.map(|since| since.elapsed())
    }
}

/// The places before the sources of an upstream, and the queue for them.
pub(super) struct Places {
    pub dispatch: Arc<Dispatch<Fetch>>,
    /// Fetches that may run at once.
    pub number: usize,
    turns: Turns,
    /// Whether a task ends fetches that wait too long.
    watches_queue: AtomicBool,
}

impl Places {
    pub(super) fn new(upstream: &Upstream, number: usize, queue: usize) -> Arc<Places> {
        let turns = upstream.limiting_turns();
        let limit = turns.map(|turns| Box::new(SourceLimit(turns)) as Box<dyn StartLimit<Fetch>>);
        Arc::new(Places {
            dispatch: Dispatch::limited(number, queue, limit),
            number,
            turns: upstream.turns().clone(),
            watches_queue: AtomicBool::new(false),
        })
    }

    /// Whether they are the places before these very sources.
    pub(super) fn are_before(&self, upstream: &Upstream) -> bool {
        self.turns.are_those_of(upstream.turns())
    }

    /// Has fetches that wait longer than `limit` ended, if any waits.
    pub(super) fn watch(self: &Arc<Self>, limit: Duration, stats: &Arc<Stats>) {
        let is_first_to_wait = || !self.watches_queue.swap(true, Ordering::AcqRel);
        if self.dispatch.waiting() > 0 && is_first_to_wait() {
            rt::spawn_home(self.clone().watch_queue(limit, stats.clone()));
        }
    }

    /// Ends fetches that have waited for their turn as long as a fetch may take. One
    /// task for all of them, while any waits.
    async fn watch_queue(self: Arc<Self>, limit: Duration, stats: Arc<Stats>) {
        let _counts_a_panic = PanicCount(stats);
        loop {
            let now = Instant::now();
            let (overdue, next) = self.dispatch.take_overdue(limit, now);
            overdue.into_iter().for_each(|fetch| fetch.expire(now));
            if let Some(next) = next {
                // Not at once again: of two instants, the earlier may not have passed.
                let pause = next.saturating_duration_since(now);
                rt::sleep(pause.max(Duration::from_millis(1))).await;
                continue;
            }

            self.watches_queue.store(false, Ordering::Release);
            let is_empty = self.dispatch.waiting() == 0;
            if is_empty || self.watches_queue.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

/// What the keys share of these sources and this template.
pub(super) fn scope(
    upstream: &Upstream,
    send: Option<&SendTemplate>,
    proxy: &ProxySettings,
) -> Scope {
    let mut pipeline = Vec::new();
    if let Some(transforms) = &proxy.pipeline {
        pipeline = transforms.id();
        let fallback = if proxy.original_on_failure {
            "original"
        } else {
            "fail"
        };
        pipeline.extend(crate::protocol::netstring(fallback.as_bytes()));
    }

    let scope = Scope::new(proxy.protocol, &upstream.ids(), &pipeline);
    let scope = scope.folded(proxy.fold);
    match send {
        Some(template) => scope.sending(&template.to_string()),
        None => scope,
    }
}
