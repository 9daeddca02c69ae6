//! Which clients may come in, and what the others get. Clients have the addresses of
//! the loopback, 127.0.0.1 and so on.

mod flags;
mod header;
mod told;
mod turns;

use crate::support::{
    Client, FakeUpstream, Folder, RESET, Service, count, proxy, serve, wait_for_count,
};
use poetry::observe::{AccessRecord, Event, Observer};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

const POEM: [u8; 700] = [b'x'; 700];

/// The numbers of refused connections: denied, per address, by rate.
fn refused(service: &Service) -> [u64; 3] {
    service.stats.refused.each_ref().map(count)
}

/// What a client of this address gets in the poem protocol. A reset may overtake its
/// connecting.
fn get_from(local: &str, service: &Service) -> Result<Vec<u8>, ErrorKind> {
    Client::try_connect_from(local, service.addr)?.rest()
}

#[test]
fn a_denied_client_is_reset_and_a_hit_still_takes_no_task() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).deny(&["127.0.0.2"]).max_per_address(500);
    let builder = builder.client_rate("1000000/s,burst=2000");
    let proxy = builder.start_with(&upstream, &POEM);
    proxy.wait_for_open(0);

    for _ in 0..1000 {
        assert_eq!(proxy.get().unwrap(), POEM);
        assert_eq!(get_from("127.0.0.2", &proxy), RESET);
    }

    wait_for_count("hits", &proxy.stats.hits, 1000);
    assert_eq!(count(&proxy.stats.tasks), 1, "the miss's alone");
    assert_eq!(count(&proxy.stats.fetches), 1);
    assert_eq!(refused(&proxy), [1000, 0, 0]);
    assert_eq!(count(&proxy.stats.failures), 0, "they are in no class");
}

#[test]
fn with_an_allow_list_only_those_come_in() {
    let server = serve(&[b"poem"]).allow(&["127.0.0.0/30"]).start();
    for (local, is_allowed) in [
        ("127.0.0.1", true),
        ("127.0.0.3", true),
        ("127.0.0.4", false),
        ("127.1.0.1", false),
    ] {
        let got = get_from(local, &server);
        assert_eq!(got.is_ok(), is_allowed, "{local}");
    }
    assert_eq!(refused(&server), [2, 0, 0]);
}

#[test]
fn a_client_has_as_many_connections_as_it_may() {
    let server = serve(&[b"poem"]).line().max_per_address(2).start();
    let first = server.connect();
    let second = server.connect();
    server.wait_for_open(2);
    assert_eq!(get_from("127.0.0.1", &server), RESET);
    assert_eq!(refused(&server), [0, 1, 0]);

    let mut other = Client::connect_from("127.0.0.2", server.addr);
    other.send(b"0\r\n");
    assert_eq!(other.rest().unwrap(), b"poem");

    first.reset();
    server.wait_for_open(1);
    for _ in 0..100 {
        assert_eq!(server.ask(b"0\r\n").unwrap(), b"poem");
    }
    drop(second);
    assert_eq!(refused(&server), [0, 1, 0]);
}

#[test]
fn a_client_connects_as_often_as_its_rate_says() {
    let builder = serve(&[b"poem"]).client_rate("3/h,burst=3");
    let server = builder.start();
    for _ in 0..3 {
        assert_eq!(server.get().unwrap(), b"poem");
    }
    for _ in 0..100 {
        assert_eq!(get_from("127.0.0.1", &server), RESET);
    }
    assert_eq!(get_from("127.0.0.2", &server).unwrap(), b"poem");
    assert_eq!(refused(&server), [0, 0, 100]);
}

#[test]
fn a_unix_socket_is_never_refused() {
    let folder = Folder::new();
    let at = format!("unix:{}", folder.arg("socket"));
    let builder = serve(&[b"poem"]).listen(&at);
    let builder = builder.deny(&["0.0.0.0/0", "::/0"]).allow(&[]);
    let server = builder.client_rate("1/d").start();

    for _ in 0..10 {
        let mut text = Vec::new();
        let mut client = UnixStream::connect(folder.path("socket")).unwrap();
        client.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"poem");
    }
    assert_eq!(refused(&server), [0, 0, 0]);
}

#[test]
fn a_thousand_addresses_each_have_their_own_limits() {
    let builder = serve(&[b"poem"]).max_per_address(1);
    let server = builder.client_rate("1/h").start();
    for number in 0..1000 {
        let local = format!("127.1.{}.{}", number / 250, number % 250 + 1);
        assert_eq!(get_from(&local, &server).unwrap(), b"poem", "{local}");
    }
    assert_eq!(get_from("127.1.0.1", &server), RESET);
    assert_eq!(refused(&server), [0, 0, 1]);
}

/// Notes the refusals that are told: why, and how many.
#[derive(Default)]
struct Refusals(Mutex<Vec<(String, u64)>>);

impl Observer for Refusals {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        if let Event::ClientsRefused { why, count, .. } = event {
            self.0.lock().unwrap().push((why.to_string(), count));
        }
    }
}

#[test]
fn of_many_refusals_the_first_is_told() {
    let refusals = Arc::new(Refusals::default());
    let builder = serve(&[b"poem"]).deny(&["127.0.0.2"]).client_rate("1/h");
    let server = builder.server_observer(refusals.clone()).start();

    server.get().unwrap();
    for _ in 0..50 {
        assert_eq!(get_from("127.0.0.1", &server), RESET);
        assert_eq!(get_from("127.0.0.2", &server), RESET);
    }
    let mut told = refusals.0.lock().unwrap().clone();
    told.sort();
    assert_eq!(told, [("denied".into(), 1), ("rate".into(), 1)]);
}
