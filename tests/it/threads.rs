//! A service on several threads: one cache, one limit, one drain, and one address.

use crate::support::{
    BUG, Client, FakeUpstream, Folder, LONG, RESET, SHORT, ServerProcess, Signal, ZERO, bind,
    command, count, proxy, raise_descriptor_limit, run, run_with_a_broken_thread, serve, text,
    wait_for_count, wait_until,
};
use poetry::observe::{AccessRecord, Event, Observer};
use std::collections::HashSet;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{ThreadId, current, park_timeout};
use std::time::Duration;

const THREADS: usize = 4;

/// Notes the threads that end connections, and what is told of the drain.
#[derive(Default)]
struct Notes {
    threads: Mutex<HashSet<ThreadId>>,
    drains: Mutex<Vec<(&'static str, u64)>>,
}

impl Notes {
    fn threads(&self) -> usize {
        self.threads.lock().unwrap().len()
    }

    fn drains(&self) -> Vec<(&'static str, u64)> {
        self.drains.lock().unwrap().clone()
    }
}

impl Observer for Notes {
    fn request(&self, _: &AccessRecord<'_>) {
        self.threads.lock().unwrap().insert(current().id());
    }

    fn event(&self, event: Event<'_>) {
        let drain = match event {
            Event::Draining { open } => ("draining", open),
            Event::Cut { open } => ("cut", open),
            _ => return,
        };
        self.drains.lock().unwrap().push(drain);
    }
}

#[test]
fn a_thousand_clients_of_all_threads_cause_one_fetch() {
    raise_descriptor_limit();
    let notes = Arc::new(Notes::default());
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).threads(THREADS);
    let proxy = builder.server_observer(notes.clone()).start();

    let mut clients: Vec<Client> = (0..1000).map(|_| proxy.connect()).collect();
    let connection = upstream.accept().send(b"half ");
    proxy.wait_for_open(1000);
    connection.send(b"whole").close();

    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"half whole");
    }
    proxy.wait_for_open(0);
    assert_eq!(count(&proxy.stats.fetches), 1);
    assert_eq!(upstream.connections(), 1);
    assert_eq!(notes.threads(), THREADS);
}

#[test]
fn all_threads_serve_hits_and_none_makes_a_task() {
    let notes = Arc::new(Notes::default());
    let server = serve(&[b"poem"]).threads(THREADS);
    let server = server.server_observer(notes.clone()).start();

    let mut answers = 0;
    wait_until("all threads have served", || {
        assert_eq!(server.get().unwrap(), b"poem");
        answers += 1;
        notes.threads() == THREADS
    });

    wait_for_count("answers", &server.stats.own, answers);
    assert_eq!(count(&server.stats.tasks), 0);
}

#[test]
fn the_next_fetch_starts_whichever_thread_ends_the_last() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(1);
    let proxy = builder.threads(THREADS).start();

    let ask = |number: usize| proxy.request(format!("{number:03}\n").as_bytes());
    let clients: Vec<Client> = (0..50).map(ask).collect();
    for _ in 0..50 {
        let (connection, name) = upstream.accept().read(4);
        connection.send(&name[..3]).close();
    }

    for (number, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.rest().unwrap(), format!("{number:03}").as_bytes());
    }
    assert_eq!(count(&proxy.stats.fetches), 50);
}

#[test]
fn max_clients_holds_for_all_threads_together() {
    const MOST: u64 = 3;
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).threads(THREADS).max_clients(MOST);
    let proxy = builder.start();

    let clients: Vec<Client> = (0..40).map(|_| proxy.connect()).collect();
    let connection = upstream.accept();
    proxy.wait_for_open(MOST);
    for _ in 0..50 {
        assert_eq!(count(&proxy.stats.open), MOST);
        park_timeout(Duration::from_millis(1));
    }

    connection.send(b"poem").close();
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
}

#[test]
fn with_one_place_a_busy_thread_keeps_no_other_waiting() {
    let server = serve(&[b"poem"]).threads(THREADS).max_clients(1).start();
    let addr = server.addr;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(Client::get(addr).unwrap(), b"poem");
                }
            });
        }
    });
    wait_for_count("answers", &server.stats.own, 100 * THREADS as u64);
}

#[test]
fn a_drain_waits_for_all_threads_and_is_told_once() {
    let notes = Arc::new(Notes::default());
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).threads(THREADS);
    let mut proxy = builder.server_observer(notes.clone()).start();
    let mut clients: Vec<Client> = (0..40).map(|_| proxy.connect()).collect();
    let connection = upstream.accept().send(b"half ");
    proxy.wait_for_open(40);

    proxy.stop();
    wait_until("it drains", || !notes.drains().is_empty());
    assert!(Client::try_connect(proxy.addr).is_err());
    assert!(!proxy.has_ended_within(Duration::from_millis(20)));
    connection.send(b"whole").close();

    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"half whole");
    }
    assert!(proxy.has_ended_within(LONG));
    assert_eq!(notes.drains(), [("draining", 40)]);
}

#[test]
fn what_is_not_finished_in_time_is_cut_on_all_threads() {
    let notes = Arc::new(Notes::default());
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).threads(THREADS).drain_timeout(SHORT);
    let mut proxy = builder.server_observer(notes.clone()).start();
    let clients: Vec<Client> = (0..40).map(|_| proxy.connect()).collect();
    let _connection = upstream.accept().send(b"half");
    proxy.wait_for_open(40);

    proxy.stop();
    assert!(proxy.has_ended_within(LONG));
    assert_eq!(notes.drains(), [("draining", 40), ("cut", 40)]);
    drop(clients);
}

#[test]
fn a_thread_that_panics_ends_the_service() {
    let panic = run_with_a_broken_thread().unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), BUG);
}

#[test]
fn all_threads_serve_the_clients_of_one_unix_socket() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let notes = Arc::new(Notes::default());
    let upstream = FakeUpstream::new();
    let listen = format!("unix:{}", path.display());
    let builder = proxy(&upstream).ttl(ZERO).threads(THREADS).listen(&listen);
    let proxy = builder.server_observer(notes.clone()).start();

    // Clients that wait: each passes the turn to the next thread.
    wait_until("all threads have served", || {
        let clients = (0..2 * THREADS).map(|_| UnixStream::connect(&path).unwrap());
        let clients: Vec<UnixStream> = clients.collect();
        let connection = upstream.accept();
        proxy.wait_for_open(clients.len() as u64);
        connection.send(b"poem").close();

        for mut client in clients {
            let mut poem = Vec::new();
            client.read_to_end(&mut poem).unwrap();
            assert_eq!(poem, b"poem");
        }
        proxy.wait_for_open(0);
        notes.threads() == THREADS
    });
}

#[test]
fn an_address_in_use_is_refused_however_many_threads_there_are() {
    for threads in ["1", "4"] {
        let flags = ["--port", "0", "--threads", threads];
        let first = ServerProcess::start(&[&["serve"], &flags[..]].concat());
        let addr = first.addr.to_string();

        for other in ["1", "4"] {
            let args = ["serve", "--listen", &addr, "--threads", other];
            let out = run(command(&args));
            assert!(!out.status.success());
            let error = text(&out.stderr);
            assert!(error.contains("address already in use"), "{error}");
        }
        assert!(bind(&addr).is_err());
        assert!(first.get().is_ok());
    }
}

#[test]
fn a_process_with_four_threads_has_one_ready_line_and_ends_in_order() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = ["proxy", "--port", "0", "--threads", "4", &addr];
    let mut server = ServerProcess::start(&args);
    let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    let connection = upstream.accept().send(b"half ");
    for client in &mut clients {
        assert_eq!(client.read(5), b"half ");
    }

    server.signal(Signal::TERM);
    let log = server.stderr_lines();
    while !log.recv_timeout(LONG).unwrap().contains("stopping") {}
    connection.send(b"whole").close();

    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"whole");
    }
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(server.next_line(), None, "one address, one line");
}

#[test]
fn a_killed_process_with_four_threads_resets_its_clients() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = ["proxy", "--port", "0", "--threads", "4", &addr];
    let mut server = ServerProcess::start(&args);
    let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    let _connection = upstream.accept().send(b"half");
    for client in &mut clients {
        assert_eq!(client.read(4), b"half");
    }

    server.child.kill().unwrap();
    for client in &mut clients {
        assert_eq!(client.rest(), RESET);
    }
}

#[test]
fn each_thread_counts_a_descriptor_for_each_address() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = ["proxy", "--port", "0", "--threads", "4", &addr];
    let mut server = ServerProcess::start_with_descriptors(64, &args);

    let clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    upstream.serve_once(b"poem");
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }

    let log = server.stop_and_read_log();
    assert!(log.contains("serving at most 6 clients at once"), "{log}");
    assert!(!log.contains("accepting pauses"), "{log}");
}
