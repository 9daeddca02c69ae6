//! The first upstream fails, and another one is there.

use crate::support::{
    FakeUpstream, HOUR, RESET, SHORT, Service, count, proxy, unused_addr, wait_for_count,
};

/// A proxy of two upstreams, which are asked in this order.
fn of_two(first: &FakeUpstream, second: &FakeUpstream) -> Service {
    let builder = proxy(first).line().idle_timeout(SHORT);
    builder.upstreams(&[first.addr, second.addr]).start()
}

#[test]
fn after_an_empty_reply_the_next_upstream_is_asked() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = of_two(&first, &second);
    let mut client = proxy.request(b"name\n");

    first.accept().skip(6).close();
    second.accept().skip(6).send(b"answer").close();
    assert_eq!(client.rest().unwrap(), b"answer");
    assert_eq!(proxy.ask(b"name\n").unwrap(), b"answer");
}

#[test]
fn after_a_reset_the_next_upstream_is_asked() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = of_two(&first, &second);
    let mut client = proxy.request(b"name\n");

    first.accept().skip(6).reset();
    second.accept().skip(6).send(b"answer").close();
    assert_eq!(client.rest().unwrap(), b"answer");
}

#[test]
fn after_a_silence_the_next_upstream_is_asked() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = of_two(&first, &second);
    let mut client = proxy.request(b"name\n");

    let _silent = first.accept();
    second.accept().skip(6).send(b"answer").close();
    assert_eq!(client.rest().unwrap(), b"answer");
}

#[test]
fn once_a_part_is_passed_on_no_other_upstream_is_asked() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = of_two(&first, &second);
    let mut client = proxy.request(b"name\n");

    let connection = first.accept().skip(6).send(b"half");
    assert_eq!(client.read(4), b"half");
    connection.reset();
    assert_eq!(client.rest(), RESET);
    assert_eq!(second.connections(), 0);
}

#[test]
fn what_was_not_passed_on_is_taken_back_for_the_next_upstream() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let builder = proxy(&first).line().whole(true);
    let proxy = builder.upstreams(&[first.addr, second.addr]).start();
    let mut client = proxy.request(b"name\n");

    first.accept().skip(6).send(b"half").reset();
    second.accept().skip(6).send(b"answer").close();
    assert_eq!(client.rest().unwrap(), b"answer");
}

#[test]
fn an_upstream_that_has_just_failed_is_not_asked_first() {
    let (first, second) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = of_two(&first, &second);
    let mut client = proxy.request(b"one1\n");
    first.accept().skip(6).reset();
    second.accept().skip(6).send(b"answer").close();
    assert_eq!(client.rest().unwrap(), b"answer");

    let mut client = proxy.request(b"two2\n");
    second.accept().skip(6).send(b"answer").close();
    assert_eq!(client.rest().unwrap(), b"answer");
    assert_eq!(first.connections(), 1);
}

#[test]
fn where_all_upstreams_fail_the_last_failure_is_cached() {
    let upstream = FakeUpstream::new();
    let dead = [unused_addr(), unused_addr()];
    let proxy = proxy(&upstream).upstreams(&dead).fail_ttl(HOUR).start();
    assert_eq!(proxy.get(), RESET);
    assert_eq!(proxy.get(), RESET);

    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert_eq!(count(&proxy.stats.fetches), 1);
}
