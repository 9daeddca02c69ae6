//! Where a proxy's poems come from: a list of servers, or the built-in poems.

mod health;
mod record;

use crate::addr::Addr;
use crate::anthology;
use crate::client::{self, Exchange, Query};
use crate::control::UpstreamCounts;
use crate::error::Error;
use crate::flight::Reader;
use crate::observe::{Event, Observer};
use crate::poem::Poem;
use crate::trickle::{Pace, Trickle};
use bytes::Bytes;
use health::{Change, Health};
pub use record::DURATION_BOUNDS;
use record::Record;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where a proxy's poems come from, and what is known of each source.
#[derive(Debug)]
pub struct Upstream {
    origin: Origin,
    records: Records,
}

#[derive(Debug)]
enum Origin {
    /// Servers. When one fails, the next is asked.
    Servers(Servers),
    /// The built-in poems in turn, each over about two seconds.
    BuiltIn {
        poems: Vec<Poem>,
        /// Number of poems asked for so far.
        turn: AtomicUsize,
    },
}

/// Servers, and which of them have just failed.
#[derive(Debug)]
struct Servers {
    addrs: Vec<Addr>,
    /// The same as text, shared with whatever names a server.
    names: Vec<Arc<str>>,
    /// Held for one decision.
    health: Mutex<Health>,
}

/// One of the sources of an upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source(usize);

/// How long a built-in poem takes.
const TRICKLE_TIME: Duration = Duration::from_secs(2);

/// Steps in which a built-in poem comes.
const TRICKLE_STEPS: u32 = 40;

impl Servers {
    fn health(&self) -> MutexGuard<'_, Health> {
        let guard = self.health.lock();
        guard.expect("no code panics while it holds the lock of the servers' health")
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
        let name = |addr: &Addr| addr.to_string().into();
        Upstream {
            records: Records::new(addrs.len()),
            origin: Origin::Servers(Servers {
                names: addrs.iter().map(name).collect(),
                health: Mutex::new(Health::new(addrs.len())),
                addrs,
            }),
        }
    }

    /// The built-in poems.
    pub fn built_in() -> Upstream {
        Upstream {
            records: Records::new(1),
            origin: Origin::BuiltIn {
                poems: anthology::recital(),
                turn: AtomicUsize::new(0),
            },
        }
    }

    /// The servers' addresses; none for the built-in poems.
    pub fn addrs(&self) -> &[Addr] {
        match &self.origin {
            Origin::Servers(servers) => &servers.addrs,
            Origin::BuiltIn { .. } => &[],
        }
    }

    /// What tells each server from all others, in the order in which they are asked.
    pub(crate) fn ids(&self) -> Vec<Vec<u8>> {
        match &self.origin {
            Origin::Servers(servers) => servers.addrs.iter().map(Addr::id).collect(),
            Origin::BuiltIn { .. } => vec![b"builtin".to_vec()],
        }
    }

    /// The sources in the order in which a fetch that starts now asks them: a server
    /// that has just failed comes after the others.
    pub(crate) fn order(&self, now: Instant) -> Vec<Source> {
        match &self.origin {
            Origin::Servers(servers) => {
                let order = servers.health().order(now);
                order.into_iter().map(Source).collect()
            }
            Origin::BuiltIn { .. } => vec![Source(0)],
        }
    }

    /// The name of a source, for logs.
    pub(crate) fn name(&self, source: Source) -> Arc<str> {
        match &self.origin {
            Origin::Servers(servers) => servers.names[source.0].clone(),
            Origin::BuiltIn { .. } => "builtin".into(),
        }
    }

    /// Asks one source for a poem.
    ///
    /// # Errors
    /// Those of [`client::ask`].
    pub(crate) async fn ask<'a>(
        &self,
        source: Source,
        query: &Query<'a>,
    ) -> Result<Reply<'a>, Error> {
        let now = Instant::now();
        let asking = self.records.asking(source, now);

        let text = match &self.origin {
            Origin::Servers(servers) => {
                servers.health().asked(source.0, now);
                let exchange = client::ask(&servers.addrs[source.0], query).await?;
                ReplyText::Server(Box::new(exchange))
            }
            Origin::BuiltIn { poems, turn } => {
                let at = turn.fetch_add(1, Ordering::Relaxed) % poems.len();
                ReplyText::BuiltIn(trickle(&poems[at]))
            }
        };
        Ok(Reply { text, asking })
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
        let Origin::Servers(servers) = &self.origin else {
            return;
        };
        let upstream = &servers.names[source.0];

        let change = match result {
            Err(error) if error.is_worth_another_server() => servers.health().failed(source.0, now),
            Err(Error::Local { .. }) => None, // it says nothing about the source
            Ok(()) | Err(_) => servers.health().succeeded(source.0, now),
        };
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
    /// Records a failure that changes nothing in how the source is asked.
    pub(crate) fn note_failure(&self, source: Source, error: &Error, now: Instant) {
        self.records
            .with(source, |record| record.failed(error, now));
    }

    /// What is known of each source, in the order of the command line.
    pub(crate) fn counts(&self, now: Instant) -> Vec<UpstreamCounts> {
        let down_since = |source: Source| match &self.origin {
            Origin::Servers(servers) => servers.health().down_since(source.0),
            Origin::BuiltIn { .. } => None,
        };
        let counts = |source: Source| {
            let (name, down_since) = (self.name(source), down_since(source));
            let records = &self.records;
            records.with(source, |record| {
                record.counts(name.to_string(), down_since, now)
            })
        };

        let sources = match &self.origin {
            Origin::Servers(servers) => servers.addrs.len(),
            Origin::BuiltIn { .. } => 1,
        };
        (0..sources).map(Source).map(counts).collect()
    }
}

fn trickle(poem: &Poem) -> Trickle {
    let bytes = poem.len().div_ceil(TRICKLE_STEPS.into()).max(1) as usize;
    let delay = TRICKLE_TIME / TRICKLE_STEPS;
    Trickle::new(Reader::of(poem.clone()), Pace { bytes, delay })
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.origin {
            Origin::Servers(servers) => {
                let servers: Vec<String> = servers.addrs.iter().map(Addr::to_string).collect();
                f.write_str(&servers.join(", "))
            }
            Origin::BuiltIn { .. } => f.write_str("builtin"),
        }
    }
}

/// A poem on its way.
pub(crate) struct Reply<'a> {
    text: ReplyText<'a>,
    asking: Asking,
}

enum ReplyText<'a> {
    /// From a server.
    Server(Box<Exchange<'a>>),
    /// From this process.
    BuiltIn(Trickle),
}

impl Reply<'_> {
    /// The next bytes; `None`, once, when the reply is complete.
    ///
    /// # Errors
    /// The reason why the reply is not complete: the bytes before it are only a part.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = match &mut self.text {
            ReplyText::Server(exchange) => exchange.next().await?,
            ReplyText::BuiltIn(trickle) => trickle.next().await?,
        };

        match &next {
            Some(bytes) => self.asking.received(bytes.len()),
            None => self.asking.succeeded(Instant::now()),
        }
        Ok(next)
    }

    /// Whether the reply is known to be complete: [`Reply::next`] would return `None`.
    pub(crate) fn is_over(&self) -> bool {
        match &self.text {
            ReplyText::Server(exchange) => exchange.is_over(),
            ReplyText::BuiltIn(trickle) => trickle.is_over(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::UpstreamState;

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
