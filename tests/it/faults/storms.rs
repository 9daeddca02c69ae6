//! Clients that come all at once.

use crate::support::{
    Client, FakeUpstream, HOUR, ServerProcess, Signal, count, proxy, raise_descriptor_limit,
};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

#[test]
fn a_storm_at_an_empty_cache_costs_one_fetch() {
    raise_descriptor_limit();
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let clients: Vec<Client> = (0..2000).map(|_| proxy.connect()).collect();
    proxy.wait_for_open(2000);
    upstream.serve_once(b"poem");

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_storm_at_each_of_200_ends_of_a_ttl_costs_one_fetch() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).ttl(HOUR).start();
    upstream.serve_always(b"poem");

    for edge in 1..=200 {
        // The last poem was kept before this moment: an hour from it is past its ttl,
        // and not past that of a newer one.
        let now = Instant::now() + HOUR;

        let answers: Vec<_> = (0..50).map(|_| proxy.get_at(now)).collect();
        let misses = answers.iter().filter(|answer| answer.is_miss()).count();
        assert_eq!(misses, 1, "at edge {edge}");
        for answer in answers {
            assert_eq!(answer.read(), b"poem");
        }

        let again = proxy.get_at(now);
        assert!(again.is_hit() && again.is_ready(), "at edge {edge}");
    }

    assert_eq!(count(&proxy.stats.fetches), 200);
}

#[test]
fn a_storm_at_a_frozen_process_costs_one_fetch() {
    raise_descriptor_limit();
    let upstream = FakeUpstream::new();
    let server = ServerProcess::start(&["proxy", "--port", "0", &upstream.addr.to_string()]);

    server.freeze();
    let clients: Vec<Client> = (0..3000).map(|_| server.connect()).collect();
    // Longer than the kernel waits before it sends a packet again.
    park_timeout(Duration::from_millis(300));
    server.signal(Signal::CONT);
    upstream.serve_once(b"poem");

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn clients_that_only_connect_leave_nothing_behind() {
    let upstream = FakeUpstream::new();
    let line = proxy(&upstream).line().start();
    let other = FakeUpstream::new();
    let warm = proxy(&other).start_with(&other, b"poem");

    for number in 0..1000 {
        for proxy in [&line, &warm] {
            let client = proxy.connect();
            if number % 2 == 0 {
                client.reset();
            }
        }
    }

    line.wait_for_open(0);
    warm.wait_for_open(0);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(warm.get().unwrap(), b"poem");
}
