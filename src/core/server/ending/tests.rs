//! How long a connection is looked after once its answer has ended.

use super::super::tests::{connection, server_of, wait_until};
use super::*;
use crate::observe::Silent;
use crate::protocol::Protocol;
use futures::FutureExt;
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::Arc;

#[test]
fn the_looks_at_a_client_become_rarer() {
    let server = server_of(Protocol::Poem, Arc::new(Silent));
    let (connection, _other_side) = connection(&server);
    let mut info = connection.stream.tcp_info().expect("it is TCP");
    info.rtt = Duration::ZERO;

    let mut watch = AckWatch::new(&info, Instant::now());
    let limit = Duration::from_millis(400);
    let pauses: Vec<u128> = (0..8)
        .map(|_| watch.next_pause(limit).as_millis())
        .collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 400, 400]);
}

#[test]
fn a_declined_client_may_send_the_rest_of_what_it_has_begun() {
    let server = server_of(Protocol::Netstring, Arc::new(Silent));
    let (connection, mut client) = connection(&server);
    let no_netstring: Box<[u8]> = b"x".as_slice().into();
    let began = Instant::now();
    let mut served = pin!(connection.serve(no_netstring));

    let ended = rt::block_on(rt::within(5 * PAUSE_MIN, served.as_mut()));
    assert_eq!(client.read(&mut [0]).ok(), Some(0), "it has a clean end");
    assert!(
        ended.is_none() || began.elapsed() >= LINGER,
        "its bytes are still read"
    );

    drop(client);
    rt::block_on(served);
}

#[test]
fn only_a_client_that_has_sent_bytes_and_may_send_more_is_waited_for() {
    let server = server_of(Protocol::Poem, Arc::new(Silent));
    let close = |received, is_over| {
        let (connection, _client) = connection(&server);
        connection.stream.finish().expect("it is open");
        let info = || connection.stream.tcp_info();
        wait_until(|| info().is_some_and(|info| info.is_settled()));

        let mut input = ClientInput::default();
        (input.received, input.is_over) = (received, is_over);
        connection.close_politely(0, input).now_or_never()
    };

    assert_eq!(close(0, false), Some(Outcome::Whole), "it said nothing");
    assert_eq!(close(1, true), Some(Outcome::Whole), "it has said all");
    assert_eq!(close(1, false), None);
}

#[test]
fn what_a_client_sends_while_it_is_waited_for_is_read() {
    let server = server_of(Protocol::Poem, Arc::new(Silent));
    let (connection, mut client) = connection(&server);
    client.write_all(b"late").expect("it is open");
    let info = || connection.stream.tcp_info();
    wait_until(|| info().is_some_and(|info| info.received == 4));

    let mut input = ClientInput::default();
    assert_eq!(connection.discard(&mut input).now_or_never(), None);
    assert_eq!(input.received, 4);
}
