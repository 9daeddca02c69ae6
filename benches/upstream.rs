//! An upstream on a thread of this process, for measurements that decide how each fetch
//! goes.

use crate::floor::listener;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A listening upstream.
pub struct Upstream {
    pub addr: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Upstream {
    /// Calls `answer` on a thread of its own for each connection, with the connection's
    /// number, from 0 up.
    pub fn start(
        answer: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> io::Result<Upstream> {
        let listener = TcpListener::from(listener()?);
        let upstream = Upstream {
            addr: listener.local_addr()?,
            calls: Arc::default(),
        };

        let calls = upstream.calls.clone();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for call in listener.incoming().flatten() {
                let number = calls.fetch_add(1, Ordering::AcqRel);
                let answer = answer.clone();
                std::thread::spawn(move || answer(number, call));
            }
        });
        Ok(upstream)
    }

    /// How many connections there have been.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }
}

/// Keeps the caller waiting until this program ends.
pub fn keep_waiting(caller: TcpStream) {
    loop {
        std::thread::park();
        let _still_open = &caller;
    }
}
