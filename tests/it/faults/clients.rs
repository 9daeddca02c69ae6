//! Clients that send what no one asked for, are slow, are stuck, or vanish.

use crate::support::{
    Client, FakeUpstream, Folder, LONG, RESET, SHORT, ServerProcess, Service, count, long_poem,
    proxy, raise_descriptor_limit, transform_service, wait_for_count, wait_until,
};
use std::io::{ErrorKind, Read, Write};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// A poem of which some part is always in some buffer.
fn large() -> Vec<u8> {
    long_poem(6 << 20)
}

/// A proxy that keeps `poem`.
fn proxy_with(poem: &[u8]) -> Service {
    let upstream = FakeUpstream::new();
    proxy(&upstream).start_with(&upstream, poem)
}

#[test]
fn a_client_that_takes_nothing_is_reset_and_others_are_served() {
    let upstream = FakeUpstream::new();
    let client_timeout = Duration::from_secs(3);
    let proxy = proxy(&upstream).client_timeout(client_timeout).start();
    let poem = vec![b'x'; 12 << 20];

    let mut stuck = Client::narrow(proxy.addr);
    let sending = upstream.accept().send_in_background(poem.clone());
    assert!(proxy.get().unwrap() == poem);
    sending.join().unwrap();

    wait_for_count("failures", &proxy.stats.failures, 1);
    proxy.wait_for_open(0);
    assert_eq!(stuck.rest(), RESET);
    assert_eq!(
        count(&proxy.stats.misses) + count(&proxy.stats.coalesced),
        1
    );
}

#[test]
fn a_waiting_client_that_resets_frees_its_place() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).max_clients(1).start();

    let first = proxy.connect();
    let connection = upstream.accept();
    let mut second = proxy.connect();
    first.reset();
    connection.send(b"poem").close();

    assert_eq!(second.rest().unwrap(), b"poem");
}

#[test]
fn a_reset_frees_the_place_after_a_half_close_or_many_bytes() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let half_closed = proxy.connect();
    let mut talker = proxy.connect();
    let connection = upstream.accept();
    half_closed.half_close();
    talker.send(&[b'?'; 100_000]);

    let mut later = proxy.connect();
    proxy.wait_for_open(3); // by then the server has read what came, but for the last of it
    half_closed.reset();
    talker.reset();
    proxy.wait_for_open(1);

    connection.send(b"poem").close();
    assert_eq!(later.rest().unwrap(), b"poem");
}

#[test]
fn a_waiting_client_may_send_bytes_or_half_close() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let mut talker = proxy.connect();
    let mut half_closed = proxy.connect();
    let connection = upstream.accept();
    talker.send(b"GET / HTTP/1.0\r\n\r\n");
    half_closed.half_close();
    proxy.wait_for_open(2);
    connection.send(b"poem").close();

    assert_eq!(talker.rest().unwrap(), b"poem");
    assert_eq!(half_closed.rest().unwrap(), b"poem");
}

#[test]
fn unasked_bytes_cost_nothing_before_during_and_after_a_poem() {
    let poem = large();
    let proxy = proxy_with(&poem);
    let unasked = [b'?'; 10_000];

    for _ in 0..5 {
        let mut client = proxy.connect();
        client.send(&unasked);
        let mut received = client.read(1 << 20);

        client.send(&unasked);
        received.extend(client.read(poem.len() - received.len()));

        client.try_send(&unasked);
        received.extend(client.rest().unwrap());
        assert!(received == poem);
    }

    proxy.wait_for_open(0);
}

#[test]
fn an_unasked_megabyte_does_not_cut_what_the_kernel_holds() {
    // More than is on the wire at once, and no more than the kernel takes at once.
    let poem = [b'x'; 60_000];
    let proxy = proxy_with(&poem);

    let mut client = Client::narrow(proxy.addr);
    client.send(&[b'?'; 1 << 20]);
    assert!(client.rest().unwrap() == poem);

    client.half_close();
    proxy.wait_for_open(0);
}

#[test]
fn a_late_byte_cuts_no_short_poem_behind_a_small_window() {
    for length in [700, 1024, 1152, 1153, 12_000, 14_480] {
        let poem = long_poem(length);
        let proxy = proxy_with(&poem);

        let mut narrow = Client::narrow(proxy.addr);
        assert!(
            proxy.get().unwrap() == poem,
            "and the narrow one was before it"
        );
        narrow.try_send(b"x");

        let all = narrow.rest();
        assert!(all.is_ok_and(|all| all == poem), "of {length} bytes");
    }
}

#[test]
fn a_client_that_takes_nothing_of_a_short_hit_is_reset() {
    let poem = long_poem(12_000);
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).client_timeout(SHORT).max_clients(2);
    let proxy = builder.start_with(&upstream, &poem);

    let mut stuck: Vec<Client> = (0..4).map(|_| Client::narrow(proxy.addr)).collect();
    wait_for_count("failures", &proxy.stats.failures, 4);
    for client in &mut stuck {
        assert_eq!(client.rest(), RESET);
    }
    assert!(proxy.get().unwrap() == poem);
}

#[test]
fn a_client_that_takes_a_little_now_and_then_is_not_stuck() {
    let poem = large();
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).client_timeout(SHORT);
    let proxy = builder.start_with(&upstream, &poem);

    // Less than the kernel needs to take more from the server within the timeout.
    let mut slow = Client::narrow(proxy.addr);
    let started = Instant::now();
    while started.elapsed() < 4 * SHORT {
        assert_eq!(slow.read(200).len(), 200);
        park_timeout(SHORT / 20);
    }
    assert_eq!(count(&proxy.stats.failures), 0);

    wait_for_count("failures", &proxy.stats.failures, 1);
    assert_eq!(slow.rest(), RESET, "once it takes nothing");
}

#[test]
fn a_client_that_half_closed_is_served_in_every_protocol() {
    let upstream = FakeUpstream::new();
    let line = proxy(&upstream).line().start();
    let service = transform_service().start();
    let poem = proxy_with(b"kept");

    let half_close = |service: &Service, request: &[u8]| {
        let client = service.request(request);
        client.half_close();
        client
    };

    let mut client = half_close(&line, b"name\n");
    upstream.accept().skip(6).send(b"poem").close();
    assert_eq!(client.rest().unwrap(), b"poem");

    let mut client = half_close(&service, b"7:shout.a,");
    assert_eq!(client.rest().unwrap(), b"1:A,");

    let mut client = half_close(&poem, b"");
    assert_eq!(client.rest().unwrap(), b"kept");
}

#[test]
fn a_client_that_leaves_at_any_step_costs_no_other() {
    for step in 0..4 {
        leave_at(step, drop);
        leave_at(step, Client::reset);
    }
}

/// Three clients share a fetch; one of them, now the one that caused it and now
/// another, calls `leave` at `step`.
fn leave_at(step: usize, leave: fn(Client)) {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    let mut leaver = Some(clients.remove(step % 3));
    let mut leave_if = |is_now: bool| {
        if is_now {
            leave(leaver.take().unwrap());
        }
    };
    let mut read_all = |text: &[u8]| {
        for client in &mut clients {
            assert_eq!(client.read(text.len()), text);
        }
    };

    leave_if(step == 0); // before the upstream has accepted
    let connection = upstream.accept();
    leave_if(step == 1); // before the first byte
    let connection = connection.send(b"once ");
    read_all(b"once ");
    leave_if(step == 2); // half way
    let connection = connection.send(b"upon");
    read_all(b"upon");
    leave_if(step == 3); // just before the end
    connection.close();

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"");
    }
    assert_eq!(proxy.get().unwrap(), b"once upon", "at step {step}");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_slow_reader_delays_no_other_and_gets_its_poem() {
    let poem = large();
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let mut slow = Client::narrow(proxy.addr);
    let sending = upstream.accept().send_in_background(poem.clone());
    assert_eq!(slow.read(1), &poem[..1]);

    // The others are done before it has read a second byte.
    for _ in 0..3 {
        assert!(proxy.get().unwrap() == poem);
    }
    sending.join().unwrap();

    assert_eq!(slow.read(10), &poem[1..11]);
    assert!(slow.rest().unwrap() == poem[11..]);
}

#[test]
fn a_thousand_stuck_clients_cost_little_memory_and_no_other() {
    const STUCK: usize = 1000;
    raise_descriptor_limit();
    let folder = Folder::new();
    let file = folder.write("large.txt", large());
    // One thread: the allocator keeps memory for each, however many clients there are.
    let flags = ["--client-timeout", "8s", "--threads", "1"];
    let args = [&["serve", "--port", "0", &file], &flags[..]].concat();
    let mut server = ServerProcess::start(&args);
    let (memory, descriptors) = (server.memory(), server.descriptors());

    let stuck: Vec<Client> = (0..STUCK).map(|_| Client::narrow(server.addr)).collect();
    wait_until("all are accepted", || {
        server.descriptors() >= descriptors + STUCK
    });
    assert!(server.get().unwrap() == large());
    let each = server.memory().saturating_sub(memory) / STUCK as u64;
    assert!(each < 4096, "{each} bytes for a stuck client");

    wait_until("--client-timeout is over", || {
        server.descriptors() <= descriptors
    });
    for mut client in stuck {
        assert_eq!(client.rest(), RESET);
    }
    assert!(server.get().unwrap() == large());
    server.stop();
}

#[test]
fn a_slow_request_is_ended_however_often_a_byte_comes() {
    let client_timeout = Duration::from_millis(100);
    let service = transform_service().client_timeout(client_timeout).start();

    let mut client = service.request(b"1000000:");
    client.set_patience(Duration::from_millis(5));
    let error = loop {
        client.try_send(b"x");
        match client.stream.read(&mut [0]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            ended => break ended.unwrap_err().kind(),
        }
    };

    assert_eq!(error, ErrorKind::ConnectionReset);
}

#[test]
fn fifty_endless_lines_are_ended_while_others_are_served() {
    let upstream = FakeUpstream::new();
    let client_timeout = Duration::from_secs(1);
    let proxy = proxy(&upstream)
        .line()
        .client_timeout(client_timeout)
        .start();

    end_slow_requests(&upstream, &proxy, b"x", b"name\r\n");
}

#[test]
fn fifty_endless_lengths_are_ended_while_others_are_served() {
    let upstream = FakeUpstream::new();
    let client_timeout = Duration::from_secs(1);
    let proxy = proxy(&upstream)
        .netstring()
        .client_timeout(client_timeout)
        .start();

    end_slow_requests(&upstream, &proxy, b"1", b"3:a.A,");
}

/// Fifty clients send `drip` again and again until they are reset. A client that sends
/// `request` meanwhile is answered.
fn end_slow_requests(upstream: &FakeUpstream, proxy: &Service, drip: &[u8], request: &[u8]) {
    let mut slow: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    let mut drip_on = || slow.iter_mut().for_each(|client| client.try_send(drip));

    drip_on();
    let mut client = proxy.request(request);
    upstream
        .accept()
        .skip(request.len())
        .send(b"4:poem,")
        .close();
    assert_eq!(client.rest().unwrap(), b"4:poem,");

    wait_until("all are ended", || {
        drip_on();
        count(&proxy.stats.open) == 0
    });
    for mut client in slow {
        let answer = client.rest().unwrap_or_default();
        assert!(answer.is_empty(), "none has got an answer");
    }
}

#[test]
fn all_waiting_clients_may_leave_and_come_back() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    let clients: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    let connection = upstream.accept().send(b"half ");
    proxy.wait_for_open(50);
    clients.into_iter().for_each(Client::reset);
    proxy.wait_for_open(0);

    connection.send(b"whole").close();
    wait_for_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.get().unwrap(), b"half whole");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_client_that_sends_without_end_is_not_read_without_end() {
    const MOST: usize = 64 << 20;
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let mut talker = proxy.connect();
    let connection = upstream.accept();
    let patience = Duration::from_millis(200);
    talker.stream.set_write_timeout(Some(patience)).unwrap();

    let mut sent = 0;
    while sent < MOST {
        match talker.stream.write(&[b'?'; 1 << 16]) {
            Ok(count) => sent += count,
            Err(_) => break, // the kernel's buffers are full, and the server leaves them so
        }
    }
    assert!(sent < MOST, "it is still read");

    connection.send(b"poem").close();
    talker.set_patience(LONG);
    assert_eq!(talker.read(4), b"poem", "and it is served all the same");
    let _reset_or_end = talker.stream.read(&mut [0]);
}

#[test]
fn a_slow_client_gets_the_part_before_its_reset() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let part = long_poem(10_000); // the kernel takes it all, and such a client little
    let mut slow = Client::narrow(proxy.addr);
    let connection = upstream.accept().send(&part);
    let mut got = slow.read(1);
    connection.reset();
    wait_for_count("failed", &proxy.stats.failed_fetches, 1);

    let end = slow.stream.read_to_end(&mut got);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(part.starts_with(&got));
    // The last packet may be lost.
    assert!(got.len() > part.len() / 2, "{} bytes", got.len());
}
