//! Where a proxy's poems come from: a list of servers, or the built-in poems.

use crate::addr::Addr;
use crate::anthology;
use crate::client::{self, Exchange, Query};
use crate::error::Error;
use crate::flight::Reader;
use crate::observe::{Event, Observer};
use crate::poem::Poem;
use crate::trickle::{Pace, Trickle};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Where a proxy's poems come from.
#[derive(Debug)]
pub enum Upstream {
    /// Servers. The next is asked when one can't be reached.
    Servers(Vec<Addr>),
    /// The built-in poems in turn, each over about two seconds.
    BuiltIn {
        /// The poems.
        poems: Vec<Poem>,
        /// Number of poems asked for so far.
        turn: AtomicUsize,
    },
}

/// How long a built-in poem takes.
const TRICKLE_TIME: Duration = Duration::from_secs(2);

/// Steps in which a built-in poem comes.
const TRICKLE_STEPS: u32 = 40;

impl Upstream {
    /// The built-in poems.
    pub fn built_in() -> Upstream {
        Upstream::BuiltIn {
            poems: anthology::recital(),
            turn: AtomicUsize::new(0),
        }
    }

    /// What tells each server from all others, in the order in which they are asked.
    pub(crate) fn ids(&self) -> Vec<Vec<u8>> {
        match self {
            Upstream::Servers(servers) => servers.iter().map(Addr::id).collect(),
            Upstream::BuiltIn { .. } => vec![b"builtin".to_vec()],
        }
    }

    /// Asks for a poem. Each step from one server to the next is reported to `observer`.
    ///
    /// # Errors
    /// Those of [`client::ask`], from the last server tried.
    pub(crate) async fn ask<'a>(
        &self,
        query: &Query<'a>,
        observer: &dyn Observer,
    ) -> Result<Reply<'a>, Error> {
        match self {
            Upstream::Servers(servers) => {
                let exchange = first_reached(servers, query, observer).await?;
                Ok(Reply::Server(Box::new(exchange)))
            }
            Upstream::BuiltIn { poems, turn } => {
                let at = turn.fetch_add(1, Ordering::Relaxed) % poems.len();

                Ok(Reply::BuiltIn(trickle(&poems[at])))
            }
        }
    }
}

/// Asks the servers in order until one can be reached.
async fn first_reached<'a>(
    servers: &[Addr],
    query: &Query<'a>,
    observer: &dyn Observer,
) -> Result<Exchange<'a>, Error> {
    let mut answer = Err(Error::Abandoned);
    for (at, server) in servers.iter().enumerate() {
        answer = client::ask(server, query).await;

        match (&answer, servers.get(at + 1)) {
            (Err(error), Some(next)) if error.is_unreached() => {
                observer.event(Event::NextUpstream { error, next });
            }
            _ => break,
        }
    }
    answer
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
                let servers: Vec<String> = servers.iter().map(Addr::to_string).collect();
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
