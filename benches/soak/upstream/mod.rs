//! The upstream: answers each call with a random fault, records which texts ended
//! whole, and watches how the proxy treats it: how many connections are open at once,
//! and that no key is fetched twice at a time.

mod call;

use crate::ledger::{Ledger, Purges, lock};
use crate::plan::{FAIL_TTL, FETCH_TIMEOUT, MAX_POEM, SLACK, Weighted, choose};
use call::Call;
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    AtOnce,
    InPieces,
    ByteByByte,
    ResetMidway,
    ResetBehindTheLast,
    ResetBeforeAny,
    Empty,
    Stall,
    NeverReads,
    EndlessThenReset,
    EndlessThenEnd,
    AsLongAsAllowed,
    OneTooLong,
    HalfClosed,
    /// A part and a reset, before the request has been read.
    Hasty,
}

/// The faults, their weights, and the names they are counted by. Most answers are
/// whole, so that there is something to cache. Faults that hold a connection for long
/// are rare, so that the connections run out now and then but not always.
const FAULTS: [Weighted<Fault>; 15] = [
    (Fault::AtOnce, 40, "whole at once"),
    (Fault::InPieces, 12, "whole in slow pieces"),
    (Fault::ByteByByte, 4, "whole byte by byte"),
    (Fault::ResetMidway, 8, "reset midway"),
    (Fault::ResetBehindTheLast, 5, "reset behind the last byte"),
    (Fault::ResetBeforeAny, 3, "reset before any byte"),
    (Fault::Empty, 3, "empty"),
    (Fault::Stall, 2, "stalled"),
    (Fault::NeverReads, 4, "never read the request"),
    (Fault::EndlessThenReset, 2, "too long, then reset"),
    (Fault::EndlessThenEnd, 2, "too long, then an end"),
    (Fault::AsLongAsAllowed, 3, "as long as allowed"),
    (Fault::OneTooLong, 2, "one byte too long"),
    (Fault::HalfClosed, 4, "half-closed"),
    (Fault::Hasty, 6, "a part and a reset unasked"),
];

/// How long a key whose poem was too long may be fetched by each client alone: until
/// the proxy's record of it expires.
const LONG_REMEMBERED: Duration = FETCH_TIMEOUT.saturating_add(FAIL_TTL).saturating_add(SLACK);

/// How an upstream behaves.
pub struct UpstreamOptions {
    pub name: &'static str,
    pub seed: u64,
    /// Whether it reads a request line. If not, the key of its only poem is its name.
    pub takes_line: bool,
    /// Whether a key must not be fetched twice at a time. Not so where flights may not
    /// fit into the capacity.
    pub is_single: bool,
    /// How many connections its proxies may have in all.
    pub most_conns: usize,
    /// How long a key keeps its text. Zero: each call brings another.
    pub same_for: Duration,
    /// When the proxy in front of it was told to purge.
    pub purges: Arc<Purges>,
}

/// A call that has not ended yet.
struct OpenCall {
    stream: Arc<TcpStream>,
    /// The key; empty until the request has been read.
    key: String,
    /// The earliest moment at which its fetch can have started.
    launched: Instant,
    sent: Arc<AtomicUsize>,
}

impl OpenCall {
    /// Whether the proxy still has its end open. It never closes half of a connection.
    fn is_open(&self) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut fds = [PollFd::new(&*self.stream, PollFlags::RDHUP)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let _never_waits = poll(&mut fds, Some(&at_once));
        !fds[0].revents().intersects(gone)
    }
}

#[derive(Default)]
struct Calls {
    open: HashMap<u64, OpenCall>,
    /// When all connections were last in use. A call within a fetch's time after it may
    /// have waited for its connection.
    full: Option<Instant>,
    /// When the poem of a key was last seen to be too long.
    long: HashMap<String, Instant>,
}

impl Calls {
    /// Whether the call may share its key with one that was launched at `launched`.
    fn is_excused(&self, call: &OpenCall, purges: &Purges, launched: Instant) -> bool {
        let is_too_long = call.sent.load(Ordering::Acquire) > MAX_POEM;
        let long = self.long.get(&call.key);
        let was_too_long = long.is_some_and(|at| at.elapsed() < LONG_REMEMBERED);
        is_too_long || was_too_long || purges.any_since(call.launched.min(launched))
    }
}

pub struct FaultyUpstream {
    pub addr: SocketAddr,
    options: UpstreamOptions,
    ledger: Arc<Ledger>,
    calls: Mutex<Calls>,
    versions: Mutex<HashMap<String, Version>>,
    /// How many calls brought a whole text that can be kept.
    whole: AtomicU64,
}

/// The text that a key has for a while.
#[derive(Clone, Copy)]
struct Version {
    serial: u64,
    len: usize,
    since: Instant,
}

/// Starts an upstream.
pub fn start(options: UpstreamOptions, ledger: Arc<Ledger>) -> io::Result<Arc<FaultyUpstream>> {
    const BACKLOG: i32 = 1024; // std's own is too short for a burst

    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(BACKLOG)?;
    let listener = TcpListener::from(listener);
    let addr = listener.local_addr()?;

    let upstream = Arc::new(FaultyUpstream {
        addr,
        options,
        ledger,
        calls: Mutex::default(),
        versions: Mutex::default(),
        whole: AtomicU64::new(0),
    });
    let taking = upstream.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            taking.clone().take(stream);
        }
    });
    Ok(upstream)
}

impl FaultyUpstream {
    fn take(self: Arc<Self>, stream: TcpStream) {
        const WARM_UPS: u64 = 2;

        let serial = self.ledger.next_serial();
        let stream = Arc::new(stream);
        let mut rng = Rng::with_seed(self.options.seed ^ serial);
        let (mut fault, mut name) = choose(&mut rng, &FAULTS);
        if serial <= WARM_UPS {
            (fault, name) = (Fault::AtOnce, "whole at once");
        }

        self.ledger.begin(serial, name);
        self.ledger.count(name, "calls");
        let sent = self.register(serial, &stream);
        let call = Call {
            upstream: self,
            stream,
            serial,
            text: serial,
            fault_name: name,
            sent,
            rng,
        };

        if fault == Fault::Hasty {
            call.reset_early(); // on this thread: before the proxy has sent its request
        } else {
            std::thread::spawn(move || call.answer(fault));
        }
    }

    /// Registers a call, and checks how many are open with it. Returns the counter of
    /// its bytes.
    fn register(&self, serial: u64, stream: &Arc<TcpStream>) -> Arc<AtomicUsize> {
        let now = Instant::now();
        let sent = Arc::new(AtomicUsize::new(0));
        let mut calls = lock(&self.calls);
        let open = 1 + calls.open.values().filter(|call| call.is_open()).count();

        if open >= self.options.most_conns {
            calls.full = Some(now);
        }
        let may_have_waited = calls.full.is_some_and(|full| now - full < FETCH_TIMEOUT);
        let waited = if may_have_waited {
            FETCH_TIMEOUT + SLACK
        } else {
            SLACK
        };
        let call = OpenCall {
            stream: stream.clone(),
            key: String::new(),
            launched: now - waited,
            sent: sent.clone(),
        };
        calls.open.insert(serial, call);
        drop(calls);

        if open > self.options.most_conns {
            let name = self.options.name;
            let what = format!("{name}: {open} connections at once");
            self.ledger.violation("connections", what);
        }
        sent
    }

    /// Records the key of a call, and checks that no other call is fetching it.
    fn identify(&self, serial: u64, key: &str) {
        let mut calls = lock(&self.calls);
        let Some(own) = calls.open.get_mut(&serial) else {
            return;
        };
        own.key = key.to_string();
        let launched = own.launched;

        let twice: Vec<u64> = calls
            .open
            .iter()
            .filter(|(other, call)| **other != serial && call.key == key && call.is_open())
            .filter(|(_, call)| !calls.is_excused(call, &self.options.purges, launched))
            .map(|(other, _)| *other)
            .collect();
        drop(calls);

        if self.options.is_single && !twice.is_empty() {
            let name = self.options.name;
            let what = format!("{name}: {key} is fetched by {serial} and by {twice:?} at once");
            self.ledger.violation("fetched twice", what);
        }
    }

    /// The number and length of the text that this key has now: `new`, unless it has
    /// one already.
    fn version(&self, key: &str, new: (u64, usize)) -> (u64, usize) {
        let now = Instant::now();
        let mut versions = lock(&self.versions);
        let is_current = |version: &&Version| now - version.since < self.options.same_for;
        if let Some(version) = versions.get(key).filter(is_current) {
            return (version.serial, version.len);
        }

        let (serial, len) = new;
        let version = Version {
            serial,
            len,
            since: now,
        };
        versions.insert(key.to_string(), version);
        new
    }

    /// How many calls brought a whole text that can be kept.
    pub fn whole(&self) -> u64 {
        self.whole.load(Ordering::Relaxed)
    }

    fn forget(&self, serial: u64) {
        lock(&self.calls).open.remove(&serial);
    }

    /// Records that the poem of this key is too long: other calls may fetch it too.
    fn mark_too_long(&self, key: &str) {
        let long = &mut lock(&self.calls).long;
        long.insert(key.to_string(), Instant::now());
    }
}
