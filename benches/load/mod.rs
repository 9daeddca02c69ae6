//! The load generator. It checks every connection: a poem that comes short or ends in a
//! reset fails the measurement.

mod clients;

pub use clients::Clients;

use crate::machine::{Cores, Work, descriptors, is_stopped, until};
use crate::peers::Server;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A server to measure.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub addr: SocketAddr,
    pub pid: Pid,
    /// The length of its poem, in bytes.
    pub len: u64,
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
    let mut clients = Clients::new(target.addr)?;
    let queued = clients.connect_more(count);

    let start = Instant::now();
    kill_process(target.pid, Signal::CONT)?;
    queued?;
    clients.read_whole(target.len)?;
    Ok(start.elapsed().as_secs_f64())
}

/// A rate, and how busy the cores were meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Poems per second.
    pub poems: f64,
    /// Busy fraction of the server's core.
    pub server: f64,
    /// Busy fraction of the load generator's core.
    pub load: f64,
}

/// How many clients ask at a time for a rate: enough to keep a burst in the server's
/// queue, few enough to stay in its caches.
const ASKING: usize = 128;

/// How long a server is loaded before its poems are counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// The rate at which a server answers clients that ask again and again for `time`.
pub fn rate(target: Target, cores: Cores, time: Duration) -> io::Result<Rate> {
    let mut clients = Clients::new(target.addr)?;
    clients.start(ASKING)?;
    clients.keep_asking(target.len, WARM_UP)?;

    let before = [Work::of(cores.server)?, Work::of(cores.load)?];
    let start = Instant::now();
    let served = clients.keep_asking(target.len, time)?;
    let poems = served as f64 / start.elapsed().as_secs_f64();
    let server = Work::of(cores.server)?.busy_since(before[0]);
    let load = Work::of(cores.load)?.busy_since(before[1]);

    // The next server must not be charged for what is still under way.
    clients.read_whole(target.len)?;
    Ok(Rate {
        poems,
        server,
        load,
    })
}

/// How long `count` clients take to get a large poem, in seconds.
pub fn transfer(target: Target, count: usize) -> io::Result<f64> {
    let start = Instant::now();
    let mut clients = Clients::new(target.addr)?;
    clients.connect_more(count)?;
    clients.read_whole(target.len)?;
    Ok(start.elapsed().as_secs_f64())
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
