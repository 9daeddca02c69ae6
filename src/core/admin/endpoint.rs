//! What the endpoint answers, in both languages: one source of figures, so that they
//! can't disagree.

use super::action::{Action, KeyQuery, PurgeTarget, Right};
use super::clock::Clock;
use super::health::{HealthReport, counted};
use super::history::History;
use super::metrics::{self, Format, Scrape};
use super::process::Process;
use super::rights::{AdminAccess, Denied, Rights};
use super::status::{self, StatusParts};
use super::watching::{Endless, watch};
use super::{AdminParts, Lookout, keys, line, page, text};
use crate::cache::Purge;
use crate::control::{FlightView, KeyList, KeyPage, KeyView, Refresh, Snapshot, UpstreamState};
use crate::escape;
use crate::flight::Ending;
use crate::rt;
use bytes::Bytes;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most fetches of one answer. More don't fit on a screen.
const FLIGHTS_MAX: usize = 1000;

/// A heartbeat of this age means that the executor is stuck. The longest that healthy
/// work holds it is a transformation of a large poem, some seconds.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long a refresh is waited for: a second less than an answer may take.
const REFRESH_WAIT: Duration = Duration::from_secs(9);

/// Looks at the cache for one page of keys: some hundred thousand keys, and
/// milliseconds.
const LOOKS_MAX: usize = 64;

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The endpoint, as its connections share it.
pub(super) struct Endpoint {
    parts: AdminParts,
    /// The last five minutes. Held to add a sample, or to look.
    history: Mutex<History>,
    is_draining: AtomicBool,
    endless: Arc<AtomicUsize>,
}

/// An answer over HTTP.
pub(super) struct Page {
    pub status: u16,
    /// The type of its content.
    pub kind: &'static str,
    /// The methods to use instead.
    pub allow: Option<&'static str>,
    pub body: Content,
}

/// What an answer consists of.
pub(super) enum Content {
    Whole(Bytes),
    Endless(Endless),
}

/// An answer in the line language.
pub(super) enum Spoken {
    /// What was asked for.
    Well(Content),
    /// Why not. The connection is reset after it.
    Badly(String),
}

impl Page {
    /// A page of one text.
    pub(super) fn text(status: u16, text: impl Into<Bytes>) -> Page {
        Page::of(status, PLAIN, text)
    }

    fn of(status: u16, kind: &'static str, content: impl Into<Bytes>) -> Page {
        Page {
            status,
            kind,
            allow: None,
            body: Content::Whole(content.into()),
        }
    }

    fn json(value: &serde_json::Value) -> Page {
        Page::of(200, JSON, escape::json(value.to_string()) + "\n")
    }
}

impl Endpoint {
    pub(super) fn new(parts: AdminParts) -> Endpoint {
        Endpoint {
            history: Mutex::new(History::new(parts.stats.started())),
            parts,
            is_draining: AtomicBool::new(false),
            endless: Arc::default(),
        }
    }

    pub(super) fn access(&self) -> &AdminAccess {
        &self.parts.access
    }

    /// Takes a sample for the history.
    pub(super) fn sample(&self, now: Instant) {
        let snapshot = self.snapshot(now);
        self.history().take(&snapshot, now);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the service takes no new clients.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// The answer over HTTP. The caller has checked the rights; they say what of the
    /// answer may be shown. `accept` names the types that the client takes.
    pub(super) async fn answer(
        self: &Arc<Self>,
        action: Action,
        rights: Rights,
        accept: &str,
    ) -> Page {
        let now = Instant::now();
        match action {
            Action::Help => file("/"),
            Action::Style => file("/page.css"),
            Action::PageScript => file("/page.js"),
            Action::Metrics => {
                let format = Format::accepted(accept);
                Page::of(200, format.content_type(), self.metrics(format, now))
            }
            Action::Live => health(self.live(now), "live"),
            Action::Ready { upstream } => health(self.ready(upstream, now), "ready"),
            Action::Status { history } => {
                let shows_keys = rights.allow(Right::Keys).is_ok();
                Page::of(200, JSON, self.status(history, shows_keys, now))
            }
            Action::Keys(query) => Page::json(&keys::keys(&self.keys(&query, now).await)),
            Action::Key(name) => match self.key(&name, now) {
                Some(key) => Page::json(&keys::key(&key)),
                None => Page::text(404, "nothing is known of this key\n"),
            },
            Action::Flights => Page::json(&keys::flights(&self.flights(FLIGHTS_MAX, now))),
            Action::Upstreams => {
                let upstreams = self.snapshot(now).upstreams;
                Page::json(&status::upstreams(&upstreams, &clock(now)))
            }
            Action::Notices => Page::json(&self.parts.lookout.notices.to_json(&clock(now))),
            Action::Log { .. } | Action::Top | Action::TopKeys => self.endless_page(&action),
            Action::Purge(target, how) => {
                let purged = self.purge(target, how, now).await;
                Page::json(&json!({ "purged": purged }))
            }
            Action::Refresh { name, wait } => self.refresh_page(&name, wait, now).await,
        }
    }

    /// The answer in the line language, for a client with these rights.
    pub(super) async fn speak(self: &Arc<Self>, action: &Action, rights: Rights) -> Spoken {
        // The help is no page here, and names no figures.
        let is_help = *action == Action::Help;
        if let Err(denied) = rights.allow(action.right())
            && !is_help
        {
            return Spoken::Badly(refusal(denied));
        }

        let now = Instant::now();
        let whole = |text: String| Spoken::Well(Content::Whole(text.into()));
        match action {
            Action::Help | Action::Style | Action::PageScript => whole(line::HELP.into()),
            Action::Live => spoken_health(self.live(now), "live"),
            Action::Ready { upstream } => spoken_health(self.ready(*upstream, now), "ready"),
            Action::Metrics => whole(self.metrics(Format::Text, now)),
            Action::Status { .. } => whole(self.glance(now)),
            Action::Keys(query) => whole(text::keys(&self.keys(query, now).await)),
            Action::Key(name) => whole(self.key(name, now).iter().map(text::key).collect()),
            Action::Flights => whole(text::flights(&self.flights(FLIGHTS_MAX, now))),
            Action::Upstreams => whole(text::upstreams(&self.snapshot(now).upstreams)),
            Action::Notices => {
                let notices = self.parts.lookout.notices.to_json(&clock(now));
                whole(text::notices(&notices))
            }
            Action::Log { .. } | Action::Top | Action::TopKeys => {
                match watch(self, action, &self.endless) {
                    Ok(lines) => Spoken::Well(Content::Endless(lines)),
                    Err(why) => Spoken::Badly(why.into()),
                }
            }
            Action::Purge(target, how) => {
                let purged = self.purge(target.clone(), *how, now).await;
                whole(format!("purged {}\n", counted(purged, "answer")))
            }
            Action::Refresh { name, .. } => match self.refresh(name, now) {
                Ok((word, _)) => whole(format!("{word}\n")),
                Err(why) => Spoken::Badly(why.into()),
            },
        }
    }

    pub(super) fn lookout(&self) -> &Lookout {
        &self.parts.lookout
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        self.parts.control.snapshot(&self.parts.stats, now)
    }

    /// Whether the executor runs.
    fn live(&self, now: Instant) -> Result<(), String> {
        let age = self.parts.heartbeat.age(now);
        if age > STUCK_AFTER {
            return Err(format!("stuck for {}s", age.as_secs()));
        }
        Ok(())
    }

    /// Whether new clients are served. An upstream counts only where it is asked for: a
    /// cache answers without, and else all proxies of a server were taken out at once.
    fn ready(&self, upstream: bool, now: Instant) -> Result<(), String> {
        if self.is_draining.load(Ordering::Acquire) {
            return Err("draining".into());
        }
        let upstreams = self.snapshot(now).upstreams;
        let is_down = |state| matches!(state, UpstreamState::Down(_));
        let are_down = upstreams.iter().all(|upstream| is_down(upstream.state));
        if upstream && !upstreams.is_empty() && are_down {
            return Err("no upstream answers".into());
        }
        Ok(())
    }

    /// The figures for Prometheus.
    fn metrics(&self, format: Format, now: Instant) -> String {
        let scrape = Scrape {
            snapshot: self.snapshot(now),
            process: Process::read(),
            lost_log_lines: self.parts.lost_log_lines.load(Ordering::Relaxed),
            time: clock(now).wall(),
        };
        metrics::render(scrape, format)
    }

    /// The figures as JSON, with the fetches where they may be shown.
    fn status(&self, span: Duration, shows_keys: bool, now: Instant) -> String {
        let flights = shows_keys.then(|| self.parts.control.flights(status::MAX_FLIGHTS, now));
        let text = status::status(&StatusParts {
            about: &self.parts.about,
            snapshot: &self.snapshot(now),
            history: &self.history(),
            span,
            notices: &self.parts.lookout.notices,
            flights: flights.as_deref(),
            is_draining: self.is_draining.load(Ordering::Acquire),
            clock: &clock(now),
        });
        text + "\n"
    }

    /// The figures at a glance.
    fn glance(&self, now: Instant) -> String {
        let snapshot = self.snapshot(now);
        let is_draining = self.is_draining.load(Ordering::Acquire);
        let health = HealthReport::of(&snapshot, &self.history(), is_draining, &clock(now));
        let state = match self.live(now) {
            Err(stuck) => stuck,
            Ok(()) => health.condition.word().into(),
        };
        text::status(&snapshot, &state, &health.reasons)
    }

    pub(super) fn flights(&self, most: usize, now: Instant) -> Vec<FlightView> {
        self.parts.control.flights(most, now)
    }

    /// A page of keys. Each look at the cache is short, so it takes several to find the
    /// few of a prefix. Between them the other connections have their turn.
    async fn keys(&self, query: &KeyQuery, now: Instant) -> KeyList {
        let mut list = KeyList {
            next: query.cursor,
            ..KeyList::default()
        };
        for _ in 0..LOOKS_MAX {
            let page = KeyPage {
                prefix: &query.prefix,
                cursor: list.next,
                limit: query.limit - list.keys.len(),
            };
            let found = self.parts.control.keys(&page, now);
            list.keys.extend(found.keys);
            (list.next, list.total) = (found.next, found.total);
            if list.next.is_none() || list.keys.len() >= query.limit {
                break;
            }
            rt::yield_now().await;
        }
        list
    }

    /// One key.
    fn key(&self, name: &[u8], now: Instant) -> Option<KeyView> {
        self.parts.control.key(name, now)
    }

    /// Purges one text at once. All texts, or those of a prefix, are looked at on a
    /// thread of its own: a million take a second, and health checks are to be
    /// answered.
    async fn purge(&self, target: PurgeTarget, how: Purge, now: Instant) -> u64 {
        let control = self.parts.control.clone();
        let is_quick = matches!(target, PurgeTarget::Named(_));
        let purge = move || control.purge(target.texts(), how, now);
        if is_quick {
            purge()
        } else {
            rt::unblock(purge).await
        }
    }

    /// Starts a fetch; says so, or why not.
    fn refresh(&self, name: &[u8], now: Instant) -> Result<(&'static str, Ending), &'static str> {
        match self.parts.control.clone().refresh(name, now) {
            Refresh::Started(ending) => Ok(("started", ending)),
            Refresh::UnderWay(ending) => Ok(("under way", ending)),
            Refresh::Unknown => Err("this key can't be asked for"),
            Refresh::Unsupported => Err("this service fetches nothing"),
        }
    }

    async fn refresh_page(&self, name: &[u8], wait: bool, now: Instant) -> Page {
        let (word, ending) = match self.refresh(name, now) {
            Ok(started) => started,
            Err(why) => return Page::text(409, format!("{why}\n")),
        };

        let limit = if wait { REFRESH_WAIT } else { Duration::ZERO };
        match rt::within(limit, ending.wait()).await {
            Some(Ok(kept)) => Page::json(&json!({ "refresh": "ended", "kept": kept })),
            Some(Err(error)) => Page::text(502, escape::text(&error.to_string()) + "\n"),
            None => Page {
                status: 202,
                ..Page::json(&json!({ "refresh": word }))
            },
        }
    }

    fn endless_page(self: &Arc<Self>, action: &Action) -> Page {
        match watch(self, action, &self.endless) {
            Ok(lines) => Page {
                status: 200,
                kind: LINES,
                allow: None,
                body: Content::Endless(lines),
            },
            Err(why) => Page::text(503, format!("{why}\n")),
        }
    }
}

/// The moment `now`, which is this one.
fn clock(now: Instant) -> Clock {
    Clock::read_at(now)
}

/// A file of the page.
fn file(path: &str) -> Page {
    match page::file(path) {
        Some((kind, text)) => Page::of(200, kind, text),
        None => Page::text(404, "there is no such file\n"),
    }
}

fn health(state: Result<(), String>, word: &str) -> Page {
    match state {
        Ok(()) => Page::text(200, format!("{word}\n")),
        Err(why) => Page::text(503, format!("{why}\n")),
    }
}

fn spoken_health(state: Result<(), String>, word: &str) -> Spoken {
    match state {
        Ok(()) => Spoken::Well(Content::Whole(format!("{word}\n").into())),
        Err(why) => Spoken::Badly(why),
    }
}

/// A line has no place for a token.
fn refusal(denied: Denied) -> String {
    match denied {
        Denied::Never => "only over a unix socket".into(),
        other => other.to_string(),
    }
}
