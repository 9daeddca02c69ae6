//! Every connection is counted in each figure that it belongs to, and no other.

use super::*;
use crate::error::{Error, Stage};

/// One of each error. The compiler asks for those that are new, in `next`.
fn all_errors() -> Vec<Error> {
    let mut all = Vec::new();
    let mut next = Some(Error::Abandoned);
    while let Some(error) = next {
        next = after(&error);
        all.push(error);
    }
    all
}

/// The error that comes after this one in the list of all.
fn after(error: &Error) -> Option<Error> {
    let subject = || "a server".to_string();
    let why = || "a reason".to_string();
    Some(match error {
        Error::Abandoned => Error::Unresolved {
            subject: subject(),
            why: why(),
        },
        Error::Unresolved { .. } => Error::Unreachable {
            subject: subject(),
            why: why(),
        },
        Error::Unreachable { .. } => Error::Timeout {
            subject: subject(),
            stage: Stage::Turn,
            limit: Duration::ZERO,
        },
        Error::Timeout { .. } => Error::Reset {
            subject: subject(),
            got: 0,
            why: why(),
        },
        Error::Reset { .. } => Error::NoEndMarker {
            subject: subject(),
            got: 0,
        },
        Error::NoEndMarker { .. } => Error::Empty { subject: subject() },
        Error::Empty { .. } => Error::TooLong {
            subject: subject(),
            limit: 0,
        },
        Error::TooLong { .. } => Error::NoRoom {
            subject: subject(),
            capacity: 0,
        },
        Error::NoRoom { .. } => Error::Rehearsed { step: "ok".into() },
        Error::Rehearsed { .. } => Error::Doubtful { subject: subject() },
        Error::Doubtful { .. } => Error::Malformed {
            subject: subject(),
            why: why(),
        },
        Error::Malformed { .. } => Error::BadRequest {
            subject: subject(),
            why: why(),
        },
        Error::BadRequest { .. } => Error::Declined { subject: subject() },
        Error::Declined { .. } => Error::Transform {
            subject: subject(),
            why: why(),
        },
        Error::Transform { .. } => Error::Program {
            subject: subject(),
            why: why(),
        },
        Error::Program { .. } => Error::TooSlow { subject: subject() },
        Error::TooSlow { .. } => Error::Lost {
            subject: subject(),
            got: 0,
            why: "a reason",
        },
        Error::Lost { .. } => Error::QueueFull {
            subject: subject(),
            waiting: 0,
        },
        Error::QueueFull { .. } => Error::Local {
            subject: subject(),
            why: why(),
        },
        Error::Local { .. } => Error::Output {
            subject: subject(),
            why: why(),
        },
        Error::Output { .. } => Error::Other {
            subject: subject(),
            why: why(),
        },
        Error::Other { .. } => return None,
    })
}

/// Every way in which an answer is not whole.
fn all_failures() -> Vec<Outcome> {
    let errors = all_errors().into_iter();
    let failed = errors.map(|error| Outcome::Failed(Arc::new(error)));
    let others = [Outcome::FellBehind(1), Outcome::Left, Outcome::Stuck];
    failed.chain(others).collect()
}

fn record(status: CacheStatus, outcome: Outcome, wait: Duration) -> AccessRecord<'static> {
    AccessRecord {
        peer: &"127.0.0.1:1",
        request: b"",
        status,
        route: None,
        fetch: None,
        outcome,
        bytes: 10,
        wait,
        total: wait,
        stored: false,
        feed: None,
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn every_failure_has_its_reason_and_every_reason_a_failure() {
    let failures = all_failures();
    for outcome in &failures {
        assert_eq!(REASONS[reason_at(outcome)], outcome.word());
    }

    for reason in REASONS {
        let is_given = failures.iter().any(|outcome| outcome.word() == reason);
        assert_eq!(is_given, reason != "limited", "{reason}");
    }
}

#[test]
fn reasons_add_up_to_the_failures() {
    let stats = Stats::default();
    let failures = all_failures();
    for outcome in &failures {
        stats.count(&record(CacheStatus::Miss, outcome.clone(), Duration::ZERO));
    }

    let by_reason: u64 = stats.reasons.iter().map(load).sum();
    assert_eq!(by_reason, failures.len() as u64);
    assert_eq!(load(&stats.failures), by_reason);
    assert_eq!(load(&stats.sent[Class::Failure as usize]), 10 * by_reason);
}

#[test]
fn each_class_is_counted_at_its_place() {
    let statuses = [
        CacheStatus::Hit(Instant::now()),
        CacheStatus::Stale,
        CacheStatus::Coalesced,
        CacheStatus::Miss,
        CacheStatus::Own,
        CacheStatus::NoRequest,
    ];
    for status in statuses {
        let stats = Stats::default();
        let record = record(status, Outcome::Whole, Duration::ZERO);
        stats.count(&record);

        for class in Class::ALL {
            let wanted = u64::from(class == record.class());
            assert_eq!(load(stats.of(class)), wanted, "{class:?}");
            assert_eq!(load(&stats.sent[class as usize]), 10 * wanted, "{class:?}");
        }
    }
}

#[test]
fn only_connections_with_a_request_have_waited() {
    let stats = Stats::default();
    let second = Duration::from_secs(1);
    let hit = CacheStatus::Hit(Instant::now());
    for (status, outcome, wait) in [
        (hit, Outcome::Whole, Duration::ZERO),
        (CacheStatus::Miss, Outcome::Whole, second / 50),
        (CacheStatus::Miss, Outcome::Left, second),
        (CacheStatus::NoRequest, Outcome::NothingSent, second),
        (CacheStatus::NoRequest, Outcome::Stuck, second),
    ] {
        stats.count(&record(status, outcome, wait));
    }

    let (counts, sum) = stats.waits();
    assert_eq!(counts, [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(sum, second + second / 50);
}

#[test]
fn only_a_panic_is_counted_as_one() {
    let stats: Arc<Stats> = Arc::default();
    drop(PanicCount(stats.clone()));
    assert_eq!(load(&stats.panics), 0);

    let guard = PanicCount(stats.clone());
    let panicked = std::thread::spawn(move || {
        let _counts = guard;
        std::panic::resume_unwind(Box::new("a bug, on purpose"));
    });
    assert!(panicked.join().is_err());
    assert_eq!(load(&stats.panics), 1);
}

#[test]
fn no_bucket_shrinks_while_connections_end() {
    const EACH: u64 = 20_000;
    let stats = Stats::default();
    let wait = Duration::from_millis(3);
    let add = || {
        for _ in 0..EACH {
            stats.count(&record(CacheStatus::Own, Outcome::Whole, Duration::ZERO));
            stats.count(&record(CacheStatus::Miss, Outcome::Whole, wait));
        }
    };

    std::thread::scope(|scope| {
        let adding = [scope.spawn(add), scope.spawn(add)];
        let mut before = WaitCounts::default();
        while !adding.iter().all(|thread| thread.is_finished()) {
            let (counts, _) = stats.waits();
            let grows = counts.iter().zip(before).all(|(now, then)| *now >= then);
            assert!(grows, "{before:?}, then {counts:?}");
            before = counts;
        }
    });
    assert_eq!(stats.waits().0[..2], [2 * EACH, 2 * EACH]);
}
