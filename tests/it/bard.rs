//! The company the tests need: a scripted upstream, in-process services, plain clients on std's sockets, and the
//! program itself.

mod program;

use poetry::addr::Addr;
use poetry::cache::Policy;
use poetry::client::Timeouts;
use poetry::handler::proxy::{Proxy, ProxySettings, Rejects};
use poetry::handler::transform::TransformService;
use poetry::net::Listener;
use poetry::protocol::Protocol;
use poetry::rt;
use poetry::server::{Handler, Limits, Server};
use poetry::stats::{Observer, Silent, Stats};
use poetry::transform::Registry;
use poetry::upstream::Upstream;
pub use program::{Daemon, command, poetry, text};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine.
pub const LONG: Duration = Duration::from_secs(20);

/// Waits until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < LONG, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

pub fn until_count(what: &str, counter: &AtomicU64, count: u64) {
    until(&format!("{what} = {count}"), || {
        counter.load(Ordering::Acquire) == count
    });
}

/// A scripted upstream: it says what the test tells it to, and counts its callers.
pub struct Bard {
    pub addr: SocketAddr,
    callers: Arc<AtomicUsize>,
    calls: Receiver<TcpStream>,
}

impl Bard {
    pub fn new() -> Bard {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(1024).unwrap();
        let listener = TcpListener::from(listener);
        let (addr, callers) = (
            listener.local_addr().unwrap(),
            Arc::new(AtomicUsize::new(0)),
        );
        let (tell, calls) = channel();
        let counter = callers.clone();
        std::thread::spawn(move || {
            for call in listener.incoming() {
                counter.fetch_add(1, Ordering::AcqRel);
                if tell.send(call.unwrap()).is_err() {
                    return;
                }
            }
        });
        Bard {
            addr,
            callers,
            calls,
        }
    }

    pub fn callers(&self) -> usize {
        self.callers.load(Ordering::Acquire)
    }

    /// The next caller.
    pub fn call(&self) -> Call {
        let stream = self.calls.recv_timeout(LONG).expect("nobody called");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Call { stream }
    }

    /// Answers every caller with this poem from now on.
    pub fn trickle(self, poem: &'static [u8]) {
        self.each(|_, call| call.say(poem).finish());
    }

    /// Does this with every caller from now on, one after the other; they are numbered from 0.
    pub fn each(self, act: impl Fn(usize, Call) + Send + 'static) {
        std::thread::spawn(move || {
            let calls = self.calls.into_iter().map(|stream| Call { stream });
            calls
                .enumerate()
                .for_each(|(number, call)| act(number, call));
        });
    }

    pub fn addr(&self) -> Addr {
        self.addr.into()
    }
}

/// One caller of the bard's.
pub struct Call {
    pub stream: TcpStream,
}

impl Call {
    pub fn say(mut self, text: &[u8]) -> Call {
        self.stream.write_all(text).unwrap();
        self
    }

    /// The same, as far as anybody listens.
    pub fn try_say(mut self, text: &[u8]) -> Call {
        let _gone = self.stream.write_all(text);
        self
    }

    /// Reads this much of the request.
    pub fn try_recv(mut self, count: usize) -> (Call, Vec<u8>) {
        let mut heard = vec![0; count];
        self.stream.read_exact(&mut heard).unwrap();
        (self, heard)
    }

    /// Says nothing until the caller has had enough.
    pub fn hear_nothing(mut self) {
        let _gone = self.stream.read(&mut [0]);
    }

    /// Says a byte at a time, each in a packet of its own, until all is said or nobody listens.
    pub fn spell(mut self, text: &[u8], pause: Duration) -> Call {
        self.stream.set_nodelay(true).unwrap();
        for byte in text {
            if self.stream.write_all(&[*byte]).is_err() {
                break;
            }
            if !pause.is_zero() {
                std::thread::park_timeout(pause);
            }
        }
        self
    }

    pub fn finish(self) {
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    pub fn reset(self) {
        reset(self.stream);
    }
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// An address where connecting neither succeeds nor fails: the queue of the listener is full, and the kernel drops
/// whatever comes.
pub struct BlackHole {
    pub addr: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub fn new() -> BlackHole {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok();
        let queued = (0..3).map_while(connect).collect();
        BlackHole {
            addr,
            _listener: listener,
            _queued: queued,
        }
    }
}

/// As many descriptors as this process may have: some tests hold thousands of clients, and they run side by side.
pub fn many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _as_it_was = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

/// Ends the connection in a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// A service running in this process until it is dropped.
pub struct Running {
    pub addr: SocketAddr,
    pub stats: Arc<Stats>,
    stop: Option<futures::channel::oneshot::Sender<()>>,
    ended: Receiver<()>,
}

pub const LIMITS: Limits = Limits {
    max_clients: 10_000,
    client_timeout: LONG,
    drain_timeout: LONG,
    request_room: 1 << 30,
};

impl Running {
    pub fn start<H: Handler>(
        limits: Limits,
        handler: impl FnOnce(Arc<Stats>) -> Arc<H>,
    ) -> Running {
        let stats = Arc::new(Stats::default());
        let listener = rt::block_on(Listener::bind(&"0".parse().unwrap())).unwrap();
        let Addr::Tcp { port, .. } = listener.addr() else {
            panic!("not a TCP address")
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], *port));
        let server = Server::new(
            handler(stats.clone()),
            limits,
            Arc::new(Silent),
            stats.clone(),
        );
        let (stop, stopped) = futures::channel::oneshot::channel();
        let (tell, ended) = channel();
        rt::spawn(async move {
            let stopped = async {
                let _told_or_dropped = stopped.await;
            };
            server.run(vec![listener], stopped).await;
            let _nobody_waits = tell.send(());
        });
        Running {
            addr,
            stats,
            stop: Some(stop),
            ended,
        }
    }

    pub fn proxy(upstream: &Bard) -> Running {
        Running::proxy_with(settings(upstream), LIMITS)
    }

    pub fn proxy_with(settings: ProxySettings, limits: Limits) -> Running {
        Running::start(limits, |stats| {
            let report: Arc<dyn Observer> = Arc::new(Silent);
            Proxy::new(settings, report, stats)
        })
    }

    pub fn transform(repertoire: Registry, limits: Limits) -> Running {
        Running::start(limits, |_| {
            TransformService::new(repertoire, 1 << 20, LONG, Arc::new(Silent))
        })
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn has_ended_within(&self, time: Duration) -> bool {
        self.ended.recv_timeout(time).is_ok()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// A whole request. A reset may overtake the connecting itself.
    pub fn ask(&self) -> Result<Vec<u8>, ErrorKind> {
        let stream = TcpStream::connect(self.addr).map_err(|e| e.kind())?;
        stream.set_read_timeout(Some(LONG)).unwrap();
        Client { stream }.rest()
    }

    pub fn open(&self, count: u64) {
        until_count("open connections", &self.stats.open, count);
    }
}

pub fn settings(upstream: &Bard) -> ProxySettings {
    let hour = Duration::from_secs(3600);
    ProxySettings {
        protocol: Protocol::Poem,
        upstream: Upstream::Servers(vec![upstream.addr()]),
        timeouts: Timeouts {
            connect: LONG,
            idle: LONG,
            total: LONG,
        },
        policy: Policy {
            ttl: hour,
            grace: Duration::ZERO,
            fail_ttl: Duration::ZERO,
            capacity: 1 << 30,
        },
        max_poem: 16 << 20,
        whole: false,
        rejects: Rejects::default(),
        upstream_conns: 8,
        patience: LONG,
        workshop: None,
        original_on_failure: false,
    }
}

/// A client on nothing but std's sockets.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Client { stream }
    }

    /// One that takes as little ahead as the kernel allows: what it does not read stays with the server.
    pub fn narrow(addr: SocketAddr) -> Client {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&addr.into()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Client {
            stream: socket.into(),
        }
    }

    /// Exactly this many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut taken = vec![0; count];
        self.stream.read_exact(&mut taken).unwrap();
        taken
    }

    /// All that comes until a clean end, or the error that came instead.
    pub fn rest(&mut self) -> Result<Vec<u8>, ErrorKind> {
        let mut all = Vec::new();
        self.stream
            .read_to_end(&mut all)
            .map(|_| all)
            .map_err(|e| e.kind())
    }

    pub fn say(&mut self, text: &[u8]) {
        self.stream.write_all(text).unwrap();
    }

    /// Says all of it, and hears what comes until a clean end, or the error that came instead.
    pub fn ask(addr: SocketAddr, request: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        let mut client = Client::connect(addr);
        let _early_reset = client.stream.write_all(request);
        client.rest()
    }
}
