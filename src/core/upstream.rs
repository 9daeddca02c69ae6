//! Where a proxy's poems come from: servers, commands, or the built-in poems.

mod exec;
mod health;
mod record;
mod reply;
mod shared;
mod turns;

use crate::addr::Addr;
use crate::anthology;
use crate::client::{self, Query};
use crate::dispatch::StartRight;
use crate::error::Error;
use crate::observe::{Event, Observer};
use crate::poem::Poem;
use crate::rt;
pub use exec::{BadCommand, ExecCommand};
use health::Change;
pub use record::DURATION_BOUNDS;
pub(crate) use reply::Reply;
use reply::{ReplyText, trickle};
pub use shared::SharedSource;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use turns::NextTurn;
pub(crate) use turns::Turns;
pub use turns::{AskLimits, RejectPause};

/// Where poems come from: one source or several. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// When one fails, the next is asked.
    sources: Vec<Arc<SharedSource>>,
    turns: Turns,
}

/// What a poem can come from.
#[derive(Debug)]
pub enum Origin {
    /// A server.
    Server(Addr),
    /// A command, which is run for each fetch.
    Exec(ExecCommand),
    /// The built-in poems in turn, each over about two seconds.
    BuiltIn(Recital),
}

/// The built-in poems, and which is next.
#[derive(Debug)]
pub struct Recital {
    poems: Vec<Poem>,
    /// Number of poems asked for so far.
    turn: AtomicUsize,
}

impl Default for Recital {
    fn default() -> Recital {
        Recital {
            poems: anthology::recital(),
            turn: AtomicUsize::new(0),
        }
    }
}

/// One of the sources of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source(usize);

impl From<StartRight> for Source {
    fn from(right: StartRight) -> Source {
        Source(right.0)
    }
}

impl From<Source> for StartRight {
    fn from(source: Source) -> StartRight {
        StartRight(source.0)
    }
}

impl Upstream {
    /// These servers, asked in this order.
    pub fn servers(addrs: Vec<Addr>) -> Upstream {
        Upstream::of(addrs.into_iter().map(Origin::Server).collect())
    }

    /// The built-in poems.
    pub fn built_in() -> Upstream {
        Upstream::of(vec![Origin::BuiltIn(Recital::default())])
    }

    /// These sources, asked in this order: at least one.
    pub fn of(origins: Vec<Origin>) -> Upstream {
        let limits = AskLimits::default();
        let source = |origin| SharedSource::new(Arc::new(origin), limits);
        Upstream::sharing(origins.into_iter().map(source).collect())
    }

    /// The same, of sources that other upstreams may have as well.
    pub fn sharing(sources: Vec<Arc<SharedSource>>) -> Upstream {
        Upstream {
            turns: Turns::of(sources.iter().map(|source| source.turns.clone())),
            sources,
        }
    }

    /// The same, with each source asked no more often than this.
    pub fn limited(self, limits: AskLimits) -> Upstream {
        let limited = |source: &Arc<SharedSource>| source.limited(limits);
        Upstream::sharing(self.sources.iter().map(limited).collect())
    }

    /// The turns of the sources.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// The turns before the sources, if a fetch may have to wait for one.
    pub(crate) fn limiting_turns(&self) -> Option<Turns> {
        let is_limited = |source: &Arc<SharedSource>| {
            source.limits.rate.is_some() || source.limits.pause != RejectPause::Never
        };
        self.sources
            .iter()
            .any(is_limited)
            .then(|| self.turns.clone())
    }

    /// Whether it is limited how often this source is asked.
    pub(crate) fn has_rate(&self, source: Source) -> bool {
        self.sources[source.0].limits.rate.is_some()
    }

    /// The number of sources.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// The sources.
    pub(crate) fn sources(&self) -> &[Arc<SharedSource>] {
        &self.sources
    }

    /// The servers' addresses; none for commands and the built-in poems.
    pub fn addrs(&self) -> impl Iterator<Item = &Addr> {
        self.sources
            .iter()
            .filter_map(|source| match &*source.origin {
                Origin::Server(addr) => Some(addr),
                Origin::Exec(_) | Origin::BuiltIn(_) => None,
            })
    }

    /// What tells each source from all others, in the order in which they are asked.
    pub(crate) fn ids(&self) -> Vec<Vec<u8>> {
        self.sources.iter().map(|source| source.id()).collect()
    }

    /// The source that is asked next, but for those in `asked`: one that has just
    /// failed comes after the others. `None` if there is no other.
    ///
    /// It is not asked before the time that is returned, if one is. No other fetch may
    /// start until then either, so waiting for it keeps none from a place.
    pub(crate) fn next(&self, asked: &[Source], now: Instant) -> Option<(Source, Option<Instant>)> {
        let asked: Vec<usize> = asked.iter().map(|source| source.0).collect();
        match self.turns.next(&asked, now)? {
            NextTurn::Now(source) => Some((Source(source), None)),
            NextTurn::Later(source, _) => {
                let at = self.turns.book(source, now);
                Some((Source(source), Some(at)))
            }
        }
    }

    /// Waits until a turn that was booked for `at` has come. A pause that has begun
    /// meanwhile is waited for as well.
    pub(crate) async fn await_turn(&self, source: Source, at: Instant) {
        let mut at = at;
        loop {
            let now = Instant::now();
            let wait = at.saturating_duration_since(now);
            let pause = self.turns.pause_left(source.0, now);
            if wait.is_zero() && pause.is_zero() {
                return;
            }
            if wait < pause {
                at = self.turns.book(source.0, now); // closed until then
                continue;
            }
            rt::sleep(wait).await;
        }
    }

    /// The name of a source, for logs.
    pub(crate) fn name(&self, source: Source) -> Arc<str> {
        self.sources[source.0].name.clone()
    }

    /// Asks one source for a poem.
    ///
    /// # Errors
    /// Those of [`client::ask`]; of a command [`Error::BadRequest`] and
    /// [`Error::Program`].
    pub(crate) async fn ask<'a>(
        &self,
        source: Source,
        query: &Query<'a>,
    ) -> Result<Reply<'a>, Error> {
        let now = Instant::now();
        let source = &self.sources[source.0];
        let asking = source.asking(now);

        source.turns().health.asked(now);
        let text = match &*source.origin {
            Origin::Server(addr) => {
                let exchange = client::ask(addr, query).await?;
                ReplyText::Server(Box::new(exchange))
            }
            Origin::Exec(command) => ReplyText::Exec(Box::new(command.run(query).await?)),
            Origin::BuiltIn(Recital { poems, turn }) => {
                let at = turn.fetch_add(1, Ordering::Relaxed) % poems.len();
                ReplyText::BuiltIn(trickle(&poems[at]))
            }
        };
        Ok(Reply { text, asking })
    }

    /// Notes that a source without an end has brought something.
    pub(crate) fn brings(&self, source: Source, now: Instant) {
        self.sources[source.0].record().brings(now);
    }

    /// Notes how a source did. A failure is recorded, and one that says that the
    /// source does not answer is its end as the first to be asked. A change between up
    /// and down is reported to `observer`.
    pub(crate) fn note(
        &self,
        source: Source,
        result: Result<(), &Error>,
        now: Instant,
        observer: &dyn Observer,
    ) {
        if let Err(error) = result {
            self.note_failure(source, error, now);
        }
        let source = &self.sources[source.0];
        let upstream = &source.name;
        if let Origin::Exec(command) = &*source.origin
            && let Some(line) = command.take_said()
        {
            let line = &line;
            observer.event(Event::ProgramSaid { upstream, line });
        }
        let mut turns = source.turns();
        let change = match result {
            Err(error) if error.is_worth_another_server() => turns.health.failed(now),
            Err(Error::Local { .. }) => None, // it says nothing about the source
            Ok(()) | Err(_) => turns.health.succeeded(now),
        };
        drop(turns);
        match (change, result) {
            (Some(Change::WentDown(pause)), Err(error)) => {
                observer.event(Event::UpstreamDown {
                    upstream,
                    error,
                    pause,
                });
            }
            (Some(Change::CameUp(after)), _) => {
                observer.event(Event::UpstreamUp { upstream, after });
            }
            _ => {}
        }
    }
}

impl Upstream {
    /// Notes whether a whole answer was rejected. A pause that begins is reported to
    /// `observer`.
    pub(crate) fn judge(
        &self,
        source: Source,
        is_rejected: bool,
        now: Instant,
        observer: &dyn Observer,
    ) {
        let source = &self.sources[source.0];
        if !is_rejected {
            return source.turns().accepted(now);
        }
        let pause = source.turns().rejected(now);
        if let Some(pause) = pause {
            let upstream = &source.name;
            observer.event(Event::UpstreamPaused { upstream, pause });
        }
    }

    /// Records a failure that changes nothing in how the source is asked.
    pub(crate) fn note_failure(&self, source: Source, error: &Error, now: Instant) {
        self.sources[source.0].record().failed(error, now);
    }

    /// What is known of each source, in the order in which they are asked.
    #[cfg(test)]
    fn counts(&self, now: Instant) -> Vec<crate::control::UpstreamCounts> {
        self.sources
            .iter()
            .map(|source| source.counts(now))
            .collect()
    }
}

impl Origin {
    /// What tells it from all others.
    pub fn id(&self) -> Vec<u8> {
        match self {
            Origin::Server(addr) => addr.id(),
            Origin::Exec(command) => command.id(),
            Origin::BuiltIn(_) => b"builtin".to_vec(),
        }
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, source) in self.sources.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", source.name)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Server(addr) => addr.fmt(f),
            Origin::Exec(command) => command.fmt(f),
            Origin::BuiltIn(_) => f.write_str("builtin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::UpstreamState;
    use std::time::Duration;

    #[test]
    fn each_source_has_its_figures_before_it_is_asked() {
        let addrs = ["a.invalid:43", "unix:/nowhere"];
        let servers = addrs.map(|addr| addr.parse().expect("an address"));
        let of = |upstream: &Upstream| {
            let counts = upstream.counts(Instant::now()).into_iter();
            let counts = counts.map(|of| (of.name, of.state));
            counts.collect::<Vec<_>>()
        };

        let unknown = |name: &str| (name.to_string(), UpstreamState::Unknown);
        let servers = Upstream::servers(servers.to_vec());
        assert_eq!(of(&servers), addrs.map(unknown));
        assert_eq!(of(&Upstream::built_in()), [unknown("builtin")]);
    }

    #[test]
    fn a_failure_of_our_own_leaves_a_server_as_it_is() {
        let upstream = Upstream::servers(vec!["a.invalid:43".parse().expect("an address")]);
        let now = Instant::now();
        let note = |error: &Error| {
            upstream.note(Source(0), Err(error), now, &crate::observe::Silent);
            upstream.counts(now)[0].state
        };

        let subject = || "a.invalid:43".to_string();
        let why = || "a reason".to_string();
        let local = Error::Local {
            subject: subject(),
            why: why(),
        };
        assert_eq!(note(&local), UpstreamState::Unknown);
        let refused = Error::Unreachable {
            subject: subject(),
            why: why(),
        };
        assert_eq!(note(&refused), UpstreamState::Down(Duration::ZERO));
        assert_eq!(note(&local), UpstreamState::Down(Duration::ZERO));
        let declined = Error::Declined { subject: subject() };
        assert_eq!(note(&declined), UpstreamState::Up);
    }
}
