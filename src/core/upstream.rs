//! Where a proxy's poems come from: a list of servers, or the built-in poems.

mod health;

use crate::addr::Addr;
use crate::anthology;
use crate::client::{self, Exchange, Query};
use crate::error::Error;
use crate::flight::Reader;
use crate::observe::{Event, Observer};
use crate::poem::Poem;
use crate::trickle::{Pace, Trickle};
use bytes::Bytes;
use health::{Change, Health};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where a proxy's poems come from.
#[derive(Debug)]
pub enum Upstream {
    /// Servers. When one fails, the next is asked.
    Servers(Servers),
    /// The built-in poems in turn, each over about two seconds.
    BuiltIn {
        /// The poems.
        poems: Vec<Poem>,
        /// Number of poems asked for so far.
        turn: AtomicUsize,
    },
}

/// Servers, and which of them have just failed.
#[derive(Debug)]
pub struct Servers {
    addrs: Vec<Addr>,
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

impl Upstream {
    /// These servers, asked in this order.
    pub fn servers(addrs: Vec<Addr>) -> Upstream {
        Upstream::Servers(Servers {
            health: Mutex::new(Health::new(addrs.len())),
            addrs,
        })
    }

    /// The built-in poems.
    pub fn built_in() -> Upstream {
        Upstream::BuiltIn {
            poems: anthology::recital(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The servers' addresses; none for the built-in poems.
    pub fn addrs(&self) -> &[Addr] {
        match self {
            Upstream::Servers(servers) => &servers.addrs,
            Upstream::BuiltIn { .. } => &[],
        }
    }

    /// What tells each server from all others, in the order in which they are asked.
    pub(crate) fn ids(&self) -> Vec<Vec<u8>> {
        match self {
            Upstream::Servers(servers) => servers.addrs.iter().map(Addr::id).collect(),
            Upstream::BuiltIn { .. } => vec![b"builtin".to_vec()],
        }
    }

    /// The sources in the order in which a fetch that starts now asks them: a server
    /// that has just failed comes after the others.
    pub(crate) fn order(&self, now: Instant) -> Vec<Source> {
        match self {
            Upstream::Servers(servers) => {
                let order = servers.health().order(now);
                order.into_iter().map(Source).collect()
            }
            Upstream::BuiltIn { .. } => vec![Source(0)],
        }
    }

    /// The name of a source, for logs.
    pub(crate) fn name(&self, source: Source) -> String {
        match self {
            Upstream::Servers(servers) => servers.addrs[source.0].to_string(),
            Upstream::BuiltIn { .. } => "builtin".to_string(),
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
        match self {
            Upstream::Servers(servers) => {
                let exchange = client::ask(&servers.addrs[source.0], query).await?;
                Ok(Reply::Server(Box::new(exchange)))
            }
            Upstream::BuiltIn { poems, turn } => {
                let at = turn.fetch_add(1, Ordering::Relaxed) % poems.len();

                Ok(Reply::BuiltIn(trickle(&poems[at])))
            }
        }
    }

    /// Notes how a source did. A change between up and down is reported to `observer`.
    pub(crate) fn note(
        &self,
        source: Source,
        result: Result<(), &Error>,
        now: Instant,
        observer: &dyn Observer,
    ) {
        let Upstream::Servers(servers) = self else {
            return;
        };
        let upstream = &servers.addrs[source.0].to_string();

        let change = match result {
            Ok(()) => servers.health().succeeded(source.0, now),
            Err(_) => servers.health().failed(source.0, now),
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

fn trickle(poem: &Poem) -> Trickle {
    let bytes = poem.len().div_ceil(TRICKLE_STEPS.into()).max(1) as usize;
    let delay = TRICKLE_TIME / TRICKLE_STEPS;
    Trickle::new(Reader::of(poem.clone()), Pace { bytes, delay })
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Upstream::Servers(servers) => {
                let servers: Vec<String> = servers.addrs.iter().map(Addr::to_string).collect();
                f.write_str(&servers.join(", "))
            }
            Upstream::BuiltIn { .. } => f.write_str("builtin"),
        }
    }
}

/// A poem on its way.
pub(crate) enum Reply<'a> {
    /// From a server.
    Server(Box<Exchange<'a>>),
    /// From this process.
    BuiltIn(Trickle),
}

impl Reply<'_> {
    /// The next bytes; `None` when the reply is complete.
    ///
    /// # Errors
    /// The reason why the reply is not complete: the bytes before it are only a part.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Reply::Server(exchange) => exchange.next().await,
            Reply::BuiltIn(trickle) => trickle.next().await,
        }
    }

    /// Whether the reply is known to be complete: [`Reply::next`] would return `None`.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Reply::Server(exchange) => exchange.is_over(),
            Reply::BuiltIn(trickle) => trickle.is_over(),
        }
    }
}
