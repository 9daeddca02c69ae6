//! The real parts, driven act by act without a runtime: the coalescer with its cache
//! and flights, and the queue with its dispatch. What they come to is compared with the
//! model.

use super::obvious::{Act, Answer, CLIENTS, Client, Duty, Hours, Last, Model, Reading, Told, word};
use poetry::cache::{CacheFailure, Policy, Purge};
use poetry::coalesce::{Coalescer, Ended, FlightGuard, Found, Verdict};
use poetry::dispatch::{Abort, Dispatch, Job, Place};
use poetry::flight::{Interest, Read, Reader};
use poetry::protocol::{Protocol, ReplyDecoder};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

/// What the comparison holds. The first that is broken is reported, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// As many fetches run, and as many wait, as should.
    Fetches,
    /// A client reads the text from its beginning, and all of it that there is.
    Seen,
    /// All clients are told the same end, no sooner and no later.
    Told,
    /// A client that waits is woken when there is news.
    Woken,
    /// Only whole texts are kept, and only until they are purged or too old.
    Kept,
    /// The next client gets what it should: a hit, a stale text, a flight, or the lead.
    Asker,
    /// Every byte is counted, and freed.
    Held,
}

/// What was found instead of what should be.
#[derive(Debug)]
pub struct Broken {
    pub rule: Rule,
    pub what: String,
}

fn hold(rule: Rule, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds {
        return Ok(());
    }
    Err(Broken { rule, what: what() })
}

/// What can be put together wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The fetch ends when the client leaves that started it.
    LeaderTakesItAlong,
    /// Where a commit is refused, the text is kept all the same.
    KeptAfterAPurge,
    /// A late client begins where the flight is by then.
    LateMissTheBeginning,
    /// A reset counts as the end of the text.
    ResetIsAnEnd,
    /// Only the client that started the fetch is told of its failure.
    LeaderAloneIsTold,
    /// A failed fetch leaves its flight in the table.
    FailedIsJoined,
    /// A flight without a byte is not joined.
    ConnectingIsNotJoined,
    /// A fetch that no client waits for any more stays in the queue.
    LeftInTheQueue,
}

type Key = u8;
type Guard = FlightGuard<Key>;

/// A fetch that runs.
struct Running {
    number: usize,
    // In the order in which they are dropped.
    guard: Guard,
    decoder: ReplyDecoder,
    leader: Option<Client>,
    _place: Option<Place<TestJob>>,
}

/// What jobs share with the world: what they have started, and what was aborted.
#[derive(Clone, Default)]
struct Board {
    started: Arc<Mutex<Vec<Running>>>,
    aborted: Arc<Mutex<Vec<usize>>>,
}

/// A fetch that waits for its turn.
struct TestJob {
    number: usize,
    guard: Guard,
    is_refresh: bool,
    leader: Option<Client>,
    board: Board,
    has_started: Arc<AtomicBool>,
    /// A flaw: what clients want of a waiting fetch is not looked at.
    ignores_interest: bool,
}

impl Job for TestJob {
    fn is_refresh(&self) -> bool {
        self.is_refresh
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        self.guard.reserve_waiting(0)
    }

    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
        let ignores = self.ignores_interest;
        let has_started = self.has_started.clone();
        self.guard.on_interest(move |interest| {
            if !ignores || has_started.load(Ordering::Relaxed) {
                tell(interest);
            }
        });
    }

    fn begin(&mut self) -> bool {
        self.guard.begin()
    }

    fn start(self, place: Place<TestJob>) -> Abort {
        let number = self.number;
        let aborted = self.board.aborted.clone();
        self.has_started.store(true, Ordering::Relaxed);
        self.board.started.lock().unwrap().push(Running {
            number,
            guard: self.guard,
            decoder: decoder(),
            leader: self.leader,
            _place: Some(place),
        });
        Box::new(move || aborted.lock().unwrap().push(number))
    }
}

struct Seat {
    reader: Reader,
    seen: String,
    bell: Arc<Bell>,
    /// It was told to wait.
    waits: bool,
    /// A flaw told it that the fetch failed, whatever its flight says.
    told_apart: bool,
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub struct World {
    texts: Coalescer<Key>,
    dispatch: Arc<Dispatch<TestJob>>,
    board: Board,
    now: Instant,
    /// Flights by their number.
    flights: Vec<usize>,
    clients: [Option<Seat>; CLIENTS.len()],
    last: Option<Last>,
    flaw: Option<Flaw>,
    /// What a flaw holds on to.
    stuck: Vec<Guard>,
    untold: Vec<Ended>,
}

const HOUR: Duration = Duration::from_secs(3600);
const WINDOW: u64 = 1 << 16;

fn policy(hours: Hours) -> Policy {
    Policy {
        ttl: HOUR * hours.ttl as u32,
        grace: HOUR * hours.grace as u32,
        fail_ttl: HOUR * hours.fail_ttl as u32,
        capacity: 1 << 16, // so little is in one shard
    }
}

fn decoder() -> ReplyDecoder {
    ReplyDecoder::new(Protocol::Poem, "upstream".to_string(), WINDOW)
}

impl World {
    pub fn new(hours: Hours, flaw: Option<Flaw>) -> World {
        World {
            texts: Coalescer::new(policy(hours), WINDOW),
            dispatch: Dispatch::new(hours.places, 100),
            board: Board::default(),
            now: Instant::now(),
            flights: Vec::new(),
            clients: [const { None }; CLIENTS.len()],
            last: None,
            flaw,
            stuck: Vec::new(),
            untold: Vec::new(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Each client that has nothing to read waits.
    pub fn wait(&mut self) {
        self.clients.iter_mut().flatten().for_each(Seat::wait);
    }

    /// Plays the act. `between` sees the world when a fetch has settled its key and no
    /// reader has been told.
    pub fn act(&mut self, act: Act, between: impl FnOnce(&mut World)) {
        self.last = None;
        match act {
            Act::Ask(client) => self.ask(client),
            Act::Read(client) => self.read(client),
            Act::Leave(client) => self.leave(client),
            Act::Say(fetch) => self.with(fetch, say),
            Act::Pass(fetch) => {
                let now = self.now;
                self.with(fetch, |running| running.guard.pass(now));
            }
            Act::Long(fetch) => {
                let now = self.now;
                self.with(fetch, |running| running.guard.reserve_or_pass(1, 0, now));
            }
            Act::End(fetch) | Act::Reject(fetch) | Act::Reset(fetch) | Act::Abort(fetch) => {
                if let Some(running) = self.take(fetch) {
                    self.end(act, running, between);
                }
            }
            Act::Purge => {
                self.texts.purge_all(Purge::Soft, self.now);
            }
            Act::PurgeKey => {
                self.texts.purge(&0, Purge::Soft, self.now);
            }
            Act::PurgeHard => {
                self.texts.purge(&0, Purge::Hard, self.now);
            }
            Act::Refresh => self.refresh(),
            Act::Wait => self.now += HOUR,
        }
        self.drop_aborted();
    }

    fn with(&mut self, fetch: usize, change: impl FnOnce(&mut Running)) {
        let mut started = self.board.started.lock().unwrap();
        if let Some(running) = started.iter_mut().find(|running| running.number == fetch) {
            change(running);
        }
    }

    fn take(&mut self, fetch: usize) -> Option<Running> {
        let mut started = self.board.started.lock().unwrap();
        let at = started.iter().position(|running| running.number == fetch)?;
        Some(started.remove(at))
    }

    /// What the executor does with an aborted task.
    fn drop_aborted(&mut self) {
        loop {
            let aborted = self.board.aborted.lock().unwrap().pop();
            let Some(number) = aborted else { return };
            drop(self.take(number));
        }
    }

    fn ask(&mut self, client: Client) {
        let reader = match self.texts.find(&0, self.now) {
            Found::Hit(reader, _) | Found::Stale(reader, None) | Found::Negative(reader) => reader,
            Found::Stale(reader, Some(guard)) => {
                self.enter(guard, None, true);
                reader
            }
            Found::Ahead(..) => panic!("nothing is refreshed ahead"),
            Found::Missed(reader, guard) => {
                self.enter(guard, Some(client), false);
                reader
            }
            Found::Joined(reader) if self.is_shunned(&reader) => {
                let apart = Coalescer::<Key>::new(*self.texts.cache().policy(), WINDOW);
                let Found::Missed(reader, guard) = apart.find(&0, self.now) else {
                    panic!("a new coalescer has nothing")
                };
                self.enter(guard, Some(client), false);
                reader
            }
            Found::Joined(mut reader) => {
                let misses = self.has(Flaw::LateMissTheBeginning);
                while misses && matches!(reader.read(), Read::Chunk(_)) {}
                reader
            }
        };

        self.clients[client as usize] = Some(Seat {
            reader,
            seen: String::new(),
            bell: Arc::default(),
            waits: false,
            told_apart: false,
        });
    }

    /// What an operator does: a fetch that no client asks for.
    fn refresh(&mut self) {
        if let Ok(guard) = self.texts.refresh(&0, self.now) {
            self.enter(guard, None, true);
        }
    }

    fn is_shunned(&self, reader: &Reader) -> bool {
        let is_empty = matches!(reader.peek(), Read::Pending);
        self.has(Flaw::ConnectingIsNotJoined) && is_empty
    }

    fn enter(&mut self, guard: Guard, leader: Option<Client>, is_refresh: bool) {
        let number = self.flights.len();
        self.flights.push(guard.writer().id());
        let job = TestJob {
            number,
            guard,
            is_refresh,
            leader,
            board: self.board.clone(),
            has_started: Arc::default(),
            ignores_interest: self.has(Flaw::LeftInTheQueue),
        };
        let entered = self.dispatch.enter(job, self.now);
        assert!(entered.is_ok(), "there is room for all that wait");
    }

    fn read(&mut self, client: Client) {
        let Some(seat) = &mut self.clients[client as usize] else {
            return;
        };
        while let Read::Chunk(bytes) = seat.reader.read() {
            seat.seen.push_str(&String::from_utf8_lossy(&bytes));
        }

        let told = seat.next().1;
        if told != Told::Nothing {
            self.last = Some(Last {
                client,
                seen: std::mem::take(&mut seat.seen),
                told,
                kept: seat.reader.was_kept(),
            });
            self.leave(client);
        }
    }

    fn leave(&mut self, client: Client) {
        self.clients[client as usize] = None;

        let takes_along = self.has(Flaw::LeaderTakesItAlong);
        let led = {
            let mut started = self.board.started.lock().unwrap();
            let led = started
                .iter_mut()
                .find(|running| running.leader == Some(client));
            led.map(|running| {
                running.leader = None;
                running.number
            })
        };
        if let Some(number) = led
            && takes_along
        {
            drop(self.take(number));
        }
    }

    /// Ends a fetch as the act says.
    fn end(&mut self, act: Act, running: Running, between: impl FnOnce(&mut World)) {
        let is_whole = running.decoder.eof().is_ok();
        let Running {
            guard,
            decoder,
            leader,
            _place: place,
            ..
        } = running;

        match act {
            Act::Abort(_) => drop(guard), // in one step: its halves can't be looked between
            Act::End(_) if is_whole => self.land(guard, Verdict::Keep, between),
            Act::Reject(_) if is_whole => self.land(guard, Verdict::Reject, between),
            Act::Reset(_) if is_whole && self.has(Flaw::ResetIsAnEnd) => {
                self.land(guard, Verdict::Keep, between);
            }
            _ => {
                let broken = decoder.broken(&std::io::ErrorKind::ConnectionReset.into());
                self.fail(guard, leader, broken.unwrap_err(), between);
            }
        }
        drop(place);
    }

    fn land(&mut self, guard: Guard, verdict: Verdict, between: impl FnOnce(&mut World)) {
        let is_keeping = guard.is_keeping() && verdict == Verdict::Keep;
        let text = guard.writer().so_far();
        let ended = guard.settle(verdict, self.now);
        between(self);

        let kept = ended.announce();
        if self.has(Flaw::KeptAfterAPurge)
            && is_keeping
            && !kept
            && let Some(text) = text
            && let Found::Missed(_, mut again) = self.texts.find(&0, self.now)
        {
            again.append(text.bytes());
            again.land(Verdict::Keep, self.now);
        }
    }

    fn fail(
        &mut self,
        guard: Guard,
        leader: Option<Client>,
        why: poetry::error::Error,
        between: impl FnOnce(&mut World),
    ) {
        let flight = guard.writer().id();
        if self.has(Flaw::FailedIsJoined) {
            between(self);
            self.tell_apart(|seat| seat.reader.flight_id() == Some(flight));
            return self.stuck.push(guard);
        }

        let ended = guard.settle_failed(why, CacheFailure::Yes, self.now);
        between(self);
        if self.has(Flaw::LeaderAloneIsTold) {
            let seat = leader.and_then(|client| self.clients[client as usize].as_mut());
            if let Some(seat) = seat {
                seat.told_apart = true;
            }
            return self.untold.push(ended);
        }
        ended.announce();
    }

    fn tell_apart(&mut self, which: impl Fn(&Seat) -> bool) {
        for seat in self.clients.iter_mut().flatten() {
            if which(seat) {
                seat.told_apart = true;
                seat.bell.0.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether each view is the model's.
    pub fn check(&self, model: &Model) -> Result<(), Broken> {
        let started = self.board.started.lock().unwrap().len();
        let counts = (started, self.dispatch.waiting());
        let due = (model.running(), model.waiting());
        hold(Rule::Fetches, started == due.0, || {
            format!("{started} fetches run instead of {}", due.0)
        })?;

        let seen = |last: &Option<Last>| last.as_ref().map(|last| last.seen.clone());
        let what = || {
            format!(
                "the last client left with {:?} instead of {:?}",
                self.last, model.last
            )
        };
        hold(Rule::Seen, seen(&self.last) == seen(&model.last), what)?;
        hold(Rule::Told, self.last == model.last, what)?;

        for client in CLIENTS {
            match (
                &self.clients[client as usize],
                model.clients[client as usize],
            ) {
                (Some(seat), Some(reading)) => seat.check(client, model, reading)?,
                (None, None) => {}
                (seat, _) => {
                    let is = if seat.is_some() { "still in" } else { "out" };
                    let what = format!("{client:?} is {is}");
                    return Err(Broken {
                        rule: Rule::Told,
                        what,
                    });
                }
            }
        }

        let (got, due_answer) = (self.probe(), model.answer());
        let text = |answer: &Answer| match answer {
            Answer::Hit(text) | Answer::Stale(text, _) => Some(text.clone()),
            _ => None,
        };
        let what = || format!("the next client gets {got:?} instead of {due_answer:?}");
        hold(Rule::Kept, text(&got) == text(&due_answer), what)?;
        hold(Rule::Asker, got == due_answer, what)?;

        hold(Rule::Held, counts.1 == due.1, || {
            format!("{} fetches wait instead of {}", counts.1, due.1)
        })?;
        let held = (self.texts.cache().len(), self.texts.cache().held());
        let due = model.held();
        hold(Rule::Held, held == due, || {
            format!("entries and bytes are {held:?} instead of {due:?}")
        })
    }

    /// What a client would get. A lead that it is given is dropped: the key is as it
    /// was.
    fn probe(&self) -> Answer {
        let text = |mut reader: Reader| {
            let mut text = String::new();
            while let Read::Chunk(bytes) = reader.read() {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            text
        };
        match self.texts.find(&0, self.now) {
            Found::Hit(reader, _) => Answer::Hit(text(reader)),
            Found::Stale(reader, None) => Answer::Stale(text(reader), Duty::Nothing),
            Found::Stale(reader, Some(_)) => Answer::Stale(text(reader), Duty::Refreshes),
            Found::Ahead(..) => panic!("nothing is refreshed ahead"),
            Found::Missed(..) => Answer::Leads,
            Found::Joined(reader) | Found::Negative(reader) => {
                let id = reader.flight_id().expect("it reads a flight");
                let number = self.flights.iter().rposition(|flight| *flight == id);
                Answer::Joins(number.unwrap_or(usize::MAX))
            }
        }
    }

    /// All clients leave and everything is purged: then nothing is held any more.
    pub fn close(mut self) -> Result<(), Broken> {
        self.clients = [const { None }; CLIENTS.len()];
        self.drop_aborted();
        loop {
            let next = self.board.started.lock().unwrap().pop();
            if next.is_none() {
                break;
            }
        }

        self.texts.purge_all(Purge::Hard, self.now);
        let left = (self.texts.cache().len(), self.texts.cache().held());
        hold(Rule::Held, left == (0, 0), || {
            format!("entries and bytes are {left:?} when all have gone")
        })
    }
}

fn say(running: &mut Running) {
    let pieces = running.guard.writer().len() as usize / word(running.number, 0).len();
    let bytes = word(running.number, pieces);
    let total = running.guard.writer().len() + bytes.len() as u64;

    assert!(
        running.guard.reserve(total),
        "the capacity is no matter here"
    );
    let pushed = running.decoder.push(bytes.as_bytes());
    pushed.expect("a poem has no framing");
    running.guard.append(bytes.into());
}

impl Seat {
    /// What it would read next, and what it is told where that is nothing.
    fn next(&self) -> (String, Told) {
        match self.reader.peek() {
            Read::Chunk(bytes) => (String::from_utf8_lossy(&bytes).into_owned(), Told::Nothing),
            Read::Pending if !self.told_apart => (String::new(), Told::Nothing),
            Read::End => (String::new(), Told::Whole),
            Read::Pending | Read::Failed(_) | Read::FellBehind { .. } => {
                (String::new(), Told::Failed)
            }
        }
    }

    /// Waits for news, if there is none yet.
    fn wait(&mut self) {
        let waker = Waker::from(self.bell.clone());
        let ready = pin!(self.reader.ready()).poll(&mut Context::from_waker(&waker));
        self.waits = ready.is_pending();
        self.bell.0.store(false, Ordering::Relaxed);
    }

    fn check(&self, client: Client, model: &Model, reading: Reading) -> Result<(), Broken> {
        let due = super::obvious::text(reading.fetch, reading.from, reading.seen);
        hold(Rule::Seen, self.seen == due, || {
            format!("{client:?} has seen {:?} instead of {due:?}", self.seen)
        })?;

        let (rest, told) = model.rest(reading);
        let (next, end) = self.next();
        let fits = rest.starts_with(&next) && rest.is_empty() == next.is_empty();
        hold(Rule::Seen, fits, || {
            format!("{client:?} reads {next:?} next instead of {rest:?}")
        })?;
        hold(Rule::Told, !rest.is_empty() || told == end, || {
            format!("{client:?} is told {end:?} instead of {told:?}")
        })?;

        let woken = self.told_apart || !self.waits || self.bell.0.load(Ordering::Relaxed);
        hold(Rule::Woken, woken || !model.has_news(reading), || {
            format!("{client:?} was not woken")
        })
    }
}
