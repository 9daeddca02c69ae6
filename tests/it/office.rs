//! An office whose people look up names at three registries, each with a quota, and
//! each of which bans for ever. The registries are never asked too often, every answer
//! is right, and operators can see why something waits.
//!
//! The short office is part of the suite. The long one has the quota of real registries
//! and takes ten minutes:
//! `cargo test --test it office::the_long -- --ignored --nocapture`.

use crate::support::{
    Client, Connection, FakeUpstream, LONG, Operators, RESET, Service, count, proxy, request,
    wait_until,
};
use poetry::handler::proxy::RouteSettings;
use poetry::observe::{AccessRecord, Event, Observer};
use poetry::upstream::Origin;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, Instant};

/// What the names of each registry end in.
const REGISTRIES: [&str; 3] = ["a", "b", "c"];

/// A request: `name0123.a`, and the end of the line.
const REQUEST_BYTES: usize = 12;

#[derive(Clone, Copy)]
struct Office {
    clients: usize,
    /// Of each client.
    look_ups: usize,
    names: usize,
    /// What each registry allows in its window.
    quota: usize,
    window: Duration,
    /// What the proxy is told of that.
    rate: &'static str,
    /// From one look-up of a client to its next.
    pace: Duration,
    /// How long a client waits for an answer.
    patience: Duration,
}

/// What a registry has seen.
#[derive(Default)]
struct Ledger {
    asked: AtomicUsize,
    /// The most requests in a window.
    most: AtomicUsize,
    refused: AtomicUsize,
}

/// Counts what is logged of fetches that wait.
#[derive(Default)]
struct Delays(AtomicU64);

impl Observer for Delays {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::FetchDelayed { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What became of a client's look-ups.
#[derive(Default, Debug)]
struct Outcomes {
    right: usize,
    reset: usize,
    longest: Duration,
}

impl Office {
    /// Opens a registry.
    fn open(self, upstream: FakeUpstream) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger::default());
        let (own, times) = (ledger.clone(), Mutex::new(VecDeque::new()));
        upstream.serve_each(move |_, connection| {
            let (connection, name) = connection.read(REQUEST_BYTES);
            own.asked.fetch_add(1, Ordering::AcqRel);
            let in_window = self.note(&mut times.lock().unwrap());
            own.most.fetch_max(in_window, Ordering::AcqRel);

            let is_banned = own.most.load(Ordering::Acquire) > self.quota;
            let answer = if is_banned {
                own.refused.fetch_add(1, Ordering::AcqRel);
                b"% you are banned".to_vec()
            } else {
                answer(&name)
            };
            reply(connection, &answer);
        });
        ledger
    }

    /// Notes a request. Returns how many there were in the window that ends now.
    fn note(self, times: &mut VecDeque<Instant>) -> usize {
        let now = Instant::now();
        times.push_back(now);
        while times
            .front()
            .is_some_and(|first| now - *first >= self.window)
        {
            times.pop_front();
        }
        times.len()
    }

    /// One client's look-ups, one after the other.
    fn client(self, client: usize, proxy: SocketAddr) -> JoinHandle<Outcomes> {
        let begin = Instant::now();
        spawn(move || {
            let mut outcomes = Outcomes::default();
            for at in 0..self.look_ups {
                // One look-up after the other, of all clients, and each name soon: the
                // registries can't keep up for a while.
                let turn = at * self.clients + client;
                let due = begin + self.pace * turn as u32 / self.clients as u32;
                while Instant::now() < due {
                    park_timeout(due.saturating_duration_since(Instant::now()));
                }
                let number = turn % self.names;
                self.look_up(number, proxy, &mut outcomes);
            }
            outcomes
        })
    }

    fn look_up(self, number: usize, proxy: SocketAddr, outcomes: &mut Outcomes) {
        let asked = Instant::now();
        let registry = REGISTRIES[number % REGISTRIES.len()];
        let name = format!("name{number:04}.{registry}\r\n");
        let mut client = Client::connect(proxy);
        client.set_patience(self.patience);
        client.send(name.as_bytes());

        match client.rest() {
            Ok(text) if text == answer(name.as_bytes()) => outcomes.right += 1,
            RESET => outcomes.reset += 1,
            other => panic!("{name:?}: {other:?}"),
        }
        outcomes.longest = outcomes.longest.max(asked.elapsed());
    }

    /// A day at the office.
    fn run(self) -> Report {
        let upstreams = REGISTRIES.map(|_| FakeUpstream::new());
        let routes = REGISTRIES.iter().zip(&upstreams);
        let routes: Vec<_> = routes
            .map(|(name, upstream)| route(name, upstream, self.rate))
            .collect();
        let delays = Arc::new(Delays::default());

        let rest = FakeUpstream::new();
        let builder = proxy(&rest).line().reject("^% you are banned");
        let builder = builder.fetch_timeout(self.patience).routes(routes);
        let proxy = builder.observer(delays.clone()).start();
        let ledgers = upstreams.map(|upstream| self.open(upstream));

        let clients: Vec<_> = (0..self.clients)
            .map(|client| self.client(client, proxy.addr))
            .collect();
        wait_until("a fetch waits for its turn", || {
            proxy.snapshot().fetches.unwrap().rate_waits > 0
        });
        if self.pace > Duration::ZERO {
            wait_until("/status says what is waited for", || {
                let reasons = status(&proxy)["health"]["reasons"].to_string();
                reasons.contains("wait for --upstream-rate, the first for")
            });
        }
        Report {
            outcomes: clients.into_iter().map(|it| it.join().unwrap()).collect(),
            asked_the_rest: rest.connections(),
            proxy,
            ledgers,
            delays: count(&delays.0),
        }
    }
}

/// What there was in the end.
struct Report {
    outcomes: Vec<Outcomes>,
    proxy: Service,
    ledgers: [Arc<Ledger>; REGISTRIES.len()],
    asked_the_rest: usize,
    /// Lines in the log about fetches that wait.
    delays: u64,
}

impl Report {
    fn check(&self, office: Office) {
        let right: usize = self.outcomes.iter().map(|of| of.right).sum();
        let reset: usize = self.outcomes.iter().map(|of| of.reset).sum();
        let longest = self.outcomes.iter().map(|of| of.longest).max();
        eprintln!("{right} right, {reset} reset, the longest wait {longest:?}");

        for ledger in &self.ledgers {
            let asked = ledger.asked.load(Ordering::Acquire);
            let most = ledger.most.load(Ordering::Acquire);
            eprintln!("asked {asked} times, at most {most} in a window");
            assert!(most <= office.quota, "{most}");
            assert_eq!(ledger.refused.load(Ordering::Acquire), 0);
            assert_eq!(asked, office.names / REGISTRIES.len(), "each name once");
        }
        let waits = status(&self.proxy)["queue"]["rate_waits"].as_u64();
        assert!(waits.unwrap() > 0);
        assert_eq!(self.asked_the_rest, 0);
        assert_eq!(right, office.clients * office.look_ups);
        assert!(self.delays > 0);
    }
}

/// The names that end like this are this registry's.
fn route(name: &str, upstream: &FakeUpstream, rate: &str) -> RouteSettings {
    let pattern = format!("*.{name}").parse().unwrap();
    let origin = Origin::Server(upstream.addr.into());
    RouteSettings {
        rate: Some(rate.parse().unwrap()),
        ..RouteSettings::new(pattern, "a test".into(), vec![Arc::new(origin)])
    }
}

/// What an operator is told.
fn status(proxy: &Service) -> serde_json::Value {
    request(Operators::healthy(proxy).loopback, "GET /status").json()
}

fn answer(asked: &[u8]) -> Vec<u8> {
    [b"domain: ", asked, &[b'x'; 900]].concat()
}

fn reply(connection: Connection, answer: &[u8]) {
    connection.try_send(answer).close();
}

#[test]
fn an_office_is_never_banned_and_every_answer_is_right() {
    let office = Office {
        clients: 20,
        look_ups: 25,
        names: 60,
        // More than the rate: this machine may be busy with other tests.
        quota: 10,
        window: Duration::from_secs(2),
        rate: "4/s",
        pace: Duration::ZERO,
        patience: LONG,
    };
    office.run().check(office);
}

#[test]
#[ignore = "takes ten minutes"]
fn the_long_office_has_the_quota_of_real_registries() {
    let minute = Duration::from_secs(60);
    let office = Office {
        clients: 200,
        look_ups: 25,
        names: 600,
        quota: 30,
        window: minute,
        rate: "30/min",
        pace: minute * 10 / 25,
        patience: minute * 10,
    };
    office.run().check(office);
}
