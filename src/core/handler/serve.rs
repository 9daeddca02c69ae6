//! `serve`: a poem for each client, at once or slowly.

use crate::anthology::{Anthology, PoemSource};
use crate::control::{Control, Snapshot};
use crate::error::Error;
use crate::flight::{self, Reader};
use crate::observe::{CacheStatus, Reloaded};
use crate::poem::Poem;
use crate::protocol::Protocol;
use crate::rt;
use crate::script::{Script, Step};
use crate::server::{Handler, Request, Response, Wire};
use crate::stats::Stats;
use crate::trickle::{Pace, Trickle};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// Which of several poems a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// A random one.
    Random,
    /// One after the other.
    Cycle,
}

/// How [`Serve`] serves.
#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// Poem: each client gets one. Line: the request names it.
    pub protocol: Protocol,
    /// Which poem a client gets that names none.
    pub pick: Pick,
    /// How slowly, if not at once.
    pub pace: Option<Pace>,
}

/// The answer to a name that no poem has.
const NO_SUCH_POEM: &str = "sorry, no poem of that name here; an empty line lists the names\r\n";

/// How far a slow poem may be ahead of its client, in bytes.
const AHEAD: u64 = 64 << 10;

const UNPOISONED: &str = "no code panics while it holds the poems' lock";

/// A server of poems.
#[derive(Debug)]
pub struct Serve {
    source: PoemSource,
    /// The poems as they were last read. Held for a look, or to replace them.
    anthology: RwLock<Anthology>,
    settings: ServeSettings,
    script: Script,
    turn: AtomicUsize,
}

impl Serve {
    /// Serves these poems, each connection as the script says.
    ///
    /// # Errors
    /// The reason why the poems can't be read.
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

    /// What it speaks.
    pub fn wire(&self) -> Wire {
        Wire {
            protocol: self.settings.protocol,
            longest_request: 0,
        }
    }

    /// The number of poems.
    pub fn poem_count(&self) -> usize {
        self.poems().entries().len()
    }

    fn poems(&self) -> RwLockReadGuard<'_, Anthology> {
        self.anthology.read().expect(UNPOISONED)
    }

    fn picked(&self) -> Poem {
        let poems = self.poems();
        let entries = poems.entries();
        let at = match self.settings.pick {
            _ if entries.len() == 1 => 0,
            Pick::Random => fastrand::usize(..entries.len()),
            Pick::Cycle => self.turn.fetch_add(1, Ordering::Relaxed) % entries.len(),
        };

        entries[at].poem.clone()
    }

    /// The poem of this name, or the list of names for an empty request. The name is compared
    /// with the names there are and never becomes a path.
    fn named(&self, request: &[u8]) -> Poem {
        let poems = self.poems();
        let entries = poems.entries();
        if request.is_empty() {
            let lines = entries.iter().map(|entry| format!("{}\r\n", entry.name));
            return lines.collect::<String>().into();
        }

        let named = entries
            .iter()
            .find(|entry| entry.name.as_bytes() == request);
        named.map_or_else(|| NO_SUCH_POEM.into(), |entry| entry.poem.clone())
    }
}

impl Handler for Serve {
    fn respond(self: Arc<Self>, request: Request, _now: Instant) -> Response {
        let poem = match self.settings.protocol {
            Protocol::Line => self.named(&request.body),
            Protocol::Poem | Protocol::Netstring => self.picked(),
        };

        let reader = match (self.script.next(), self.settings.pace) {
            (Step::Ok, None) => Reader::of(poem),
            (Step::Ok, Some(pace)) => trickle(poem, pace),
            (step, _) => rehearse(step, poem),
        };
        Response {
            reader,
            status: CacheStatus::Own,
        }
    }

    fn reload(&self, _now: Instant) -> Result<Reloaded, Error> {
        let fresh = self.source.read()?;
        let poems = fresh.entries().len();

        *self.anthology.write().expect(UNPOISONED) = fresh;
        Ok(Reloaded::Poems { poems })
    }
}

impl Control for Serve {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        Snapshot::of(stats, now)
    }

    /// Nothing is cached.
    fn purge(&self, _request: Option<&[u8]>, _now: Instant) -> u64 {
        0
    }
}

/// Sends a poem slowly to one reader, and stops when that leaves.
fn trickle(poem: Poem, pace: Pace) -> Reader {
    let (mut writer, reader) = flight::pipe(AHEAD);
    rt::spawn(async move {
        let mut trickle = Trickle::new(poem, pace);
        while let Some(bytes) = trickle.next().await {
            if writer.readers() == 0 || writer.writable().await.is_err() {
                return;
            }
            writer.append(bytes);
        }
        writer.finish(false);
    });
    reader
}

/// Sends a poem with the failure that the step asks for.
fn rehearse(step: Step, poem: Poem) -> Reader {
    let first = |count: usize| poem.bytes().slice(..count.min(poem.bytes().len()));
    let failure = Error::Rehearsed {
        step: step.to_string(),
    };

    match step {
        Step::Ok => Reader::of(poem),
        Step::Empty => Reader::of(Poem::from_pieces(Vec::new())),
        Step::Eof(count) => Reader::of(first(count).into()),
        Step::Refuse => Reader::failed(failure),
        Step::Slow(rate) => trickle(poem, pace_of(rate)),
        Step::Reset(count) => {
            let (mut writer, reader) = flight::pipe(u64::MAX);
            writer.append(first(count));
            writer.fail(failure);
            reader
        }
        Step::Stall(count) => {
            let (mut writer, reader) = flight::pipe(u64::MAX);
            writer.append(first(count));
            rt::spawn(async move { writer.deserted().await });
            reader
        }
    }
}

/// The pace for a rate in bytes a second.
fn pace_of(rate: usize) -> Pace {
    const STEPS_A_SECOND: usize = 10;

    let bytes = rate.div_ceil(STEPS_A_SECOND);
    let delay = Duration::from_secs_f64(bytes as f64 / rate as f64);
    Pace { bytes, delay }
}
