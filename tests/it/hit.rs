//! A hit is answered on the socket just accepted, and waits for nothing. Nothing is
//! timed here; what would be slow is counted instead.

use crate::support::{Client, FakeUpstream, Service, count, proxy, serve, wait_for_count};

/// A poem of the usual length: far below the 14,480 bytes that are on the wire when
/// `send` returns.
const POEM: [u8; 700] = [b'x'; 700];

/// A proxy that keeps the poem, after one miss.
fn warm_proxy() -> Service {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start_with(&upstream, &POEM);
    proxy.wait_for_open(0);
    proxy
}

#[test]
fn a_thousand_hits_make_no_task_and_no_fetch() {
    let proxy = warm_proxy();
    assert_eq!(
        count(&proxy.stats.tasks),
        1,
        "the miss had to wait, in a task"
    );

    for _ in 0..1000 {
        assert_eq!(proxy.get().unwrap(), POEM);
    }

    wait_for_count("hits", &proxy.stats.hits, 1000); // counted just after the close
    assert_eq!(count(&proxy.stats.tasks), 1);
    assert_eq!(count(&proxy.stats.fetches), 1);
}

#[test]
fn hits_that_come_together_make_no_task() {
    let proxy = warm_proxy();

    let mut clients: Vec<Client> = (0..500).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), POEM);
    }

    wait_for_count("hits", &proxy.stats.hits, 500);
    assert_eq!(count(&proxy.stats.tasks), 1);
}

#[test]
fn a_server_that_has_its_poem_makes_no_task_at_all() {
    let server = serve(&[&POEM]).start();

    for _ in 0..100 {
        assert_eq!(server.get().unwrap(), POEM);
    }

    wait_for_count("answers", &server.stats.own, 100);
    assert_eq!(count(&server.stats.tasks), 0);
}

#[test]
fn only_a_client_that_has_sent_bytes_is_lingered_for() {
    let proxy = warm_proxy();

    let mut talker = proxy.connect();
    talker.try_send(b"hello?");
    assert_eq!(talker.rest().unwrap(), POEM);
    drop(talker);

    proxy.wait_for_open(0);
    assert!(count(&proxy.stats.tasks) <= 2);
}

/// Clients of the line protocol that have sent their request before they are accepted:
/// the one place is taken until then.
fn ask_before_accept(proxy: &Service, requests: &[&[u8]]) -> Vec<Client> {
    let holder = proxy.connect();
    proxy.wait_for_open(1);
    let clients = requests.iter().map(|request| proxy.request(request));
    let clients = clients.collect();

    holder.reset();
    clients
}

#[test]
fn a_line_hit_whose_request_is_there_makes_no_task() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().max_clients(1).start();
    let mut first = proxy.request(b"name\r\n");
    upstream.accept().read(6).0.send(&POEM).close();
    assert_eq!(first.rest().unwrap(), POEM);
    proxy.wait_for_open(0);

    let tasks = count(&proxy.stats.tasks);
    for mut client in ask_before_accept(&proxy, &[&b"name\r\n"[..]; 100]) {
        assert_eq!(client.rest().unwrap(), POEM);
    }

    wait_for_count("hits", &proxy.stats.hits, 100);
    assert_eq!(count(&proxy.stats.tasks), tasks + 1, "the holder's alone");
}

#[test]
fn a_request_in_two_pieces_is_read_to_its_end() {
    let server = serve(&[&POEM]).line().max_clients(1).start();
    let pieces: [&[u8]; 3] = [b"0", b"0\r\nand more", b"\r\n"];
    let mut clients = ask_before_accept(&server, &pieces);

    clients[0].send(b"\r\n");
    assert_eq!(clients[0].rest().unwrap(), POEM);
    assert_eq!(clients[1].rest().unwrap(), POEM);
    assert_eq!(clients[2].rest().unwrap(), b"0\r\n", "the names");
}
