//! The upstream is down, slow, cut short, endless, or lies.

use crate::bard::{
    Bard, BlackHole, Client, Daemon, LIMITS, LONG, Running, nobody, reset, settings, until,
    until_count,
};
use poetry::client::{Exchange, Query, Timeouts, ask};
use poetry::error::Error;
use poetry::handler::proxy::{ProxySettings, Rejects};
use poetry::protocol::Protocol;
use poetry::rt;
use poetry::upstream::Upstream;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

const RESET: Result<Vec<u8>, ErrorKind> = Err(ErrorKind::ConnectionReset);

/// So short that a test need not wait for it, so long that a loaded machine keeps it where it must not be missed.
const SHORT: Duration = Duration::from_millis(400);

fn of(upstreams: &[std::net::SocketAddr], bard: &Bard) -> ProxySettings {
    let upstream = Upstream::Servers(upstreams.iter().map(|addr| (*addr).into()).collect());
    ProxySettings {
        upstream,
        ..settings(bard)
    }
}

fn proxy(settings: ProxySettings) -> Running {
    Running::proxy_with(settings, LIMITS)
}

/// So many clients that wait for one fetch.
fn waiting(proxy: &Running, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| proxy.connect()).collect();
    proxy.open(count as u64);
    clients
}

fn all_are_reset(clients: Vec<Client>) {
    clients
        .into_iter()
        .for_each(|mut client| assert_eq!(client.rest(), RESET));
}

/// The key is free: the next request fetches afresh, and gets the whole.
fn the_next_request_fetches_afresh(proxy: &Running, bard: &Bard) {
    let (before, mut client) = (bard.callers(), proxy.connect());
    bard.call().say(b"the whole poem").finish();
    assert_eq!(client.rest().unwrap(), b"the whole poem");
    assert_eq!(bard.callers(), before + 1);
}

#[test]
fn a_refused_connection_is_told_at_once_and_the_next_upstream_is_tried() {
    let bard = Bard::new();
    let dead = nobody();
    assert_eq!(proxy(of(&[dead], &bard)).ask(), RESET);
    let proxy = proxy(of(&[dead, dead, bard.addr], &bard));
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn who_is_tried_instead_is_told_in_both_forms_of_the_log() {
    let (bard, dead) = (Bard::new(), nobody());
    for format in ["text", "json"] {
        let (dead, alive) = (dead.to_string(), bard.addr.to_string());
        let mut daemon = Daemon::start(&[
            "proxy",
            "--port",
            "0",
            "-q",
            "--log-format",
            format,
            &dead,
            &alive,
        ]);
        let told = daemon.stderr_lines();
        let mut client = Client::connect(daemon.addr);
        bard.call().say(b"poem").finish();
        assert_eq!(client.rest().unwrap(), b"poem");
        let line = told.recv_timeout(LONG).unwrap();
        let notice = format!("{dead}: could not connect: connection refused; trying {alive}");
        match format {
            "text" => assert_eq!(line, format!("poetry: {notice}")),
            _ => assert!(line.contains(&format!("\"notice\":\"{notice}\"")), "{line}"),
        }
    }
}

#[test]
fn a_connect_into_a_black_hole_ends_by_its_deadline_and_the_next_upstream_is_tried() {
    let (bard, hole) = (Bard::new(), BlackHole::new());
    let mut settings = of(&[hole.addr], &bard);
    settings.timeouts.connect = SHORT;
    let lost = proxy(settings);
    all_are_reset(waiting(&lost, 10));
    let mut settings = of(&[hole.addr, bard.addr], &bard);
    settings.timeouts.connect = SHORT;
    the_next_request_fetches_afresh(&proxy(settings), &bard);
}

#[test]
fn while_a_fetch_is_still_connecting_all_who_ask_join_it() {
    let (bard, hole) = (Bard::new(), BlackHole::new());
    let proxy = proxy(of(&[hole.addr], &bard));
    let clients = waiting(&proxy, 50);
    assert_eq!(proxy.stats.fetches.load(Ordering::Acquire), 1);
    drop(hole); // and the kernel's next attempt is refused
    all_are_reset(clients);
}

#[test]
fn an_upstream_that_accepts_and_says_nothing_is_given_up_and_the_key_is_free() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.timeouts.idle = SHORT;
    let proxy = proxy(settings);
    let clients = waiting(&proxy, 10);
    let silent = bard.call();
    all_are_reset(clients);
    silent.hear_nothing(); // it was hung up on
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn a_stall_in_mid_poem_fails_for_all_and_the_key_is_free() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.timeouts.idle = SHORT;
    let proxy = proxy(settings);
    let mut clients = waiting(&proxy, 10);
    let stalled = bard.call().say(b"half");
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.take(4), b"half"));
    all_are_reset(clients);
    stalled.hear_nothing();
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn a_reset_before_the_first_byte_fails_for_all_and_the_key_is_free() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let clients = waiting(&proxy, 10);
    bard.call().reset();
    all_are_reset(clients);
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn a_reset_right_behind_the_last_byte_leaves_a_part_however_much_came() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    for part in [&b"x"[..], &[b'x'; 1000], &[b'x'; 300_000]] {
        let mut client = proxy.connect();
        let call = bard.call();
        let saying = std::thread::spawn(move || call.say(part).reset());
        assert_eq!(client.rest(), RESET);
        saying.join().unwrap();
    }
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn a_clean_end_without_a_byte_fails_for_all_and_the_key_is_free() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let clients = waiting(&proxy, 10);
    bard.call().finish();
    all_are_reset(clients);
    the_next_request_fetches_afresh(&proxy, &bard);
}

fn question(protocol: Protocol, request: &[u8]) -> Query<'_> {
    let timeouts = Timeouts {
        connect: LONG,
        idle: LONG,
        total: LONG,
    };
    Query {
        protocol,
        request,
        limit: 1 << 20,
        timeouts,
    }
}

/// Asks, and lets the server do its worst between our connect and whatever we do next.
fn while_connecting(
    question: Query<'_>,
    worst: impl FnOnce(crate::bard::Call),
) -> Result<Vec<u8>, Error> {
    let bard = Bard::new();
    let addr = bard.addr();
    rt::block_on(async {
        let mut asking = Box::pin(ask(&addr, &question));
        assert!(
            futures::poll!(&mut asking).is_pending(),
            "connecting takes a turn of the reactor"
        );
        worst(bard.call());
        all_of(asking.await?).await
    })
}

async fn all_of(mut reply: Exchange<'_>) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(bytes) = reply.next().await? {
        all.extend_from_slice(&bytes);
        assert!(
            !reply.is_over() || reply.next().await == Ok(None),
            "over means complete"
        );
    }
    Ok(all)
}

fn cut_after(got: u64) -> impl Fn(Result<Vec<u8>, Error>) -> bool {
    move |result| matches!(result, Err(Error::Reset { got: after, .. }) if after == got)
}

#[test]
fn a_poem_and_a_reset_that_both_come_during_our_connect_are_a_part() {
    let poem = question(Protocol::Poem, b"");
    assert!(cut_after(4)(while_connecting(poem, |call| call
        .say(b"half")
        .reset())));
    assert!(cut_after(0)(while_connecting(poem, |call| call.reset())));
    let whole = while_connecting(poem, |call| call.say(b"whole").finish());
    assert_eq!(whole, Ok(b"whole".to_vec()));
}

#[test]
fn a_reset_that_comes_before_our_request_is_sent_is_no_end() {
    let line = question(Protocol::Line, b"name");
    assert!(cut_after(4)(while_connecting(line, |call| call
        .say(b"half")
        .reset())));
    assert!(cut_after(0)(while_connecting(line, |call| call.reset())));
    let netstring = question(Protocol::Netstring, b"a.B");
    assert!(cut_after(3)(while_connecting(netstring, |call| call
        .say(b"5:h")
        .reset())));
    let declined = while_connecting(netstring, |call| call.finish());
    assert!(
        matches!(declined, Err(Error::Declined { .. })),
        "a clean end is a no, and a reset is none"
    );
    assert!(cut_after(0)(
        while_connecting(netstring, |call| call.reset())
    ));
}

#[test]
fn an_answer_that_ends_before_the_request_was_read_is_whole() {
    let line = question(Protocol::Line, b"name");
    assert_eq!(
        while_connecting(line, |call| call.say(b"whole").finish()),
        Ok(b"whole".to_vec())
    );
    let netstring = question(Protocol::Netstring, b"a.B");
    let answer = while_connecting(netstring, |call| call.say(b"2:ab,").finish());
    assert_eq!(answer, Ok(b"2:ab,".to_vec()));
}

#[test]
fn an_early_clean_end_can_only_be_known_by_what_you_can_say_of_the_poem() {
    let bard = Bard::new();
    let proxy = proxy(ProxySettings {
        rejects: Rejects {
            pattern: None,
            min_bytes: 10,
        },
        ..settings(&bard)
    });
    let mut client = proxy.connect();
    bard.call().say(b"too short").finish();
    assert_eq!(
        client.rest().unwrap(),
        b"too short",
        "delivered, but not kept"
    );
    the_next_request_fetches_afresh(&proxy, &bard);
    assert_eq!(proxy.ask().unwrap(), b"the whole poem");
}

#[test]
fn an_endless_poem_passes_through_and_is_given_up_when_its_last_reader_leaves() {
    let bard = Bard::new();
    let proxy = proxy(ProxySettings {
        max_poem: 64 << 10,
        ..settings(&bard)
    });
    let mut client = proxy.connect();
    let mut upstream = bard.call().stream;
    let endless =
        std::thread::spawn(move || while upstream.write_all(&[b'x'; 16 << 10]).is_ok() {});
    assert!(client.take(4 << 20).iter().all(|byte| *byte == b'x'));
    reset(client.stream);
    endless.join().unwrap();
    until_count("failed fetches", &proxy.stats.failed_fetches, 1);
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn a_poem_that_trickles_is_whole_in_the_end_because_only_silence_is_counted() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.timeouts.idle = Duration::from_secs(1);
    let proxy = proxy(settings);
    let mut client = proxy.connect();
    let call = bard.call();
    let slow =
        std::thread::spawn(move || call.spell(&[b'x'; 150], Duration::from_millis(10)).finish());
    assert_eq!(
        client.rest().unwrap(),
        [b'x'; 150],
        "it took longer than any silence may"
    );
    slow.join().unwrap();
}

#[test]
fn a_trickle_without_end_is_ended_by_the_fetch_timeout() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.timeouts.total = Duration::from_millis(300);
    let proxy = proxy(settings);
    let clients = waiting(&proxy, 5);
    let call = bard.call();
    let slow = std::thread::spawn(move || call.spell(&[b'x'; 100_000], Duration::from_millis(5)));
    all_are_reset(clients);
    slow.join().unwrap();
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn a_poem_in_segments_of_one_byte_comes_out_as_it_is_for_every_joiner() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let poem: Vec<u8> = (0..4000u32).map(|at| (at * 7 + at / 256) as u8).collect();
    let mut clients = waiting(&proxy, 5);
    let (call, text) = (bard.call(), poem.clone());
    let spelling = std::thread::spawn(move || call.spell(&text, Duration::ZERO).finish());
    clients.extend((0..20).map(|_| proxy.connect()));
    for client in &mut clients {
        assert!(client.rest().unwrap() == poem);
    }
    spelling.join().unwrap();
    assert_eq!(bard.callers(), 1);
}

#[test]
fn at_exactly_the_limit_a_poem_is_kept_and_one_byte_over_it_is_not() {
    for whole in [false, true] {
        let bard = Bard::new();
        let proxy = proxy(ProxySettings {
            max_poem: 1000,
            whole,
            ..settings(&bard)
        });
        let mut client = proxy.connect();
        bard.call().say(&[b'x'; 1001]).finish();
        let over = if whole { RESET } else { Ok(vec![b'x'; 1001]) };
        assert_eq!(client.rest(), over);
        let mut client = proxy.connect();
        bard.call().say(&[b'x'; 600]).say(&[b'x'; 400]).finish();
        assert_eq!(client.rest().unwrap(), [b'x'; 1000]);
        assert_eq!(proxy.ask().unwrap(), [b'x'; 1000]);
        assert_eq!(bard.callers(), 2);
    }
}

#[test]
fn an_upstream_that_flaps_a_thousand_times_costs_each_time_one_fetch_and_leaves_nothing_behind() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.policy.ttl = Duration::ZERO;
    let proxy = proxy(settings);
    bard.each(|number, call| match number % 2 {
        0 => call.try_say(b"part").reset(),
        _ => call.try_say(b"poem").finish(),
    });
    for number in 0..1000 {
        let wanted = if number % 2 == 0 {
            RESET
        } else {
            Ok(b"poem".to_vec())
        };
        assert_eq!(proxy.ask(), wanted, "{number}");
    }
    until_count("failed fetches", &proxy.stats.failed_fetches, 500);
    until_count("fetches", &proxy.stats.fetches, 1000);
    proxy.open(0);
}

#[test]
fn a_name_that_does_not_resolve_fails_for_all_and_the_next_upstream_is_tried() {
    let bard = Bard::new();
    let name: poetry::addr::Addr = "nobody.invalid:1".parse().unwrap();
    let upstream = Upstream::Servers(vec![name.clone()]);
    assert_eq!(
        proxy(ProxySettings {
            upstream,
            ..settings(&bard)
        })
        .ask(),
        RESET
    );
    let upstream = Upstream::Servers(vec![name, bard.addr()]);
    the_next_request_fetches_afresh(
        &proxy(ProxySettings {
            upstream,
            ..settings(&bard)
        }),
        &bard,
    );
}

/// Passes everything on in both directions, a failure as a failure.
fn detour(mut from: TcpStream, mut to: TcpStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || match std::io::copy(&mut to, &mut from) {
        Ok(_) => from.shutdown(Shutdown::Write).unwrap(),
        Err(_) => reset(from),
    })
}

#[test]
fn a_proxy_that_reaches_itself_by_a_detour_ends_by_its_idle_timeout() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.timeouts.idle = SHORT;
    let proxy = proxy(settings);
    let clients = waiting(&proxy, 5);
    let passing = detour(bard.call().stream, proxy.connect().stream);
    all_are_reset(clients);
    passing.join().unwrap();
    proxy.open(0);
    the_next_request_fetches_afresh(&proxy, &bard);
}

#[test]
fn two_proxies_of_each_other_end_within_the_deadline() {
    let bard = Bard::new();
    let mut settings_of_one = settings(&bard);
    settings_of_one.timeouts.idle = SHORT;
    // The second's address is known only once it runs, so the first asks by a detour.
    let one = proxy(settings_of_one);
    let two = proxy(of(&[one.addr], &bard));
    let mut client = one.connect();
    let passing = detour(bard.call().stream, two.connect().stream);
    assert_eq!(client.rest(), RESET);
    passing.join().unwrap();
    [&one, &two].iter().for_each(|proxy| proxy.open(0));
}

#[test]
fn an_upstream_that_has_only_half_closed_has_ended_its_poem() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut client = proxy.connect();
    let mut stream = bard.call().say(b"poem").stream;
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().unwrap(), b"poem");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "and it is hung up on");
}

#[test]
fn an_upstream_that_never_reads_our_request_is_given_up() {
    let bard = Bard::new();
    let mut settings = ProxySettings {
        protocol: Protocol::Netstring,
        ..settings(&bard)
    };
    settings.timeouts.idle = SHORT;
    let proxy = proxy(settings);
    let request = [&b"8000002:a."[..], &vec![b'x'; 8_000_000], b","].concat();
    assert_eq!(Client::ask(proxy.addr, &request), RESET);
    bard.call().try_recv(9).0.hear_nothing();
}

#[test]
fn an_upstream_that_answers_while_it_reads_is_heard_meanwhile() {
    const LENGTH: usize = 12 << 20; // more than two kernels take on behalf of their programs
    let bard = Bard::new();
    let proxy = proxy(ProxySettings {
        protocol: Protocol::Netstring,
        ..settings(&bard)
    });
    let request = [format!("{LENGTH}:").as_bytes(), &vec![b'x'; LENGTH], b","].concat();
    let length = request.len();
    let shouting = std::thread::spawn(move || {
        let (mut call, mut heard, mut buffer) = (bard.call().stream, 0, [0; 64 << 10]);
        while heard < length {
            let count = call.read(&mut buffer).unwrap();
            buffer[..count].make_ascii_uppercase();
            call.write_all(&buffer[..count]).unwrap();
            heard += count;
        }
    });
    assert!(Client::ask(proxy.addr, &request).unwrap() == request.to_ascii_uppercase());
    shouting.join().unwrap();
}

#[test]
fn a_request_that_is_taken_slowly_is_taken_whole_because_only_silence_is_counted() {
    const LENGTH: usize = 4 << 20;
    let bard = Bard::new();
    let mut settings = ProxySettings {
        protocol: Protocol::Netstring,
        ..settings(&bard)
    };
    settings.timeouts.idle = Duration::from_secs(1);
    let proxy = proxy(settings);
    let request = [format!("{LENGTH}:").as_bytes(), &vec![b'x'; LENGTH], b","].concat();
    let length = request.len();
    let slow = std::thread::spawn(move || {
        let mut call = bard.call();
        socket2::SockRef::from(&call.stream)
            .set_recv_buffer_size(64 << 10)
            .unwrap();
        let (mut heard, mut buffer) = (0, [0; 16 << 10]);
        while heard < length {
            heard += call.stream.read(&mut buffer).unwrap();
            std::thread::park_timeout(Duration::from_millis(10));
        }
        call.say(b"4:poem,").finish();
    });
    let begun = std::time::Instant::now();
    assert_eq!(Client::ask(proxy.addr, &request).unwrap(), b"4:poem,");
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "it took longer than any silence may"
    );
    slow.join().unwrap();
}

#[test]
fn a_reply_that_is_complete_before_the_request_was_taken_is_whole() {
    let bard = Bard::new();
    let proxy = proxy(ProxySettings {
        protocol: Protocol::Netstring,
        ..settings(&bard)
    });
    let request = [&b"8000002:a."[..], &vec![b'x'; 8_000_000], b","].concat();
    let answering =
        std::thread::spawn(move || bard.call().try_recv(9).0.say(b"4:poem,").try_recv(100).0);
    assert_eq!(Client::ask(proxy.addr, &request).unwrap(), b"4:poem,");
    drop(answering.join().unwrap());
}

#[test]
fn a_framed_reply_that_lies_about_its_length_is_never_passed_on_as_whole() {
    let bard = Bard::new();
    let proxy = proxy(ProxySettings {
        protocol: Protocol::Netstring,
        max_poem: 100,
        ..settings(&bard)
    });
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
        let mut client = proxy.connect();
        client.say(b"3:a.A,");
        bard.call().try_recv(6).0.try_say(lie).finish();
        assert_eq!(client.rest(), RESET, "{:?}", String::from_utf8_lossy(lie));
    }
    let mut client = proxy.connect();
    client.say(b"3:a.A,");
    bard.call().try_recv(6).0.say(b"1:a,").finish();
    assert_eq!(client.rest().unwrap(), b"1:a,");
}

#[test]
fn a_fetch_that_takes_longer_than_its_ttl_does_not_pile_up() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.policy.ttl = Duration::from_nanos(1);
    let proxy = proxy(settings);
    let mut clients = waiting(&proxy, 1);
    let mut call = bard.call();
    for joined in 2..=20 {
        clients.push(proxy.connect());
        proxy.open(joined);
        call = call.say(b".");
    }
    call.finish();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), [b'.'; 19]);
    }
    assert_eq!(bard.callers(), 1);
}

#[test]
fn over_a_unix_socket_a_part_is_known_only_where_a_netstring_says_so() {
    let (folder, bard) = (tempfile::tempdir().unwrap(), Bard::new());
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let upstream = || Upstream::Servers(vec![format!("unix:{}", path.display()).parse().unwrap()]);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 6];
            stream.read_exact(&mut request).unwrap();
            stream
                .write_all(if request[4] == b'A' {
                    b"5:whole,"
                } else {
                    b"5:cut"
                })
                .unwrap();
        }
    });
    let proxy = proxy(ProxySettings {
        protocol: Protocol::Netstring,
        upstream: upstream(),
        ..settings(&bard)
    });
    assert_eq!(Client::ask(proxy.addr, b"3:a.A,").unwrap(), b"5:whole,");
    assert_eq!(Client::ask(proxy.addr, b"3:a.B,"), RESET);
}

#[test]
fn a_stalled_upstream_holds_its_own_key_and_no_other() {
    let bard = Bard::new();
    let proxy = proxy(ProxySettings {
        protocol: Protocol::Line,
        ..settings(&bard)
    });
    let mut stalled = proxy.connect();
    stalled.say(b"stalled\n");
    let call = bard.call().try_recv(9).0;
    let mut other = proxy.connect();
    other.say(b"other\n");
    bard.call().try_recv(7).0.say(b"poem").finish();
    assert_eq!(other.rest().unwrap(), b"poem");
    call.say(b"at last").finish();
    assert_eq!(stalled.rest().unwrap(), b"at last");
    until("all is told", || {
        proxy.stats.misses.load(Ordering::Acquire) == 2
    });
}
