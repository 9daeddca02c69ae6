//! The page of a proxy in a fleet, while its server is there, is lost, and is back.

use super::chromium::Browser;
use crate::support::{FakeUpstream, Operators, Redis, proxy};
use poetry::cache::Purge;
use poetry::control::Texts;

/// Waits until a column of a table shows this.
fn until_shown(browser: &mut Browser, table: &str, column: &str, text: &str) {
    let cell = format!("#{table} td[data-name='{column}']");
    browser.until(&format!(
        "document.querySelector(\"{cell}\").textContent.startsWith('{text}')"
    ));
}

#[test]
fn the_page_shows_the_fleet_and_whether_its_server_answers() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let upstream = FakeUpstream::new();
    let start = || proxy(&upstream).line().tier(redis.fleet()).start();
    let (shown, other) = (start(), start());
    let operators = Operators::healthy(&shown);
    browser.open(&format!("http://{}/", operators.loopback));
    browser.until("document.querySelector('#health').dataset.state === 'ok'");

    until_shown(&mut browser, "store", "Where", &redis.place());
    until_shown(&mut browser, "store", "State", "in use since ");
    assert_eq!(browser.text("#store-of"), "shared with a fleet");
    until_shown(&mut browser, "fleet", "Purges owed", "0");

    // It fetches one that others can have.
    let mut first = shown.request(b"one\r\n");
    upstream.accept().skip(5).send(b"a poem").close();
    assert_eq!(first.rest().unwrap(), b"a poem");
    until_shown(&mut browser, "fleet", "Led", "1");
    until_shown(&mut browser, "store", "Shared", "1");

    // It follows the other proxy's fetch.
    let _leads = other.request(b"two\r\n");
    let half = upstream.accept().skip(5).send(b"half");
    let mut follows = shown.request(b"two\r\n");
    assert_eq!(follows.read(4), b"half");
    until_shown(&mut browser, "fleet", "Followed", "1");
    half.close();
    assert!(follows.rest().unwrap().is_empty());

    redis.kill();
    until_shown(&mut browser, "store", "State", "not used since ");
    let mut alone = shown.request(b"three\r\n");
    upstream.accept().skip(7).send(b"a poem").close();
    assert_eq!(alone.rest().unwrap(), b"a poem");
    until_shown(&mut browser, "fleet", "Alone", "1");
    shown.purge(Texts::All, Purge::Hard);
    until_shown(&mut browser, "fleet", "Purges owed", "1");

    redis.begin();
    until_shown(&mut browser, "store", "State", "in use since ");
    until_shown(&mut browser, "fleet", "Purges owed", "0");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
