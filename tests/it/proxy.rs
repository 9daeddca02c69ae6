//! `proxy`: what is kept, what is not, and what clients get.

use crate::bard::{Bard, Client, LIMITS, Running, settings, until_count};
use poetry::handler::proxy::ProxySettings;
use poetry::protocol::Protocol;
use poetry::transform::{Builtin, Pipeline, Registry};
use poetry::upstream::Upstream;
use std::io::ErrorKind;
use std::time::Duration;

#[test]
fn a_ttl_of_zero_keeps_nothing() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.policy.ttl = Duration::ZERO;
    let proxy = Running::proxy_with(settings, LIMITS);
    for _ in 0..2 {
        let mut client = proxy.connect();
        bard.call().say(b"poem").finish();
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(bard.callers(), 2);
}

#[test]
fn an_empty_reply_is_a_failure_and_never_an_empty_poem() {
    let bard = Bard::new();
    let proxy = Running::proxy(&bard);
    let mut client = proxy.connect();
    bard.call().finish();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_dead_upstream_is_a_reset_and_the_next_one_is_tried() {
    let (gone, bard) = (Bard::new().addr(), Bard::new());
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let upstream = Upstream::Servers(vec![dead.into()]);
    let proxy = Running::proxy_with(
        ProxySettings {
            upstream,
            ..settings(&bard)
        },
        LIMITS,
    );
    assert_eq!(proxy.ask(), Err(ErrorKind::ConnectionReset));
    let upstream = Upstream::Servers(vec![dead.into(), bard.addr()]);
    let proxy = Running::proxy_with(
        ProxySettings {
            upstream,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(b"second").finish();
    assert_eq!(client.rest().unwrap(), b"second");
    drop(gone);
}

#[test]
fn a_stalled_upstream_is_given_up() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.timeouts.idle = Duration::from_millis(50);
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    let call = bard.call().say(b"half");
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    drop(call);
}

#[test]
fn a_poem_over_the_limit_passes_through_and_is_not_kept() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(
        ProxySettings {
            max_poem: 1000,
            ..settings(&bard)
        },
        LIMITS,
    );
    let poem: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    for _ in 0..2 {
        let mut client = proxy.connect();
        let call = bard.call();
        let whole = poem.clone();
        let saying = std::thread::spawn(move || call.say(&whole).finish());
        assert_eq!(client.rest().unwrap(), poem);
        saying.join().unwrap();
    }
    assert_eq!(bard.callers(), 2);
}

#[test]
fn a_poem_exactly_at_the_limit_is_kept() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(
        ProxySettings {
            max_poem: 4,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(b"four").finish();
    assert_eq!(client.rest().unwrap(), b"four");
    assert_eq!(proxy.ask().unwrap(), b"four");
    assert_eq!(bard.callers(), 1);
}

#[test]
fn transformed_poems_are_kept_transformed() {
    let bard = Bard::new();
    let workshop = Some(Pipeline::Own(vec![
        Builtin::Cummingsify.into(),
        Builtin::Reverse.into(),
    ]));
    let proxy = Running::proxy_with(
        ProxySettings {
            workshop,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(b"ONE\nTWO\n").finish();
    assert_eq!(client.rest().unwrap(), b"two\none\n");
    assert_eq!(proxy.ask().unwrap(), b"two\none\n");
    assert_eq!(bard.callers(), 1);
}

#[test]
fn an_external_server_can_do_the_work() {
    let (bard, service) = (Bard::new(), Bard::new());
    let workshop = Some(Pipeline::Via(service.addr(), vec!["cummingsify".into()]));
    let proxy = Running::proxy_with(
        ProxySettings {
            workshop,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(b"HERE IS MY POEM").finish();
    let (call, request) = service.call().try_recv(31);
    assert_eq!(request, b"27:cummingsify.HERE IS MY POEM,");
    call.say(b"15:here is my poem,").finish();
    assert_eq!(client.rest().unwrap(), b"here is my poem");
}

#[test]
fn a_failed_transformation_fails_or_sends_the_original_without_keeping_it() {
    let bard = Bard::new();
    let workshop = || Some(Pipeline::Own(vec![Builtin::Shout.into()]));
    let proxy = Running::proxy_with(
        ProxySettings {
            workshop: workshop(),
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(b"\xff").finish();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    let settings = ProxySettings {
        workshop: workshop(),
        original_on_failure: true,
        ..settings(&bard)
    };
    let proxy = Running::proxy_with(settings, LIMITS);
    for _ in 0..2 {
        let mut client = proxy.connect();
        bard.call().say(b"\xff").finish();
        assert_eq!(client.rest().unwrap(), b"\xff");
    }
}

#[test]
fn a_transformation_that_the_service_declines_is_a_failure_in_the_protocols_without_frames() {
    let service = Running::transform(Registry::default(), LIMITS);
    let bard = Bard::new();
    for (protocol, request) in [(Protocol::Poem, &b""[..]), (Protocol::Line, b"a\n")] {
        let workshop = Some(Pipeline::Via(
            service.addr.into(),
            vec!["no such name".into()],
        ));
        let proxy = Running::proxy_with(
            ProxySettings {
                protocol,
                workshop,
                ..settings(&bard)
            },
            LIMITS,
        );
        let mut client = proxy.connect();
        client.say(request);
        let heard = if request.is_empty() {
            0
        } else {
            request.len() + 1
        };
        bard.call().try_recv(heard).0.say(b"poem").finish();
        assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
        until_count("a failure", &proxy.stats.failures, 1);
    }
}

fn netstring_proxy(bard: &Bard) -> Running {
    Running::proxy_with(
        ProxySettings {
            protocol: Protocol::Netstring,
            ..settings(bard)
        },
        LIMITS,
    )
}

fn request(proxy: &Running, text: &[u8]) -> Client {
    let mut client = proxy.connect();
    client.say(text);
    client
}

#[test]
fn netstring_answers_are_kept_and_shared_by_request_and_never_mixed_up() {
    let bard = Bard::new();
    let proxy = netstring_proxy(&bard);
    for (asked, answer) in [(&b"3:a.A,"[..], &b"1:a,"[..]), (b"3:a.B,", b"1:b,")] {
        let mut client = request(&proxy, asked);
        let (call, heard) = bard.call().try_recv(asked.len());
        assert_eq!(heard, asked);
        // The comma ends the reply, whether or not the service hangs up.
        let call = call.say(answer);
        assert_eq!(client.rest().unwrap(), answer);
        drop(call);
    }
    assert_eq!(request(&proxy, b"3:a.A,").rest().unwrap(), b"1:a,");
    assert_eq!(request(&proxy, b"3:a.B,").rest().unwrap(), b"1:b,");
    assert_eq!(bard.callers(), 2);
}

#[test]
fn a_service_that_declines_is_passed_on_as_such_and_a_cut_one_as_a_reset() {
    let bard = Bard::new();
    let proxy = netstring_proxy(&bard);
    let mut client = request(&proxy, b"3:x.A,");
    bard.call().try_recv(6).0.finish();
    assert_eq!(client.rest().unwrap(), b"");
    let mut client = request(&proxy, b"3:x.A,");
    bard.call().try_recv(6).0.say(b"5:ab").finish();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_chain_of_proxies_never_keeps_what_the_origin_cut_off() {
    let bard = Bard::new();
    let inner = Running::proxy(&bard);
    let upstream = Upstream::Servers(vec![inner.addr.into()]);
    let outer = Running::proxy_with(
        ProxySettings {
            upstream,
            ..settings(&bard)
        },
        LIMITS,
    );
    let mut client = outer.connect();
    let call = bard.call().say(b"half");
    assert_eq!(client.take(4), b"half");
    call.reset();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    let mut client = outer.connect();
    bard.call().say(b"whole").finish();
    assert_eq!(client.rest().unwrap(), b"whole");
}
