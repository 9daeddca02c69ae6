//! The slow and obvious model: what one key, its fetches and its clients come to,
//! without a lock, a waker or a chunk. It counts pieces instead of bytes and hours
//! instead of instants, and names a text by its fetch.
//!
//! | act | when | what happens |
//! |---|---|---|
//! | `Ask` | a client that is out | it reads what is kept, joins what flies, or leads |
//! | `Read` | a client with news | it sees all there is; told of the end, it is out |
//! | `Leave` | a client that is in | it is out; what waited only for it is dropped |
//! | `Say` | a running fetch | one more piece |
//! | `End`, `Reject`, `Reset`, `Abort` | a running fetch | a clean end, kept or rejected; a reset; the task is dropped |
//! | `Pass`, `Long` | a running fetch | its text can't be kept: no room, or too long to share |
//! | `Purge`, `PurgeKey`, `PurgeHard` | something is cached or in flight | all of it, or the key, is stale or gone, and detached |
//! | `Refresh` | no fetch is under way | a fetch that no client asks for; what is cached stays |
//! | `Wait` | something can expire | an hour passes |
//!
//! A fetch waits while all places are taken. An end without a piece is a failure.

use Act::*;
use Client::*;
use std::fmt::{self, Debug};

/// A client by name, so that a printed list of acts can be pasted into a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    A,
    B,
    C,
    D,
    E,
}

pub const CLIENTS: [Client; 5] = [A, B, C, D, E];

/// What can happen. Fetches are numbered in the order in which they were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    Ask(Client),
    Read(Client),
    Leave(Client),
    Say(usize),
    End(usize),
    Reject(usize),
    Reset(usize),
    Abort(usize),
    Pass(usize),
    Long(usize),
    Purge,
    /// Of the one key, soft.
    PurgeKey,
    /// Of the one key, hard.
    PurgeHard,
    Refresh,
    Wait,
}

impl Act {
    /// The fetch that this act ends.
    pub fn ends(self) -> Option<usize> {
        match self {
            End(at) | Reject(at) | Reset(at) | Abort(at) => Some(at),
            _ => None,
        }
    }
}

/// The cache's policy in hours, and the places before the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hours {
    pub ttl: u64,
    pub grace: u64,
    pub fail_ttl: u64,
    pub places: usize,
}

/// The most of everything at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub clients: usize,
    /// Fetches that wait or run.
    pub fetches: usize,
    pub pieces: usize,
    /// Whether an operator purges and refreshes the one key. That triples the states.
    pub operator: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Waiting,
    Running,
    /// The key is settled, and no reader has been told.
    Settled,
    Landed,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fetch {
    pub phase: Phase,
    pub said: usize,
    /// The fetch whose entry it fills: itself, or one that was too long to share.
    ticket: usize,
    /// The stale text that it refreshes. It holds that until its own is settled or
    /// passes.
    replaces: Option<usize>,
    /// It begins without a client.
    is_refresh: bool,
    /// Its text passes through, and this many pieces of it were counted then.
    passing: Option<usize>,
    whole: bool,
    pub kept: bool,
    /// Its bytes are held for its readers.
    loaded: bool,
    /// It was rejected: while that is cached, its bytes are held.
    rejected: bool,
    /// It has failed, and its bytes went with its last reader.
    released: bool,
    /// A purge has detached it.
    orphaned: bool,
    pub leader: Option<Client>,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    pub fetch: usize,
    /// It reads a kept text.
    pub kept: bool,
    pub from: usize,
    pub seen: usize,
}

/// What a client is told of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Whole,
    Failed,
}

/// How a client left that has just been told of the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    pub client: Client,
    pub seen: String,
    pub told: Told,
    /// Whether later clients find the text, as the log says.
    pub kept: bool,
}

/// What a client that asks gets.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
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

impl Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Hit(text) => write!(f, "a hit of {text:?}"),
            Answer::Stale(text, Duty::Nothing) => write!(f, "the stale {text:?}"),
            Answer::Stale(text, Duty::Refreshes) => write!(f, "the stale {text:?} and a refresh"),
            Answer::Joins(fetch) => write!(f, "flight {fetch}"),
            Answer::Leads => write!(f, "a fetch of its own"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kept {
    fetch: usize,
    fresh_until: u64,
    stale_until: u64,
}

/// What the entry knows of its last fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Current {
    fetch: usize,
    state: State,
    /// A stale text's next refresh waits until this hour.
    not_before: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    InFlight,
    Failed { until: u64 },
    HitForMiss { until: u64 },
    Paused,
}

#[derive(Clone)]
pub struct Model {
    policy: Hours,
    hour: u64,
    kept: Option<Kept>,
    current: Option<Current>,
    pub fetches: Vec<Fetch>,
    pub clients: [Option<Reading>; CLIENTS.len()],
    pub last: Option<Last>,
    /// Clients' fetches started since a refresh's.
    client_starts: usize,
}

/// A model without what no act can reach any more, and with its fetches renumbered: two
/// that have the same essence go on alike.
#[derive(PartialEq, Eq, Hash)]
pub struct Essence {
    fetches: Vec<Fetch>,
    kept: Option<Kept>,
    current: Option<Current>,
    clients: Vec<Sight>,
    client_starts: usize,
}

/// Of a client: what it reads, whether that is kept, from where, how far, whether it
/// leads.
type Sight = (bool, usize, usize, usize, bool);

/// What a fetch says, from one piece to another.
pub fn text(fetch: usize, from: usize, to: usize) -> String {
    (from..to).map(|piece| word(fetch, piece)).collect()
}

pub fn word(fetch: usize, piece: usize) -> String {
    format!("{fetch}.{piece} ")
}

/// What an entry weighs beside its value, as the cache counts it.
const ENTRY: u64 = poetry::cache::ENTRY_WEIGHT;

/// What it weighs more while it has a flight.
const FLIGHT: u64 = poetry::cache::FLIGHT_WEIGHT;

/// While both wait, one start in this many is a refresh's.
const REFRESH_TURN: usize = poetry::queue::REFRESH_TURN as usize;

impl Model {
    pub fn new(policy: Hours) -> Model {
        Model {
            policy,
            hour: 0,
            kept: None,
            current: None,
            fetches: Vec::new(),
            clients: [None; CLIENTS.len()],
            last: None,
            client_starts: 0,
        }
    }

    /// What a client gets that asks now.
    pub fn answer(&self) -> Answer {
        let poem = |kept: Kept| text(kept.fetch, 0, self.fetches[kept.fetch].said);
        let current = self.unexpired();

        match (self.servable(), current) {
            (Some(kept), _) if self.hour < kept.fresh_until => Answer::Hit(poem(kept)),
            (Some(kept), None) => Answer::Stale(poem(kept), Duty::Refreshes),
            (Some(kept), Some(_)) => Answer::Stale(poem(kept), Duty::Nothing),
            (None, None) => Answer::Leads,
            (None, Some(current)) => match current.state {
                State::InFlight | State::Failed { .. } => Answer::Joins(current.fetch),
                State::HitForMiss { .. } | State::Paused => Answer::Leads,
            },
        }
    }

    /// What is kept and may still be served.
    fn servable(&self) -> Option<Kept> {
        self.kept.filter(|kept| self.hour < kept.stale_until)
    }

    /// What time has left of the last fetch.
    fn unexpired(&self) -> Option<Current> {
        let has_value = self.servable().is_some();
        self.current.filter(|current| {
            let waits = has_value && self.hour < current.not_before;
            match current.state {
                State::InFlight => true,
                State::Failed { until } | State::HitForMiss { until } => self.hour < until || waits,
                State::Paused => waits,
            }
        })
    }

    pub fn unfinished(&self) -> usize {
        let unfinished = |fetch: &&Fetch| matches!(fetch.phase, Phase::Waiting | Phase::Running);
        self.fetches.iter().filter(unfinished).count()
    }

    pub fn running(&self) -> usize {
        let running = |fetch: &&Fetch| fetch.phase == Phase::Running;
        self.fetches.iter().filter(running).count()
    }

    pub fn waiting(&self) -> usize {
        self.unfinished() - self.running()
    }

    /// Entries and bytes in the cache, once it has looked at the clock.
    pub fn held(&self) -> (usize, u64) {
        let kept = self.servable();
        let current = self.unexpired();

        let bytes = (0..self.fetches.len()).map(|at| self.weight_held(at));
        let failure = current.map_or(0, |current| match current.state {
            State::Failed { .. } if self.fetches[current.fetch].rejected => 0,
            State::Failed { .. } => ENTRY + FLIGHT,
            State::HitForMiss { .. } => ENTRY,
            State::InFlight | State::Paused => 0,
        });
        let entries = usize::from(kept.is_some() || current.is_some());
        (entries, bytes.sum::<u64>() + failure)
    }

    /// What a fetch's text and entry cost at this moment.
    fn weight_held(&self, at: usize) -> u64 {
        let fetch = &self.fetches[at];
        let entry = if fetch.kept { ENTRY } else { ENTRY + FLIGHT };
        let weight = |pieces: usize| entry + text(at, 0, pieces).len() as u64;

        let is_kept = self.servable().is_some_and(|kept| kept.fetch == at);
        let is_refreshed = self.fetches.iter().any(|other| other.replaces == Some(at));
        let is_read = self
            .clients
            .iter()
            .flatten()
            .any(|reading| reading.fetch == at);
        let is_cached = fetch.rejected
            && self.unexpired().is_some_and(|current| {
                current.fetch == at && matches!(current.state, State::Failed { .. })
            });

        let is_held = match fetch.phase {
            Phase::Waiting => return ENTRY + FLIGHT,
            Phase::Running | Phase::Settled => fetch.loaded || fetch.kept,
            Phase::Landed | Phase::Failed => {
                let for_readers = (fetch.kept || fetch.loaded) && is_read;
                is_kept || (fetch.kept && is_refreshed) || for_readers || is_cached
            }
        };
        if is_held {
            weight(fetch.passing.unwrap_or(fetch.said))
        } else {
            0
        }
    }

    fn readers(&self, fetch: usize) -> usize {
        let reads = |reading: &&Reading| reading.fetch == fetch && !reading.kept;
        self.clients.iter().flatten().filter(reads).count()
    }

    /// What this client has yet to see, and what it is told then.
    pub fn rest(&self, reading: Reading) -> (String, Told) {
        let said = self.fetches[reading.fetch].said;
        (text(reading.fetch, reading.seen, said), self.told(reading))
    }

    fn told(&self, reading: Reading) -> Told {
        match self.fetches[reading.fetch].phase {
            _ if reading.kept => Told::Whole,
            Phase::Waiting | Phase::Running | Phase::Settled => Told::Nothing,
            Phase::Landed => Told::Whole,
            Phase::Failed => Told::Failed,
        }
    }

    pub fn has_news(&self, reading: Reading) -> bool {
        let said = self.fetches[reading.fetch].said;
        reading.seen < said || self.told(reading) != Told::Nothing
    }

    /// All that may happen next. Clients differ by their names alone, so of those that
    /// are out only the first asks.
    pub fn possible(&self, limits: Limits) -> Vec<Act> {
        let mut acts = Vec::new();
        let clients = &CLIENTS[..limits.clients];

        let starts = matches!(
            self.answer(),
            Answer::Leads | Answer::Stale(_, Duty::Refreshes)
        );
        let is_out = |client: &&Client| self.clients[**client as usize].is_none();
        if !starts || self.unfinished() < limits.fetches {
            acts.extend(clients.iter().find(is_out).map(|client| Ask(*client)));
        }

        for &client in clients {
            if let Some(reading) = self.clients[client as usize] {
                acts.extend(self.has_news(reading).then_some(Read(client)));
                acts.push(Leave(client));
            }
        }

        for (at, fetch) in self.fetches.iter().enumerate() {
            if fetch.phase != Phase::Running {
                continue;
            }
            if fetch.said < limits.pieces {
                acts.push(Say(at));
            }
            acts.extend([Reset(at), End(at), Reject(at), Abort(at)]);
            if fetch.passing.is_none() {
                acts.extend([Pass(at), Long(at)]);
            }
        }

        let in_flight = |current: Current| current.state == State::InFlight;
        let can_expire = self.current.is_some_and(|current| !in_flight(current));
        let is_known = self.kept.is_some() || self.current.is_some();
        acts.extend(is_known.then_some(Purge));

        let is_under_way = self.current.is_some_and(in_flight);
        let may_refresh = !is_under_way && self.unfinished() < limits.fetches;
        if limits.operator {
            acts.extend(is_known.then_some(PurgeKey));
            acts.extend(is_known.then_some(PurgeHard));
            acts.extend(may_refresh.then_some(Refresh));
        }
        acts.extend((self.kept.is_some() || can_expire).then_some(Wait));
        acts
    }

    /// Whether this may happen at all: a pasted list may hold anything.
    pub fn allows(&self, act: Act) -> bool {
        let all = Limits {
            clients: CLIENTS.len(),
            fetches: usize::MAX,
            pieces: usize::MAX,
            operator: true,
        };
        let is_out = |client: Client| self.clients[client as usize].is_none();
        matches!(act, Purge | PurgeKey | PurgeHard | Wait)
            || matches!(act, Ask(client) if is_out(client))
            || self.possible(all).contains(&act)
    }

    /// The whole act. The end of a fetch comes in two steps for those that look between
    /// them: [`Model::settle`] and [`Model::announce`].
    pub fn act(&mut self, act: Act) {
        self.last = None;
        match act {
            Ask(client) => self.ask(client),
            Read(client) => self.read(client),
            Leave(client) => self.leave(client),
            Say(at) => self.fetches[at].said += 1,
            Pass(at) => self.pass(at, false),
            Long(at) => self.pass(at, true),
            Purge | PurgeKey => self.purge(self.policy.grace),
            PurgeHard => self.purge(0),
            Refresh => self.refresh(),
            Wait => self.hour += 1,
            End(_) | Reject(_) | Reset(_) | Abort(_) => {
                self.settle(act);
                self.announce(act);
            }
        }
    }

    fn ask(&mut self, client: Client) {
        let answer = self.answer();
        self.expire();

        let (fetch, kept) = match answer {
            Answer::Hit(_) | Answer::Stale(_, Duty::Nothing) => {
                (self.kept.expect("it is served").fetch, true)
            }
            Answer::Stale(_, Duty::Refreshes) => {
                let old = self.kept.expect("it is served").fetch;
                self.launch(None, Some(old), true);
                (old, true)
            }
            Answer::Joins(fetch) => (fetch, false),
            Answer::Leads => (self.launch(Some(client), None, false), false),
        };

        let fetch_state = self.fetches[fetch];
        let from = if fetch_state.released && !kept {
            fetch_state.said
        } else {
            0
        };
        self.clients[client as usize] = Some(Reading {
            fetch,
            kept,
            from,
            seen: from,
        });
    }

    /// Drops what time has ended, as the cache does when it looks.
    fn expire(&mut self) {
        let is_fresh = self.kept.is_some_and(|kept| self.hour < kept.fresh_until);
        if !is_fresh {
            self.current = self.unexpired();
            self.kept = self.servable();
        }
    }

    fn launch(
        &mut self,
        leader: Option<Client>,
        replaces: Option<usize>,
        is_refresh: bool,
    ) -> usize {
        let at = self.fetches.len();
        let ticket = self
            .current
            .map_or(at, |current| self.fetches[current.fetch].ticket);
        if self.current.is_none() {
            self.current = Some(Current {
                fetch: at,
                state: State::InFlight,
                not_before: self.hour,
            });
        }

        self.fetches.push(Fetch {
            phase: Phase::Waiting,
            said: 0,
            ticket,
            replaces,
            is_refresh,
            passing: None,
            whole: false,
            kept: false,
            loaded: false,
            rejected: false,
            released: false,
            orphaned: false,
            leader,
        });
        if self.running() < self.policy.places {
            self.start(at);
        }
        at
    }

    fn start(&mut self, at: usize) {
        self.fetches[at].phase = Phase::Running;
        self.fetches[at].loaded = true;
    }

    /// Starts what waits, as far as there are places: what a client waits for first.
    fn start_waiting(&mut self) {
        while self.running() < self.policy.places {
            let waiting = |at: &usize| self.fetches[*at].phase == Phase::Waiting;
            let is_refresh = |at: &usize| self.fetches[*at].is_refresh && self.readers(*at) == 0;
            let all = || (0..self.fetches.len()).filter(waiting);
            let client = all().find(|at| !is_refresh(at));
            let refresh = all().find(is_refresh);

            let is_refresh_turn = client.is_none() || self.client_starts + 1 >= REFRESH_TURN;
            match (client, refresh) {
                (_, Some(refresh)) if is_refresh_turn => {
                    self.client_starts = 0;
                    self.start(refresh);
                }
                (Some(client), _) => {
                    self.client_starts += 1;
                    self.start(client);
                }
                (None, _) => return,
            }
        }
    }

    fn read(&mut self, client: Client) {
        let Some(reading) = self.clients[client as usize] else {
            return;
        };
        let fetch = self.fetches[reading.fetch];
        let told = self.told(reading);
        if told == Told::Nothing {
            let seen = fetch.said;
            self.clients[client as usize] = Some(Reading { seen, ..reading });
            return;
        }

        self.last = Some(Last {
            client,
            seen: text(reading.fetch, reading.from, fetch.said),
            told,
            kept: reading.kept || fetch.kept,
        });
        self.leave(client);
    }

    fn leave(&mut self, client: Client) {
        let Some(reading) = self.clients[client as usize].take() else {
            return;
        };
        let at = reading.fetch;
        if self.fetches[at].leader == Some(client) {
            self.fetches[at].leader = None;
        }
        if !reading.kept {
            self.lose_interest(at);
        }
        self.release(at);
    }

    /// What the last reader's leaving does to a fetch that has not ended.
    fn lose_interest(&mut self, at: usize) {
        if self.readers(at) > 0 {
            return;
        }

        let fetch = self.fetches[at];
        let is_dropped = match fetch.phase {
            Phase::Waiting => !fetch.is_refresh,
            Phase::Running => fetch.orphaned,
            _ => false,
        };
        if is_dropped {
            self.settle(Abort(at));
            self.announce(Abort(at));
        }
    }

    fn release(&mut self, at: usize) {
        let is_unread = self.readers(at) == 0;
        let fetch = &mut self.fetches[at];
        if fetch.phase == Phase::Failed && is_unread {
            fetch.released = true;
            fetch.loaded = false;
        }
    }

    fn purge(&mut self, grace: u64) {
        if let Some(kept) = &mut self.kept {
            kept.fresh_until = kept.fresh_until.min(self.hour);
            kept.stale_until = kept.stale_until.min(self.hour + grace);
        }
        self.kept = self.servable();

        let Some(current) = self.current else { return };
        let at = current.fetch;
        if current.state != State::InFlight {
            self.current = None;
        } else if self.fetches[at].phase == Phase::Running {
            self.current = None;
            self.fetches[at].orphaned = true;
            self.lose_interest(at);
        }
    }

    fn refresh(&mut self) {
        self.current = self.unexpired();
        self.kept = self.servable();
        let is_under_way = |current: Current| current.state == State::InFlight;
        if self.current.is_some_and(is_under_way) {
            return;
        }

        self.current = None;
        self.launch(None, self.kept.map(|kept| kept.fetch), true);
    }

    /// The entry, if it is still this fetch's own and time has not ended it.
    fn own(&self, at: usize) -> Option<Current> {
        let ticket = self.fetches[at].ticket;
        let is_own = |current: &Current| self.fetches[current.fetch].ticket == ticket;
        self.unexpired().filter(is_own)
    }

    /// The text can't be kept from here on.
    fn pass(&mut self, at: usize, too_long: bool) {
        let fail_ttl = self.policy.fail_ttl;
        if too_long && fail_ttl > 0 {
            let until = self.hour + fail_ttl;
            self.mark(at, State::HitForMiss { until });
        } else {
            self.pause(at);
        }
        self.fetches[at].passing = Some(self.fetches[at].said);
        self.fetches[at].replaces = None;
    }

    fn mark(&mut self, at: usize, state: State) {
        if let Some(current) = self.own(at)
            && current.state == State::InFlight
        {
            self.current = Some(Current {
                state,
                not_before: self.hour + self.policy.fail_ttl.max(1),
                ..current
            });
        }
    }

    /// Frees the key, or lets the next refresh of a stale text wait. A pause is shorter
    /// than an hour.
    fn pause(&mut self, at: usize) {
        let Some(current) = self.own(at) else { return };
        if current.state != State::InFlight {
            return;
        }

        if self.kept.is_some() {
            self.mark(at, State::Paused);
        } else {
            self.current = None;
        }
    }

    /// The first half of a fetch's end: what becomes of the key.
    pub fn settle(&mut self, act: Act) {
        self.last = None;
        let Some(at) = act.ends() else { return };
        let fetch = self.fetches[at];
        let whole = matches!(act, End(_) | Reject(_)) && fetch.said > 0;
        let passes = fetch.passing.is_some();
        let Hours {
            ttl,
            grace,
            fail_ttl,
            ..
        } = self.policy;

        let mut kept = false;
        let mut rejected = false;
        match act {
            _ if passes => {}
            End(_) if whole => {
                if self.own(at).is_some() {
                    self.current = None;
                    kept = ttl + grace > 0;
                }
                if kept {
                    self.kept = Some(Kept {
                        fetch: at,
                        fresh_until: self.hour + ttl,
                        stale_until: self.hour + ttl + grace,
                    });
                }
            }
            Abort(_) => {
                let is_own = self.own(at).is_some_and(|own| own.state == State::InFlight);
                if is_own {
                    self.current = None;
                }
            }
            _ if fail_ttl > 0 => {
                rejected = whole;
                let until = self.hour + fail_ttl;
                self.mark(at, State::Failed { until });
            }
            _ => self.pause(at),
        }

        self.fetches[at] = Fetch {
            phase: Phase::Settled,
            whole,
            kept,
            rejected,
            replaces: None,
            loaded: !matches!(act, Abort(_)) || passes,
            leader: None,
            ..fetch
        };
    }

    /// The second half: its readers are told, and the next fetch starts.
    pub fn announce(&mut self, act: Act) {
        let Some(at) = act.ends() else { return };
        let fetch = &mut self.fetches[at];
        fetch.phase = if fetch.whole {
            Phase::Landed
        } else {
            Phase::Failed
        };
        self.release(at);
        self.start_waiting();
    }

    pub fn essence(&self) -> Essence {
        let matters = |at: &usize| {
            let fetch = &self.fetches[*at];
            matches!(fetch.phase, Phase::Waiting | Phase::Running)
                || self.kept.is_some_and(|kept| kept.fetch == *at)
                || self.current.is_some_and(|current| current.fetch == *at)
                || self.fetches.iter().any(|other| other.replaces == Some(*at))
                || self
                    .clients
                    .iter()
                    .flatten()
                    .any(|reading| reading.fetch == *at)
        };
        let left: Vec<usize> = (0..self.fetches.len()).filter(matters).collect();
        let number = |at: usize| {
            let found = left.iter().position(|left| *left == at);
            found.unwrap_or(usize::MAX)
        };
        let left_of = |until: u64| until.saturating_sub(self.hour);

        let fetches = left.iter().map(|at| Fetch {
            leader: None,
            ticket: number(self.fetches[*at].ticket),
            replaces: self.fetches[*at].replaces.map(number),
            ..self.fetches[*at]
        });
        let kept = self.kept.map(|kept| Kept {
            fetch: number(kept.fetch),
            fresh_until: left_of(kept.fresh_until),
            stale_until: left_of(kept.stale_until),
        });
        let current = self.current.map(|current| Current {
            fetch: number(current.fetch),
            not_before: left_of(current.not_before),
            state: match current.state {
                State::Failed { until } => State::Failed {
                    until: left_of(until),
                },
                State::HitForMiss { until } => State::HitForMiss {
                    until: left_of(until),
                },
                other => other,
            },
        });

        let sight = |client: Client| {
            let reading = self.clients[client as usize]?;
            let leads = self.fetches[reading.fetch].leader == Some(client);
            let fetch = number(reading.fetch);
            Some((reading.kept, fetch, reading.from, reading.seen, leads))
        };
        let mut clients: Vec<Sight> = CLIENTS.into_iter().filter_map(sight).collect();
        clients.sort();

        Essence {
            fetches: fetches.collect(),
            kept,
            current,
            clients,
            client_starts: self.client_starts,
        }
    }
}
