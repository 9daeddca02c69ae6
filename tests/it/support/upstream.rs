//! A scripted upstream: it sends what the test tells it to, and counts its connections.

use super::{LONG, reset};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::Duration;

pub struct FakeUpstream {
    pub addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepted: Receiver<TcpStream>,
}

impl FakeUpstream {
    pub fn new() -> FakeUpstream {
        let listener = TcpListener::from(listen(1024));
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, accepted) = channel();

        let counter = connections.clone();
        spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::AcqRel);
                if sender.send(stream.unwrap()).is_err() {
                    return;
                }
            }
        });

        FakeUpstream {
            addr,
            connections,
            accepted,
        }
    }

    /// How many connections have come so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// The next connection.
    pub fn accept(&self) -> Connection {
        let stream = self.accepted.recv_timeout(LONG);
        Connection::new(stream.expect("no connection came"))
    }

    /// Answers the next connection with `poem`.
    pub fn serve_once(&self, poem: &[u8]) {
        self.accept().send(poem).close();
    }

    /// Answers every connection with `poem` from now on.
    pub fn serve_always(self, poem: &'static [u8]) {
        self.serve_each(|_, connection| connection.send(poem).close());
    }

    /// Calls `serve` with every connection from now on, one after the other, and with
    /// its number, from 0.
    pub fn serve_each(self, serve: impl Fn(usize, Connection) + Send + 'static) {
        spawn(move || {
            for (number, stream) in self.accepted.into_iter().enumerate() {
                serve(number, Connection::new(stream));
            }
        });
    }
}

/// One connection to the upstream, seen from the upstream.
pub struct Connection {
    pub stream: TcpStream,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Connection { stream }
    }

    pub fn send(mut self, bytes: &[u8]) -> Connection {
        self.stream.write_all(bytes).unwrap();
        self
    }

    /// Sends as much as the other end takes.
    pub fn try_send(mut self, bytes: &[u8]) -> Connection {
        let _hung_up = self.stream.write_all(bytes);
        self
    }

    /// Sends each byte in a packet of its own, `pause` apart. Stops at a hang-up.
    pub fn send_bytewise(mut self, bytes: &[u8], pause: Duration) -> Connection {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).is_err() {
                break;
            }
            if !pause.is_zero() {
                park_timeout(pause);
            }
        }
        self
    }

    /// Sends `poem` and closes, on a thread: a long one waits for its readers.
    pub fn send_in_background(self, poem: impl Into<Vec<u8>>) -> JoinHandle<()> {
        let poem = poem.into();
        spawn(move || self.send(&poem).close())
    }

    /// Sends `x` on a thread, until the other end hangs up.
    pub fn flood(mut self) -> JoinHandle<()> {
        spawn(move || while self.stream.write_all(&[b'x'; 64 << 10]).is_ok() {})
    }

    /// Reads exactly `count` bytes of the request.
    pub fn read(mut self, count: usize) -> (Connection, Vec<u8>) {
        let mut request = vec![0; count];
        self.stream.read_exact(&mut request).unwrap();
        (self, request)
    }

    /// Reads the request until the other end closes its sending half.
    pub fn read_to_end(mut self) -> (Connection, Vec<u8>) {
        let mut request = Vec::new();
        self.stream.read_to_end(&mut request).unwrap();
        (self, request)
    }

    /// Reads exactly `count` bytes of the request, and forgets them.
    pub fn skip(self, count: usize) -> Connection {
        self.read(count).0
    }

    /// Waits until a byte of the request has come, and leaves it there.
    pub fn wait_until_readable(&self) {
        self.stream.peek(&mut [0]).unwrap();
    }

    /// Sends nothing until the other end hangs up.
    pub fn wait_for_hangup(mut self) {
        let _hung_up = self.stream.read(&mut [0]);
    }

    /// Ends the poem: a clean FIN.
    pub fn close(self) {
        let _already_gone = self.stream.shutdown(Shutdown::Write);
    }

    pub fn reset(self) {
        reset(self.stream);
    }
}

/// An address that refuses connections.
pub fn unused_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// An address where connecting neither succeeds nor fails: the listener's queue is
/// full, and the kernel drops whatever comes.
pub struct BlackHole {
    pub addr: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub fn new() -> BlackHole {
        let listener = listen(0);
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

fn listen(backlog: i32) -> Socket {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any_port.into()).unwrap();
    listener.listen(backlog).unwrap();
    listener
}
