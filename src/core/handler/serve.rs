//! `serve`: a poem of one's own for whoever connects, at once or slowly.

use crate::anthology::{Anthology, Source};
use crate::error::Error;
use crate::flight::{self, Reader};
use crate::net;
use crate::poem::Poem;
use crate::protocol::Protocol;
use crate::server::{Answer, Handler};
use crate::stats::How;
use crate::upstream::{Pace, Recital};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Instant;

/// Which of several poems a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Any.
    Random,
    /// One after the other.
    Cycle,
}

/// A server of poems.
#[derive(Debug)]
pub struct Serve {
    source: Source,
    /// The poems as they were read last.
    anthology: RwLock<Anthology>,
    pick: Pick,
    pace: Option<Pace>,
    turn: AtomicUsize,
}

/// How far a recital may be ahead of its client, in bytes.
const AHEAD: u64 = 64 << 10;

impl Serve {
    /// Serves these poems; with a pace, slowly.
    ///
    /// # Errors
    /// Those of [`Source::read`].
    pub fn new(source: Source, pick: Pick, pace: Option<Pace>) -> Result<Arc<Serve>, Error> {
        let anthology = RwLock::new(source.read()?);
        Ok(Arc::new(Serve { source, anthology, pick, pace, turn: AtomicUsize::new(0) }))
    }

    /// How many poems there are.
    pub fn len(&self) -> usize {
        self.anthology.read().expect("no code panics while it holds the poems' lock").entries().len()
    }

    /// Whether there is none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poem(&self) -> Poem {
        let anthology = self.anthology.read().expect("no code panics while it holds the poems' lock");
        let entries = anthology.entries();
        let at = match self.pick {
            _ if entries.len() == 1 => 0,
            Pick::Random => fastrand::usize(..entries.len()),
            Pick::Cycle => self.turn.fetch_add(1, Ordering::Relaxed) % entries.len(),
        };
        entries[at].poem.clone()
    }
}

impl Handler for Serve {
    fn protocol(&self) -> Protocol {
        Protocol::Poem
    }

    fn request_limit(&self) -> u64 {
        0
    }

    fn renew(&self) -> Result<&'static str, Error> {
        let fresh = self.source.read()?;
        *self.anthology.write().expect("no code panics while it holds the poems' lock") = fresh;
        Ok("read the poems again")
    }

    fn answer(self: Arc<Self>, _request: Bytes, _now: Instant) -> Answer {
        let reader = match self.pace {
            None => Reader::of(self.poem()),
            Some(pace) => recite(self.poem(), pace),
        };
        Answer { reader, how: How::Own }
    }
}

/// A recital for one reader, that ends when the reader leaves.
fn recite(poem: Poem, pace: Pace) -> Reader {
    let (mut writer, flight) = flight::launch(AHEAD);
    let reader = flight.join().expect("a flight just launched has its beginning");
    net::spawn(async move {
        let mut recital = Recital::new(poem, pace);
        while let Some(bytes) = recital.next().await {
            if writer.readers() == 0 || writer.room().await.is_err() {
                return;
            }
            writer.append(bytes);
        }
        writer.finish(|_| ());
    });
    reader
}
