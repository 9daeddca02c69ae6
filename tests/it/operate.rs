//! What an operator does to a proxy's texts: lists, purges and refreshes them, and
//! looks at the fetches.

use crate::support::{
    FakeUpstream, HOUR, LONG, Service, ZERO, count, proxy, wait_for_count, wait_until,
};
use poetry::cache::Purge;
use poetry::control::{Control, FlightView, KeyPage, KeyState, KeyView, Phase, Refresh, Texts};
use poetry::handler::proxy::Proxy;
use poetry::rt;
use std::time::Instant;

fn keys(proxy: &Proxy, prefix: &[u8]) -> Vec<KeyView> {
    let page = KeyPage {
        prefix,
        cursor: None,
        limit: 1000,
    };
    let mut keys = proxy.keys(&page, Instant::now()).keys;
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    keys
}

fn names(proxy: &Proxy, prefix: &[u8]) -> Vec<Vec<u8>> {
    keys(proxy, prefix)
        .into_iter()
        .map(|key| key.name)
        .collect()
}

fn flights(proxy: &Proxy) -> Vec<FlightView> {
    proxy.flights(1000, Instant::now())
}

/// Has the text of a name fetched.
fn fill(upstream: &FakeUpstream, service: &Service, name: &str, text: &[u8]) {
    let kept = count(&service.stats.kept);
    let mut client = service.request(format!("{name}\n").as_bytes());
    upstream.accept().skip(name.len() + 2).send(text).close();
    assert_eq!(client.rest().unwrap(), text);
    wait_for_count("kept", &service.stats.kept, kept + 1);
}

#[test]
fn keys_are_listed_and_purged_by_name_and_prefix() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).line().grace(HOUR).start();
    let proxy = service.proxy();
    let long = "l".repeat(300);
    for name in ["apple", "apricot", "banana", &long] {
        fill(&upstream, &service, name, name.as_bytes());
    }

    let all = keys(&proxy, b"");
    assert_eq!(all.len(), 4);
    assert!(all[0].name.starts_with(b"#300:"), "{:?}", all[0]);
    assert_eq!((all[1].name.as_slice(), all[1].bytes), (&b"apple"[..], 5));
    assert!(all.iter().all(|key| key.state == KeyState::Fresh));
    assert_eq!(names(&proxy, b"ap"), [&b"apple"[..], b"apricot"]);

    let purge = |texts: Texts<'_>, how| Control::purge(&*proxy, texts, how, Instant::now());
    let digest = all[0].name.clone();
    assert_eq!(purge(Texts::Prefix(b"ap"), Purge::Soft), 2);
    assert_eq!(keys(&proxy, b"ap")[0].state, KeyState::Stale);
    assert_eq!(keys(&proxy, b"b")[0].state, KeyState::Fresh);
    assert_eq!(purge(Texts::Named(&digest), Purge::Hard), 1);
    assert_eq!(purge(Texts::Named(b"banan"), Purge::Hard), 0);
    assert_eq!(purge(Texts::Named(b"banana"), Purge::Hard), 1);
    assert_eq!(names(&proxy, b""), [&b"apple"[..], b"apricot"]);
    assert_eq!(purge(Texts::All, Purge::Hard), 2);
    assert!(keys(&proxy, b"").is_empty());
}

#[test]
fn a_cached_failure_is_purged_and_counts() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).line().fail_ttl(HOUR).start();
    let proxy = service.proxy();
    let mut client = service.request(b"name\n");
    upstream.accept().skip(6).reset();
    assert!(client.rest().is_err());
    wait_until("it is cached", || {
        keys(&proxy, b"")
            .iter()
            .any(|key| key.state == KeyState::Failed)
    });

    let purge = || {
        let name = Texts::Named(b"name");
        Control::purge(&*proxy, name, Purge::Hard, Instant::now())
    };
    assert_eq!((purge(), purge()), (1, 0));
    fill(&upstream, &service, "name", b"whole again");
}

#[test]
fn a_refresh_replaces_a_fresh_text_once_it_is_complete() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).line().start();
    let proxy = service.proxy();
    fill(&upstream, &service, "name", b"old");

    let Refresh::Started(ending) = proxy.clone().refresh(b"name", Instant::now()) else {
        panic!("nothing is fetched")
    };
    let connection = upstream.accept().skip(6);
    let again = proxy.clone().refresh(b"name", Instant::now());
    assert!(matches!(again, Refresh::UnderWay(_)), "{again:?}");
    assert_eq!(service.ask(b"name\n").unwrap(), b"old");
    let flight = &flights(&proxy)[0];
    assert_eq!(
        (flight.name.as_slice(), flight.is_refresh),
        (&b"name"[..], true)
    );

    connection.send(b"the new one").close();
    let end = rt::block_on(rt::within(LONG, ending.wait())).expect("in time");
    assert!(end.expect("it is whole"), "it is kept");
    assert_eq!(service.ask(b"name\n").unwrap(), b"the new one");
    wait_until("the list is empty", || flights(&proxy).is_empty());
}

#[test]
fn a_refresh_fetches_what_is_not_cached_and_tells_how_it_fails() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).line().start();
    let proxy = service.proxy();
    let Refresh::Started(ending) = proxy.clone().refresh(b"name", Instant::now()) else {
        panic!("nothing is fetched")
    };
    upstream.accept().skip(6).reset();
    let end = rt::block_on(rt::within(LONG, ending.wait())).expect("in time");
    assert_eq!(end.expect_err("it failed").word(), "reset");

    for name in [&b"a\nb"[..], format!("#300:{}", "0".repeat(64)).as_bytes()] {
        let refresh = proxy.clone().refresh(name, Instant::now());
        assert!(matches!(refresh, Refresh::Unknown), "{refresh:?}");
    }
}

#[test]
fn nothing_is_listed_after_a_hundred_fetches_that_end_somehow() {
    let upstream = FakeUpstream::new();
    let builder = proxy(&upstream).line().upstream_conns(2).ttl(ZERO);
    let service = builder.start();
    let proxy = service.proxy();

    for at in 0..100usize {
        let name = format!("{at:03}\n");
        let mut client = service.request(name.as_bytes());
        let (connection, _) = upstream.accept().read(5);
        let [flight] = &flights(&proxy)[..] else {
            panic!("one fetch runs")
        };
        assert_eq!(flight.name, &name.as_bytes()[..3]);
        let waits = matches!(flight.phase, Phase::Connecting | Phase::Waiting);
        assert!(waits && flight.readers == 1, "{flight:?}");

        match at % 5 {
            0 => connection.send(b"a part").reset(),
            1 => connection.close(),
            2 => {
                Control::purge(&*proxy, Texts::All, Purge::Hard, Instant::now());
                client.reset(); // the fetch is aborted
                connection.wait_for_hangup();
                wait_until("the list is empty", || flights(&proxy).is_empty());
                continue;
            }
            _ => connection.send(b"a whole text").close(),
        }
        let _whole_or_not = client.rest();
        wait_until("the list is empty", || flights(&proxy).is_empty());
    }
}
