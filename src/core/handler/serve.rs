//! `serve`: a poem of one's own for whoever connects, at once or slowly.

use crate::anthology::{Anthology, PoemSource};
use crate::error::Error;
use crate::flight::{self, Reader};
use crate::poem::Poem;
use crate::protocol::Protocol;
use crate::rt;
use crate::script::{Script, Step};
use crate::server::{Handler, Response};
use crate::stats::CacheStatus;
use crate::trickle::{Pace, Trickle};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// Which of several poems a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Any.
    Random,
    /// One after the other.
    Cycle,
}

/// What [`Serve`] is told.
#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// Poem: anyone who connects gets one. Line: the request names it.
    pub protocol: Protocol,
    /// Which of several poems a client gets that names none.
    pub pick: Pick,
    /// With a pace, slowly.
    pub pace: Option<Pace>,
}

/// What a client is sent that asks for a poem there is not.
const SORRY: &str = "sorry, no poem of that name here; an empty line lists the names\r\n";

/// A server of poems.
#[derive(Debug)]
pub struct Serve {
    source: PoemSource,
    /// The poems as they were read last.
    anthology: RwLock<Anthology>,
    settings: ServeSettings,
    script: Script,
    turn: AtomicUsize,
}

const UNPOISONED: &str = "no code panics while it holds the poems' lock";

/// How far a recital may be ahead of its client, in bytes.
const AHEAD: u64 = 64 << 10;

impl Serve {
    /// Serves these poems, each connection as the script has it.
    ///
    /// # Errors
    /// Those of [`PoemSource::read`].
    pub fn new(
        source: PoemSource,
        settings: ServeSettings,
        script: Script,
    ) -> Result<Arc<Serve>, Error> {
        let anthology = RwLock::new(source.read()?);
        Ok(Arc::new(Serve {
            source,
            anthology,
            settings,
            script,
            turn: AtomicUsize::new(0),
        }))
    }

    /// The poems as they are now.
    fn poems(&self) -> RwLockReadGuard<'_, Anthology> {
        self.anthology.read().expect(UNPOISONED)
    }

    /// How many poems there are.
    pub fn len(&self) -> usize {
        self.poems().entries().len()
    }

    /// Whether there is none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poem(&self) -> Poem {
        let poems = self.poems();
        let entries = poems.entries();
        let at = match self.settings.pick {
            _ if entries.len() == 1 => 0,
            Pick::Random => fastrand::usize(..entries.len()),
            Pick::Cycle => self.turn.fetch_add(1, Ordering::Relaxed) % entries.len(),
        };
        entries[at].poem.clone()
    }

    /// The poem of this name, the list of names for an empty request, or a short sorry. Names are compared with the
    /// poems there are and never become a path.
    fn named(&self, request: &[u8]) -> Poem {
        let poems = self.poems();
        if request.is_empty() {
            let names: String = poems
                .entries()
                .iter()
                .map(|entry| format!("{}\r\n", entry.name))
                .collect();
            return names.into();
        }
        let named = poems
            .entries()
            .iter()
            .find(|entry| entry.name.as_bytes() == request);
        named.map_or_else(|| SORRY.into(), |entry| entry.poem.clone())
    }
}

impl Handler for Serve {
    fn protocol(&self) -> Protocol {
        self.settings.protocol
    }

    fn request_limit(&self) -> u64 {
        0 // in the line protocol, the limit is the line's own
    }

    fn reload(&self) -> Result<&'static str, Error> {
        let fresh = self.source.read()?;
        *self.anthology.write().expect(UNPOISONED) = fresh;
        Ok("read the poems again")
    }

    fn answer(self: Arc<Self>, request: Bytes, _now: Instant) -> Response {
        let poem = match self.settings.protocol {
            Protocol::Line => self.named(&request),
            Protocol::Poem | Protocol::Netstring => self.poem(),
        };
        let step = self.script.next();
        let reader = match (step, self.settings.pace) {
            (Step::Ok, None) => Reader::of(poem),
            (Step::Ok, Some(pace)) => trickle(poem, pace),
            (step, _) => rehearse(step, poem),
        };
        Response {
            reader,
            how: CacheStatus::Own,
        }
    }
}

/// A recital for one reader, that ends when the reader leaves.
fn trickle(poem: Poem, pace: Pace) -> Reader {
    let (mut writer, flight) = flight::launch(AHEAD);
    let reader = flight
        .join()
        .expect("a flight just launched has its beginning");
    rt::spawn(async move {
        let mut recital = Trickle::new(poem, pace);
        while let Some(bytes) = recital.next().await {
            if writer.readers() == 0 || writer.writable().await.is_err() {
                return;
            }
            writer.append(bytes);
        }
        writer.finish_unkept();
    });
    reader
}

/// The poem, with the trouble that is asked for.
fn rehearse(step: Step, poem: Poem) -> Reader {
    let first = |count: usize| poem.bytes().slice(..count.min(poem.bytes().len()));
    let failure = || Error::Rehearsed {
        step: step.to_string(),
    };
    match step {
        Step::Ok => Reader::of(poem),
        Step::Empty => Reader::of(Poem::from_pieces(Vec::new())),
        Step::Eof(count) => Reader::of(first(count).into()),
        Step::Refuse => Reader::failed(failure()),
        Step::Slow(rate) => trickle(poem, slowly(rate)),
        Step::Reset(count) | Step::Stall(count) => {
            let (mut writer, flight) = flight::launch(u64::MAX);
            let reader = flight
                .join()
                .expect("a flight just launched has its beginning");
            writer.append(first(count));
            match step {
                Step::Reset(_) => writer.fail(failure()),
                _ => rt::spawn(async move { writer.deserted().await }),
            }
            reader
        }
    }
}

/// So many bytes a second, in a few steps each.
fn slowly(rate: usize) -> Pace {
    const STEPS: usize = 10;
    let bytes = rate.div_ceil(STEPS);
    Pace {
        bytes,
        delay: Duration::from_secs_f64(bytes as f64 / rate as f64),
    }
}
