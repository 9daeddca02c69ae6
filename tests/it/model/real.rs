//! The real cache and the real flights, put together as the proxy does it, and compared with the model after every act.
//!
//! A [`Flaw`] is a small deviation in the putting together. The parts are the real ones either way, so each flaw shows
//! that the comparison would notice if the proxy, or a part, did the same.

use super::obvious::{
    Act, CLIENTS, Client, Duty, Hours, Last, Model, Reading, Response, Timing, word,
};
use poetry::cache::{Cache, Fill, Lookup, Policy};
use poetry::flight::{Flight, Read, Reader, Writer, launch};
use poetry::poem::Poem;
use poetry::protocol::{Protocol, ReplyDecoder};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

/// What the comparison holds. The first that is broken is told, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// So many fetches are aloft as there should be: one for each generation of the key.
    Fetches,
    /// Everyone reads the text from its beginning, and all of it that there is.
    Seen,
    /// Everyone is told the same end, no sooner and no later.
    Timing,
    /// Who waits is woken when there is news.
    Woken,
    /// Whole poems alone are kept, and only until they are purged or too old.
    Kept,
    /// Who asks next gets what he should: a hit, what is stale, a place in the flight that is aloft, or the lead.
    Asker,
    /// Every byte is counted, and given back.
    Held,
}

/// What was found instead of what should be.
#[derive(Debug)]
pub struct Broken {
    pub rule: Rule,
    pub what: String,
}

fn hold(rule: Rule, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    match holds {
        true => Ok(()),
        false => Err(Broken { rule, what: what() }),
    }
}

/// What can be put together wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The fetch is the client's who caused it, and ends when that one leaves.
    LeaderTakesItAlong,
    /// Where a commit is refused, the poem is kept all the same.
    KeptAfterAPurge,
    /// Who joins late begins where the flight is by then.
    LateMissTheBeginning,
    /// A reset counts as the end of the poem.
    ResetIsAnEnd,
    /// Of a failure, only the client who caused the fetch is told.
    LeaderAloneIsTold,
    /// A fetch that failed leaves its flight in the table.
    FailedIsJoined,
    /// A flight without a byte is not joined.
    ConnectingIsNotJoined,
}

type Key = u8;
/// A flight and its number.
type Numbered = (usize, Flight);
type Lead = poetry::cache::Lead<Key, Poem, Numbered, Writer>;

/// What the proxy's fetch holds: the same two, in the same order.
struct FlightGuard {
    fill: Option<Fill<Key, Poem, Numbered>>,
    writer: Writer,
    judge: ReplyDecoder,
    leader: Option<Client>,
}

struct Seat {
    reader: Reader,
    seen: String,
    bell: Arc<Bell>,
    /// It was told to wait.
    waits: bool,
    /// The flight is beside the point for it: it was told that it failed.
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
    cache: Arc<Cache<Key, Poem, Numbered>>,
    now: Instant,
    fetches: Vec<Option<FlightGuard>>,
    clients: [Option<Seat>; CLIENTS.len()],
    last: Option<Last>,
    flaw: Option<Flaw>,
    /// What a flaw holds on to.
    stuck: Vec<FlightGuard>,
}

const HOUR: Duration = Duration::from_secs(3600);

impl World {
    pub fn new(hours: Hours, flaw: Option<Flaw>) -> World {
        let hours = [hours.ttl, hours.grace, hours.fail_ttl].map(|hours| HOUR * hours as u32);
        let [ttl, grace, fail_ttl] = hours;
        let capacity = 1 << 16; // so little is in one shard
        let cache = Cache::new(Policy {
            ttl,
            grace,
            fail_ttl,
            capacity,
        });
        let (fetches, clients) = (Vec::new(), [const { None }; CLIENTS.len()]);
        World {
            cache,
            now: Instant::now(),
            fetches,
            clients,
            last: None,
            flaw,
            stuck: Vec::new(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Whoever has nothing to read waits.
    pub fn wait(&mut self) {
        self.clients.iter_mut().flatten().for_each(Seat::wait);
    }

    /// Does it. `between` sees the world when a fetch has settled its key and has told nobody yet.
    pub fn act(&mut self, act: Act, between: impl FnOnce(&mut World)) {
        self.last = None;
        match act {
            Act::Ask(client) => self.ask(client),
            Act::Read(client) => self.read(client),
            Act::Leave(client) => self.leave(client),
            Act::Say(fetch) => self.say(fetch),
            Act::End(fetch) | Act::Reset(fetch) | Act::Abort(fetch) => {
                let landing = self.fetches.get_mut(fetch).and_then(Option::take);
                let Some(landing) = landing else { return };
                match act {
                    Act::End(_) if landing.judge.eof().is_ok() => self.land(landing, between),
                    Act::Reset(_)
                        if self.has(Flaw::ResetIsAnEnd) && landing.judge.eof().is_ok() =>
                    {
                        self.land(landing, between);
                    }
                    Act::Abort(_) => self.abort(landing, between),
                    _ => self.fail(landing, between),
                }
            }
            Act::Purge => self.cache.purge(),
            Act::Wait => self.now += HOUR,
        }
    }

    fn lookup(&self) -> Lookup<Key, Poem, Numbered, Writer> {
        let number = self.fetches.len();
        self.cache.lookup(&0, self.now, || {
            let (writer, flight) = launch(1 << 16);
            (writer, (number, flight))
        })
    }

    fn ask(&mut self, client: Client) {
        let reader = match self.lookup() {
            Lookup::Hit(poem, _) => Reader::of(poem),
            Lookup::Stale(poem, lead) => {
                if let Some(lead) = lead {
                    self.fly(lead, None);
                }
                Reader::of(poem)
            }
            Lookup::Miss(lead) => {
                let reader = lead.flight.1.join().expect("it has its beginning");
                self.fly(lead, Some(client));
                reader
            }
            Lookup::Coalesced((number, _)) if self.is_shunned(number) => {
                let (writer, flight) = launch(1 << 16);
                self.fetches.push(Some(FlightGuard {
                    fill: None,
                    writer,
                    judge: judge(),
                    leader: Some(client),
                }));
                flight.join().expect("it has its beginning")
            }
            Lookup::Coalesced((_, flight)) => {
                let mut reader = flight.join().expect("it never outgrows the window");
                while self.has(Flaw::LateMissTheBeginning)
                    && matches!(reader.read(), Read::Chunk(_))
                {}
                reader
            }
        };
        let seat = Seat {
            reader,
            seen: String::new(),
            bell: Arc::default(),
            waits: false,
            told_apart: false,
        };
        self.clients[client as usize] = Some(seat);
    }

    fn is_shunned(&self, number: usize) -> bool {
        let landing = self.fetches.get(number).and_then(Option::as_ref);
        self.has(Flaw::ConnectingIsNotJoined)
            && landing.is_some_and(|landing| landing.writer.is_empty())
    }

    fn fly(&mut self, lead: Lead, leader: Option<Client>) {
        let (fill, writer) = (Some(lead.fill), lead.writer);
        self.fetches.push(Some(FlightGuard {
            fill,
            writer,
            judge: judge(),
            leader,
        }));
    }

    fn read(&mut self, client: Client) {
        let Some(seat) = &mut self.clients[client as usize] else {
            return;
        };
        while let Read::Chunk(bytes) = seat.reader.read() {
            seat.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        let told = seat.next().1;
        if told != Timing::Nothing {
            let (seen, kept) = (std::mem::take(&mut seat.seen), seat.reader.was_kept());
            self.last = Some(Last {
                client,
                seen,
                told,
                kept,
            });
            self.clients[client as usize] = None;
        }
    }

    fn leave(&mut self, client: Client) {
        self.clients[client as usize] = None;
        for landing in &mut self.fetches {
            let led = landing
                .as_ref()
                .is_some_and(|landing| landing.leader == Some(client));
            match landing {
                Some(_) if led && self.flaw == Some(Flaw::LeaderTakesItAlong) => *landing = None,
                Some(landing) if led => landing.leader = None,
                _ => {}
            }
        }
    }

    fn say(&mut self, fetch: usize) {
        let Some(Some(landing)) = self.fetches.get_mut(fetch) else {
            return;
        };
        let bytes = word(fetch, landing.writer.len() as usize / word(fetch, 0).len());
        let total = landing.writer.len() + bytes.len() as u64;
        let fits = landing.fill.as_mut().is_none_or(|fill| fill.reserve(total));
        assert!(fits, "the capacity is no matter here");
        landing
            .judge
            .push(bytes.as_bytes())
            .expect("a poem has no framing");
        landing.writer.append(bytes.into());
    }

    fn land(&mut self, landing: FlightGuard, between: impl FnOnce(&mut World)) {
        let FlightGuard { fill, writer, .. } = landing;
        writer.finish(|poem| {
            let (bytes, again, mut counted) = (poem.len(), poem.clone(), None);
            let Some(fill) = fill else { return Err(None) };
            let kept = fill.commit_with(
                |room| poem.with(counted.insert(room).clone()),
                bytes,
                self.now,
            );
            let done = kept.map(|()| counted).map_err(Some);
            if done.is_err() && self.has(Flaw::KeptAfterAPurge) {
                self.keep_anyway(again);
            }
            between(self);
            done
        });
    }

    fn keep_anyway(&mut self, poem: Poem) {
        if let Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) = self.lookup() {
            let bytes = poem.len();
            drop(lead.fill.commit(poem, bytes, self.now));
        }
    }

    fn fail(&mut self, mut landing: FlightGuard, between: impl FnOnce(&mut World)) {
        let why = landing
            .judge
            .io_error(&std::io::ErrorKind::ConnectionReset.into());
        if self.has(Flaw::FailedIsJoined) {
            let writer = std::mem::replace(&mut landing.writer, launch(0).0);
            self.stuck.push(landing);
            between(self);
            return writer.fail(why);
        }
        let room = landing.fill.take().map(|fill| fill.fail(self.now));
        between(self);
        landing.writer.attach(room);
        if self.has(Flaw::LeaderAloneIsTold) {
            let seat = landing
                .leader
                .and_then(|client| self.clients[client as usize].as_mut());
            seat.into_iter().for_each(|seat| seat.told_apart = true);
            return self.stuck.push(landing);
        }
        landing.writer.fail(why);
    }

    /// The task is dropped where it stands.
    fn abort(&mut self, landing: FlightGuard, between: impl FnOnce(&mut World)) {
        let FlightGuard { fill, writer, .. } = landing;
        drop(fill);
        between(self);
        drop(writer);
    }

    /// Whether everybody's view is the model's.
    pub fn check(&self, model: &Model) -> Result<(), Broken> {
        let aloft = self.fetches.iter().flatten().count();
        hold(Rule::Fetches, aloft == model.aloft(), || {
            format!("{aloft} fetches are aloft instead of {}", model.aloft())
        })?;
        let seen = |last: &Option<Last>| last.as_ref().map(|last| last.seen.clone());
        let what = || {
            format!(
                "who is out went with {:?} instead of {:?}",
                self.last, model.last
            )
        };
        hold(Rule::Seen, seen(&self.last) == seen(&model.last), what)?;
        hold(Rule::Timing, self.last == model.last, what)?;
        for client in CLIENTS {
            match (
                &self.clients[client as usize],
                model.clients[client as usize],
            ) {
                (Some(seat), Some(reading)) => seat.check(client, model, reading)?,
                (None, None) => {}
                (seat, _) => {
                    let what = format!(
                        "{client:?} is {}",
                        if seat.is_some() { "still in" } else { "out" }
                    );
                    return Err(Broken {
                        rule: Rule::Timing,
                        what,
                    });
                }
            }
        }
        let (got, due) = (self.probe(), model.answer());
        let text = |answer: &Response| match answer {
            Response::Hit(text) | Response::Stale(text, _) => Some(text.clone()),
            _ => None,
        };
        let what = || format!("who asks next gets {got:?} instead of {due:?}");
        hold(Rule::Kept, text(&got) == text(&due), what)?;
        hold(Rule::Asker, got == due, what)?;
        let held = (self.cache.len(), self.cache.held());
        let due = model.held();
        hold(Rule::Held, held == due, || {
            format!("entries and bytes are {held:?} instead of {due:?}")
        })
    }

    /// What a client would get. A lead that is handed out is dropped, and that leaves the key as it was.
    fn probe(&self) -> Response {
        let text = |poem: Poem| String::from_utf8_lossy(&poem.bytes()).into_owned();
        match self.lookup() {
            Lookup::Hit(poem, _) => Response::Hit(text(poem)),
            Lookup::Stale(poem, None) => Response::Stale(text(poem), Duty::Nothing),
            Lookup::Stale(poem, Some(_)) => Response::Stale(text(poem), Duty::Refreshes),
            Lookup::Coalesced((number, _)) => Response::Joins(number),
            Lookup::Miss(_) => Response::Leads,
        }
    }

    /// Everybody goes home and everything is forgotten: then nothing is held any more.
    pub fn close(mut self) -> Result<(), Broken> {
        (self.fetches, self.clients) = (Vec::new(), [const { None }; CLIENTS.len()]);
        self.cache.purge();
        let left = (self.cache.len(), self.cache.held());
        hold(Rule::Held, left == (0, 0), || {
            format!("entries and bytes are {left:?} when all have gone")
        })
    }
}

impl Seat {
    /// What it would read next, and what it is told where that is nothing.
    fn next(&self) -> (String, Timing) {
        match self.reader.peek() {
            Read::Chunk(bytes) => (
                String::from_utf8_lossy(&bytes).into_owned(),
                Timing::Nothing,
            ),
            Read::Pending if !self.told_apart => (String::new(), Timing::Nothing),
            Read::End => (String::new(), Timing::Whole),
            Read::Pending | Read::Failed(_) => (String::new(), Timing::Failed),
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
        let Reading {
            fetch, from, seen, ..
        } = reading;
        let due = super::obvious::text(fetch, from, seen);
        hold(Rule::Seen, self.seen == due, || {
            format!("{client:?} has seen {:?} instead of {due:?}", self.seen)
        })?;
        let ((rest, told), (next, end)) = (model.rest(reading), self.next());
        let fits = rest.starts_with(&next) && rest.is_empty() == next.is_empty();
        hold(Rule::Seen, fits, || {
            format!("{client:?} reads {next:?} next instead of {rest:?}")
        })?;
        hold(Rule::Timing, !rest.is_empty() || told == end, || {
            format!("{client:?} is told {end:?} instead of {told:?}")
        })?;
        let woken = self.told_apart || !self.waits || self.bell.0.load(Ordering::Relaxed);
        hold(Rule::Woken, woken || !model.has_news(reading), || {
            format!("{client:?} was not woken")
        })
    }
}

fn judge() -> ReplyDecoder {
    ReplyDecoder::new(Protocol::Poem, "upstream".to_string(), 1 << 16)
}
