//! The ring, its rates, and rows of troubles.

use super::*;
use crate::admin::clock::tests::clock;
use crate::admin::sample::{BOUNDS, history, now, secs, snapshot};

#[test]
fn it_keeps_150_samples_of_rates_per_second() {
    let now = now();
    let history = history(&mut snapshot(), now, |snapshot, _| {
        snapshot.connections.hit += 90;
        snapshot.connections.failure += 1;
        snapshot.sent[0] += 2000;
        snapshot.fetches.as_mut().unwrap().begun += 3;
    });

    let json = history.to_json(secs(300), &clock(now));

    let last = |name: &str| json[name].as_array().and_then(|list| list.last()).cloned();
    for (name, values) in json.as_object().unwrap() {
        assert_eq!(values.as_array().unwrap().len(), MAX_SAMPLES, "{name}");
    }
    assert_eq!(last("t"), Some(json!("2026-11-26T11:47:06.000Z")));
    assert_eq!(json["t"][0], "2026-11-26T11:42:08.000Z");
    assert_eq!(last("hit"), Some(json!(45.0)));
    assert_eq!(last("failure"), Some(json!(0.5)));
    assert_eq!(last("sent"), Some(json!(1000.0)));
    assert_eq!(last("fetches"), Some(json!(1.5)));
    assert_eq!(last("open"), Some(json!(14)));
    assert_eq!(last("wait95"), Some(Value::Null));
}

#[test]
fn a_shorter_span_gives_the_newest_samples() {
    let now = now();
    let history = history(&mut snapshot(), now, |snapshot, number| {
        snapshot.connections.miss += u64::from(number);
    });

    let json = history.to_json(secs(4), &clock(now));

    assert_eq!(json["miss"], json!([99.5, 100.0]));
}

#[test]
fn a_late_sample_is_still_a_rate_per_second() {
    let started = now();
    let mut snapshot = snapshot();
    let mut history = History::new(started);

    snapshot.connections.hit = 60;
    history.take(&snapshot, started + secs(6));

    let json = history.to_json(secs(300), &clock(started + secs(6)));
    assert_eq!(json["hit"], json!([10.0]));
}

#[test]
fn the_waits_are_those_of_the_last_five_minutes() {
    let history = history(&mut snapshot(), now(), |snapshot, number| {
        snapshot.wait.counts[0] += 10;
        // Long ago, and now.
        if !(10..=190).contains(&number) {
            snapshot.wait.counts[2] += 1;
        }
    });

    let wait = history.wait();

    assert_eq!(wait.bounds, BOUNDS);
    assert_eq!(wait.counts, [1500, 0, 10, 0]);
}

#[test]
fn nothing_has_changed_before_the_first_sample() {
    let history = History::new(now());

    let change = history.last(secs(60));

    assert_eq!((change.requests(), change.cached()), (0, 0));
    assert_eq!(history.wait(), Histogram::default());
    assert_eq!(history.row_since(Trouble::Stale), None);
}

#[test]
fn a_failure_by_the_clients_fault_is_none() {
    let now = now();
    let history = history(&mut snapshot(), now, |snapshot, _| {
        snapshot.connections.failure += 6;
        let at = |reason| REASONS.iter().position(|known| *known == reason).unwrap();
        snapshot.failures[at("client_left")] += 3;
        snapshot.failures[at("refused")] += 1;
        snapshot.failures[at("timeout")] += 2;
    });

    let minute = history.last(secs(60));

    assert_eq!(minute.count(Trouble::Failed), 30 * 3);
    assert_eq!(minute.requests(), 30 * 6);
    assert_eq!(minute.main_reason(), Some("timeout"));
}

#[test]
fn a_row_of_troubles_begins_after_the_last_long_pause() {
    let now = now();
    // Samples 100 to 120, and each fifth from 170.
    let history = history(&mut snapshot(), now, |snapshot, number| {
        let is_stale = (100..120).contains(&number) || (number >= 170 && number % 5 == 0);
        snapshot.connections.stale += u64::from(is_stale);
    });

    // It happened between sample 169 and sample 170.
    let since = history.row_since(Trouble::Stale).unwrap();
    assert_eq!(now - since, SAMPLE_INTERVAL * 31);
    assert_eq!(history.row_since(Trouble::Failed), None);
}

#[test]
fn a_row_of_troubles_may_be_older_than_the_samples() {
    let now = now();
    let history = history(&mut snapshot(), now, |snapshot, number| {
        snapshot.connections.stale += u64::from(number >= 10);
    });

    let since = history.row_since(Trouble::Stale).unwrap();
    assert_eq!(now - since, SAMPLE_INTERVAL * 191);
}

#[test]
fn a_row_of_troubles_is_over_after_a_minute_without() {
    let since_with_last = |last: u32| {
        let history = history(&mut snapshot(), now(), |snapshot, number| {
            snapshot.connections.stale += u64::from(number <= last);
        });
        history.row_since(Trouble::Stale)
    };

    assert!(since_with_last(170).is_some());
    assert!(since_with_last(169).is_none());
}

#[test]
fn a_quantile_is_as_exact_as_its_buckets() {
    let quantile = |counts: &[u64], part| quantile(BOUNDS, counts, part);

    assert_eq!(quantile(&[0, 0, 0, 0], 0.5), None);
    assert_eq!(quantile(&[], 0.5), None);
    assert_eq!(quantile(&[10, 0, 0, 0], 0.5), Some(0.0005));
    assert_eq!(quantile(&[90, 0, 10, 0], 0.95), Some(0.625));
    // Of what is over all bounds, only that is known.
    assert_eq!(quantile(&[0, 0, 0, 7], 0.5), Some(1.0));
}
