//! Connections to the upstream are few: fetches take turns, and slow readers of a long
//! poem may not keep the others waiting.

use crate::support::{
    Client, FakeUpstream, HOUR, RESET, SHORT, Service, proxy, text, wait_for_count,
};
use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, Instant};

#[test]
fn a_hundred_clients_of_twenty_names_share_two_connections() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().upstream_conns(2).start();

    let ask = |at: usize| {
        let name = format!("name{:02}", at % 20);
        let client = proxy.request(format!("{name}\r\n").as_bytes());
        (name, client)
    };
    let clients: Vec<(String, Client)> = (0..100).map(ask).collect();
    proxy.wait_for_open(100);

    let open = Arc::new(AtomicUsize::new(0));
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let connection = upstream.accept();
            most.fetch_max(open.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);

            let open = open.clone();
            scope.spawn(move || {
                let (connection, name) = connection.read(8);
                // Before the end is sent: the next connection may come before this
                // thread runs on.
                open.fetch_sub(1, Ordering::AcqRel);
                connection.send(b"the poem of ").send(&name[..6]).close();
            });
        }
    });

    for (name, mut client) in clients {
        let poem = text(&client.rest().unwrap());
        assert_eq!(poem, format!("the poem of {name}"));
    }
    assert_eq!(upstream.connections(), 20);
    assert!(most.load(Ordering::Acquire) <= 2);
}

#[test]
fn a_fetch_that_waits_for_its_turn_has_its_own_deadline() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.fetch_timeout(SHORT).start();

    let mut first = proxy.request(b"a\n");
    let connection = upstream.accept();
    let mut second = proxy.request(b"b\n");
    assert_eq!(second.rest(), RESET);
    assert_eq!(first.rest(), RESET);
    drop(connection);

    // No turn was lost. The second may have had one, for what was left of its time.
    let mut third = proxy.request(b"c\n");
    loop {
        let mut connection = upstream.accept();
        let mut request = [0; 3];
        let end = connection.stream.read_exact(&mut request);
        if end.is_ok() && request == *b"c\r\n" {
            break connection.send(b"poem").close();
        }
    }
    assert_eq!(third.rest().unwrap(), b"poem");
}

#[test]
fn a_key_that_was_too_long_is_fetched_by_each_client_alone() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).max_poem(1 << 20).upstream_conns(3);
    let proxy = builder.fail_ttl(HOUR).start();

    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    upstream.serve_each(move |_, connection| {
        counter.fetch_add(1, Ordering::AcqRel);
        connection.flood();
    });
    let connections = || connections.load(Ordering::Acquire);

    // The first finds out that the poem is long; the next two fetch it for themselves.
    let mut first = proxy.connect();
    first.read(4 << 20);
    let mut others: Vec<Client> = (0..2).map(|_| proxy.connect()).collect();
    for other in &mut others {
        assert!(other.read(3 << 20).iter().all(|byte| *byte == b'x'));
    }
    assert_eq!(connections(), 3);

    // The fourth waits for a turn within --upstream-conns.
    let mut fourth = proxy.connect();
    proxy.wait_for_open(4);
    drop(first);
    fourth.read(3 << 20);
    assert_eq!(connections(), 4);
}

/// A proxy for which a megabyte is long, and its upstream: it floods requests that
/// begin with `long`, and answers others with `poem`.
fn proxy_of_long_poems(upstream_conns: usize, patience: Duration) -> Service {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().max_poem(1 << 20);
    let proxy = builder
        .upstream_conns(upstream_conns)
        .patience(patience)
        .start();

    upstream.serve_each(|_, mut connection| {
        spawn(move || {
            let mut request = [0; 4];
            if connection.stream.read_exact(&mut request).is_err() {
                return;
            }

            if request == *b"long" {
                connection.flood();
            } else {
                connection.skip(3).send(b"poem").close();
            }
        });
    });

    proxy
}

#[test]
fn readers_that_take_nothing_lose_a_long_poem_to_waiters() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().max_poem(1 << 20).upstream_conns(1);
    let proxy = builder.patience(Duration::from_millis(50)).start();

    let mut stuck = proxy.request(b"long\n");
    let flooding = upstream.accept().skip(6).flood();
    stuck.read(2 << 20);

    let mut other = proxy.request(b"short\n");
    upstream.accept().skip(7).send(b"poem").close();
    assert_eq!(other.rest().unwrap(), b"poem");
    flooding.join().unwrap();
}

/// Reads 128 KiB every 100 ms, until it is told to stop.
fn read_slowly(mut client: Client, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    spawn(move || {
        let mut piece = vec![0; 128 << 10];
        while !stop.load(Ordering::Acquire) && client.stream.read_exact(&mut piece).is_ok() {
            park_timeout(Duration::from_millis(100));
        }
    })
}

#[test]
fn steady_slow_readers_delay_others_no_longer_than_patience() {
    let proxy = proxy_of_long_poems(2, Duration::from_millis(500));
    let stop = Arc::new(AtomicBool::new(false));

    let slow = [b"long1\n", b"long2\n"].map(|name| {
        let mut client = Client::narrow(proxy.addr);
        client.send(name);
        client.read(2 << 20); // by now the poem passes through
        read_slowly(client, stop.clone())
    });

    let started = Instant::now();
    assert_eq!(proxy.ask(b"short\n").unwrap(), b"poem");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");

    stop.store(true, Ordering::Release);
    slow.into_iter().for_each(|slow| slow.join().unwrap());
}

#[test]
fn many_stuck_readers_delay_a_waiter_only_once() {
    const PATIENCE: Duration = Duration::from_secs(1);
    const STUCK: usize = 20;
    let proxy = proxy_of_long_poems(1, PATIENCE);

    let stick = |number: usize| {
        let mut client = Client::narrow(proxy.addr);
        client.send(format!("long{number}\n").as_bytes());
        client
    };
    let stuck: Vec<Client> = (0..STUCK).map(stick).collect();
    wait_for_count("fetches", &proxy.stats.fetches, STUCK as u64);

    let started = Instant::now();
    assert_eq!(proxy.ask(b"short\n").unwrap(), b"poem");
    let took = started.elapsed();
    assert!(took < PATIENCE * STUCK as u32 / 2, "{took:?}");
    drop(stuck);
}

#[test]
fn equal_readers_of_a_long_poem_all_get_it_whole() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_poem(1 << 20).start();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.connect()).collect();
    proxy.wait_for_open(5);
    let poem = crate::support::long_poem(20 << 20);
    let sending = upstream.accept().send_in_background(poem.clone());

    let readers: Vec<JoinHandle<bool>> = clients
        .drain(..)
        .map(|mut client| {
            let poem = poem.clone();
            spawn(move || client.rest().is_ok_and(|got| got == poem))
        })
        .collect();
    sending.join().unwrap();
    assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
}

#[test]
fn a_steady_reader_keeps_a_long_poem_beside_a_faster_one() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_poem(1 << 20).start();
    let mut fast = proxy.connect();
    let mut steady = proxy.connect();
    proxy.wait_for_open(2);
    let poem = crate::support::long_poem(12 << 20);
    let sending = upstream.accept().send_in_background(poem.clone());

    let length = poem.len();
    let fast = spawn(move || fast.rest().map(|got| got.len()));
    let mut got = Vec::new();
    while got.len() < length {
        got.extend(steady.read((256 << 10).min(length - got.len())));
        park_timeout(Duration::from_millis(10));
    }
    assert!(got == poem);
    assert_eq!(steady.rest().unwrap(), b"");
    assert_eq!(fast.join().unwrap(), Ok(length));
    sending.join().unwrap();
}

#[test]
fn a_stuck_reader_holds_a_long_poem_up_no_longer_than_the_patience() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).max_poem(1 << 20);
    let proxy = builder.patience(SHORT).start();
    let mut fast = proxy.connect();
    let mut stuck = Client::narrow(proxy.addr);
    proxy.wait_for_open(2);
    let poem = crate::support::long_poem(30 << 20);
    let sending = upstream.accept().send_in_background(poem.clone());

    let started = Instant::now();
    assert!(fast.rest().unwrap() == poem);
    assert!(started.elapsed() >= SHORT / 2);
    sending.join().unwrap();
    assert!(stuck.rest().is_err(), "it was left behind");
}

#[test]
fn a_poem_without_room_keeps_its_place_until_it_is_read() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.capacity(32 << 10).start();
    let mut slow = Client::narrow(proxy.addr);
    slow.send(b"long\n");
    let poem = crate::support::long_poem(100 << 10);
    let connection = upstream.accept().skip(6).send(&poem);
    connection.stream.shutdown(Shutdown::Write).unwrap();
    connection.wait_for_hangup(); // by now the proxy has all of it

    let mut other = proxy.request(b"short\n");
    proxy.wait_for_waiting(1);
    assert_eq!(upstream.connections(), 1);
    assert!(slow.rest().unwrap() == poem);
    upstream.accept().skip(7).send(b"poem").close();
    assert_eq!(other.rest().unwrap(), b"poem");
}
