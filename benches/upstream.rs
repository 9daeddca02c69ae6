//! An upstream that does what a measurement tells it, on a thread of this process.

use crate::floor::listener;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where it listens, and how often it was called.
pub struct Upstream {
    pub addr: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers each call, the first of which is number 0, on a thread of its own.
    pub fn start(
        answer: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> io::Result<Upstream> {
        let listener = TcpListener::from(listener()?);
        let upstream = Upstream {
            addr: listener.local_addr()?,
            calls: Arc::default(),
        };
        let (calls, answer) = (upstream.calls.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for call in listener.incoming().flatten() {
                let number = calls.fetch_add(1, Ordering::AcqRel);
                let answer = answer.clone();
                std::thread::spawn(move || answer(number, call));
            }
        });
        Ok(upstream)
    }

    /// How often it was called so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }
}

/// Keeps the caller waiting for as long as this program runs.
pub fn keep_waiting(caller: TcpStream) {
    loop {
        std::thread::park();
        let _still_open = &caller;
    }
}
