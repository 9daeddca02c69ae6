//! The real locks of the cache, the flights and the gate under a scheduler that decides at each of them who goes on.
//!
//! ```text
//! cargo test --locked --features shuttle --test interleavings
//! ```
//!
//! `tests/it/model.rs` tries every order of whole acts; here they are cut at their locks. Each scenario runs some
//! thousand times, at random and with few, well placed switches (PCT). One who waits for ever is a deadlock to the
//! scheduler, and fails the test. A failure prints its schedule, lines of hexadecimal digits; to see it again:
//!
//! ```text
//! SCHEDULE='91...' cargo test --locked --features shuttle --test interleavings NAME_OF_THE_TEST
//! ```

use poetry::cache::{Cache, Fill, Lookup, Policy};
use poetry::error::Error;
use poetry::flight::{Flight, Read, Reader, Writer, launch};
use poetry::poem::Poem;
use poetry::semaphore::Semaphore;
use shuttle::future::block_on;
use shuttle::thread::{JoinHandle, spawn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
/// The rounds of one scenario with each of the two schedulers: together a few seconds in a debug build.
const ROUNDS: usize = 1000;
/// As many places where the order matters are known to be enough for most faults that were ever found like this.
const SWITCHES: usize = 3;

fn check(scenario: fn()) {
    if let Ok(schedule) = std::env::var("SCHEDULE") {
        return shuttle::replay(scenario, &schedule);
    }
    shuttle::check_random(scenario, ROUNDS);
    shuttle::check_pct(scenario, ROUNDS, SWITCHES);
}

/// How a fetch ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Whole,
    Fails,
    IsDropped,
    /// What the house rules forbid: the readers are told, and then the poem is kept.
    ToldTooSoon,
}

/// A flight and its number, which its text begins with.
type Numbered = (usize, Flight);
type Lead = poetry::cache::Lead<u8, Poem, Numbered, Writer>;

/// What the proxy's fetch holds, in the order in which it is to be dropped.
struct FlightGuard {
    fill: Fill<u8, Poem, Numbered>,
    writer: Writer,
}

/// A cache of one key, and how many flights it has seen.
#[derive(Clone)]
struct Key {
    cache: Arc<Cache<u8, Poem, Numbered>>,
    /// The scheduler need not know of it: it is no part of what is tested.
    flights: Arc<AtomicUsize>,
    start: Instant,
    end: End,
}

/// What a client was told, of which flight where it was one that it joined, and after which text.
struct Outcome {
    flight: Option<usize>,
    text: String,
    whole: bool,
    /// What it was told when it asked again: the text of a hit.
    again: Option<String>,
}

fn text(flight: usize) -> String {
    format!("{flight} was, and was not.")
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
            cache: Cache::new(policy),
            flights: Arc::default(),
            start: Instant::now(),
            end,
        }
    }

    fn ask(&self, now: Instant) -> Lookup<u8, Poem, Numbered, Writer> {
        self.cache.lookup(&0, now, || {
            let (writer, flight) = launch(1 << 10);
            (
                writer,
                (self.flights.fetch_add(1, Ordering::Relaxed), flight),
            )
        })
    }

    /// The fetch's task: three pieces, the last with the end.
    fn fly(&self, lead: Lead, now: Instant) -> JoinHandle<()> {
        let (key, number) = (self.clone(), lead.flight.0);
        let mut landing = FlightGuard {
            fill: lead.fill,
            writer: lead.writer,
        };
        spawn(move || {
            let text = text(number);
            let (first, rest) = text.split_at(5);
            assert!(landing.fill.reserve(text.len() as u64));
            landing.writer.append(first.to_string().into());
            let (second, last) = rest.split_at(5);
            landing.writer.append(second.to_string().into());
            landing.writer.append_end(last.to_string().into());
            key.end(landing, now);
        })
    }

    /// As the proxy's `FlightGuard` does it.
    fn end(&self, landing: FlightGuard, now: Instant) {
        let FlightGuard { fill, mut writer } = landing;
        match self.end {
            End::Whole => {
                writer.finish(|poem| {
                    let (bytes, mut counted) = (poem.len(), None);
                    let kept = fill.commit_with(
                        |room| poem.with(counted.insert(room).clone()),
                        bytes,
                        now,
                    );
                    kept.map(|()| counted)
                });
            }
            End::Fails => {
                writer.attach(fill.fail(now));
                writer.fail(Error::Abandoned);
            }
            End::IsDropped => drop(FlightGuard { fill, writer }),
            End::ToldTooSoon => {
                let poem = writer.so_far().expect("it fits the window");
                writer.finish_unkept();
                let bytes = poem.len();
                drop(fill.commit(poem, bytes, now));
            }
        }
    }

    /// One client: asks, reads to the end, and asks again.
    fn client(&self) -> Outcome {
        let mut fetch = None;
        let (flight, reader) = match self.ask(self.start) {
            Lookup::Hit(poem, _) => (None, Reader::of(poem)),
            Lookup::Coalesced((number, flight)) => {
                (Some(number), flight.join().expect("it fits the window"))
            }
            Lookup::Miss(lead) => {
                let joined = (
                    Some(lead.flight.0),
                    lead.flight.1.join().expect("it was just launched"),
                );
                fetch = Some(self.fly(lead, self.start));
                joined
            }
            Lookup::Stale(..) => panic!("no time has passed"),
        };
        let (text, whole) = read(reader);
        let outcome = Outcome {
            flight,
            text,
            whole,
            again: self.ask_again(flight),
        };
        outcome.check();
        join(fetch.into_iter().collect());
        outcome
    }

    /// Who has read to the end asks again. A lead that it may get is dropped, as by a fetch that dies at once.
    fn ask_again(&self, before: Option<usize>) -> Option<String> {
        match self.ask(self.start) {
            Lookup::Hit(poem, _) => Some(String::from_utf8_lossy(&poem.bytes()).into_owned()),
            Lookup::Coalesced((number, _)) => {
                assert_ne!(
                    Some(number),
                    before,
                    "the flight is over, and is not joined again"
                );
                None
            }
            Lookup::Miss(_) => None,
            Lookup::Stale(..) => panic!("no time has passed"),
        }
    }

    /// When all have gone there is nothing left.
    fn close(&self) {
        self.cache.purge();
        assert_eq!((self.cache.len(), self.cache.held()), (0, 0));
    }
}

impl Outcome {
    /// Whole or a beginning, and always of the flight that was joined.
    fn check(&self) {
        let number = self.flight.or(self
            .text
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok()));
        let due = number.map(text).unwrap_or_default();
        assert!(
            due.starts_with(&self.text),
            "{:?} is no beginning of {due:?}",
            self.text
        );
        assert!(
            !self.whole || (due == self.text && !due.is_empty()),
            "{:?} was told to be whole",
            self.text
        );
    }
}

fn read(mut reader: Reader) -> (String, bool) {
    let mut text = String::new();
    loop {
        match reader.read() {
            Read::Chunk(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Read::Pending => block_on(reader.ready()),
            last => return (text, matches!(last, Read::End)),
        }
    }
}

fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads
        .into_iter()
        .map(|thread| thread.join().expect("it has not panicked"))
        .collect()
}

/// Three clients ask for the same, whose fetch ends like this.
fn three_clients(end: End) -> (Key, Vec<Outcome>) {
    let key = Key::new(end, Duration::ZERO);
    let threads = (0..3)
        .map(|_| key.clone())
        .map(|key| spawn(move || key.client()));
    let seen = join(threads.collect());
    (key, seen)
}

fn whole() {
    let (key, seen) = three_clients(End::Whole);
    for Outcome {
        text: seen,
        whole,
        again,
        ..
    } in seen
    {
        assert!(whole && seen == text(0));
        assert_eq!(
            again,
            Some(text(0)),
            "who has read to the end and asks again finds it kept"
        );
    }
    assert_eq!(key.flights.load(Ordering::Relaxed), 1, "one fetch for all");
    key.close();
}

#[test]
fn three_clients_cost_one_fetch_and_find_it_kept_when_they_ask_again() {
    check(whole);
}

fn failing(end: End) {
    let (key, seen) = three_clients(end);
    assert!(
        seen.iter()
            .all(|client| !client.whole && client.again.is_none())
    );
    assert_eq!(
        (key.cache.len(), key.cache.held()),
        (0, 0),
        "what failed leaves nothing"
    );
}

#[test]
fn a_failure_is_told_to_all_and_its_flight_is_joined_by_nobody_who_was_told() {
    check(|| failing(End::Fails));
}

#[test]
fn a_fetch_that_is_dropped_has_failed_for_all() {
    check(|| failing(End::IsDropped));
}

#[test]
#[should_panic(expected = "the flight is over")]
fn a_poem_that_is_kept_too_late_would_be_noticed() {
    check(|| {
        let (key, _) = three_clients(End::ToldTooSoon);
        key.close();
    });
}

/// The fetch is aloft, and then two read, one purges and one ends it, in any order.
fn purged() {
    let key = Key::new(End::Whole, Duration::ZERO);
    let Lookup::Miss(lead) = key.ask(key.start) else {
        panic!("nothing is kept yet")
    };
    let first = lead.flight.1.join().expect("it was just launched");
    let fetch = key.fly(lead, key.start);
    let purge = spawn({
        let key = key.clone();
        move || key.cache.purge()
    });
    let others = (0..2)
        .map(|_| key.clone())
        .map(|key| spawn(move || key.client()));
    let others: Vec<_> = others.collect();
    assert_eq!(read(first), (text(0), true), "a purge cuts nobody off");
    join(others);
    join(vec![fetch, purge]);
    // Kept before the purge or refused after it: either way it is gone.
    if let Lookup::Hit(poem, _) = key.ask(key.start) {
        assert_ne!(poem.bytes(), text(0), "it was kept in spite of the purge");
    }
    key.close();
}

#[test]
fn a_poem_that_is_purged_while_it_flies_is_read_and_never_kept() {
    check(purged);
}

/// Asks at this time and reads what there is; the fetch that this may begin ends before.
fn asks(key: &Key, now: Instant) -> JoinHandle<(String, bool, usize)> {
    let key = key.clone();
    spawn(move || {
        let (reader, lead) = match key.ask(now) {
            Lookup::Hit(poem, _) => (Reader::of(poem), None),
            Lookup::Stale(poem, lead) => (Reader::of(poem), lead),
            Lookup::Coalesced((_, flight)) => (flight.join().expect("it fits the window"), None),
            Lookup::Miss(lead) => (
                lead.flight.1.join().expect("it was just launched"),
                Some(lead),
            ),
        };
        let fetches: Vec<_> = lead.into_iter().map(|lead| key.fly(lead, now)).collect();
        let (leads, (text, whole)) = (fetches.len(), read(reader));
        join(fetches);
        (text, whole, leads)
    })
}

/// A poem has become stale: two ask within its grace, and one after it.
fn expired(end: End) {
    let mut key = Key::new(End::Whole, HOUR);
    let Lookup::Miss(lead) = key.ask(key.start) else {
        panic!("nothing is kept yet")
    };
    join(vec![key.fly(lead, key.start)]);
    key.end = end;
    let times = [HOUR, HOUR, HOUR * 2].map(|later| key.start + later);
    let seen = join(times.map(|now| asks(&key, now)).into());
    assert!(seen[2].0 != text(0), "it was served beyond its grace");
    if end == End::Whole {
        assert!(seen.iter().all(|(_, whole, _)| *whole));
        let leads: usize = seen.iter().map(|(_, _, leads)| leads).sum();
        assert!(
            (1..=2).contains(&leads),
            "one refresh for the two, and one for the later one at most"
        );
    }
    key.close();
}

#[test]
fn a_stale_poem_is_refreshed_once_and_not_served_beyond_its_grace() {
    check(|| expired(End::Whole));
}

#[test]
fn a_refresh_that_fails_leaves_the_stale_poem_to_those_within_its_grace() {
    check(|| expired(End::Fails));
}

/// A poem longer than its window, which each piece fills: one reader leaves after a part, the other stays.
fn narrow() {
    let (mut writer, flight) = launch(8);
    let [mut leaves, stays] = [(); 2].map(|()| flight.join().expect("it has its beginning"));
    let leaver = spawn(move || {
        block_on(leaves.ready());
        leaves.read();
    });
    let reader = spawn(move || read(stays));
    let mut pieces = 0..PIECES;
    let end = loop {
        match block_on(writer.writable()) {
            Err(error) => break Err(error),
            Ok(()) if pieces.next().is_none() => break Ok(()),
            Ok(()) => writer.append(PIECE.into()),
        }
    };
    match end.clone() {
        Ok(()) => writer.finish_unkept(),
        Err(error) => writer.fail(error),
    }
    join(vec![leaver]);
    let (text, whole) = join(vec![reader]).remove(0);
    let due = PIECE.repeat(PIECES);
    assert!(due.starts_with(&text));
    assert!(!whole || (end.is_ok() && text == due));
}

const PIECES: usize = 5;
const PIECE: &str = "of which ";

#[test]
fn a_writer_without_room_is_woken_by_who_reads_and_by_who_leaves() {
    check(narrow);
}

fn deserted() {
    let (writer, flight) = launch(8);
    let readers = [(); 2].map(|()| flight.join().expect("it has its beginning"));
    let threads = readers
        .into_iter()
        .map(|reader| spawn(move || drop(reader)))
        .collect();
    block_on(writer.deserted());
    assert_eq!(writer.readers(), 0);
    join(threads);
}

#[test]
fn a_writer_learns_that_everybody_has_left() {
    check(deserted);
}

/// Of a poem that is over, one takes all and another leaves.
fn watched() {
    let (mut writer, flight) = launch(1 << 10);
    let [takes, leaves] = [(); 2].map(|()| flight.join().expect("it has its beginning"));
    let watch = writer.pending_readers();
    let threads = vec![
        spawn(move || drop(read(takes))),
        spawn(move || drop(leaves)),
    ];
    writer.append(PIECE.into());
    writer.finish_unkept();
    block_on(watch.done());
    watch.let_go();
    join(threads);
}

#[test]
fn a_watch_ends_when_everybody_has_all_or_has_left() {
    check(watched);
}

/// One place: two want it to the end, and one asks and does not wait.
fn semaphore() {
    let semaphore = Semaphore::new(1);
    let inside = Arc::new(AtomicUsize::new(0));
    let enters = || {
        let (semaphore, inside) = (semaphore.clone(), inside.clone());
        spawn(move || {
            let permit = block_on(semaphore.acquire(Instant::now()));
            assert_eq!(
                inside.fetch_add(1, Ordering::Relaxed),
                0,
                "two are in the same permit"
            );
            shuttle::thread::yield_now();
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        })
    };
    let threads = vec![enters(), enters(), {
        let semaphore = semaphore.clone();
        spawn(move || {
            drop(futures::FutureExt::now_or_never(
                semaphore.acquire(Instant::now()),
            ))
        })
    }];
    join(threads);
    assert_eq!(semaphore.oldest_waiter(), None);
    assert!(
        futures::FutureExt::now_or_never(semaphore.acquire(Instant::now())).is_some(),
        "the permit was lost"
    );
}

#[test]
fn a_place_is_never_lost_and_never_given_twice() {
    check(semaphore);
}
