//! The load generator. It checks every connection: a poem that comes short or ends in a
//! reset fails the measurement.

mod clients;

pub use clients::{Clients, KEY_LEN};

use crate::figures::Spread;
use crate::machine::{Cores, Work, cpu_time, descriptors, is_stopped, until};
use crate::peers::Server;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a client sends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestLine {
    /// Nothing: the poem protocol.
    None,
    /// The same line every time.
    Same,
    /// A line that no client has sent before.
    New,
}

/// What a client sends, and the length of what it gets, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    pub request: RequestLine,
    pub len: u64,
}

impl Exchange {
    /// A poem, without a request.
    pub const fn poem(len: usize) -> Exchange {
        Exchange {
            request: RequestLine::None,
            len: len as u64,
        }
    }

    /// The answer to a request line.
    pub const fn line(request: RequestLine, len: usize) -> Exchange {
        Exchange {
            request,
            len: len as u64,
        }
    }
}

/// A server to measure.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub addr: SocketAddr,
    pub pid: Pid,
    pub exchange: Exchange,
}

/// Stops the process and returns once it has stopped.
fn stop(pid: Pid) -> io::Result<()> {
    kill_process(pid, Signal::STOP)?;
    until("the server stops", || Ok(is_stopped(pid)))
}

/// How long the server takes to serve `count` clients that queued while it was stopped,
/// in seconds.
pub fn drain(target: Target, count: usize) -> io::Result<f64> {
    stop(target.pid)?;
    let mut clients = Clients::of(target)?;
    let queued = clients.connect_more(count);

    let start = Instant::now();
    kill_process(target.pid, Signal::CONT)?;
    queued?;
    clients.read_whole(target.exchange.len)?;
    Ok(start.elapsed().as_secs_f64())
}

/// A rate, and how busy the cores were meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Poems per second.
    pub poems: f64,
    /// Processor time of the server process for each poem, in seconds.
    pub cpu: f64,
    /// Busy fraction of the server's core.
    pub server: f64,
    /// Busy fraction of the load generator's core.
    pub load: f64,
}

/// How much is asked of a server.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// How many clients ask at a time.
    pub asking: usize,
    /// How long their answers are counted.
    pub time: Duration,
}

/// The demand for hits: enough clients to keep a burst in the server's queue, few
/// enough to stay in its caches.
pub const HITS: Demand = Demand {
    asking: 128,
    time: Duration::from_secs(1),
};

/// How long a server is loaded before its poems are counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// The rate at which a server answers clients that ask again and again.
pub fn rate(target: Target, cores: Cores, demand: Demand) -> io::Result<Rate> {
    let len = target.exchange.len;
    let mut clients = Clients::of(target)?;
    clients.start(demand.asking)?;
    clients.keep_asking(len, WARM_UP)?;

    let before = [Work::of(cores.server)?, Work::of(cores.load)?];
    let cpu = cpu_time(target.pid)?;
    let start = Instant::now();
    let served = clients.keep_asking(len, demand.time)?;
    let poems = served as f64 / start.elapsed().as_secs_f64();
    let cpu = (cpu_time(target.pid)? - cpu).as_secs_f64() / served as f64;
    let server = Work::of(cores.server)?.busy_since(before[0]);
    let load = Work::of(cores.load)?.busy_since(before[1]);

    // The next server must not be charged for what is still under way.
    clients.read_whole(len)?;
    Ok(Rate {
        poems,
        cpu,
        server,
        load,
    })
}

/// Poems per second that clients get when they ask again and again.
pub fn poems_per_second(target: Target, demand: Demand) -> io::Result<f64> {
    let len = target.exchange.len;
    let mut clients = Clients::of(target)?;
    clients.start(demand.asking)?;
    clients.keep_asking(len, WARM_UP)?;

    let start = Instant::now();
    let served = clients.keep_asking(len, demand.time)?;
    let poems = served as f64 / start.elapsed().as_secs_f64();
    clients.read_whole(len)?;
    Ok(poems)
}

/// How long `count` clients take to get a large poem, in seconds.
pub fn transfer(target: Target, count: usize) -> io::Result<f64> {
    let start = Instant::now();
    let mut clients = Clients::of(target)?;
    clients.connect_more(count)?;
    clients.read_whole(target.exchange.len)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The median time of an answer when there is one client at a time, in seconds.
pub fn lone(target: Target, count: usize) -> io::Result<f64> {
    let times: Vec<f64> = (0..count)
        .map(|_| transfer(target, 1))
        .collect::<io::Result<_>>()?;
    let spread = Spread::of(times).expect("count is above zero");
    Ok(spread.median)
}

/// The smallest receive buffer the kernel allows, in bytes. A client that never reads
/// then costs the server's side almost alone.
const SMALL: usize = 2048;

/// Clients that never read, until they are dropped. Returns when the server has
/// accepted them all.
pub fn silent_clients(server: &Server, count: usize) -> io::Result<Vec<Socket>> {
    let before = descriptors(server.pid())?;
    let connect = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(SMALL)?;
        socket.connect(&server.addr.into())?;
        Ok(socket)
    };

    let sockets: Vec<Socket> = (0..count).map(connect).collect::<io::Result<_>>()?;
    until("all clients are accepted", || {
        Ok(descriptors(server.pid())? >= before + count)
    })?;
    Ok(sockets)
}
