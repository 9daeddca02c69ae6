//! What the proxy asks of its upstream, what it holds, and what it does not keep.

use crate::bard::{Bard, Client, LIMITS, LONG, Running, settings, until_count};
use poetry::handler::proxy::{ProxySettings, Rejects};
use poetry::protocol::Protocol;
use poetry::transform::{Builtin, Pipeline};
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

fn rejecting(bard: &Bard) -> ProxySettings {
    let pattern = Some(regex::bytes::Regex::new("(?i)rate exceeded").unwrap());
    ProxySettings {
        rejects: Rejects {
            pattern,
            min_bytes: 5,
        },
        ..settings(bard)
    }
}

#[test]
fn a_rejected_poem_is_delivered_and_never_kept() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(rejecting(&bard), LIMITS);
    for said in [&b"Query rate exceeded\r\n"[..], b"1234", b"a poem"] {
        let mut client = proxy.connect();
        bard.call().say(said).finish();
        assert_eq!(client.rest().unwrap(), said);
    }
    assert_eq!(proxy.ask().unwrap(), b"a poem");
    assert_eq!(bard.callers(), 3);
    until_count("rejected", &proxy.stats.failed_fetches, 2);
}

#[test]
fn a_rejected_poem_counts_as_a_failure_and_is_what_everyone_gets_while_that_is_remembered() {
    let bard = Bard::new();
    let mut settings = rejecting(&bard);
    settings.policy.fail_ttl = HOUR;
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    bard.call().say(b"rate exceeded").finish();
    assert_eq!(client.rest().unwrap(), b"rate exceeded");
    for _ in 0..50 {
        assert_eq!(proxy.ask().unwrap(), b"rate exceeded");
    }
    assert_eq!(bard.callers(), 1);
}

#[test]
fn a_rejected_refresh_replaces_nothing() {
    let bard = Bard::new();
    let mut settings = rejecting(&bard);
    (settings.policy.ttl, settings.policy.grace) = (Duration::ZERO, HOUR);
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    bard.call().say(b"the good old poem").finish();
    assert_eq!(client.rest().unwrap(), b"the good old poem");
    for rejected in 1..=2 {
        assert_eq!(proxy.ask().unwrap(), b"the good old poem");
        bard.call().say(b"rate exceeded").finish();
        until_count("rejected", &proxy.stats.failed_fetches, rejected);
    }
    assert_eq!(proxy.ask().unwrap(), b"the good old poem");
}

#[test]
fn what_is_rejected_is_judged_before_it_is_transformed() {
    let bard = Bard::new();
    let workshop = Some(Pipeline::Own(vec![Builtin::Rot13.into()]));
    let proxy = Running::proxy_with(
        ProxySettings {
            workshop,
            ..rejecting(&bard)
        },
        LIMITS,
    );
    for _ in 0..2 {
        let mut client = proxy.connect();
        bard.call().say(b"RATE EXCEEDED").finish();
        assert_eq!(client.rest().unwrap(), b"ENGR RKPRRQRQ");
    }
}

#[test]
fn a_netstring_is_judged_by_its_payload() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(
        ProxySettings {
            protocol: Protocol::Netstring,
            ..rejecting(&bard)
        },
        LIMITS,
    );
    for _ in 0..2 {
        let mut client = proxy.connect();
        client.say(b"3:a.A,");
        bard.call().try_recv(6).0.say(b"4:four,").finish();
        assert_eq!(client.rest().unwrap(), b"4:four,");
    }
}

#[test]
fn whole_sends_nothing_before_the_poem_is_complete() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(
        ProxySettings {
            whole: true,
            max_poem: 10,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    let call = bard.call().say(b"half");
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert_eq!(
        client.stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    call.reset();
    client
        .stream
        .set_read_timeout(Some(crate::bard::LONG))
        .unwrap();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    let mut client = proxy.connect();
    bard.call().say(b"longer than ten").finish();
    assert_eq!(
        client.rest(),
        Err(ErrorKind::ConnectionReset),
        "and nothing of it came before"
    );
    let mut client = proxy.connect();
    bard.call().say(b"ten ").say(b"bytes.").finish();
    assert_eq!(client.rest().unwrap(), b"ten bytes.");
    assert_eq!(proxy.ask().unwrap(), b"ten bytes.");
}

#[test]
fn a_hundred_clients_of_twenty_names_get_each_its_own_through_two_connections() {
    let bard = Bard::new();
    let settings = ProxySettings {
        protocol: Protocol::Line,
        upstream_conns: 2,
        ..settings(&bard)
    };
    let proxy = Running::proxy_with(settings, LIMITS);
    let clients: Vec<(String, Client)> = (0..100)
        .map(|at| {
            let name = format!("name{:02}", at % 20);
            let mut client = proxy.connect();
            client.say(format!("{name}\r\n").as_bytes());
            (name, client)
        })
        .collect();
    proxy.open(100);
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let call = bard.call();
            most.fetch_max(inside.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
            let inside = inside.clone();
            scope.spawn(move || {
                let (call, name) = call.try_recv(8);
                // Before the end is said: the next caller may be there before this thread runs on.
                inside.fetch_sub(1, Ordering::AcqRel);
                call.say(b"the poem of ").say(&name[..6]).finish();
            });
        }
    });
    for (name, mut client) in clients {
        assert_eq!(
            String::from_utf8(client.rest().unwrap()).unwrap(),
            format!("the poem of {name}")
        );
    }
    assert_eq!(bard.callers(), 20);
    assert!(most.load(Ordering::Acquire) <= 2);
}

#[test]
fn a_fetch_that_waits_for_its_turn_has_its_own_deadline() {
    let bard = Bard::new();
    let mut settings = ProxySettings {
        protocol: Protocol::Line,
        upstream_conns: 1,
        ..settings(&bard)
    };
    settings.timeouts.total = Duration::from_millis(200);
    let proxy = Running::proxy_with(settings, LIMITS);
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    first.say(b"a\n");
    let call = bard.call();
    second.say(b"b\n");
    assert_eq!(second.rest(), Err(ErrorKind::ConnectionReset));
    assert_eq!(first.rest(), Err(ErrorKind::ConnectionReset));
    drop(call);
    let mut third = proxy.connect();
    third.say(b"c\n");
    loop {
        let mut call = bard.call(); // the second may have had its turn for what was left of its time
        let mut asked = [0; 3];
        if call.stream.read_exact(&mut asked).is_ok() && asked == *b"c\r\n" {
            break call.say(b"poem").finish();
        }
    }
    assert_eq!(third.rest().unwrap(), b"poem", "and no place was lost");
}

/// Says `x` to everyone for as long as they listen.
fn endless(bard: Bard) -> (Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (stop, callers) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (stopped, counter) = (stop.clone(), callers.clone());
    std::thread::spawn(move || {
        loop {
            let mut call = bard.call().stream;
            counter.fetch_add(1, Ordering::AcqRel);
            let stopped = stopped.clone();
            std::thread::spawn(move || {
                let chunk = [b'x'; 64 << 10];
                while !stopped.load(Ordering::Acquire)
                    && std::io::Write::write_all(&mut call, &chunk).is_ok()
                {}
            });
        }
    });
    (stop, callers)
}

#[test]
fn a_key_that_was_too_long_is_fetched_by_everyone_alone_while_that_is_remembered() {
    let bard = Bard::new();
    let mut settings = ProxySettings {
        max_poem: 1 << 20,
        upstream_conns: 3,
        ..settings(&bard)
    };
    settings.policy.fail_ttl = HOUR;
    let (stop, callers) = endless(bard);
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut first = proxy.connect();
    first.take(4 << 20);
    let mut others: Vec<Client> = (0..2).map(|_| proxy.connect()).collect();
    for other in &mut others {
        assert!(other.take(3 << 20).iter().all(|byte| *byte == b'x'));
    }
    assert_eq!(callers.load(Ordering::Acquire), 3);
    let mut fourth = proxy.connect();
    proxy.open(4);
    drop(first);
    fourth.take(3 << 20);
    assert_eq!(
        callers.load(Ordering::Acquire),
        4,
        "within --upstream-conns, one after the other"
    );
    stop.store(true, Ordering::Release);
}

#[test]
fn a_fetch_without_room_passes_through_a_window_of_what_it_holds() {
    let bard = Bard::new();
    let mut settings = ProxySettings {
        max_poem: 4 << 20,
        protocol: Protocol::Line,
        ..settings(&bard)
    };
    settings.policy.capacity = 2 << 20;
    let proxy = Running::proxy_with(settings, LIMITS);
    let poem: Vec<u8> = (0..3 << 20).map(|at: u32| (at >> 8) as u8).collect();
    for name in [b"a\n", b"b\n", b"a\n"] {
        let mut client = proxy.connect();
        client.say(name);
        let call = bard.call().try_recv(3).0;
        let saying = {
            let poem = poem.clone();
            std::thread::spawn(move || call.say(&poem).finish())
        };
        assert!(
            client.rest().unwrap() == poem,
            "it comes whole all the same"
        );
        saying.join().unwrap();
    }
    assert_eq!(proxy.stats.kept.load(Ordering::Acquire), 0);
}

/// Few places, little patience, and a megabyte is long.
fn impatient(bard: &Bard, upstream_conns: usize, patience: Duration) -> ProxySettings {
    let protocol = Protocol::Line;
    ProxySettings {
        max_poem: 1 << 20,
        protocol,
        upstream_conns,
        patience,
        ..settings(bard)
    }
}

#[test]
fn readers_that_take_nothing_of_a_long_poem_lose_it_to_those_who_wait_for_the_upstream() {
    let bard = Bard::new();
    let settings = impatient(&bard, 1, Duration::from_millis(50));
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut stuck = proxy.connect();
    stuck.say(b"long\n");
    let mut endless = bard.call().try_recv(6).0.stream;
    let saying = std::thread::spawn(move || {
        while std::io::Write::write_all(&mut endless, &[b'x'; 1 << 16]).is_ok() {}
    });
    stuck.take(2 << 20);
    let mut other = proxy.connect();
    other.say(b"short\n");
    bard.call().try_recv(7).0.say(b"poem").finish();
    assert_eq!(other.rest().unwrap(), b"poem");
    saying.join().unwrap();
}

/// Says `x` without end to who asks for something long, and a poem to others.
fn long_or_short(bard: Bard) {
    bard.each(|_, mut call| {
        std::thread::spawn(move || {
            let mut asked = [0; 4];
            if call.stream.read_exact(&mut asked).is_err() {
                return;
            }
            match asked == *b"long" {
                true => {
                    while std::io::Write::write_all(&mut call.stream, &[b'x'; 64 << 10]).is_ok() {}
                }
                false => call.try_recv(3).0.say(b"poem").finish(),
            }
        });
    });
}

#[test]
fn nobody_waits_for_slow_readers_longer_than_the_patience_however_steadily_they_read() {
    let bard = Bard::new();
    let settings = impatient(&bard, 2, Duration::from_millis(500));
    long_or_short(bard);
    let proxy = Running::proxy_with(settings, LIMITS);
    let stop = Arc::new(AtomicBool::new(false));
    let slow = [b"long1\n", b"long2\n"].map(|name| {
        let mut client = Client::narrow(proxy.addr);
        client.say(name);
        client.take(2 << 20); // by now the poem passes through
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut piece = vec![0; 128 << 10];
            while !stop.load(Ordering::Acquire) && client.stream.read_exact(&mut piece).is_ok() {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        })
    });
    let begun = Instant::now();
    assert_eq!(Client::ask(proxy.addr, b"short\n").unwrap(), b"poem");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    stop.store(true, Ordering::Release);
    slow.into_iter().for_each(|slow| slow.join().unwrap());
}

#[test]
fn who_waits_behind_many_stuck_readers_does_not_wait_for_each_of_them() {
    const PATIENCE: Duration = Duration::from_secs(1);
    const STUCK: usize = 20;
    let bard = Bard::new();
    let settings = impatient(&bard, 1, PATIENCE);
    long_or_short(bard);
    let proxy = Running::proxy_with(settings, LIMITS);
    let stuck: Vec<Client> = (0..STUCK)
        .map(|number| {
            let mut client = Client::narrow(proxy.addr);
            client.say(format!("long{number}\n").as_bytes());
            client
        })
        .collect();
    until_count("all have asked", &proxy.stats.fetches, STUCK as u64);
    let begun = Instant::now();
    assert_eq!(Client::ask(proxy.addr, b"short\n").unwrap(), b"poem");
    assert!(
        begun.elapsed() < PATIENCE * STUCK as u32 / 2,
        "{:?}",
        begun.elapsed()
    );
    drop(stuck);
}

#[test]
fn what_a_transformation_makes_has_the_same_limit() {
    let bard = Bard::new();
    let workshop = Some(Pipeline::Own(vec![Builtin::Number.into()]));
    let proxy = Running::proxy_with(
        ProxySettings {
            workshop,
            max_poem: 1000,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(&[b'\n'; 900]).finish();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_netstring_of_exactly_the_limit_is_kept() {
    let bard = Bard::new();
    let settings = ProxySettings {
        protocol: Protocol::Netstring,
        max_poem: 10,
        ..settings(&bard)
    };
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    client.say(b"3:a.A,");
    bard.call().try_recv(6).0.say(b"10:0123456789,").finish();
    assert_eq!(client.rest().unwrap(), b"10:0123456789,");
    let mut client = proxy.connect();
    client.say(b"3:a.A,");
    assert_eq!(client.rest().unwrap(), b"10:0123456789,");
    assert_eq!(bard.callers(), 1);
}

#[test]
fn a_proxy_takes_a_poem_of_the_limit_with_its_name_as_the_service_does() {
    let bard = Bard::new();
    let settings = ProxySettings {
        protocol: Protocol::Netstring,
        max_poem: 1000,
        ..settings(&bard)
    };
    let proxy = Running::proxy_with(settings, LIMITS);
    let framed = |length: usize| {
        [
            format!("{length}:a.").as_bytes(),
            &vec![b'x'; length - 2],
            b",",
        ]
        .concat()
    };
    let mut client = proxy.connect();
    client.say(&framed(1256));
    bard.call()
        .try_recv(framed(1256).len())
        .0
        .say(b"4:poem,")
        .finish();
    assert_eq!(client.rest().unwrap(), b"4:poem,");
    assert_eq!(Client::ask(proxy.addr, b"1257:"), Ok(Vec::new()));
    assert_eq!(bard.callers(), 1);
}

#[test]
fn with_whole_a_fetch_without_room_fails() {
    let bard = Bard::new();
    let mut settings = ProxySettings {
        whole: true,
        ..settings(&bard)
    };
    settings.policy.capacity = 1000;
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    bard.call().say(&[b'x'; 2000]).finish();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
}
