//! When the connections of the list are looked at, and what becomes of each.

use super::super::tests::{NoAnswers, answer, server, wait_until};
use super::*;
use crate::slots::Slots;
use futures::FutureExt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(20);

/// A connection whose answer is on its way, and its client.
fn unacknowledged() -> (Unacknowledged, TcpStream) {
    let (client, other_side) = Accepted::pair().expect("the loopback is there");
    let mut info = client.tcp_info().expect("it is a TCP connection");
    info.rtt = Duration::ZERO; // as on a machine that is not busy
    let slot = Slots::new(1, 0).try_acquire().expect("it is free");
    let connection = Unacknowledged {
        answer: answer(client, slot),
        watch: AckWatch::new(&info, Instant::now()),
        listed: Listed::new(Arc::default()),
    };
    (connection, other_side)
}

/// How many connections are due, or when the first one is.
fn next(closing: &Closing, now: Instant) -> Result<usize, Option<Instant>> {
    match closing.next(now) {
        Next::Look(due) => Ok(due.len()),
        Next::Wait(until) => Err(Some(until)),
        Next::End => Err(None),
    }
}

#[test]
fn each_connection_is_looked_at_when_it_is_due_and_one_task_sees_to_that() {
    let closing = Closing::default();
    let start = Instant::now();
    let (soon, later) = (start + PAUSE, start + 2 * PAUSE);
    let put = |at| closing.put(unacknowledged().0, at);

    assert!(put(soon), "a task is to start");
    assert!(!put(later), "it has started");
    assert!(!put(later), "and takes two of one time apart");
    assert_eq!(next(&closing, start), Err(Some(soon)));
    assert_eq!(next(&closing, soon), Ok(1));
    assert_eq!(next(&closing, soon), Err(Some(later)));
    assert_eq!(next(&closing, later), Ok(2));

    assert_eq!(next(&closing, later), Err(None), "the task ends");
    assert!(put(soon), "so the next connection starts one");
}

#[test]
fn the_task_is_woken_for_a_connection_that_is_due_before_the_others() {
    let closing = Closing::default();
    let start = Instant::now();
    let is_woken_for = |pauses: u32| {
        let mut woken = closing.sooner.listen();
        closing.put(unacknowledged().0, start + pauses * PAUSE);
        (&mut woken).now_or_never().is_some()
    };

    assert!(!is_woken_for(3), "its own first look");
    assert!(!is_woken_for(4));
    assert!(!is_woken_for(3));
    assert!(is_woken_for(2));
}

#[test]
fn a_look_that_changes_nothing_is_followed_by_a_pause() {
    let server = server();
    let start = Instant::now();
    let (connection, _other_side) = unacknowledged();
    assert!(server.look_later(connection, start));

    let due = next(&server.closing, start);
    assert_eq!(due, Err(Some(start + PAUSE_MIN)));
}

/// Looks once at a connection on which `act` was done before.
fn look(act: impl FnOnce(&Accepted, &mut TcpStream)) -> (Arc<Server<NoAnswers>>, TcpStream) {
    let server = server();
    let (connection, mut other_side) = unacknowledged();
    act(&connection.answer.client, &mut other_side);
    server.look_again(connection, Instant::now());
    (server, other_side)
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How many connections are in the list.
fn listed(server: &Server<NoAnswers>) -> usize {
    server.closing.lock().due.len()
}

#[test]
fn a_client_that_has_not_acknowledged_its_answer_is_looked_at_again() {
    let (server, _other_side) = look(|_, _| {});
    assert_eq!((listed(&server), count(&server.stats.tasks)), (1, 0));
}

#[test]
fn a_client_that_has_sent_bytes_gets_a_task_that_reads_them() {
    let (server, _other_side) = look(|client, other_side| {
        other_side.write_all(b"late").expect("it is open");
        wait_until(|| client.tcp_info().is_some_and(|info| info.received == 4));
    });
    assert_eq!((listed(&server), count(&server.stats.tasks)), (0, 1));
}

#[test]
fn an_end_of_the_client_is_no_byte() {
    let (server, _other_side) = look(|client, other_side| {
        other_side.shutdown(Shutdown::Write).expect("it is open");
        wait_until(|| client.tcp_info().is_some_and(|info| info.received == 1));
    });
    assert_eq!((listed(&server), count(&server.stats.tasks)), (1, 0));
}

#[test]
fn a_client_that_has_acknowledged_the_end_has_all() {
    let (server, _other_side) = look(|client, _| {
        client.finish().expect("it is open");
        wait_until(|| client.tcp_info().is_some_and(|info| info.is_settled()));
    });
    assert_eq!((listed(&server), count(&server.stats.stale)), (0, 1));
}

#[test]
fn a_client_that_takes_nothing_for_the_client_timeout_is_reset() {
    let server = server();
    let (connection, mut other_side) = unacknowledged();
    let since = Instant::now();

    server.look_again(connection, since + server.limits.client_timeout);

    assert_eq!((listed(&server), count(&server.stats.failures)), (0, 1));
    let end = other_side.read(&mut [0]).map_err(|e| e.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}
