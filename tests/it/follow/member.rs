//! A fleet in memory: several tiers over one [`Ledger`]. What Redis and its network are
//! to a real one, a lock is here, so that each test decides what goes wrong.

use super::ledger::{Asked, Ledger, LogEnd, Look, Token};
use crate::support::HOUR;
use futures::FutureExt;
use futures::future::{BoxFuture, poll_fn};
use poetry::cache::Purge;
use poetry::control::{FleetCounts, StoreCounts};
use poetry::flight::{Read, Reader};
use poetry::poem::Poem;
use poetry::rt;
use poetry::semaphore::Semaphore;
use poetry::tier::{
    Claim, Erase, Failure, Follow, Lease, News, OnPurge, PurgedElsewhere, Question, StoredText,
    Term, Tier,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// What the members share.
pub struct Fleet(Mutex<FleetState>);

struct FleetState {
    ledger: Ledger,
    /// Followers that wait.
    waiting: Vec<Waker>,
    members: Vec<Arc<Member>>,
}

impl Fleet {
    pub fn new() -> Arc<Fleet> {
        Arc::new(Fleet(Mutex::new(FleetState {
            ledger: Ledger::new(HOUR), // a test says when a lease runs out
            waiting: Vec::new(),
            members: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, FleetState> {
        self.0.lock().unwrap()
    }

    /// Changes what is shared, and wakes those that follow.
    pub fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state.ledger);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        changed
    }

    /// The tier of one more process.
    pub fn member(self: &Arc<Self>) -> Arc<Member> {
        let member = Arc::new(Member {
            fleet: self.clone(),
            epoch: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            published: AtomicU64::new(0),
            deposed: AtomicU64::new(0),
            leases: Mutex::default(),
            tell: Mutex::default(),
        });
        self.lock().members.push(member.clone());
        member
    }

    pub fn leases(&self) -> usize {
        self.lock().ledger.leases()
    }

    pub fn kept(&self) -> Vec<Vec<u8>> {
        let state = self.lock();
        state
            .ledger
            .records()
            .map(|record| record.text.clone())
            .collect()
    }
}

/// The tier of one process.
pub struct Member {
    fleet: Arc<Fleet>,
    /// Purges that it has begun or heard of.
    epoch: AtomicU64,
    is_down: AtomicBool,
    pub asked: AtomicU64,
    pub published: AtomicU64,
    pub deposed: AtomicU64,
    /// The leases that are out.
    leases: Mutex<Vec<(Vec<u8>, Token)>>,
    tell: Mutex<Option<OnPurge>>,
}

impl Member {
    /// The process is killed, as far as others can see: its leases run out, and it
    /// publishes nothing more.
    pub fn die(&self) {
        self.is_down.store(true, Ordering::Relaxed);
        let leases = std::mem::take(&mut *self.leases.lock().unwrap());
        for (key, token) in leases {
            self.fleet.change(|ledger| {
                ledger.expire_token(&key, token);
            });
        }
    }

    /// Whether it can't reach what is shared.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    fn lease(self: &Arc<Self>, question: Question<'_>, token: Token) -> Box<dyn Lease> {
        let key = question.key.to_vec();
        self.leases.lock().unwrap().push((key.clone(), token));
        Box::new(MemoryLease {
            member: self.clone(),
            key,
            token,
            since: None,
            ttl: question.ttl,
            grace: question.grace,
        })
    }

    fn answer(self: &Arc<Self>, question: Question<'_>) -> Claim {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_down() {
            return Claim::Alone;
        }
        let asked = Asked {
            wish: question.wish,
            may_lead: question.may_lead,
            ttl: question.ttl,
            grace: question.grace,
        };
        let epoch = self.epoch.load(Ordering::Relaxed);
        let now = Instant::now();
        let looked = self
            .fleet
            .change(|ledger| ledger.look(question.key, asked, now));
        match looked {
            Look::Vacant => Claim::Vacant,
            Look::Lead(token) => Claim::Lead(self.lease(question, token)),
            Look::Follow(token) => Claim::Follow(Box::new(MemoryFollow {
                fleet: self.fleet.clone(),
                member: self.clone(),
                key: question.key.to_vec(),
                token,
                at: 0,
                epoch,
            })),
            Look::Found(record, token) => Claim::Found(StoredText {
                text: record.text.into(),
                term: Term::Since(record.end),
                epoch,
                permit: Semaphore::new(1).acquire(now).now_or_never().unwrap(),
                lease: token.map(|token| self.lease(question, token)),
            }),
        }
    }

    /// Tells the others of a purge.
    fn tell_others(&self, texts: &Erase, how: Purge) {
        let others = self.fleet.lock().members.clone();
        for other in others {
            if std::ptr::eq(&*other, self) {
                continue;
            }
            other.epoch.fetch_add(1, Ordering::Relaxed);
            let tell = other.tell.lock().unwrap().clone();
            let texts = match texts {
                Erase::Key(key) => PurgedElsewhere::Key(key),
                Erase::All | Erase::Picked(_) => PurgedElsewhere::All,
            };
            if let Some(tell) = tell {
                tell(texts, how);
            }
        }
    }
}

/// A member as a proxy has it.
pub struct MemberTier(pub Arc<Member>);

impl Tier for MemberTier {
    fn is_shared(&self) -> bool {
        true
    }

    fn claim<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Claim> {
        async move { self.0.answer(question) }.boxed()
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.0.epoch.load(Ordering::Relaxed) == epoch
    }

    fn purge_begins(&self) {
        self.0.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn purge(&self, texts: Erase, how: Purge) {
        self.0.fleet.change(|ledger| match &texts {
            Erase::Key(key) => ledger.purge_key(key),
            Erase::All | Erase::Picked(_) => ledger.purge_all(),
        });
        self.0.tell_others(&texts, how);
    }

    fn on_purge(&self, tell: OnPurge) {
        *self.0.tell.lock().unwrap() = Some(tell);
    }

    fn counts(&self) -> StoreCounts {
        let fleet = FleetCounts {
            deposed: self.0.deposed.load(Ordering::Relaxed),
            published: self.0.published.load(Ordering::Relaxed),
            ..FleetCounts::default()
        };
        StoreCounts {
            is_open: !self.0.is_down(),
            fleet: Some(fleet),
            ..StoreCounts::default()
        }
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, bool> {
        let leases = std::mem::take(&mut *self.0.leases.lock().unwrap());
        for (key, token) in leases {
            let now = Instant::now();
            self.0
                .fleet
                .change(|ledger| ledger.end(&key, token, LogEnd::Gone, now));
        }
        std::future::ready(true).boxed()
    }
}

struct MemoryLease {
    member: Arc<Member>,
    key: Vec<u8>,
    token: Token,
    since: Option<Instant>,
    ttl: Duration,
    grace: Duration,
}

impl MemoryLease {
    fn commit_as(&mut self, text: &Poem, keep: Option<Duration>) {
        if self.member.is_down() {
            return;
        }
        let since = self.since.expect("the fence came first");
        let now = Instant::now();
        let (key, token, text) = (&self.key, self.token, text.bytes());
        let fleet = &self.member.fleet;
        let done = fleet.change(|ledger| ledger.commit(key, token, &text, since, keep, now));
        let counter = match done {
            None => &self.member.deposed,
            Some(_) => &self.member.published,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&mut self, end: LogEnd) {
        let (key, token) = (&self.key, self.token);
        let now = Instant::now();
        let is_down = self.member.is_down();
        if !is_down {
            self.member
                .fleet
                .change(|ledger| ledger.end(key, token, end, now));
        }
        let mut leases = self.member.leases.lock().unwrap();
        leases.retain(|(_, other)| *other != token);
    }
}

impl Lease for MemoryLease {
    fn publish(&mut self, mut reader: Reader) {
        let (member, key, token) = (self.member.clone(), self.key.clone(), self.token);
        rt::spawn(async move {
            let mut at = 0;
            loop {
                match reader.read() {
                    Read::Chunk(_) if member.is_down() => return,
                    Read::Chunk(bytes) => {
                        member
                            .fleet
                            .change(|ledger| ledger.push(&key, token, at, &bytes));
                        at += bytes.len();
                    }
                    Read::Pending => reader.ready().await,
                    Read::End | Read::Failed(_) | Read::FellBehind { .. } => return,
                }
            }
        });
    }

    fn fence(&mut self) {
        self.since = Some(Instant::now());
    }

    fn commit(mut self: Box<Self>, text: Poem, ttl: Option<Duration>) {
        let keep = ttl.unwrap_or(self.ttl) + self.grace;
        self.commit_as(&text, Some(keep));
    }

    fn pass(mut self: Box<Self>, text: Poem) {
        self.commit_as(&text, None);
    }

    fn fail(mut self: Box<Self>, how: Failure, why: &str) {
        self.end(match how {
            Failure::Failed => LogEnd::Failed(why.into()),
            Failure::Unreached => LogEnd::Unreached,
        });
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.end(LogEnd::Gone);
    }
}

struct MemoryFollow {
    fleet: Arc<Fleet>,
    member: Arc<Member>,
    key: Vec<u8>,
    token: Token,
    at: usize,
    epoch: u64,
}

impl MemoryFollow {
    fn news(&mut self, state: &FleetState) -> Option<News> {
        if self.member.is_down() {
            return Some(News::Gone);
        }
        let read = state
            .ledger
            .read(&self.key, self.token, self.at, Instant::now());
        let Some((bytes, end)) = read else {
            return Some(News::Gone);
        };
        if !bytes.is_empty() {
            self.at += bytes.len();
            return Some(News::Bytes(bytes.into()));
        }
        Some(match end? {
            LogEnd::Whole { since, is_kept } => News::End { since, is_kept },
            LogEnd::Failed(why) => News::Failed(why),
            LogEnd::Unreached => News::Unreached,
            LogEnd::Gone => News::Gone,
        })
    }
}

impl Follow for MemoryFollow {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn next(&mut self) -> BoxFuture<'_, News> {
        let next = poll_fn(move |context| {
            let fleet = self.fleet.clone();
            let mut state = fleet.lock();
            match self.news(&state) {
                Some(news) => Poll::Ready(news),
                None => {
                    state.waiting.push(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        next.boxed()
    }
}
