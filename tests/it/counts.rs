//! The figures of a service: a known mix of requests through real sockets, and then
//! every figure is what it must be.

use crate::support::{
    Client, FakeUpstream, HOUR, RESET, Service, count, netstring, proxy, serve, transform_service,
    unused_addr, wait_for_count, wait_until,
};
use poetry::cache::Purge;
use poetry::control::{ERRORS, FetchCounts, REASONS, Snapshot, Texts, UpstreamState};
use poetry::observe::Class;
use std::time::Duration;

/// The numbers of these reasons or errors, and 0 for the others.
fn by_word<const N: usize>(words: [&str; N], counts: &[(&str, u64)]) -> [u64; N] {
    let known = counts.iter().all(|(word, _)| words.contains(word));
    assert!(known, "{counts:?}");
    words.map(|word| {
        let found = counts.iter().find(|(of, _)| *of == word);
        found.map_or(0, |(_, count)| *count)
    })
}

/// The numbers of fetches that ended so: by cause, then by result.
fn ended(counts: &[(&str, &str, u64)]) -> [[u64; 4]; 4] {
    FetchCounts::CAUSES.map(|cause| {
        FetchCounts::RESULTS.map(|result| {
            let found = counts.iter().find(|of| (of.0, of.1) == (cause, result));
            found.map_or(0, |of| of.2)
        })
    })
}

/// The figures once all connections and fetches have ended.
fn at_rest(service: &Service) -> Snapshot {
    wait_until("all is at rest", || {
        let snapshot = service.snapshot();
        let running = snapshot.fetches.as_ref().map_or(0, |of| of.running);
        snapshot.connections.open == 0 && running == 0
    });
    service.snapshot()
}

/// Asks for `name` and has the upstream bring `text`.
fn fetch(upstream: &FakeUpstream, proxy: &Service, name: &str, text: &str) {
    let request = format!("{name}\n");
    let mut client = proxy.request(request.as_bytes());
    let connection = upstream.accept().skip(request.len() + 1); // it asks with \r\n
    connection.send(text.as_bytes()).close();
    assert_eq!(client.rest().unwrap(), text.as_bytes());
}

/// A proxy with a request of every class that it can have.
fn mixed(upstream: &FakeUpstream) -> Service {
    let builder = proxy(upstream).line().grace(HOUR).max_poem(100);
    let proxy = builder.reject("^busy").start();

    drop(proxy.connect());
    wait_for_count("unasked", &proxy.stats.unasked, 1);
    assert_eq!(proxy.ask(&[b'x'; 100_000]), RESET, "no line is so long");

    fetch(upstream, &proxy, "a", "poem a");
    for _ in 0..3 {
        assert_eq!(proxy.ask(b"a\n").unwrap(), b"poem a");
    }

    let mut two = [proxy.request(b"b\n"), proxy.request(b"b\n")];
    wait_until("both wait", || {
        proxy.snapshot().fetches.is_some_and(|of| of.readers == 2)
    });
    upstream.accept().skip(3).send(b"poem bb").close();
    two.iter_mut().for_each(|client| {
        assert_eq!(client.rest().unwrap(), b"poem bb");
    });

    let mut cut = proxy.request(b"c\n");
    let connection = upstream.accept().skip(3).send(b"half");
    assert_eq!(cut.read(4), b"half");
    connection.reset();
    assert_eq!(cut.rest(), RESET);

    let mut empty = proxy.request(b"d\n");
    upstream.accept().skip(3).close();
    assert_eq!(empty.rest(), RESET);

    let leaver = proxy.request(b"e\n");
    let connection = upstream.accept().skip(3);
    leaver.reset();
    wait_for_count("failures", &proxy.stats.failures, 4);
    connection.send(b"poem eee").close();
    wait_for_count("kept", &proxy.stats.kept, 3);

    fetch(upstream, &proxy, "f", "busy");
    fetch(upstream, &proxy, "g", &"long".repeat(30));
    proxy
}

/// Refreshes that fail and that succeed, and purges.
fn refresh_and_purge(upstream: &FakeUpstream, proxy: &Service) {
    proxy.reload();
    assert_eq!(proxy.ask(b"b\n").unwrap(), b"poem bb");
    upstream.accept().skip(3).reset();
    wait_for_count("failed", &proxy.stats.failed_fetches, 4);

    assert_eq!(proxy.ask(b"a\n").unwrap(), b"poem a");
    upstream.accept().skip(3).send(b"poem aaaa").close();
    wait_for_count("kept", &proxy.stats.kept, 4);
    proxy.purge(Texts::Named(b"a"), Purge::Hard);
}

#[test]
fn a_known_mix_of_requests_is_in_every_figure_of_a_proxy() {
    let upstream = FakeUpstream::new();
    let proxy = mixed(&upstream);
    refresh_and_purge(&upstream, &proxy);
    let snapshot = at_rest(&proxy);

    let by_class = snapshot.connections.by_class();
    assert_eq!(by_class, [3, 2, 1, 4, 0, 4, 1], "{:?}", Class::ALL);
    assert_eq!(snapshot.connections.limit, 10_000);
    let sent = [18, 13, 7, 6 + 7 + 4 + 120, 0, 4, 0];
    assert_eq!(snapshot.sent, sent, "{:?}", Class::ALL);
    let reasons = [
        ("bad_request", 1),
        ("reset", 1),
        ("empty", 1),
        ("client_left", 1),
    ];
    assert_eq!(snapshot.failures, by_word(REASONS, &reasons));

    let asked = 3 + 2 + 1 + 4 + 3; // a malformed request is none
    assert_eq!(snapshot.wait.counts.iter().sum::<u64>(), asked);
    assert!(snapshot.wait.sum > 0.0);
    assert_eq!((snapshot.accept_pauses, snapshot.panics), (0, 0));
    let purges = snapshot.purges;
    assert_eq!((purges.all, purges.prefix, purges.key), (1, 0, 1));

    assert_eq!(
        snapshot.fetches.unwrap(),
        FetchCounts {
            places: 8,
            begun: 9,
            kept: 4,
            passed: 1,
            failed: 4,
            ended: ended(&[
                ("miss", "kept", 3),
                ("miss", "passed", 1),
                ("miss", "rejected", 1),
                ("miss", "failed", 2),
                ("stale", "kept", 1),
                ("stale", "failed", 1),
            ]),
            ..FetchCounts::default()
        }
    );

    let cache = snapshot.cache.unwrap();
    assert_eq!((cache.keys, cache.kept.0), (2, 2), "b and e");
    assert_eq!(cache.kept.1, cache.bytes);
    assert_eq!((cache.in_flight, cache.failures), ((0, 0), (0, 0)));
    assert_eq!((cache.evicted_kept, cache.evicted_failures), (0, 0));
}

#[test]
fn a_known_mix_of_answers_is_in_every_figure_of_their_upstream() {
    let upstream = FakeUpstream::new();
    let proxy = mixed(&upstream);
    refresh_and_purge(&upstream, &proxy);
    let snapshot = at_rest(&proxy);

    let [of] = &snapshot.upstreams[..] else {
        panic!("{:?}", snapshot.upstreams)
    };
    assert_eq!(of.name, upstream.addr.to_string());
    assert_eq!(of.state, UpstreamState::Up);
    assert_eq!((of.asked, of.connections), (9, 0));
    let failures = [("reset", 2), ("empty", 1)];
    assert_eq!(of.failures, by_word(ERRORS, &failures));
    assert_eq!(of.received, 6 + 7 + 4 + 8 + 4 + 120 + 9);
    assert_eq!(of.durations.counts.iter().sum::<u64>(), 6);
    let last_error = of.last_error.as_ref().unwrap();
    assert!(last_error.0.contains("cut off"), "{last_error:?}");
    assert!(of.last_success.unwrap() <= last_error.1, "it came later");
}

#[test]
fn an_upstream_that_refuses_is_down_and_the_next_one_up() {
    let dead = unused_addr();
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).upstreams(&[dead, upstream.addr]).start();
    let snapshot = proxy.snapshot();
    let states = snapshot.upstreams.iter().map(|of| of.state);
    assert!(states.eq([UpstreamState::Unknown; 2]));

    let mut client = proxy.connect();
    upstream.serve_once(b"poem");
    assert_eq!(client.rest().unwrap(), b"poem");

    let snapshot = at_rest(&proxy);
    let [first, second] = &snapshot.upstreams[..] else {
        panic!("{:?}", snapshot.upstreams)
    };
    assert!(matches!(first.state, UpstreamState::Down(_)));
    assert_eq!(first.failures, by_word(ERRORS, &[("refused", 1)]));
    assert_eq!(
        (first.asked, first.received, first.last_success),
        (1, 0, None)
    );
    assert_eq!(second.state, UpstreamState::Up);
    assert_eq!((second.asked, second.received), (1, 4));
}

#[test]
fn an_upstream_that_is_not_done_in_time_has_failed() {
    let upstream = FakeUpstream::new();
    let limit = Duration::from_millis(300);
    let proxy = proxy(&upstream).fetch_timeout(limit).start();

    let mut client = proxy.connect();
    let connection = upstream.accept().send(b"half");
    assert_eq!(client.rest(), RESET);

    let snapshot = at_rest(&proxy);
    let timeout = by_word(ERRORS, &[("timeout", 1)]);
    assert_eq!(snapshot.upstreams[0].failures, timeout);
    assert_eq!(snapshot.failures, by_word(REASONS, &[("timeout", 1)]));
    drop(connection);
}

#[test]
fn what_runs_and_what_waits_is_counted_while_it_does() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().fail_ttl(HOUR);
    let proxy = builder.upstream_conns(1).upstream_queue(1).start();

    let mut runs = [proxy.request(b"a\n"), proxy.request(b"a\n")];
    let connection = upstream.accept().skip(3).send(b"half ");
    runs.iter_mut().for_each(|client| {
        assert_eq!(client.read(5), b"half ");
    });
    let mut waits = proxy.request(b"b\n");
    proxy.wait_for_waiting(1);
    assert_eq!(proxy.ask(b"c\n"), RESET, "the queue is full");

    let snapshot = proxy.snapshot();
    let fetches = snapshot.fetches.unwrap();
    assert_eq!(
        (fetches.running, fetches.waiting, fetches.places),
        (1, 1, 1)
    );
    assert_eq!((fetches.readers, fetches.refused), (3, 1));
    assert!(fetches.oldest_wait > Duration::ZERO);
    assert_eq!(snapshot.upstreams[0].connections, 1);
    assert_eq!(snapshot.failures, by_word(REASONS, &[("queue_full", 1)]));
    let cache = snapshot.cache.unwrap();
    assert_eq!((cache.in_flight.0, cache.in_flight.1), (2, cache.bytes));

    connection.reset();
    runs.iter_mut().for_each(|client| {
        assert_eq!(client.rest(), RESET);
    });
    upstream.accept().skip(3).send(b"poem").close();
    assert_eq!(waits.rest().unwrap(), b"poem");

    let cache = at_rest(&proxy).cache.unwrap();
    assert_eq!((cache.kept.0, cache.failures.0), (1, 1));
    assert_eq!(cache.kept.1 + cache.failures.1, cache.bytes);
}

#[test]
fn transformations_are_counted_by_how_they_end() {
    let service = transform_service().program("fails=false").start();
    for (request, answer) in [
        ("shout.poem", "4:POEM,"),
        ("shout.text", "4:TEXT,"),
        ("fails.poem", ""),
        ("nothing.poem", ""),
        ("no dot", ""),
    ] {
        let request = netstring(request.as_bytes());
        assert_eq!(service.ask(&request).unwrap(), answer.as_bytes());
    }

    let snapshot = at_rest(&service);
    let transforms = snapshot.transforms;
    let by_end = (transforms.done, transforms.failed, transforms.declined);
    assert_eq!(by_end, (2, 1, 2));
    assert_eq!(snapshot.connections.own, 5);
    assert_eq!(snapshot.sent[Class::Own as usize], 14);
    assert_eq!(snapshot.fetches, None);
    assert_eq!(snapshot.cache, None);
}

#[test]
fn a_proxy_counts_the_texts_that_it_transforms() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).transform(&["shout", "reverse"]).start();

    let mut client = proxy.connect();
    upstream.serve_once(b"poem");
    assert_eq!(client.rest().unwrap(), b"POEM");
    assert_eq!(at_rest(&proxy).transforms.done, 1);
}

#[test]
fn hits_have_waited_for_nothing() {
    let server = serve(&[b"a poem"]).start();
    for _ in 0..1000 {
        assert_eq!(server.get().unwrap(), b"a poem");
    }

    wait_for_count("own", &server.stats.own, 1000);
    let snapshot = server.snapshot();
    assert_eq!(snapshot.wait.counts[0], 1000);
    assert_eq!(snapshot.wait.sum, 0.0);
    assert_eq!(snapshot.sent[Class::Own as usize], 6000);
    assert_eq!(count(&server.stats.tasks), 0);
}

#[test]
fn an_answer_that_is_not_acknowledged_is_an_open_connection() {
    let server = serve(&[&[b'x'; 10_000]]).start();
    let mut slow = Client::narrow(server.addr);
    wait_until("it is open", || server.snapshot().connections.open == 1);
    assert_eq!(count(&server.stats.tasks), 0);

    assert_eq!(slow.rest().unwrap().len(), 10_000);
    assert_eq!(at_rest(&server).connections.own, 1);
}
