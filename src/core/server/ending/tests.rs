//! How long a connection is looked after once its answer has ended.

use super::super::tests::{connection, server_of};
use super::*;
use crate::observe::Silent;
use crate::protocol::Protocol;
use std::io::Read;
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
