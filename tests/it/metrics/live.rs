//! The text of services that run: the samples of the other tests are like them.

use super::sample::{busy_proxy, scrape, series, text};
use crate::support::{FakeUpstream, proxy, serve, wait_until};
use poetry::admin::metrics::{Format, render};
use std::collections::BTreeSet;

/// The series of a text, with one name for all upstreams.
fn shape(text: &str, upstream: &str) -> BTreeSet<String> {
    let series = series(text).into_keys();
    series
        .map(|name| name.replace(upstream, "UPSTREAM"))
        .collect()
}

#[test]
fn a_proxy_that_runs_has_the_series_of_the_page() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).line().start();
    let addr = upstream.addr.to_string();

    let live = text(proxy.snapshot());
    let mut sample = busy_proxy();
    sample.upstreams.truncate(1);
    (sample.store, sample.feed, sample.warm) = (None, None, None); // this proxy has none
    assert_eq!(shape(&live, &addr), shape(&text(sample), "a:43"));
}

#[test]
fn a_server_that_runs_says_what_it_has_sent() {
    let server = serve(&[b"a poem"]).start();
    for _ in 0..3 {
        assert_eq!(server.get().unwrap(), b"a poem");
    }
    wait_until("three are counted", || {
        server.snapshot().connections.own == 3
    });

    let text = render(scrape(server.snapshot()), Format::Text);
    let series = series(&text);
    assert_eq!(series[r#"poetry_requests_total{class="own"}"#], 3.0);
    assert_eq!(series[r#"poetry_sent_bytes_total{class="own"}"#], 18.0);
    assert_eq!(series["poetry_request_wait_seconds_count"], 3.0);
    assert!(!text.contains("poetry_cache") && !text.contains("upstream"));
}
