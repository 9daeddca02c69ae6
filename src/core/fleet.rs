//! Proxies that share a server of Redis or Valkey, and fetch each text once among them:
//! a [`Tier`], `--store redis://HOST:PORT/DB`.
//!
//! | file | question |
//! |---|---|
//! | `fleet/place.rs`, `fleet/names.rs` | Where is the server, and what are things called in it? |
//! | `fleet/scripts.rs`, `fleet/answers.rs` | What does the server decide, and say? |
//! | `fleet/record.rs` | How is a text kept there? |
//! | `fleet/link.rs`, `fleet/wire.rs`, `fleet/ration.rs` | How is it asked, and how much may it answer? |
//! | `fleet/breaker.rs` | Is it asked at all? |
//! | `fleet/keeper.rs` | What is done without a fetch: connect, renew, probe, tell purges? |
//! | `fleet/claim.rs` | What does a fetch get? |
//! | `fleet/leases.rs`, `fleet/pieces.rs`, `fleet/commit.rs` | How do others get what a fetch brings? |
//! | `fleet/follow.rs`, `fleet/bells.rs` | How is another proxy's fetch followed? |
//! | `fleet/purges.rs` | How does a purge reach all? |
//!
//! There are two connections to the server. Small questions have one of their own, so
//! that none waits behind a large answer.
//!
//! | connection | carries | an answer is due in | a reply may have |
//! |---|---|---|---|
//! | ask | LOOK, RENEW, purges | 50 ms | 64 KiB |
//! | carry | pieces, commits, doorbells | 500 ms | 1 MiB |
//!
//! Whatever the server does, it costs a fetch 50 ms, three times, and no more: then
//! nothing is asked until it answers again. Nothing that it sends is passed on
//! unchecked: a text lands only if its length and SHA-256 are right.
//!
//! Correctness never rests on a lease. A lease saves fetches. What a holder commits
//! after its lease has run out is refused, and its pieces have the lease's token in
//! their name, so that they are never mixed with another's.

mod answers;
mod bells;
mod breaker;
mod claim;
mod commit;
mod follow;
mod keeper;
mod leases;
mod link;
mod names;
mod pieces;
mod place;
mod purges;
mod ration;
mod record;
mod scripts;
mod wire;

use crate::cache::Purge;
use crate::control::{FleetCounts, StoreCounts, StoreState};
use crate::observe::{Event, Observer, StoreNews};
use crate::rt;
use crate::semaphore::Semaphore;
use crate::sync::Notify;
use crate::tier::{Claim, Erase, OnPurge, PurgedElsewhere, Question, Tier, TierTally};
use bells::Bells;
use breaker::{Breaker, Turned};
use futures::future::{BoxFuture, FutureExt};
use leases::Leases;
use link::{LinkError, ServerLink};
use names::Names;
pub use place::{BadPlace, ServerPlace};
use purges::{FleetPurge, PurgeMessage, PurgeNumbers, Purges};
#[doc(hidden)]
pub use ration::check_ration;
#[doc(hidden)]
pub use record::check_record;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a fetch waits for the server's word, by default.
pub const ANSWER_WAIT: Duration = Duration::from_millis(50);

/// How much longer the server may take for bytes of texts, and to connect.
const CARRY_WAITS: u32 = 10;

/// Texts in pieces that are read at once. They count against no capacity until they
/// have landed.
const LARGE_READS: usize = 2;

/// The same for all other texts.
const SMALL_READS: usize = 1024;

/// The name of a fleet by default.
pub const FLEET_NAME: &str = "poetry";

/// What a proxy joins a fleet with.
#[derive(Debug, Clone)]
pub struct FleetSettings {
    /// Where its server is.
    pub place: ServerPlace,
    /// The name of the fleet: fleets of other names share nothing with it.
    pub name: String,
    /// How long a fetch waits for the server's word: [`ANSWER_WAIT`]. Ten times that
    /// for bytes of texts, and to connect.
    pub answer_wait: Duration,
    /// The longest text that is taken from the fleet, in bytes.
    pub longest: u64,
}

/// A proxy's part in a fleet. Dropped, it leaves; see [`Tier::close`].
pub struct Fleet {
    shared: Arc<FleetCore>,
}

/// What the parts share.
struct FleetCore {
    settings: FleetSettings,
    names: Names,
    /// Tells this proxy from all others.
    id: String,
    /// For logs.
    shown: Arc<str>,
    observer: Arc<dyn Observer>,
    links: Mutex<Option<Arc<LinkPair>>>,
    breaker: Mutex<Breaker>,
    purges: Mutex<Purges>,
    on_purge: Mutex<Option<OnPurge>>,
    leases: Leases,
    bells: Arc<Bells>,
    small_reads: Semaphore,
    large_reads: Semaphore,
    is_closing: AtomicBool,
    /// There is something for the keeper to do.
    wanted: Notify,
    /// Why the server has refused a question; the keeper takes it.
    refusal: Mutex<Option<String>>,
    /// When it was last told that nothing can be written.
    told_unwritable: Mutex<Option<Instant>>,
    figures: FleetFigures,
}

/// The connections of this moment.
struct LinkPair {
    ask: ServerLink,
    carry: ServerLink,
}

/// Running totals.
#[derive(Default)]
struct FleetFigures {
    tally: TierTally,
    /// Questions of fetches that had a good answer, and probes.
    answers: AtomicU64,
    deposed: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// In hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("a string takes all");
    }
    digits
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let guard = mutex.lock();
    guard.expect("no code panics while it holds a lock of the fleet")
}

impl Fleet {
    /// Begins to connect, and goes on without the server until it has. What happens is
    /// told to `observer`. Its tasks run where it is called: on this thread if that is
    /// in [`rt::run`].
    pub fn join(settings: FleetSettings, observer: Arc<dyn Observer>) -> Arc<Fleet> {
        let shared = Arc::new(FleetCore {
            names: Names::of(&settings.name),
            id: format!("{:016x}", fastrand::u64(..)),
            shown: settings.place.to_string().into(),
            observer,
            links: Mutex::default(),
            breaker: Mutex::new(Breaker::new(Instant::now())),
            purges: Mutex::default(),
            on_purge: Mutex::default(),
            leases: Leases::default(),
            bells: Arc::default(),
            small_reads: Semaphore::new(SMALL_READS),
            large_reads: Semaphore::new(LARGE_READS),
            is_closing: AtomicBool::new(false),
            wanted: Notify::new(),
            refusal: Mutex::default(),
            told_unwritable: Mutex::default(),
            figures: FleetFigures::default(),
            settings,
        });
        rt::spawn(keeper::keep(shared.clone()));
        Arc::new(Fleet { shared })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl FleetCore {
    fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.wanted.notify(usize::MAX);
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// The connections, if there are any and they answer.
    fn usable(&self) -> Option<Arc<LinkPair>> {
        let is_closed = lock(&self.breaker).is_closed();
        lock(&self.links).clone().filter(|_| is_closed)
    }

    fn carry_wait(&self) -> Duration {
        self.settings.answer_wait.saturating_mul(CARRY_WAITS)
    }

    fn tell(&self, news: &StoreNews) {
        self.observer.event(Event::Store {
            path: &self.shown,
            news,
        });
    }

    /// Tells what has become of the server.
    fn turned(&self, turned: Turned, down: impl FnOnce() -> StoreNews) {
        match turned {
            Turned::Not => {}
            Turned::Down => self.tell(&down()),
            Turned::Up => self.tell(&StoreNews::Joined),
            Turned::UpAgain { after, alone } => self.tell(&StoreNews::Answers { after, alone }),
        }
        if turned != Turned::Not {
            self.wanted.notify(usize::MAX); // to probe, or not to
        }
    }

    fn answered(&self) {
        add(&self.figures.answers);
        let turned = lock(&self.breaker).answered(Instant::now());
        self.turned(turned, || self.silent());
    }

    /// A question had no good answer. If that is the last straw, `news` say it.
    fn failed(&self, news: StoreNews) {
        let turned = lock(&self.breaker).failed(Instant::now());
        self.turned(turned, || news);
    }

    /// The server refuses what it must not. It is left alone for a while.
    fn refused(&self, why: String) {
        add(&self.figures.tally.errors);
        *lock(&self.refusal) = Some(why);
        self.wanted.notify(usize::MAX);
    }

    fn silent(&self) -> StoreNews {
        StoreNews::Silent {
            limit: self.settings.answer_wait,
        }
    }

    /// Nothing can be written now. It is told once a minute.
    fn unwritable(&self, why: String) {
        const TELL_EVERY: Duration = Duration::from_secs(60);

        add(&self.figures.tally.errors);
        let now = Instant::now();
        let is_told = {
            let mut told = lock(&self.told_unwritable);
            let is_new = told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
            if is_new {
                *told = Some(now);
            }
            !is_new
        };
        if !is_told {
            let why = link::first_sentence(&why);
            self.tell(&StoreNews::Unshared { why });
        }
    }

    /// A message of a channel.
    fn heard(&self, channel: &str, message: &[u8]) {
        if channel != self.names.purge_channel() {
            return self.bells.ring(channel);
        }
        let Some(message) = PurgeMessage::read(message) else {
            return add(&self.figures.tally.errors);
        };
        let is_own = message.from == self.id;
        let purged = lock(&self.purges).heard(&message, is_own);
        self.purge_memory(purged);
    }

    /// Logs that the server does not take a purge now: once, until it has taken all.
    fn purge_is_owed(&self) {
        let is_new = lock(&self.purges).debt_is_news();
        if is_new {
            self.tell(&StoreNews::PurgeOwed);
        }
    }

    /// Purges what another proxy has purged. The epoch has moved.
    fn purge_memory(&self, purged: Option<FleetPurge>) {
        let tell = lock(&self.on_purge).clone();
        if let (Some(purged), Some(tell)) = (purged, tell) {
            let texts = match &purged.key {
                None => PurgedElsewhere::All,
                Some(key) => PurgedElsewhere::Key(key),
            };
            tell(texts, purged.how);
        }
    }

    /// What an answer says of purges.
    fn compare(&self, numbers: PurgeNumbers) {
        let purged = lock(&self.purges).answered(numbers);
        self.purge_memory(purged);
    }
}

impl Tier for Fleet {
    fn is_shared(&self) -> bool {
        true
    }

    fn claim<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Claim> {
        let claimed = async move {
            let claim = self.shared.claim(&question).await;
            if matches!(claim, Claim::Alone) {
                lock(&self.shared.breaker).went_alone();
            }
            claim
        };
        claimed.boxed()
    }

    fn is_current(&self, epoch: u64) -> bool {
        lock(&self.shared.purges).is_current(epoch)
    }

    fn purge_begins(&self) {
        lock(&self.shared.purges).begin();
    }

    /// Never waits: a purge is owed until the server has it.
    fn purge(&self, texts: Erase, how: Purge) {
        let key = match texts {
            Erase::Key(key) => Some(key),
            // Names in the server are digests, so a part of them can't be picked.
            Erase::All | Erase::Picked(_) => None,
        };
        lock(&self.shared.purges).owe(FleetPurge { key, how });
        self.shared.wanted.notify(usize::MAX);
        if self.shared.usable().is_none() {
            self.shared.purge_is_owed();
        }
    }

    fn on_purge(&self, tell: OnPurge) {
        *lock(&self.shared.on_purge) = Some(tell);
    }

    fn counts(&self) -> StoreCounts {
        let figures = &self.shared.figures;
        let counts = figures.tally.counts();
        let (is_open, state_for) = {
            let breaker = lock(&self.shared.breaker);
            (breaker.is_closed(), breaker.state_for(Instant::now()))
        };
        StoreCounts {
            name: self.shared.shown.clone(),
            is_open,
            state: if is_open {
                StoreState::Ok
            } else {
                StoreState::Off
            },
            state_for,
            fleet: Some(FleetCounts {
                published: counts.written,
                deposed: figures.deposed.load(Ordering::Relaxed),
                purges_owed: lock(&self.shared.purges).owed_count() as u64,
                ..FleetCounts::default()
            }),
            ..counts
        }
    }

    fn close(&self, limit: Duration) -> BoxFuture<'_, bool> {
        let closed = async move {
            self.shared.give_back_all();
            let done = rt::within(limit, self.shared.leases.none_left()).await;
            self.shared.close();
            done.is_some()
        };
        closed.boxed()
    }
}
