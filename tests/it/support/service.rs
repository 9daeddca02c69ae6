//! Services in this process, on port 0, each built as its scenario reads:
//! `transform_service().request_memory(1 << 20).start()`.

use super::{BUG, Client, Folder, LONG, wait_for_count, wait_until};
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use poetry::addr::Addr;
use poetry::admission::{Admission, AdmissionSettings};
use poetry::anthology::{Anthology, PoemSource};
use poetry::budget::Budget;
use poetry::cache::Purge;
use poetry::control::{Control, Snapshot, Texts};
use poetry::error::Error;
use poetry::flight::{Read, Reader};
use poetry::handler::proxy::Proxy;
use poetry::handler::serve::{Pick, Serve, ServeSettings};
use poetry::handler::transform::{TransformLimits, TransformService};
use poetry::host::Host;
use poetry::net::Listener;
use poetry::observe::{CacheStatus, Observer, Reloaded, Silent};
use poetry::protocol::Protocol;
use poetry::rt;
use poetry::script::Script;
use poetry::server::{Handler, Limits, Parts, Request, Response, Server, Wire};
use poetry::stats::Stats;
use poetry::tier::Tier;
use poetry::transform::Registry;
use poetry::trickle::Pace;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A service that runs until it is dropped.
pub struct Service {
    pub addr: SocketAddr,
    pub stats: Arc<Stats>,
    handler: Arc<dyn Handler>,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) tier: Option<Arc<dyn Tier>>,
    stop: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
    /// Large files are read when they are sent.
    folder: Option<Folder>,
}

impl Service {
    pub(super) fn start<H: Handler>(handler: Arc<H>, wire: Wire, common: Common) -> Service {
        let listener = bind(&common.listen).unwrap();
        let port = match listener.addr() {
            Addr::Tcp { port, .. } => *port,
            Addr::Unix(_) => 0,
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let stats = common.stats.clone();
        let admission = |settings| {
            let admission = Admission::new(settings, stats.clone(), Instant::now());
            Arc::new(admission)
        };
        let server = Server::new(Parts {
            handler: handler.clone(),
            wire,
            limits: common.limits,
            admission: common.admission.map(admission),
            budget: common.budget,
            observer: common.observer,
            stats: common.stats,
        });

        let host = Host::start(server, vec![listener], common.threads, drop).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, ended) = channel();
        rt::spawn(async move {
            host.run(stopped.map(drop)).await;
            let _dropped_before = sender.send(());
        });

        Service {
            addr,
            stats,
            handler,
            proxy: None,
            tier: None,
            stop: Some(stop),
            ended,
            folder: None,
        }
    }

    /// The proxy itself.
    pub fn proxy(&self) -> Arc<Proxy> {
        self.proxy.clone().expect("it is a proxy")
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Connects, and sends `request`.
    pub fn request(&self, request: &[u8]) -> Client {
        let mut client = self.connect();
        client.send(request);
        client
    }

    /// [`Client::get`].
    pub fn get(&self) -> Result<Vec<u8>, ErrorKind> {
        Client::get(self.addr)
    }

    /// [`Client::ask`].
    pub fn ask(&self, request: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        Client::ask(self.addr, request)
    }

    /// Asks without a connection, as if it were `now`.
    pub fn get_at(&self, now: Instant) -> Answer {
        self.ask_at(b"", now)
    }

    /// Sends this request without a connection, as if it were `now`.
    pub fn ask_at(&self, body: &[u8], now: Instant) -> Answer {
        let request = Request {
            from: None,
            body: Bytes::copy_from_slice(body),
            accepted: now,
        };
        Answer(self.handler.clone().respond(request, now))
    }

    /// Asks, without a connection, when any pause after a failed refresh is over.
    pub fn get_after_pause(&self) -> Vec<u8> {
        const LONGEST_PAUSE: Duration = Duration::from_secs(30);
        self.get_at(Instant::now() + LONGEST_PAUSE).read()
    }

    /// What an operator may ask of it; only a proxy has that here.
    pub fn control(&self) -> Arc<dyn Control> {
        self.proxy.clone().expect("only a proxy is controlled")
    }

    /// The figures at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        match &self.proxy {
            Some(proxy) => proxy.snapshot(&self.stats, now),
            None => Snapshot::of(&self.stats, now),
        }
    }

    /// Purges texts of a proxy, as an operator does.
    pub fn purge(&self, texts: Texts<'_>, how: Purge) {
        let proxy = self.proxy.as_deref().expect("only a proxy has texts");
        Control::purge(proxy, texts, how, Instant::now());
    }

    /// What a SIGHUP does.
    pub fn reload(&self) {
        self.handler.reload(Instant::now()).unwrap();
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops it, with its store.
    #[cfg(feature = "store")]
    pub fn stop_and_close(mut self) {
        self.stop();
        assert!(self.has_ended_within(LONG));
        let tier = self.tier.take().expect("it has a store");
        assert!(rt::block_on(tier.close(LONG)));
    }

    /// The figures of its store.
    #[cfg(feature = "store")]
    pub fn store(&self) -> poetry::control::StoreCounts {
        self.snapshot().store.expect("it has a store")
    }

    pub fn has_ended_within(&self, time: Duration) -> bool {
        self.ended.recv_timeout(time).is_ok()
    }

    /// Waits until exactly `wanted` fetches wait for their turn.
    pub fn wait_for_waiting(&self, wanted: usize) {
        let proxy = self.proxy.as_ref().expect("only a proxy has a queue");
        wait_until(&format!("{wanted} fetches wait"), || {
            proxy.waiting_fetches() == wanted
        });
    }

    /// Waits until exactly `wanted` connections are open.
    pub fn wait_for_open(&self, wanted: u64) {
        wait_for_count("open connections", &self.stats.open, wanted);
    }
}

/// An answer without a connection.
pub struct Answer(Response);

impl Answer {
    pub fn is_miss(&self) -> bool {
        self.0.status == CacheStatus::Miss
    }

    pub fn is_hit(&self) -> bool {
        matches!(self.0.status, CacheStatus::Hit(_))
    }

    pub fn is_stale(&self) -> bool {
        self.0.status == CacheStatus::Stale
    }

    /// Whether there is something to read without waiting.
    pub fn is_ready(&self) -> bool {
        self.0.reader.ready().now_or_never().is_some()
    }

    /// Reads it to its end.
    pub fn read(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.0.reader.read() {
                Read::Chunk(bytes) => all.extend_from_slice(&bytes),
                Read::Pending => wait_until("there is more to read", || self.is_ready()),
                Read::End => return all,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What every service has.
pub struct Common {
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    pub(super) stats: Arc<Stats>,
    pub(super) admission: Option<AdmissionSettings>,
    observer: Arc<dyn Observer>,
    listen: String,
    threads: NonZeroUsize,
}

/// A service that is not running yet, with what is special about it.
pub struct Builder<T> {
    pub(super) common: Common,
    pub(super) of: T,
}

impl<T> Builder<T> {
    pub(super) fn new(of: T) -> Builder<T> {
        let limits = Limits {
            max_clients: 10_000,
            max_half_closed: 10_000,
            client_timeout: LONG,
            drain_timeout: LONG,
        };
        let common = Common {
            limits,
            budget: Budget::new(1 << 30),
            stats: Arc::default(),
            admission: None,
            observer: Arc::new(Silent),
            listen: "0".into(),
            threads: NonZeroUsize::MIN,
        };
        Builder { common, of }
    }

    /// Listens there, and not on a free port.
    pub fn listen(mut self, addr: &str) -> Self {
        self.common.listen = addr.into();
        self
    }

    pub fn threads(mut self, threads: usize) -> Self {
        self.common.threads = NonZeroUsize::new(threads).unwrap();
        self
    }

    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.common.limits.drain_timeout = timeout;
        self
    }

    pub fn max_clients(mut self, most: u64) -> Self {
        self.common.limits.max_clients = most;
        self
    }

    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.common.limits.client_timeout = timeout;
        self
    }

    /// What is told of connections, and of the server's own events.
    pub fn server_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.common.observer = observer;
        self
    }

    /// How many bytes all requests together may hold.
    pub fn request_memory(mut self, bytes: u64) -> Self {
        self.common.budget = Budget::new(bytes);
        self
    }
}

/// The transformation service, for poems of at most 1 MiB.
pub fn transform_service() -> Builder<Registry> {
    Builder::new(Registry::default())
}

impl Builder<Registry> {
    /// Adds a program: `NAME=COMMAND ARG...`.
    pub fn program(mut self, program: &str) -> Self {
        self.of.add(program.parse().unwrap()).unwrap();
        self
    }

    pub fn start(self) -> Service {
        let limits = TransformLimits {
            max_poem: 1 << 20,
            timeout: LONG,
        };
        let budget = self.common.budget.clone();
        let (silent, stats) = (Arc::new(Silent), self.common.stats.clone());
        let handler = TransformService::new(self.of, limits, budget, silent, stats);
        let wire = handler.wire();
        Service::start(handler, wire, self.common)
    }
}

/// A server of `poems`, one after the other.
pub fn serve(poems: &[&[u8]]) -> Builder<ServeParts> {
    let folder = Folder::new();
    for (number, poem) in poems.iter().enumerate() {
        folder.write(&format!("{number}.txt"), poem);
    }
    Builder::new(ServeParts {
        folder,
        pace: None,
        protocol: Protocol::Poem,
    })
}

pub struct ServeParts {
    folder: Folder,
    pace: Option<Pace>,
    protocol: Protocol,
}

impl Builder<ServeParts> {
    /// Clients name the poem: `0`, `1` and so on.
    pub fn line(mut self) -> Self {
        self.of.protocol = Protocol::Line;
        self
    }

    pub fn pace(mut self, bytes: usize, delay: Duration) -> Self {
        self.of.pace = Some(Pace { bytes, delay });
        self
    }

    pub fn start(self) -> Service {
        let source = PoemSource::Paths(vec![self.of.folder.path("")]);
        let settings = ServeSettings {
            protocol: self.of.protocol,
            pick: Pick::Cycle,
            pace: self.of.pace,
        };
        let anthology = Anthology::read(source).unwrap();
        let script = Script::new(Vec::new());
        let handler = Serve::new(anthology, settings, script, Arc::new(Silent));
        let wire = handler.wire();

        let mut service = Service::start(handler, wire, self.common);
        service.folder = Some(self.of.folder);
        service
    }
}

/// A service that calls `answer` for each request, and sends what it gives.
pub fn answering<F>(protocol: Protocol, answer: F) -> Service
where
    F: Fn() -> &'static str + Send + Sync + 'static,
{
    let wire = Wire {
        protocol,
        longest_request: 100,
    };
    let common = Builder::new(()).common;
    Service::start(Arc::new(Answering { answer }), wire, common)
}

/// Clients of a service that was told to stop before it accepted the first of them, and
/// that has ended.
pub fn serve_backlog(
    clients: usize,
    poem: &'static str,
    observer: Arc<dyn Observer>,
) -> Vec<Client> {
    let listener = bind("0").unwrap();
    let addr = listener.addr().to_string().parse().unwrap();
    let clients = (0..clients).map(|_| Client::connect(addr)).collect();

    let server = server(move || poem, observer);
    rt::block_on(server.run(vec![listener], std::future::ready(())));
    clients
}

/// What becomes of a service with two threads, of which one ends by a panic.
pub fn run_with_a_broken_thread() -> std::thread::Result<()> {
    let server = server(|| "poem", Arc::new(Silent));
    let listeners = vec![bind("0").unwrap()];
    let two = NonZeroUsize::new(2).unwrap();
    let host = Host::start(server, listeners, two, |_| panic!("{BUG}")).unwrap();

    let run = || rt::block_on(rt::within(LONG, host.run(std::future::pending())));
    catch_unwind(AssertUnwindSafe(run)).map(drop)
}

/// A server of the poem protocol that is not running yet.
fn server<F>(answer: F, observer: Arc<dyn Observer>) -> Arc<Server<Answering<F>>>
where
    F: Fn() -> &'static str + Send + Sync + 'static,
{
    let common = Builder::new(()).common;
    Server::new(Parts {
        handler: Arc::new(Answering { answer }),
        wire: Wire {
            protocol: Protocol::Poem,
            longest_request: 0,
        },
        limits: common.limits,
        admission: None,
        budget: common.budget,
        observer,
        stats: common.stats,
    })
}

struct Answering<F> {
    answer: F,
}

impl<F: Fn() -> &'static str + Send + Sync + 'static> Handler for Answering<F> {
    fn reload(&self, _: Instant) -> Result<Reloaded, Error> {
        Ok(Reloaded::Nothing)
    }

    fn respond(self: Arc<Self>, _: Request, _: Instant) -> Response {
        let answer = (self.answer)();
        Response {
            reader: Reader::of(answer.into()),
            status: CacheStatus::Own,
            route: None,
        }
    }
}

/// Listens at `addr`, as it is written on the command line.
pub fn bind(addr: &str) -> Result<Listener, String> {
    let addr = addr.parse().unwrap();
    rt::block_on(Listener::bind(&addr)).map_err(|e| e.to_string())
}
