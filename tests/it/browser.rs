//! The status page in a real browser.

mod chromium;
#[cfg(feature = "fleet")]
mod fleet;
mod pictures;
mod scene;
mod stand_in;
mod store;
mod whole;

use chromium::Browser;
use scene::{calm_proxy, feed, key, proxy_in_trouble, server};
use serde_json::json;
use stand_in::{Scene, StandIn};

/// Opens the page, and waits until it is filled.
fn open(scene: Scene) -> Option<(Browser, StandIn)> {
    let mut browser = Browser::start()?;
    let stand_in = StandIn::start(scene);
    browser.open(&stand_in.url());
    browser.until("document.querySelector('#health').dataset.state !== 'wait'");
    browser.until("!document.body.matches(':not(.no-cache)') || $('keys-n').textContent");
    Some((browser, stand_in))
}

/// That nothing went wrong on the page, and that it asked for nothing from elsewhere.
fn assert_quiet(browser: &Browser, stand_in: &StandIn) {
    assert_eq!(browser.complaints, Vec::<String>::new());

    let own = stand_in.url();
    let is_foreign = |url: &&String| !url.starts_with(&own) && !url.starts_with("data:");
    let foreign: Vec<_> = browser.requests.iter().filter(is_foreign).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn the_page_says_what_is_wrong_since_when_and_what_is_still_served() {
    let Some((mut browser, stand_in)) = open(proxy_in_trouble()) else {
        return;
    };

    assert_eq!(browser.text("#health span"), "in trouble");
    let reasons = browser.text("#why");
    for part in [
        "whois.registry.example:43 has failed since ",
        "could not connect: connection refused",
        "whois2.registry.example:43 is asked instead.",
        "in the last minute got no whole answer",
        "were stale",
    ] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }

    assert_eq!(
        browser.see("$('upstreams').tBodies[0].rows.length"),
        json!(2)
    );
    assert!(browser.text("#upstreams").contains("fails since"));
    assert_eq!(browser.see("$('flights').tBodies[0].rows.length"), json!(5));
    assert_eq!(browser.see("$('log').children.length"), json!(5));
    assert_eq!(browser.see("$('keys').tBodies[0].rows.length"), json!(8));
    assert!(browser.text("#ratio").ends_with('%'));
    assert!(browser.see("document.title").to_string().contains('⚠'));
    assert_quiet(&browser, &stand_in);
}

#[test]
fn on_a_good_day_the_page_is_calm() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };

    assert_eq!(browser.text("#health span"), "well");
    assert_eq!(browser.see("$('why').hidden"), json!(true));
    assert_eq!(browser.see("$('flights-none').hidden"), json!(false));
    assert_quiet(&browser, &stand_in);
}

#[test]
fn an_upstream_that_pauses_says_for_how_long() {
    let mut scene = calm_proxy();
    scene.snapshot.upstreams[0].paused = Some(scene::secs(59));
    let Some((mut browser, stand_in)) = open(scene) else {
        return;
    };
    let state = "#upstreams td[data-name=State]";
    assert_eq!(browser.text(state), "not asked for 59\u{2009}s");

    stand_in.scene().snapshot.upstreams[0].paused = None;
    browser.until(&format!(
        "document.querySelector('{state}').textContent === 'answers'"
    ));
    assert_quiet(&browser, &stand_in);
}

#[test]
fn a_server_shows_no_cache_and_no_upstreams() {
    let Some((mut browser, stand_in)) = open(server()) else {
        return;
    };

    let visible = |id: &str| format!("$('{id}').getClientRects().length > 0");
    for id in ["upstreams", "flights", "keys", "meter", "store", "fleet"] {
        assert_eq!(browser.see(&visible(id)), json!(false), "{id}");
    }
    for id in ["chart", "bars", "log"] {
        assert_eq!(browser.see(&visible(id)), json!(true), "{id}");
    }
    assert_eq!(browser.text("h1"), "poetry serve line");
    assert_eq!(browser.text("#ratio-name"), "Answered whole");
    assert_eq!(browser.text("#saved-name"), "Clients");
    assert_eq!(stand_in.count("GET", "/keys"), 0);
    assert_quiet(&browser, &stand_in);
}

#[test]
fn a_feed_shows_its_connection_and_what_was_lost() {
    let Some((mut browser, stand_in)) = open(feed()) else {
        return;
    };

    let visible = |id: &str| format!("$('{id}').getClientRects().length > 0");
    for id in ["upstreams", "flights", "keys", "meter"] {
        assert_eq!(browser.see(&visible(id)), json!(false), "{id}");
    }
    let row = browser.text("#feed tbody tr");
    for part in ["for 2", "12", "1 slow", "204", "7\u{2009}380\u{2009}000"] {
        assert!(row.contains(part), "{row}");
    }
    assert_quiet(&browser, &stand_in);
}

#[test]
fn a_service_that_has_just_started_has_a_page() {
    let mut scene = calm_proxy();
    scene.history = Scene::new("proxy", scene.snapshot.clone()).history;
    scene.keys.clear();
    scene.total = 0;
    let Some((mut browser, stand_in)) = open_empty(scene) else {
        return;
    };

    assert_eq!(browser.text("#ratio"), "–");
    assert_eq!(browser.text("#keys-none"), "Nothing is cached yet.");
    browser.press("p");
    browser.see("$('chart').focus()");
    browser.press("ArrowLeft");
    assert_quiet(&browser, &stand_in);
}

fn open_empty(scene: Scene) -> Option<(Browser, StandIn)> {
    let mut browser = Browser::start()?;
    let stand_in = StandIn::start(scene);
    browser.open(&stand_in.url());
    browser.until("!$('keys-none').hidden");
    Some((browser, stand_in))
}

#[test]
fn keys_and_errors_with_markup_are_text() {
    let evil = "<img src=x onerror=alert(1)>\"'&";
    let mut scene = proxy_in_trouble();
    scene.keys = vec![key(evil.as_bytes(), 10, 5), key(b"m\xfcnchen", 11, 5)];
    scene.flights[0].name = evil.into();
    scene.snapshot.upstreams[0].name = evil.to_string();
    scene.snapshot.upstreams[0].last_error = Some((format!("</td>{evil}"), scene::secs(1)));
    scene.about.listen = vec![evil.to_string()];
    scene::note(&scene, &format!("</script><script>alert(2)</script>{evil}"));
    let Some((mut browser, stand_in)) = open(scene) else {
        return;
    };

    assert_eq!(browser.text("#keys .key"), evil);
    assert_eq!(browser.text("#flights .key"), evil);
    assert_eq!(browser.text("#upstreams td"), evil);
    assert!(browser.text("#log").contains("</script><script>alert(2)"));
    assert_eq!(browser.see("document.images.length"), json!(0));
    assert_eq!(browser.see("document.scripts.length"), json!(1));

    // Any bytes can be purged, and nothing else is.
    browser.click("#keys button[data-do=purge][data-at='1']");
    browser.until("$('toast').textContent.startsWith('purged: ')");
    assert_eq!(stand_in.count("POST", "/purge?key=m%FCnchen"), 1);
    browser.until("$('keys').tBodies[0].rows.length === 1");
    assert_quiet(&browser, &stand_in);
}

#[test]
fn one_key_is_purged_and_another_fetched_again() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };
    assert_eq!(browser.text("#keys .key"), "example.net");

    browser.see("document.querySelector('#keys button[data-do=purge]').focus()");
    browser.press("Enter");
    browser.until("$('keys').tBodies[0].rows.length === 7");

    assert_eq!(stand_in.count("POST", "/purge?key=example.net"), 1);
    assert_eq!(stand_in.scene().sites, ["same-origin"]);
    assert_eq!(browser.text("#toast"), "purged: example.net");
    // The focus is on the button that stands there now.
    assert_eq!(
        browser.see("document.activeElement.dataset.key"),
        json!("example.org")
    );

    browser.click("#keys button[data-do=refresh]");
    browser.until("$('toast').textContent === 'fetching again: example.org'");
    assert_eq!(stand_in.count("POST", "/refresh?key=example.org"), 1);
    assert_quiet(&browser, &stand_in);
}

#[test]
fn to_purge_everything_takes_a_yes() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };

    browser.click("#purge-all");
    browser.until("$('sure').open");
    browser.press("Escape");
    browser.until("!$('sure').open");
    browser.click("#purge-all");
    browser.click("#sure button[value=no]");
    browser.until("!$('sure').open");
    assert_eq!(stand_in.count("POST", "/purge"), 0);

    browser.click("#purge-all");
    browser.click("#sure button[value=yes]");
    browser.until("$('toast').textContent === 'all is purged'");
    assert_eq!(stand_in.count("POST", "/purge?all"), 1);
    assert_eq!(stand_in.count("POST", ""), 1);
    assert_quiet(&browser, &stand_in);
}

#[test]
fn keys_are_looked_for_by_their_beginning() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };

    browser.press("/");
    assert_eq!(browser.see("document.activeElement.id"), json!("prefix"));
    for letter in ["-", "T", " ", "d"] {
        browser.press(letter);
    }
    browser.press("Enter");
    browser.until("$('keys').tBodies[0].rows.length === 1");

    assert_eq!(browser.text("#keys .key"), "-T dn,ace k\u{f6}ln.example");
    assert!(stand_in.count("GET", "/keys?limit=8&prefix=-T%20d") > 0);

    browser.see("$('prefix').value = 'zzz'");
    browser.press("Enter");
    browser.until("!$('keys-none').hidden");
    assert_eq!(browser.text("#keys-none"), "No key begins like this.");
    assert_quiet(&browser, &stand_in);
}

#[test]
fn a_rare_beginning_is_looked_for_page_by_page() {
    let mut scene = calm_proxy();
    scene.looked_at = 3;
    let Some((mut browser, stand_in)) = open(scene) else {
        return;
    };
    assert_eq!(browser.see("$('keys').tBodies[0].rows.length"), json!(8));

    browser.see("$('prefix').value = 'goethe'");
    browser.click("#find button");
    browser.until("$('keys').tBodies[0].rows.length === 1");

    assert_eq!(browser.text("#keys .key"), "goethe.example");
    assert!(stand_in.count("GET", "/keys?limit=8&prefix=goethe&cursor=6") > 0);
    assert_quiet(&browser, &stand_in);
}

#[test]
fn without_a_token_the_page_says_what_to_do() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };

    stand_in.scene().is_closed = true;
    browser.until("document.body.classList.contains('lost')");

    assert_eq!(browser.text("#health span"), "not allowed");
    assert!(browser.text("#why").contains("over a tunnel"));
}

#[test]
fn a_service_that_stops_says_so() {
    let mut scene = calm_proxy();
    scene.is_draining = true;
    let Some((mut browser, stand_in)) = open(scene) else {
        return;
    };

    assert_eq!(browser.text("#health span"), "stopping");
    let reason = "The service stops: 14 connections are open and may finish.";
    assert_eq!(browser.text("#why"), reason);
    assert_quiet(&browser, &stand_in);
}

#[test]
fn the_keyboard_pauses_changes_the_light_and_reads_the_chart() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };

    browser.press("p");
    let pressed = "$('pause').getAttribute('aria-pressed')";
    assert_eq!(browser.see(pressed), json!("true"));
    let later = "new Promise((done) => setTimeout(() => done(1), 1500))";
    browser.see(later); // an answer may still be on its way
    let asked = stand_in.count("GET", "/status");
    browser.see(later); // longer than the page's pulse: nothing comes, so time must pass
    assert_eq!(stand_in.count("GET", "/status"), asked);
    browser.press("p");
    assert_eq!(browser.see(pressed), json!("false"));

    let before = browser.see("getComputedStyle(document.body).backgroundColor");
    browser.press("t");
    assert_ne!(
        browser.see("getComputedStyle(document.body).backgroundColor"),
        before
    );

    browser.see("$('chart').focus()");
    browser.press("ArrowLeft");
    browser.until("/^\\d\\d:\\d\\d:\\d\\d: .*hit \\d/.test($('chart-said').textContent)");

    browser.press("?");
    browser.until("$('keys-help').open");
    assert_quiet(&browser, &stand_in);
}

#[test]
fn a_page_without_an_answer_says_so_and_comes_back() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };

    stand_in.scene().is_down = true;
    browser.until("document.body.classList.contains('lost')");
    assert_eq!(browser.text("#health span"), "no answer");

    stand_in.scene().is_down = false;
    browser.until("!document.body.classList.contains('lost')");
    assert_eq!(browser.text("#health span"), "well");

    // Of the requests that failed Chromium complains itself.
    let is_of_the_network = |text: &String| text.contains("ERR_EMPTY_RESPONSE");
    browser.complaints.retain(|text| !is_of_the_network(text));
    assert_quiet(&browser, &stand_in);
}

#[test]
fn the_figures_are_written_as_people_read_them() {
    let Some((mut browser, _stand_in)) = open(calm_proxy()) else {
        return;
    };

    let table = [
        ("quantile([1, 2, null], [0, 0, 0], .5)", json!(null)),
        ("quantile([1, 2, null], [10, 0, 0], .5)", json!(0.5)),
        ("quantile([1, 2, null], [90, 10, 0], .95)", json!(1.5)),
        ("quantile([1, 2, null], [0, 0, 7], .5)", json!(2)),
        ("secs(null)", json!("–")),
        ("secs(.0004)", json!("<1\u{2009}ms")),
        ("secs(.25)", json!("250\u{2009}ms")),
        ("secs(3.14)", json!("3.1\u{2009}s")),
        ("secs(600)", json!("10\u{2009}min")),
        ("secs(86400)", json!("24\u{2009}h")),
        ("secs(604800)", json!("7\u{2009}d")),
        ("bytes(0)", json!("0\u{2009}B")),
        ("bytes(1536)", json!("1.5\u{2009}KiB")),
        ("bytes(256 << 20)", json!("256\u{2009}MiB")),
        ("count(31204887)", json!("31.2\u{2009}M")),
        ("whole(1234567)", json!("1\u{2009}234\u{2009}567")),
    ];
    for (expression, value) in table {
        assert_eq!(browser.see(expression), value, "{expression}");
    }
}

#[test]
fn on_a_phone_nothing_is_out_of_sight() {
    let Some((mut browser, stand_in)) = open(proxy_in_trouble()) else {
        return;
    };

    browser.size(360, 800);
    browser.until("document.documentElement.clientWidth === 360");

    let overflow = "document.documentElement.scrollWidth > 360";
    assert_eq!(browser.see(overflow), json!(false));
    let inside = "[...document.querySelectorAll('#keys button, #purge-all')].every((b) => {
        const { left, right } = b.getBoundingClientRect();
        return left >= 0 && right <= 360;
    })";
    assert_eq!(browser.see(inside), json!(true));
    assert_quiet(&browser, &stand_in);
}
