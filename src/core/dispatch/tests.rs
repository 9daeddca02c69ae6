//! Jobs that start, wait and end in an awkward order.

use super::*;
use crate::cache::{Policy, Purge};
use crate::coalesce::{Coalescer, FlightGuard, Found};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A job during whose start something else happens.
struct SlowStart {
    guard: FlightGuard<u8>,
    meanwhile: Box<dyn FnOnce() + Send>,
    place: Arc<Mutex<Option<Place<SlowStart>>>>,
    aborts: Arc<AtomicUsize>,
}

impl Job for SlowStart {
    fn is_refresh(&self) -> bool {
        false
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        true
    }

    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
        self.guard.on_interest(tell);
    }

    fn begin(&mut self) -> bool {
        self.guard.begin()
    }

    fn start(self, place: Place<SlowStart>) -> Abort {
        *self.place.lock().expect("no panic") = Some(place);
        (self.meanwhile)();
        let aborts = self.aborts;
        Box::new(move || {
            aborts.fetch_add(1, Ordering::Relaxed);
        })
    }
}

#[test]
fn a_job_that_becomes_useless_while_it_starts_is_aborted() {
    let hour = Duration::from_secs(3600);
    let policy = Policy {
        ttl: hour,
        grace: hour,
        fail_ttl: hour,
        capacity: 1 << 20,
    };
    let now = Instant::now();
    for (is_purged, is_left, due) in [(true, true, 1), (true, false, 0), (false, true, 0)] {
        let texts = Coalescer::<u8>::new(policy, 1 << 10);
        let Found::Missed(reader, guard) = texts.find(&0, now) else {
            panic!("nothing was asked for yet")
        };
        let (aborts, place) = (Arc::default(), Arc::default());
        let reader = Arc::new(Mutex::new(Some(reader)));
        let leaver = reader.clone();
        let job = SlowStart {
            guard,
            aborts: Arc::clone(&aborts),
            place: Arc::clone(&place),
            meanwhile: Box::new(move || {
                if is_purged {
                    texts.purge(&0, Purge::Hard, now);
                }
                if is_left {
                    drop(leaver.lock().expect("no panic").take());
                }
            }),
        };

        let dispatch = Dispatch::new(1, 1);
        assert!(dispatch.enter(job, now).is_ok());
        assert_eq!(aborts.load(Ordering::Relaxed), due, "{is_purged} {is_left}");
        drop(reader);
        drop(place.lock().expect("no panic").take());
        assert_eq!(dispatch.running(), 0);
        assert!(dispatch.lock().running.is_empty(), "nothing is left of it");
    }
}

/// The jobs that have started, and their places.
type Started = Arc<Mutex<Vec<(u8, Place<PlainJob>)>>>;

/// A job that only starts and ends.
struct PlainJob {
    name: u8,
    started: Started,
    is_refresh: bool,
    /// Whether a client waits for it.
    is_wanted: bool,
}

impl Job for PlainJob {
    fn is_refresh(&self) -> bool {
        self.is_refresh
    }

    fn has_readers(&self) -> bool {
        true
    }

    fn reserve_waiting(&mut self) -> bool {
        true
    }

    fn on_interest(&mut self, _: Box<dyn Fn(Interest) + Send + Sync>) {}

    fn begin(&mut self) -> bool {
        self.is_wanted
    }

    fn start(self, place: Place<PlainJob>) -> Abort {
        let mut started = self.started.lock().expect("no panic");
        started.push((self.name, place));
        Box::new(|| ())
    }
}

/// FakeRights that a test hands out.
#[derive(Clone, Default)]
struct FakeRights {
    left: Arc<AtomicUsize>,
    /// When there are more, as the dispatch is told.
    next: Arc<Mutex<Option<Instant>>>,
    /// When the dispatch wants to resume.
    resumes: Arc<Mutex<Vec<Instant>>>,
}

impl StartLimit<PlainJob> for FakeRights {
    fn take(&self) -> Result<StartRight, Instant> {
        let next = self.next.lock().expect("no panic");
        let next = next.expect("the test has set it");
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        taken.map(StartRight).map_err(|_| next)
    }

    fn give_back(&self, _: StartRight) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    fn resume_at(&self, _: std::sync::Weak<Dispatch<PlainJob>>, at: Instant) {
        self.resumes.lock().expect("no panic").push(at);
    }
}

/// A dispatch with rights, and the jobs that it has started.
struct Limited {
    dispatch: Arc<Dispatch<PlainJob>>,
    rights: FakeRights,
    started: Started,
    now: Instant,
}

impl Limited {
    fn new(places: usize) -> Limited {
        let rights = FakeRights::default();
        let now = Instant::now();
        *rights.next.lock().expect("no panic") = Some(now);
        Limited {
            dispatch: Dispatch::limited(places, 10, Some(Box::new(rights.clone()))),
            rights,
            started: Arc::default(),
            now,
        }
    }

    fn job(&self, name: u8) -> PlainJob {
        PlainJob {
            name,
            started: self.started.clone(),
            is_refresh: false,
            is_wanted: true,
        }
    }

    fn enter_job(&self, job: PlainJob) -> Arrived {
        match self.dispatch.enter(job, self.now) {
            Ok(entry) => entry,
            Err(_) => panic!("there is room"),
        }
    }

    fn enter(&self, name: u8, is_wanted: bool) -> Arrived {
        self.enter_job(PlainJob {
            is_wanted,
            ..self.job(name)
        })
    }

    fn grant(&self, rights: usize) {
        self.rights.left.fetch_add(rights, Ordering::Relaxed);
    }

    fn next_right(&self, at: Instant) {
        *self.rights.next.lock().expect("no panic") = Some(at);
    }

    fn started(&self) -> Vec<u8> {
        let started = self.started.lock().expect("no panic");
        started.iter().map(|(name, _)| *name).collect()
    }

    /// Ends all jobs that run.
    fn end_all(&self) {
        let ended = std::mem::take(&mut *self.started.lock().expect("no panic"));
        drop(ended);
    }

    fn resumes(&self) -> Vec<Instant> {
        self.rights.resumes.lock().expect("no panic").clone()
    }
}

#[test]
fn a_job_without_a_right_takes_no_place_and_starts_in_its_turn() {
    let limited = Limited::new(2);
    let due = limited.now + Duration::from_secs(1);
    limited.next_right(due);
    for name in [1, 2, 3] {
        assert_eq!(limited.enter(name, true), Arrived::Delayed);
    }
    assert_eq!(
        (limited.dispatch.running(), limited.dispatch.waiting()),
        (0, 3)
    );
    assert_eq!(
        limited.dispatch.oldest_client(),
        None,
        "no place would help"
    );
    assert_eq!(limited.resumes(), [due], "one timer for all");

    limited.grant(1);
    limited.dispatch.resume(due);
    assert_eq!(limited.started(), [1]);
    limited.grant(5);
    assert_eq!(
        limited.enter(4, true),
        Arrived::Waits,
        "others came before it"
    );
    assert_eq!(limited.started(), [1, 2], "there are two places");
    limited.end_all();
    assert_eq!(limited.started(), [3, 4]);
    limited.end_all();
    assert_eq!(limited.dispatch.running(), 0);
}

#[test]
fn a_right_that_comes_earlier_is_not_missed_and_its_timer_not_doubled() {
    let limited = Limited::new(1);
    let (late, early) = (limited.now + Duration::from_secs(9), limited.now);
    limited.next_right(late);
    limited.enter(1, true);
    limited.next_right(early);
    limited.enter(2, true);
    assert_eq!(limited.resumes(), [late, early]);

    limited.next_right(late);
    limited.dispatch.resume(early);
    assert_eq!(limited.resumes(), [late, early, late]);
    limited.next_right(late + Duration::from_secs(1));
    limited.dispatch.resume(late);
    limited.dispatch.resume(late);
    assert_eq!(limited.resumes().len(), 4, "each timer is followed by one");
}

#[test]
fn the_right_of_a_job_that_does_not_begin_goes_to_the_next() {
    let limited = Limited::new(1);
    limited.enter(1, false);
    limited.enter(2, true);
    assert!(limited.started().is_empty());
    limited.grant(1);
    limited.dispatch.resume(limited.now);
    assert_eq!(limited.started(), [2]);
    assert_eq!(limited.rights.left.load(Ordering::Relaxed), 0);
}

#[test]
fn a_place_that_was_taken_ahead_is_no_one_elses_until_it_is_given_back() {
    let limited = Limited::new(1);
    limited.grant(3);
    let place = limited.dispatch.take_place().expect("it is free");
    assert!(limited.dispatch.take_place().is_none());
    assert_eq!(limited.enter(1, true), Arrived::Waits);
    assert_eq!(limited.rights.left.load(Ordering::Relaxed), 2);

    // Without a job it needs no right, and the one that waits gets the place.
    place.give_back();
    assert_eq!(limited.started(), [1]);
    assert_eq!(limited.rights.left.load(Ordering::Relaxed), 2);
    limited.end_all();
    assert_eq!(limited.dispatch.running(), 0);
}

#[test]
fn a_job_starts_at_the_place_that_was_taken_for_it_or_gives_it_back() {
    let limited = Limited::new(1);
    limited.grant(3);
    for (name, is_wanted, started, rights) in [(1, false, &[][..], 3), (2, true, &[2][..], 2)] {
        let place = limited.dispatch.take_place().expect("it is free");
        let job = PlainJob {
            is_wanted,
            ..limited.job(name)
        };
        limited.dispatch.start_at(job, place);
        assert_eq!(limited.started(), started);
        assert_eq!(limited.rights.left.load(Ordering::Relaxed), rights);
    }
    limited.end_all();
    assert_eq!(limited.dispatch.running(), 0);
    assert_eq!(limited.rights.left.load(Ordering::Relaxed), 2, "it is used");
}

#[test]
fn a_job_that_has_begun_may_give_its_right_back() {
    let limited = Limited::new(1);
    limited.grant(1);
    assert_eq!(limited.enter(1, true), Arrived::Started);
    assert_eq!(limited.rights.left.load(Ordering::Relaxed), 0);

    let started = limited.started.lock().expect("no panic").pop();
    let (_, place) = started.expect("it has started");
    assert!(place.right().is_some());
    place.give_back();
    assert_eq!(limited.rights.left.load(Ordering::Relaxed), 1);
    assert_eq!(limited.dispatch.running(), 0);
}

#[test]
fn a_refresh_that_a_client_waits_for_goes_in_the_order_of_the_clients() {
    let limited = Limited::new(1);
    limited.grant(9);
    limited.enter(1, true);
    limited.enter_job(PlainJob {
        is_refresh: true,
        ..limited.job(2)
    });
    limited.enter(3, true);

    for name in [1, 2, 3] {
        assert_eq!(limited.started(), [name]);
        limited.end_all();
    }
}

#[test]
fn a_job_that_has_waited_too_long_is_taken_out() {
    let limited = Limited::new(1);
    limited.enter(1, true);
    let limit = Duration::from_secs(10);
    let end = limited.now + limit;
    let take = |now| limited.dispatch.take_overdue(limit, now);
    let (overdue, next) = take(limited.now);
    assert!(overdue.is_empty());
    assert_eq!(next, Some(end));

    let (overdue, next) = take(end + Duration::from_nanos(1));
    assert_eq!(overdue.iter().map(|job| job.name).collect::<Vec<_>>(), [1]);
    assert_eq!(next, None);
}
