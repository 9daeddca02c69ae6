//! Memory: what requests, answers and fetches may hold.

use crate::support::{
    Client, FakeUpstream, Folder, RESET, ServerProcess, netstring, raise_descriptor_limit,
    transform_service, wait_until,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[test]
fn a_stuck_client_leaves_little_in_the_send_queue() {
    let folder = Folder::new();
    let file = folder.write("large.txt", vec![b'x'; 8 << 20]);
    let server = ServerProcess::start(&["serve", "--port", "0", &file]);

    for client in [server.connect(), Client::narrow(server.addr)] {
        let far = client.stream.local_addr().unwrap();
        let mut queued = 0;
        let mut since = Instant::now();

        // An acknowledgement takes less than 100 ms.
        wait_until("the queue has been the same for 100 ms", || {
            let before = std::mem::replace(&mut queued, Queues::of(server.addr, far).send);
            if queued != before || queued == 0 {
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(100)
        });

        assert!(queued <= 64 << 10, "{queued} bytes");
    }
}

/// What the kernel holds at one end of a connection, in bytes.
struct Queues {
    /// Not sent, or not acknowledged.
    send: u64,
    /// Not read.
    receive: u64,
}

impl Queues {
    fn of(near: SocketAddr, far: SocketAddr) -> Queues {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ports = format!(":{:04X} 0100007F:{:04X} ", near.port(), far.port());
        let line = table.lines().find(|line| line.contains(&ports));

        let queues = line.and_then(|line| line.split_whitespace().nth(4)?.split_once(':'));
        let (send, receive) = queues.unwrap_or(("0", "0"));
        let bytes = |hexadecimal| u64::from_str_radix(hexadecimal, 16).unwrap();
        Queues {
            send: bytes(send),
            receive: bytes(receive),
        }
    }
}

#[test]
fn a_request_over_the_shared_memory_is_reset() {
    let service = transform_service().request_memory(1 << 20).start();
    let begin = [&b"900006:shout."[..], &[b'a'; 600_000]].concat();
    let rest = [&[b'a'; 300_000][..], b","].concat();
    let answer = netstring(&[b'A'; 900_000]);

    // The first request holds most of the memory.
    let mut first = service.request(&begin);
    let far = first.stream.local_addr().unwrap();
    wait_until("all of it is read", || {
        let unsent = Queues::of(far, service.addr).send;
        unsent == 0 && Queues::of(service.addr, far).receive == 0
    });

    // Another of this size is reset, and a small one is not.
    assert_eq!(service.ask(&begin), RESET);
    assert_eq!(service.ask(b"9:shout.abc,").unwrap(), b"3:ABC,");

    // The first goes on, and leaves the memory to the next.
    first.send(&rest);
    assert!(first.rest().unwrap() == answer);
    drop(first);
    service.wait_for_open(0);
    assert!(service.ask(&[begin, rest].concat()).unwrap() == answer);
}

#[test]
fn answers_share_the_memory_of_requests_until_they_are_read() {
    const LENGTH: usize = 900_000;
    const FRAMED: usize = LENGTH + 8;
    // The longest poem, of 1 MiB, fits together with its answer, so that two of these
    // answers fit, and three do not.
    let builder = transform_service().request_memory(1 << 20);
    let program = format!("big=head -c {LENGTH} /dev/zero");
    let service = builder.program(&program).start();
    let poem = [&b"900006:shout."[..], &[b'a'; LENGTH], b","].concat();

    // Two answers are made and not read.
    let stick = |_| {
        let mut client = Client::narrow(service.addr);
        client.send(b"5:big.x,");
        client.read(7);
        client
    };
    let mut stuck: Vec<Client> = (0..2).map(stick).collect();

    // A third is declined, a long request is reset, and a short one is answered.
    assert_eq!(service.ask(b"5:big.x,"), Ok(Vec::new()));
    assert_eq!(service.ask(&poem[..20_000]), RESET);
    assert_eq!(service.ask(b"9:shout.abc,").unwrap(), b"3:ABC,");

    // An answer that is read frees its memory, and so does one whose client leaves.
    assert_eq!(stuck[0].rest().unwrap().len(), FRAMED - 7);
    let mut next = service.request(b"5:big.x,");
    assert_eq!(next.rest().unwrap().len(), FRAMED);
    stuck.remove(1).reset();
    drop((stuck, next));
    service.wait_for_open(0);
    assert_eq!(service.ask(&poem).unwrap().len(), FRAMED);
}

#[test]
fn a_request_that_waits_for_its_answer_is_held_once() {
    const LENGTH: usize = 4 << 20;
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = ["proxy", "--port", "0", "--protocol", "netstring", &addr];
    let server = ServerProcess::start(&args);
    let before = server.memory();

    let ask = |number: u8| {
        let mut client = server.connect();
        client.send(&netstring(&vec![number; LENGTH]));
        client
    };
    let clients: Vec<Client> = (0..6).map(ask).collect();
    let connections: Vec<_> = clients.iter().map(|_| upstream.accept().skip(8)).collect();

    let more = server.memory().saturating_sub(before);
    assert!(more < 36 << 20, "{more} bytes for six requests of 4 MiB");
    drop(connections);
}

#[test]
fn large_transformations_hold_their_poems_and_a_few_results() {
    const LINES: usize = 2 << 20;
    let server = ServerProcess::start(&["transform", "--port", "0"]);
    let before = server.peak_memory();
    let request = netstring(&[&b"reverse."[..], &[b'\n'; LINES]].concat());
    let answer = netstring(&[b'\n'; LINES]);

    let addr = server.addr;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(Client::ask(addr, &request).unwrap() == answer));
        }
    });

    let more = server.peak_memory() - before;
    assert!(more < 80 << 20, "{more} bytes for eight poems of 2 MiB");
}

#[test]
fn a_thousand_keys_in_flight_stay_within_the_capacity() {
    raise_descriptor_limit();
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let flags = [
        "--protocol",
        "line",
        "--capacity",
        "8MiB", // half of it for fetches: a thousand that wait take 2 MiB
        "--upstream-conns",
        "8",
    ];
    let args = [&["proxy", "--port", "0", &addr], &flags[..]].concat();
    let server = ServerProcess::start(&args);
    let before = server.memory();

    // 7 bytes each: 112 KiB, and about a hundred MiB together.
    let poem = |name: &[u8]| name.repeat(16 << 10);
    upstream.serve_each(move |_, connection| {
        let (connection, name) = connection.read(9);
        connection.try_send(&poem(&name[..7])).close();
    });
    let ask = |number: usize| {
        let mut client = server.connect();
        client.send(format!("key{number:04}\n").as_bytes());
        client
    };
    let clients: Vec<Client> = (0..1000).map(ask).collect();
    for (number, mut client) in clients.into_iter().enumerate() {
        let received = client.rest().unwrap();
        let wanted = poem(format!("key{number:04}").as_bytes());
        assert!(received == wanted, "{number}: {} bytes", received.len());
    }

    let more = server.memory().saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes for a capacity of 8 MiB");
}
