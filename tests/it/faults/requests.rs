//! Requests to an upstream that reads them slowly or not at all, and replies that lie
//! about their length.

use crate::support::{
    FakeUpstream, Folder, Process, RESET, SHORT, Service, command, netstring, poetry, proxy, text,
};
use socket2::SockRef;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread::{park_timeout, spawn};
use std::time::{Duration, Instant};

#[test]
fn with_half_close_an_upstream_may_read_to_the_end_of_a_line() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().half_close().start();
    ask_one_that_reads_to_the_end(&upstream, &proxy, b"name\r\n", b"poem");
}

#[test]
fn with_half_close_an_upstream_may_read_to_the_end_of_a_netstring() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().half_close().start();
    ask_one_that_reads_to_the_end(&upstream, &proxy, b"3:a.A,", b"1:a,");
}

fn ask_one_that_reads_to_the_end(
    upstream: &FakeUpstream,
    proxy: &Service,
    request: &[u8],
    answer: &[u8],
) {
    let mut client = proxy.request(request);
    let (connection, received) = upstream.accept().read_to_end();
    assert_eq!(received, request);

    connection.send(answer).close();
    assert_eq!(client.rest().unwrap(), answer);
}

#[test]
fn fetch_half_closes_after_its_line_where_asked() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let fetch = command(&["fetch", "--ask", "name", "--half-close", &addr]);
    let fetch = Process::spawn(fetch);

    let (connection, received) = upstream.accept().read_to_end();
    assert_eq!(received, b"name\r\n");
    connection.send(b"poem").close();
    let out = fetch.finish();
    assert_eq!(text(&out.stdout), "poem");

    let out = poetry(&["fetch", "--half-close", &addr]);
    assert_eq!(out.status.code(), Some(2), "without a request");
    let out = poetry(&["proxy", "--port", "0", "--half-close", &addr]);
    assert_eq!(out.status.code(), Some(2), "without a request");
}

#[test]
fn an_upstream_that_never_reads_our_request_is_given_up() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().idle_timeout(SHORT).start();

    let request = netstring(&vec![b'x'; 8_000_000]);
    assert_eq!(proxy.ask(&request), RESET);

    upstream.accept().skip(9).wait_for_hangup();
}

#[test]
fn an_upstream_may_answer_while_it_reads() {
    const LENGTH: usize = 12 << 20; // more than two kernels hold for their programs
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().start();
    let request = netstring(&vec![b'x'; LENGTH]);
    let answer = request.to_ascii_uppercase();

    let length = request.len();
    let shouting = spawn(move || {
        let mut stream = upstream.accept().stream;
        let mut buffer = [0; 64 << 10];
        let mut received = 0;
        while received < length {
            let count = stream.read(&mut buffer).unwrap();
            buffer[..count].make_ascii_uppercase();
            stream.write_all(&buffer[..count]).unwrap();
            received += count;
        }
    });

    assert!(proxy.ask(&request).unwrap() == answer);
    shouting.join().unwrap();
}

#[test]
fn a_request_that_is_read_slowly_outlasts_the_idle_timeout() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().idle_timeout(SHORT).start();
    let request = netstring(&vec![b'x'; 4 << 20]);

    let length = request.len();
    let reading = spawn(move || {
        let mut connection = upstream.accept();
        let socket = SockRef::from(&connection.stream);
        socket.set_recv_buffer_size(64 << 10).unwrap();

        let mut buffer = [0; 16 << 10];
        let mut received = 0;
        while received < length {
            received += connection.stream.read(&mut buffer).unwrap();
            park_timeout(Duration::from_millis(10));
        }
        connection.send(b"4:poem,").close();
    });

    let started = Instant::now();
    assert_eq!(proxy.ask(&request).unwrap(), b"4:poem,");
    assert!(
        started.elapsed() > SHORT,
        "it took longer than any silence may"
    );
    reading.join().unwrap();
}

#[test]
fn a_reply_that_is_complete_before_its_request_is_whole() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().start();
    let request = netstring(&vec![b'x'; 8_000_000]);

    let answering = spawn(move || {
        let connection = upstream.accept().skip(9);
        connection.send(b"4:poem,").skip(100)
    });

    assert_eq!(proxy.ask(&request).unwrap(), b"4:poem,");
    drop(answering.join().unwrap());
}

#[test]
fn a_reply_that_lies_about_its_length_is_never_whole() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).netstring().max_poem(100).start();
    let lies: [&[u8]; 9] = [
        b"+1:a,",
        b"01:a,",
        b"-1:a,",
        b" 1:a,",
        b"1 :a,",
        b"101:",
        b"1:ab",
        b"1:a,b",
        b"18446744073709551617:a,",
    ];

    for lie in lies {
        let mut client = proxy.request(b"3:a.A,");
        upstream.accept().skip(6).try_send(lie).close();
        assert_eq!(client.rest(), RESET, "{}", lie.escape_ascii());
    }

    let mut client = proxy.request(b"3:a.A,");
    upstream.accept().skip(6).send(b"1:a,").close();
    assert_eq!(client.rest().unwrap(), b"1:a,");
}

#[test]
fn over_a_unix_socket_a_netstring_tells_a_part_from_a_whole() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.path("socket")).unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 6];
            stream.read_exact(&mut request).unwrap();

            let is_whole = request[4] == b'A';
            let answer: &[u8] = if is_whole { b"5:whole," } else { b"5:cut" };
            stream.write_all(answer).unwrap();
        }
    });

    let unused = FakeUpstream::new();
    let addr = format!("unix:{}", folder.arg("socket"));
    let proxy = proxy(&unused).netstring().upstreams_named(&[&addr]).start();

    assert_eq!(proxy.ask(b"3:a.A,").unwrap(), b"5:whole,");
    assert_eq!(proxy.ask(b"3:a.B,"), RESET);
}
