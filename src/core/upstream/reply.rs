//! What a source answers, as it comes.

use super::exec::Run;
use super::shared::Asking;
use crate::client::Exchange;
use crate::error::Error;
use crate::flight::Reader;
use crate::poem::Poem;
use crate::trickle::{Pace, Trickle};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How long a built-in poem takes.
const TRICKLE_TIME: Duration = Duration::from_secs(2);

/// Steps in which a built-in poem comes.
const TRICKLE_STEPS: u32 = 40;

/// A poem on its way.
pub(crate) struct Reply<'a> {
    pub(super) text: ReplyText<'a>,
    pub(super) asking: Asking,
}

pub(super) enum ReplyText<'a> {
    /// From a server.
    Server(Box<Exchange<'a>>),
    /// From a command.
    Exec(Box<Run>),
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
            ReplyText::Exec(run) => run.next().await?,
            ReplyText::BuiltIn(trickle) => trickle.next().await?,
        };

        match &next {
            Some(bytes) => self.asking.received(bytes.len()),
            None => self.asking.succeeded(Instant::now()),
        }
        Ok(next)
    }

    /// Has the kernel notice that a server is gone without a word.
    pub(crate) fn keep_alive(&self) {
        if let ReplyText::Server(exchange) = &self.text {
            exchange.keep_alive();
        }
    }

    /// Whether the reply is known to be complete: [`Reply::next`] would return `None`.
    pub(crate) fn is_over(&self) -> bool {
        match &self.text {
            ReplyText::Server(exchange) => exchange.is_over(),
            ReplyText::Exec(run) => run.is_over(),
            ReplyText::BuiltIn(trickle) => trickle.is_over(),
        }
    }
}

/// A built-in poem, over about two seconds.
pub(super) fn trickle(poem: &Poem) -> Trickle {
    let bytes = poem.len().div_ceil(TRICKLE_STEPS.into()).max(1) as usize;
    let delay = TRICKLE_TIME / TRICKLE_STEPS;
    Trickle::new(Reader::of(poem.clone()), Pace { bytes, delay })
}
