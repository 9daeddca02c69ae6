//! `transform`: the service against an independent client, and the filter.

use crate::support::{FakeUpstream, Folder, Process, command, poetry, text, transform_service};
use std::process::Stdio;

#[test]
fn the_service_answers_a_netstring_with_a_netstring() {
    let service = transform_service().start();

    let answer = service.ask(b"27:cummingsify.HERE IS MY POEM,").unwrap();

    assert_eq!(answer, b"15:here is my poem,");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let service = transform_service().start();
    let mut client = service.connect();
    client.stream.set_nodelay(true).unwrap();

    for byte in b"7:shout.a," {
        client.send(&[*byte]);
    }

    assert_eq!(client.rest().unwrap(), b"1:A,");
}

#[test]
fn a_request_that_cannot_be_done_is_closed_without_a_reply() {
    let service = transform_service().start();
    let requests: [&[u8]; 8] = [
        b"5:nodot,",
        b"6:what.x,",
        b"7:shout.\xff,",
        b"05:shout,",
        b"x",
        b"99999999:",
        b"7:shout.ab",
        b"5:a.b",
    ];

    for request in requests {
        let mut client = service.request(request);
        client.half_close();
        let answer = client.rest();
        assert_eq!(answer, Ok(Vec::new()), "{}", request.escape_ascii());
    }
}

#[test]
fn an_empty_poem_is_transformed_into_an_empty_poem() {
    let service = transform_service().start();

    assert_eq!(service.ask(b"6:shout.,").unwrap(), b"0:,");
}

#[test]
fn the_filter_reads_stdin_and_writes_stdout() {
    let mut command = command(&["transform", "cummingsify,number"]);
    command.stdin(Stdio::piped());
    let mut filter = Process::spawn(command);

    filter.write_stdin(b"A\nB\n");

    assert_eq!(text(&filter.finish().stdout), "1  a\n2  b\n");
}

#[test]
fn the_filter_can_use_a_service() {
    let service = FakeUpstream::new();
    let addr = service.addr.to_string();
    let file = Folder::new();
    let path = file.write("poem", "AB");

    let serving = std::thread::spawn(move || {
        service.accept().skip(7).send(b"2:ab,").close();
    });
    let out = poetry(&["transform", "x", &path, "--via", &addr]);
    serving.join().unwrap();

    assert_eq!(text(&out.stdout), "ab");
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn an_unknown_name_is_a_usage_error_that_offers_the_nearest() {
    let out = poetry(&["transform", "cumingsify"]);

    let error = text(&out.stderr);
    let expected = "a similar transformation exists: 'cummingsify'";
    assert_eq!(out.status.code(), Some(2));
    assert!(error.contains(expected), "{error}");
}
