//! `--grace`, `--fail-ttl` and SIGHUP: a bad day of the upstream's. A ttl of zero makes a poem stale at once, so that
//! nothing here has to wait for time to pass.

use crate::bard::{Bard, Client, Daemon, LIMITS, Running, settings, until, until_count};
use poetry::handler::proxy::ProxySettings;
use poetry::transform::{Builtin, Pipeline};
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn forgiving(bard: &Bard) -> ProxySettings {
    let mut settings = settings(bard);
    settings.policy.ttl = Duration::ZERO;
    settings.policy.grace = HOUR;
    settings
}

/// A proxy that keeps this poem, stale.
fn keeping(bard: &Bard, settings: ProxySettings, poem: &[u8]) -> Running {
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    bard.call().say(poem).finish();
    assert_eq!(client.rest().unwrap(), poem);
    proxy
}

#[test]
fn stale_poems_are_served_during_a_hung_refresh_and_cost_one_connection() {
    let bard = Bard::new();
    let proxy = keeping(&bard, forgiving(&bard), b"old");
    for _ in 0..50 {
        assert_eq!(proxy.ask().unwrap(), b"old");
    }
    let refresh = bard.call();
    assert_eq!(bard.callers(), 2);
    until_count("stale", &proxy.stats.stale, 50);
    refresh.say(b"new").finish();
    until_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.ask().unwrap(), b"new");
}

#[test]
fn a_refresh_that_fails_replaces_nothing() {
    let bard = Bard::new();
    let proxy = keeping(&bard, forgiving(&bard), b"old");
    for failures in 1..=2 {
        assert_eq!(proxy.ask().unwrap(), b"old");
        bard.call().say(b"ne").reset();
        until_count("failed fetches", &proxy.stats.failed_fetches, failures);
    }
    assert_eq!(proxy.ask().unwrap(), b"old");
}

#[test]
fn a_refresh_that_brings_a_part_is_tried_once_more_and_the_second_decides() {
    let bard = Bard::new();
    let proxy = keeping(&bard, forgiving(&bard), b"a whole poem");
    assert_eq!(proxy.ask().unwrap(), b"a whole poem");
    bard.call().say(b"a whole").finish();
    bard.call().say(b"a whole poem, longer").finish();
    until_count("kept", &proxy.stats.kept, 2);
    assert_eq!(proxy.ask().unwrap(), b"a whole poem, longer");
    // The same part twice is believed.
    bard.call().say(b"a whole").finish();
    bard.call().say(b"a whole").finish();
    until_count("kept", &proxy.stats.kept, 3);
    assert_eq!(proxy.ask().unwrap(), b"a whole");
    // Two different parts are not.
    bard.call().say(b"a w").finish();
    bard.call().say(b"a wh").finish();
    until_count("failed fetches", &proxy.stats.failed_fetches, 1);
    assert_eq!(proxy.ask().unwrap(), b"a whole");
}

#[test]
fn a_part_is_found_also_where_a_transformation_puts_the_end_first() {
    let bard = Bard::new();
    let workshop = Some(Pipeline::Own(vec![Builtin::Reverse.into()]));
    let proxy = Running::proxy_with(
        ProxySettings {
            workshop,
            ..forgiving(&bard)
        },
        LIMITS,
    );
    let mut client = proxy.connect();
    bard.call().say(b"one\ntwo\nthree\n").finish();
    assert_eq!(client.rest().unwrap(), b"three\ntwo\none\n");
    until_count("kept", &proxy.stats.kept, 1); // counted just behind its end
    for (first, second, kept) in [
        (
            &b"one\n"[..],
            &b"one\ntwo\nthree\nfour\n"[..],
            &b"four\nthree\ntwo\none\n"[..],
        ), // cut, then whole
        (b"one\n", b"one\ntwo\n", b"four\nthree\ntwo\none\n"), // cut twice
        (b"1\n", b"2\n3\n", b"3\n2\n"),                        // another poem
        (b"2\n", b"2\n", b"2\n"),                              // the same twice
    ] {
        proxy.ask().unwrap();
        let ended = proxy.stats.kept.load(Ordering::Acquire)
            + proxy.stats.failed_fetches.load(Ordering::Acquire);
        bard.call().say(first).finish();
        bard.call().say(second).finish();
        until("the refresh has ended", || {
            let kept = proxy.stats.kept.load(Ordering::Acquire);
            kept + proxy.stats.failed_fetches.load(Ordering::Acquire) > ended
        });
        let failed = proxy.stats.failed_fetches.load(Ordering::Acquire);
        assert_eq!(proxy.ask().unwrap(), kept);
        bard.call().reset();
        until_count("failed fetches", &proxy.stats.failed_fetches, failed + 1);
    }
}

#[test]
fn a_failure_is_remembered_and_spares_the_upstream() {
    let bard = Bard::new();
    let mut settings = settings(&bard);
    settings.policy.fail_ttl = HOUR;
    let proxy = Running::proxy_with(settings, LIMITS);
    let mut client = proxy.connect();
    bard.call().reset();
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    for _ in 0..100 {
        assert_eq!(proxy.ask(), Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(bard.callers(), 1);
}

#[test]
fn a_remembered_failure_paces_the_refreshes_of_a_stale_poem() {
    let bard = Bard::new();
    let mut settings = forgiving(&bard);
    settings.policy.fail_ttl = HOUR;
    let proxy = keeping(&bard, settings, b"old");
    assert_eq!(proxy.ask().unwrap(), b"old");
    bard.call().reset();
    until_count("failed fetches", &proxy.stats.failed_fetches, 1);
    for _ in 0..20 {
        assert_eq!(proxy.ask().unwrap(), b"old");
    }
    assert_eq!(bard.callers(), 2);
}

#[test]
fn a_hangup_forgets_what_is_kept_and_those_who_wait_still_get_their_poem() {
    let bard = Bard::new();
    let daemon = Daemon::start(&["proxy", "--port", "0", &bard.addr.to_string()]);
    let mut waiting = Client::connect(daemon.addr);
    let call = bard.call().say(b"old ");
    assert_eq!(waiting.take(4), b"old ");
    let mut others = Vec::new();
    until("the hangup is heard", || {
        daemon.signal(rustix::process::Signal::HUP);
        others.push(Client::connect(daemon.addr));
        bard.callers() > 1
    });
    call.say(b"poem").finish();
    assert_eq!(waiting.rest().unwrap(), b"poem");
    drop(others);
}
