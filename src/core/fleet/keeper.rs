//! What is done without a fetch: connections are made and made again, leases renewed,
//! an open breaker probed, and purges told.
//!
//! | the server | it is tried again after |
//! |---|---|
//! | can't be reached, or the connection is lost | 0.1 s, doubled up to 2 s |
//! | refuses us, or is not Redis | 1 s, doubled up to 30 s |
//!
//! Each wait is made up to a fifth longer or shorter by chance, so that the proxies of
//! a fleet don't come all at once.

use super::answers::{joined, whole};
use super::breaker::PROBE_EVERY;
use super::claim::is_passing;
use super::leases::RENEW_EVERY;
use super::link::{Hear, NoLink, Purpose, ScriptCall, ServerLink};
use super::ration::NotRedis;
use super::scripts::SCRIPTS;
use super::{FleetCore, FleetPurge, LinkPair, PurgeNumbers, add, lock};
use crate::observe::StoreNews;
use crate::rt;
use redis::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Small questions: the largest answer is a record.
const ASK: Purpose = Purpose {
    ration: 64 << 10,
    name: "poetry-ask",
};

/// Pieces: eight of them are half of this.
const CARRY: Purpose = Purpose {
    ration: 1 << 20,
    name: "poetry-carry",
};

/// How long the server may leave probes without an answer before the connection is
/// given up: the machine behind it may be gone.
const SILENCE_MOST: Duration = Duration::from_secs(10);

/// How long until a purge is told again that the server did not take.
const OWED_AGAIN: Duration = Duration::from_millis(500);

/// How long a purge of one text is known there: longer than any fetch takes.
const PURGE_KNOWN_MS: &str = "86400000";

/// Keeps the connections until the fleet is left.
pub(super) async fn keep(shared: Arc<FleetCore>) {
    let mut pauses = RetryPauses::default();
    while !shared.is_closing() {
        let is_bad = match connect(&shared).await {
            Ok(links) => {
                let answers = || shared.figures.answers.load(Ordering::Relaxed);
                let before = answers();
                let is_bad = serve(&shared, links).await;
                if answers() > before {
                    pauses = RetryPauses::default();
                }
                is_bad
            }
            Err(none) => {
                let is_bad = !matches!(none, NoLink::Unreached(_));
                unlinked(&shared, || match none {
                    NoLink::Unreached(why) => StoreNews::Unreached { why },
                    NoLink::Refused(why) => StoreNews::Refused { why },
                    NoLink::NotRedis(why) => StoreNews::NotRedis { why },
                });
                is_bad
            }
        };
        if shared.is_closing() {
            break;
        }
        let pause = pauses.next(is_bad, fastrand::f64());
        let _time_or_end = rt::within(pause, closing(&shared)).await;
    }
    *lock(&shared.links) = None;
}

fn unlinked(shared: &FleetCore, news: impl FnOnce() -> StoreNews) {
    *lock(&shared.links) = None;
    shared.bells.ring_all();
    let turned = lock(&shared.breaker).unlinked(Instant::now());
    shared.turned(turned, news);
}

async fn closing(shared: &FleetCore) {
    loop {
        let wanted = shared.wanted.listen(); // before the look
        if shared.is_closing() {
            return;
        }
        wanted.await;
    }
}

/// Makes both connections, and compares what was purged meanwhile.
async fn connect(shared: &Arc<FleetCore>) -> Result<Arc<LinkPair>, NoLink> {
    let limit = shared.carry_wait();
    let place = &shared.settings.place;
    let weak = Arc::downgrade(shared); // the connections are the fleet's
    let hear: Hear = Arc::new(move |channel, message| {
        if let Some(shared) = weak.upgrade() {
            shared.heard(channel, message);
        }
    });

    let ask = ServerLink::open(place, ASK, hear.clone(), limit).await?;
    let carry = ServerLink::open(place, CARRY, hear, limit).await?;
    let may_hold = lock(&shared.breaker).has_gone_alone();
    let greeted = async {
        ask.subscribe(&shared.names.purge_channel()).await?;
        let told = ScriptCall {
            script: &SCRIPTS.join,
            names: vec![shared.names.generation(), shared.names.purges_of_one()],
            arguments: vec![lock(&shared.purges).generation().to_string().into_bytes()],
        };
        ask.run(&told).await
    };
    let greeted = match rt::within(limit, greeted).await {
        None => return Err(NoLink::Unreached("no answer".into())),
        Some(Err(error)) => return Err(error.into()),
        Some(Ok(numbers)) => joined(numbers),
    };
    let (generation, of_one) = greeted.ok_or(NoLink::NotRedis("strange answers".into()))?;

    let numbers = PurgeNumbers { generation, of_one };
    let purged = lock(&shared.purges).joined(numbers, may_hold);
    shared.purge_memory(purged);
    let links = Arc::new(LinkPair { ask, carry });
    *lock(&shared.links) = Some(links.clone());
    let turned = lock(&shared.breaker).linked(Instant::now());
    shared.turned(turned, || shared.silent());
    Ok(links)
}

/// Works until a connection is lost or the fleet is left. Whether the server is to be
/// tried again late.
async fn serve(shared: &Arc<FleetCore>, links: Arc<LinkPair>) -> bool {
    let mut renewed = Instant::now();
    let mut silence = Silence::default();
    loop {
        let wanted = shared.wanted.listen(); // before the looks
        if shared.is_closing() {
            let left = shared.leases.none_left();
            let _time_or_none = rt::within(shared.carry_wait(), left).await;
            return false;
        }

        let refusal = lock(&shared.refusal).take();
        if let Some(why) = refusal {
            unlinked(shared, || StoreNews::Refused { why });
            return true;
        }
        // A server that hangs would carry out every try once it runs again.
        if lock(&shared.breaker).is_closed() {
            pay(shared, &links).await;
        }
        let is_open = !lock(&shared.breaker).is_closed();
        let probed = if is_open {
            Some(probe(shared, &links).await)
        } else {
            None
        };
        silence.note(probed == Some(Probed::Silent), Instant::now());
        if probed == Some(Probed::Well) {
            continue;
        }
        let has_leases = shared.leases.are_out();
        if has_leases && renewed.elapsed() >= RENEW_EVERY {
            renewed = Instant::now();
            shared.renew(&links).await;
        }

        let next = NextLook {
            is_open,
            renew_in: has_leases.then(|| RENEW_EVERY.saturating_sub(renewed.elapsed())),
            owes: lock(&shared.purges).owed().is_some(),
        };
        match rt::race(lost(&links), next.wait(wanted)).await {
            Ok(fault) => return link_lost(shared, fault),
            Err(()) if silence.is_too_long(Instant::now()) => return link_lost(shared, None),
            Err(()) => {}
        }
    }
}

/// What the keeper waits for before it looks at everything again.
struct NextLook {
    /// Whether the breaker is open, so that the server is probed.
    is_open: bool,
    /// When leases are to be renewed, if there are any.
    renew_in: Option<Duration>,
    /// Whether the server is to be told of purges.
    owes: bool,
}

impl NextLook {
    async fn wait(self, wanted: impl Future<Output = ()>) {
        let waits = [
            self.is_open.then_some(PROBE_EVERY),
            self.renew_in,
            self.owes.then_some(OWED_AGAIN),
        ];
        match waits.into_iter().flatten().min() {
            // A probe has its time, whatever else is wanted.
            Some(wait) if self.is_open => rt::sleep(wait).await,
            Some(wait) => drop(rt::within(wait, wanted).await),
            None => wanted.await,
        }
    }
}

/// Logs that the connection is lost. `fault` says what the server sent that is no
/// reply. Returns whether there is one: it is no Redis then, and tried again late.
fn link_lost(shared: &FleetCore, fault: Option<NotRedis>) -> bool {
    unlinked(shared, || match fault {
        Some(fault) => StoreNews::NotRedis {
            why: fault.to_string(),
        },
        None => StoreNews::Unreached {
            why: "the connection is lost".into(),
        },
    });
    if fault.is_some() {
        add(&shared.figures.tally.errors);
    }
    fault.is_some()
}

/// Since when no probe has been answered. A server that was not asked was not silent.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
}

impl Silence {
    fn note(&mut self, is_silent: bool, now: Instant) {
        self.since = is_silent.then(|| self.since.unwrap_or(now));
    }

    fn is_too_long(&self, now: Instant) -> bool {
        let long = |since: Instant| now.saturating_duration_since(since) >= SILENCE_MOST;
        self.since.is_some_and(long)
    }
}

/// Waits until one of them is lost. Why, if the server sent what is no reply.
async fn lost(links: &LinkPair) -> Option<NotRedis> {
    let either = rt::race(links.ask.lost(), links.carry.lost()).await;
    either.unwrap_or_else(|fault| fault)
}

/// How the server answers a PING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probed {
    /// As it should, and in time for a fetch.
    Well,
    /// Later than that, or with something else: fetches go on without it.
    Badly,
    /// Not at all.
    Silent,
}

/// Asks whether the server answers, and closes the breaker if it does so in time.
async fn probe(shared: &FleetCore, links: &LinkPair) -> Probed {
    let ping = redis::cmd("PING");
    let wait = shared.settings.answer_wait;
    let begun = Instant::now();
    let answer = rt::within(wait.max(PROBE_EVERY / 2), links.ask.ask(&ping)).await;
    let Some(answer) = answer else {
        return Probed::Silent;
    };

    let is_pong = matches!(answer, Ok(Value::SimpleString(pong)) if pong == "PONG");
    if !is_pong || begun.elapsed() > wait {
        return Probed::Badly;
    }
    shared.answered();
    Probed::Well
}

/// Tells the server of the purges that are owed.
async fn pay(shared: &FleetCore, links: &LinkPair) {
    loop {
        let (owed, generation) = {
            let purges = lock(&shared.purges);
            (purges.owed().cloned(), purges.generation())
        };
        let Some(owed) = owed else {
            return;
        };

        let told = told(shared, &owed, generation);
        let answer = rt::within(shared.carry_wait(), links.ask.run(&told)).await;
        match answer {
            Some(Ok(number)) => {
                let number = whole(number).unwrap_or(0);
                lock(&shared.purges).paid(&owed, number);
            }
            Some(Err(super::LinkError::Refused { text, .. })) => {
                shared.unwritable(text);
                return shared.purge_is_owed();
            }
            Some(Err(super::LinkError::Lost)) => return shared.purge_is_owed(),
            None => {
                // No fetch asks meanwhile, so nothing else would notice.
                shared.failed(shared.silent());
                return shared.purge_is_owed();
            }
        }
    }
}

fn told(shared: &FleetCore, purged: &FleetPurge, generation: u64) -> ScriptCall<'static> {
    let names = &shared.names;
    let how = purged.how.word().into();
    let (channel, id) = (names.purge_channel().into(), shared.id.clone().into());
    match &purged.key {
        None => ScriptCall {
            script: &SCRIPTS.purge_all,
            names: vec![names.generation()],
            arguments: vec![generation.to_string().into(), channel, id, how],
        },
        Some(key) => {
            let of_key = names.key(key);
            ScriptCall {
                script: &SCRIPTS.purge_one,
                names: vec![of_key.record(), of_key.purges(), names.purges_of_one()],
                arguments: vec![channel, id, how, key.clone(), PURGE_KNOWN_MS.into()],
            }
        }
    }
}

impl From<super::LinkError> for NoLink {
    fn from(error: super::LinkError) -> NoLink {
        match error {
            super::LinkError::Refused { code, text } if is_passing(&code) => {
                NoLink::Unreached(text)
            }
            super::LinkError::Refused { text, .. } => NoLink::Refused(text),
            super::LinkError::Lost => NoLink::Unreached("the connection is lost".into()),
        }
    }
}

/// How long to wait before the next try. See the head of this file.
#[derive(Debug, Default)]
struct RetryPauses {
    tries: u32,
}

impl RetryPauses {
    /// `chance` is from 0 to 1.
    fn next(&mut self, is_bad: bool, chance: f64) -> Duration {
        let (first, most) = if is_bad {
            (Duration::from_secs(1), Duration::from_secs(30))
        } else {
            (Duration::from_millis(100), Duration::from_secs(2))
        };
        let pause = first.saturating_mul(1 << self.tries.min(10)).min(most);
        self.tries = self.tries.saturating_add(1);
        pause.mul_f64(0.8 + 0.4 * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_without_an_answer_make_a_silence() {
        let mut silence = Silence::default();
        let start = Instant::now();
        let hour = Duration::from_secs(3600);
        silence.note(false, start);
        assert!(!silence.is_too_long(start + hour), "nothing was asked");

        silence.note(true, start + hour);
        silence.note(true, start + hour + SILENCE_MOST / 2);
        let just_before = start + hour + SILENCE_MOST - Duration::from_nanos(1);
        assert!(!silence.is_too_long(just_before));
        assert!(silence.is_too_long(start + hour + SILENCE_MOST));

        silence.note(false, start + hour + SILENCE_MOST);
        assert!(!silence.is_too_long(start + 2 * hour));
    }

    #[test]
    fn pauses_double_up_to_their_most() {
        let ms = |pauses: &mut RetryPauses, is_bad| pauses.next(is_bad, 0.5).as_millis();
        let mut pauses = RetryPauses::default();
        let found: Vec<u128> = (0..6).map(|_| ms(&mut pauses, false)).collect();
        assert_eq!(found, [100, 200, 400, 800, 1600, 2000]);
        let mut bad = RetryPauses::default();
        let found: Vec<u128> = (0..6).map(|_| ms(&mut bad, true)).collect();
        assert_eq!(found, [1000, 2000, 4000, 8000, 16000, 30000]);
        bad.tries = u32::MAX;
        assert_eq!(bad.next(false, 1.0).as_millis(), 2400);
    }
}
