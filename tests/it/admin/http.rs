//! Requests that a browser, another site or an attacker may send, and what each gets.

use crate::support::{
    FakeUpstream, Operators, Service, TOKEN, http, proxy, request, wait_for_count, wait_until,
};

const HOST: &str = "Host: localhost\r\n";

/// A proxy that keeps a poem, and its operators.
fn keeping() -> (Service, Operators) {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).start_with(&upstream, b"poem");
    wait_for_count("misses", &proxy.stats.misses, 1);
    let operators = Operators::healthy(&proxy);
    (proxy, operators)
}

/// Whether the poem is still kept.
fn is_kept(proxy: &Service) -> bool {
    proxy.get_at(std::time::Instant::now()).is_hit()
}

#[test]
fn each_odd_request_has_its_status() {
    let (_proxy, operators) = keeping();
    let twice = format!("{HOST}{HOST}");
    let both = format!("{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n");
    let chunked = format!("{HOST}Transfer-Encoding: chunked\r\n");
    let long = format!("{HOST}a: {}\r\n", "x".repeat(9000));
    let many = format!("{HOST}{}", "a: b\r\n".repeat(65));
    let body = format!("{HOST}Content-Length: 5\r\n");
    let parameters: String = (0..1000).map(|number| format!("{number}&")).collect();
    let parameters = format!("GET /keys?{parameters} HTTP/1.1");

    for (line, fields, status) in [
        ("GET /health/live HTTP/1.1", HOST, 200),
        ("GET /health/live HTTP/1.0", HOST, 200),
        ("HEAD /health/live HTTP/1.1", HOST, 200),
        ("GET http://localhost/health/live HTTP/1.1", HOST, 200),
        ("GET /health/live HTTP/1.1", "", 400),
        ("GET /health/live HTTP/1.0", "", 200),
        ("HEAD /health/ready HTTP/1.0", "", 200),
        ("GET /status HTTP/1.0", "", 400),
        ("POST /purge?all HTTP/1.0", "", 400),
        ("GET /health/live HTTP/1.1", &twice, 400),
        ("GET /health/live HTTP/1.1", "Host: evil.example\r\n", 421),
        ("GET /health/live HTTP/1.1", "Host: poems.example\r\n", 200),
        ("GET http://evil.example/status HTTP/1.1", HOST, 421),
        ("GET /health/live HTTP/1.1", &both, 400),
        ("GET /health/live HTTP/1.1", &chunked, 413),
        ("POST /purge?all HTTP/1.1", &body, 413),
        ("GET /health/live HTTP/1.1", &long, 431),
        ("GET /health/live HTTP/1.1", &many, 431),
        ("GET /health/live HTTP/1.1", "Host : localhost\r\n", 400),
        ("GET /health/live HTTP/1.1", "\x00\r\n", 400),
        ("GET /nothing HTTP/1.1", HOST, 404),
        ("GET /../status HTTP/1.1", HOST, 404),
        ("GET /keys?key=%zz HTTP/1.1", HOST, 400),
        ("GET /keys?key=none HTTP/1.1", HOST, 404),
        ("POST /status HTTP/1.1", HOST, 405),
        ("GET /purge?all HTTP/1.1", HOST, 405),
        ("TRACE /status HTTP/1.1", HOST, 405),
        ("CONNECT localhost:1 HTTP/1.1", HOST, 404),
        ("OPTIONS * HTTP/1.1", HOST, 404),
        ("G\tET / HTTP/1.1", HOST, 400),
        ("GET ?x HTTP/1.1", HOST, 400),
        (&parameters, HOST, 400),
        ("GET /health/live HTTP/1.2", HOST, 505),
        ("PRI * HTTP/2.0", "", 505),
    ] {
        let answer = operators.http(&format!("{line}\r\n{fields}\r\n"));
        assert_eq!(answer.status, status, "{line} {fields:?}: {}", answer.body);
        let ends = answer.head.contains("connection: close") || line.ends_with("/1.0");
        assert!(ends, "{}", answer.head);
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cross-origin-opener-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(
                answer.head.contains(field),
                "{line}: {field}: {}",
                answer.head
            );
        }
    }
}

#[test]
fn line_feeds_alone_end_a_head_too() {
    let (_proxy, operators) = keeping();
    let answer = operators.http("GET /health/live HTTP/1.1\nHost: localhost\n\n");
    assert_eq!((answer.status, &*answer.body), (200, "live\n"));
}

#[test]
fn the_end_of_a_refused_body_does_not_cut_the_refusal() {
    let (_proxy, operators) = keeping();
    const NO_BODY: &str = "payload too large: no body is taken, parameters go into the query\n";
    let body = "x".repeat(60_000);
    let head = format!("POST /purge?all HTTP/1.1\r\n{HOST}Content-Length: 60000\r\n\r\n");
    let answer = operators.http(&format!("{head}{body}"));
    assert_eq!((answer.status, &*answer.body), (413, NO_BODY));
}

#[test]
fn a_second_request_is_not_answered() {
    let (_proxy, operators) = keeping();
    let one = format!("GET /health/live HTTP/1.1\r\n{HOST}\r\n");
    let answer = operators.http(&format!("{one}{one}"));
    assert_eq!(answer.body, "live\n");
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let (_proxy, operators) = keeping();
    let answer = request(operators.loopback, "GET /purge?all");
    assert!(
        answer.head.contains("\r\nallow: post\r\n"),
        "{}",
        answer.head
    );
    let answer = request(operators.loopback, "POST /status");
    assert!(
        answer.head.contains("\r\nallow: get, head\r\n"),
        "{}",
        answer.head
    );
}

#[test]
fn another_site_can_make_a_browser_change_nothing() {
    let (proxy, operators) = keeping();
    let port = operators.loopback.port();
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n";
    for fields in [
        "Sec-Fetch-Site: cross-site\r\nOrigin: http://evil.example\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://127.0.0.1:1\r\n",
    ] {
        let head =
            format!("POST /purge?all HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{form}{fields}\r\n");
        assert_eq!(operators.http(&head).status, 403, "{fields}");
        assert_eq!(operators.unix_http(&head).status, 403, "{fields}");
    }

    // The name of the other site leads here, so that its page has our origin.
    let rebound = "POST /purge?all HTTP/1.1\r\nHost: evil.example\r\n\
                   Origin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n\r\n";
    assert_eq!(operators.http(rebound).status, 421);
    assert!(is_kept(&proxy));
}

#[test]
fn another_site_can_occupy_no_place_by_images() {
    let (_proxy, operators) = keeping();
    for (path, mode, status) in [
        ("/log", "no-cors", 403),
        ("/keys", "no-cors", 403),
        ("/status", "cors", 403),
        ("/health/live", "no-cors", 200),
        ("/metrics", "no-cors", 200),
        ("/status", "navigate", 200),
    ] {
        let fields = format!("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: {mode}\r\n");
        let head = format!("GET {path} HTTP/1.1\r\n{HOST}{fields}\r\n");
        assert_eq!(operators.http(&head).status, status, "{path} {mode}");
    }
}

#[test]
fn our_own_page_can_purge() {
    let (proxy, operators) = keeping();
    let head = format!("POST /purge?key= HTTP/1.1\r\n{HOST}Sec-Fetch-Site: same-origin\r\n\r\n");
    let answer = operators.http(&head);
    assert_eq!((answer.status, &*answer.body), (200, "{\"purged\":1}\n"));
    assert!(!is_kept(&proxy));
}

#[test]
fn on_loopback_reading_is_free_and_changing_takes_the_token() {
    let (proxy, operators) = keeping();
    for path in [
        "/",
        "/status",
        "/keys",
        "/flights",
        "/upstreams",
        "/notices",
    ] {
        let answer = request(operators.loopback, &format!("GET {path}"));
        assert_eq!(answer.status, 200, "{path}");
    }
    let refused = request(operators.loopback, "POST /purge?all");
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("\r\nwww-authenticate: bearer"));
    assert!(is_kept(&proxy));

    let with = |token: &str| {
        let head =
            format!("POST /purge?all HTTP/1.1\r\n{HOST}Authorization: Bearer {token}\r\n\r\n");
        http(operators.loopback, &head).status
    };
    assert_eq!(with("another-word-16!"), 401);
    assert_eq!(with(""), 401);
    assert!(is_kept(&proxy));
    assert_eq!(with(TOKEN), 200);
    assert!(!is_kept(&proxy));
}

#[test]
fn elsewhere_only_health_and_metrics_are_open() {
    let (_proxy, operators) = keeping();
    for (path, status) in [
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/metrics", 200),
        ("/", 401),
        ("/status", 401),
        ("/keys", 401),
        ("/log", 401),
    ] {
        let answer = request(operators.elsewhere, &format!("GET {path}"));
        assert_eq!(answer.status, status, "{path}");
    }

    let page = format!("POST /purge?all HTTP/1.1\r\n{HOST}Sec-Fetch-Site: same-origin\r\n\r\n");
    assert_eq!(http(operators.elsewhere, &page).status, 401);
    let token = format!("GET /status HTTP/1.1\r\n{HOST}Authorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(http(operators.elsewhere, &token).status, 200);
}

#[test]
fn over_a_unix_socket_any_host_may_do_all() {
    let (proxy, operators) = keeping();
    let purge = "POST /purge?all HTTP/1.1\r\nHost: any.example\r\n\r\n";
    assert_eq!(operators.unix_http(purge).json()["purged"], 1);
    assert!(!is_kept(&proxy));
    let without = "GET /health/ready HTTP/1.1\r\n\r\n";
    assert_eq!(operators.unix_http(without).body, "ready\n");
}

#[test]
fn the_page_and_what_it_asks_for_are_there() {
    let (_proxy, operators) = keeping();
    for (path, kind, part) in [
        ("/", "text/html", "<script src=\"page.js\""),
        ("/page.css", "text/css", "{"),
        ("/page.js", "text/javascript", "status?history=300"),
        ("/status?history=300", "application/json", "\"schema\":1"),
        ("/keys?limit=8&prefix=", "application/json", "\"total\":"),
        ("/upstreams", "application/json", "\"addr\":"),
        ("/notices", "application/json", "["),
        ("/flights", "application/json", "[]"),
    ] {
        let answer = request(operators.loopback, &format!("GET {path}"));
        let kind = format!("\r\ncontent-type: {kind}");
        assert!(answer.head.contains(&kind), "{path}: {}", answer.head);
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
    }

    let status = request(operators.loopback, "GET /status").json();
    assert_eq!(status["health"]["state"], "ok");
    assert_eq!(status["requests"]["total"], 1);
    assert_eq!(status["settings"]["ttl_s"], 3600.0);
    assert!(status["history"].is_null(), "it was not asked for");
}

#[test]
fn a_key_is_listed_refreshed_and_purged_by_its_exact_bytes() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();
    let operators = Operators::healthy(&proxy);
    let mut client = proxy.request(b"a b&\xff\r\n");
    let (asked, _) = upstream.accept().read(7);
    asked.send(b"old").close();
    assert_eq!(client.rest().unwrap(), b"old");
    let post = |path: &str| operators.unix_http(&format!("POST {path} HTTP/1.1\r\n\r\n"));
    let get = |path: &str| operators.unix_http(&format!("GET {path} HTTP/1.1\r\n\r\n"));

    let keys = get("/keys?prefix=a").json();
    assert_eq!(keys["total"], 1);
    let id = keys["keys"][0]["id"].as_str().unwrap().to_string();
    assert_eq!(id, "a%20b%26%FF");
    assert_eq!(get(&format!("/keys?key={id}")).json()["bytes"], 3);
    let (listed, _) = operators.unix(b"keys a\n");
    assert!(
        listed.starts_with("fresh") && listed.contains(" a b&"),
        "{listed}"
    );

    assert_eq!(post(&format!("/refresh?key={id}")).status, 202);
    let (asked, line) = upstream.accept().read(7);
    assert_eq!(line, b"a b&\xff\r\n");
    asked.send(b"newer").close();
    wait_until("the new text is kept", || {
        get(&format!("/keys?key={id}")).json()["bytes"] == 5
    });

    assert_eq!(post("/purge?prefix=b").body, "{\"purged\":0}\n");
    assert_eq!(post("/purge?prefix=a%20").body, "{\"purged\":1}\n");
    assert_eq!(get(&format!("/keys?key={id}")).status, 404);
}

#[test]
fn the_metrics_are_in_the_format_that_is_asked_for() {
    let (_proxy, operators) = keeping();
    let plain = request(operators.elsewhere, "GET /metrics");
    assert!(
        plain
            .head
            .contains("\r\ncontent-type: text/plain; version=0.0.4")
    );
    assert!(
        plain
            .body
            .contains("poetry_requests_total{class=\"miss\"} 1\n"),
        "{}",
        plain.body
    );

    let accept = "Accept: application/openmetrics-text;version=1.0.0\r\n";
    let open = http(
        operators.elsewhere,
        &format!("GET /metrics HTTP/1.1\r\n{HOST}{accept}\r\n"),
    );
    assert!(
        open.head
            .contains("\r\ncontent-type: application/openmetrics-text")
    );
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
}
