//! The upstream is down, silent or cut off, or leads back to the proxy.

use super::{all_are_reset, assert_key_is_free, waiting_clients};
use crate::support::{
    Asked, BlackHole, Connection, FakeUpstream, LONG, Protocol, RESET, SHORT, ServerProcess, ZERO,
    ask_and_interfere, count, proxy, reset, unused_addr, wait_for_count,
};
use std::net::{Shutdown, TcpStream};
use std::thread::{JoinHandle, spawn};

#[test]
fn a_refused_connection_is_a_reset_at_once() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).upstreams(&[unused_addr()]).start();

    assert_eq!(proxy.get(), RESET);
}

#[test]
fn after_a_refused_connection_the_next_upstream_is_tried() {
    let upstream = FakeUpstream::new();
    let dead = unused_addr();
    let proxy = proxy(&upstream)
        .upstreams(&[dead, dead, upstream.addr])
        .start();

    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn both_forms_of_the_log_name_the_next_upstream() {
    let upstream = FakeUpstream::new();
    let (dead, alive) = (unused_addr().to_string(), upstream.addr.to_string());
    let reason = format!("{dead}: could not connect: connection refused");
    let forms = [
        ("text", format!("poetry: {reason}; trying {alive}")),
        (
            "json",
            format!("\"next\":\"{alive}\",\"outcome\":\"refused\",\"reason\":\"{reason}\""),
        ),
    ];

    for (format, expected) in forms {
        let flags = ["-q", "--log-format", format];
        let args = [&["proxy", "--port", "0", &dead, &alive], &flags[..]].concat();
        let mut server = ServerProcess::start(&args);
        let log = server.stderr_lines();

        let mut client = server.connect();
        upstream.serve_once(b"poem");
        assert_eq!(client.rest().unwrap(), b"poem");

        let line = loop {
            let line = log.recv_timeout(LONG).unwrap();
            if line.contains("; trying ") || line.contains("\"next_upstream\"") {
                break line;
            }
        };
        let is_whole_line = format == "text";
        assert!(line.contains(&expected), "{line}");
        assert!(!is_whole_line || line == expected, "{line}");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_a_reset() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream)
        .upstreams_named(&["no-such-host.invalid:1"])
        .start();

    assert_eq!(proxy.get(), RESET);
}

#[test]
fn after_an_unresolved_name_the_next_upstream_is_tried() {
    let upstream = FakeUpstream::new();
    let addrs = ["no-such-host.invalid:1", &upstream.addr.to_string()];
    let proxy = proxy(&upstream).upstreams_named(&addrs).start();

    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_connect_without_an_answer_ends_by_its_deadline() {
    let upstream = FakeUpstream::new();
    let hole = BlackHole::new();
    let builder = proxy(&upstream).upstreams(&[hole.addr]);
    let proxy = builder.connect_timeout(SHORT).start();

    all_are_reset(waiting_clients(&proxy, 10));
}

#[test]
fn after_a_connect_deadline_the_next_upstream_is_tried() {
    let upstream = FakeUpstream::new();
    let hole = BlackHole::new();
    let builder = proxy(&upstream).upstreams(&[hole.addr, upstream.addr]);
    let proxy = builder.connect_timeout(SHORT).start();

    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_fetch_that_is_still_connecting_can_be_joined() {
    let upstream = FakeUpstream::new();
    let hole = BlackHole::new();
    let proxy = proxy(&upstream).upstreams(&[hole.addr]).start();

    let clients = waiting_clients(&proxy, 50);
    assert_eq!(count(&proxy.stats.fetches), 1);

    drop(hole); // the kernel's next attempt is refused
    all_are_reset(clients);
}

#[test]
fn a_silent_upstream_is_given_up_and_the_key_is_free() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).idle_timeout(SHORT).start();
    let clients = waiting_clients(&proxy, 10);

    let silent = upstream.accept();

    all_are_reset(clients);
    silent.wait_for_hangup();
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_stall_half_way_is_given_up_and_the_key_is_free() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).idle_timeout(SHORT).start();
    let mut clients = waiting_clients(&proxy, 10);

    let stalled = upstream.accept().send(b"half");
    for client in &mut clients {
        assert_eq!(client.read(4), b"half");
    }

    all_are_reset(clients);
    stalled.wait_for_hangup();
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_stalled_upstream_holds_its_own_key_and_no_other() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();

    let mut stalled = proxy.request(b"stalled\n");
    let connection = upstream.accept().skip(9);
    let mut other = proxy.request(b"other\n");
    upstream.accept().skip(7).send(b"poem").close();
    assert_eq!(other.rest().unwrap(), b"poem");

    connection.send(b"at last").close();
    assert_eq!(stalled.rest().unwrap(), b"at last");
    wait_for_count("misses", &proxy.stats.misses, 2);
}

#[test]
fn a_reset_before_the_first_byte_resets_all_waiting_clients() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let clients = waiting_clients(&proxy, 10);

    upstream.accept().reset();

    all_are_reset(clients);
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_reset_after_the_last_byte_makes_the_poem_a_part() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();

    for part in [&b"x"[..], &[b'x'; 1000], &[b'x'; 300_000]] {
        let mut client = proxy.connect();
        let connection = upstream.accept();
        let sending = spawn(move || connection.send(part).reset());
        assert_eq!(client.rest(), RESET);
        sending.join().unwrap();
    }

    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn an_end_without_a_byte_resets_all_waiting_clients() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start();
    let clients = waiting_clients(&proxy, 10);

    upstream.accept().close();

    all_are_reset(clients);
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn a_poem_and_a_reset_during_our_connect_are_a_part() {
    let ask = |interfere: fn(Connection)| ask_and_interfere(Protocol::Poem, b"", interfere);

    assert_eq!(ask(|c| c.send(b"half").reset()), Asked::Reset(4));
    assert_eq!(ask(|c| c.reset()), Asked::Reset(0));

    let whole = ask(|c| c.send(b"whole").close());
    assert_eq!(whole, Asked::Whole(b"whole".to_vec()));
}

#[test]
fn a_reset_before_our_request_is_sent_is_no_clean_end() {
    let line = |interfere: fn(Connection)| ask_and_interfere(Protocol::Line, b"name", interfere);
    assert_eq!(line(|c| c.send(b"half").reset()), Asked::Reset(4));
    assert_eq!(line(|c| c.reset()), Asked::Reset(0));

    let netstring =
        |interfere: fn(Connection)| ask_and_interfere(Protocol::Netstring, b"a.B", interfere);
    assert_eq!(netstring(|c| c.send(b"5:h").reset()), Asked::Reset(3));
    assert_eq!(netstring(|c| c.reset()), Asked::Reset(0));
    assert_eq!(netstring(|c| c.close()), Asked::Declined);
}

#[test]
fn an_answer_that_ends_before_the_request_was_read_is_whole() {
    let line = ask_and_interfere(Protocol::Line, b"name", |c| c.send(b"whole").close());
    assert_eq!(line, Asked::Whole(b"whole".to_vec()));

    let netstring = ask_and_interfere(Protocol::Netstring, b"a.B", |c| c.send(b"2:ab,").close());
    assert_eq!(netstring, Asked::Whole(b"2:ab,".to_vec()));
}

#[test]
fn a_thousand_flaps_cost_a_thousand_fetches_and_leave_nothing() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).ttl(ZERO).start();
    upstream.serve_each(|number, connection| {
        if number % 2 == 0 {
            connection.try_send(b"part").reset();
        } else {
            connection.try_send(b"poem").close();
        }
    });

    for number in 0..500 {
        assert_eq!(proxy.get(), RESET, "{number}");
        assert_eq!(proxy.get().unwrap(), b"poem", "{number}");
    }

    wait_for_count("failed fetches", &proxy.stats.failed_fetches, 500);
    wait_for_count("fetches", &proxy.stats.fetches, 1000);
    proxy.wait_for_open(0);
}

/// Passes on what `to` sends to `from`, a failure as a failure.
fn detour(mut from: TcpStream, mut to: TcpStream) -> JoinHandle<()> {
    spawn(move || {
        if std::io::copy(&mut to, &mut from).is_ok() {
            from.shutdown(Shutdown::Write).unwrap();
        } else {
            reset(from);
        }
    })
}

#[test]
fn a_proxy_that_reaches_itself_ends_by_its_idle_timeout() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).idle_timeout(SHORT).start();

    let clients = waiting_clients(&proxy, 5);
    let passing = detour(upstream.accept().stream, proxy.connect().stream);

    all_are_reset(clients);
    passing.join().unwrap();
    proxy.wait_for_open(0);
    assert_key_is_free(&proxy, &upstream);
}

#[test]
fn two_proxies_of_each_other_end_by_their_idle_timeout() {
    let upstream = FakeUpstream::new();
    // The second proxy has no address before it runs: the first reaches it by a detour.
    let first = proxy(&upstream).idle_timeout(SHORT).start();
    let second = proxy(&upstream).upstreams(&[first.addr]).start();

    let mut client = first.connect();
    let passing = detour(upstream.accept().stream, second.connect().stream);

    assert_eq!(client.rest(), RESET);
    passing.join().unwrap();
    first.wait_for_open(0);
    second.wait_for_open(0);
}
