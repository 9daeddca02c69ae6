//! The path of a hit stays what it is: an answer on the socket just accepted, and nothing that has to be waited for.
//! Nothing is timed here; what is slow is counted instead.

use crate::bard::{Bard, Client, LIMITS, Running, settings, until_count};
use std::sync::atomic::{AtomicU64, Ordering};

/// A poem as it is usual: far below the 14,480 bytes that are on the wire when `send` returns.
const POEM: [u8; 700] = [b'x'; 700];

fn keeping(bard: Bard) -> Running {
    let proxy = Running::proxy_with(settings(&bard), LIMITS);
    bard.trickle(&POEM);
    assert_eq!(proxy.ask().unwrap(), POEM);
    proxy.open(0);
    proxy
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}

#[test]
fn a_thousand_hits_make_no_task_no_registration_and_no_fetch() {
    let proxy = keeping(Bard::new());
    let (tasks, fetches) = (count(&proxy.stats.tasks), count(&proxy.stats.fetches));
    for _ in 0..1000 {
        assert_eq!(proxy.ask().unwrap(), POEM);
    }
    until_count("hits", &proxy.stats.hits, 1000); // the last is counted just behind its end
    assert_eq!(
        (count(&proxy.stats.tasks), count(&proxy.stats.fetches)),
        (tasks, fetches)
    );
}

#[test]
fn hits_that_come_together_make_no_task_either() {
    let proxy = keeping(Bard::new());
    let tasks = count(&proxy.stats.tasks);
    let mut clients: Vec<Client> = (0..500).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), POEM);
    }
    assert_eq!(count(&proxy.stats.tasks), tasks);
}

#[test]
fn only_a_client_that_has_talked_is_lingered_for() {
    let proxy = keeping(Bard::new());
    let tasks = count(&proxy.stats.tasks);
    let mut talker = proxy.connect();
    let _heard_or_gone = std::io::Write::write_all(&mut talker.stream, b"hello?");
    assert_eq!(talker.rest().unwrap(), POEM);
    drop(talker);
    proxy.open(0);
    assert!(count(&proxy.stats.tasks) - tasks <= 1);
}

/// What the counter above stands for: there is one place where a connection gets a task, and one where it is
/// registered, and they are the same.
#[test]
fn a_connection_gets_a_task_in_one_place_only() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = std::fs::read_to_string(root.join("src/core/server.rs")).unwrap();
    assert_eq!(
        (
            server.matches("spawn(").count(),
            server.matches(".register()").count()
        ),
        (1, 1)
    );
    let place = server
        .split("fn spawn_connection")
        .nth(1)
        .unwrap()
        .split("\n    fn ")
        .next()
        .unwrap();
    assert!(
        place.contains("spawn(") && place.contains(".register()") && place.contains("stats.tasks")
    );
}
