//! The floor for many clients of one poem in flight: one upstream, no cache.

use super::{LISTENER, accept, send_some};
use crate::poll::{Poll, Ready};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

/// The token of the connection to the upstream.
const UPSTREAM: u64 = LISTENER - 1;

/// Passes one poem from the upstream on to all clients.
pub struct Fan {
    listener: Socket,
    upstream: SocketAddr,
    poll: Poll,
    /// The connection to the upstream, while there is one.
    from: Option<TcpStream>,
    /// What has come so far, and whether that is all.
    poem: Vec<u8>,
    is_whole: bool,
    /// Each client and how many bytes it was sent; `None` once it has everything.
    clients: Vec<Option<(OwnedFd, usize)>>,
}

impl Fan {
    pub fn new(listener: Socket, upstream: SocketAddr) -> io::Result<Fan> {
        Ok(Fan {
            listener,
            upstream,
            poll: Poll::new()?,
            from: None,
            poem: Vec::new(),
            is_whole: false,
            clients: Vec::new(),
        })
    }

    pub fn run(mut self) -> io::Result<()> {
        self.poll.watch(&self.listener, LISTENER, Ready::Input)?;

        loop {
            for token in self.poll.wait(None)? {
                match token {
                    LISTENER => self.accept_all()?,
                    UPSTREAM => self.receive()?,
                    client => self.send_to(client as usize),
                }
            }
            if self.is_whole && self.clients.iter().all(Option::is_none) {
                self.reset();
            }
        }
    }

    /// Forgets the poem: the next client starts another fetch.
    fn reset(&mut self) {
        self.is_whole = false;
        self.from = None;
        self.poem.clear();
        self.clients.clear();
    }

    fn accept_all(&mut self) -> io::Result<()> {
        while let Some(client) = accept(&self.listener)? {
            if self.from.is_none() {
                let from = TcpStream::connect(self.upstream)?;
                from.set_nonblocking(true)?;
                self.poll.watch(&from, UPSTREAM, Ready::Input)?;
                self.from = Some(from);
            }

            let at = self.clients.len();
            self.poll.watch(&client, at as u64, Ready::OutputEdge)?;
            self.clients.push(Some((client, 0)));
            self.send_to(at);
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };

        let mut buffer = vec![0; 256 << 10];
        match recv(from, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                self.poll.forget(from)?;
                self.is_whole = true;
            }
            Ok((count, _)) => self.poem.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(e.into()),
        }

        (0..self.clients.len()).for_each(|at| self.send_to(at));
        Ok(())
    }

    /// Sends a client what it has not been sent yet, and closes behind the last byte.
    fn send_to(&mut self, at: usize) {
        let Some((client, sent)) = &mut self.clients[at] else {
            return;
        };

        while *sent < self.poem.len() {
            match send_some(client, &self.poem[*sent..]) {
                0 => return,
                count => *sent += count,
            }
        }
        if self.is_whole {
            self.clients[at] = None;
        }
    }
}
