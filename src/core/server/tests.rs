//! What only a broken system shows.

use super::*;
use crate::observe::{Class, Silent};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

pub(super) struct NoAnswers;

impl Handler for NoAnswers {
    fn respond(self: Arc<Self>, _: Request, _: Instant) -> Response {
        panic!("no request comes here")
    }

    fn reload(&self, _: Instant) -> Result<Reloaded, Error> {
        Ok(Reloaded::Nothing)
    }
}

/// A server of poems with one slot. Its clients may be stuck for a second.
pub(super) fn server() -> Arc<Server<NoAnswers>> {
    server_of(Protocol::Poem, Arc::new(Silent))
}

pub(super) fn server_of(protocol: Protocol, observer: Arc<dyn Observer>) -> Arc<Server<NoAnswers>> {
    let limits = Limits {
        max_clients: 1,
        max_half_closed: 1,
        client_timeout: Duration::from_secs(1),
        drain_timeout: Duration::ZERO,
    };
    let wire = Wire {
        protocol,
        longest_request: 0,
    };
    Server::new(Parts {
        handler: Arc::new(NoAnswers),
        wire,
        limits,
        admission: None,
        budget: Budget::new(0),
        observer,
        stats: Arc::default(),
    })
}

/// Waits for what the kernel does at once, or almost.
#[cfg(target_os = "linux")]
pub(super) fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// Ends a client's connection with a reset.
#[cfg(target_os = "linux")]
pub(super) fn reset(client: TcpStream) {
    let socket = socket2::SockRef::from(&client);
    let armed = socket.set_linger(Some(Duration::ZERO));
    armed.expect("it is open");
}

/// A connection with the one slot of the server, and its client.
pub(super) fn connection(server: &Arc<Server<NoAnswers>>) -> (Connection<NoAnswers>, TcpStream) {
    let (client, other_side) = Accepted::pair().expect("the loopback is there");
    server.stats.open.fetch_add(1, Ordering::Relaxed);
    let connection = Connection {
        server: server.clone(),
        peer: client.peer(),
        stream: client.register().expect("there is a reactor"),
        slot: server.slots.try_acquire().expect("it is free"),
        pass: Pass::uncounted(),
        accepted: Instant::now(),
    };
    (connection, other_side)
}

/// An answer of which nothing is sent.
pub(super) fn answer(client: Accepted, slot: Slot) -> Answer {
    Answer {
        client,
        slot,
        pass: Pass::uncounted(),
        asked: Asked::nothing(),
        status: CacheStatus::Stale,
        route: None,
        delivery: Delivery::new(Reader::of("poem".into())),
        accepted: Instant::now(),
    }
}

#[test]
fn what_was_sent_counts_although_the_reactor_takes_the_connection_no_more() {
    let server = server();
    let slot = server.slots.try_acquire();
    let client = Accepted::broken().expect("there is a file");
    let mut answer = answer(client, slot.expect("it is free"));
    answer.delivery.sent = 3;
    server.go_on(answer, 0);

    let stats = &server.stats;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&stats.failures), 1);
    assert_eq!(count(&stats.sent[Class::Failure as usize]), 3);
    assert_eq!(stats.waits().0[0], 1, "its answer had begun at once");
    assert_eq!(server.slots.held(), 0);
    assert_eq!(stats.open_now(), 0);
}

/// Counts the events.
#[derive(Default)]
struct Told(AtomicU64);

impl Observer for Told {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, _: Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_stop_that_waits_for_a_backlog_alone_tells_of_no_connection() {
    let told = Arc::new(Told::default());
    let server = server_of(Protocol::Poem, told.clone());
    let never = std::future::pending();

    rt::block_on(server.drain(never));

    assert_eq!(told.0.load(Ordering::Relaxed), 0);
}

/// What the records say of the waits.
#[derive(Default)]
struct Waits(Mutex<Vec<Duration>>);

impl Observer for Waits {
    fn request(&self, record: &AccessRecord<'_>) {
        self.0.lock().expect("no test panics").push(record.wait);
    }

    fn event(&self, _: Event<'_>) {}
}

#[test]
fn a_connection_without_a_byte_of_an_answer_has_waited_to_its_end() {
    let waits = Arc::new(Waits::default());
    let server = server_of(Protocol::Poem, waits.clone());
    let second = Duration::from_secs(1);
    let accepted = Instant::now() - second;

    for sent in [0, 3] {
        let begun = (CacheStatus::Miss, sent);
        server.record_cut(&Peer::Unix, Outcome::Left, begun, accepted);
    }

    let waits = waits.0.lock().expect("no test panics");
    assert!(waits[0] >= second);
    assert_eq!(waits[1], Duration::ZERO, "its answer began at once");
}
