//! What the client of a stale text gets, polled by hand.

use super::*;
use crate::cache::{CacheFailure, Policy, Purge};
use crate::coalesce::{Coalescer, FlightGuard, Found, Verdict};
use crate::error::Error;
use futures::FutureExt;
use futures::channel::oneshot;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
const POLICY: Policy = Policy {
    ttl: HOUR,
    grace: HOUR,
    fail_ttl: Duration::ZERO,
    capacity: 1 << 20,
};

/// A stale text, its refresh, and a client that waits for that.
struct Scene {
    texts: Arc<Coalescer<u8>>,
    refresh: Option<FlightGuard<u8>>,
    client: Reader,
    /// Dropped when the client has waited long enough.
    deadline: Option<oneshot::Sender<()>>,
    /// The time by which the client is past waiting.
    now: Instant,
}

impl Scene {
    fn new() -> Scene {
        Scene::with_window(1 << 16)
    }

    fn with_window(window: u64) -> Scene {
        let texts = Arc::new(Coalescer::new(POLICY, window));
        let begin = Instant::now();
        let Found::Missed(_, mut guard) = texts.find(&0, begin) else {
            panic!("nothing was asked for yet")
        };
        guard.append("old".into());
        guard.land(Verdict::Keep, begin);

        let now = begin + HOUR;
        let Found::Stale(_, Some(mut refresh)) = texts.find(&0, now) else {
            panic!("it is stale")
        };
        refresh.begin();
        let (deadline, late) = oneshot::channel();
        let looked_in = texts.clone();
        let client = FreshFirst::new(
            texts.join(&0).expect("a refresh is under way").0,
            Box::new(move || looked_in.cached(&0, now)),
            Box::pin(late.map(drop)),
        );
        Scene {
            texts,
            refresh: Some(refresh),
            client: Reader::pulling(Box::new(client)),
            deadline: Some(deadline),
            now,
        }
    }

    fn refresh(&mut self) -> &mut FlightGuard<u8> {
        self.refresh.as_mut().expect("it has not ended")
    }

    fn land(&mut self, verdict: Verdict) {
        let refresh = self.refresh.take().expect("it has not ended");
        refresh.land(verdict, self.now);
    }

    fn fail(&mut self) {
        let refresh = self.refresh.take().expect("it has not ended");
        let subject = "a server".into();
        refresh.fail(Error::Empty { subject }, CacheFailure::No, self.now);
    }

    /// The client is asked whether it still waits.
    fn waits(&self) -> bool {
        let is_ready = self.client.ready().now_or_never().is_some();
        let is_pending = matches!(self.client.peek(), Read::Pending);
        assert_eq!(is_pending, !is_ready);
        is_pending
    }

    /// What the client reads, and whether it knows that this is stale.
    fn reads(&mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        while let Read::Chunk(bytes) = self.client.read() {
            all.extend_from_slice(&bytes);
        }
        assert!(matches!(self.client.read(), Read::End));
        (all, self.client.is_stale())
    }
}

fn old() -> (Vec<u8>, bool) {
    (b"old".to_vec(), true)
}

#[test]
fn a_refresh_that_is_whole_in_time_is_what_the_client_gets() {
    let mut scene = Scene::new();
    assert!(scene.waits());
    scene.refresh().append("ne".into());
    assert!(scene.waits(), "it may be cut");
    scene.refresh().append("w".into());
    scene.land(Verdict::Keep);
    assert!(!scene.waits());
    assert!(scene.client.was_kept());
    assert_eq!(scene.reads(), (b"new".to_vec(), false));
}

#[test]
fn a_refresh_that_fails_leaves_the_stale_text() {
    let mut scene = Scene::new();
    scene.refresh().append("ne".into());
    assert!(scene.waits());
    scene.fail();
    assert_eq!(scene.reads(), old());
    assert!(!scene.client.was_kept(), "no fetch brought it");
}

#[test]
fn a_refresh_that_is_dropped_leaves_the_stale_text() {
    let mut scene = Scene::new();
    scene.refresh = None;
    assert_eq!(scene.reads(), old());
}

#[test]
fn a_rejected_answer_does_not_replace_the_stale_text() {
    let mut scene = Scene::new();
    scene.refresh().append("rate exceeded".into());
    scene.land(Verdict::Reject);
    assert_eq!(scene.reads(), old());
}

#[test]
fn a_late_refresh_leaves_the_stale_text_and_goes_on() {
    let mut scene = Scene::new();
    scene.refresh().append("n".into());
    assert!(scene.waits());
    scene.deadline = None;
    assert!(!scene.waits());
    assert_eq!(scene.refresh().writer().readers(), 0, "it has left");

    scene.refresh().append("ew".into());
    scene.land(Verdict::Keep);
    assert_eq!(scene.reads(), old(), "what was chosen stays chosen");
    assert!(matches!(scene.texts.find(&0, scene.now), Found::Hit(..)));
}

#[test]
fn a_waiting_client_sees_no_byte_so_that_a_doubtful_refresh_begins_again() {
    let mut scene = Scene::new();
    scene.refresh().append("ol".into());
    assert!(scene.waits());
    assert!(scene.refresh().rewind());
    scene.refresh().append("old, and new".into());
    scene.land(Verdict::Keep);
    assert_eq!(scene.reads(), (b"old, and new".to_vec(), false));
}

#[test]
fn a_refresh_that_will_not_be_kept_delays_no_client() {
    let mut scene = Scene::with_window(64);
    let now = scene.now;
    scene.refresh().reserve_or_pass(100, 64, now);
    scene.refresh().append(vec![b'x'; 100].into());
    assert!(!scene.waits());
    assert_eq!(scene.reads(), old());
}

#[test]
fn a_text_that_was_purged_meanwhile_is_not_served() {
    let mut scene = Scene::new();
    assert!(scene.waits());
    scene.texts.purge(&0, Purge::Hard, scene.now);

    // There is nothing to fall back to: it reads the refresh as it comes.
    scene.deadline = None;
    assert!(scene.waits());
    scene.refresh().append("ne".into());
    assert!(matches!(scene.client.peek(), Read::Chunk(bytes) if bytes == "ne"));
    scene.fail();
    assert!(matches!(scene.client.read(), Read::Chunk(bytes) if bytes == "ne"));
    assert!(matches!(scene.client.read(), Read::Failed(_)));
    assert!(!scene.client.is_stale());
}

#[test]
fn a_text_that_is_stale_by_a_purge_may_still_be_served() {
    let mut scene = Scene::new();
    scene.texts.purge(&0, Purge::Soft, scene.now);
    scene.fail();
    assert_eq!(scene.reads(), old());
}

/// What may happen while a client waits.
#[derive(Debug, Clone, Copy)]
enum Act {
    Append,
    Rewind,
    Land,
    Reject,
    Fail,
    Pass,
    Late,
    PurgeSoft,
    PurgeHard,
    Read,
}

/// What the client has read, and whether that has ended, and how.
#[derive(Default)]
struct Got {
    text: Vec<u8>,
    end: Option<bool>,
}

impl Scene {
    fn act(&mut self, act: Act, got: &mut Got) {
        match (act, &mut self.refresh) {
            (Act::Append, Some(refresh)) => refresh.append("new ".into()),
            (Act::Rewind, Some(refresh)) => drop(refresh.rewind()),
            (Act::Pass, Some(refresh)) => refresh.pass(self.now),
            (Act::Land, Some(_)) => self.land(Verdict::Keep),
            (Act::Reject, Some(_)) => self.land(Verdict::Reject),
            (Act::Fail, Some(_)) => self.fail(),
            (Act::Late, _) => self.deadline = None,
            (Act::PurgeSoft, _) => drop(self.texts.purge(&0, Purge::Soft, self.now)),
            (Act::PurgeHard, _) => drop(self.texts.purge(&0, Purge::Hard, self.now)),
            (Act::Read, _) => self.read_on(got),
            (_, None) => {}
        }
    }

    /// Reads as a connection does: what is there, and then it waits.
    fn read_on(&mut self, got: &mut Got) {
        let is_ready = self.client.ready().now_or_never().is_some();
        loop {
            match self.client.read() {
                Read::Chunk(bytes) => got.text.extend_from_slice(&bytes),
                Read::Pending => return assert!(!is_ready || !got.text.is_empty()),
                Read::End => return got.end = Some(true),
                _ => return got.end = Some(false),
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn a_client_gets_one_whole_text_or_is_told_that_there_is_none(
        acts in proptest::collection::vec(0usize..10, 0..30),
    ) {
        const ACTS: [Act; 10] = [
            Act::Append, Act::Rewind, Act::Land, Act::Reject, Act::Fail,
            Act::Pass, Act::Late, Act::PurgeSoft, Act::PurgeHard, Act::Read,
        ];
        let mut scene = Scene::new();
        let mut got = Got::default();
        let (mut is_gone, mut is_good) = (false, true);
        for act in acts.into_iter().map(|at| ACTS[at]) {
            is_gone |= matches!(act, Act::PurgeHard);
            is_good &= !matches!(act, Act::Reject | Act::Fail | Act::Pass | Act::Late);
            scene.act(act, &mut got);
        }
        scene.act(Act::Land, &mut got);
        scene.read_on(&mut got);

        let is_old = got.text == b"old";
        proptest::prop_assert!(got.end.is_some(), "it hangs");
        proptest::prop_assert_eq!(is_old, scene.client.is_stale());
        if !is_gone {
            proptest::prop_assert_eq!(got.end, Some(true), "a part, or nothing");
            proptest::prop_assert!(is_old || !got.text.starts_with(b"old"));
        }
        if is_good && !is_gone {
            proptest::prop_assert!(!is_old, "the refresh was whole in time");
        }
    }
}
