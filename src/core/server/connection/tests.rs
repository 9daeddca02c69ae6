//! What a connection with a task notes while it waits and sends.

use super::super::tests::{connection, server};
use super::*;
use crate::flight::launch;
use futures::FutureExt;

#[test]
fn the_wait_is_that_for_the_first_byte() {
    let (connection, _other_side) = connection(&server());
    let mut writer = launch(100);
    let reader = writer.flight().join().expect("it flies");
    let mut responding = Responding::new(b"", CacheStatus::Miss, Delivery::new(reader));
    let mut send_more = || {
        let paused = connection.send_more(&mut responding);
        assert!(matches!(paused, Ok(Pause::Waiting)));
        responding.wait
    };

    assert_eq!(send_more(), None);
    writer.append("once ".into());
    let wait = send_more();
    assert!(wait.is_some());
    writer.append("upon".into());
    assert_eq!(send_more(), wait);
}

#[test]
fn a_slot_is_lent_only_by_a_client_that_sends_no_more_and_has_nothing_yet() {
    let is_lent_by = |mut input: ClientInput| {
        let server = server();
        let (connection, _other_side) = connection(&server);
        let gone = connection.gone(&mut input).now_or_never();
        assert_eq!(gone, None, "it is still there");
        server.slots.try_acquire().is_some()
    };
    let over = ClientInput {
        is_over: true,
        may_lend: true,
        received: 0,
    };

    assert!(is_lent_by(over));
    assert!(!is_lent_by(ClientInput {
        may_lend: false,
        ..over
    }));
    assert!(!is_lent_by(ClientInput {
        is_over: false,
        received: INPUT_MOST,
        ..over
    }));
}
