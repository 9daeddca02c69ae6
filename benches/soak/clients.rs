//! The clients: threads that ask in every way there is, decent and not, and look closely at what they get.

use crate::ledger::{Ledger, Signals};
use crate::plan::{GRACE, HANG, KEYS, SLACK, STORM, STORMS, TTL, choose};
use crate::text::{Found, examine};
use fastrand::Rng;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A proxy, as its clients know it.
pub struct Target {
    pub name: &'static str,
    pub addr: SocketAddr,
    /// Whether it wants a line first; the key of the poem it gives unasked is its name.
    pub asks: bool,
    /// How many proxies a text has been kept by, one after the other.
    pub links: u32,
    /// When it was told to forget; only where it has no proxy behind it, which would not have forgotten.
    pub signals: Option<Arc<Signals>>,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Reads,
    HalfCloses,
    Leaves,
    ResetsMidway,
    TalksOnAndOn,
    ReadsByteByByte,
    IsStuck,
    TalksNonsense,
    AsksSlowly,
    Storms,
    Fetches,
}

/// Who does nothing but read.
const READS: &str = "reads to the end";

/// Each with its share, and the name it is counted by.
const MANNERS: [(Manner, u32, &str); 11] = [
    (Manner::Reads, 400, READS),
    (Manner::HalfCloses, 80, "half-closes first"),
    (Manner::Leaves, 60, "leaves at once"),
    (Manner::ResetsMidway, 60, "resets midway"),
    (Manner::TalksOnAndOn, 80, "talks on and on"),
    (Manner::ReadsByteByByte, 30, "reads byte by byte"),
    (Manner::IsStuck, 15, "is stuck for a while"),
    (Manner::TalksNonsense, 40, "talks nonsense"),
    (Manner::AsksSlowly, 10, "asks slowly"),
    (Manner::Storms, 4, "storms"),
    (Manner::Fetches, 8, "poetry fetch"),
];

/// How it ended, as the client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Reset,
    /// By the client's own doing.
    Own,
}

/// A client thread.
pub struct Client {
    pub ledger: Arc<Ledger>,
    pub targets: Arc<Vec<Target>>,
    pub storms: Arc<AtomicUsize>,
    pub rng: Rng,
}

/// A request under way.
struct Asking<'a> {
    target: &'a Target,
    key: String,
    /// No later than the look-up.
    at: Instant,
    manner: &'static str,
    got: Vec<u8>,
    /// A write met a reset: that is told once, and what is read behind it would look like an end.
    broken: bool,
}

impl Client {
    /// Asks again and again until the soak is over.
    pub fn run(mut self) {
        while !self.ledger.is_over() {
            let (manner, name) = choose(&mut self.rng, &MANNERS);
            let targets = self.targets.clone();
            let target = &targets[[0, 0, 0, 1, 2][self.rng.usize(..5)]]; // the first has all the names
            let result = match manner {
                Manner::Storms => self.storm(target, name),
                Manner::Fetches => self.fetch(target, name),
                manner => self.ask(target, manner, name),
            };
            if let Err(error) = result {
                self.ledger.violation(
                    "client",
                    format!("a client that {name} at {}: {error}", target.name),
                );
            }
        }
    }

    /// Half of the requests are for a few names, so that there are hits, and many who wait for the same.
    fn key(&mut self, target: &Target) -> String {
        const POPULAR: usize = 10;
        if !target.asks {
            return target.name.to_string();
        }
        let most = if self.rng.bool() { POPULAR } else { KEYS };
        format!("name{}", self.rng.usize(..most))
    }

    fn asking<'a>(&mut self, target: &'a Target, manner: &'static str) -> Asking<'a> {
        let key = self.key(target);
        Asking {
            target,
            key,
            at: Instant::now(),
            manner,
            got: Vec::new(),
            broken: false,
        }
    }

    fn ask(&mut self, target: &Target, manner: Manner, name: &'static str) -> io::Result<()> {
        let mut asking = self.asking(target, name);
        let Some(mut stream) = connect(target)? else {
            self.ledger.count(name, "reset");
            return Ok(());
        };
        let end = match manner {
            Manner::TalksNonsense => self.talk_nonsense(&mut asking, &mut stream)?,
            manner => {
                self.say_request(&mut asking, &mut stream, manner);
                self.listen(&mut asking, &mut stream, manner)?
            }
        };
        asking.judge(&self.ledger, end);
        Ok(())
    }

    fn say_request(&mut self, asking: &mut Asking, stream: &mut TcpStream, manner: Manner) {
        const SLOWEST_MS: u64 = 500;
        if asking.target.asks {
            let line = format!("{}\r\n", asking.key);
            if manner != Manner::AsksSlowly {
                return asking.say(stream, line.as_bytes());
            }
            for byte in line.as_bytes() {
                std::thread::sleep(Duration::from_millis(self.rng.u64(..SLOWEST_MS)));
                asking.say(stream, &[*byte]);
            }
        } else if manner == Manner::TalksOnAndOn {
            asking.say(stream, b"nobody has asked for this\r\n");
        }
    }

    fn listen(
        &mut self,
        asking: &mut Asking,
        stream: &mut TcpStream,
        manner: Manner,
    ) -> io::Result<End> {
        const A_PART: usize = 64 << 10;
        match manner {
            Manner::Leaves => return Ok(End::Own),
            Manner::HalfCloses => {
                let _broken_already = stream.shutdown(Shutdown::Write);
            }
            Manner::IsStuck => std::thread::sleep(Duration::from_millis(self.rng.u64(100..3_000))),
            Manner::TalksOnAndOn => return self.talk_on(asking, stream),
            Manner::ReadsByteByByte => {
                if let Some(end) = read_byte_by_byte(asking, stream)? {
                    return Ok(end);
                }
            }
            Manner::ResetsMidway => {
                let most = self.rng.u64(..A_PART as u64);
                if let Some(end) = asking
                    .read(&mut (&*stream).take(most))?
                    .filter(|_| asking.got.len() < most as usize)
                {
                    return Ok(end);
                }
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                return Ok(End::Own);
            }
            _ => {}
        }
        asking.read_on(stream)
    }

    /// Says what nobody has asked for, between the pieces of what it gets. Less than the proxy is ready to discard.
    fn talk_on(&mut self, asking: &mut Asking, stream: &mut TcpStream) -> io::Result<End> {
        const TIMES: usize = 20;
        for _ in 0..TIMES {
            let most = self.rng.u64(1..8 << 10);
            let words = vec![b'x'; self.rng.usize(1..1 << 10)];
            asking.say(stream, &words);
            let before = asking.got.len();
            let end = asking.read(&mut (&*stream).take(most))?;
            if asking.got.len() - before < most as usize {
                return Ok(end.unwrap_or(End::Clean));
            }
        }
        asking.read_on(stream)
    }

    /// Bytes that are no request; whoever said none has no answer coming. In the other protocol they cost nothing.
    fn talk_nonsense(&mut self, asking: &mut Asking, stream: &mut TcpStream) -> io::Result<End> {
        const TOO_LONG: usize = 4 << 10;
        let unended = self.rng.bool();
        let nonsense = match self.rng.u32(..3) {
            0 => vec![b'x'; self.rng.usize(1025..TOO_LONG)],
            1 => vec![0x07; self.rng.usize(1..TOO_LONG)],
            _ => b"a line without its end".to_vec(),
        };
        asking.say(stream, &nonsense);
        if unended || !asking.target.asks {
            let _broken_already = stream.shutdown(Shutdown::Write);
        }
        let end = asking.read_on(stream)?;
        if asking.target.asks && (end == End::Clean || !asking.got.is_empty()) {
            let (name, got) = (asking.target.name, asking.got.len());
            self.ledger.violation(
                "nonsense",
                format!("{name}: nonsense was answered with {got} bytes, then {end:?}"),
            );
            return Ok(End::Own);
        }
        Ok(end)
    }

    /// Many at once who want the same.
    fn storm(&mut self, target: &Target, name: &'static str) -> io::Result<()> {
        let storms = self.storms.clone();
        let result = match storms.fetch_add(1, Ordering::AcqRel) < STORMS {
            true => self.storm_once(target, name),
            false => Ok(()),
        };
        storms.fetch_sub(1, Ordering::AcqRel);
        result
    }

    fn storm_once(&mut self, target: &Target, name: &'static str) -> io::Result<()> {
        let key = self.key(target);
        let mut all = Vec::with_capacity(STORM);
        for _ in 0..STORM {
            let mut asking = self.asking(target, name);
            asking.key.clone_from(&key);
            match connect(target)? {
                Some(mut stream) => {
                    self.say_request(&mut asking, &mut stream, Manner::Storms);
                    all.push((asking, stream));
                }
                None => self.ledger.count(name, "reset"),
            }
        }
        for (mut asking, mut stream) in all {
            let end = asking.read_on(&mut stream)?;
            asking.judge(&self.ledger, end);
        }
        Ok(())
    }

    /// Our own client, as a process, and what it makes of a reset.
    fn fetch(&mut self, target: &Target, name: &'static str) -> io::Result<()> {
        const RESET: i32 = 56;
        let mut asking = self.asking(target, name);
        let mut command = Command::new(crate::proxies::POETRY);
        command.args(["fetch", "--idle-timeout", &format!("{}s", HANG.as_secs())]);
        if target.asks {
            command.args(["--ask", &asking.key]);
        }
        let out = command
            .arg(target.addr.to_string())
            .stdin(Stdio::null())
            .output()?;
        asking.got = out.stdout;
        match out.status.code() {
            Some(0) => asking.judge(&self.ledger, End::Clean),
            Some(RESET) => asking.judge(&self.ledger, End::Reset),
            code => {
                let said = String::from_utf8_lossy(&out.stderr);
                self.ledger.violation(
                    "fetch",
                    format!("{}: fetch exited with {code:?}: {said}", target.name),
                );
            }
        }
        Ok(())
    }
}

/// A connection whose reads end in time; none where a reset overtook it.
///
/// `connect_timeout` would ask for SO_ERROR, and swallow a reset that is to be seen behind the bytes.
fn connect(target: &Target) -> io::Result<Option<TcpStream>> {
    let stream = match TcpStream::connect(target.addr) {
        Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    stream.set_read_timeout(Some(HANG))?;
    stream.set_write_timeout(Some(HANG))?;
    Ok(Some(stream))
}

/// So slowly for a while; an end where it comes in that time.
fn read_byte_by_byte(asking: &mut Asking, stream: &mut TcpStream) -> io::Result<Option<End>> {
    const PAUSE: Duration = Duration::from_millis(2);
    const BYTES: usize = 500;
    for _ in 0..BYTES {
        let before = asking.got.len();
        let end = asking.read(&mut (&*stream).take(1))?;
        if asking.got.len() == before {
            return Ok(end);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

impl Asking<'_> {
    /// A reset here is the answer's end; a closed pipe is not: the end came before it, and is still to be read.
    fn say(&mut self, stream: &mut TcpStream, bytes: &[u8]) {
        if stream
            .write_all(bytes)
            .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
        {
            self.broken = true;
        }
    }

    fn read_on(&mut self, stream: &mut TcpStream) -> io::Result<End> {
        self.read(stream).map(|end| end.unwrap_or(End::Clean))
    }

    /// Reads to the end of what is given: an end, where it can be told to be one.
    fn read(&mut self, from: &mut impl Read) -> io::Result<Option<End>> {
        match from.read_to_end(&mut self.got) {
            Ok(_) if self.broken => Ok(Some(End::Reset)),
            Ok(_) => Ok(Some(End::Clean)),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(Some(End::Reset)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(io::Error::other(format!(
                "{} hangs: {} bytes of {} and then silence for {HANG:?}",
                self.manner,
                self.got.len(),
                self.key
            ))),
            Err(e) => Err(e),
        }
    }

    /// The one rule: a clean end stands behind a whole text that is meant, and not too old; before anything else
    /// there is a part of such a text.
    fn judge(&self, ledger: &Ledger, end: End) {
        let outcome = match (examine(&self.key, &self.got), end) {
            (Err(what), _) => Err(("no text", what)),
            (Ok(Found::Whole(serial)), End::Clean) => self.date(ledger, serial),
            (Ok(found), End::Clean) => Err(("a part like a whole", format!("{found:?}"))),
            (Ok(found), End::Reset) => {
                if let Found::Whole(serial) | Found::Part(serial) = found {
                    self.count_if_whole(ledger, serial);
                }
                Ok("reset")
            }
            (Ok(_), End::Own) => Ok("left"),
        };
        match outcome {
            Ok(outcome) => ledger.count(self.manner, outcome),
            Err((kind, what)) => {
                let Asking {
                    target,
                    key,
                    manner,
                    got,
                    ..
                } = self;
                let got = got.len();
                ledger.violation(
                    kind,
                    format!(
                        "{}: {key}, {manner}, {got} bytes, {end:?}: {what}",
                        target.name
                    ),
                );
            }
        }
    }

    /// A reset is always allowed, but it is worth knowing how often a reader gets one instead of a text that its
    /// upstream did end as a whole.
    fn count_if_whole(&self, ledger: &Ledger, serial: u64) {
        if let Some(text) = ledger.text(serial).filter(|text| text.ended.is_some()) {
            ledger.count(
                text.fault,
                if self.manner == READS { "cut" } else { "cut*" },
            );
        }
    }

    /// Whether this text ended as a whole, and may have been given to someone who asked then: how it was come by, or
    /// what is wrong, and of what kind that is.
    fn date(&self, ledger: &Ledger, serial: u64) -> Result<&'static str, (&'static str, String)> {
        let text = ledger
            .text(serial)
            .ok_or(("too old", format!("number {serial} is not known any more")))?;
        let named = format!("number {serial} ({})", text.fault);
        let ended = text.ended.ok_or(("never whole", named.clone()))?;
        let may = (TTL + GRACE) * self.target.links + SLACK;
        let age = self.at.saturating_duration_since(ended);
        if age > may {
            return Err(("too old", format!("{named}, {age:?}")));
        }
        let forgotten = self
            .target
            .signals
            .as_ref()
            .and_then(|signals| signals.last_before(self.at - SLACK));
        if forgotten.is_some_and(|signal| text.began < signal) {
            return Err(("not forgotten", named));
        }
        Ok(if ended < self.at { "kept" } else { "fetched" })
    }
}
