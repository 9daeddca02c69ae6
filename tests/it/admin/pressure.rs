//! It answers while the service doesn't, and whatever others do to it.

use crate::support::{Client, FakeUpstream, HOUR, LONG, Operators, proxy, read_all, request};
use poetry::cache::Purge;
use poetry::control::{Control, Snapshot, Texts};
use poetry::heartbeat::Heartbeat;
use poetry::rt;
use poetry::stats::Stats;
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn it_answers_while_the_executor_is_stuck_and_says_so() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let (hand_over, handed) = channel();
    let (free, freed) = channel::<()>();
    let (end, ended) = futures::channel::oneshot::channel::<()>();
    let executor = thread::spawn(move || {
        rt::run_beside(async move {
            let long_ago = Instant::now().checked_sub(HOUR).unwrap();
            let heartbeat = Arc::new(Heartbeat::new(NonZeroUsize::MIN, long_ago));
            heartbeat.start(0);
            hand_over.send(heartbeat).unwrap();
            let _stuck = freed.recv();
            let _running = ended.await;
        });
    });
    let operators = Operators::of(&proxy, handed.recv_timeout(LONG).unwrap());

    let live = request(operators.loopback, "GET /health/live");
    assert_eq!(live.status, 503);
    assert!(live.body.starts_with("stuck for 36"), "{}", live.body);
    let (said, is_clean) = operators.unix(b"live\n");
    assert!(said.starts_with("stuck for 36") && !is_clean, "{said}");
    assert_eq!(request(operators.loopback, "GET /status").status, 200);

    drop(free);
    crate::support::wait_until("it runs again", || {
        request(operators.loopback, "GET /health/live").status == 200
    });
    drop(end);
    executor.join().unwrap();
}

#[test]
fn it_answers_while_as_many_clients_are_open_as_may_be() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_clients(1).start();
    let _first = proxy.connect();
    let _fetch = upstream.accept();
    let _waits_in_the_kernel = proxy.connect();

    let operators = Operators::healthy(&proxy);
    let status = request(operators.loopback, "GET /status").json();
    assert_eq!(status["clients"]["open"], 1);
}

#[test]
fn half_a_head_and_half_a_command_are_given_five_seconds() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let operators = Operators::healthy(&proxy);

    let started = Instant::now();
    let mut head = Client::connect(operators.loopback);
    head.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n");
    let mut command = Client::connect(operators.loopback);
    command.send(b"stat");
    let mut nothing = Client::connect(operators.loopback);

    let (answer, is_clean) = read_all(&mut head.stream);
    assert!(answer.starts_with("HTTP/1.1 408 ") && is_clean, "{answer}");
    assert_eq!(read_all(&mut command.stream), (String::new(), false));
    assert_eq!(read_all(&mut nothing.stream), (String::new(), false));
    assert!(started.elapsed() >= Duration::from_secs(4));
}

#[test]
fn five_hundred_slow_connections_keep_no_other_address_waiting() {
    crate::support::raise_descriptor_limit();
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let operators = Operators::healthy(&proxy);

    let slow = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _begun = socket.connect(&operators.loopback.into());
        socket
    };
    let slow: Vec<Socket> = (0..500).map(slow).collect();
    for socket in &slow {
        let _not_connected = socket.send(b"GET / HTTP/1.1\r\n");
    }

    let started = Instant::now();
    assert_eq!(operators.unix(b"live\n"), ("live\n".into(), true));
    let elsewhere = request(operators.elsewhere, "GET /health/live");
    assert_eq!(elsewhere.status, 200);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "neither waited for the slow ones"
    );

    drop(slow);
    assert_eq!(request(operators.loopback, "GET /health/live").status, 200);
}

#[test]
fn a_draining_service_is_not_ready() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let operators = Operators::healthy(&proxy);
    assert_eq!(
        request(operators.elsewhere, "GET /health/ready").body,
        "ready\n"
    );

    operators.admin.drain();
    let ready = request(operators.elsewhere, "GET /health/ready");
    assert_eq!((ready.status, &*ready.body), (503, "draining\n"));
    assert_eq!(operators.unix(b"ready\n"), ("draining\n".into(), false));
    assert_eq!(request(operators.elsewhere, "GET /health/live").status, 200);
}

/// A service whose purge says that it has begun, and ends when it is told to.
struct LongPurge {
    begun: Mutex<Sender<()>>,
    end: Mutex<Receiver<()>>,
}

impl Control for LongPurge {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        Snapshot::of(stats, now)
    }

    fn purge(&self, _: Texts<'_>, _: Purge, _: Instant) -> u64 {
        self.begun.lock().unwrap().send(()).unwrap();
        self.end.lock().unwrap().recv_timeout(LONG).unwrap();
        7
    }
}

#[test]
fn health_is_answered_while_a_million_texts_are_purged() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let (begin, begun) = channel();
    let (end, ended) = channel();
    let control = Arc::new(LongPurge {
        begun: begin.into(),
        end: ended.into(),
    });
    let heartbeat = Heartbeat::new(NonZeroUsize::MIN, Instant::now());
    let operators = Operators::with(control, &proxy, Arc::new(heartbeat));

    let mut purge = UnixStream::connect(&operators.unix).unwrap();
    purge.write_all(b"purge --all\n").unwrap();
    begun.recv_timeout(LONG).unwrap();
    let live = request(operators.loopback, "GET /health/live");
    end.send(()).unwrap();
    assert_eq!(live.status, 200);
    assert_eq!(read_all(&mut purge), ("purged 7 answers\n".into(), true));
}
