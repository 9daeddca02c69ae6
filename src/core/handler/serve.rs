//! `serve`: a poem for each client, at once or slowly.

mod plan;

use crate::anthology::{Anthology, AtOnce, LastPieces, Text};
use crate::control::{Control, Snapshot};
use crate::error::Error;
use crate::observe::{CacheStatus, Event, Observer, Reloaded};
use crate::protocol::Protocol;
use crate::script::Script;
use crate::server::{Handler, Request, Response, Wire};
use crate::stats::Stats;
use crate::trickle::Pace;
use plan::Plan;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Instant;

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

const UNPOISONED: &str = "no code panics while it holds the poems' lock";

/// A server of poems.
pub struct Serve {
    /// The poems as they were last read. Held for a look, or to replace them.
    anthology: RwLock<Anthology>,
    settings: ServeSettings,
    script: Script,
    observer: Arc<dyn Observer>,
    /// What is held of large files.
    pieces: LastPieces,
    turn: AtomicUsize,
}

impl Serve {
    /// Serves these poems, each connection as the script says. Reports the poems that
    /// were left out.
    pub fn new(
        anthology: Anthology,
        settings: ServeSettings,
        script: Script,
        observer: Arc<dyn Observer>,
    ) -> Arc<Serve> {
        let serve = Serve {
            anthology: RwLock::new(anthology),
            settings,
            script,
            observer,
            pieces: LastPieces::default(),
            turn: AtomicUsize::new(0),
        };
        serve.report_left_out();
        Arc::new(serve)
    }

    /// What it speaks.
    pub fn wire(&self) -> Wire {
        Wire {
            protocol: self.settings.protocol,
            longest_request: 0,
        }
    }

    fn poems(&self) -> RwLockReadGuard<'_, Anthology> {
        self.anthology.read().expect(UNPOISONED)
    }

    /// Reports the poems that the last reading left out.
    fn report_left_out(&self) {
        let poems = self.poems();
        for error in poems.left_out() {
            self.observer.event(Event::PoemSkipped { error });
        }
    }

    fn picked(&self) -> Text {
        let poems = self.poems();
        let entries = poems.entries();
        let at = match self.settings.pick {
            _ if entries.len() == 1 => 0,
            Pick::Random => fastrand::usize(..entries.len()),
            Pick::Cycle => self.turn.fetch_add(1, Ordering::Relaxed) % entries.len(),
        };

        entries[at].text.clone()
    }

    /// The poem of this name, or the list of names for an empty request. The name is
    /// compared with the names there are and never becomes a path.
    fn named(&self, request: &[u8]) -> Text {
        let poems = self.poems();
        let entries = poems.entries();
        if request.is_empty() {
            let lines = entries.iter().map(|entry| format!("{}\r\n", entry.name));
            return lines.collect::<String>().into();
        }

        let named = entries
            .iter()
            .find(|entry| entry.name.as_bytes() == request);
        named.map_or_else(|| NO_SUCH_POEM.into(), |entry| entry.text.clone())
    }
}

impl Handler for Serve {
    fn respond(self: Arc<Self>, request: Request, _now: Instant) -> Response {
        let text = match self.settings.protocol {
            Protocol::Line => self.named(&request.body),
            Protocol::Poem | Protocol::Netstring => self.picked(),
        };
        let plan = Plan::new(self.script.next(), self.settings.pace);

        let reader = if plan.is_plain() {
            text.reader(&self.pieces, AtOnce::Many)
        } else {
            plan.start(text.reader(&self.pieces, AtOnce::Few))
        };
        Response {
            reader,
            status: CacheStatus::Own,
            route: None,
        }
    }

    fn reload(&self, _now: Instant) -> Result<Reloaded, Error> {
        let before = self.poems().clone();
        let fresh = before.reread()?;
        let poems = fresh.poem_count();

        *self.anthology.write().expect(UNPOISONED) = fresh;
        self.report_left_out();
        Ok(Reloaded::Poems { poems })
    }
}

impl Control for Serve {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        Snapshot::of(stats, now)
    }
}
