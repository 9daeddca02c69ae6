//! What routes share, and what stays when they are read again.

use super::*;
use crate::client::Timeouts;
use crate::handler::proxy::{KeyFold, PATIENCE, RouteSettings, ServeStale, TtlRules};
use crate::protocol::Protocol;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn settings() -> ProxySettings {
    let addr = "rest.example:43".parse().expect("an address");
    ProxySettings {
        protocol: Protocol::Line,
        target: TargetSettings {
            upstream: Upstream::servers(vec![addr]),
            send: None,
            route: None,
            times: KeepTimes {
                ttl: HOUR,
                grace: HOUR,
                fail_ttl: HOUR,
            },
            ttls: TtlRules::default(),
            rejects: Rejects::default(),
            conns: 8,
            ends: EndRule::default(),
            connect_retry: Duration::ZERO,
        },
        routing: None,
        timeouts: Timeouts {
            connect: HOUR,
            idle: HOUR,
            total: HOUR,
        },
        half_close: false,
        capacity: 1 << 20,
        serve_stale: ServeStale::Always,
        refresh_ahead: 0.0,
        warm: None,
        max_poem: 1 << 16,
        whole: false,
        upstream_queue: 8,
        fold: KeyFold::default(),
        patience: PATIENCE,
        pipeline: None,
        original_on_failure: false,
    }
}

fn route(pattern: &str, upstreams: &[&str]) -> RouteSettings {
    let origin = |upstream: &&str| {
        let addr = upstream.parse().expect("an address");
        Arc::new(Origin::Server(addr))
    };
    let origins = upstreams.iter().map(origin).collect();
    let pattern = pattern.parse().expect("a pattern");
    RouteSettings::new(pattern, "office.routes:1".into(), origins)
}

fn sending(route: RouteSettings, template: &str) -> RouteSettings {
    RouteSettings {
        send: Some(template.parse().expect("a template")),
        ..route
    }
}

fn router(routes: Vec<RouteSettings>, before: Option<&Router>) -> Router {
    let set = RouteSet::new(routes, false).expect("they agree");
    let routing = Routing {
        set: RouteSet::default(),
        rate: None,
        reject_pause: None,
        read: None,
    };
    Router::of_routes(set, &routing, &settings(), before)
}

fn key(router: &Router, request: &str) -> Key {
    router
        .choose(request.as_bytes())
        .scope
        .key(request.as_bytes())
}

#[test]
fn without_routes_all_requests_have_one_target_and_plain_keys() {
    let router = Router::of_one(&settings());
    let only = router.only().expect("there is one");
    assert!(Arc::ptr_eq(only, router.choose(b"x.a")));
    assert_eq!(key(&router, "x.a").bytes(), b"3:x.a,");
    assert!(router.with_key(&key(&router, "x.a")).is_some());
}

#[test]
fn routes_share_sources_queues_and_texts() {
    let router = router(
        vec![
            route("*.a", &["x.example:43"]),
            route("*.b", &["x.example:43"]),
            sending(route("*.c", &["x.example:43"]), "domain {}"),
            route("*.d", &["y.example:43", "x.example:43"]),
            route("*.e", &["rest.example:43"]),
        ],
        None,
    );
    let names = router
        .sources()
        .iter()
        .map(|source| source.name().to_string());
    let names: Vec<String> = names.collect();
    assert_eq!(names, ["rest.example:43", "x.example:43", "y.example:43"]);
    assert_eq!(router.places().count(), 3);

    let target = |name: &str| router.choose(name.as_bytes()).clone();
    let places = |a: &str, b: &str| Arc::ptr_eq(&target(a).places, &target(b).places);
    assert!(places("n.a", "n.b") && places("n.a", "n.c") && places("n.e", "else"));
    assert!(!places("n.a", "n.d"));

    let tag = |name: &str| target(name).scope.tag();
    assert_eq!(tag("n.a"), tag("n.b"));
    assert_eq!(tag("n.e"), tag("else"));
    assert_ne!(tag("n.a"), tag("n.c"));
    assert_ne!(tag("n.a"), tag("n.d"));
}

#[test]
fn what_has_not_changed_stays_when_routes_are_read_again() {
    let first = router(
        vec![
            route("*.a", &["x.example:43"]),
            route("*.b", &["y.example:43"]),
            sending(route("*.c", &["z.example:43"]), "a {}"),
        ],
        None,
    );
    let second = router(
        vec![
            sending(route("*.c", &["z.example:43"]), "b {}"),
            route("*.b", &["v.example:43"]),
            RouteSettings {
                ttl: Some(HOUR / 2),
                ..route("*.a", &["x.example:43"])
            },
        ],
        Some(&first),
    );

    assert_eq!(key(&first, "n.a"), key(&second, "n.a"));
    assert_eq!(key(&first, "else"), key(&second, "else"));
    assert_ne!(key(&first, "n.b"), key(&second, "n.b"));
    assert_ne!(key(&first, "n.c"), key(&second, "n.c"));
    assert_eq!(second.choose(b"n.a").times.ttl, HOUR / 2);
    for (name, is_known) in [
        ("n.a", true),
        ("n.b", false),
        ("n.c", false),
        ("else", true),
    ] {
        assert_eq!(
            second.with_key(&key(&first, name)).is_some(),
            is_known,
            "{name}"
        );
    }

    let shares =
        |one: &[u8], two: &[u8]| Arc::ptr_eq(&first.choose(one).places, &second.choose(two).places);
    assert!(shares(b"n.a", b"n.a") && shares(b"n.c", b"n.c") && !shares(b"n.b", b"n.b"));
    let third = router(vec![route("*.b", &["y.example:43"])], Some(&second));
    let old = key(&first, "n.b");
    assert_ne!(
        key(&third, "n.b"),
        old,
        "its texts are gone, its number is not given again"
    );
}

#[test]
fn a_whole_key_finds_its_target_again() {
    let router = router(
        vec![
            route("*.a", &["x.example:43"]),
            sending(route("*.b", &["x.example:43"]), "domain {}"),
        ],
        None,
    );
    for request in ["n.a", "n.b", "else", &"n".repeat(300)] {
        let target = router.choose(request.as_bytes());
        let key = target.scope.key(request.as_bytes());
        assert_eq!(router.key_of(&target.scope.whole(&key)), Some(key));
    }
    assert_eq!(router.key_of(b"\x01"), None);
}
