//! The program itself: holders that are killed and stopped, what it prints, and what it
//! refuses.

use super::parts::sleep;
use crate::support::{
    Client, Connection, FakeUpstream, Redis, ServerProcess, Signal, command, poetry, run, text,
    wait_until,
};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::spawn;
use std::time::{Duration, Instant};

/// How long a lease runs, and then some for a loaded machine.
const LEASE: Duration = Duration::from_millis(2000);
const SPARE: Duration = Duration::from_millis(1500);

/// A proxy in a process of its own, once it has joined.
fn start(redis: &Redis, upstream: &FakeUpstream, more: &[&str]) -> ServerProcess {
    let (place, upstream) = (redis.place(), upstream.addr.to_string());
    // A loaded machine has more time for an answer.
    let mut args = vec!["proxy", "--listen", "127.0.0.1:0", "--store", &place];
    args.extend(["--store-timeout", "500ms", &upstream]);
    args.extend(more);
    let mut proxy = ServerProcess::start(&args);
    let log = proxy.stderr_lines();
    let told = log.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(told.ends_with("sharing poems with the fleet"), "{told}");
    spawn(move || log.into_iter().for_each(drop));
    proxy
}

/// A fetch that A has begun and B follows: their clients have the first half.
fn half_way(
    a: &ServerProcess,
    b: &ServerProcess,
    upstream: &FakeUpstream,
) -> (Connection, [Client; 2]) {
    let mut first = a.connect();
    let connection = upstream.accept().send(b"the first half, ");
    assert_eq!(first.read(16), b"the first half, ");
    let mut second = b.connect();
    assert_eq!(second.read(16), b"the first half, ");
    (connection, [first, second])
}

/// Whoever follows a fetch listens to its doorbell.
fn wait_for_a_follower(redis: &Redis) {
    wait_until("it is followed", || {
        redis.ask(&["PUBSUB", "CHANNELS", "*:l:*"]).contains(":l:")
    });
}

/// Whether the connection to the upstream is this process's.
fn owns(process: &ServerProcess, connection: &Connection) -> bool {
    let port = connection.stream.peer_addr().unwrap().port();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!("0100007F:{port:04X}");
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(&own));
    let inode = line.unwrap().split_whitespace().nth(9).unwrap();

    let wanted = format!("socket:[{inode}]");
    let mut files = std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).unwrap();
    files.any(|file| {
        let link = std::fs::read_link(file.unwrap().path());
        link.is_ok_and(|link| link.to_string_lossy() == wanted)
    })
}

#[test]
fn a_killed_holder_is_followed_by_a_fetch_that_brings_the_same() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let (a, b) = (start(&redis, &upstream, &[]), start(&redis, &upstream, &[]));
    let (_half, [_first, mut second]) = half_way(&a, &b, &upstream);
    let killed = Instant::now();
    drop(a);
    let connection = upstream.accept();
    assert!(killed.elapsed() < LEASE + SPARE, "{:?}", killed.elapsed());
    connection.send(b"the first half, the second").close();
    assert_eq!(second.rest().unwrap(), b"the second");
    assert_eq!(b.get().unwrap(), b"the first half, the second");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_killed_holder_whose_poem_has_changed_means_a_reset() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let (a, b) = (start(&redis, &upstream, &[]), start(&redis, &upstream, &[]));
    let (_half, [_first, mut second]) = half_way(&a, &b, &upstream);
    drop(a);
    upstream.serve_once(b"the other half, the second");
    assert!(second.rest().is_err());
    let mut next = b.connect();
    upstream.serve_once(b"the other half, the second");
    assert_eq!(next.rest().unwrap(), b"the other half, the second");
}

#[test]
fn a_holder_killed_before_its_first_byte_costs_time_only() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let (a, b) = (start(&redis, &upstream, &[]), start(&redis, &upstream, &[]));
    let _first = a.connect();
    let _silent = upstream.accept();
    let mut second = b.connect();
    wait_for_a_follower(&redis);
    drop(a);
    upstream.serve_once(b"a poem");
    assert_eq!(second.rest().unwrap(), b"a poem");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_killed_holder_of_whose_poem_nothing_was_passed_on_may_be_followed_by_another() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    // A publishes the end only: what it has had is not what B must bring.
    let a = start(&redis, &upstream, &["--whole"]);
    let b = start(&redis, &upstream, &[]);
    let mut first = a.connect();
    let _half = upstream.accept().send(b"the first half, ");
    let mut second = b.connect();
    wait_for_a_follower(&redis);
    drop(a);
    upstream.serve_once(b"another poem");
    assert_eq!(second.rest().unwrap(), b"another poem");
    assert!(first.rest().is_err(), "of it, nothing was sent");
    assert_eq!(b.get().unwrap(), b"another poem");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn of_three_that_follow_one_takes_over_and_so_on() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let a = start(&redis, &upstream, &[]);
    let mut others: Vec<ServerProcess> = (0..3).map(|_| start(&redis, &upstream, &[])).collect();
    let _first = a.connect();
    let _half = upstream.accept().send(b"the first half, ");
    let mut clients: Vec<Client> = others.iter().map(ServerProcess::connect).collect();
    for client in &mut clients {
        assert_eq!(client.read(16), b"the first half, ");
    }

    drop(a);
    let half = upstream.accept().send(b"the first half, and ");
    for client in &mut clients {
        assert_eq!(client.read(4), b"and ");
    }
    assert_eq!(upstream.connections(), 2, "exactly one");
    // The one that took over is killed, too.
    let taker = others.iter().position(|other| owns(other, &half)).unwrap();
    drop(others.remove(taker));
    drop(clients.remove(taker));

    upstream.serve_once(b"the first half, and the second");
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"the second");
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn a_holder_that_was_frozen_keeps_its_clients_and_commits_nothing() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let (a, b) = (start(&redis, &upstream, &[]), start(&redis, &upstream, &[]));
    let mut first = a.connect();
    let connection = upstream.accept().send(b"from ");
    assert_eq!(first.read(5), b"from ");
    let mut second = b.connect();
    assert_eq!(second.read(5), b"from ");

    a.freeze();
    upstream.serve_once(b"from B");
    assert_eq!(second.rest().unwrap(), b"B");
    a.signal(Signal::CONT);
    connection.send(b"A").close();
    assert_eq!(first.rest().unwrap(), b"A");
    sleep(200);

    let c = start(&redis, &upstream, &[]);
    assert_eq!(c.get().unwrap(), b"from B");
}

#[test]
fn a_holder_that_is_stopped_hands_over_at_the_end_of_its_drain() {
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let mut a = start(&redis, &upstream, &["--drain-timeout", "300ms"]);
    let b = start(&redis, &upstream, &[]);
    let (_half, [_first, mut second]) = half_way(&a, &b, &upstream);
    a.signal(Signal::TERM);
    let stopped = Instant::now();
    let connection = upstream.accept();
    assert!(
        stopped.elapsed() < LEASE,
        "before the lease runs out: {:?}",
        stopped.elapsed()
    );
    connection.send(b"the first half, the second").close();
    assert_eq!(second.rest().unwrap(), b"the second");
    a.wait();
}

#[test]
fn a_server_that_floods_costs_no_memory() {
    let floods: [&[u8]; 6] = [
        b"+OK\r\n",
        b"+xxxxxxxx",
        b"*1\r\n",
        b"$1000000000\r\n",
        b"*1000000000\r\n:1\r\n",
        b">3\r\n+message\r\n$1\r\na\r\n$1\r\nb\r\n",
    ];
    for flood in floods {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = format!("redis://{}", listener.local_addr().unwrap());
        let bytes = flood.repeat(10_000);
        spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let bytes = bytes.clone();
                spawn(move || while stream.write_all(&bytes).is_ok() {});
            }
        });
        let upstream = FakeUpstream::new();
        let addr = upstream.addr.to_string();
        upstream.serve_always(b"a poem");
        let proxy = ServerProcess::start(&[
            "proxy",
            "--listen",
            "127.0.0.1:0",
            "--ttl",
            "0",
            "--quiet",
            "--store",
            &place,
            &addr,
        ]);
        let before = proxy.peak_memory();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            let asked = Instant::now();
            assert_eq!(proxy.get().unwrap(), b"a poem");
            let took = asked.elapsed();
            assert!(
                took < Duration::from_secs(3),
                "{:?}: {took:?}",
                text(&flood[..4])
            );
        }
        let more = proxy.peak_memory() - before;
        assert!(more < 64 << 20, "{more} bytes for {:?}", text(&flood[..4]));
    }
}

#[test]
fn a_server_elsewhere_and_an_upstream_here_need_a_name() {
    for upstream in ["10001", "localhost:1", "[::1]:1", "unix:/tmp/x", "builtin"] {
        let out = poetry(&["proxy", "--store", "redis://store.example/0", upstream]);
        assert_eq!(out.status.code(), Some(2));
        let log = text(&out.stderr);
        assert!(log.contains("is another server on each machine"), "{log}");
        assert!(log.contains("redis://store.example:6379/0"), "{log}");
    }

    let mut named = ServerProcess::start(&[
        "proxy",
        "--listen",
        "127.0.0.1:0",
        "--store-name",
        "mine",
        "--store",
        "redis://store.invalid/0",
        "builtin",
    ]);
    named.stop();
    let mut here = ServerProcess::start(&[
        "proxy",
        "--listen",
        "127.0.0.1:0",
        "--store",
        "redis+unix:/nowhere",
        "builtin",
    ]);
    let log = here.stop_and_read_log();
    assert!(
        log.contains("redis+unix:/nowhere: no such file or directory: on its own"),
        "{log}"
    );
}

#[test]
fn a_server_that_cannot_be_read_is_a_usage_error_without_its_password() {
    for (place, why) in [
        ("redis://u:secret@h:x", "the port is not a number"),
        ("redis://u:secret@h:1/x", "the database is not a number"),
        ("rediss://u:secret@h", "there is no TLS here"),
        ("redis+unix:", "no path after redis+unix:"),
    ] {
        let mut asked = command(&["proxy", "whois.example:43"]);
        asked.env("POEM_PROXY_STORE", place);
        let by_variable = run(asked);
        for out in [
            by_variable,
            poetry(&["proxy", "--store", place, "whois.example:43"]),
        ] {
            assert_eq!(out.status.code(), Some(2));
            let log = text(&out.stderr);
            assert!(log.contains(why), "{log}");
            assert!(
                log.contains("wanted redis://[USER:PASSWORD@]HOST:PORT/DB"),
                "{log}"
            );
            assert!(!log.contains("secret"), "{log}");
        }
    }
}

/// Like [`Client::ask`], for a server that may not be there.
fn try_ask(addr: SocketAddr, request: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let mut client = Client::try_connect(addr)?;
    client.try_send(request);
    client.rest()
}

#[test]
fn a_storm_on_three_proxies_with_trouble_underneath_gives_whole_poems() {
    const KEYS: usize = 20;
    const CLIENTS: usize = 30;
    let Some(redis) = Redis::start() else { return };
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    let poem_of = |name: &[u8]| {
        let seed = name
            .iter()
            .fold(7usize, |sum, byte| sum * 31 + *byte as usize);
        let length = [1, 700, 9000, 80_000][seed % 4];
        let mut poem = name.to_vec();
        poem.extend((0..length).map(|at| (at ^ seed ^ (at >> 8)) as u8));
        poem
    };
    upstream.serve_each(move |_, connection| {
        counted.fetch_add(1, Ordering::AcqRel);
        spawn(move || {
            let (connection, name) = connection.read(4);
            let poem = poem_of(&name);
            let (first, second) = poem.split_at(poem.len() / 2);
            let connection = connection.try_send(first);
            sleep(20);
            connection.try_send(second).close();
        });
    });

    let place = redis.place();
    let proxy = || {
        ServerProcess::start(&[
            "proxy",
            "--protocol",
            "line",
            "--listen",
            "127.0.0.1:0",
            "--ttl",
            "1s",
            "--quiet",
            "--store",
            &place,
            &addr,
        ])
    };
    let (a, b, c) = (proxy(), proxy(), proxy());
    let addrs = [a.addr, b.addr, c.addr];
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let is_over = is_over.clone();
            spawn(move || {
                let (mut whole, mut failed) = (0, 0);
                for round in 0.. {
                    if is_over.load(Ordering::Acquire) {
                        break;
                    }
                    let name = format!("{:02}\r\n", (client * 7 + round * 3) % KEYS);
                    let at = (client + round) % 3;
                    match try_ask(addrs[at], name.as_bytes()) {
                        // Of a process that was killed while it accepted.
                        Ok(poem) if at == 0 && poem.is_empty() => failed += 1,
                        Ok(poem) => {
                            let right = poem_of(name.as_bytes());
                            let same = poem.iter().zip(&right).take_while(|(a, b)| a == b);
                            let (same, lengths) = (same.count(), (poem.len(), right.len()));
                            assert!(poem == right, "{at}: {same} right of {lengths:?}");
                            whole += 1;
                        }
                        Err(_) if at == 0 => failed += 1, // that one is killed
                        Err(error) => panic!("{error:?} at a proxy that runs"),
                    }
                }
                (whole, failed)
            })
        })
        .collect();

    sleep(1500);
    redis.ask(&["CLIENT", "PAUSE", "300", "ALL"]);
    sleep(1000);
    redis.process().freeze();
    sleep(1500);
    redis.process().signal(Signal::CONT);
    sleep(500);
    redis.ask(&["FLUSHALL"]);
    sleep(500);
    drop(a);
    let mut redis = redis;
    redis.kill();
    sleep(500);
    redis.begin();
    sleep(2000);
    is_over.store(true, Ordering::Release);
    let ends = clients.into_iter().map(|client| client.join().unwrap());
    let (whole, failed) = ends.fold((0, 0), |sum, end| (sum.0 + end.0, sum.1 + end.1));
    assert!(
        whole > 1000,
        "{whole} whole, {failed} at the one that was killed"
    );
    wait_until("no lease is left", || redis.names("*:l:*").is_empty());
}
