//! The coalescer, its guards and the dispatch: any order of requests, pieces, ends,
//! purges and waits, for a few keys. What runs is the real thing, without a runtime.
//!
//! Each fetch has a text of its own, and a record of what became of it. So these can be
//! checked:
//!
//! * a reader that is told the end has read the text of one fetch of its own key, from
//!   the first byte to the last, and that fetch had landed;
//! * a kept text is served no longer than it may be, and not after a hard purge;
//! * a request starts a fetch only where none can be joined;
//! * readers are told of an end, and woken, no sooner and no later than it is
//!   announced;
//! * no more fetches run than there are places, none waits beside a free place, and
//!   none waits or runs for no purpose;
//! * nothing is held when everything is dropped and purged.

mod client;
mod ends;
mod job;
mod record;

use super::head;
use bytes::Bytes;
use client::Client;
use futures::FutureExt;
use job::{Board, Running, TestJob};
use poetry::cache::{CacheFailure, Policy, Purge};
use poetry::coalesce::{Coalescer, FlightGuard, Found};
use poetry::dispatch::{Dispatch, Refused};
use poetry::error::Error;
use record::{Fetches, State};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The times of the policies, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// In bytes. Nothing is evicted for the last one.
const CAPACITIES: [u64; 4] = [600, 2000, 20_000, AMPLE];
const AMPLE: u64 = 1 << 20;
/// The longest text that is kept, in bytes.
const WINDOW: u64 = 512;
const KEYS: u8 = 4;
const CLIENTS_MAX: usize = 12;
/// How many fetches may wait for a place.
const WAITING_MAX: usize = 4;
/// In seconds: around and beyond the times of the policies, and the pauses of failed
/// refreshes.
const WAITS: [u64; 8] = [1, 2, 5, 9, 10, 90, 100, 250];

/// Two bytes choose the policy and the places. After that, three bytes each are an
/// action: what to do, to which key, client or fetch, and with how many bytes.
pub fn check(data: &[u8]) {
    let ([times, sizes], actions) = head(data);
    let time = |shift: u8| Duration::from_secs(TIMES[usize::from(times >> shift & 3)]);
    let policy = Policy {
        ttl: time(0),
        grace: time(2),
        fail_ttl: time(4),
        capacity: CAPACITIES[usize::from(sizes & 3)],
    };
    let mut run = Run::new(policy, 1 + usize::from(sizes >> 2 & 1));

    for action in actions.chunks_exact(3) {
        run.act(action[0], action[1], action[2]);
        run.check();
    }
    run.end();
}

struct Run {
    texts: Coalescer<u8>,
    dispatch: Arc<Dispatch<TestJob>>,
    places: usize,
    board: Board,
    policy: Policy,
    now: Instant,
    clients: Vec<Client>,
    fetches: Fetches,
}

impl Run {
    fn new(policy: Policy, places: usize) -> Run {
        Run {
            texts: Coalescer::new(policy, WINDOW),
            dispatch: Dispatch::new(places, WAITING_MAX),
            places,
            board: Board::default(),
            policy,
            now: Instant::now(),
            clients: Vec::new(),
            fetches: Fetches::default(),
        }
    }

    /// The low half of `action` chooses what to do, the high half how.
    fn act(&mut self, action: u8, which: u8, size: u8) {
        let how = action >> 4;
        match action & 15 {
            0 | 1 => self.ask(which % KEYS),
            2 => self.read(which),
            3 => self.leave(which),
            4 | 5 => self.append(which, size),
            6 => self.land(which, how, true),
            7 => self.land(which, how, false),
            8 => self.with(which, |running, now| running.guard.pass(now)),
            9 => self.too_long(which),
            10 => self.fail(which, how),
            11 => drop(self.board.take(which)),
            12 => self.purge(None, how),
            13 => self.purge(Some(which % KEYS), how),
            14 => self.now += Duration::from_secs(WAITS[usize::from(which) % WAITS.len()]),
            _ => self.rewind(which),
        }
        self.settle();
    }

    /// Drops the tasks that were aborted, as an executor does, and records which
    /// fetches have started and which are gone.
    fn settle(&mut self) {
        while let Some(number) = self.board.next_aborted() {
            let record = &self.fetches.0[number];
            assert!(
                record.is_detached,
                "aborted, but its text may still be kept"
            );
            assert!(!self.has_reader(number), "aborted while it is read");
            drop(self.board.take_number(number));
        }

        for number in self.board.started() {
            self.fetches.0[number].begin();
        }
        for number in self.board.gone() {
            let record = &self.fetches.0[number];
            let waited_on = record.is_refresh || self.has_reader(number);
            let is_lost = record.state == State::Waiting && waited_on;
            assert!(!is_lost, "dropped while it had to wait on");
            self.fetches.0[number].drop();
        }
        self.board.each(|running| {
            let record = &mut self.fetches.0[running.number];
            record.is_keeping = running.guard.is_keeping();
        });
    }

    fn has_reader(&self, number: usize) -> bool {
        self.clients
            .iter()
            .any(|client| client.fetch == Some(number))
    }

    fn ask(&mut self, key: u8) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }

        let found = self.texts.find(&key, self.now);
        self.check_kept(key, &found);
        let fetch = match &found {
            Found::Hit(..) | Found::Ahead(..) | Found::Stale(..) => None,
            Found::Joined(reader) | Found::Negative(reader) => {
                let id = reader.flight_id().expect("it reads a flight");
                Some(self.fetches.by_flight(id))
            }
            Found::Missed(..) => Some(self.fetches.0.len()),
        };

        match found {
            Found::Hit(reader, _) | Found::Stale(reader, None) => self.seat(key, fetch, reader),
            Found::Stale(reader, Some(guard)) => {
                self.seat(key, None, reader);
                self.start(key, guard, true);
            }
            Found::Joined(reader) => {
                self.check_joined(key, fetch);
                self.seat(key, fetch, reader);
            }
            Found::Negative(reader) => {
                let record = &self.fetches.0[fetch.expect("it has a flight")];
                assert_eq!(record.key, key, "another key's failure");
                assert!(record.is_cached(self.now), "it is cached no more");
                self.seat(key, fetch, reader);
            }
            Found::Ahead(..) => panic!("nothing is refreshed ahead"),
            Found::Missed(reader, guard) => {
                self.seat(key, fetch, reader);
                self.start(key, guard, false);
            }
        }
    }

    fn seat(&mut self, key: u8, fetch: Option<usize>, reader: poetry::flight::Reader) {
        self.clients.push(Client::new(key, fetch, reader));
    }

    /// A flight that is joined is of this key. Its text may still be kept, or it has
    /// just become a cached failure, and its readers have yet to be told.
    fn check_joined(&self, key: u8, fetch: Option<usize>) {
        let record = &self.fetches.0[fetch.expect("it has a flight")];
        assert_eq!(record.key, key, "another key's flight");
        let is_untold = record.is_live() && record.is_cached(self.now);
        let is_joined = record.is_shareable() || is_untold;
        assert!(is_joined, "joined, but it can't be shared");
    }

    /// A kept text is served as long as it may be. With ample capacity it is always
    /// served.
    fn check_kept(&self, key: u8, found: &Found<u8>) {
        let (number, is_fresh) = match found {
            Found::Hit(reader, _) => (client::fetch_of(reader), Some(true)),
            Found::Stale(reader, _) => (client::fetch_of(reader), Some(false)),
            _ => (None, None),
        };
        if let Some(number) = number {
            let record = &self.fetches.0[number];
            assert_eq!(record.key, key, "another key's text");
            let kept = record.kept.expect("served, but never kept");
            assert_eq!(is_fresh, Some(self.now < kept.fresh_until));
            assert!(self.now < kept.stale_until, "served for too long");
        }

        if self.policy.capacity == AMPLE {
            assert_eq!(
                number,
                self.fetches.kept(key, self.now),
                "not the newest text"
            );
        }
    }

    /// Starts a fetch, or lets it wait.
    fn start(&mut self, key: u8, guard: FlightGuard<u8>, is_refresh: bool) {
        let is_alone = self.fetches.may_be_alone(key, self.now);
        assert!(
            is_alone || self.fetches.shareable(key).is_none(),
            "fetched twice"
        );
        let number = self
            .fetches
            .add(key, guard.writer().id(), is_refresh, is_alone);
        assert_eq!(guard.replaces().is_some(), is_refresh);

        let waited = self.dispatch.waiting();
        let job = TestJob::new(number, guard, &self.board);
        let Err(refused) = self.dispatch.enter(job, self.now) else {
            return;
        };
        let job = match *refused {
            Refused::QueueFull(job) => {
                assert_eq!(waited, WAITING_MAX);
                job
            }
            Refused::NoRoom(job) => {
                assert!(self.texts.cache().in_flight() <= self.texts.cache().held());
                job
            }
        };

        let guard = job.refused();
        guard.fail(Error::Abandoned, CacheFailure::No, self.now);
        self.fetches.0[number].state = State::Failed;
    }

    fn read(&mut self, which: u8) {
        let Some(at) = index(which, self.clients.len()) else {
            return;
        };
        if self.clients[at].read(&self.fetches) {
            self.clients.swap_remove(at);
        }
    }

    fn leave(&mut self, which: u8) {
        if let Some(at) = index(which, self.clients.len()) {
            self.clients.swap_remove(at);
        }
    }

    fn with(&mut self, which: u8, change: impl FnOnce(&mut Running, Instant)) {
        let now = self.now;
        self.board.with(which, |running| change(running, now));
    }

    /// Appends a piece to a fetch, as the proxy does: it waits for readers where the
    /// window is full, and ends where none is left.
    fn append(&mut self, which: u8, size: u8) {
        let Some(mut running) = self.board.take(which) else {
            return;
        };
        match running.guard.writable().now_or_never() {
            None => return self.board.put_back(running),
            Some(Err(_)) => return drop(running),
            Some(Ok(())) => {}
        }

        let was_keeping = running.guard.is_keeping();
        let record = &mut self.fetches.0[running.number];
        let piece = record.piece(size);
        let is_long = record.text.len() as u64 > WINDOW;
        running
            .guard
            .reserve_or_pass(piece.len() as u64, WINDOW, self.now);
        assert!(
            !is_long || !running.guard.is_keeping(),
            "too long to be kept"
        );
        if is_long && was_keeping {
            self.fetches
                .left_alone(running.number, self.now + self.policy.fail_ttl);
        }

        running.guard.append(Bytes::from(piece));
        self.board.put_back(running);
    }

    fn too_long(&mut self, which: u8) {
        let Some(mut running) = self.board.take(which) else {
            return;
        };
        if running.guard.is_keeping() {
            running.guard.reserve_or_pass(1, 0, self.now);
            self.fetches
                .left_alone(running.number, self.now + self.policy.fail_ttl);
        }
        self.board.put_back(running);
    }

    fn rewind(&mut self, which: u8) {
        let fetches = &mut self.fetches;
        self.board.with(which, |running| {
            // A fetch tries again only while its text may still be kept.
            if running.guard.is_keeping() && running.guard.rewind() {
                fetches.0[running.number].rewind();
            }
        });
    }

    fn purge(&mut self, key: Option<u8>, how: u8) {
        let is_soft = how % 2 == 1;
        let kind = if is_soft { Purge::Soft } else { Purge::Hard };
        let purged = match key {
            None => self.texts.purge_all(kind, self.now),
            Some(key) => self.texts.purge(&key, kind, self.now),
        };

        let grace = if is_soft {
            self.policy.grace
        } else {
            Duration::ZERO
        };
        let (sure, maybe) = self.fetches.purge(key, self.now, grace);
        let possible = sure..=sure + maybe;
        assert!(
            possible.contains(&purged.fetches),
            "{possible:?}: {purged:?}"
        );
    }
}

/// An index below `count`. `None` if that is zero.
fn index(which: u8, count: usize) -> Option<usize> {
    usize::from(which).checked_rem(count)
}
