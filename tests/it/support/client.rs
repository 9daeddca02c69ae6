//! A client on nothing but std's sockets.

use super::LONG;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// What a client gets when its connection is reset.
pub const RESET: Result<Vec<u8>, ErrorKind> = Err(ErrorKind::ConnectionReset);

pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).unwrap()
    }

    pub fn try_connect(addr: SocketAddr) -> Result<Client, ErrorKind> {
        Client::connect_by(new_socket(), addr)
    }

    /// A client with the smallest receive buffer the kernel allows: what it does not
    /// read stays with the server.
    pub fn narrow(addr: SocketAddr) -> Client {
        let socket = new_socket();
        socket.set_recv_buffer_size(1).unwrap();
        Client::connect_by(socket, addr).unwrap()
    }

    /// A client with this address of its own.
    pub fn connect_from(local: &str, addr: SocketAddr) -> Client {
        Client::try_connect_from(local, addr).unwrap()
    }

    pub fn try_connect_from(local: &str, addr: SocketAddr) -> Result<Client, ErrorKind> {
        let socket = new_socket();
        let local: IpAddr = local.parse().unwrap();
        socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
        Client::connect_by(socket, addr)
    }

    /// A plain blocking connect, whose deadline is that of sending. One that polls
    /// would often meet a reset that comes right after it.
    fn connect_by(socket: Socket, addr: SocketAddr) -> Result<Client, ErrorKind> {
        socket.set_write_timeout(Some(LONG)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();

        socket.connect(&addr.into()).map_err(|e| e.kind())?;
        Ok(Client {
            stream: socket.into(),
        })
    }

    /// Asks for the poem of a server that waits for no request. A reset may overtake
    /// the connecting itself.
    pub fn get(addr: SocketAddr) -> Result<Vec<u8>, ErrorKind> {
        Client::try_connect(addr)?.rest()
    }

    /// Sends `request`, as far as it is taken, and gives the whole answer.
    pub fn ask(addr: SocketAddr, request: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        let mut client = Client::connect(addr);
        client.try_send(request);
        client.rest()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _hung_up = self.stream.write_all(bytes);
    }

    /// Reads exactly `count` bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads until a clean end, or gives the error that came instead.
    pub fn rest(&mut self) -> Result<Vec<u8>, ErrorKind> {
        let mut all = Vec::new();
        let end = self.stream.read_to_end(&mut all);
        end.map(|_| all).map_err(|e| e.kind())
    }

    /// Reads to the end, of whatever kind: what came before it, and whether it was
    /// clean.
    pub fn part(&mut self) -> (Vec<u8>, Result<(), ErrorKind>) {
        let mut all = Vec::new();
        let end = self.stream.read_to_end(&mut all);
        (all, end.map(drop).map_err(|e| e.kind()))
    }

    /// Closes the sending half.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Limits how long each read waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    pub fn reset(self) {
        reset(self.stream);
    }
}

fn new_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// Closes `stream` with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
