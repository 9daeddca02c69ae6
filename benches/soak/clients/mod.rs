//! The clients: threads that ask in every way there is, well-behaved and not, and check
//! what they get.

mod request;

use crate::ledger::{Ledger, Purges};
use crate::plan::{HANG, STORM, STORMS, Weighted, choose};
use fastrand::Rng;
use request::{Ending, Request, connect};
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A proxy, as its clients know it.
pub struct Endpoint {
    pub name: &'static str,
    pub addr: SocketAddr,
    /// Whether it expects a request line. If not, the key of its only poem is its name.
    pub takes_line: bool,
    /// How many proxies cache a text one after the other.
    pub links: u32,
    /// When it was told to purge. `None` if it has a proxy behind it, which has not
    /// purged.
    pub purges: Option<Arc<Purges>>,
    /// Whether it is killed now and then: what can't connect then is no surprise.
    pub is_killed: bool,
}

/// What all clients know.
pub struct Scene {
    pub endpoints: Vec<Endpoint>,
    /// Indices of endpoints: one that stands here more often is asked more often.
    pub shares: Vec<usize>,
    /// How many clients there are.
    pub threads: usize,
    /// How many names there are to ask for.
    pub keys: usize,
    /// The longest pause of a client between two requests, in milliseconds.
    pub pause_ms: u64,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Reads,
    HalfCloses,
    Leaves,
    ResetsMidway,
    KeepsSending,
    ReadsByteByByte,
    IsStuck,
    SendsNonsense,
    AsksSlowly,
    Storms,
    Fetches,
}

/// The name of a client that does nothing but read.
const READS: &str = "reads to the end";

/// The behaviours, their weights, and the names they are counted by.
const BEHAVIOURS: [Weighted<Behaviour>; 11] = [
    (Behaviour::Reads, 400, READS),
    (Behaviour::HalfCloses, 80, "half-closes first"),
    (Behaviour::Leaves, 60, "leaves at once"),
    (Behaviour::ResetsMidway, 60, "resets midway"),
    (Behaviour::KeepsSending, 80, "keeps sending"),
    (Behaviour::ReadsByteByByte, 30, "reads byte by byte"),
    (Behaviour::IsStuck, 15, "is stuck for a while"),
    (Behaviour::SendsNonsense, 40, "sends nonsense"),
    (Behaviour::AsksSlowly, 10, "asks slowly"),
    (Behaviour::Storms, 4, "storms"),
    (Behaviour::Fetches, 8, "poetry fetch"),
];

/// A client thread.
pub struct Client {
    pub ledger: Arc<Ledger>,
    pub scene: Arc<Scene>,
    /// How many storms are under way.
    pub storms: Arc<AtomicUsize>,
    pub rng: Rng,
}

impl Client {
    /// Asks again and again until the soak is over.
    pub fn run(mut self) {
        while !self.ledger.is_over() {
            let (behaviour, name) = choose(&mut self.rng, &BEHAVIOURS);
            let scene = self.scene.clone();
            let share = self.rng.usize(..scene.shares.len());
            let endpoint = &scene.endpoints[scene.shares[share]];

            let result = match behaviour {
                Behaviour::Storms => self.storm(endpoint, name),
                Behaviour::Fetches => self.fetch(endpoint, name),
                behaviour => self.ask(endpoint, behaviour, name),
            };
            if let Err(error) = result {
                let what = format!("a client that {name} at {}: {error}", endpoint.name);
                self.ledger.violation("client", what);
            }
            let pause = self.rng.u64(..=scene.pause_ms);
            std::thread::sleep(Duration::from_millis(pause));
        }
    }

    /// Half of the requests are for a few names, so that there are hits and many
    /// clients that wait for the same fetch.
    fn key(&mut self, endpoint: &Endpoint) -> String {
        const POPULAR: usize = 10;

        if !endpoint.takes_line {
            return endpoint.name.to_string();
        }
        let keys = self.scene.keys;
        let most = if self.rng.bool() { POPULAR } else { keys };
        format!("name{}", self.rng.usize(..most))
    }

    fn ask(
        &mut self,
        endpoint: &Endpoint,
        behaviour: Behaviour,
        name: &'static str,
    ) -> io::Result<()> {
        let mut request = Request::new(endpoint, self.key(endpoint), name);
        let Some(mut stream) = connect(endpoint)? else {
            self.ledger.count(name, "reset");
            return Ok(());
        };

        let ending = if behaviour == Behaviour::SendsNonsense {
            self.send_nonsense(&mut request, &mut stream)?
        } else {
            self.send_request(&mut request, &mut stream, behaviour);
            self.receive(&mut request, &mut stream, behaviour)?
        };
        request.check(&self.ledger, ending);
        Ok(())
    }

    fn send_request(
        &mut self,
        request: &mut Request,
        stream: &mut TcpStream,
        behaviour: Behaviour,
    ) {
        const SLOWEST_MS: u64 = 500;

        if !request.endpoint.takes_line {
            if behaviour == Behaviour::KeepsSending {
                request.send(stream, b"bytes that no server expects\r\n");
            }
            return;
        }

        let line = format!("{}\r\n", request.key);
        if behaviour != Behaviour::AsksSlowly {
            return request.send(stream, line.as_bytes());
        }
        for byte in line.as_bytes() {
            std::thread::sleep(Duration::from_millis(self.rng.u64(..SLOWEST_MS)));
            request.send(stream, &[*byte]);
        }
    }

    fn receive(
        &mut self,
        request: &mut Request,
        stream: &mut TcpStream,
        behaviour: Behaviour,
    ) -> io::Result<Ending> {
        match behaviour {
            Behaviour::Leaves => return Ok(Ending::Own),
            Behaviour::KeepsSending => return self.keep_sending(request, stream),
            Behaviour::ResetsMidway => return self.reset_midway(request, stream),
            Behaviour::HalfCloses => {
                let _broken_already = stream.shutdown(Shutdown::Write);
            }
            Behaviour::IsStuck => {
                std::thread::sleep(Duration::from_millis(self.rng.u64(100..3_000)));
            }
            Behaviour::ReadsByteByByte => {
                if let Some(ending) = read_byte_by_byte(request, stream)? {
                    return Ok(ending);
                }
            }
            _ => {}
        }

        request.read_to_end(stream)
    }

    /// Reads a part and resets the connection.
    fn reset_midway(
        &mut self,
        request: &mut Request,
        stream: &mut TcpStream,
    ) -> io::Result<Ending> {
        const LARGEST_PART: u64 = 64 << 10;

        let most = self.rng.u64(..LARGEST_PART);
        let ending = request.read(&mut (&*stream).take(most))?;
        let is_short = request.got.len() < most as usize;
        if let Some(ending) = ending.filter(|_| is_short) {
            return Ok(ending);
        }

        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
        Ok(Ending::Own)
    }

    /// Sends bytes that no server expects, between the pieces it reads. Less than the
    /// proxy is ready to discard.
    fn keep_sending(
        &mut self,
        request: &mut Request,
        stream: &mut TcpStream,
    ) -> io::Result<Ending> {
        const TIMES: usize = 20;

        for _ in 0..TIMES {
            let most = self.rng.u64(1..8 << 10);
            let bytes = vec![b'x'; self.rng.usize(1..1 << 10)];
            request.send(stream, &bytes);

            let before = request.got.len();
            let ending = request.read(&mut (&*stream).take(most))?;
            if request.got.len() - before < most as usize {
                return Ok(ending.unwrap_or(Ending::Clean));
            }
        }
        request.read_to_end(stream)
    }

    /// Sends bytes that are not a request, or only where the client closes behind them.
    /// Else they must get no answer in the line protocol; in the poem protocol they
    /// must not matter.
    fn send_nonsense(
        &mut self,
        request: &mut Request,
        stream: &mut TcpStream,
    ) -> io::Result<Ending> {
        const TOO_LONG: usize = 4 << 10;
        /// A request only if the client closes behind it.
        const UNENDED: &str = "a-line-without-its-end";

        let half_closes = self.rng.bool();
        let takes_line = request.endpoint.takes_line;
        let kind = self.rng.u32(..3);
        let nonsense = match kind {
            0 => vec![b'x'; self.rng.usize(1025..TOO_LONG)],
            1 => vec![0x07; self.rng.usize(1..TOO_LONG)],
            _ => UNENDED.as_bytes().to_vec(),
        };
        request.send(stream, &nonsense);
        if half_closes || !takes_line {
            let _broken_already = stream.shutdown(Shutdown::Write);
        }

        let ending = request.read_to_end(stream)?;
        let is_ended_by_close = takes_line && half_closes && kind == 2;
        if is_ended_by_close {
            request.key = UNENDED.to_string();
            return Ok(ending);
        }

        if takes_line && (ending == Ending::Clean || !request.got.is_empty()) {
            let name = request.endpoint.name;
            let got = request.got.len();
            let what = format!("{name}: nonsense was answered with {got} bytes, then {ending:?}");
            self.ledger.violation("nonsense", what);
            return Ok(Ending::Own);
        }
        Ok(ending)
    }

    /// Opens many connections at once for one key, unless there are enough storms.
    fn storm(&mut self, endpoint: &Endpoint, name: &'static str) -> io::Result<()> {
        let storms = self.storms.clone();
        let result = if storms.fetch_add(1, Ordering::AcqRel) < STORMS {
            self.storm_once(endpoint, name)
        } else {
            Ok(())
        };
        storms.fetch_sub(1, Ordering::AcqRel);
        result
    }

    fn storm_once(&mut self, endpoint: &Endpoint, name: &'static str) -> io::Result<()> {
        let key = self.key(endpoint);
        let mut all = Vec::with_capacity(STORM);
        for _ in 0..STORM {
            let mut request = Request::new(endpoint, key.clone(), name);
            if let Some(mut stream) = connect(endpoint)? {
                self.send_request(&mut request, &mut stream, Behaviour::Storms);
                all.push((request, stream));
            } else {
                self.ledger.count(name, "reset");
            }
        }

        for (mut request, mut stream) in all {
            let ending = request.read_to_end(&mut stream)?;
            request.check(&self.ledger, ending);
        }
        Ok(())
    }

    /// Runs `poetry fetch` as a process, and checks its output against its exit code.
    fn fetch(&mut self, endpoint: &Endpoint, name: &'static str) -> io::Result<()> {
        const RESET: i32 = 56;
        const NOT_REACHED: i32 = 7;

        let mut request = Request::new(endpoint, self.key(endpoint), name);
        let mut command = Command::new(crate::proxies::POETRY);
        command.args(["fetch", "--idle-timeout", &format!("{}s", HANG.as_secs())]);
        if endpoint.takes_line {
            command.args(["--ask", &request.key]);
        }
        let out = command
            .arg(endpoint.addr.to_string())
            .stdin(Stdio::null())
            .output()?;

        request.got = out.stdout;
        match out.status.code() {
            Some(0) => request.check(&self.ledger, Ending::Clean),
            Some(RESET) => request.check(&self.ledger, Ending::Reset),
            Some(NOT_REACHED) if endpoint.is_killed => self.ledger.count(name, "reset"),
            code => {
                let errors = String::from_utf8_lossy(&out.stderr);
                let what = format!("{}: fetch exited with {code:?}: {errors}", endpoint.name);
                self.ledger.violation("fetch", what);
            }
        }
        Ok(())
    }
}

/// Reads byte by byte for a while. Returns the ending, if it comes in that time.
fn read_byte_by_byte(request: &mut Request, stream: &mut TcpStream) -> io::Result<Option<Ending>> {
    const PAUSE: Duration = Duration::from_millis(2);
    const BYTES: usize = 500;

    for _ in 0..BYTES {
        let before = request.got.len();
        let ending = request.read(&mut (&*stream).take(1))?;
        if request.got.len() == before {
            return Ok(ending);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}
