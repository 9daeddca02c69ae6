//! The upstream: answers each call with a random fault, notes which texts ended as wholes, and watches how the proxy
//! behaves towards it: how many connections there are at once, and that no key is fetched twice at a time.

use crate::ledger::{Ledger, Signals, lock};
use crate::plan::{FAIL_TTL, FETCH_TIMEOUT, MAX_POEM, SLACK, UPSTREAM_CONNS, choose};
use crate::text::{NOBODY, SHORTEST, compose};
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What becomes of a call.
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
    AsLongAsMayBe,
    OneTooLong,
    HalfClosed,
    /// A part and a reset, before it has heard what is wanted.
    Hasty,
}

/// Each with its share, and the name it is counted by. Whole ones are in the majority, so that there is something to
/// keep; what holds a place for long is rare, so that the places are full now and then and not always.
const FAULTS: [(Fault, u32, &str); 15] = [
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
    (Fault::AsLongAsMayBe, 3, "as long as may be"),
    (Fault::OneTooLong, 2, "one byte too long"),
    (Fault::HalfClosed, 4, "half-closed"),
    (Fault::Hasty, 6, "a part and a reset unasked"),
];

/// Mostly short, as poems are, and long enough on the whole that not all can be kept.
fn length(rng: &mut Rng) -> usize {
    match rng.u32(..10) {
        0..=4 => rng.usize(SHORTEST..4 << 10),
        5..=7 => rng.usize(SHORTEST..128 << 10),
        _ => rng.usize(SHORTEST..MAX_POEM),
    }
}

/// Longer than anything a proxy takes to hang up on us.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key whose poem was too long is remembered as such, and until then fetched by everyone alone.
const LONG_REMEMBERED: Duration = FETCH_TIMEOUT.saturating_add(FAIL_TTL).saturating_add(SLACK);

/// What an upstream is told.
pub struct Role {
    pub name: &'static str,
    pub seed: u64,
    /// Whether it hears a line first; the key of the poem it gives unasked is its name.
    pub asks: bool,
    /// Whether a key must not be fetched twice at a time: where there is room for every flight.
    pub is_single: bool,
    /// When the proxy before it was told to forget.
    pub signals: Arc<Signals>,
}

/// A call that has not ended yet.
struct Live {
    stream: Arc<TcpStream>,
    /// What is asked for, once it is known.
    key: String,
    /// The earliest moment at which its fetch can have been started.
    launched: Instant,
    sent: Arc<AtomicUsize>,
}

impl Live {
    /// Whether the proxy still has its end open; it never closes half of a connection.
    fn is_open(&self) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut fds = [PollFd::new(&*self.stream, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let _never_waits = poll(&mut fds, Some(&now));
        !fds[0].revents().intersects(gone)
    }
}

#[derive(Default)]
struct Calls {
    live: HashMap<u64, Live>,
    /// When last all places were taken: a call within a fetch's time after it may have waited for its place.
    full: Option<Instant>,
    /// When a key's poem was last seen to be too long.
    long: HashMap<String, Instant>,
}

pub struct Upstream {
    role: Role,
    ledger: Arc<Ledger>,
    calls: Mutex<Calls>,
}

/// Starts an upstream, and says where.
pub fn start(role: Role, ledger: Arc<Ledger>) -> io::Result<SocketAddr> {
    const BACKLOG: i32 = 1024; // std's own is too short for a burst
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(BACKLOG)?;
    let listener = TcpListener::from(listener);
    let addr = listener.local_addr()?;
    let upstream = Arc::new(Upstream {
        role,
        ledger,
        calls: Mutex::default(),
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            upstream.clone().take(stream);
        }
    });
    Ok(addr)
}

impl Upstream {
    fn take(self: Arc<Self>, stream: TcpStream) {
        let (serial, stream) = (self.ledger.number(), Arc::new(stream));
        let mut rng = Rng::with_seed(self.role.seed ^ serial);
        let (mut fault, mut name) = choose(&mut rng, &FAULTS);
        if serial <= 2 {
            (fault, name) = (Fault::AtOnce, "whole at once"); // those that warm the proxies up
        }
        self.ledger.begin(serial, name);
        self.ledger.count(name, "calls");
        let sent = self.register(serial, &stream);
        let call = Call {
            upstream: self,
            stream,
            serial,
            sent,
            rng,
        };
        match fault {
            // On this very thread: it must be done before the proxy has sent its request.
            Fault::Hasty => call.hasty(),
            fault => drop(std::thread::spawn(move || call.answer(fault))),
        }
    }

    /// Counts the connections that are open with this one.
    fn register(&self, serial: u64, stream: &Arc<TcpStream>) -> Arc<AtomicUsize> {
        let (now, sent) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let mut calls = lock(&self.calls);
        let open = 1 + calls.live.values().filter(|call| call.is_open()).count();
        if open >= UPSTREAM_CONNS {
            calls.full = Some(now);
        }
        let may_have_waited = calls.full.is_some_and(|full| now - full < FETCH_TIMEOUT);
        let launched = now
            - if may_have_waited {
                FETCH_TIMEOUT + SLACK
            } else {
                SLACK
            };
        let key = String::new();
        calls.live.insert(
            serial,
            Live {
                stream: stream.clone(),
                key,
                launched,
                sent: sent.clone(),
            },
        );
        drop(calls);
        if open > UPSTREAM_CONNS {
            self.ledger.violation(
                "connections",
                format!("{}: {open} connections at once", self.role.name),
            );
        }
        sent
    }

    /// It is known what this call wants: nobody else may be fetching that.
    fn identify(&self, serial: u64, key: &str) {
        let now = Instant::now();
        let mut calls = lock(&self.calls);
        let Some(own) = calls.live.get_mut(&serial) else {
            return;
        };
        own.key = key.to_string();
        let launched = own.launched;
        let others = calls
            .live
            .iter()
            .filter(|(other, call)| **other != serial && call.key == key);
        let excused = |call: &Live| {
            let too_long = call.sent.load(Ordering::Acquire) > MAX_POEM
                || calls
                    .long
                    .get(key)
                    .is_some_and(|at| now - *at < LONG_REMEMBERED);
            too_long || self.role.signals.any_since(call.launched.min(launched))
        };
        let twice = others
            .filter(|(_, call)| call.is_open() && !excused(call))
            .map(|(other, _)| *other);
        let twice: Vec<u64> = twice.collect();
        drop(calls);
        if self.role.is_single && !twice.is_empty() {
            let name = self.role.name;
            self.ledger.violation(
                "fetched twice",
                format!("{name}: {key} is fetched by {serial} and by {twice:?} at once"),
            );
        }
    }

    fn forget(&self, serial: u64) {
        lock(&self.calls).live.remove(&serial);
    }

    /// From here on others may fetch this key as well.
    fn too_long(&self, key: &str) {
        lock(&self.calls)
            .long
            .insert(key.to_string(), Instant::now());
    }
}

/// One call, as the thread that answers it sees it.
struct Call {
    upstream: Arc<Upstream>,
    stream: Arc<TcpStream>,
    serial: u64,
    sent: Arc<AtomicUsize>,
    rng: Rng,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.upstream.forget(self.serial);
    }
}

impl Call {
    fn hasty(mut self) {
        let text = compose(NOBODY, self.serial, SHORTEST << 4);
        let part = self.rng.usize(1..text.len());
        let _gone = (&*self.stream).write(&text[..part]);
        self.reset();
    }

    /// An error means that the proxy has hung up, which it may.
    fn answer(mut self, fault: Fault) {
        let _gone = self.try_to_answer(fault);
    }

    fn try_to_answer(&mut self, fault: Fault) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.set_nodelay(true)?;
        let key = self.try_recv(fault == Fault::NeverReads)?;
        self.upstream.identify(self.serial, &key);
        let len = match fault {
            Fault::ByteByByte => self.rng.usize(SHORTEST..SHORTEST * 4),
            Fault::EndlessThenReset | Fault::EndlessThenEnd => {
                MAX_POEM + self.rng.usize(1..3 * MAX_POEM)
            }
            Fault::AsLongAsMayBe => MAX_POEM,
            Fault::OneTooLong => MAX_POEM + 1,
            _ => length(&mut self.rng),
        };
        if len > MAX_POEM {
            self.upstream.too_long(&key);
        }
        let text = compose(&key, self.serial, len);
        self.perform(fault, &text)?;
        if len > MAX_POEM {
            self.upstream.too_long(&key);
        }
        Ok(())
    }

    fn perform(&mut self, fault: Fault, text: &[u8]) -> io::Result<()> {
        let part = self.rng.usize(..text.len());
        match fault {
            Fault::InPieces => self.say_in_pieces(text)?,
            Fault::ByteByByte => text.chunks(1).try_for_each(|byte| self.say(byte))?,
            Fault::ResetMidway => self.say(&text[..part])?,
            Fault::EndlessThenReset => self.say(&text[..part.max(MAX_POEM)])?,
            Fault::Stall => {
                self.say(&text[..part])?;
                return self.wait();
            }
            Fault::ResetBeforeAny | Fault::Empty => {}
            _ => self.say(text)?,
        }
        match fault {
            Fault::ResetMidway
            | Fault::ResetBehindTheLast
            | Fault::ResetBeforeAny
            | Fault::EndlessThenReset => {
                self.reset();
                Ok(())
            }
            Fault::Empty => self.close(),
            fault => {
                self.upstream.ledger.end(self.serial);
                self.close()?;
                if fault == Fault::HalfClosed {
                    self.wait()
                } else {
                    Ok(())
                }
            }
        }
    }

    /// The request's line, which stays unread where nothing is to be read.
    fn try_recv(&mut self, only_look: bool) -> io::Result<String> {
        if !self.upstream.role.asks {
            return Ok(self.upstream.role.name.to_string());
        }
        const LOOK_AGAIN: Duration = Duration::from_millis(1);
        let (begun, mut line) = (Instant::now(), [0; 1024]);
        loop {
            let count = self.stream.peek(&mut line)?;
            let end = line[..count].iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    if !only_look {
                        (&*self.stream).read_exact(&mut line[..=end])?;
                    }
                    return Ok(String::from_utf8_lossy(&line[..end]).trim_end().to_string());
                }
                None if count == 0 || begun.elapsed() > PATIENCE => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Counted before it is sent: the proxy must not know more of it than we do.
    fn say(&self, bytes: &[u8]) -> io::Result<()> {
        const PIECE: usize = 64 << 10;
        for piece in bytes.chunks(PIECE) {
            self.sent.fetch_add(piece.len(), Ordering::AcqRel);
            (&*self.stream).write_all(piece)?;
        }
        Ok(())
    }

    /// Random pieces and pauses, all within a fetch's time.
    fn say_in_pieces(&mut self, text: &[u8]) -> io::Result<()> {
        const PIECES: usize = 30;
        const LONGEST_PAUSE_MS: u64 = 40;
        let mut rest = text;
        for left in (1..=PIECES).rev() {
            let most = (2 * rest.len() / left).max(1);
            let (piece, more) = rest.split_at(self.rng.usize(..=most).min(rest.len()));
            self.say(piece)?;
            rest = more;
            std::thread::sleep(Duration::from_millis(self.rng.u64(..LONGEST_PAUSE_MS)));
        }
        self.say(rest)
    }

    /// Says nothing until the proxy hangs up.
    fn wait(&self) -> io::Result<()> {
        let mut heard = [0; 1024];
        while (&*self.stream).read(&mut heard)? > 0 {}
        Ok(())
    }

    /// Ends it cleanly. It is no longer open from the moment that the proxy may know of it.
    fn close(&self) -> io::Result<()> {
        self.upstream.forget(self.serial);
        self.stream.shutdown(Shutdown::Write)
    }

    /// The same, by the closing that follows.
    fn reset(&self) {
        self.upstream.forget(self.serial);
        let _armed = socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }
}
