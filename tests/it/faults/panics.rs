//! Bugs of our own: a panic ends what it is in, by a reset, and nothing else.

use crate::bard::{Bard, Client, LIMITS, Running, settings};
use bytes::Bytes;
use poetry::error::Error;
use poetry::flight::Reader;
use poetry::handler::proxy::{Proxy, ProxySettings};
use poetry::protocol::Protocol;
use poetry::server::{Handler, Response};
use poetry::stats::{AccessRecord, CacheStatus, Event, Observer};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const RESET: Result<Vec<u8>, ErrorKind> = Err(ErrorKind::ConnectionReset);

/// Panics once in a fetch's task, as a bug of ours would: when it is armed and the fetch comes to this point.
#[derive(Default)]
struct Trap {
    armed: AtomicBool,
    at_the_end: bool,
}

impl Trap {
    fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }

    fn is_sprung(&self) -> bool {
        self.armed.swap(false, Ordering::AcqRel)
    }
}

impl Observer for Trap {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn notice(&self, notice: Event<'_>) {
        let here = match notice {
            Event::Fetching(_) => !self.at_the_end,
            Event::FetchFailed(..) => self.at_the_end,
            _ => false,
        };
        if here && self.is_sprung() {
            panic!("a bug, on purpose: it is part of a test");
        }
    }
}

fn proxy(bard: &Bard, trap: &Arc<Trap>) -> Running {
    let settings = ProxySettings {
        protocol: Protocol::Line,
        ..settings(bard)
    };
    Running::start(LIMITS, |stats| Proxy::new(settings, trap.clone(), stats))
}

#[test]
fn a_fetch_that_panics_fails_its_readers_and_every_other_key_lives_on() {
    let (bard, trap) = (Bard::new(), Arc::new(Trap::default()));
    let proxy = proxy(&bard, &trap);
    let mut other = proxy.connect();
    other.say(b"other\n");
    let call = bard.call().try_recv(7).0.say(b"half ");
    assert_eq!(other.take(5), b"half ");
    trap.arm();
    assert_eq!(Client::ask(proxy.addr, b"name\n"), RESET);
    call.say(b"whole").finish();
    assert_eq!(other.rest().unwrap(), b"whole");
    let mut client = proxy.connect();
    client.say(b"name\n");
    bard.call().try_recv(6).0.say(b"poem").finish();
    assert_eq!(client.rest().unwrap(), b"poem", "the key is free again");
    assert_eq!(Client::ask(proxy.addr, b"name\n").unwrap(), b"poem");
    proxy.open(0);
}

#[test]
fn a_panic_in_mid_poem_is_a_reset_for_all_who_have_a_part() {
    let (bard, trap) = (
        Bard::new(),
        Arc::new(Trap {
            at_the_end: true,
            ..Trap::default()
        }),
    );
    let proxy = proxy(&bard, &trap);
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| client.say(b"name\n"));
    let call = bard.call().try_recv(6).0.say(b"half");
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.take(4), b"half"));
    trap.arm();
    call.reset();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest(), RESET));
    assert!(!trap.is_sprung(), "it was the panic that ended it");
    proxy.open(0);
}

/// Panics at its first request.
struct Stumbling {
    protocol: Protocol,
    has_stumbled: AtomicBool,
}

impl Stumbling {
    fn server(protocol: Protocol) -> Running {
        Running::start(LIMITS, |_| {
            Arc::new(Stumbling {
                protocol,
                has_stumbled: false.into(),
            })
        })
    }
}

impl Handler for Stumbling {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn request_limit(&self) -> u64 {
        100
    }

    fn reload(&self) -> Result<&'static str, Error> {
        Ok("nothing to do")
    }

    fn answer(self: Arc<Self>, _: Bytes, _: Instant) -> Response {
        if !self.has_stumbled.swap(true, Ordering::AcqRel) {
            panic!("a bug, on purpose: it is part of a test");
        }
        Response {
            reader: Reader::of("poem".into()),
            how: CacheStatus::Own,
        }
    }
}

#[test]
fn a_panic_at_the_door_costs_one_client_and_not_the_server() {
    let server = Stumbling::server(Protocol::Poem);
    assert_eq!(server.ask(), RESET);
    assert_eq!(server.ask().unwrap(), b"poem");
    server.open(0);
}

#[test]
fn a_panic_in_a_connections_task_costs_that_client_and_gives_its_place_back() {
    for (protocol, request) in [
        (Protocol::Line, &b"name\n"[..]),
        (Protocol::Netstring, b"3:a.B,"),
    ] {
        let server = Stumbling::server(protocol);
        assert_eq!(Client::ask(server.addr, request), RESET);
        assert_eq!(Client::ask(server.addr, request).unwrap(), b"poem");
        server.open(0);
    }
}
