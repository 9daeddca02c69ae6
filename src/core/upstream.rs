//! Where a proxy's poems come from: servers, commands, or the built-in poems.

mod exec;
mod health;
mod record;
mod reply;
mod turns;

use crate::addr::Addr;
use crate::anthology;
use crate::client::{self, Query};
use crate::control::UpstreamCounts;
use crate::dispatch::StartRight;
use crate::error::Error;
use crate::observe::{Event, Observer};
use crate::poem::Poem;
use crate::rt;
pub use exec::{BadCommand, ExecCommand};
use health::Change;
pub use record::DURATION_BOUNDS;
use record::Record;
pub(crate) use reply::Reply;
use reply::{ReplyText, trickle};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
pub use turns::{AskLimits, RejectPause};
use turns::{NextTurn, Turns};

/// Where a proxy's poems come from, and what is known of each source.
#[derive(Debug)]
pub struct Upstream {
    /// When one fails, the next is asked.
    origins: Vec<Origin>,
    /// Their names, shared with whatever names a source.
    names: Vec<Arc<str>>,
    limits: AskLimits,
    turns: SharedTurns,
    records: Records,
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

/// The turns of the sources. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct SharedTurns {
    /// Held for one decision.
    turns: Arc<Mutex<Turns>>,
}

impl SharedTurns {
    fn new(sources: usize, limits: AskLimits) -> SharedTurns {
        SharedTurns {
            turns: Arc::new(Mutex::new(Turns::new(sources, limits))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        let guard = self.turns.lock();
        guard.expect("no code panics while it holds the lock of the turns")
    }

    /// Takes the next turn.
    ///
    /// # Errors
    /// When it comes, if there is none now.
    pub(crate) fn take(&self, now: Instant) -> Result<Source, Instant> {
        match self.lock().next(&[], now) {
            Some(NextTurn::Now(source)) => Ok(Source(source)),
            Some(NextTurn::Later(_, at)) => Err(at),
            None => unreachable!("an upstream has a source"),
        }
    }

    /// Returns a turn that was taken and not used.
    pub(crate) fn give_back(&self, source: Source) {
        self.lock().give_back(source.0);
    }
}

/// One record for each source. Cloning shares them.
#[derive(Debug, Clone)]
struct Records {
    /// Held for a few lines.
    records: Arc<Mutex<Vec<Record>>>,
}

impl Records {
    fn new(sources: usize) -> Records {
        let records = (0..sources).map(|_| Record::new()).collect();
        Records {
            records: Arc::new(Mutex::new(records)),
        }
    }

    fn with<T>(&self, source: Source, work: impl FnOnce(&mut Record) -> T) -> T {
        let records = self.records.lock();
        let mut records = records.expect("no code panics while it holds the records' lock");
        work(&mut records[source.0])
    }

    /// Counts that a source is asked, and a connection to it until this is dropped.
    fn asking(&self, source: Source, now: Instant) -> Asking {
        self.with(source, Record::asked);
        Asking {
            records: self.clone(),
            source,
            since: now,
        }
    }
}

/// A connection to a source, as its record sees it.
struct Asking {
    records: Records,
    source: Source,
    since: Instant,
}

impl Asking {
    fn received(&self, bytes: usize) {
        let records = &self.records;
        records.with(self.source, |record| record.received(bytes as u64));
    }

    fn succeeded(&self, now: Instant) {
        let records = &self.records;
        records.with(self.source, |record| record.succeeded(self.since, now));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.records.with(self.source, Record::left);
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
        Upstream {
            names: origins
                .iter()
                .map(|origin| origin.to_string().into())
                .collect(),
            turns: SharedTurns::new(origins.len(), limits),
            records: Records::new(origins.len()),
            limits,
            origins,
        }
    }

    /// The same, with each source asked no more often than this.
    pub fn limited(self, limits: AskLimits) -> Upstream {
        Upstream {
            limits,
            turns: SharedTurns::new(self.origins.len(), limits),
            ..self
        }
    }

    /// The turns before the sources, if a fetch may have to wait for one.
    pub(crate) fn limiting_turns(&self) -> Option<SharedTurns> {
        let is_limited = self.limits.rate.is_some() || self.limits.pause != RejectPause::Never;
        is_limited.then(|| self.turns.clone())
    }

    /// The number of sources.
    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }

    /// The servers' addresses; none for commands and the built-in poems.
    pub fn addrs(&self) -> impl Iterator<Item = &Addr> {
        self.origins.iter().filter_map(|origin| match origin {
            Origin::Server(addr) => Some(addr),
            Origin::Exec(_) | Origin::BuiltIn(_) => None,
        })
    }

    /// What tells each source from all others, in the order in which they are asked.
    pub(crate) fn ids(&self) -> Vec<Vec<u8>> {
        let id = |origin: &Origin| match origin {
            Origin::Server(addr) => addr.id(),
            Origin::Exec(command) => command.id(),
            Origin::BuiltIn(_) => b"builtin".to_vec(),
        };
        self.origins.iter().map(id).collect()
    }

    /// The source that is asked next, but for those in `asked`: one that has just
    /// failed comes after the others. `None` if there is no other.
    ///
    /// It is not asked before the time that is returned, if one is. No other fetch may
    /// start until then either, so waiting for it keeps none from a place.
    pub(crate) fn next(&self, asked: &[Source], now: Instant) -> Option<(Source, Option<Instant>)> {
        let asked: Vec<usize> = asked.iter().map(|source| source.0).collect();
        let mut turns = self.turns.lock();
        match turns.next(&asked, now)? {
            NextTurn::Now(source) => Some((Source(source), None)),
            NextTurn::Later(source, _) => {
                let at = turns.book(source, now);
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
            let pause = self.turns.lock().pause_left(source.0, now);
            if wait.is_zero() && pause.is_zero() {
                return;
            }
            if wait < pause {
                at = self.turns.lock().book(source.0, now); // closed until then
                continue;
            }
            rt::sleep(wait).await;
        }
    }

    /// The name of a source, for logs.
    pub(crate) fn name(&self, source: Source) -> Arc<str> {
        self.names[source.0].clone()
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
        let asking = self.records.asking(source, now);

        self.turns.lock().health.asked(source.0, now);
        let text = match &self.origins[source.0] {
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
        self.records.with(source, |record| record.brings(now));
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
        let upstream = &self.names[source.0];
        if let Origin::Exec(command) = &self.origins[source.0]
            && let Some(line) = command.take_said()
        {
            let line = &line;
            observer.event(Event::ProgramSaid { upstream, line });
        }
        let mut turns = self.turns.lock();
        let change = match result {
            Err(error) if error.is_worth_another_server() => turns.health.failed(source.0, now),
            Err(Error::Local { .. }) => None, // it says nothing about the source
            Ok(()) | Err(_) => turns.health.succeeded(source.0, now),
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
        if !is_rejected {
            return self.turns.lock().accepted(source.0, now);
        }
        let pause = self.turns.lock().rejected(source.0, now);
        if let Some(pause) = pause {
            let upstream = &self.names[source.0];
            observer.event(Event::UpstreamPaused { upstream, pause });
        }
    }

    /// Records a failure that changes nothing in how the source is asked.
    pub(crate) fn note_failure(&self, source: Source, error: &Error, now: Instant) {
        self.records
            .with(source, |record| record.failed(error, now));
    }

    /// What is known of each source, in the order of the command line.
    pub(crate) fn counts(&self, now: Instant) -> Vec<UpstreamCounts> {
        let counts = |source: Source| {
            let turns = self.turns.lock();
            let down_since = turns.health.down_since(source.0);
            let pause = turns.pause_left(source.0, now);
            drop(turns);

            let name = self.name(source).to_string();
            let records = &self.records;
            let mut counts = records.with(source, |record| record.counts(name, down_since, now));
            counts.paused = (!pause.is_zero()).then_some(pause);
            counts
        };
        (0..self.origins.len()).map(Source).map(counts).collect()
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names.join(", "))
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
