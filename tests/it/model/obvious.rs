//! The slow and obvious model: what one key, its fetches and its clients come to, said without a lock, a waker or a
//! chunk. It counts pieces instead of bytes and whole hours instead of instants, and knows a text by its fetch.
//!
//! | act | who may | what becomes of it |
//! |---|---|---|
//! | `Ask` | a client who is out | reads what is kept, joins what flies, or leads |
//! | `Read` | a client who is in and has news | has seen all there is; once told of the end it is out |
//! | `Leave` | a client who is in | is out, and nothing else changes |
//! | `Say`, `End`, `Reset`, `Abort` | a fetch aloft | a piece; a clean end; a reset; the task is dropped |
//! | `Purge`, `Wait` | where there is something to forget | all is forgotten; an hour passes |
//!
//! A fetch is connecting until it has said something, and one that ends like that has failed.

use Act::*;
use Client::*;
use std::fmt::{self, Debug};

/// Whoever asks, by name, so that a list of acts can be pasted into a test as it was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    A,
    B,
    C,
    D,
    E,
}

pub const CLIENTS: [Client; 5] = [A, B, C, D, E];

/// What can happen. Fetches are numbered in the order in which they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    Ask(Client),
    Read(Client),
    Leave(Client),
    Say(usize),
    End(usize),
    Reset(usize),
    Abort(usize),
    Purge,
    Wait,
}

/// The cache's policy, in hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hours {
    pub ttl: u64,
    pub grace: u64,
    pub fail_ttl: u64,
}

/// How much of everything there may be at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub clients: usize,
    pub aloft: usize,
    pub pieces: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Aloft,
    /// The key is settled, and nobody has been told.
    Settled,
    Landed,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fetch {
    pub phase: Phase,
    pub said: usize,
    pub whole: bool,
    pub kept: bool,
    /// Whether its bytes stay counted while it is read, once it is over.
    loaded: bool,
    /// Failed and read by nobody: there is no text left for those who join it now.
    let_go: bool,
    leader: Option<Client>,
}

/// What a client reads, and how far it is. `from` is where it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    pub fetch: usize,
    /// The kept poem, and not the flight.
    pub kept: bool,
    pub from: usize,
    pub seen: usize,
}

/// What a reader is told after all it can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    Nothing,
    Whole,
    Failed,
}

/// With what a client went who was just told of the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    pub client: Client,
    pub seen: String,
    pub told: Timing,
    /// As it is logged: whether those who ask later find the poem.
    pub kept: bool,
}

/// What the cache answers.
#[derive(Clone, PartialEq, Eq)]
pub enum Response {
    Hit(String),
    Stale(String, Duty),
    Joins(usize),
    Leads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    Refreshes,
    Nothing,
}

impl Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Response::Hit(text) => write!(f, "a hit of {text:?}"),
            Response::Stale(text, Duty::Nothing) => write!(f, "the stale {text:?}"),
            Response::Stale(text, Duty::Refreshes) => {
                write!(f, "the stale {text:?} and the refresh")
            }
            Response::Joins(fetch) => write!(f, "a permit in flight {fetch}"),
            Response::Leads => write!(f, "the lead"),
        }
    }
}

#[derive(Clone)]
pub struct Model {
    policy: Hours,
    hour: u64,
    /// The fetch whose text is kept, and since when.
    kept: Option<(usize, u64)>,
    /// The fetch that newcomers join; one that failed, until this hour.
    current: Option<(usize, Option<u64>)>,
    pub fetches: Vec<Fetch>,
    pub clients: [Option<Reading>; CLIENTS.len()],
    pub last: Option<Last>,
}

/// A model without what no act can reach any more, and with its fetches renamed: two that have the same go on alike.
#[derive(PartialEq, Eq, Hash)]
pub struct Essence {
    fetches: Vec<Fetch>,
    kept: Option<(usize, u64)>,
    current: Option<(usize, Option<u64>)>,
    clients: Vec<Sight>,
}

/// Of a client: whether it reads what was kept, of which fetch, from where, how far, and whether it caused that.
type Sight = (bool, usize, usize, usize, bool);

/// What one fetch says, from one piece to another.
pub fn text(fetch: usize, from: usize, to: usize) -> String {
    (from..to).map(|piece| word(fetch, piece)).collect()
}

pub fn word(fetch: usize, piece: usize) -> String {
    format!("{fetch}.{piece} ")
}

/// What an entry weighs beside its value, as the cache counts it.
const ENTRY: u64 = 256;

impl Model {
    pub fn new(policy: Hours) -> Model {
        let (kept, current, fetches, clients) = (None, None, Vec::new(), [None; CLIENTS.len()]);
        Model {
            policy,
            hour: 0,
            kept,
            current,
            fetches,
            clients,
            last: None,
        }
    }

    /// What a client would get who asked now.
    pub fn answer(&self) -> Response {
        let aloft = self.joined();
        let poem = |fetch: usize| text(fetch, 0, self.fetches[fetch].said);
        match (self.kept(), aloft) {
            (Some((fetch, true)), _) => Response::Hit(poem(fetch)),
            (Some((fetch, false)), None) => Response::Stale(poem(fetch), Duty::Refreshes),
            (Some((fetch, false)), Some(_)) => Response::Stale(poem(fetch), Duty::Nothing),
            (None, Some((fetch, _))) => Response::Joins(fetch),
            (None, None) => Response::Leads,
        }
    }

    /// Whose text may still be served, and whether it is fresh.
    fn kept(&self) -> Option<(usize, bool)> {
        let Hours { ttl, grace, .. } = self.policy;
        let (fetch, since) = self
            .kept
            .filter(|(_, since)| self.hour < since + ttl + grace)?;
        Some((fetch, self.hour < since + ttl))
    }

    /// The flight that newcomers join, if nothing is kept for them.
    fn joined(&self) -> Option<(usize, Option<u64>)> {
        self.current
            .filter(|(_, until)| until.is_none_or(|until| self.hour < until))
    }

    /// Whether the next one who asks starts a fetch.
    fn is_free(&self) -> bool {
        self.joined().is_none() && !matches!(self.kept(), Some((_, true)))
    }

    pub fn aloft(&self) -> usize {
        self.fetches
            .iter()
            .filter(|fetch| fetch.phase == Phase::Aloft)
            .count()
    }

    /// Entries and bytes in the cache, once it has looked at the clock.
    pub fn held(&self) -> (usize, u64) {
        let (kept, current) = (self.kept(), self.joined());
        let is_kept = |at: usize| kept.is_some_and(|(kept, _)| kept == at);
        let is_read = |at: usize| {
            self.clients
                .iter()
                .flatten()
                .any(|reading| reading.fetch == at)
        };
        let counts = |at: &usize| match &self.fetches[*at] {
            Fetch {
                phase: Phase::Aloft,
                ..
            } => true,
            Fetch {
                phase: Phase::Settled,
                kept,
                loaded,
                ..
            } => *kept || *loaded,
            // Whoever reads what is kept no more, or never was, still holds its bytes.
            Fetch { kept, loaded, .. } => is_kept(*at) || ((*kept || *loaded) && is_read(*at)),
        };
        let bytes: u64 = (0..self.fetches.len())
            .filter(counts)
            .map(|at| self.weight(at))
            .sum();
        let memory = if current.is_some_and(|(_, until)| until.is_some()) {
            ENTRY
        } else {
            0
        };
        ((kept.is_some() || current.is_some()).into(), bytes + memory)
    }

    fn weight(&self, fetch: usize) -> u64 {
        ENTRY + text(fetch, 0, self.fetches[fetch].said).len() as u64
    }

    fn readers(&self, fetch: usize) -> usize {
        self.clients
            .iter()
            .flatten()
            .filter(|reading| reading.fetch == fetch && !reading.kept)
            .count()
    }

    /// The text that this reader has yet to see, and what it is told then.
    pub fn rest(&self, reading: Reading) -> (String, Timing) {
        (
            text(
                reading.fetch,
                reading.seen,
                self.fetches[reading.fetch].said,
            ),
            self.told(reading),
        )
    }

    fn told(&self, reading: Reading) -> Timing {
        match self.fetches[reading.fetch].phase {
            _ if reading.kept => Timing::Whole,
            Phase::Aloft | Phase::Settled => Timing::Nothing,
            Phase::Landed => Timing::Whole,
            Phase::Failed => Timing::Failed,
        }
    }

    pub fn has_news(&self, reading: Reading) -> bool {
        reading.seen < self.fetches[reading.fetch].said || self.told(reading) != Timing::Nothing
    }

    /// All that may happen next. Clients differ by their names alone, so of those who are out only the first asks.
    pub fn possible(&self, limits: Limits) -> Vec<Act> {
        let clients = &CLIENTS[..limits.clients];
        let may_ask = !self.is_free() || self.aloft() < limits.aloft;
        let out = clients
            .iter()
            .find(|client| self.clients[**client as usize].is_none());
        let mut acts: Vec<Act> = out
            .filter(|_| may_ask)
            .map(|client| Ask(*client))
            .into_iter()
            .collect();
        for &client in clients {
            let Some(reading) = self.clients[client as usize] else {
                continue;
            };
            acts.extend(self.has_news(reading).then_some(Read(client)));
            acts.push(Leave(client));
        }
        for (at, fetch) in self
            .fetches
            .iter()
            .enumerate()
            .filter(|(_, fetch)| fetch.phase == Phase::Aloft)
        {
            acts.extend((fetch.said < limits.pieces).then_some(Say(at)));
            acts.extend([Reset(at), End(at), Abort(at)]);
        }
        let remembers =
            self.kept.is_some() || self.current.is_some_and(|(_, until)| until.is_some());
        acts.extend((self.kept.is_some() || self.current.is_some()).then_some(Purge));
        acts.extend(remembers.then_some(Wait));
        acts
    }

    /// Whether this may happen at all: pasted lists may say anything.
    pub fn allows(&self, act: Act) -> bool {
        self.possible(Limits {
            clients: CLIENTS.len(),
            aloft: usize::MAX,
            pieces: usize::MAX,
        })
        .contains(&act)
            || matches!(act, Purge | Wait)
            || matches!(act, Ask(client) if self.clients[client as usize].is_none())
    }

    /// Everything but the end of a fetch, which comes in two steps: [`Model::settle`] and [`Model::tell`].
    pub fn act(&mut self, act: Act) {
        self.last = None;
        match act {
            Ask(client) => self.ask(client),
            Read(client) => self.read(client),
            Leave(client) => self.leave(client),
            Say(fetch) => self.fetches[fetch].said += 1,
            Purge => (self.kept, self.current) = (None, None),
            Wait => self.hour += 1,
            End(_) | Reset(_) | Abort(_) => {
                self.use_budget(act);
                self.tell(act);
            }
        }
    }

    fn ask(&mut self, client: Client) {
        let (free, kept) = (self.is_free(), self.kept().map(|(fetch, _)| fetch));
        (self.kept, self.current) = (self.kept.filter(|_| kept.is_some()), self.joined()); // what is over goes
        let fetch = kept
            .or(self.current.map(|(fetch, _)| fetch))
            .unwrap_or(self.fetches.len());
        if free {
            self.launch(kept.is_none().then_some(client));
        }
        let Fetch { let_go, said, .. } = self.fetches[fetch];
        let from = if let_go && kept.is_none() { said } else { 0 };
        self.clients[client as usize] = Some(Reading {
            fetch,
            kept: kept.is_some(),
            from,
            seen: from,
        });
    }

    fn launch(&mut self, leader: Option<Client>) {
        self.current = Some((self.fetches.len(), None));
        let (whole, kept, loaded, let_go) = (false, false, false, false);
        self.fetches.push(Fetch {
            phase: Phase::Aloft,
            said: 0,
            whole,
            kept,
            loaded,
            let_go,
            leader,
        });
    }

    fn read(&mut self, client: Client) {
        let Some(reading) = self.clients[client as usize] else {
            return;
        };
        match self.rest(reading) {
            (_, Timing::Nothing) => {
                let seen = self.fetches[reading.fetch].said;
                self.clients[client as usize] = Some(Reading { seen, ..reading });
            }
            (_, told) => {
                let fetch = &self.fetches[reading.fetch];
                let (seen, kept) = (
                    text(reading.fetch, reading.from, fetch.said),
                    reading.kept || fetch.kept,
                );
                self.last = Some(Last {
                    client,
                    seen,
                    told,
                    kept,
                });
                self.leave(client);
            }
        }
    }

    fn leave(&mut self, client: Client) {
        let Some(reading) = self.clients[client as usize].take() else {
            return;
        };
        if self.fetches[reading.fetch].leader == Some(client) {
            self.fetches[reading.fetch].leader = None;
        }
        self.let_go(reading.fetch);
    }

    fn let_go(&mut self, at: usize) {
        let unread = self.readers(at) == 0;
        let fetch = &mut self.fetches[at];
        if fetch.phase == Phase::Failed && unread {
            (fetch.let_go, fetch.loaded) = (true, false);
        }
    }

    /// The first half of a fetch's end: what becomes of the key.
    pub fn use_budget(&mut self, act: Act) {
        self.last = None;
        let (End(at) | Reset(at) | Abort(at)) = act else {
            return;
        };
        let whole = matches!(act, End(_)) && self.fetches[at].said > 0;
        let own = self.current == Some((at, None));
        let Hours {
            ttl,
            grace,
            fail_ttl,
        } = self.policy;
        let kept = own && whole && ttl + grace > 0;
        if own {
            let until = (!whole && fail_ttl > 0 && !matches!(act, Abort(_)))
                .then_some(self.hour + fail_ttl);
            self.current = until.map(|until| (at, Some(until)));
        }
        if own && whole {
            self.kept = kept.then_some((at, self.hour));
        }
        let loaded = !kept && !matches!(act, Abort(_));
        let fetch = &mut self.fetches[at];
        *fetch = Fetch {
            phase: Phase::Settled,
            whole,
            kept,
            loaded,
            leader: None,
            ..*fetch
        };
    }

    /// The second half: its readers are told.
    pub fn tell(&mut self, act: Act) {
        let (End(at) | Reset(at) | Abort(at)) = act else {
            return;
        };
        let fetch = &mut self.fetches[at];
        fetch.phase = if fetch.whole {
            Phase::Landed
        } else {
            Phase::Failed
        };
        self.let_go(at);
    }

    pub fn essence(&self) -> Essence {
        let (current, kept) = (self.current.map(|(at, _)| at), self.kept.map(|(at, _)| at));
        let is_read = |at: usize| {
            self.clients
                .iter()
                .flatten()
                .any(|reading| reading.fetch == at)
        };
        let matters = |at: &usize| {
            self.fetches[*at].phase == Phase::Aloft
                || [current, kept].contains(&Some(*at))
                || is_read(*at)
        };
        let left: Vec<usize> = (0..self.fetches.len()).filter(matters).collect();
        let renamed = |at: usize| {
            left.iter()
                .position(|left| *left == at)
                .unwrap_or(usize::MAX)
        };
        let age = |since: u64| (self.hour - since).min(self.policy.ttl + self.policy.grace);
        let sight = |client: Client| {
            let Reading {
                fetch,
                kept,
                from,
                seen,
            } = self.clients[client as usize]?;
            Some((
                kept,
                renamed(fetch),
                from,
                seen,
                self.fetches[fetch].leader == Some(client),
            ))
        };
        let mut clients: Vec<Sight> = CLIENTS.into_iter().filter_map(sight).collect();
        clients.sort();
        Essence {
            fetches: left
                .iter()
                .map(|at| Fetch {
                    leader: None,
                    ..self.fetches[*at]
                })
                .collect(),
            kept: self.kept.map(|(fetch, since)| (renamed(fetch), age(since))),
            current: self.current.map(|(at, until)| {
                (
                    renamed(at),
                    until.map(|until| until.saturating_sub(self.hour)),
                )
            }),
            clients,
        }
    }
}
