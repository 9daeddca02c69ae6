//! `--route` and `--routes`: which upstream a request is for, and what stays when they
//! are read again.

mod check;
mod reload;

use crate::support::{
    FakeUpstream, HOUR, LONG, RESET, ServerProcess, Service, ZERO, proxy, wait_for_count,
};
use poetry::addr::Addr;
use poetry::handler::proxy::RouteSettings;
use poetry::upstream::{Origin, RejectPause};
use std::sync::Arc;
use std::time::Instant;

/// A route to this upstream.
fn route(pattern: &str, upstream: &FakeUpstream) -> RouteSettings {
    let origin = Origin::Server(Addr::from(upstream.addr));
    let pattern = pattern.parse().unwrap();
    RouteSettings::new(pattern, "a test".into(), vec![Arc::new(origin)])
}

/// Asks for `request`, which `upstream` must be sent as `sent`, and answers `poem`.
fn answered(proxy: &Service, request: &str, upstream: &FakeUpstream, sent: &str, poem: &str) {
    let mut client = proxy.request(format!("{request}\n").as_bytes());
    let (connection, asked) = upstream.accept().read(sent.len() + 2);
    assert_eq!(asked, format!("{sent}\r\n").into_bytes());
    connection.send(poem.as_bytes()).close();
    assert_eq!(client.rest().unwrap(), poem.as_bytes());
}

#[test]
fn each_request_is_for_the_upstream_of_its_route() {
    let (first, second, rest) = (
        FakeUpstream::new(),
        FakeUpstream::new(),
        FakeUpstream::new(),
    );
    let with_template = RouteSettings {
        send: Some("-T dn,ace {}".parse().unwrap()),
        ..route("*.a", &first)
    };
    let routes = [
        with_template,
        route("192.0.2.0/24", &second),
        route("/^AS/", &second),
    ];
    let proxy = proxy(&rest).line().routes(routes).start();

    answered(&proxy, "x.A", &first, "-T dn,ace x.A", "one");
    answered(&proxy, "192.0.2.1", &second, "192.0.2.1", "two");
    answered(&proxy, "AS1", &second, "AS1", "three");
    answered(&proxy, "a", &rest, "a", "four");
    wait_for_count("kept", &proxy.stats.kept, 4);
    for (request, poem) in [("x.A", "one"), ("192.0.2.1", "two"), ("a", "four")] {
        let answer = proxy.ask(format!("{request}\r\n").as_bytes());
        assert_eq!(answer.unwrap(), poem.as_bytes());
    }

    let upstreams = proxy.snapshot().upstreams;
    let asked = upstreams.iter().map(|of| (of.name.clone(), of.asked));
    let wanted = [(&rest, 1), (&first, 1), (&second, 2)];
    let wanted = wanted.map(|(upstream, asked)| (upstream.addr.to_string(), asked));
    assert_eq!(asked.collect::<Vec<_>>(), wanted, "each is listed once");
}

#[test]
fn a_request_that_would_be_an_option_is_declined() {
    let (upstream, rest) = (FakeUpstream::new(), FakeUpstream::new());
    let with_template = RouteSettings {
        send: Some("domain {}".parse().unwrap()),
        ..route("*.a", &upstream)
    };
    let proxy = proxy(&rest).line().routes([with_template]).start();
    assert_eq!(proxy.ask(b"-V x.a\n"), RESET);
    assert_eq!(upstream.connections() + rest.connections(), 0);
}

#[test]
fn a_route_has_its_own_times_and_what_it_rejects() {
    let (upstream, rest) = (FakeUpstream::new(), FakeUpstream::new());
    let own = RouteSettings {
        ttl: Some(ZERO),
        grace: Some(2 * HOUR),
        fail_ttl: Some(HOUR),
        reject: Some(regex::bytes::Regex::new("^no").unwrap()),
        ..route("*.a", &upstream)
    };
    let proxy = proxy(&rest).line().ttl(HOUR).routes([own]).start();

    answered(&proxy, "y.a", &upstream, "y.a", "no");
    wait_for_count("failed", &proxy.stats.failed_fetches, 1);
    let again = proxy.ask(b"y.a\n");
    assert_eq!(again.unwrap(), b"no", "a cached failure");

    answered(&proxy, "x.a", &upstream, "x.a", "text");
    answered(&proxy, "x.b", &rest, "x.b", "no");
    wait_for_count("kept", &proxy.stats.kept, 2);
    let later = Instant::now() + HOUR / 2;
    assert!(proxy.ask_at(b"x.b", later).is_hit());
    assert!(proxy.ask_at(b"x.a", later).is_stale());
}

#[test]
fn two_routes_to_one_registry_keep_to_its_rate_together() {
    let (registry, rest) = (FakeUpstream::new(), FakeUpstream::new());
    let rated = RouteSettings {
        rate: Some("1/h".parse().unwrap()),
        ..route("*.a", &registry)
    };
    let routes = [rated, route("*.b", &registry)];
    let builder = proxy(&rest).line().limits(None, RejectPause::Never);
    let proxy = builder.routes(routes).start();

    answered(&proxy, "x.a", &registry, "x.a", "text");
    let _waits = proxy.request(b"x.b\n");
    proxy.wait_for_waiting(1);
    answered(&proxy, "x", &rest, "x", "text");
    assert_eq!(proxy.snapshot().fetches.unwrap().rate_waits, 1);
    assert_eq!(registry.connections(), 1);
}

#[test]
fn a_registry_that_hangs_delays_no_other_route() {
    let (hanging, rest) = (FakeUpstream::new(), FakeUpstream::new());
    let own = RouteSettings {
        conns: Some(1),
        ..route("*.a", &hanging)
    };
    let proxy = proxy(&rest).line().upstream_queue(1).routes([own]).start();

    let _running = proxy.request(b"x.a\n");
    let _held = hanging.accept();
    let _waiting = proxy.request(b"y.a\n");
    proxy.wait_for_waiting(1);
    assert_eq!(proxy.ask(b"z.a\n"), RESET, "its queue is full");
    answered(&proxy, "x", &rest, "x", "text");
}

#[test]
fn the_log_and_the_operators_know_the_route() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr;
    upstream.serve_always(b"a text");
    let route = format!("*.a={addr}");
    let rest = format!("*={addr}");
    let mut args = vec!["proxy", "-l", "127.0.0.1:0", "--protocol", "line"];
    args.extend(["--log-format", "json", "--route", &route, "--route", &rest]);
    let mut proxy = ServerProcess::start(&args);
    let lines = proxy.stderr_lines();

    let mut seen = Vec::new();
    for request in ["x.a", "x.a", "x"] {
        let answer = proxy.ask(format!("{request}\n").as_bytes());
        assert_eq!(answer.unwrap(), b"a text");
        loop {
            let line = lines.recv_timeout(LONG).unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line.get("class").is_some() {
                seen.push((line["hit"].clone(), line["route"].clone()));
                break;
            }
        }
    }
    let wanted = [(false, "*.a"), (true, "*.a"), (false, "*")];
    assert_eq!(seen, wanted.map(|(hit, route)| (hit.into(), route.into())));
}

#[test]
fn a_purge_finds_a_text_by_its_request_and_by_its_beginning() {
    use poetry::cache::Purge;
    use poetry::control::{Control, KeyPage, Texts};

    let (upstream, rest) = (FakeUpstream::new(), FakeUpstream::new());
    let proxy = proxy(&rest)
        .line()
        .routes([route("*.a", &upstream)])
        .start();
    answered(&proxy, "x.a", &upstream, "x.a", "one");
    answered(&proxy, "x.b", &rest, "x.b", "two");
    let long = "y".repeat(300) + ".b";
    answered(&proxy, &long, &rest, &long, "three");
    wait_for_count("kept", &proxy.stats.kept, 3);

    let now = Instant::now();
    let control = proxy.proxy();
    let page = KeyPage {
        prefix: b"x.",
        cursor: None,
        limit: 9,
    };
    let mut routes: Vec<_> = control.keys(&page, now).keys;
    routes.sort_by(|a, b| a.name.cmp(&b.name));
    let routes = routes.into_iter().map(|key| (key.name, key.route));
    let wanted = [
        (b"x.a".to_vec(), Some("*.a".to_string())),
        (b"x.b".to_vec(), None),
    ];
    assert_eq!(routes.collect::<Vec<_>>(), wanted);

    let purge = |texts| Control::purge(&*control, texts, Purge::Hard, now);
    assert_eq!(purge(Texts::Named(b"x.a")), 1);
    assert!(control.key(b"x.a", now).is_none());
    let all = KeyPage {
        prefix: b"#",
        ..page
    };
    let digest = control.keys(&all, now).keys.remove(0).name;
    assert_eq!(purge(Texts::Named(&digest)), 1);
    assert_eq!(purge(Texts::Prefix(b"x")), 1);
}

#[cfg(feature = "store")]
#[test]
fn a_store_keeps_the_texts_of_each_route_and_gives_a_changed_one_none() {
    let folder = crate::support::Folder::new();
    let path = folder.path("poems");
    let (old, new, rest) = (
        FakeUpstream::new(),
        FakeUpstream::new(),
        FakeUpstream::new(),
    );
    let own = |upstream| RouteSettings {
        ttl: Some(HOUR / 2),
        ..route("*.a", upstream)
    };

    let first = proxy(&rest).line().routes([own(&old)]).store(&path).start();
    answered(&first, "x.a", &old, "x.a", "one");
    answered(&first, "x", &rest, "x", "two");
    crate::support::wait_until("both are written", || first.store().written == 2);
    first.stop_and_close();

    let second = proxy(&rest).line().routes([own(&old)]).store(&path).start();
    assert_eq!(second.ask(b"x.a\n").unwrap(), b"one");
    assert_eq!(second.ask(b"x\n").unwrap(), b"two");
    let later = Instant::now() + HOUR / 2;
    assert!(
        !second.ask_at(b"x.a", later).is_hit(),
        "with the ttl of its route"
    );
    assert!(second.ask_at(b"x", later).is_hit());
    second.stop_and_close();

    let third = proxy(&rest).line().routes([own(&new)]).store(&path).start();
    answered(&third, "x.a", &new, "x.a", "three");
    assert_eq!(third.ask(b"x\n").unwrap(), b"two");
}
