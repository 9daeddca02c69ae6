//! The whole way: a browser, the endpoint, and a proxy behind it.

use super::chromium::Browser;
use crate::support::{FakeUpstream, Operators, proxy};
use serde_json::json;
use std::time::Instant;

#[test]
fn the_page_of_a_real_proxy_fills_and_stays_quiet() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).start_with(&upstream, b"a text");
    let operators = Operators::healthy(&service);
    let Some(mut browser) = Browser::start() else {
        return;
    };

    browser.open(&format!("http://{}/", operators.loopback));
    browser.until("document.querySelector('#health').dataset.state === 'ok'");
    browser.until("drawn?.n >= 2"); // two samples of the history

    assert_eq!(browser.text("h1"), "poetry proxy poem");
    let upstreams = browser.text("#upstreams");
    assert!(
        upstreams.contains(&upstream.addr.to_string()),
        "{upstreams}"
    );
    assert!(upstreams.contains("answers"), "{upstreams}");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_form_of_another_site_purges_nothing() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).start_with(&upstream, b"a text");
    let operators = Operators::healthy(&service);
    let Some(mut browser) = Browser::start() else {
        return;
    };

    let target = format!("http://{}/purge?all", operators.loopback);
    browser.open(&format!(
        "data:text/html,<form method=post action='{target}'><button>x</button></form>"
    ));
    browser.follow("button");
    assert_eq!(browser.see("location.href"), json!(target));

    let said = browser.text("body");
    assert!(!said.contains("purged"), "{said}");
    assert!(service.get_at(Instant::now()).is_hit());
}

#[test]
fn a_name_that_was_bound_to_this_machine_gets_nothing() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).start();
    let operators = Operators::healthy(&service);
    let Some(mut browser) = Browser::start() else {
        return;
    };

    let port = operators.loopback.port();
    browser.open(&format!("http://evil.example:{port}/status"));

    let status = "performance.getEntriesByType('navigation')[0].responseStatus";
    assert_eq!(browser.see(status), json!(421));
    assert!(!browser.text("body").contains("schema"));
}

#[test]
fn one_wrong_answer_is_purged_by_hand() {
    let upstream = FakeUpstream::new();
    let service = proxy(&upstream).start_with(&upstream, b"a wrong answer");
    let operators = Operators::healthy(&service);
    let Some(mut browser) = Browser::start() else {
        return;
    };
    browser.open(&format!("http://{}/", operators.loopback));
    browser.until("$('keys').tBodies[0].rows.length === 1");
    assert_eq!(browser.text("#keys .key"), "the poem");

    browser.click("#keys button[data-do=purge]");
    browser.until("$('keys').tBodies[0].rows.length === 0");

    assert_eq!(browser.text("#toast"), "purged: the poem");
    assert!(!service.get_at(Instant::now()).is_hit());
    assert_eq!(browser.complaints, Vec::<String>::new());
}
