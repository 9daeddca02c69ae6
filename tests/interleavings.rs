//! The real coalescer, its guards, the dispatch, the flights and the semaphore under a
//! scheduler that decides at each of their locks which thread goes on.
//!
//! ```text
//! cargo test --locked --features shuttle --test interleavings
//! ```
//!
//! `tests/it/model.rs` tries every order of whole acts; here they are cut at their
//! locks. Each scenario runs a thousand times at random and a thousand times with few,
//! well placed switches (PCT). A thread that waits for ever is a deadlock to the
//! scheduler, and fails the test. A failure prints its schedule, lines of hexadecimal
//! digits; to see it again:
//!
//! ```text
//! SCHEDULE='91...' cargo test --locked --features shuttle --test interleavings NAME
//! ```

use futures::future::{AbortHandle, Abortable};
use poetry::cache::{Cache, CacheFailure, Lookup, Policy, Purge};
use poetry::coalesce::{Coalescer, FlightGuard, Found, Verdict};
use poetry::dispatch::{Abort, Dispatch, Job, Place};
use poetry::error::Error;
use poetry::flight::{self, Flight, Interest, Read, Reader};
use poetry::poem::Poem;
use poetry::semaphore::Semaphore;
use shuttle::future::block_on;
use shuttle::thread::{JoinHandle, spawn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
/// The rounds of one scenario with each of the two schedulers: together a few seconds
/// in a debug build.
const ROUNDS: usize = 1000;
/// Most faults that were ever found like this need no more switches at the right
/// places.
const SWITCHES: usize = 3;

fn check(scenario: fn()) {
    if let Ok(schedule) = std::env::var("SCHEDULE") {
        return shuttle::replay(scenario, &schedule);
    }
    shuttle::check_random(scenario, ROUNDS);
    shuttle::check_pct(scenario, ROUNDS, SWITCHES);
}

type Guard = FlightGuard<u8>;

/// How a fetch ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Whole,
    Fails,
    IsDropped,
}

/// One key, its fetches, and how they end.
#[derive(Clone)]
struct Key {
    texts: Arc<Coalescer<u8>>,
    /// The scheduler need not know of it: it is no part of what is tested.
    fetches: Arc<AtomicUsize>,
    start: Instant,
    end: End,
}

/// What a client saw.
struct Outcome {
    text: String,
    is_whole: bool,
    /// The text of a hit, when it asked again at the end.
    again: Option<String>,
}

fn text(fetch: usize) -> String {
    format!("{fetch} was, and was not.")
}

impl Key {
    fn new(end: End, grace: Duration) -> Key {
        let policy = Policy {
            ttl: HOUR,
            grace,
            fail_ttl: Duration::ZERO,
            capacity: 1 << 15,
        };
        Key {
            texts: Arc::new(Coalescer::new(policy, 1 << 10)),
            fetches: Arc::default(),
            start: Instant::now(),
            end,
        }
    }

    fn ask(&self, now: Instant) -> Found<u8> {
        self.texts.find(&0, now)
    }

    fn missed(&self) -> (Reader, Guard) {
        match self.ask(self.start) {
            Found::Missed(reader, guard) => (reader, guard),
            _ => panic!("nothing was asked for yet"),
        }
    }

    /// The fetch's task: three pieces, the last with the end. A fetch without readers
    /// does not begin.
    fn fetch(&self, guard: Guard, now: Instant) -> JoinHandle<()> {
        let key = self.clone();
        spawn(move || key.run(guard, now))
    }

    fn run(&self, mut guard: Guard, now: Instant) {
        if !guard.begin() {
            return;
        }

        let text = text(self.fetches.fetch_add(1, Ordering::Relaxed));
        let (first, rest) = text.split_at(5);
        let (second, last) = rest.split_at(5);
        assert!(guard.reserve(text.len() as u64));
        guard.append(first.to_string().into());
        guard.append(second.to_string().into());
        guard.append_last(last.to_string().into());

        match self.end {
            End::Whole => {
                guard.land(Verdict::Keep, now);
            }
            End::Fails => guard.fail(Error::Abandoned, CacheFailure::Yes, now),
            End::IsDropped => drop(guard),
        }
    }

    /// One client: asks, reads to the end, and asks again.
    fn client(&self) -> Outcome {
        let (reader, fetch) = match self.ask(self.start) {
            // Between the two halves of a fetch's end its failure is cached already.
            Found::Hit(reader, _) | Found::Joined(reader) | Found::Negative(reader) => {
                (reader, None)
            }
            Found::Missed(reader, guard) => (reader, Some(self.fetch(guard, self.start))),
            Found::Ahead(..) | Found::Stale(..) => panic!("nothing is stale"),
        };

        let flight = reader.flight_id();
        let (text, is_whole, _reader) = read(reader);
        let outcome = Outcome {
            text,
            is_whole,
            again: self.ask_again(flight),
        };
        outcome.check();
        join(fetch.into_iter().collect());
        outcome
    }

    /// A client that has read to the end asks again. A guard that it may get is
    /// dropped, as by a fetch that dies at once.
    fn ask_again(&self, before: Option<usize>) -> Option<String> {
        match self.ask(self.start) {
            Found::Hit(reader, _) => Some(read(reader).0),
            Found::Joined(reader) | Found::Negative(reader) => {
                assert_ne!(reader.flight_id(), before, "the flight is over");
                None
            }
            Found::Missed(..) => None,
            Found::Ahead(..) | Found::Stale(..) => panic!("nothing is stale"),
        }
    }

    /// When all have gone there is nothing left.
    fn close(&self) {
        self.texts.purge_all(Purge::Hard, self.start);
        let cache = self.texts.cache();
        assert_eq!((cache.len(), cache.held()), (0, 0));
    }
}

impl Outcome {
    /// It is the text of one fetch, whole, or the beginning of one.
    fn check(&self) {
        let number = self.text.split(' ').next();
        let number = number.and_then(|number| number.parse().ok());
        let due = number.map(text).unwrap_or_default();
        assert!(due.starts_with(&self.text), "{:?} of {due:?}", self.text);

        let is_complete = due == self.text && !due.is_empty();
        assert!(!self.is_whole || is_complete, "{:?} is whole", self.text);
    }
}

/// Reads to the end. Returns the text, whether it is whole, and the reader: its
/// flight's number is its own while it is held.
fn read(mut reader: Reader) -> (String, bool, Reader) {
    let mut text = String::new();
    loop {
        match reader.read() {
            Read::Chunk(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Read::Pending => block_on(reader.ready()),
            last => return (text, matches!(last, Read::End), reader),
        }
    }
}

fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let join = |thread: JoinHandle<T>| thread.join().expect("it has not panicked");
    threads.into_iter().map(join).collect()
}

/// Three clients ask for one text, whose fetch ends like this.
fn three_clients(end: End) -> (Key, Vec<Outcome>) {
    let key = Key::new(end, Duration::ZERO);
    let client = |key: Key| spawn(move || key.client());
    let threads = (0..3).map(|_| client(key.clone())).collect();
    let seen = join(threads);
    (key, seen)
}

fn whole() {
    let (key, seen) = three_clients(End::Whole);
    for client in seen {
        assert!(client.is_whole && client.text == text(0));
        assert_eq!(client.again, Some(text(0)), "it is kept by then");
    }
    assert_eq!(key.fetches.load(Ordering::Relaxed), 1, "one fetch for all");
    key.close();
}

#[test]
fn three_clients_cost_one_fetch_and_find_it_kept_afterwards() {
    check(whole);
}

fn failing(end: End) {
    let (key, seen) = three_clients(end);
    let failed = |client: &Outcome| !client.is_whole && client.again.is_none();
    assert!(seen.iter().all(failed));

    let cache = key.texts.cache();
    assert_eq!((cache.len(), cache.held()), (0, 0), "it leaves nothing");
}

#[test]
fn a_client_told_of_a_failure_does_not_join_it_again() {
    check(|| failing(End::Fails));
}

#[test]
fn a_fetch_that_is_dropped_has_failed_for_all() {
    check(|| failing(End::IsDropped));
}

/// What `settle` and `announce` can't be made to do: the readers are told, and then the
/// poem is kept. A reader that asks again may find its own flight.
fn announced_too_soon() {
    let policy = Policy {
        ttl: HOUR,
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
        capacity: 1 << 15,
    };
    let cache = Cache::<u8, Poem, Flight>::new(policy);
    let now = Instant::now();
    let ask = |cache: &Arc<Cache<u8, Poem, Flight>>| {
        cache.lookup(&0, now, || {
            let writer = flight::launch(1 << 10);
            let flight = writer.flight();
            (writer, flight)
        })
    };
    let Lookup::Miss(mut lead) = ask(&cache) else {
        panic!("nothing was asked for yet")
    };
    let first = lead.flight.join().expect("it has its beginning");

    let fetch = spawn(move || {
        lead.writer.append(text(0).into());
        let poem = lead.writer.so_far().expect("it fits the window");
        let bytes = poem.len();
        lead.writer.finish(true);
        let freshness = lead.fill.freshness(now);
        drop(lead.fill.commit(poem, bytes, freshness, now));
    });
    let (_, _, _reader) = read(first);
    let again = ask(&cache);

    // A panic while the other thread holds a lock would poison it, and the guards that
    // are dropped with it would panic again: that aborts. So the threads end first.
    join(vec![fetch]);
    assert!(matches!(again, Lookup::Hit(..)), "the flight is over");
}

#[test]
#[should_panic(expected = "the flight is over")]
fn a_poem_that_is_kept_too_late_would_be_noticed() {
    check(announced_too_soon);
}

/// A client asks while another thread purges.
fn asked_during_a_purge() {
    let key = Key::new(End::Whole, Duration::ZERO);
    let purge = spawn({
        let key = key.clone();
        move || key.texts.purge_all(Purge::Hard, key.start)
    });
    assert!(key.client().is_whole);
    join(vec![purge]);
    key.close();
}

#[test]
fn a_purge_costs_a_client_that_asks_nothing() {
    check(asked_during_a_purge);
}

/// A fetch has begun. Then two clients ask, a purge comes and the fetch ends, in any
/// order.
fn purged() {
    let key = Key::new(End::Whole, Duration::ZERO);
    let (first, mut guard) = key.missed();
    assert!(guard.begin());
    let fetch = key.fetch(guard, key.start);
    let purge = spawn({
        let key = key.clone();
        move || key.texts.purge_all(Purge::Hard, key.start)
    });
    let client = |key: Key| spawn(move || key.client());
    let others: Vec<_> = (0..2).map(|_| client(key.clone())).collect();

    let (seen, is_whole, reader) = read(first);
    assert!(is_whole, "a purge cuts no reader off");
    drop(reader);
    join(others);
    join(vec![fetch]);
    join(vec![purge]);

    // Kept before the purge or refused after it: either way it is gone.
    if let Found::Hit(reader, _) = key.ask(key.start) {
        assert_ne!(read(reader).0, seen, "it was kept despite the purge");
    }
    key.close();
}

#[test]
fn a_poem_purged_in_flight_is_read_and_never_kept() {
    check(purged);
}

/// Asks at this time, fetches if it has to, and reads. Returns the text, whether it is
/// whole, and how many fetches it started.
fn asks(key: &Key, now: Instant) -> JoinHandle<(String, bool, usize)> {
    let key = key.clone();
    spawn(move || {
        let (reader, guard) = match key.ask(now) {
            Found::Hit(reader, _) | Found::Joined(reader) | Found::Negative(reader) => {
                (reader, None)
            }
            Found::Ahead(..) => panic!("nothing is refreshed ahead"),
            Found::Stale(reader, guard) => (reader, guard),
            Found::Missed(reader, guard) => (reader, Some(guard)),
        };

        let fetches: Vec<_> = guard.into_iter().map(|g| key.fetch(g, now)).collect();
        let started = fetches.len();
        let (text, is_whole, _reader) = read(reader);
        join(fetches);
        (text, is_whole, started)
    })
}

/// A poem has become stale: two ask within its grace, and one after it.
fn expired(end: End) {
    let mut key = Key::new(End::Whole, HOUR);
    let (reader, guard) = key.missed();
    join(vec![key.fetch(guard, key.start)]);
    drop(reader);
    key.end = end;

    let times = [HOUR, HOUR, HOUR * 2].map(|later| key.start + later);
    let seen = join(times.map(|now| asks(&key, now)).into());
    assert!(seen[2].0 != text(0), "it was served beyond its grace");
    if end == End::Whole {
        assert!(seen.iter().all(|(_, is_whole, _)| *is_whole));
        let started: usize = seen.iter().map(|(_, _, started)| started).sum();
        assert!((1..=2).contains(&started), "{started} fetches");
    }
    key.close();
}

#[test]
fn a_stale_poem_is_refreshed_once_and_not_served_for_too_long() {
    check(|| expired(End::Whole));
}

#[test]
fn a_refresh_that_fails_leaves_the_stale_poem_for_its_grace() {
    check(|| expired(End::Fails));
}

/// A fetch that waits for its turn.
struct TestJob {
    guard: Guard,
    key: Key,
    threads: Threads,
}

/// The threads of the fetches that have started.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Threads {
    /// Joins all, and those that they start.
    fn join(&self) {
        loop {
            let next = self.0.lock().unwrap().pop();
            let Some(thread) = next else { return };
            join(vec![thread]);
        }
    }
}

impl Job for TestJob {
    fn is_refresh(&self) -> bool {
        self.guard.replaces().is_some()
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        self.guard.reserve_waiting(0)
    }

    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
        self.guard.on_interest(tell);
    }

    fn begin(&mut self) -> bool {
        self.guard.begin()
    }

    fn start(self, place: Place<TestJob>) -> Abort {
        let TestJob {
            guard,
            key,
            threads,
        } = self;
        let thread = spawn(move || {
            key.run(guard, key.start);
            drop(place);
        });
        threads.0.lock().unwrap().push(thread);
        Box::new(|| ())
    }
}

/// One place, which one key's fetch has, and before it the fetch of another key.
struct Queued {
    dispatch: Arc<Dispatch<TestJob>>,
    threads: Threads,
    key: Key,
    reader: Reader,
    _first: Reader,
}

fn queued() -> Queued {
    let dispatch = Dispatch::new(1, 10);
    let threads = Threads::default();
    let enter = |key: &Key| {
        let (reader, guard) = key.missed();
        let job = TestJob {
            guard,
            key: key.clone(),
            threads: threads.clone(),
        };
        assert!(dispatch.enter(job, key.start).is_ok());
        reader
    };

    let first = enter(&Key::new(End::Whole, Duration::ZERO));
    let key = Key::new(End::Whole, Duration::ZERO);
    let reader = enter(&key);
    Queued {
        dispatch,
        threads,
        key,
        reader,
        _first: first,
    }
}

impl Queued {
    /// The place is free again, and nothing waits or is held.
    fn close(self) {
        self.threads.join();
        drop(self.reader);
        assert_eq!((self.dispatch.waiting(), self.dispatch.running()), (0, 0));
        self.key.close();
    }
}

/// The last reader leaves a waiting fetch while its turn comes.
fn leaves_at_its_turn() {
    let mut queued = queued();
    let left = std::mem::replace(&mut queued.reader, Reader::of("".into()));
    join(vec![spawn(move || drop(left))]);
    queued.threads.join();

    // Begun, it went on to its end and is kept; otherwise its key is free.
    let begun = queued.key.fetches.load(Ordering::Relaxed);
    match queued.key.ask(queued.key.start) {
        Found::Hit(reader, _) => assert_eq!((begun, read(reader).0), (1, text(0))),
        Found::Missed(..) => assert_eq!(begun, 0),
        _ => panic!("its flight is still there"),
    }
    queued.close();
}

#[test]
fn a_fetch_left_at_its_turn_goes_on_or_frees_its_place_and_key() {
    check(leaves_at_its_turn);
}

/// A client joins a waiting fetch while its last reader leaves and its turn comes.
fn joins_the_last_leaver() {
    let mut queued = queued();
    let left = std::mem::replace(&mut queued.reader, Reader::of("".into()));
    let leaver = spawn(move || drop(left));
    let joiner = spawn({
        let key = queued.key.clone();
        let (dispatch, threads) = (queued.dispatch.clone(), queued.threads.clone());
        move || {
            let reader = match key.ask(key.start) {
                Found::Hit(reader, _) | Found::Joined(reader) | Found::Negative(reader) => reader,
                Found::Missed(reader, guard) => {
                    let key = key.clone();
                    let now = key.start;
                    let job = TestJob {
                        guard,
                        key,
                        threads,
                    };
                    assert!(dispatch.enter(job, now).is_ok());
                    reader
                }
                Found::Ahead(..) | Found::Stale(..) => panic!("nothing is stale"),
            };
            let (text, is_whole, _reader) = read(reader);
            (text, is_whole)
        }
    });

    let (seen, is_whole) = join(vec![joiner]).remove(0);
    join(vec![leaver]);
    assert!(is_whole && seen == text(0), "{seen:?}");
    assert_eq!(queued.key.fetches.load(Ordering::Relaxed), 1);
    queued.close();
}

#[test]
fn a_client_that_joins_as_the_last_reader_leaves_gets_it_all() {
    check(joins_the_last_leaver);
}

/// A fetch that ends only when it is aborted.
struct EndlessJob {
    guard: Guard,
    threads: Threads,
}

impl Job for EndlessJob {
    fn is_refresh(&self) -> bool {
        false
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        self.guard.reserve_waiting(0)
    }

    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
        self.guard.on_interest(tell);
    }

    fn begin(&mut self) -> bool {
        self.guard.begin()
    }

    fn start(self, place: Place<EndlessJob>) -> Abort {
        let (handle, registration) = AbortHandle::new_pair();
        let EndlessJob { guard, threads } = self;
        let thread = spawn(move || {
            let _aborted = block_on(Abortable::new(std::future::pending::<()>(), registration));
            drop(guard);
            drop(place);
        });
        threads.0.lock().unwrap().push(thread);
        Box::new(move || handle.abort())
    }
}

/// A fetch starts while another thread purges its key and its last reader leaves. An
/// abort that is lost leaves it hanging: a deadlock.
fn purged_at_its_start() {
    let key = Key::new(End::Whole, Duration::ZERO);
    let dispatch = Dispatch::new(1, 10);
    let threads = Threads::default();
    let (reader, guard) = key.missed();
    let job = EndlessJob {
        guard,
        threads: threads.clone(),
    };

    let purges = spawn({
        let key = key.clone();
        move || {
            key.texts.purge(&0, Purge::Hard, key.start);
        }
    });
    let leaves = spawn(move || drop(reader));
    assert!(dispatch.enter(job, key.start).is_ok());
    join(vec![purges, leaves]);

    // The first purge spares a fetch that has not begun.
    key.texts.purge(&0, Purge::Hard, key.start);
    threads.join();
    assert_eq!((dispatch.waiting(), dispatch.running()), (0, 0));
    key.close();
}

#[test]
fn a_fetch_purged_while_it_starts_is_aborted() {
    check(purged_at_its_start);
}

/// A fetch has begun. Then a client asks, its key alone is purged and refreshed by an
/// operator, and the fetch ends, in any order.
fn purged_alone() {
    let key = Key::new(End::Whole, Duration::ZERO);
    let (first, mut guard) = key.missed();
    assert!(guard.begin());
    let fetch = key.fetch(guard, key.start);
    let operator = spawn({
        let key = key.clone();
        move || {
            key.texts.purge(&0, Purge::Hard, key.start);
            if let Ok(guard) = key.texts.refresh(&0, key.start) {
                key.run(guard, key.start);
            }
        }
    });
    let client = spawn({
        let key = key.clone();
        move || key.client()
    });

    let (seen, is_whole, reader) = read(first);
    assert!(is_whole, "a purge cuts no reader off");
    drop(reader);
    join(vec![client]);
    join(vec![fetch, operator]);
    if let Found::Hit(reader, _) = key.ask(key.start) {
        assert_ne!(read(reader).0, seen, "it was kept despite the purge");
    }
    key.close();
}

#[test]
fn a_key_purged_and_refreshed_has_nothing_older() {
    check(purged_alone);
}

/// A poem longer than its window, which each piece fills: one reader leaves after a
/// part, the other stays.
fn narrow() {
    let (mut writer, stays) = flight::pipe(8);
    let mut leaves = writer.flight().join().expect("it has its beginning");
    let leaver = spawn(move || {
        block_on(leaves.ready());
        leaves.read();
    });
    let reader = spawn(move || {
        let (text, is_whole, _reader) = read(stays);
        (text, is_whole)
    });

    let mut pieces = 0..PIECES;
    let is_written = loop {
        if block_on(writer.writable()).is_err() {
            break false;
        }
        if pieces.next().is_none() {
            break true;
        }
        writer.append(PIECE.into());
    };
    if is_written {
        writer.finish(false);
    } else {
        writer.fail(Error::Abandoned);
    }

    join(vec![leaver]);
    let (text, is_whole) = join(vec![reader]).remove(0);
    let due = PIECE.repeat(PIECES);
    assert!(due.starts_with(&text));
    assert!(!is_whole || (is_written && text == due));
}

const PIECES: usize = 5;
const PIECE: &str = "of which ";

#[test]
fn a_full_window_goes_on_when_a_reader_reads_or_leaves() {
    check(narrow);
}

fn deserted() {
    let (writer, first) = flight::pipe(8);
    let second = writer.flight().join().expect("it has its beginning");
    let leave = |reader: Reader| spawn(move || drop(reader));
    let threads = vec![leave(first), leave(second)];
    block_on(writer.deserted());
    assert_eq!(writer.readers(), 0);
    join(threads);
}

#[test]
fn a_writer_learns_that_all_readers_have_left() {
    check(deserted);
}

/// Of a poem that is over, one reader takes all and another leaves.
fn pending() {
    let (mut writer, takes) = flight::pipe(1 << 10);
    let leaves = writer.flight().join().expect("it has its beginning");
    let pending = writer.pending_readers();
    let threads = vec![
        spawn(move || drop(read(takes))),
        spawn(move || drop(leaves)),
    ];

    writer.append(PIECE.into());
    writer.finish(false);
    block_on(pending.finished());
    pending.release();
    join(threads);
}

#[test]
fn no_reader_is_pending_once_all_have_read_or_left() {
    check(pending);
}

/// One permit: two threads wait for it, and one asks and does not wait.
fn semaphore() {
    let semaphore = Semaphore::new(1);
    let inside = Arc::new(AtomicUsize::new(0));
    let enters = || {
        let (semaphore, inside) = (semaphore.clone(), inside.clone());
        spawn(move || {
            let permit = block_on(semaphore.acquire(Instant::now()));
            let others = inside.fetch_add(1, Ordering::Relaxed);
            assert_eq!(others, 0, "two have the same permit");
            shuttle::thread::yield_now();
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        })
    };
    let asks = {
        let semaphore = semaphore.clone();
        spawn(move || drop(try_acquire(&semaphore)))
    };

    join(vec![enters(), enters(), asks]);
    assert_eq!(semaphore.oldest_waiter(), None);
    assert!(try_acquire(&semaphore).is_some(), "the permit was lost");
}

fn try_acquire(semaphore: &Semaphore) -> Option<poetry::semaphore::Permit> {
    futures::FutureExt::now_or_never(semaphore.acquire(Instant::now()))
}

#[test]
fn a_permit_is_never_lost_and_never_given_twice() {
    check(semaphore);
}
